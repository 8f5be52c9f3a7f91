"""A model's own folder: `model.safetensors`, `config.json` and the tokenizer; no pickle anywhere.

`objective.safetensors` beside them holds the two learnt weightings of the local loss, which only training needs, and
`released_unused.safetensors` what a converted checkpoint held besides, for the way back.

Unusual here: a model that is about to be filled is built on torch's meta device, without memory and without drawing weights,
and then takes the tensors as they were read.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from medst import __version__
from medst.errors import MedstError
from medst.files import disk_errors, misfit, part_of, read_json, recover_folder, replace_folder, sha256, write_json
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes.settings import Recipe, from_dict, to_dict
from medst.tokenizer import check_rows, continuing_pieces, load_tokenizer
from medst.weights.model_card import TEMPLATE
from medst.weights.released_names import WORD_EMBEDDINGS, ReleasedEntries, list_problems
from medst.weights.safe_unpickle import check_finite, read_safetensors, write_safetensors
from medst.weights.trained_on import TRAINED_ON

FORMAT = 1
REMEDY = "take another copy of the model folder"
UNUSED = "released_unused.safetensors"
PATTERNS = ["config.json", "*.safetensors", "tokenizer*.json", "special_tokens_map.json", "vocab.txt", "README.md"]
"""Files of a model on the hub that are fetched."""


@dataclass(repr=False)
class Loaded(
    PyTorchModelHubMixin,
    library_name="medst",
    tags=["radiology", "chest-x-ray", "vision-language"],
    pipeline_tag="feature-extraction",
    model_card_template=TEMPLATE,
):
    """A model with what it takes to use it.

    `save_pretrained(folder)`, `Loaded.from_pretrained(folder or hub id)` and `push_to_hub(hub id)` are Hugging Face's.

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

    def __repr__(self) -> str:
        vision, text = self.model.settings.vision, self.model.settings.text
        parameters = list(self.model.parameters())
        return (
            f"<{type(self).__name__}: recipe {self.recipe.name}, "
            f"{sum(p.numel() for p in parameters) / 1e6:.1f} M parameters, "
            f"ViT {vision.width} x {vision.depth} at {vision.image_size} px, BERT {text.width} x {text.layers} with "
            f"{len(self.tokenizer)} word pieces, on {parameters[0].device}, weights {self.fingerprint[:12] or 'untrained'}>"
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        _write(save_directory, self.model, self.objective, self.tokenizer, self.recipe)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Loaded":
        if Path(model_id).is_dir():
            return load_folder(Path(model_id))
        asked = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        found = {name: options[name] for name in asked if name in options}
        return load_folder(Path(snapshot_download(model_id, allow_patterns=PATTERNS, **found)))

    def generate_model_card(self, *_: Any, **more: Any) -> ModelCard:
        """The card that `save_pretrained` writes: what the model is and how to use it."""
        settings = self.recipe.model
        return ModelCard.from_template(
            card_data=self._hub_mixin_info.model_card_data,
            template_str=TEMPLATE,
            recipe=self.recipe.name,
            version=__version__,
            parameters=sum(p.numel() for p in self.model.parameters()),
            vision=settings.vision,
            text=settings.text,
            embedding=settings.embedding,
            repo_id=more.get("repo_id", "OWNER/NAME"),
        )


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[MedST, Objective]:
    """A fresh model and objective of a recipe's shape with the tokenizer's vocabulary, their weights drawn from torch's
    global random state."""
    model = MedST(recipe.model, continuing_pieces(tokenizer), int(tokenizer.sep_token_id))
    return model, Objective(recipe.objective, recipe.model.embedding)


def build_empty(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[MedST, Objective]:
    """The same without weights: every entry is on the meta device until `fill` gives it a tensor."""
    continues = continuing_pieces(tokenizer)
    with torch.device("meta"):
        model = MedST(recipe.model, continues, int(tokenizer.sep_token_id))
        objective = Objective(recipe.objective, recipe.model.embedding)
    # BERT's two constant buffers are in no file.
    places = model.text.bert.embeddings
    count = places.position_ids.shape[1]
    places.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    places.register_buffer("token_type_ids", torch.zeros(1, count, dtype=torch.int64), persistent=False)
    return model, objective


def untrained(loaded: Loaded, seed: int) -> Loaded:
    """A model of the same shape with fresh weights, to hold a trained one against."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, objective = build(loaded.recipe, loaded.tokenizer)
    return Loaded(model.eval(), objective.eval(), loaded.tokenizer, loaded.recipe, f"untrained-{seed}")


def save(
    folder: Path,
    model: MedST,
    objective: Objective | None,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    *,
    released: ReleasedEntries | None = None,
    trained_on: Path | None = None,
) -> None:
    """Write a model folder beside its final name and move it there whole; an older one is replaced.

    Args:
        folder: the model's folder.
        model: what to save.
        objective: its weightings; None leaves them out.
        tokenizer: the one that it was trained with.
        recipe: the settings of its run.
        released: for a converted checkpoint, where the model came from; keeps what the way back needs.
        trained_on: a run's file of this name, which goes along.
    """
    recover_folder(folder, is_model)
    part = part_of(folder)
    if part.exists():
        shutil.rmtree(part)
    with disk_errors(part):
        part.mkdir(parents=True)
        if released is not None:
            about = {"names": json.dumps(released.names), "lateral": json.dumps(released.lateral)}
            write_safetensors(part / UNUSED, released.unused, about)
        if trained_on is not None:
            shutil.copyfile(trained_on, part / TRAINED_ON)
        _write(part, model, objective, tokenizer, recipe)
    replace_folder(folder)


def _write(
    folder: Path, model: MedST, objective: Objective | None, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> None:
    """Fill a folder; config.json comes last, so that its existence means that the model is complete."""
    tokenizer.save_pretrained(str(folder))
    write_safetensors(folder / "model.safetensors", model.state_dict(), {"format": "pt"})
    if objective is not None:
        write_safetensors(folder / "objective.safetensors", objective.state_dict(), {"format": "pt"})
    recipe = replace(recipe, model=model.settings)
    digests = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    config = {"format": FORMAT, "medst_version": __version__, "recipe": to_dict(recipe), "files": digests}
    write_json(folder / "config.json", config, indent=2)
    for file in folder.glob("*.safetensors"):  # which their library lets only the owner read
        shutil.copymode(folder / "config.json", file)


def is_model(folder: Path) -> bool:
    """Whether a folder holds a complete model."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def load_folder(folder: Path) -> Loaded:
    """A model from its folder.

    Raises:
        MedstError: the folder is no model, is damaged, or was written by a newer medst.
    """
    if not is_model(folder):
        raise MedstError(f"{folder}: not a model folder; it needs config.json, model.safetensors and a tokenizer.")
    recipe, digests = _read_config(folder)
    tokenizer = load_tokenizer(folder)
    tensors = read_safetensors(folder / "model.safetensors")
    if WORD_EMBEDDINGS in tensors:  # if not, `fill` says so
        remedy = "put back the tokenizer that was saved with it"
        check_rows(len(tensors[WORD_EMBEDDINGS]), len(tokenizer), folder / "model.safetensors", remedy)
    model, objective = build_empty(recipe, tokenizer)
    fill(model, tensors, folder / "model.safetensors")
    has_objective = (folder / "objective.safetensors").is_file()
    if has_objective:
        fill(objective, read_safetensors(folder / "objective.safetensors"), folder / "objective.safetensors")
    found = {name: sha256(folder / name) for name in {"model.safetensors", *digests} if (folder / name).is_file()}
    for name, digest in found.items():
        if digests.get(name, digest) != digest:  # models of earlier versions have none
            raise MedstError(f"{folder / name} is damaged: it is not what was saved with config.json; {REMEDY}.")
    fingerprint = found["model.safetensors"]
    return Loaded(model.eval(), objective.eval() if has_objective else None, tokenizer, recipe, fingerprint)


def _read_config(folder: Path) -> tuple[Recipe, dict[str, str]]:
    """The settings in config.json, and the digests of the files that were saved with it."""
    config = read_json(folder / "config.json", REMEDY, {"format": int, "recipe": dict})
    if config["format"] != FORMAT:
        raise MedstError(f"{folder}: model format {config['format']}, but this medst reads {FORMAT}; update medst.")
    recipe = from_dict(Recipe, config["recipe"])
    recipe.check(str(folder / "config.json"))
    digests = config.get("files", {})
    wrong = misfit(digests, {str: str}, "files") or next((f"files names {n}" for n in digests if "/" in n), "")
    if wrong:
        raise MedstError(f"{folder / 'config.json'} is damaged ({wrong}); {REMEDY}.")
    return recipe, digests


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Give every entry of a module the tensor of its name, without a copy.

    Raises:
        MedstError: entries are missing, unexpected, of another shape or type, or not finite; the message lists them.
    """
    wanted = module.state_dict()
    both = [name for name in wanted if name in tensors]
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{n} ({tuple(tensors[n].shape)}, not {tuple(wanted[n].shape)})"
            for n in both
            if tensors[n].shape != wanted[n].shape
        ],
        "of another type": [
            f"{n} ({tensors[n].dtype}, not {wanted[n].dtype})" for n in both if tensors[n].dtype != wanted[n].dtype
        ],
    }
    if any(problems.values()):
        raise MedstError(f"{source} does not fit its config.json; {list_problems(problems)}.")
    check_finite(tensors, source)
    module.load_state_dict(tensors, assign=True)
