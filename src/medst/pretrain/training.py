"""A run in memory: its model, data, optimiser and progress, and how they are saved, resumed and logged."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from medst import weights
from medst.batch import Batches
from medst.cohort.store import Cohort
from medst.distributed import seed_process
from medst.errors import MedstError
from medst.files import part_of, recover_folder
from medst.pretrain.checkpoint import RunFolder, TrainedTensors, TrainState, unsharded
from medst.pretrain.schedule import Average, make_optimiser
from medst.pretrain.step import Engine, Step, make_accelerator
from medst.recipes.settings import Recipe, to_dict
from medst.use.compare import LEAST_STATEMENTS, choose_margin, stated_between
from medst.use.model import load
from medst.weights.trained_on import note_patients


class Training:
    """A run's model, data and optimiser, and what is done with them between steps.

    Attributes:
        state: the progress of the run.
        per_epoch: steps of an epoch.
        steps: steps of the whole run.
        notes: notes for the user so far.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        cohort: Cohort,
        tokenizer: PreTrainedTokenizerBase,
        step: Step,
        say: Callable[[str], None] | None,
    ) -> None:
        self.folder, self.recipe, self.cohort, self.tokenizer = folder, recipe, cohort, tokenizer
        self.notes, self._say = list[str](), say
        self.accelerator = make_accelerator(recipe, str(folder.path))
        world, parts = self.accelerator.num_processes, recipe.optimiser.accumulate
        pieces, seed, data = recipe.model.text.pieces, recipe.run.seed, recipe.data
        together = world * parts
        self.train = Batches(cohort, "train", tokenizer, data, pieces=pieces, seed=seed, training=True, parts=together)
        self.valid = Batches(cohort, "valid", tokenizer, data, pieces=pieces, seed=seed, training=False)
        self.state = TrainState(batches_a_step=together)
        self.per_epoch = len(self.train) // together
        if self.per_epoch == 0:
            raise MedstError(
                f"{cohort.path}: {len(self.train)} batches are fewer than the {world} processes x {parts} parts of one "
                "step; take a larger cohort, or fewer of them."
            )
        self.steps = self.per_epoch * recipe.optimiser.epochs
        self.engine = Engine(self.accelerator, recipe, step)
        self.optimiser = make_optimiser(self.engine.bare, recipe.optimiser)
        self.average = Average(self.engine.bare, recipe.optimiser.ema) if recipe.optimiser.ema else None
        engine = self.engine
        self.tensors = TrainedTensors(engine.bare, self.optimiser, self.average, engine.rank, engine.device)
        seed_process(recipe.run.seed, engine.rank)
        self.saved_at, self.saved_step, self.damaged = time.monotonic(), -1, list[str]()
        # Weights and two moments, while the checkpoints to be dropped are still there; and a model for `best` or `last`.
        numbers = sum(p.numel() for p in self.engine.bare.parameters())
        folder.check_disk_space(4 * numbers * (3 + 1 + (self.average is not None)))

    def note(self, note: str) -> None:
        """Tell the user about the run, now and in its summary; an empty note is ignored."""
        if note:
            self.notes.append(note)
            if self._say is not None:
                self._say(note)

    def resume(self) -> None:
        """Restore the newest intact checkpoint, if there is one."""
        if self.accelerator.is_main_process:
            self.damaged = self.folder.recover()
            for name in ("best", "last"):
                recover_folder(self.folder.path / name, weights.is_model)
        self.accelerator.wait_for_everyone()
        checkpoint = next(iter(self.folder.checkpoints()), None)
        if checkpoint is None:
            return
        found, together = TrainState.read(checkpoint), self.state.batches_a_step
        if found.batches_a_step not in (None, together):
            raise MedstError(
                f"{self.folder.path} was started with {found.batches_a_step} batches per step (processes x "
                f"--optimiser.accumulate), now there are {together}; resume with as many."
            )
        self.tensors.load(checkpoint)
        self.state, self.saved_step = found, found.step
        self.state.batches_a_step = together

    def compile(self) -> None:
        """Compile the image encoder if the recipe asks for it, as the run did before if it is resumed."""
        wanted = self.recipe.run.compile
        if self.state.compiled is None and wanted != "off":
            views = int((1 + (self.train.lateral >= 0)).sum() / len(self.train.sequences))
            pictures = views * self.recipe.data.sequences_per_batch
            self.state.compiled, note = self.engine.compile(pictures, always=wanted == "on")
            self.note(note)
        elif self.state.compiled:
            self.engine.compile(0, always=True)
        self.state.compiled = bool(self.state.compiled)

    def start_logging(self) -> None:
        """Cut the metrics back to the checkpoint, and start the trackers there."""
        state, run, is_main = self.state, self.recipe.run, self.accelerator.is_main_process
        if is_main:
            checkpoint = self.folder.checkpoint(state.step) if state.step else None
            self.note(self.folder.metrics.cut(state.step, state.validated, checkpoint, state.metrics))
        options = dict[str, dict[str, Any]]()
        if run.logger == "wandb":
            same = {"id": self.folder.wandb_id(), "resume": "allow"} if is_main else {}
            name = run.name or self.folder.path.absolute().name
            options["wandb"] = {"name": name, "dir": str(self.folder.path), "config": to_dict(self.recipe), **same}
        elif state.step:
            options["tensorboard"] = {"purge_step": state.step + 1}
        # accelerate takes this name for TensorBoard's folder, but for the project at Weights & Biases.
        self.accelerator.init_trackers(run.project if run.logger == "wandb" else "tensorboard", init_kwargs=options)

    def log(self, row: dict[str, float], epoch: int, split: str) -> None:
        """Write a row to metrics.csv and to the trackers."""
        if self.accelerator.is_main_process:
            step = self.state.step
            self.folder.metrics.log({"step": step, "epoch": epoch + 1, "split": split, **row})
            self.accelerator.log({f"{name}/{split}": value for name, value in row.items()}, step=step)

    def save(self) -> None:
        """Write a checkpoint; if this step has one, update it, as an epoch may have been validated since."""
        is_main, final = self.accelerator.is_main_process, self.folder.checkpoint(self.state.step)
        if self.saved_step == self.state.step:
            if is_main:
                self._write_state(final)
            return
        part = part_of(final)
        self.tensors.save(part)
        self.accelerator.wait_for_everyone()  # each has written its random state
        if is_main:
            self._write_state(part)
            self.folder.seal(final)
            self.folder.drop_old_checkpoints(self.recipe.run.keep_states)
        self.accelerator.wait_for_everyone()
        self.saved_at, self.saved_step = time.monotonic(), self.state.step

    def _write_state(self, checkpoint: Path) -> None:
        self.state.metrics = self.folder.metrics.copy_to(checkpoint)
        self.state.write(checkpoint)

    def save_model(self, name: str) -> None:
        """Write the model as `best` or `last`."""
        model, objective = self.engine.bare.model, self.engine.bare.objective
        if self.engine.sharded:  # gathered by all, then put into a model of its own
            model, objective = weights.build(self.recipe, self.tokenizer, "meta")
            for whole, sharded in ((model, self.engine.bare.model), (objective, self.engine.bare.objective)):
                values = {key: unsharded(value) for key, value in sharded.state_dict().items()}
                whole.load_state_dict(values, assign=True)
        if self.accelerator.is_main_process:
            patients = note_patients(self.folder.path, self.cohort, complete=not self.recipe.start.checkpoint)
            place = self.folder.path / name
            weights.save(place, model, objective, self.tokenizer, self.recipe, trained_on=patients)

    def choose_margins(self) -> None:
        """Choose the margin of `compare` on the validation split for `best` and `last`, unless they have one."""
        models = [self.folder.path / name for name in ("best", "last")]
        models = [model for model in models if weights.is_model(model) and weights.read_margin(model) is None]
        if models and self.accelerator.is_main_process:
            stated = stated_between(self.cohort, "valid")
            if stated.height < LEAST_STATEMENTS:
                self.note(
                    f"the validation reports state {stated.height} changes of findings, and {LEAST_STATEMENTS} are needed "
                    "to choose the margin of `compare`, which keeps its default"
                )
                models = []
            for model in models:
                margin = choose_margin(load(model, device=str(self.engine.device)), self.cohort, stated)
                if margin is not None:
                    weights.keep_margin(model, margin)
        self.accelerator.wait_for_everyone()
