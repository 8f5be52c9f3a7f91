"""Weights on disk: model folders, released checkpoints in and out, start weights. No pickled code is executed.

`model_folder` reads and writes medst's own folders, `released` the checkpoints of Med-ST and MGCA, which `safe_unpickle`
opens. `pretrained` fills a model before training.
"""

from medst.weights.model_folder import Margin, build, is_model, keep_margin, read_folder, read_margin, save, write_files
from medst.weights.pretrained import load_pretrained
from medst.weights.released import RELEASED_TOKENIZER, convert, export, read_released, tokenizer_folder

__all__ = [
    "RELEASED_TOKENIZER",
    "Margin",
    "build",
    "convert",
    "export",
    "is_model",
    "keep_margin",
    "load_pretrained",
    "read_folder",
    "read_margin",
    "read_released",
    "save",
    "tokenizer_folder",
    "write_files",
]
