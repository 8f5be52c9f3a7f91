"""Weights on disk: model folders, released checkpoints in and out, start weights. No pickled code is executed.

`model_folder` reads and writes medst's own folders. `released_checkpoint` reads and writes the files of Med-ST and MGCA;
`released_names` maps their entries to ours, `safe_unpickle` opens them. `pretrained` fills a model before training.
"""

from medst.weights.model_folder import Loaded, build, build_empty, is_model, save, untrained
from medst.weights.pretrained import RELEASED_TOKENIZER, load_pretrained
from medst.weights.released_checkpoint import convert, export, load, tokenizer_folder

__all__ = [
    "RELEASED_TOKENIZER",
    "Loaded",
    "build",
    "build_empty",
    "convert",
    "export",
    "is_model",
    "load",
    "load_pretrained",
    "save",
    "tokenizer_folder",
    "untrained",
]
