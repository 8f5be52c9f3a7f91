"""Weights and tokenizers by name: a path here, or a model of the Hugging Face hub."""

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
"""Characters of a name that a message repeats."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in a Hugging Face folder; the first one that is there is read."""


def find(
    name: Path | str, what: str, patterns: Sequence[str], is_complete: Callable[[Path], bool] | None = None
) -> Path:
    """The file or folder of this name here, or the local copy of what the hub has under it.

    An unknown name fails at once: the hub is asked one time, and where it can't be reached the local cache decides.

    Args:
        name: a path, or a hub id OWNER/NAME; a path that exists wins.
        what: the setting or argument that gave the name; begins the error message.
        patterns: files of the hub's model to fetch, as shell patterns.
        is_complete: tells a whole folder from half a one, where `name` may be one that is being replaced.

    Raises:
        MedstError: there is neither, it is a device or a pipe, or the hub does not give it.
    """
    here = _here(name, what, is_complete)
    if here is not None:
        return here
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
        f"{what} {name}: no such file or folder here, and not to be had from the Hugging Face hub ({reason}); "
        "check the spelling, or give a local folder."
    )


def check_name(name: Path | str, what: str) -> None:
    """Refuse a name that is neither a path here nor a possible hub id, without asking the hub; raises as `find`."""
    _here(name, what, Path.is_dir)


def _here(name: Path | str, what: str, is_complete: Callable[[Path], bool] | None) -> Path | None:
    """The path of this name, or None for a possible hub id; a path into a folder that is here is never one."""
    if not isinstance(name, (str, os.PathLike)):
        raise MedstError(f"{what} is {name!r}; give a path or a hub id.")
    place, said = Path(name), str(name) if len(str(name)) <= SHOWN else f"{str(name)[:SHOWN]}..."
    try:
        place = place if is_complete is None else find_folder(place, is_complete)
        kind = place.stat().st_mode
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "impossible as a file name"
        raise MedstError(f"{what} {said!r}: {reason}.") from None
    else:
        if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
            return place
        raise MedstError(f"{what} {said}: not a regular file.")
    if not HUB_ID.fullmatch(str(name)) or Path(name).parent.exists():
        raise MedstError(f"{what} {said}: no such file or folder.")
    return None


def find_weights(name: Path | str, what: str, beside: Sequence[str] = ()) -> Path:
    """The file of weights that a name stands for: itself, or the one in its folder, here or from the hub.

    Args:
        name: a file, a folder, or a hub id OWNER/NAME.
        what: the setting that gave the name.
        beside: other files to fetch from the hub with them.

    Raises:
        MedstError: there is no such file or folder, or it holds no weights.
    """
    place = find(name, what, [*beside, WEIGHTS[0]])
    if place.is_dir() and not _weights_in(place) and not Path(name).exists():
        place = find(name, what, [*beside, *WEIGHTS])  # a model older than safetensors
    if place.is_dir():
        found = _weights_in(place)
        if found is None:
            raise MedstError(f"{what} {name}: this folder holds no weights; it needs {' or '.join(WEIGHTS)}.")
        return found
    return place


def _weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
