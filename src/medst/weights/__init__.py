"""Weights on disk: model folders, released checkpoints in and out, start weights. No pickled code is executed.

`model_folder` reads and writes medst's own folders. `released_checkpoint` reads and writes the files of Med-ST and MGCA;
`released_names` maps their entries to ours, `safe_unpickle` opens them. `pretrained` fills a model before training.
"""

from medst.weights.model_folder import ModelParts, build, build_empty, is_model, read_folder, save, write_files
from medst.weights.pretrained import load_pretrained
from medst.weights.released_checkpoint import convert, export, read_released, tokenizer_folder
from medst.weights.released_names import RELEASED_TOKENIZER

__all__ = [
    "RELEASED_TOKENIZER",
    "ModelParts",
    "build",
    "build_empty",
    "convert",
    "export",
    "is_model",
    "load_pretrained",
    "read_folder",
    "read_released",
    "save",
    "tokenizer_folder",
    "write_files",
]
