"""Models on disk and in memory: own folders, released checkpoints in and out, start weights. Nothing pickled is executed.

`folder` writes and reads own folders, `released` knows the names in the files of Med-ST and MGCA, `pickles` opens such
files, `checkpoint` takes models from them and writes them back, `initial` fills a fresh model.
"""

from medst.weights.checkpoint import convert, export, load
from medst.weights.folder import Loaded, build, build_empty, is_model, save, untrained
from medst.weights.initial import start

__all__ = ["Loaded", "build", "build_empty", "convert", "export", "is_model", "load", "save", "start", "untrained"]
