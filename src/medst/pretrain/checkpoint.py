"""A run's folder on disk: its settings, and checkpoints from which it resumes.

    settings.json      recipe, cohort, version; written first
    environment.json   packages and machine, one entry per start and resume
    tokenizer/         the tokenizer
    metrics.csv        one row per training step and per validation, see `medst.pretrain.metrics`
    tensorboard/       the same, for TensorBoard
    wandb.json         id of the run at Weights & Biases, with that logger
    state/step-*/      the newest checkpoints
    failed-step-*/     the batch whose loss exploded or is not finite
    trained_on.json    salted digests of the patients' ids; the same in each model
    best/, last/       models for `medst.load`

A checkpoint holds no pickle, and the same files whichever engine wrote them. It is written beside its final name and renamed
when complete, so a folder named step-* is always complete:

    weights.safetensors     model and objective, unsharded
    optimiser.safetensors   step count and both moments of each parameter, as `name/moment`
    average.safetensors     the averaged weights, where a run has them
    random-R.safetensors    random states of process R
    run.json                the `TrainState`
    metrics.csv             the rows logged so far
    sha256.json             digests of the files but the last two
"""

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedTokenizerBase

from medst import NUMERICS, __version__
from medst.distributed import random_state, set_random_state
from medst.errors import MedstError
from medst.files import disk_errors, is_free, part_of, read_json, replace_folder, set_aside, sha256, write_json
from medst.pretrain.metrics import METRICS, Metrics
from medst.pretrain.schedule import Average
from medst.recipes.settings import Recipe, RunSettings, changed_settings, to_dict
from medst.weights.state_dict import read_safetensors, write_safetensors

DIGESTS = "sha256.json"
STATE = "run.json"
SETTINGS = {"medst_version": str, "recipe": dict, "cohort": {"dataset": str, "fingerprint": str}}
"""Form of settings.json, see `medst.files.misfit`."""
FREE_TO_CHANGE = {f"run.{each.name}" for each in fields(RunSettings)} - {"run.seed", "run.compile"}
FREE_TO_CHANGE |= {"name", "optimiser.stop_after", "optimiser.accumulate"}
"""Settings that may differ when a run is resumed."""


@dataclass
class TrainState:
    """The progress of a run between two steps. Fields that a checkpoint of an earlier version lacks have their defaults."""

    step: int = 0
    """Optimiser steps taken, skipped ones included."""
    best_loss: float | None = None
    """Validation loss of the model in `best`; None before the first validation."""
    best_epoch: int | None = None
    """Epoch of that model, from 1."""
    skipped: int = 0
    """Steps whose gradient was too large or not finite."""
    validated: int = 0
    """Epochs validated."""
    stopped_early: bool = False
    """Whether the patience is used up."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps, see `medst.pretrain.divergence`."""
    compiled: bool | None = None
    """Whether the image encoder is compiled; None before that is decided."""
    batches_a_step: int | None = None
    """Batches of one step, over all processes and parts."""
    metrics: str | None = None
    """Digest of the metrics so far; None in checkpoints of earlier versions."""

    def write(self, checkpoint: Path) -> None:
        """Write run.json with a digest, since sha256.json does not cover it."""
        values = asdict(self)
        write_json(checkpoint / STATE, {**values, "sha256": _digest(values)}, indent=2)

    @classmethod
    def read(cls, checkpoint: Path) -> "TrainState":
        """Read run.json.

        Raises:
            MedstError: it is missing or damaged.
        """
        values = read_json(checkpoint / STATE, "resume from an earlier checkpoint", {"step": int})
        digest = values.pop("sha256", None)  # earlier versions wrote none
        if digest is not None and digest != _digest(values):
            raise MedstError(f"{checkpoint / STATE} is damaged; resume from an earlier checkpoint.")
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode())


class RunFolder:
    """A run's folder, held open by the run that writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "settings.json"
        self.tokenizer = path / "tokenizer"
        self.state = path / "state"
        self.metrics = Metrics(path / METRICS)

    def read_settings(self, remedy: str) -> dict[str, Any]:
        """Read settings.json; raises MedstError, ending with the remedy, if it is missing or damaged."""
        found: dict[str, Any] = read_json(self.settings, remedy, SETTINGS)
        return found

    def check(self, recipe: Recipe, cohort: Mapping[str, Any]) -> bool:
        """Compare the settings with those of the run that is already here; write nothing.

        Args:
            recipe: all settings.
            cohort: `dataset` and `fingerprint` of the cohort.

        Returns:
            Whether there is a run here to resume.

        Raises:
            MedstError: the folder holds something else, or a run with other settings or another cohort.
        """
        if not self.settings.is_file():
            if not is_free(self.path):
                raise MedstError(f"{self.path} is not empty and holds no run; give an empty or a new folder.")
            return False
        old = self.read_settings("give another run folder")
        changed = changed_settings(old["recipe"], recipe, FREE_TO_CHANGE)
        if changed:
            raise MedstError(
                f"{self.path} holds a run with other settings ({', '.join(changed)}); "
                "give them as they were, or another run folder."
            )
        if old["cohort"] != dict(cohort):
            raise MedstError(f"{self.path} holds a run on another cohort; give that cohort, or another run folder.")
        if self.state.exists() and not self.state.is_dir():
            raise MedstError(
                f"{self.state} is not a folder; put the run's checkpoints back there, or give another run folder."
            )
        return True

    def start(self, recipe: Recipe, cohort: Mapping[str, Any]) -> bool:
        """Write the settings, unless the same run is already here; arguments, result and errors as `check`."""
        resumes = self.check(recipe, cohort)
        if not resumes:
            about = {"medst_version": __version__, "numerics": NUMERICS}
            write_json(self.settings, about | {"recipe": to_dict(recipe), "cohort": dict(cohort)}, indent=2)
        return resumes

    @property
    def numerics(self) -> int:
        """Numerics version that the run was started with; 1, the first, where none is recorded."""
        return int(self.read_settings("give another run folder").get("numerics", 1))

    def save_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the tokenizer, unless there is one."""
        if not self.tokenizer.is_dir():
            with disk_errors(self.tokenizer):
                tokenizer.save_pretrained(str(part_of(self.tokenizer)))
            replace_folder(self.tokenizer)

    def wandb_id(self) -> str:
        """Id of this run at Weights & Biases, drawn once so that a resumed run stays one run."""
        file = self.path / "wandb.json"
        if not file.is_file():
            write_json(file, {"id": secrets.token_hex(8)})
        return str(read_json(file, "remove that file; the run then gets a new id", {"id": str})["id"])

    def check_disk_space(self, needed: int) -> None:
        """Refuse to start if the next checkpoint does not fit.

        Raises:
            MedstError: the disk has fewer than `needed` bytes free.
        """
        place = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if free < needed:
            raise MedstError(
                f"{self.path}: the next checkpoint takes {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; "
                "make room, or give a folder on another disk."
            )

    def checkpoint(self, step: int) -> Path:
        """Path of the checkpoint after so many steps."""
        return self.state / f"step-{step:09d}"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, newest first."""
        found = [path for path in self.state.glob("step-*") if not path.suffix]
        return sorted(found, reverse=True)

    def seal(self, checkpoint: Path) -> None:
        """Write the digests of the files in the checkpoint's `.part`, and give it its final name, which makes it count."""
        part = part_of(checkpoint)
        # A validation after the last step rewrites these two; run.json vouches for both.
        files = [path for path in sorted(part.iterdir()) if path.name not in (STATE, METRICS)]
        write_json(part / DIGESTS, {path.name: sha256(path) for path in files})
        replace_folder(checkpoint)

    def drop_old_checkpoints(self, keep: int) -> None:
        """Keep the newest checkpoints only."""
        for checkpoint in self.checkpoints()[keep:]:
            shutil.rmtree(checkpoint)

    def recover(self) -> list[str]:
        """Remove unfinished checkpoints, and set damaged ones aside, from the newest to the first intact one.

        Returns:
            The names of the damaged ones.

        Raises:
            MedstError: there are checkpoints, and all of them are damaged.
        """
        for part in self.state.glob("step-*.part"):  # its files may be of another number of processes
            shutil.rmtree(part)
        damaged: list[str] = []
        for checkpoint in self.checkpoints():
            with suppress(OSError, MedstError):
                TrainState.read(checkpoint)
                digests = read_json(checkpoint / DIGESTS, "", {str: str})
                if all(sha256(checkpoint / name) == digest for name, digest in digests.items()):
                    return damaged
            damaged.append(checkpoint.name)
            set_aside(checkpoint)
        if damaged:
            raise MedstError(
                f"{self.state}: every checkpoint is damaged ({', '.join(damaged)}); start again in a new folder, for "
                f"instance from {self.path / 'last'} with --start.checkpoint."
            )
        return []


def unsharded(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU of a tensor that may be sharded; then every process must call this."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu().contiguous()


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """An unsharded tensor on the device of `like`, and sharded as that is."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)


@dataclass(frozen=True)
class TrainedTensors:
    """The tensors that training changes. Every process saves and loads them.

    Attributes:
        module: model and objective.
        optimiser: with its moments.
        average: the averaged weights, or None.
        rank: of this process.
        device: of this process, for its random states.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average | None
    rank: int
    device: torch.device

    def save(self, checkpoint: Path) -> None:
        """Write them; the first process writes what all share."""
        checkpoint.mkdir(parents=True, exist_ok=True)
        moments = {
            f"{name}/{moment}": unsharded(value)
            for name, parameter in self.module.named_parameters()
            for moment, value in self.optimiser.state.get(parameter, {}).items()
        }
        weights = {name: unsharded(value) for name, value in self.module.state_dict().items()}
        averages = {name: unsharded(value) for name, value in self.average.values.items()} if self.average else {}
        with disk_errors(checkpoint):
            if self.rank == 0:
                write_safetensors(checkpoint / "weights.safetensors", weights)
                write_safetensors(checkpoint / "optimiser.safetensors", moments)
                if self.average:
                    write_safetensors(checkpoint / "average.safetensors", averages)
            write_safetensors(checkpoint / f"random-{self.rank}.safetensors", random_state(self.device))

    def load(self, checkpoint: Path) -> None:
        """Restore what `save` wrote, with the same engine or another.

        A process without a random state in the checkpoint, because there were fewer processes then, keeps its own.

        Raises:
            MedstError: an earlier medst wrote the checkpoint in other files, or it does not fit the model.
        """
        if not (checkpoint / "weights.safetensors").is_file():
            raise MedstError(
                f"{checkpoint} was written by an earlier medst, in files that this version does not read; start again."
            )
        own, read = self.module.state_dict(), read_safetensors(checkpoint / "weights.safetensors")
        try:
            self.module.load_state_dict({name: sharded_like(value, own[name]) for name, value in read.items()})
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MedstError(
                f"{checkpoint} does not fit this run's model ({reason}); restore the run's tokenizer and settings."
            ) from None
        moments = read_safetensors(checkpoint / "optimiser.safetensors")
        for name, parameter in self.module.named_parameters():
            found = {m: moments[f"{name}/{m}"] for m in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{m}" in moments}
            if found:
                self.optimiser.state[parameter] = {
                    m: sharded_like(value, parameter) if value.ndim else value.to(self.device)
                    for m, value in found.items()
                }
        if self.average is not None:
            averaged = read_safetensors(checkpoint / "average.safetensors")
            for name, value in self.average.values.items():
                # Checkpoints of earlier versions average no statistics; the model's own stand in for them.
                value.copy_(sharded_like(averaged[name], value) if name in averaged else self.average.live[name])
        states = checkpoint / f"random-{self.rank}.safetensors"
        if states.is_file():
            set_random_state(read_safetensors(states), self.device)
