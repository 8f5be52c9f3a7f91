"""State dicts: read from safetensors, written to them, and checked by name, shape, type and value."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medst.errors import MedstError
from medst.files import disk_errors

WORD_EMBEDDINGS = "text.bert.embeddings.word_embeddings.weight"
"""The only entry of a `MedST` whose shape depends on the vocabulary."""
LISTED = 5
"""Most names that a message lists; the others are counted."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        MedstError: the file is damaged or not in this format.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MedstError(f"{path} is damaged or not a safetensors file: {error}.") from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors on any device.

    Raises:
        OSError: the file can't be written; the library itself raises another type.
    """
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:
        with disk_errors(path):
            raise OSError(f"{path} cannot be written: {error}") from error


def check_finite(tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Refuse weights that hold NaN or infinity: everything computed from them would be NaN.

    Raises:
        MedstError: some do; the message names them.
    """
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise MedstError(f"{source} holds NaN or infinity in {_listed(bad)}; take another copy or an earlier one.")


def check_vocabulary(words: Any, pieces: int, source: Path, remedy: str) -> None:
    """Refuse weights for another vocabulary: `words`, the table of word embeddings, has one row per word piece.

    Raises:
        MedstError: the numbers differ; `remedy` ends the message. Anything but a tensor is left to `check_entries`.
    """
    if isinstance(words, Tensor) and words.ndim and len(words) != pieces:
        raise MedstError(f"{source} has {len(words)} word embeddings, but the tokenizer has {pieces} pieces; {remedy}.")


def check_entries(
    found: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    message: str,
    *,
    unexpected: Iterable[str],
    cast: bool = False,
) -> None:
    """Refuse a state dict whose entries are not the wanted ones.

    Args:
        wanted: a tensor of the right shape and dtype for each entry that must be there.
        unexpected: names that must not be there.
        cast: accept any dtype.

    Raises:
        MedstError: entries are missing, unexpected, or of another shape or type; `message`, then lists of them.
    """
    shapes, types = [], []
    for name, like in wanted.items():
        tensor = found.get(name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            types.append(f"{name} ({type(tensor).__name__})")
        elif tensor.shape != like.shape:
            shapes.append(f"{name} ({_shape(tensor)}, not {_shape(like)})")
        elif tensor.dtype != like.dtype and not cast:
            types.append(f"{name} ({_dtype(tensor)}, not {_dtype(like)})")
    problems = {
        "missing": [name for name in wanted if found.get(name) is None],
        "of another shape": shapes,
        "of another type": types,
        "unexpected": list(unexpected),
    }
    phrases = [f"{problem}: {_listed(names)}" for problem, names in problems.items() if names]
    if phrases:
        raise MedstError(f"{message}; {'; '.join(phrases)}.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
