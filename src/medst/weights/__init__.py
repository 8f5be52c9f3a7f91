"""Models on disk and in memory: own folders, released checkpoints in and out, start weights. Nothing pickled is executed.

`folder` writes and reads own folders, `released` knows the names in the files of Med-ST and MGCA, `pickles` opens such
files, `checkpoint` takes models from them and writes them back, `initial` fills a fresh model.
"""

from medst.weights.checkpoint import convert, export, folder_of_tokenizer, load
from medst.weights.folder import Loaded, build, build_empty, is_model, save, untrained
from medst.weights.initial import PUBLISHED, start

__all__ = [
    "PUBLISHED",
    "Loaded",
    "build",
    "build_empty",
    "convert",
    "export",
    "folder_of_tokenizer",
    "is_model",
    "load",
    "save",
    "start",
    "untrained",
]
