"""The entries of a released Med-ST or MGCA checkpoint, and how they correspond to ours.

There is no table: names and shapes follow from a model of ours and a few rules, and what the released code carries along
without using it is known by pattern. A test compares both with the recorded list of entries.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from medst.model.medst import MedST
from medst.objective import Objective
from medst.weights.state_dict import check_entries

RELEASED_TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
"""The model whose vocabulary all released checkpoints have."""

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
"""The two attention modules of the local loss, which use query and key but not the value part."""

KINDS = ("weight", "bias")
UNUSED_VALUE = ".value"
"""Suffix under which the unused value rows of a weighting are kept; no entry of a released file has it."""

NEVER_USED = re.compile(
    r"""text_encoder_q\.model\.( embeddings\.position_ids | pooler\..* | encoder\.layer\.\d+\.crossattention\..* )
      | img_encoder_q\.(global|local)_embed_la\..*
      | (word|patch)_local_atten_layer\..*
      | (word|patch)_element_wise_multi_head\.out_proj\..*
      | prototype_layer\.weight""",
    re.VERBOSE,
)
"""Entries that no computation uses: cross attention, pooler, `_la` heads, unused attention layers, MGCA's prototypes."""

TOKEN_TYPES = "text.bert.embeddings.token_type_embeddings.weight"
"""The only entry of ours that no released file has; it is zero there."""

WORD_EMBEDDINGS = "text.bert.embeddings.word_embeddings.weight"
"""The only entry of ours whose shape depends on the vocabulary."""


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
    """Name of the frontal expert's entry that corresponds to a lateral one."""
    return name.replace(".mlp_l.", ".mlp.").replace(".norm2_l.", ".norm2.")


def is_convolution(name: str, tensor: Tensor) -> bool:
    """Whether the released entry has a third axis of length 1: its local heads are 1 x 1 convolutions."""
    return tensor.ndim == 2 and name.startswith(("image_local.", "text_local."))


@dataclass
class ReleasedEntries:
    """The entries of a released checkpoint, sorted.

    Attributes:
        model: all entries of a `MedST`.
        objective: all entries of an `Objective`; empty if the file has none, as MGCA's.
        unused: entries that no computation uses, under their released names.
        names: the file's names in the file's order.
        lateral: whether the file has lateral experts; if not, those in `model` share the frontal ones' tensors.
    """

    model: dict[str, Tensor] = field(default_factory=dict)
    objective: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    lateral: bool = True


def from_released_names(state: Mapping[str, Any], model: MedST, objective: Objective, source: Path) -> ReleasedEntries:
    """Sort the entries of a released checkpoint into those of a model and an objective of the same shape.

    Nothing is copied: the entries returned share memory with `state`.

    Raises:
        MedstError: entries are missing, unexpected, or of another shape or type; the message lists them.
    """
    lateral = any(is_lateral(name) for name in state)
    own = {
        name: t for name, t in model.state_dict().items() if name != TOKEN_TYPES and (lateral or not is_lateral(name))
    }
    wanted = {released_name(n): t[..., None] if is_convolution(n, t) else t for n, t in own.items()}
    has_objective = any(name.startswith(tuple(WEIGHTINGS.values())) for name in state)
    if has_objective:
        head = objective.state_dict()
        for ours, theirs in WEIGHTINGS.items():
            wanted |= {f"{theirs}.in_proj_{kind}": torch.cat([head[f"{ours}.query.{kind}"]] * 3) for kind in KINDS}
    unused = {name: tensor for name, tensor in state.items() if name not in wanted and NEVER_USED.fullmatch(name)}
    check_entries(
        state,
        wanted | {name: tensor if isinstance(tensor, Tensor) else torch.empty(0) for name, tensor in unused.items()},
        f"{source}: not a released Med-ST or MGCA checkpoint of this size",
        unexpected=[name for name in state if name not in wanted and name not in unused],
    )
    found = {name: state[released_name(name)].view(tensor.shape) for name, tensor in own.items()}
    found[TOKEN_TYPES] = torch.zeros_like(model.state_dict()[TOKEN_TYPES], device="cpu")
    if not lateral:
        found |= {name: found[frontal_of(name)] for name in model.state_dict() if is_lateral(name)}
    entries = ReleasedEntries(found, unused=unused, names=list(state), lateral=lateral)
    if has_objective:
        for ours, theirs in WEIGHTINGS.items():
            for kind in KINDS:
                query, key, value = state[f"{theirs}.in_proj_{kind}"].chunk(3)
                entries.objective |= {f"{ours}.query.{kind}": query, f"{ours}.key.{kind}": key}
                entries.unused[f"{theirs}.in_proj_{kind}{UNUSED_VALUE}"] = value
    return entries


def to_released_names(entries: ReleasedEntries) -> dict[str, Tensor]:
    """The released entries in the order of `entries.names`: the inverse of `from_released_names`, bit for bit."""
    found: dict[str, Tensor] = {
        name: tensor for name, tensor in entries.unused.items() if not name.endswith(UNUSED_VALUE)
    }
    for name, tensor in entries.model.items():
        if name != TOKEN_TYPES and (entries.lateral or not is_lateral(name)):
            found[released_name(name)] = tensor[..., None] if is_convolution(name, tensor) else tensor
    if entries.objective:
        for ours, theirs in WEIGHTINGS.items():
            for kind in KINDS:
                parts = [entries.objective[f"{ours}.{part}.{kind}"] for part in ("query", "key")]
                value = entries.unused[f"{theirs}.in_proj_{kind}{UNUSED_VALUE}"]
                found[f"{theirs}.in_proj_{kind}"] = torch.cat([*parts, value])
    return {name: found[name] for name in entries.names}


def zeros_for_unused(model: MedST) -> dict[str, Tensor]:
    """The entries that the released Med-ST has besides ours, as zeros of the right shape.

    A released checkpoint is loaded strictly, so these must be there although nothing uses them.
    """
    config, dim = copy.copy(model.text.bert.config), model.settings.embedding
    config.is_decoder = config.add_cross_attention = True
    with torch.device("meta"):
        bert = BertModel(config, add_pooling_layer=True).state_dict()
        attention = nn.MultiheadAttention(dim, 1).state_dict()
    blank = {f"text_encoder_q.model.{name}": t for name, t in bert.items()}
    for kind, head in (("global", model.image_global), ("local", model.image_local)):
        for name, tensor in head.state_dict().items():
            used = tensor[..., None] if is_convolution(f"image_{kind}.{name}", tensor) else tensor
            blank[f"img_encoder_q.{kind}_embed_la.{name}"] = used
    for side in ("word", "patch"):
        for name, tensor in attention.items():
            blank[f"{side}_local_atten_layer.{name}"] = blank[f"{side}_element_wise_multi_head.{name}"] = tensor
    blank = {name: torch.zeros_like(t, device="cpu") for name, t in blank.items() if NEVER_USED.fullmatch(name)}
    for theirs in WEIGHTINGS.values():
        blank[f"{theirs}.in_proj_weight{UNUSED_VALUE}"] = torch.zeros(dim, dim)
        blank[f"{theirs}.in_proj_bias{UNUSED_VALUE}"] = torch.zeros(dim)
    blank["text_encoder_q.model.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    return blank
