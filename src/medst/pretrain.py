"""The training run: one readable loop on accelerate.

Unusual here: everything random about a step is a function of the seed and the step's number, or is in the saved state, so
that a run which was stopped goes on to the same weights as one that never was. Ctrl-C finishes the step at hand, saves and
leaves.
"""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from medst import weights
from medst.batch import Batch, Batches
from medst.cohort.store import Cohort, open_cohort
from medst.devices import Devices
from medst.errors import MedstError
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes.settings import DataSettings, OptimiserSettings, Recipe, to_dict
from medst.run_folder import DIGESTS, RunFolder, write_json
from medst.tokenizer import learn_tokenizer, load_tokenizer

Progress = Callable[[int, int, str], None]


class Step(nn.Module):
    """Model and objective behind one forward call, so that every engine sees all parameters that take part."""

    def __init__(self, model: MedST, objective: Objective, data: DataSettings) -> None:
        super().__init__()
        self.model, self.objective, self.crop = model, objective, data.crop

    def forward(self, batch: Batch, temporal_share: float) -> dict[str, Tensor]:
        frontal, lateral = batch.pictures(self.crop, self.model.settings.vision.image_size)
        embedded = self.model(frontal, lateral, batch.lateral_of, batch.pieces, batch.attention_mask)
        with torch.autocast(frontal.device.type, enabled=False):
            return self.objective(embedded, batch.steps, batch.step_mask, temporal_share)


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Linear warm-up from `lr_min`, then cosine down to `lr_min` (method as released).

    Args:
        step: number of the step, from 0.
        steps: steps of the whole run.
        settings: lr, lr_min and the share of warm-up.
    """
    warm = max(1, round(settings.warmup * steps)) if settings.warmup else 0
    reach = settings.lr - settings.lr_min
    if step < warm:
        return settings.lr_min + reach * step / warm
    share = min(1.0, (step - warm) / max(1, steps - warm))
    return settings.lr_min + reach * (1 + math.cos(math.pi * share)) / 2


def make_optimiser(step: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over all parameters that learn; on everything the same weight decay, unless only matrices decay."""
    learn = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
    spared = [p for name, p in learn if p.ndim < 2 or "pos_embed" in name or "cls_token" in name]
    if not settings.decay_matrices_only:
        spared = []
    ids = {id(p) for p in spared}
    groups = [{"params": [p for _, p in learn if id(p) not in ids], "weight_decay": settings.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 by itself, so that it pays."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pretrain(cohort: Path, run: Path, recipe: Recipe, progress: Progress | None = None) -> dict[str, Any]:
    """Train a model on a cohort, or go on with the run that `run` holds.

    Args:
        cohort: folder of a prepared cohort with pairs.
        run: the run's folder; see `medst.run_folder` for what it holds.
        recipe: all settings.
        progress: called with (steps done, steps in all, a line on loss and time left).

    Returns:
        `finished` (False after Ctrl-C or `stop_after`), `steps`, `epochs`, `best_loss`, `best_epoch`, `skipped`.

    Raises:
        MedstError: impossible settings, another run in the folder, an unfit cohort, or a loss that is no number.
    """
    recipe.check()
    data = open_cohort(cohort)
    folder = RunFolder(run)
    folder.start(recipe, {"dataset": data.meta["dataset"], "fingerprint": data.fingerprint})
    tokenizer = _tokenizer(folder, recipe, data)
    set_seed(recipe.run.seed)
    model, objective = weights.build(recipe, tokenizer)
    if not folder.states():
        given = {name: Path(path) for name, path in to_dict(recipe.start).items() if path}
        if given:
            weights.start(model, **given)
    return _Run(folder, recipe, data, tokenizer, Step(model, objective, recipe.data), progress).go()


def _tokenizer(folder: RunFolder, recipe: Recipe, cohort: Cohort) -> PreTrainedTokenizerBase:
    place = folder.path / "tokenizer"
    if place.is_dir():
        return load_tokenizer(place)
    if recipe.data.tokenizer:
        tokenizer = load_tokenizer(Path(recipe.data.tokenizer))
    elif cohort.pairs is None:
        raise MedstError(f"{cohort.path} has no pairs: it is a {cohort.meta['dataset']} cohort, not one to train on.")
    else:
        tokenizer = learn_tokenizer(cohort.pairs.filter(split="train")["report"], recipe.data.vocabulary)
    part = place.with_suffix(".part")
    tokenizer.save_pretrained(str(part))
    part.rename(place)
    return load_tokenizer(place)


class _Run:
    """The state of a run between its steps."""

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        cohort: Cohort,
        tokenizer: PreTrainedTokenizerBase,
        step: Step,
        progress: Progress | None,
    ) -> None:
        self.folder, self.recipe, self.tokenizer, self.progress = folder, recipe, tokenizer, progress
        logger = recipe.run.logger
        self.accelerator = Accelerator(
            mixed_precision="no", log_with=None if logger == "csv" else logger, project_dir=str(folder.path)
        )
        wanted = recipe.run.precision
        self.bf16 = wanted == "bf16" or (wanted == "auto" and native_bf16(self.accelerator.device))
        pieces, seed = recipe.model.text.pieces, recipe.run.seed
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if recipe.run.checkpoint_activations:
            step.model.checkpoint_activations()
        if self.world > 1 and recipe.objective.across_devices:
            step.objective.devices = Devices(self.rank, self.world)
            step.model.normalise_over(step.objective.devices)
        self.train = Batches(cohort, "train", tokenizer, recipe.data, pieces=pieces, seed=seed, training=True)
        self.valid = Batches(cohort, "valid", tokenizer, recipe.data, pieces=pieces, seed=seed, training=False)
        self.step = self.accelerator.prepare(step)
        self.optimiser = self.accelerator.prepare(make_optimiser(self.step, recipe.optimiser))
        self.per_epoch = len(self.train) // self.world
        if self.per_epoch == 0:
            raise MedstError(f"{cohort.path}: fewer batches than processes; take a larger cohort or fewer processes.")
        self.steps = self.per_epoch * recipe.optimiser.epochs
        self.at: dict[str, Any] = {
            "step": 0,
            "best_loss": None,
            "best_epoch": None,
            "skipped": 0,
            "validated": 0,
            "stopped_early": False,
        }
        self.interrupted = False
        self.saved_at, self.damaged = time.monotonic(), list[str]()

    def go(self) -> dict[str, Any]:
        """Take all steps that are left."""
        self._resume()
        self._start_trackers()
        self.began, self.began_at = time.monotonic(), self.at["step"]
        limit = self.recipe.optimiser.stop_after or self.steps
        finished = False
        with self._catch_interrupt():
            for epoch in range(self.at["step"] // self.per_epoch, self.recipe.optimiser.epochs):
                if self._epoch_ended(epoch - 1):
                    break
                for batch in self._loader(self.train, epoch, self.at["step"] - epoch * self.per_epoch):
                    self._take_step(batch, epoch)
                    if self.interrupted or self.at["step"] >= limit < self.steps:
                        self._save_state()
                        return self._summary(finished=False)
                    if self._time_to_save():
                        self._save_state()
            else:
                self._epoch_ended(self.recipe.optimiser.epochs - 1)
            finished = True
        self._save_state()
        self.accelerator.end_training()
        return self._summary(finished)

    def _time_to_save(self) -> bool:
        """By steps, or by the main process's clock, which all processes follow."""
        every, minutes = self.recipe.run.save_every, self.recipe.run.save_minutes
        due = bool(minutes) and time.monotonic() - self.saved_at >= 60 * minutes
        if minutes and self.world > 1:
            flag = torch.tensor(float(due), device=self.accelerator.device)
            due = bool(broadcast(flag).item())
        return due or bool(every and self.at["step"] % every == 0)

    def _summary(self, finished: bool) -> dict[str, Any]:
        epochs = self.at["step"] // self.per_epoch
        keys = ("best_loss", "best_epoch", "skipped", "stopped_early")
        damaged = {"damaged_states": self.damaged} if self.damaged else {}
        return damaged | {
            "finished": finished,
            "steps": self.at["step"],
            "epochs": epochs,
            **{k: self.at[k] for k in keys},
        }

    def _loader(self, batches: Batches, epoch: int, start: int = 0) -> Iterator[Batch]:
        batches.epoch = epoch
        stop = self.per_epoch * self.world if batches.training else len(batches)
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=range(start * self.world + self.rank, stop, self.world),
            num_workers=self.recipe.run.loader_workers,
            pin_memory=self.accelerator.device.type == "cuda",
            # A loader draws a seed when it starts; from the global state that would shift dropout after a resume.
            generator=torch.Generator(),
        )
        for batch in loader:
            yield batch.to(self.accelerator.device)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def _take_step(self, batch: Batch, epoch: int) -> None:
        objective, settings = self.recipe.objective, self.recipe.optimiser
        number = self.at["step"]
        began = time.monotonic()
        lr = learning_rate(number, self.steps, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        warm = objective.temporal_warmup * self.steps
        share = min(1.0, number / warm) if warm else 1.0

        self.step.train()
        with self._autocast():
            losses = self.step(batch, share)
        own, losses = losses["loss"], self._over_devices(losses)
        if not math.isfinite(losses["loss"].item()):
            kept = self._keep_batch(batch, number)
            raise MedstError(
                f"The loss is {losses['loss'].item()} at step {number} (pairs {batch.pair[:8].tolist()} and on, the whole "
                f"batch is in {kept}); the last state in {self.folder.path / 'state'} is untouched. A lower optimiser.lr "
                "may help."
            )
        self.accelerator.backward(own)
        largest = settings.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.step.parameters(), largest).item()
        if math.isfinite(norm) and not (settings.skip_above and norm > settings.skip_above):
            self.optimiser.step()
        else:
            self.at["skipped"] += 1
        self.optimiser.zero_grad(set_to_none=True)

        self.at["step"] = number + 1
        row = {name: value.item() for name, value in losses.items()}
        row |= {"lr": lr, "seconds": time.monotonic() - began, "gradient_norm": norm}
        self._log(row, epoch, "train")
        if self.progress is not None:
            done = self.at["step"] - self.began_at
            left = (time.monotonic() - self.began) / done * (self.steps - self.at["step"])
            text = f"epoch {epoch + 1}/{settings.epochs}, loss {row['loss']:.3f}, {_clock(left)} left"
            self.progress(self.at["step"], self.steps, text)

    def _over_devices(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the devices, so that all of them see the same numbers, and the same end of a run."""
        if self.world == 1:
            return losses
        both = self.accelerator.reduce(torch.stack([value.detach() for value in losses.values()]), reduction="mean")
        return dict(zip(losses, both, strict=True))

    def _keep_batch(self, batch: Batch, number: int) -> Path:
        """Write a batch for inspection: `safetensors.torch.load_file` gives its fields."""
        folder = self.folder.path / f"failed-step-{number:09d}"
        folder.mkdir(exist_ok=True)
        path = folder / f"batch-{self.rank}.safetensors"
        save_file({f.name: getattr(batch, f.name).cpu().contiguous() for f in fields(batch)}, path)
        return path

    def _epoch_ended(self, epoch: int) -> bool:
        """Validate after an epoch, once; say whether to stop early."""
        if epoch < self.at["validated"]:
            return bool(self.at["stopped_early"])
        losses = self._validate(epoch)
        self.at["validated"] = epoch + 1
        self._log(losses, epoch, "valid")
        if self.at["best_loss"] is None or losses["loss"] < self.at["best_loss"]:
            self.at["best_loss"], self.at["best_epoch"] = losses["loss"], epoch + 1
            self._save_model("best")
        patience = self.recipe.optimiser.patience
        self.at["stopped_early"] = bool(patience and epoch + 1 - self.at["best_epoch"] >= patience)
        self._save_model("last")
        if not self.recipe.run.save_every:
            self._save_state()
        return bool(self.at["stopped_early"])

    @torch.no_grad()
    def _validate(self, epoch: int) -> dict[str, float]:
        """Mean losses over the validation split, a batch counting by its pairs."""
        self.step.eval()
        total: dict[str, Tensor] = {}
        pairs = torch.zeros((), device=self.accelerator.device)
        for batch in self._loader(self.valid, epoch):
            with self._autocast():
                losses = self.step(batch, 1.0)
            pairs += len(batch.pair)
            for name, value in losses.items():
                total[name] = total.get(name, torch.zeros_like(pairs)) + value * len(batch.pair)
        pairs = self.accelerator.reduce(pairs)
        return {name: (self.accelerator.reduce(value) / pairs).item() for name, value in total.items()}

    def _log(self, row: dict[str, float], epoch: int, split: str) -> None:
        if not self.accelerator.is_main_process:
            return
        self.folder.log({"step": self.at["step"], "epoch": epoch + 1, "split": split, **row})
        self.accelerator.log({f"{name}/{split}": value for name, value in row.items()}, step=self.at["step"])

    def _start_trackers(self) -> None:
        if self.accelerator.is_main_process:
            self.folder.cut_metrics(self.at["step"])
        purge = {"tensorboard": {"purge_step": self.at["step"] + 1}} if self.at["step"] else {}
        self.accelerator.init_trackers("tensorboard", init_kwargs=purge)

    def _save_model(self, name: str) -> None:
        if self.accelerator.is_main_process:
            step = self.accelerator.unwrap_model(self.step)
            weights.save(self.folder.path / name, step.model, step.objective, self.tokenizer, self.recipe)

    def _save_state(self) -> None:
        final = self.folder.state_path(self.at["step"])
        if final.exists():  # same step, so same weights; but an epoch may have been validated since
            if self.accelerator.is_main_process:
                part = final.rename(final.with_suffix(".part"))
                write_json(part / "run.json", self.at)
                (part / DIGESTS).unlink(missing_ok=True)
                self.folder.seal(part)
            return
        part = final.with_suffix(".part")
        self.accelerator.save_state(str(part))
        if self.accelerator.is_main_process:
            write_json(part / "run.json", self.at)
            self.folder.seal(part)
            self.folder.drop_old_states(self.recipe.run.keep_states)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state, self.damaged = self.folder.newest_whole_state() if self.accelerator.is_main_process else (None, [])
        self.accelerator.wait_for_everyone()
        state = state or next(iter(self.folder.states()), None)
        # Weights and two moments, while the states to be dropped are still there; and a model for `best` or `last`.
        numbers = sum(p.numel() for p in self.step.parameters())
        self.folder.check_room(4 * numbers * (3 + 1))
        if state is not None:
            self.accelerator.load_state(str(state))
            self.at = json.loads((state / "run.json").read_text())

    @contextlib.contextmanager
    def _catch_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C asks for a stop after this step; the second one kills as usual."""

        def ask(*_: object) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            before = signal.signal(signal.SIGINT, ask)
        except ValueError:  # not in the main thread, where Ctrl-C never arrives
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
