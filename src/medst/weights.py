"""Models on disk: a folder with `model.safetensors`, `config.json` and the tokenizer; no pickle anywhere.

`objective.safetensors` beside them holds the two learnt weightings of the local loss, which only training needs.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from medst import __version__
from medst.errors import MedstError
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes.settings import Recipe, from_dict, to_dict
from medst.tokenizer import continuing_pieces, load_tokenizer

FORMAT = 1


@dataclass
class Loaded:
    """A model with what it takes to use it.

    Attributes:
        model: in evaluation mode.
        objective: the losses with their learnt weightings; None where the folder has none.
        tokenizer: the one that the model was trained with.
        recipe: the settings of the run that made it.
        fingerprint: sha256 of the weights' file, hexadecimal; of nothing for an untrained model.
    """

    model: MedST
    objective: Objective | None
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe
    fingerprint: str


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[MedST, Objective]:
    """A fresh model and objective of a recipe's shape, their weights drawn from torch's global random state.

    Raises:
        MedstError: the recipe's vocabulary is not that of the tokenizer.
    """
    continues = continuing_pieces(tokenizer)
    text = recipe.model.text
    if text.vocabulary not in (0, len(continues)):
        raise MedstError(
            f"model.text.vocabulary is {text.vocabulary}, but the tokenizer has {len(continues)} word pieces; set it to 0."
        )
    settings = replace(recipe.model, text=replace(text, vocabulary=len(continues)))
    model = MedST(settings, continues, int(tokenizer.sep_token_id))
    return model, Objective(recipe.objective, settings.embedding)


def untrained(loaded: Loaded, seed: int) -> Loaded:
    """A model of the same shape with fresh weights, to hold a trained one against."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, objective = build(loaded.recipe, loaded.tokenizer)
    return Loaded(model.eval(), objective.eval(), loaded.tokenizer, loaded.recipe, f"untrained-{seed}")


def save(
    folder: Path, model: MedST, objective: Objective | None, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> None:
    """Write a model folder beside its final name and move it there whole; an older one is replaced."""
    part, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    for leftover in (part, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    part.mkdir(parents=True)
    tokenizer.save_pretrained(str(part))
    recipe = replace(recipe, model=model.settings)
    config = {"format": FORMAT, "medst_version": __version__, "recipe": to_dict(recipe)}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(_tensors(model), part / "model.safetensors", metadata={"format": "pt"})
    if objective is not None:
        save_file(_tensors(objective), part / "objective.safetensors", metadata={"format": "pt"})
    if folder.exists():
        folder.rename(old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Loaded:
    """A model from its folder.

    Raises:
        MedstError: the folder is no model, is damaged, or was written by a newer medst.
    """
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise MedstError(f"{folder}: not a model folder; it needs config.json, model.safetensors and a tokenizer.")
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise MedstError(f"{folder / 'config.json'} is damaged: {error}.") from error
    if config.get("format") != FORMAT:
        raise MedstError(f"{folder}: model format {config.get('format')}, but this medst reads {FORMAT}; update medst.")
    recipe = from_dict(Recipe, config["recipe"])
    tokenizer = load_tokenizer(folder)
    model, objective = build(recipe, tokenizer)
    _fill(model, folder / "model.safetensors")
    has_objective = (folder / "objective.safetensors").is_file()
    if has_objective:
        _fill(objective, folder / "objective.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Loaded(model.eval(), objective.eval() if has_objective else None, tokenizer, recipe, digest)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _fill(module: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MedstError(f"{path} is damaged or no safetensors file: {error}.") from error
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise MedstError(f"{path} does not fit its config.json: {' '.join(str(error).split())[:600]}") from error
