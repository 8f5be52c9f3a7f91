"""Checkpoint files of others, opened without executing what is pickled in them.

Unusual here: a PyTorch checkpoint is a pickle, and a pickle can name any function to be called. torch's own restricted
reader rebuilds tensors and plain containers and calls nothing else. An honest Lightning checkpoint also names a few classes
(hyper-parameters, callbacks); those are known by name and become empty objects of a class of ours, so that they are neither
imported nor called. A file that names anything else is refused before its pickle is read.
"""

import pickle
import pickletools
import re
import tarfile
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from medst.errors import MedstError
from medst.files import disk_errors

PLAIN = {
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "collections.defaultdict",
}
"""Dictionaries of another name; what they hold is read as a plain dictionary."""

INERT = re.compile(
    r"""argparse\.Namespace
      | (pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf)\..+
      | numpy\.(dtype|ndarray) | numpy\.(core|_core)\.(multiarray|numeric)\.\w+
      | pathlib\.\w+ | datetime\.\w+ | typing\.\w+
      | builtins\.(int|float|str|bool|list|dict|tuple|object|slice)""",
    re.VERBOSE,
)
"""What Lightning checkpoints are known to name besides tensors. None of it is imported."""


PICKLES = 4
"""Pickles at the beginning of a file of before the zip: a magic number, a version, the machine's sizes, the content."""


class Inert:
    """Stands for an object of a class that is not imported; takes anything and holds nothing."""

    def __new__(cls, *_: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Plain(dict[Any, Any]):
    """Makes plain dictionaries: torch's reader fills no others."""

    def __new__(cls, *_: object) -> Any:
        return {}


def read_checkpoint(path: Path) -> Any:
    """Whatever a checkpoint holds, its tensors mapped from the file and not copied where its format allows that.

    Reads safetensors, torch's zip format (since 1.6) and the pickle format before it.

    Raises:
        MedstError: the file does not exist, is damaged, is no checkpoint, or carries pickled code.
    """
    if not path.is_file():
        raise MedstError(f"{path}: no such file; give a checkpoint (.ckpt, .pth, .bin or .safetensors).")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if not is_zip and _is_tar(path):
        raise MedstError(f"{path} is refused: torch's oldest format, a tar file, can't be read without executing it.")
    try:
        with warnings.catch_warnings(action="ignore"):  # on the pickle's version; what it can't read, it refuses
            return _read_zip(path) if is_zip else torch.load(path, map_location="cpu", weights_only=True)
    except (MedstError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle ends in whatever the reader stumbles over first
        if not is_zip and _is_cut_off(path):
            raise _damaged(path, EOFError("it ends in the middle of its pickle")) from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise _carries_code(path, named.group(1)) from error
        if isinstance(error, pickle.UnpicklingError) and re.search("reduce|create new object|build", str(error)):
            raise _carries_code(path, "a call of what is no tensor") from error
        raise _damaged(path, error) from error


def _read_zip(path: Path) -> Any:
    names = get_unsafe_globals_in_checkpoint(path)
    strange = sorted(name for name in names if name not in PLAIN and not INERT.fullmatch(name))
    if strange:
        raise _carries_code(path, ", ".join(strange))
    # Safe twice: these stand-ins are all that the restricted reader knows besides tensors and containers.
    with safe_globals([(_Plain if name in PLAIN else Inert, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _is_tar(path: Path) -> bool:
    """Whether a file is a plain tar file. `tarfile.is_tarfile` would inflate a gzip file, and raises on half of one."""
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    return True


def _is_cut_off(path: Path) -> bool:
    """Whether a file of before the zip ends inside one of the pickles it begins with; looked through, not executed."""
    with path.open("rb") as file:
        for _ in range(PICKLES):
            if not file.peek(1):
                return False
            try:
                deque(pickletools.genops(file), maxlen=0)
            except Exception:  # as above
                return True
    return False


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        MedstError: it is none, or is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MedstError(f"{path} is damaged or no safetensors file: {error}.") from error


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], about: dict[str, str] | None = None) -> None:
    """A safetensors file of tensors on any device.

    Raises:
        OSError: it can't be written; the library itself raises another type.
    """
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata=about)
    except SafetensorError as error:
        with disk_errors(path):
            raise OSError(f"{path} cannot be written: {error}") from error


def check_finite(tensors: Mapping[str, torch.Tensor], source: Path | str) -> None:
    """Refuse weights that hold NaN or infinity, which would make everything that is computed from them NaN.

    Raises:
        MedstError: some do; the message names them.
    """
    odd = [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise MedstError(
            f"{source} holds NaN or infinity in {', '.join(odd[:5])}{more}; take another copy or an earlier one."
        )


def tensors_of(content: Any, key: str | None, path: Path) -> Mapping[str, Any]:
    """The state dict in a checkpoint's content: under `key`, or the content itself.

    Raises:
        MedstError: there is none.
    """
    state = content.get(key, content) if isinstance(content, Mapping) and key else content
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise MedstError(f"{path}: holds no state dict" + (f" under '{key}'" if key else "") + "; not a checkpoint.")
    strange = [repr(name) for name in state if not isinstance(name, str)]
    if strange:
        raise MedstError(f"{path}: its state dict has keys that are no names: {', '.join(strange[:5])}.")
    return state


def _carries_code(path: Path, names: str) -> MedstError:
    return MedstError(
        f"{path} is refused: it carries pickled code ({names}), and medst executes none; "
        "take a file that holds tensors only, from where the weights were published."
    )


def _damaged(path: Path, error: Exception) -> MedstError:
    first = " ".join(str(error).split(". ")[0].split()) or type(error).__name__
    return MedstError(f"{path} is damaged or not a checkpoint ({first[:160]}); download it again.")
