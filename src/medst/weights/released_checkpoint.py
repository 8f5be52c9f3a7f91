"""Released Med-ST and MGCA checkpoints in and out: read as a model, converted to a model folder, exported again.

A released checkpoint is mapped, not read: its tensors become the model's without a copy, so that loading takes little more
memory than the model itself.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from medst.errors import MedstError
from medst.files import atomic, claim, is_free, sha256
from medst.objective import Objective
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe
from medst.tokenizer import FILES, load_tokenizer
from medst.weights.model_folder import UNUSED, ModelParts, build_empty, fill, is_model, read_folder, save
from medst.weights.released_names import (
    RELEASED_TOKENIZER,
    TOKEN_TYPES,
    UNUSED_VALUE,
    WORD_EMBEDDINGS,
    ReleasedEntries,
    from_released_names,
    is_lateral,
    released_name,
    to_released_names,
    zeros_for_unused,
)
from medst.weights.safe_unpickle import read_state_dict
from medst.weights.state_dict import check_vocabulary, read_safetensors


def convert(ckpt: Path, out: Path, *, tokenizer: Path | str | None = None, recipe: Recipe = RECIPES["paper"]) -> None:
    """Write a released Med-ST or MGCA checkpoint as a model folder.

    A checkpoint without lateral experts (MGCA's) gets copies of the frontal ones. Entries that the model does not use are
    kept in `released_unused.safetensors`, so that `export` restores the same bits.

    Args:
        ckpt: the released file.
        out: folder to write; an older model in it is replaced.
        tokenizer: folder with Bio_ClinicalBERT's vocab.txt, or a hub id; if not given, the checkpoint's own folder.
        recipe: shape and switches of the model; the released ones are those of `paper`.

    Raises:
        MedstError: the file is not such a checkpoint, is damaged or carries code; no tokenizer; `out` holds something else.
    """
    if not is_free(out) and not (out / "config.json").is_file():
        raise MedstError(f"{out} is not empty and does not hold a model; give a new folder.")
    if ckpt.name == "model.safetensors" and is_model(ckpt.parent):
        raise MedstError(f"{ckpt} is medst's own model already; give a released checkpoint.")
    (model, objective, pieces, recipe, _), entries = read_released(ckpt, tokenizer, recipe)
    with claim(out):
        save(out, model, objective, pieces, recipe, released=entries)


def export(folder: Path, ckpt: Path) -> None:
    """Write a model folder as a checkpoint with the released names, for the released code.

    A converted checkpoint is restored bit for bit. For another model, the entries that the released code requires but
    never uses are zeros. Only the state dict is written, without an optimiser's state.

    Args:
        folder: a model folder.
        ckpt: file to write.

    Raises:
        MedstError: the folder is not a model, or its text encoder uses word order or token types.
    """
    model, objective, _, recipe, _ = read_folder(folder)
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
    # torch would save the whole storage of a tensor that is a part of it.
    state = {
        name: tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor.detach()
        for name, tensor in to_released_names(entries).items()
    }
    with claim(ckpt), atomic(ckpt) as part:
        torch.save({"state_dict": state}, part)


def read_released(ckpt: Path, tokenizer: Path | str | None, recipe: Recipe) -> tuple[ModelParts, ReleasedEntries]:
    """Read a model from a released checkpoint.

    Args:
        ckpt: the released file.
        tokenizer: as for `convert`.
        recipe: shape and switches of the model; the released ones are those of `paper`.

    Returns:
        The model, and the entries of the checkpoint.

    Raises:
        MedstError: the file is not such a checkpoint, is damaged or carries code; or no tokenizer.
    """
    pieces = load_tokenizer(tokenizer or tokenizer_folder(ckpt, "--tokenizer"), "--tokenizer")
    state = read_state_dict(ckpt, "state_dict")
    remedy = f"give its own, which for a released checkpoint is --tokenizer {RELEASED_TOKENIZER}"
    check_vocabulary(state.get(released_name(WORD_EMBEDDINGS)), len(pieces), ckpt, remedy)
    model, objective = build_empty(recipe, pieces)
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
    return (model.eval(), found, pieces, recipe, sha256(ckpt)), entries


def tokenizer_folder(ckpt: Path, flag: str) -> Path:
    """The folder of a released checkpoint, which must hold its tokenizer too.

    Args:
        ckpt: the checkpoint.
        flag: the one that names another tokenizer; for the error message.

    Raises:
        MedstError: there is no such checkpoint, or no tokenizer beside it.
    """
    if not ckpt.is_file():
        raise MedstError(f"{ckpt}: no such file; give a released Med-ST or MGCA checkpoint.")
    if not any((ckpt.parent / name).is_file() for name in FILES):
        raise MedstError(
            f"{ckpt} has no tokenizer beside it: copy vocab.txt of {RELEASED_TOKENIZER} from the Hugging Face hub into its "
            f"folder, or name the tokenizer's folder or hub id ({flag} {RELEASED_TOKENIZER})."
        )
    return ckpt.parent
