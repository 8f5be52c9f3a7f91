"""The training loop.

Everything random about a step is a function of the seed and the step's number, or is in the checkpoint. So a run that was
stopped and resumed ends with the same weights as one that never was.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from medst import NUMERICS, weights
from medst.batch import Batch
from medst.errors import MedstError
from medst.files import claim, set_aside
from medst.pretrain.checkpoint import RunFolder
from medst.pretrain.divergence import REMEMBERED, stop_if_diverged
from medst.pretrain.environment import add_environment
from medst.pretrain.memory import check_memory
from medst.pretrain.schedule import learning_rate, loss_shares
from medst.pretrain.setup import find_tokenizer, notes_on_start, open_training_cohort
from medst.pretrain.signals import catch_stop_signals
from medst.pretrain.step import Step
from medst.pretrain.training import Training
from medst.pretrain.validate import is_better, validate
from medst.progress import Progress
from medst.recipes.settings import Recipe


def pretrain(
    cohort: Path,
    run: Path,
    recipe: Recipe,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model on a cohort, or resume the run in `run`.

    Args:
        cohort: folder of a prepared cohort with pairs.
        run: the run's folder; see `medst.pretrain.checkpoint` for its files.
        recipe: all settings.
        progress: called with (steps done, steps in all, a line on loss and time left).
        say: called with each note on the run for the user, most of them before the first step.

    Returns:
        `finished` (False after Ctrl-C or `stop_after`), `interrupted`, `steps`, `epochs`, `best_loss`, `best_epoch`,
        `skipped` and `stopped_early`; also `notes`, everything passed to `say`, and `damaged_states`, if there are any.

    Raises:
        MedstError: impossible settings, another run in the folder or another process that writes it, an unsuitable
            cohort, or a loss that explodes or is not finite.
    """
    recipe.check()
    data = open_training_cohort(cohort, recipe)
    if run.resolve().is_relative_to(cohort.resolve()):
        raise MedstError(f"{run} is inside the cohort {cohort}, which a run must not change; give a folder outside.")
    about = {"dataset": data.meta["dataset"], "fingerprint": data.fingerprint}
    folder = RunFolder(run)
    processes = PartialState(cpu=not torch.accelerator.is_available())
    with claim(run) if processes.is_main_process else contextlib.nullcontext():
        with processes.main_process_first():  # so that a hub id is fetched once
            folder.check(recipe, about)
            is_new = not folder.tokenizer.is_dir()
            tokenizer, restored = find_tokenizer(data, recipe, folder)
        check_memory(recipe, data, tokenizer, processes.num_processes, processes.device)
        set_seed(recipe.run.seed)
        model, objective = weights.build(recipe, tokenizer)
        if not folder.checkpoints():
            weights.load_pretrained(model, **vars(recipe.start))
        training = Training(folder, recipe, data, tokenizer, Step(model, objective, recipe.data), say)
        # Nothing is written up to here, so that a refused run leaves no folder behind.
        processes.wait_for_everyone()
        with processes.main_process_first():
            folder.start(recipe, about)  # the first process writes the settings, the others compare theirs
            if restored and processes.is_main_process:
                set_aside(folder.tokenizer)
            folder.save_tokenizer(tokenizer)
            if processes.is_main_process:
                training.note(add_environment(run / "environment.json", processes.num_processes))
        training.note(restored)
        for note in notes_on_start(data, recipe, tokenizer) if is_new else []:
            training.note(note)
        if folder.numerics != NUMERICS:
            training.note(
                f"{run} was started with numerics version {folder.numerics}, and this medst has version {NUMERICS}; the run "
                "resumes, but will differ from one that was never stopped."
            )
        training.resume()
        training.compile()
        training.start_logging()
        return train(training, progress)


def train(training: Training, progress: Progress | None) -> dict[str, Any]:
    """Take the steps that are left, and validate after each epoch; `progress` and result as for `pretrain`."""
    state, settings, run = training.state, training.recipe.optimiser, training.recipe.run
    limit = settings.stop_after or training.steps
    first, began = state.step, time.monotonic()
    stop = False
    with catch_stop_signals() as stop_requested:
        while not (stop or state.stopped_early or state.validated == settings.epochs):
            # Checkpoints of early versions count no validations.
            epoch = max(state.validated, (state.step - 1) // training.per_epoch)
            for parts, waited in step_batches(training, epoch, state.step - epoch * training.per_epoch):
                loss = take_step(training, parts, epoch, waited)
                if progress is not None:
                    left = (time.monotonic() - began) / (state.step - first) * (training.steps - state.step)
                    clock = timedelta(seconds=round(left))
                    note = f"epoch {epoch + 1}/{settings.epochs}, loss {loss:.3f}, {clock} left"
                    progress(state.step, training.steps, note)
                save_due = bool(run.save_minutes) and time.monotonic() - training.saved_at >= 60 * run.save_minutes
                # All devices stop and save together, though a signal or the clock may reach one of them first.
                stop, save_due = training.engine.any_device(stop_requested.is_set(), save_due)
                stop = stop or state.step >= limit < training.steps
                if stop or save_due or (run.save_every and state.step % run.save_every == 0):
                    training.save()
                if stop:
                    break
            else:
                end_epoch(training, epoch)
    training.save()
    if not stop:
        training.choose_margins()
    training.accelerator.end_training()
    lists = {"damaged_states": training.damaged, "notes": training.notes}
    return {name: value for name, value in lists.items() if value} | {
        "finished": not stop,
        "interrupted": stop_requested.is_set(),
        "steps": state.step,
        "epochs": state.step // training.per_epoch,
        "best_loss": state.best_loss,
        "best_epoch": state.best_epoch,
        "skipped": state.skipped,
        "stopped_early": state.stopped_early,
    }


def step_batches(training: Training, epoch: int, start: int) -> Iterator[tuple[list[Batch], float]]:
    """Yield this device's parts of each step of an epoch, and the seconds spent waiting for them.

    Args:
        training: the run.
        epoch: from 0.
        start: first step of the epoch that is needed.
    """
    engine, batches = training.engine, training.train
    batches.epoch = epoch
    together, own = engine.world * engine.parts, range(engine.rank * engine.parts, (engine.rank + 1) * engine.parts)
    numbers = [step * together + part for step in range(start, training.per_epoch) for part in own]
    loaded = batches.load(numbers, training.recipe.run.loader_workers, engine.device)
    while True:
        began = time.monotonic()
        parts = list(islice(loaded, engine.parts))
        if not parts:
            return
        yield parts, time.monotonic() - began


def take_step(training: Training, parts: list[Batch], epoch: int, waited: float) -> float:
    """Take one optimiser step and log it.

    Args:
        training: the run.
        parts: this device's batches of the step.
        epoch: from 0.
        waited: seconds spent waiting for them.

    Returns:
        The loss.

    Raises:
        MedstError: the loss explodes or is not finite.
    """
    recipe, state, engine, optimiser = training.recipe, training.state, training.engine, training.optimiser
    began, number = time.monotonic(), state.step
    lr = learning_rate(number, training.steps, recipe.optimiser)
    for group in optimiser.param_groups:
        group["lr"] = lr

    engine.bare.train()
    own, backward = engine.forward(parts, loss_shares(number, training.steps, recipe.objective))
    losses = engine.mean(own)
    stop_if_diverged(training, losses["loss"], parts)
    backward()
    norm = engine.clip(recipe.optimiser.clip or math.inf)
    if math.isfinite(norm) and not (recipe.optimiser.skip_above and norm > recipe.optimiser.skip_above):
        optimiser.step()
    else:
        state.skipped += 1
    optimiser.zero_grad(set_to_none=True)

    state.step = number + 1
    state.recent = [*state.recent[1 - REMEMBERED :], losses["loss"]]
    if training.average is not None:
        training.average.update(state.step)
    row = losses | {"lr": lr, "seconds": time.monotonic() - began, "waited": waited, "gradient_norm": norm}
    training.log(row, epoch, "train")
    return losses["loss"]


def end_epoch(training: Training, epoch: int) -> None:
    """Validate, save the models, and decide whether to stop early."""
    state, recipe = training.state, training.recipe
    with training.average.in_place() if training.average else contextlib.nullcontext():
        training.valid.epoch = epoch
        losses = validate(training.engine, training.valid, recipe.run.loader_workers)
        if is_better(losses["loss"], state.best_loss):
            state.best_loss, state.best_epoch = losses["loss"], epoch + 1
            training.save_model("best")
        training.save_model("last")
    state.validated = epoch + 1
    training.log(losses, epoch, "valid")
    if not math.isfinite(losses["loss"]):
        training.note(f"the validation loss after epoch {epoch + 1} is {losses['loss']}, so any finite loss beats it")
    patience = recipe.optimiser.patience
    state.stopped_early = bool(patience and epoch + 1 - (state.best_epoch or 0) >= patience)
    if not recipe.run.save_every:
        training.save()
