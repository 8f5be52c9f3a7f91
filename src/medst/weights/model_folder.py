"""A model's own folder: weights as safetensors, config.json, recipe.json and the tokenizer; no pickle anywhere.

`config.json` holds the settings that are needed to use the model: its shape, the crop and the margin of `compare`.
`recipe.json` is a record of the run that trained it; settings that this version does not know are ignored.
`objective.safetensors` holds the two learnt weightings of the local loss, which only training needs.
`released_unused.safetensors` holds the entries of a converted checkpoint that the model does not use, for its export.

A model is read without drawing weights or copying tensors: it is built on torch's meta device and then given the tensors.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from medst import __version__
from medst.errors import MedstError
from medst.files import disk_errors, misfit, part_of, read_json, recover_folder, replace_folder, sha256, write_json
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes.ranges import outside
from medst.recipes.settings import DataSettings, ModelSettings, Recipe, from_dict, to_dict
from medst.tokenizer import continuing_pieces, load_tokenizer
from medst.weights.state_dict import (
    WORD_EMBEDDINGS,
    check_entries,
    check_finite,
    check_vocabulary,
    read_safetensors,
    write_safetensors,
)
from medst.weights.trained_on import TRAINED_ON

FORMAT = 2
"""Version of config.json. Format 1 held the recipe too."""
REMEDY = "take another copy of the model folder"
UNUSED = "released_unused.safetensors"
PATTERNS = ["*.json", "*.safetensors", "vocab.txt", "README.md"]
"""Files that are fetched of a model on the hub."""
T = TypeVar("T")


@dataclass(frozen=True)
class Margin:
    """The margin of `compare` that was chosen on a run's validation patients, see `medst.use.compare.choose_margin`.

    Attributes:
        value: changes of presence below it count as none.
        statements: number of changes stated in the reports that it was chosen from.
        stable: share of them that the reports call stable.
    """

    value: float
    statements: int
    stable: float


ModelParts: TypeAlias = tuple[MedST, Objective | None, PreTrainedTokenizerBase, Recipe, str, Margin | None]
"""The fields of a `medst.Model`, in their order: networks in evaluation mode, tokenizer, recipe, fingerprint and margin."""


def build(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, device: Literal["cpu", "meta"] = "cpu"
) -> tuple[MedST, Objective]:
    """Build a model and an objective.

    On the CPU, weights are drawn from torch's global random state. On the meta device, entries have no memory until `fill`
    gives them tensors.
    """
    continues = continuing_pieces(tokenizer)
    with torch.device(device):
        model = MedST(recipe.model, continues, int(tokenizer.sep_token_id))
        objective = Objective(recipe.objective, recipe.model.embedding)
    if device == "meta":  # no file has BERT's two constant buffers
        embeddings = model.text.bert.embeddings
        count = embeddings.position_ids.shape[1]
        embeddings.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
        embeddings.register_buffer("token_type_ids", torch.zeros(1, count, dtype=torch.int64), persistent=False)
    return model, objective


def save(
    folder: Path,
    model: MedST,
    objective: Objective | None,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    *,
    unused: tuple[Mapping[str, Tensor], dict[str, str]] | None = None,
    trained_on: Path | None = None,
) -> None:
    """Write a model folder; an older one is replaced when the new one is complete.

    Args:
        unused: tensors and metadata of a converted checkpoint that only its export needs.
        trained_on: a run's trained_on.json, which is copied.
    """
    recover_folder(folder, is_model)
    part = part_of(folder)
    if part.exists():
        shutil.rmtree(part)
    with disk_errors(part):
        part.mkdir(parents=True)
        if unused is not None:
            write_safetensors(part / UNUSED, *unused)
        if trained_on is not None:
            shutil.copyfile(trained_on, part / TRAINED_ON)
        write_files(part, model, objective, tokenizer, recipe)
    replace_folder(folder)


def write_files(
    folder: Path,
    model: MedST,
    objective: Objective | None,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    margin: Margin | None = None,
) -> None:
    """Fill a folder; config.json comes last, so that its existence means that the model is complete."""
    tokenizer.save_pretrained(str(folder))
    write_safetensors(folder / "model.safetensors", model.state_dict(), {"format": "pt"})
    if objective is not None:
        write_safetensors(folder / "objective.safetensors", objective.state_dict(), {"format": "pt"})
    digests = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    write_json(folder / "recipe.json", to_dict(replace(recipe, model=model.settings)), indent=2)
    config = {
        "format": FORMAT,
        "medst_version": __version__,
        "model": to_dict(model.settings),
        "crop": recipe.data.crop,
        "sha256": _digest(to_dict(model.settings), recipe.data.crop),
        "files": digests,
    }
    config |= {} if margin is None else _margin_entry(config, margin)
    write_json(folder / "config.json", config, indent=2)
    for file in folder.glob("*.safetensors"):  # their library makes them readable by the owner alone
        shutil.copymode(folder / "config.json", file)


def keep_margin(folder: Path, margin: Margin) -> None:
    """Store the margin of `compare` in a model's config.json."""
    config = read_json(folder / "config.json", REMEDY, {"model": dict, "crop": int})
    write_json(folder / "config.json", config | _margin_entry(config, margin), indent=2)


def _margin_entry(config: dict[str, Any], margin: Margin) -> dict[str, Any]:
    entry = asdict(margin)
    return {"margin": entry, "sha256": _digest(config["model"], config["crop"], entry)}


def read_margin(folder: Path) -> Margin | None:
    """The margin of `compare` in a model's config.json; None if it has none."""
    return _read_config(folder)[2]


def is_model(folder: Path) -> bool:
    """Whether a folder holds a complete model."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def read_folder(folder: Path) -> ModelParts:
    """Read a model from its folder.

    Raises:
        MedstError: the folder is not a model, is damaged, or was written by a newer medst.
    """
    if not is_model(folder):
        remedy = f"; this is a run, give {folder / 'best'}" if is_model(folder / "best") else ""
        needed = "it needs config.json, model.safetensors and a tokenizer"
        raise MedstError(f"{folder}: not a model folder; {needed}{remedy}.")
    recipe, digests, margin = _read_config(folder)
    tokenizer = load_tokenizer(folder)
    tensors = read_safetensors(folder / "model.safetensors")
    remedy = "put back the tokenizer that was saved with it"
    check_vocabulary(tensors.get(WORD_EMBEDDINGS), len(tokenizer), folder / "model.safetensors", remedy)
    model, objective = build(recipe, tokenizer, "meta")
    fill(model, tensors, folder / "model.safetensors")
    weightings = folder / "objective.safetensors"
    if weightings.is_file():
        fill(objective, read_safetensors(weightings), weightings)
    found = {name: sha256(folder / name) for name in {"model.safetensors", *digests} if (folder / name).is_file()}
    for name, digest in found.items():
        if digests.get(name, digest) != digest:  # models of earlier versions have none
            raise MedstError(f"{folder / name} is damaged: it is not what was saved with config.json; {REMEDY}.")
    fingerprint = found["model.safetensors"]
    return model.eval(), objective.eval() if weightings.is_file() else None, tokenizer, recipe, fingerprint, margin


def _read_config(folder: Path) -> tuple[Recipe, dict[str, str], Margin | None]:
    """The settings of a model, the digests of the files that were saved with config.json, and the margin of `compare`.

    The settings that are needed to use the model are checked. The rest of the recipe is a record, read as far as possible.
    """
    file = folder / "config.json"
    config = read_json(file, REMEDY, {"format": int})
    if config["format"] == FORMAT:
        read_json(file, REMEDY, {"model": dict, "crop": int})
        model, crop = config["model"], config["crop"]
        record = read_json(folder / "recipe.json", REMEDY) if (folder / "recipe.json").is_file() else {}
    elif config["format"] == 1:
        record = read_json(file, REMEDY, {"recipe": {"model": dict, "data": {"crop": int}}})["recipe"]
        model, crop = record["model"], record["data"]["crop"]
    else:
        raise MedstError(
            f"{folder}: model format {config['format']}, but this medst reads 1 to {FORMAT}; update medst."
        )
    try:
        settings = from_dict(ModelSettings, model)
    except MedstError as error:
        raise MedstError(f"{file}: {str(error).removeprefix('settings: ')}") from None
    used = Recipe(model=settings, data=DataSettings(crop=crop))
    used.check(str(file))
    digests = config.get("files", {})
    wrong = misfit(digests, {str: str}, "files") or next((f"files names {n}" for n in digests if "/" in n), "")
    if wrong:
        raise MedstError(f"{file} is damaged ({wrong}); {REMEDY}.")
    entry = config.get("margin")
    wrong = "" if entry is None else _wrong_margin(config, entry)
    if wrong:
        raise MedstError(f"{file} is damaged ({wrong}); {REMEDY}.")
    # The first folders of format 2 have no digest of their settings.
    if "sha256" in config and config["sha256"] != _digest(model, crop, entry):
        raise MedstError(f"{file} is damaged: its settings are not those that were saved; {REMEDY}.")
    recipe = _read_record(Recipe, record)
    return (
        replace(recipe, model=used.model, data=replace(recipe.data, crop=crop)),
        digests,
        None if entry is None else Margin(**entry),
    )


def _wrong_margin(config: dict[str, Any], entry: Any) -> str:
    wrong = misfit(entry, {"value": float, "statements": int, "stable": float}, "margin")
    if wrong or set(entry) != {"value", "statements", "stable"} or "sha256" not in config:
        return wrong or "margin"
    possible = 0 <= entry["value"] < float("inf") and entry["statements"] >= 0 and 0 <= entry["stable"] <= 1
    return "" if possible else f"margin is {entry}"


def _digest(model: dict[str, Any], crop: int, margin: dict[str, Any] | None = None) -> str:
    """Digest of the settings in config.json: a lost one would otherwise get a default, and silently change results.

    The margin counts where there is one: earlier versions wrote none.
    """
    settings = [model, crop] if margin is None else [model, crop, margin]
    return sha256(json.dumps(settings, sort_keys=True).encode())


def _read_record(kind: type[T], record: Any) -> T:
    """Settings as far as this version knows them; for another name, type or range its own default is taken."""
    settings = kind()
    for field in fields(kind):  # type: ignore[arg-type]
        if isinstance(record, dict) and field.name in record:
            value = record[field.name]
            value = _read_record(field.type, value) if is_dataclass(field.type) else value  # type: ignore[arg-type]
            read = replace(settings, **{field.name: value})  # type: ignore[type-var]
            settings = settings if any(outside(read)) else read
    return settings


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Give every entry of a module the tensor of its name, without a copy.

    Raises:
        MedstError: entries are missing, unexpected, of another shape or type, or not finite; the message lists them.
    """
    wanted = module.state_dict()
    unexpected = [name for name in tensors if name not in wanted]
    check_entries(tensors, wanted, f"{source} does not fit its config.json", unexpected=unexpected)
    check_finite(tensors, source)
    module.load_state_dict(tensors, assign=True)
