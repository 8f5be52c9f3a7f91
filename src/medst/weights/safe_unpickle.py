"""Checkpoints from others, opened without executing the code in their pickles.

A PyTorch checkpoint is a pickle, and a pickle can name any function to be called. torch's own restricted reader rebuilds
tensors and plain containers and calls nothing else. An honest Lightning checkpoint also names a few classes
(hyper-parameters, callbacks); those are known by name and become empty objects of a class of ours, so that they are neither
imported nor called. A file that names anything else is refused before its pickle is read.
"""

import pickle
import pickletools
import re
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from medst.errors import MedstError
from medst.weights.state_dict import read_safetensors

DICTIONARIES = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+\.AttributeDict|collections\.defaultdict"
)
"""Classes that are read as plain dictionaries."""
HARMLESS = re.compile(
    r"""argparse\.Namespace
      | (pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf)\..+
      | numpy\.(dtype|ndarray) | numpy\.(core|_core)\.(multiarray|numeric)\.\w+
      | pathlib\.\w+ | datetime\.\w+ | typing\.\w+
      | builtins\.(int|float|str|bool|list|dict|tuple|object|slice)""",
    re.VERBOSE,
)
"""Other names that Lightning checkpoints are known to contain. None of them is imported."""
LEGACY_PICKLES = 4
"""Pickles at the beginning of a file from before torch 1.6: magic number, version, the machine's sizes, the content."""


class Placeholder:
    """Stands for an object of a class that is not imported; accepts any arguments and holds nothing."""

    def __new__(cls, *_: object) -> "Placeholder":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


class _PlainDictionary(dict[Any, Any]):
    """Makes plain dictionaries: torch's reader fills no others."""

    def __new__(cls, *_: object) -> Any:
        return {}


def read_state_dict(path: Path, key: str | None = None) -> Mapping[str, Any]:
    """The state dict in a checkpoint: under `key` if there is one, or the content itself.

    Reads safetensors, torch's zip format (since 1.6) and the pickle format before it. Tensors are mapped from the file and
    not copied where its format allows that. Values may be other things than tensors.

    Raises:
        MedstError: the file does not exist, is damaged, is not a checkpoint, or carries pickled code.
    """
    content = read_checkpoint(path)
    state = content.get(key, content) if isinstance(content, Mapping) and key else content
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise MedstError(f"{path}: holds no state dict" + (f" under '{key}'" if key else "") + "; not a checkpoint.")
    strange = [repr(name) for name in state if not isinstance(name, str)]
    if strange:
        raise MedstError(f"{path}: its state dict has keys that are not names: {', '.join(strange[:5])}.")
    return state


def read_checkpoint(path: Path) -> Any:
    """Everything that a checkpoint holds; otherwise as `read_state_dict`."""
    if not path.is_file():
        raise MedstError(f"{path}: no such file; give a checkpoint (.ckpt, .pth, .bin or .safetensors).")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        with warnings.catch_warnings(action="ignore"):  # about the pickle's version; what torch can't read, it refuses
            return _read_zip(path) if is_zip else torch.load(path, map_location="cpu", weights_only=True)
    except (MedstError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        if "legacy .tar format" in str(error):
            raise MedstError(
                f"{path} is refused: torch's oldest format, a tar file, needs code to be executed."
            ) from error
        if not is_zip and _is_truncated(path):
            raise _damaged(path, EOFError("it ends in the middle of its pickle")) from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise _carries_code(path, named.group(1)) from error
        if isinstance(error, pickle.UnpicklingError) and re.search("reduce|create new object|build", str(error)):
            raise _carries_code(path, "a call that does not make a tensor") from error
        raise _damaged(path, error) from error


def _read_zip(path: Path) -> Any:
    names = get_unsafe_globals_in_checkpoint(path)
    strange = sorted(name for name in names if not DICTIONARIES.fullmatch(name) and not HARMLESS.fullmatch(name))
    if strange:
        raise _carries_code(path, ", ".join(strange))
    # Safe twice: besides tensors and containers, the restricted reader knows these stand-ins and nothing else.
    with safe_globals([(_PlainDictionary if DICTIONARIES.fullmatch(name) else Placeholder, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _is_truncated(path: Path) -> bool:
    """Whether a legacy file ends inside one of its first pickles, which are scanned and not executed."""
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            if not file.peek(1):
                return False
            try:
                deque(pickletools.genops(file), maxlen=0)
            except Exception:  # as above
                return True
    return False


def _carries_code(path: Path, names: str) -> MedstError:
    return MedstError(
        f"{path} is refused: it carries pickled code ({names}), and medst executes none; "
        "take a file that holds tensors only, from where the weights were published."
    )


def _damaged(path: Path, error: Exception) -> MedstError:
    first = " ".join(str(error).split(". ")[0].split()) or type(error).__name__
    return MedstError(f"{path} is damaged or not a checkpoint ({first[:160]}); download it again.")
