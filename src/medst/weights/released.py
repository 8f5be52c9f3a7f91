"""Released Med-ST and MGCA checkpoints in and out: read as a model, converted to a model folder, exported again.

There is no table of entries: names and shapes follow from a `MedST` and a few rules, and a pattern matches the entries that
the released code never uses. A test compares both with the recorded list of entries. A checkpoint is mapped, not read: its
tensors become the model's without a copy, so that loading takes little more memory than the model.
"""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BertModel

from medst.errors import MedstError
from medst.files import atomic, claim, is_free, sha256
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes import RECIPES
from medst.tokenizer import FILES, load_tokenizer
from medst.weights.model_folder import UNUSED, ModelParts, build, fill, is_model, read_folder, save
from medst.weights.safe_unpickle import read_state_dict
from medst.weights.state_dict import WORD_EMBEDDINGS, check_entries, check_vocabulary, read_safetensors

RELEASED_TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
"""The model whose vocabulary all released checkpoints have."""
CHECKPOINTS = (b"PK\x03\x04", b"\x80")
"""First bytes of what torch.save writes: a zip file, or a pickle before torch 1.6."""
PREFIXES = {
    "vision.": "img_encoder_q.model.",
    "image_global.": "img_encoder_q.global_embed.",
    "image_local.": "img_encoder_q.local_embed.",
    "text_global.": "text_encoder_q.global_embed.",
    "text_local.": "text_encoder_q.local_embed.",
    "text.bert.": "text_encoder_q.model.",
}
WEIGHTINGS = {
    f"{side}_element_wise_multi_head.in_proj_{kind}": tuple(
        f"local.{side}_weights.{p}.{kind}" for p in ("query", "key")
    )
    for side in ("word", "patch")
    for kind in ("weight", "bias")
}
"""Entries of the local loss's two attention modules, and ours for their query and key; the value part is not used."""
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
"""The only entry of a `MedST` that no released file has; it is zero for the released code."""


def released_name(name: str) -> str:
    """The released name of an entry of a `MedST`.

    >>> released_name("image_local.head.0.weight")
    'img_encoder_q.local_embed.head.0.weight'
    """
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def is_lateral(name: str) -> bool:
    """Whether an entry, by its own or its released name, belongs to a lateral expert."""
    return ".mlp_l." in name or ".norm2_l." in name


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
    has_objective = any(name in state for name in WEIGHTINGS)
    if has_objective:
        head = objective.state_dict()
        wanted |= {theirs: torch.cat([head[query]] * 3) for theirs, (query, _) in WEIGHTINGS.items()}
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
        found |= {name: found[name.replace("_l.", ".")] for name in model.state_dict() if is_lateral(name)}
    entries = ReleasedEntries(found, unused=unused, names=list(state), lateral=lateral)
    if has_objective:
        for theirs, (query, key) in WEIGHTINGS.items():
            entries.objective[query], entries.objective[key], unused[theirs + UNUSED_VALUE] = state[theirs].chunk(3)
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
        for theirs, (query, key) in WEIGHTINGS.items():
            value = entries.unused[theirs + UNUSED_VALUE]
            found[theirs] = torch.cat([entries.objective[query], entries.objective[key], value])
    return {name: found[name] for name in entries.names}


def zeros_for_unused(model: MedST) -> dict[str, Tensor]:
    """The entries of the released Med-ST that a `MedST` does not have, as zeros of the right shape.

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
    for theirs in WEIGHTINGS:
        blank[theirs + UNUSED_VALUE] = attention[theirs.partition(".")[2]].chunk(3)[2]
    kept = {n: t for n, t in blank.items() if NEVER_USED.fullmatch(n) or n.endswith(UNUSED_VALUE)}
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in kept.items()}
    zeros["text_encoder_q.model.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    return zeros


def convert(ckpt: Path, out: Path, *, tokenizer: Path | str | None = None) -> None:
    """Write a released Med-ST or MGCA checkpoint as a model folder.

    A checkpoint without lateral experts (MGCA's) gets copies of the frontal ones. Entries that the model does not use are
    kept in `released_unused.safetensors`, so that `export` restores the same bits.

    Args:
        ckpt: the released file.
        out: folder to write; an older model in it is replaced.
        tokenizer: folder with Bio_ClinicalBERT's vocab.txt, or a hub id; if not given, the checkpoint's own folder.

    Raises:
        MedstError: the file is not such a checkpoint, is damaged or carries code; no tokenizer; `out` holds something else.
    """
    if not is_free(out) and not (out / "config.json").is_file():
        raise MedstError(f"{out} is not empty and does not hold a model; give a new folder.")
    if ckpt.name == "model.safetensors" and is_model(ckpt.parent):
        raise MedstError(f"{ckpt} is a model of medst already; give a released checkpoint.")
    (model, objective, pieces, recipe, *_), entries = read_released(ckpt, tokenizer)
    about = {"names": json.dumps(entries.names), "lateral": json.dumps(entries.lateral)}
    with claim(out):
        save(out, model, objective, pieces, recipe, unused=(entries.unused, about))


def export(folder: Path, ckpt: Path) -> None:
    """Write a model folder as a checkpoint with the released names, for the released code.

    A converted checkpoint is restored bit for bit. For another model, the entries that the released code requires but
    never uses are zeros. Only the state dict is written, without an optimiser's state.

    Raises:
        MedstError: the folder is not a model, or its text encoder uses word order or token types.
    """
    model, objective, _, recipe, *_ = read_folder(folder)
    if recipe.model.text.positions or recipe.model.text.token_types:
        raise MedstError(
            f"{folder}: its text encoder uses positions or token types, which the released code can't; "
            "only models of recipe paper, or with both switched off, can be exported."
        )
    entries = ReleasedEntries(model=dict(model.state_dict()))
    if objective is not None:
        entries.objective = dict(objective.state_dict())
    if (folder / UNUSED).is_file():
        entries.unused = read_safetensors(folder / UNUSED)
        with safe_open(folder / UNUSED, "pt") as file:
            about = file.metadata()
        entries.names, entries.lateral = json.loads(about["names"]), json.loads(about["lateral"])
    else:
        empty = objective or Objective(recipe.objective, recipe.model.embedding)
        entries.objective = entries.objective or {n: torch.zeros_like(t) for n, t in empty.state_dict().items()}
        entries.unused = zeros_for_unused(model)
        joined = {name.removesuffix(UNUSED_VALUE) for name in entries.unused}
        entries.names = sorted(joined | {released_name(n) for n in entries.model if n != TOKEN_TYPES})
    # torch.save writes the whole storage of a tensor, even if the tensor is only a part of it.
    state = {
        name: tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor.detach()
        for name, tensor in to_released_names(entries).items()
    }
    with claim(ckpt), atomic(ckpt) as part:
        torch.save({"state_dict": state}, part)


def read_released(ckpt: Path, tokenizer: Path | str | None) -> tuple[ModelParts, ReleasedEntries]:
    """Read a model from a released checkpoint, and the entries of the checkpoint; `tokenizer` is that of `convert`.

    Raises:
        MedstError: the file is not such a checkpoint, is damaged or carries code; or no tokenizer.
    """
    recipe = RECIPES["paper"]
    pieces = load_tokenizer(tokenizer or tokenizer_folder(ckpt, "--tokenizer"), "--tokenizer")
    state = read_state_dict(ckpt, "state_dict")
    remedy = f"give its own, which for a released checkpoint is --tokenizer {RELEASED_TOKENIZER}"
    check_vocabulary(state.get(released_name(WORD_EMBEDDINGS)), len(pieces), ckpt, remedy)
    model, objective = build(recipe, pieces, "meta")
    entries = from_released_names(state, model, objective, ckpt)
    if not entries.lateral:
        vision = replace(recipe.model.vision, lateral_start="copy")
        recipe = replace(recipe, model=replace(recipe.model, vision=vision))
        # Experts that share memory would be trained as one.
        entries.model = {n: t.clone() if is_lateral(n) else t for n, t in entries.model.items()}
    fill(model, entries.model, ckpt)
    model.settings = recipe.model
    if entries.objective:
        fill(objective, {name: tensor.clone() for name, tensor in entries.objective.items()}, ckpt)
    found = objective.eval() if entries.objective else None
    return (model.eval(), found, pieces, recipe, sha256(ckpt), None), entries


def tokenizer_folder(ckpt: Path, flag: str) -> Path:
    """The folder of a released checkpoint, which must hold its tokenizer too; `flag` would name another one.

    Raises:
        MedstError: there is no such checkpoint, it is a file of another kind, or no tokenizer is in its folder.
    """
    if not ckpt.is_file():
        raise MedstError(f"{ckpt}: no such file; give a released Med-ST or MGCA checkpoint.")
    if not any((ckpt.parent / name).is_file() for name in FILES):
        with ckpt.open("rb") as file:
            if not file.read(4).startswith(CHECKPOINTS):
                raise MedstError(f"{ckpt} is not a model folder, and not a checkpoint; give one of them.")
        raise MedstError(
            f"{ckpt} has no tokenizer beside it: copy vocab.txt of {RELEASED_TOKENIZER} from the Hugging Face hub into its "
            f"folder, or name the tokenizer's folder or hub id ({flag} {RELEASED_TOKENIZER})."
        )
    return ckpt.parent
