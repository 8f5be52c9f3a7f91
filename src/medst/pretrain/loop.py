"""The training run: one readable loop on accelerate.

Unusual here: everything random about a step is a function of the seed and the step's number, or is in the saved state, so
that a run which was stopped goes on to the same weights as one that never was. Ctrl-C finishes the step at hand, saves and
leaves.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from medst import NUMERICS, weights
from medst.batch import Batch, Batches
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import claim, recover_folder
from medst.pretrain.checkpoint import draw_apart, load_state, save_state, whole
from medst.pretrain.divergence import REMEMBERED, keep_batches, verdict
from medst.pretrain.memory import check_memory
from medst.pretrain.run_folder import RunFolder, read_place, set_aside, write_place
from medst.pretrain.schedule import Average, learning_rate, loss_shares, make_optimiser
from medst.pretrain.setup import find_tokenizer, keep_tokenizer, open_fit, remarks, start_weights
from medst.pretrain.step import Engine, Step, make_accelerator
from medst.progress import Progress
from medst.recipes.settings import Recipe, to_dict
from medst.weights.trained_on import note_patients


def pretrain(
    cohort: Path,
    run: Path,
    recipe: Recipe,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model on a cohort, or resume the run that `run` holds.

    Args:
        cohort: folder of a prepared cohort with pairs.
        run: the run's folder; see `medst.pretrain.run_folder` for what it holds.
        recipe: all settings.
        progress: called with (steps done, steps in all, a line on loss and time left).
        say: called, before the first step, with what the user should know about the run.

    Returns:
        `finished` (False after Ctrl-C or `stop_after`), `interrupted`, `steps`, `epochs`, `best_loss`, `best_epoch`,
        `skipped`; and `notes`, what `say` was called with, if there is any.

    Raises:
        MedstError: impossible settings, another run in the folder or another process that writes it, an unfit cohort, or a
            loss that explodes or is not finite.
    """
    recipe.check()
    data = open_fit(cohort, recipe)
    if run.resolve().is_relative_to(cohort.resolve()):
        raise MedstError(
            f"{run} is inside the cohort {cohort}, which a run leaves as it is; give a run folder outside."
        )
    about = {"dataset": data.meta["dataset"], "fingerprint": data.fingerprint}
    folder = RunFolder(run)
    processes = PartialState(cpu=not torch.accelerator.is_available())
    with claim(run) if processes.is_main_process else contextlib.nullcontext():
        with processes.main_process_first():  # so that a hub id is fetched once
            folder.check(recipe, about)
            begun = folder.tokenizer.is_dir()
            tokenizer, restored = find_tokenizer(data, recipe, folder)
        check_memory(recipe, data, tokenizer, processes.num_processes, processes.device)
        set_seed(recipe.run.seed)
        model, objective = weights.build(recipe, tokenizer)
        if not folder.states():
            start_weights(model, recipe)
        going = _Run(folder, recipe, data, tokenizer, Step(model, objective, recipe.data), progress, say)
        # Nothing is written up to here, so that a refused run leaves no folder behind.
        processes.wait_for_everyone()
        with processes.main_process_first():  # which makes the folder; the others hold their settings against it
            folder.start(recipe, about)
            if restored and processes.is_main_process:
                set_aside(folder.tokenizer)
            keep_tokenizer(tokenizer, folder.tokenizer)
            if processes.is_main_process:
                going.note(folder.note_environment(processes.num_processes))
        going.note(restored)
        for note in [] if begun else remarks(data, recipe, tokenizer):
            going.note(note)
        if folder.numerics != NUMERICS:
            going.note(
                f"{run} was started by a medst that computes otherwise (numerics version {folder.numerics}, this is "
                f"{NUMERICS}); it resumes, but differs from a run that was never stopped."
            )
        return going.go()


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
        say: Callable[[str], None] | None,
    ) -> None:
        self.folder, self.recipe, self.tokenizer, self.progress = folder, recipe, tokenizer, progress
        self.cohort = cohort
        self.accelerator = make_accelerator(recipe, str(folder.path))
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.parts = recipe.optimiser.accumulate
        pieces, seed, data = recipe.model.text.pieces, recipe.run.seed, recipe.data
        together = self.world * self.parts
        self.train = Batches(cohort, "train", tokenizer, data, pieces=pieces, seed=seed, training=True, parts=together)
        self.valid = Batches(cohort, "valid", tokenizer, data, pieces=pieces, seed=seed, training=False)
        self.per_epoch = len(self.train) // together
        if self.per_epoch == 0:
            raise MedstError(
                f"{cohort.path}: {len(self.train)} batches are fewer than the {self.world} processes x {self.parts} parts "
                "of one step; take a larger cohort, or fewer of them."
            )
        self.engine = Engine(self.accelerator, recipe, step)
        self.optimiser = make_optimiser(self.engine.bare, recipe.optimiser)
        self.average = Average(self.engine.bare, recipe.optimiser.ema) if recipe.optimiser.ema else None
        self.steps = self.per_epoch * recipe.optimiser.epochs
        self.at: dict[str, Any] = {
            "step": 0,
            "best_loss": None,
            "best_epoch": None,
            "skipped": 0,
            "validated": 0,
            "stopped_early": False,
            "recent": [],
            "compiled": None,
            "batches_a_step": together,
        }
        draw_apart(recipe.run.seed, self.rank)
        self.interrupted = False
        self.saved_at, self.saved_step, self.damaged = time.monotonic(), -1, list[str]()
        self.notes: list[str] = []
        self._say = say or (lambda note: None)
        # Weights and two moments, while the states to be dropped are still there; and a model for `best` or `last`.
        numbers = sum(p.numel() for p in self.engine.bare.parameters())
        folder.check_room(4 * numbers * (3 + 1 + (self.average is not None)))

    def note(self, note: str) -> None:
        """Tell the user about the run, now and in its summary; an empty note says nothing."""
        if note:
            self.notes.append(note)
            self._say(note)

    def go(self) -> dict[str, Any]:
        """Take all steps that are left."""
        self._resume()
        self._compile()
        self._start_trackers()
        self.began, self.began_at = time.monotonic(), self.at["step"]
        limit = self.recipe.optimiser.stop_after or self.steps
        finished = False
        with self._catch_interrupt():
            for epoch in range(self.at["step"] // self.per_epoch, self.recipe.optimiser.epochs):
                if self._epoch_ended(epoch - 1):
                    break
                for batches, waited in self._parts(epoch, self.at["step"] - epoch * self.per_epoch):
                    self._take_step(batches, epoch, waited)
                    stop, save = self._agreed()
                    if stop or save:
                        self._save_state()
                    if stop or self.at["step"] >= limit < self.steps:
                        self._save_state()
                        self.accelerator.end_training()
                        return self._summary(finished=False)
            else:
                self._epoch_ended(self.recipe.optimiser.epochs - 1)
            finished = True
        self._save_state()
        self.accelerator.end_training()
        return self._summary(finished)

    def _agreed(self) -> tuple[bool, bool]:
        """Whether to stop and whether to save, the same on all devices, whichever a signal or the clock has told first."""
        every, minutes = self.recipe.run.save_every, self.recipe.run.save_minutes
        due = bool(minutes) and time.monotonic() - self.saved_at >= 60 * minutes
        told = torch.tensor([self.interrupted, due], dtype=torch.float32, device=self.engine.device)
        stop, save = self.accelerator.reduce(told).tolist() if self.world > 1 else told.tolist()
        return bool(stop), bool(save or (every and self.at["step"] % every == 0))

    def _summary(self, finished: bool) -> dict[str, Any]:
        epochs = self.at["step"] // self.per_epoch
        keys = ("best_loss", "best_epoch", "skipped", "stopped_early")
        said = {"damaged_states": self.damaged, "notes": self.notes}
        return {name: value for name, value in said.items() if value} | {
            "finished": finished,
            "interrupted": self.interrupted,
            "steps": self.at["step"],
            "epochs": epochs,
            **{k: self.at[k] for k in keys},
        }

    def _loader(self, batches: Batches, numbers: Sequence[int]) -> Iterator[Batch]:
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=self.recipe.run.loader_workers,
            pin_memory=self.engine.device.type == "cuda",
            # A loader draws a seed when it starts; from the global state that would shift dropout after a resume.
            generator=torch.Generator(),
        )
        for batch in loader:
            yield batch.to(self.engine.device)

    def _parts(self, epoch: int, start: int) -> Iterator[tuple[list[Batch], float]]:
        """This device's parts of each step of an epoch from step `start` on, and the seconds that they were waited for."""
        self.train.epoch = epoch
        together, own = self.world * self.parts, range(self.rank * self.parts, (self.rank + 1) * self.parts)
        loader = self._loader(self.train, [s * together + p for s in range(start, self.per_epoch) for p in own])
        while True:
            began = time.monotonic()
            parts = list(islice(loader, self.parts))
            if not parts:
                return
            yield parts, time.monotonic() - began

    def _compile(self) -> None:
        """Decide once a run; a run that goes on computes as it did."""
        wanted = self.recipe.run.compile
        if self.at["compiled"] is None and wanted != "off":
            views = int((1 + (self.train.lateral >= 0)).sum() / len(self.train.sequences))
            pictures = views * self.recipe.data.sequences_per_batch
            self.at["compiled"], note = self.engine.compile(pictures, always=wanted == "on")
            self.note(note)
        elif self.at["compiled"]:
            self.engine.compile(0, always=True)
        self.at["compiled"] = bool(self.at["compiled"])

    def _take_step(self, batches: list[Batch], epoch: int, waited: float) -> None:
        objective, settings = self.recipe.objective, self.recipe.optimiser
        number = self.at["step"]
        began = time.monotonic()
        lr = learning_rate(number, self.steps, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        shares = loss_shares(number, self.steps, objective)

        self.engine.bare.train()
        own, backward = self.engine.forward(batches, shares)
        losses = self.engine.mean(own)
        wrong = verdict(losses["loss"], self.at["recent"], settings.explode_above)
        if wrong:
            kept = keep_batches(self.folder.path / f"failed-step-{number:09d}", batches, self.rank)
            raise MedstError(
                f"The loss {wrong} at step {number} (pairs {batches[0].pair[:8].tolist()} and on, the whole batch is in "
                f"{kept}); the last state in {self.folder.path / 'state'} is untouched. A lower --optimiser.lr may help."
            )
        backward()
        norm = self.engine.clip(settings.clip or math.inf)
        if math.isfinite(norm) and not (settings.skip_above and norm > settings.skip_above):
            self.optimiser.step()
        else:
            self.at["skipped"] += 1
        self.optimiser.zero_grad(set_to_none=True)

        self.at["step"] = number + 1
        self.at["recent"] = [*self.at["recent"][1 - REMEMBERED :], losses["loss"]]
        if self.average is not None:
            self.average.update(self.at["step"])
        row = losses | {"lr": lr, "seconds": time.monotonic() - began, "waited": waited, "gradient_norm": norm}
        self._log(row, epoch, "train")
        if self.progress is not None:
            done = self.at["step"] - self.began_at
            left = (time.monotonic() - self.began) / done * (self.steps - self.at["step"])
            text = f"epoch {epoch + 1}/{settings.epochs}, loss {row['loss']:.3f}, {_clock(left)} left"
            self.progress(self.at["step"], self.steps, text)

    def _epoch_ended(self, epoch: int) -> bool:
        """Validate after an epoch, once; say whether to stop early."""
        if epoch < self.at["validated"]:
            return bool(self.at["stopped_early"])
        with self.average.in_place() if self.average else contextlib.nullcontext():
            losses = self._validate(epoch)
            if is_better(losses["loss"], self.at["best_loss"]):
                self.at["best_loss"], self.at["best_epoch"] = losses["loss"], epoch + 1
                self._save_model("best")
            self._save_model("last")
        self.at["validated"] = epoch + 1
        self._log(losses, epoch, "valid")
        if not math.isfinite(losses["loss"]):
            self.note(f"the validation loss after epoch {epoch + 1} is {losses['loss']}, which no number loses to")
        patience = self.recipe.optimiser.patience
        self.at["stopped_early"] = bool(patience and epoch + 1 - self.at["best_epoch"] >= patience)
        if not self.recipe.run.save_every:
            self._save_state()
        return bool(self.at["stopped_early"])

    def _validate(self, epoch: int) -> dict[str, float]:
        """Mean losses over the validation split, a batch counting by its pairs."""
        total: dict[str, Tensor] = {}
        pairs = torch.zeros((), device=self.engine.device)
        self.valid.epoch = epoch
        # As many rounds on every device, for shards are gathered by all; what is beyond the end has no weight.
        own = [*range(self.rank, math.ceil(len(self.valid) / self.world) * self.world, self.world)]
        batches = self._loader(self.valid, [min(number, len(self.valid) - 1) for number in own])
        with self.engine.evaluating():
            for number, batch in zip(own, batches, strict=True):
                weight = len(batch.pair) if number < len(self.valid) else 0
                pairs += weight
                for name, value in self.engine.module(batch).items():
                    total[name] = total.get(name, torch.zeros_like(pairs)) + value * weight
        pairs = self.accelerator.reduce(pairs)
        return {name: (self.accelerator.reduce(value) / pairs).item() for name, value in total.items()}

    def _log(self, row: dict[str, float], epoch: int, split: str) -> None:
        if not self.accelerator.is_main_process:
            return
        self.folder.log({"step": self.at["step"], "epoch": epoch + 1, "split": split, **row})
        self.accelerator.log({f"{name}/{split}": value for name, value in row.items()}, step=self.at["step"])

    def _start_trackers(self) -> None:
        if self.accelerator.is_main_process:
            step, state = self.at["step"], self.folder.state_path(self.at["step"]) if self.at["step"] else None
            self.note(self.folder.cut_metrics(step, self.at["validated"], state, self.at.get("metrics")))
        # accelerate's project is TensorBoard's folder, but the project of that name at Weights & Biases.
        run, kinds = self.recipe.run, dict[str, dict[str, Any]]()
        if run.logger == "wandb":
            same = {"id": self.folder.tracker(), "resume": "allow"} if self.accelerator.is_main_process else {}
            name = run.name or self.folder.path.absolute().name
            kinds["wandb"] = {"name": name, "dir": str(self.folder.path), "config": to_dict(self.recipe), **same}
        elif self.at["step"]:
            kinds["tensorboard"] = {"purge_step": self.at["step"] + 1}
        self.accelerator.init_trackers(run.project if run.logger == "wandb" else "tensorboard", init_kwargs=kinds)

    def _save_model(self, name: str) -> None:
        model, objective = self.engine.bare.model, self.engine.bare.objective
        if self.engine.sharded:
            # Gathered by all, then put into a model of its own.
            model, objective = weights.build_empty(self.recipe, self.tokenizer)
            for mine, theirs in ((model, self.engine.bare.model), (objective, self.engine.bare.objective)):
                values = {key: whole(value) for key, value in theirs.state_dict().items()}
                mine.load_state_dict(values, assign=True)
        if self.accelerator.is_main_process:
            patients = note_patients(self.folder.path, self.cohort, complete=not self.recipe.start.checkpoint)
            place = self.folder.path / name
            weights.save(place, model, objective, self.tokenizer, self.recipe, trained_on=patients)

    def _save_state(self) -> None:
        final = self.folder.state_path(self.at["step"])
        if self.saved_step == self.at["step"]:  # same weights; but an epoch may have been validated since
            if self.accelerator.is_main_process:
                self._write_place(final)
            return
        part = final.with_suffix(".part")
        module, device = self.engine.bare, self.engine.device
        save_state(part, module, self.optimiser, self.average, rank=self.rank, device=device)
        self.accelerator.wait_for_everyone()  # each has written its random state
        if self.accelerator.is_main_process:
            self._write_place(part)
            self.folder.seal(part)
            self.folder.drop_old_states(self.recipe.run.keep_states)
        self.accelerator.wait_for_everyone()
        self.saved_at, self.saved_step = time.monotonic(), self.at["step"]

    def _write_place(self, state: Path) -> None:
        write_place(state, {**self.at, "metrics": self.folder.keep_metrics(state)})

    def _resume(self) -> None:
        if self.accelerator.is_main_process:
            self.damaged = self.folder.set_damaged_aside()
            self.folder.drop_unfinished_states()
            for name in ("best", "last"):
                recover_folder(self.folder.path / name, weights.is_model)
        self.accelerator.wait_for_everyone()
        state = next(iter(self.folder.states()), None)
        if state is None:
            return
        at = read_place(state)
        together = at.get("batches_a_step", self.at["batches_a_step"])
        if together != self.at["batches_a_step"]:
            raise MedstError(
                f"{self.folder.path} was begun with {together} batches a step (processes x --optimiser.accumulate), now "
                f"there are {self.at['batches_a_step']}; resume with as many."
            )
        module, device = self.engine.bare, self.engine.device
        load_state(state, module, self.optimiser, self.average, rank=self.rank, device=device)
        self.at |= at
        self.saved_step = self.at["step"]

    @contextlib.contextmanager
    def _catch_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C, or the end that a scheduler announces, asks for a stop after this step; the second one kills."""
        caught = (signal.SIGINT, signal.SIGTERM)

        def ask(*_: object) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        try:
            before = [signal.signal(number, ask) for number in caught]
        except ValueError:  # not in the main thread, where signals never arrive
            yield
            return
        try:
            yield
        finally:
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)


def is_better(loss: float, best: float | None) -> bool:
    """Whether a validation loss takes the place of the best so far; the first one does, and a number always beats NaN.

    >>> is_better(1.0, 2.0), is_better(1.0, float("nan")), is_better(float("nan"), 2.0), is_better(2.0, 2.0)
    (True, True, False, False)
    """
    if best is None:
        return True
    return loss < best or (math.isfinite(loss) and not math.isfinite(best))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
