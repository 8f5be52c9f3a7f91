"""The entries of a released Med-ST or MGCA checkpoint, and how they correspond to ours.

Unusual here: the table is not written out. Names and shapes follow from a model of ours and a few rules; what the released
code carries along without ever using it is known by pattern. A test holds both against the recorded list of entries.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medst.errors import MedstError
from medst.model.medst import MedST
from medst.objective import Objective

PREFIXES = {
    "vision.": "img_encoder_q.model.",
    "image_global.": "img_encoder_q.global_embed.",
    "image_local.": "img_encoder_q.local_embed.",
    "text_global.": "text_encoder_q.global_embed.",
    "text_local.": "text_encoder_q.local_embed.",
    "text.bert.": "text_encoder_q.model.",
}

WEIGHTINGS = {
    "local.word_weights": "word_element_wise_multi_head",
    "local.patch_weights": "patch_element_wise_multi_head",
}
"""The two attention modules of the local loss. Of theirs, query and key are used; the value part is not."""

UNUSED_VALUE = ".value"
"""Ending under which the unused value rows of a weighting are kept: no entry of the file ends so."""

NEVER_USED = re.compile(
    r"""text_encoder_q\.model\.( embeddings\.position_ids | pooler\..* | encoder\.layer\.\d+\.crossattention\..* )
      | img_encoder_q\.(global|local)_embed_la\..*
      | (word|patch)_local_atten_layer\..*
      | (word|patch)_element_wise_multi_head\.out_proj\..*
      | prototype_layer\.weight""",
    re.VERBOSE,
)
"""Entries that take part in nothing: cross attention, pooler, the `_la` heads, the unused attention layers and MGCA's
prototypes."""

TOKEN_TYPES = "text.bert.embeddings.token_type_embeddings.weight"
"""The one entry of ours that no released file has; it is zero there."""

WORD_EMBEDDINGS = "text.bert.embeddings.word_embeddings.weight"
"""The one entry of ours whose shape is the vocabulary's."""

MOST_NAMES = 5


def released_name(name: str) -> str:
    """The released name of an entry of our model.

    >>> released_name("image_local.head.0.weight")
    'img_encoder_q.local_embed.head.0.weight'
    """
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def is_lateral(name: str) -> bool:
    """Whether an entry, by our name or theirs, belongs to a lateral expert."""
    return ".mlp_l." in name or ".norm2_l." in name


def frontal_of(name: str) -> str:
    """The frontal expert's entry beside a lateral one's."""
    return name.replace(".mlp_l.", ".mlp.").replace(".norm2_l.", ".norm2.")


def is_convolution(name: str, tensor: Tensor) -> bool:
    """Whether the released entry has a third axis of length 1: the local heads are 1 x 1 convolutions there."""
    return tensor.ndim == 2 and name.startswith(("image_local.", "text_local."))


@dataclass
class ReleasedEntries:
    """What was found in a released checkpoint.

    Attributes:
        model: all entries of a `MedST`.
        objective: all entries of an `Objective`; empty where the file has none, as MGCA's.
        unused: entries that take part in nothing, under their released names.
        names: the file's names in the file's order.
        lateral: whether the file has lateral experts; where not, those in `model` are the frontal ones' own tensors.
    """

    model: dict[str, Tensor] = field(default_factory=dict)
    objective: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    lateral: bool = True


def from_released_names(state: Mapping[str, Any], model: MedST, objective: Objective, source: Path) -> ReleasedEntries:
    """Sort the entries of a released checkpoint into those of a model and an objective of the same shape.

    Nothing is copied: what is returned shares memory with `state`.

    Raises:
        MedstError: entries are missing, unexpected, or of another shape or type; the message lists them.
    """
    wanted, head = dict(model.state_dict()), dict(objective.state_dict())
    entries = ReleasedEntries(names=list(state), lateral=any(is_lateral(name) for name in state))
    rest = dict(state)
    problems: dict[str, list[str]] = {"missing": [], "of another shape": [], "of another type": [], "unexpected": []}

    def pop(name: str, shape: Iterable[int], dtype: torch.dtype) -> Tensor | None:
        tensor = rest.pop(name, None)
        if tensor is None:
            problems["missing"].append(name)
        elif not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            problems["of another type"].append(f"{name} ({type(tensor).__name__})")
        elif tensor.shape != torch.Size(shape):
            problems["of another shape"].append(f"{name} ({_shape(tensor.shape)}, not {_shape(shape)})")
        elif tensor.dtype != dtype:
            problems["of another type"].append(f"{name} ({_dtype(tensor.dtype)}, not {_dtype(dtype)})")
        else:
            return tensor
        return None

    for name, like in wanted.items():
        if name == TOKEN_TYPES:
            entries.model[name] = torch.zeros(like.shape, dtype=like.dtype)
        elif entries.lateral or not is_lateral(name):
            shape = (*like.shape, 1) if is_convolution(name, like) else like.shape
            found = pop(released_name(name), shape, like.dtype)
            if found is not None:
                entries.model[name] = found.view(like.shape)
    if not entries.lateral:
        for name in filter(is_lateral, wanted):
            if frontal_of(name) in entries.model:
                entries.model[name] = entries.model[frontal_of(name)]

    if any(name.startswith(tuple(WEIGHTINGS.values())) for name in state):
        for ours, theirs in WEIGHTINGS.items():
            for kind in ("weight", "bias"):
                like = head[f"{ours}.query.{kind}"]
                found = pop(f"{theirs}.in_proj_{kind}", (3 * like.shape[0], *like.shape[1:]), like.dtype)
                if found is not None:
                    query, key, value = found.chunk(3)
                    entries.objective |= {f"{ours}.query.{kind}": query, f"{ours}.key.{kind}": key}
                    entries.unused[f"{theirs}.in_proj_{kind}{UNUSED_VALUE}"] = value

    for name, tensor in rest.items():
        if not NEVER_USED.fullmatch(name):
            problems["unexpected"].append(name)
        elif not isinstance(tensor, Tensor):
            problems["of another type"].append(f"{name} ({type(tensor).__name__})")
        else:
            entries.unused[name] = tensor
    if any(problems.values()):
        raise MedstError(f"{source}: not a released Med-ST or MGCA checkpoint of this size; {list_problems(problems)}.")
    return entries


def to_released_names(entries: ReleasedEntries) -> dict[str, Tensor]:
    """The released entries again, in the order of `entries.names`; the inverse of `from_released_names`, bit for bit."""
    found: dict[str, Tensor] = {
        name: tensor for name, tensor in entries.unused.items() if not name.endswith(UNUSED_VALUE)
    }
    for name, tensor in entries.model.items():
        if name != TOKEN_TYPES and (entries.lateral or not is_lateral(name)):
            found[released_name(name)] = tensor[..., None] if is_convolution(name, tensor) else tensor
    if entries.objective:
        for ours, theirs in WEIGHTINGS.items():
            for kind in ("weight", "bias"):
                parts = [entries.objective[f"{ours}.{part}.{kind}"] for part in ("query", "key")]
                value = entries.unused[f"{theirs}.in_proj_{kind}{UNUSED_VALUE}"]
                found[f"{theirs}.in_proj_{kind}"] = torch.cat([*parts, value])
    return {name: found[name] for name in entries.names}


def zeros_for_unused(model: MedST) -> dict[str, Tensor]:
    """What the released Med-ST has besides our entries, for a model that never came from there: zeros of the right shape.

    A released checkpoint is loaded strictly, so these must be there although nothing uses them.
    """
    s = model.settings
    text, dim, hidden = s.text, s.embedding, s.projection_hidden
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(text.layers):
        cross = f"text_encoder_q.model.encoder.layer.{layer}.crossattention"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= {f"{cross}.{part}.weight": (text.width, text.width), f"{cross}.{part}.bias": (text.width,)}
        shapes |= {f"{cross}.output.LayerNorm.{kind}": (text.width,) for kind in ("weight", "bias")}
    shapes["text_encoder_q.model.pooler.dense.weight"] = (text.width, text.width)
    shapes["text_encoder_q.model.pooler.dense.bias"] = (text.width,)
    for kind, trail in (("global", ()), ("local", (1,))):
        head = f"img_encoder_q.{kind}_embed_la.head"
        shapes |= {f"{head}.0.weight": (hidden, s.vision.width, *trail), f"{head}.0.bias": (hidden,)}
        shapes |= {f"{head}.1.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes |= {f"{head}.3.weight": (dim, hidden, *trail), f"{head}.3.bias": (dim,)}
        shapes |= {f"{head}.4.{part}": (dim,) for part in ("running_mean", "running_var")}
        shapes |= {f"{head}.{number}.num_batches_tracked": () for number in (1, 4)}
    for side in ("word", "patch"):
        whole, used = f"{side}_local_atten_layer", f"{side}_element_wise_multi_head"
        shapes |= {f"{whole}.in_proj_weight": (3 * dim, dim), f"{whole}.in_proj_bias": (3 * dim,)}
        shapes |= {f"{used}.in_proj_weight{UNUSED_VALUE}": (dim, dim), f"{used}.in_proj_bias{UNUSED_VALUE}": (dim,)}
        for layer_name in (whole, used):
            shapes |= {f"{layer_name}.out_proj.weight": (dim, dim), f"{layer_name}.out_proj.bias": (dim,)}
    blank = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
        for name, shape in shapes.items()
    }
    places = model.text.bert.config.max_position_embeddings
    blank["text_encoder_q.model.embeddings.position_ids"] = torch.arange(places)[None]
    return blank


def list_problems(problems: Mapping[str, list[str]]) -> str:
    """Entries by what is wrong with them, as one phrase; long lists are cut and counted.

    >>> list_problems({"missing": ["a.weight", "a.bias"], "unexpected": []})
    'missing: a.weight, a.bias'
    """
    phrases = []
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            phrases.append(f"{problem}: {', '.join(names[:MOST_NAMES])}{more}")
    return "; ".join(phrases)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
