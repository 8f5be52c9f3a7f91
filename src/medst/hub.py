"""Weights and tokenizers by name: a local path, or a model of the Hugging Face hub."""

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from medst.errors import MedstError
from medst.files import find_folder

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
SHOWN = 200
"""Most characters of a name that a message repeats."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in a Hugging Face folder; the first one found is read."""


def find(
    name: Path | str, setting: str, patterns: Sequence[str], is_complete: Callable[[Path], bool] | None = None
) -> Path:
    """The local file or folder of this name, or the local copy of a model on the hub.

    An unknown name fails at once: the hub is asked only once, and if it can't be reached the local cache decides.

    Args:
        name: a path, or a hub id OWNER/NAME; a path that exists takes precedence.
        setting: the setting or argument that gave the name; begins the error message.
        patterns: files of the hub's model to fetch, as shell patterns.
        is_complete: whether a folder is complete, for folders that another process may be replacing.

    Raises:
        MedstError: neither exists, the path is a device or a pipe, or the hub refuses.
    """
    local = _local_path(name, setting, is_complete)
    if local is not None:
        return local
    try:
        # Not a mixin's from_pretrained, which asks for one file first and tries that six times.
        return Path(snapshot_download(str(name), allow_patterns=list(patterns)))
    except GatedRepoError:
        reason = "the model is gated; accept its terms on the hub and log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the hub has no public model of this name"
    except (HfHubHTTPError, OSError, ValueError) as error:
        offline = isinstance(error.__cause__, OfflineModeIsEnabled)
        unreached = "HF_HUB_OFFLINE is set" if offline else "the hub can't be reached"
        reason = f"{unreached}, and its local cache does not have the model"
    raise MedstError(
        f"{setting} {name}: no such local file or folder, and the Hugging Face hub did not provide it ({reason}); "
        "check the spelling, or give a local folder."
    )


def check_name(name: Path | str, setting: str) -> None:
    """Refuse a name that is neither a local path nor a possible hub id, without asking the hub; raises as `find`."""
    _local_path(name, setting, Path.is_dir)


def _local_path(name: Path | str, setting: str, is_complete: Callable[[Path], bool] | None) -> Path | None:
    """The path of this name, or None for a possible hub id, which no path into an existing folder is."""
    if not isinstance(name, (str, os.PathLike)):
        raise MedstError(f"{setting} is {name!r}; give a path or a hub id.")
    path, shown = Path(name), str(name) if len(str(name)) <= SHOWN else f"{str(name)[:SHOWN]}..."
    try:
        path = path if is_complete is None else find_folder(path, is_complete)
        kind = path.stat().st_mode
    except FileNotFoundError:
        if HUB_ID.fullmatch(str(name)) and not Path(name).parent.exists():
            return None
        raise MedstError(f"{setting} {shown}: no such file or folder.") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "impossible as a file name"
        raise MedstError(f"{setting} {shown!r}: {reason}.") from None
    if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
        return path
    raise MedstError(f"{setting} {shown}: not a regular file.")


def find_weights(name: Path | str, setting: str, others: Sequence[str] = ()) -> Path:
    """The file of weights with this name, or in the folder or hub model of this name, fetched with the `others`.

    Raises:
        MedstError: as `find`; or the folder has no weights.
    """
    path = find(name, setting, [*others, WEIGHTS[0]])
    if not path.is_dir():
        return path
    if not Path(name).exists() and not (path / WEIGHTS[0]).is_file():
        path = find(name, setting, [*others, *WEIGHTS])  # a model older than safetensors
    found = [path / file for file in WEIGHTS if (path / file).is_file()]
    if not found:
        raise MedstError(f"{setting} {name}: this folder has no weights; it needs {' or '.join(WEIGHTS)}.")
    return found[0]
