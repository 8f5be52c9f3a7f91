"""Where training starts from: DeiT's image encoder, a BERT's text encoder, then all that a released checkpoint has.

Unusual here: only what a file does not have keeps its fresh weights. The released code draws weights anew after it has
loaded them, and so wipes most of what it was given.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medst.errors import MedstError
from medst.model.medst import MedST
from medst.weights.pickles import read_checkpoint, tensors_of
from medst.weights.released import OWN, describe, is_convolution, is_lateral, released_name

BERT_FILES = ("model.safetensors", "pytorch_model.bin")


def start(
    model: MedST, *, deit: Path | None = None, bert: Path | None = None, checkpoint: Path | None = None
) -> list[str]:
    """Fill a fresh model from what others have trained, in the order of the arguments; later ones win.

    Lateral experts that no file has are made copies of the frontal ones, unless the model's `lateral_start` is random.

    Args:
        model: any model whose sizes are those of the files.
        deit: checkpoint of a DeiT (patch embedding, positions, blocks and last norm are used; its classifier is not).
        bert: folder of a Hugging Face BERT such as Bio_ClinicalBERT; as many of its first layers as the model has are used.
        checkpoint: a released Med-ST or MGCA checkpoint; all its entries that the model has are used.

    Returns:
        The names of the model's entries that were filled from a file, sorted.

    Raises:
        MedstError: a file is missing, damaged, carries code, lacks entries or has them in other shapes.
    """
    found: dict[str, Tensor] = {}
    if deit is not None:
        found |= _deit(model, deit)
    if bert is not None:
        found |= _bert(model, bert)
    if checkpoint is not None:
        found |= _released(model, checkpoint)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in found.items():
            own[name].copy_(tensor)
    if model.settings.vision.lateral_start == "copy" and not any(is_lateral(name) for name in found):
        model.vision.copy_frontal_experts()
    return sorted(found)


def _fitting(
    model: MedST, wanted: dict[str, str], state: Any, source: Path, partial: bool = False
) -> dict[str, Tensor]:
    """The tensors of `state` by our names, where `wanted` maps our names to theirs."""
    own, found = model.state_dict(), {}
    problems: dict[str, list[str]] = {"missing": [], "of another shape": []}
    for ours, theirs in wanted.items():
        tensor = state.get(theirs)
        if not isinstance(tensor, Tensor):
            if not partial:
                problems["missing"].append(theirs)
            continue
        if is_convolution(ours, own[ours]) and tensor.ndim == 3 and tensor.shape[2] == 1:
            tensor = tensor[..., 0]
        if tensor.shape != own[ours].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(own[ours].shape)}"
            problems["of another shape"].append(f"{theirs} ({shapes})")
            continue
        found[ours] = tensor
    if any(problems.values()):
        raise MedstError(f"{source} does not fit this model; {describe(problems)}.")
    return found


def _deit(model: MedST, path: Path) -> dict[str, Tensor]:
    state = tensors_of(read_checkpoint(path), "model", path)
    names = {f"vision.{name}": name for name in model.vision.state_dict() if not is_lateral(f".{name}")}
    return _fitting(model, names, state, path)


def _bert(model: MedST, folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in BERT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise MedstError(f"{folder}: no BERT folder; it needs {' or '.join(BERT_FILES)}.")
    state = tensors_of(read_checkpoint(path), None, path)
    prefix = "bert." if any(name.startswith("bert.") for name in state) else ""
    # Files of before 2019 call the norms' entries by their Greek letters.
    state = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in state.items()
    }
    names = {f"text.bert.{name}": prefix + name for name in model.text.bert.state_dict()}
    if not model.settings.text.token_types:
        del names[OWN]
    return _fitting(model, names, state, path)


def _released(model: MedST, path: Path) -> dict[str, Tensor]:
    state = tensors_of(read_checkpoint(path), "state_dict", path)
    names = {name: released_name(name) for name in model.state_dict() if name != OWN}
    found = _fitting(model, names, state, path, partial=True)
    if not found:
        raise MedstError(f"{path}: has none of this model's entries; give a released Med-ST or MGCA checkpoint.")
    return found
