"""A run that is stopped anywhere ends with the same bits as one that never was."""

import csv
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import LoggerType
from safetensors.torch import load_file

import medst
from medst import weights
from medst.batch import Batch, Batches
from medst.cohort.sequences import cut_sequences
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.pretrain import Step, pretrain
from medst.pretrain.checkpoint import RunFolder
from medst.pretrain.metrics import Metrics
from medst.pretrain.setup import make_tokenizer
from medst.pretrain.step import Engine, computes_in_bf16
from medst.pretrain.training import Training
from medst.pretrain.validate import validate
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer, load_tokenizer
from medst.weights.trained_on import TRAINED_ON, read_trained_on


def losses(run: Path, split: str = "train") -> list[tuple[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file) if row["split"] == split]


def same_weights(a: Path, b: Path) -> bool:
    for name in ("model.safetensors", "objective.safetensors"):
        left, right = load_file(a / name), load_file(b / name)
        if any(not torch.equal(left[key], right[key]) for key in left) or set(left) != set(right):
            return False
    return True


@pytest.fixture(scope="module")
def undisturbed(phantom_cohort: Path, small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    summary = pretrain(phantom_cohort, run, small_recipe)
    assert summary["finished"]
    return run


def test_a_run_writes_the_files_that_its_docstring_lists(undisturbed: Path, small_recipe: Recipe) -> None:
    names = {p.name for p in undisturbed.iterdir()}
    assert {"settings.json", "tokenizer", "metrics.csv", "tensorboard", "state", "best", "last"} <= names
    assert len(list((undisturbed / "tensorboard").glob("events*"))) == 1
    assert len(losses(undisturbed, "valid")) == small_recipe.optimiser.epochs
    assert not list(undisturbed.rglob("*.part"))


def test_the_loss_goes_down(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    # Batches of two differ so much that ten steps say little, hence more epochs.
    pretrain(phantom_cohort, tmp_path, replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=12)))
    values = [float(loss) for _, loss in losses(tmp_path)]
    assert np.mean(values[-15:]) < 0.92 * np.mean(values[:15])


def test_losses_are_the_same_with_the_same_seed_only(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    pretrain(phantom_cohort, tmp_path / "same", small_recipe)
    assert losses(tmp_path / "same") == losses(undisturbed)
    other = replace(small_recipe, run=replace(small_recipe.run, seed=1))
    pretrain(phantom_cohort, tmp_path / "other", other)
    assert losses(tmp_path / "other") != losses(undisturbed)


def test_a_stopped_and_resumed_run_gives_the_same_bits(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for stop in (1, 4, 0):
        recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, stop_after=stop))
        summary = pretrain(phantom_cohort, run, recipe)
        assert summary["finished"] is (stop == 0)
    assert losses(run) == losses(undisturbed)
    assert losses(run, "valid") == losses(undisturbed, "valid")
    assert same_weights(run / "last", undisturbed / "last")
    noted = {(run / place / TRAINED_ON).read_bytes() for place in (".", "best", "last")}
    assert len(noted) == 1
    pairs, found = open_cohort(phantom_cohort).pairs, read_trained_on(run / "best")
    assert pairs is not None
    assert found is not None
    for split in ("train", "valid"):
        assert found.seen("mimic-cxr", pairs["patient_id"], split) == set(pairs.filter(split=split)["patient_id"])
    assert same_weights(run / "best", undisturbed / "best")


def test_steps_after_the_last_checkpoint_are_computed_again(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def die(done: int, total: int, note: str) -> None:
        if done == total - 1:
            raise MemoryError

    with pytest.raises(MemoryError):
        pretrain(phantom_cohort, run, small_recipe, progress=die)
    assert pretrain(phantom_cohort, run, small_recipe)["finished"]
    assert losses(run) == losses(undisturbed)
    assert same_weights(run / "last", undisturbed / "last")


def apart_from_times(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in csv.DictReader(file)]


@pytest.mark.parametrize("lost", ["nothing", "rest of a row"])
def test_metrics_of_a_killed_run_are_those_of_an_undisturbed_one(
    undisturbed: Path,
    phantom_cohort: Path,
    small_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    run, log = tmp_path / "run", Metrics.log
    an_epoch = len(losses(undisturbed)) // small_recipe.optimiser.epochs
    recipe = replace(small_recipe, run=replace(small_recipe.run, save_every=an_epoch))

    def die(self: Metrics, row: Mapping[str, object]) -> None:
        log(self, row)
        if row["split"] == "valid":  # the checkpoint is saved by now, without this validation
            if lost == "rest of a row":
                self.file.write_bytes(self.file.read_bytes()[:-9])
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "log", die)
        with pytest.raises(MemoryError):
            pretrain(phantom_cohort, run, recipe)
    pretrain(phantom_cohort, run, recipe)
    assert apart_from_times(run) == apart_from_times(undisturbed)


def test_metrics_that_lost_rows_between_two_attempts_are_restored(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    an_epoch = len(losses(undisturbed)) // small_recipe.optimiser.epochs
    for stop in (an_epoch, an_epoch + 1, 0):
        recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, stop_after=stop))
        summary = pretrain(phantom_cohort, run, recipe)
        assert any("restored from" in note for note in summary.get("notes", [])) is (stop != an_epoch)
        if stop:
            os.truncate(run / "metrics.csv", (run / "metrics.csv").stat().st_size - 150)
    assert apart_from_times(run) == apart_from_times(undisturbed)


def test_a_damaged_tokenizer_is_restored_from_a_model_of_the_run(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = load_tokenizer(run / "tokenizer").get_vocab()
    (run / "tokenizer" / "tokenizer.json").write_text("{}")
    note, _ = pretrain(phantom_cohort, run, small_recipe)["notes"]  # the other one is about the margin of `compare`
    assert "was damaged and is restored from" in note
    assert load_tokenizer(run / "tokenizer").get_vocab() == before
    for name in ("last", "best"):
        shutil.rmtree(run / name)
    (run / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(MedstError, match=r"Remove .*tokenizer; the same command then makes the same tokenizer again"):
        pretrain(phantom_cohort, run, small_recipe)


def test_a_run_inside_its_cohort_is_refused(phantom_cohort: Path, small_recipe: Recipe) -> None:
    with pytest.raises(MedstError, match="is inside the cohort"):
        pretrain(phantom_cohort, phantom_cohort / "run", small_recipe)
    assert not (phantom_cohort / "run").exists()


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_metrics_and_models(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, save_every=1))
    program = (
        "import pickle, sys; from pathlib import Path; from medst.pretrain import pretrain\n"
        "cohort, run, recipe = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "pretrain(cohort, run, recipe)"
    )
    run, lock, draw = tmp_path / "run", tmp_path / ".run.lock", random.Random(13)
    given = pickle.dumps((phantom_cohort, run, recipe)).hex()
    kills = 0
    while True:
        with subprocess.Popen([sys.executable, "-c", program, given]) as process:
            while kills < 12 and process.poll() is None:  # until it is past its imports
                if lock.is_file() and lock.read_text().startswith(f"{process.pid} "):
                    break
                time.sleep(0.01)
            try:
                assert process.wait(draw.uniform(0, 4) if kills < 12 else 600) == 0
                break
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    assert kills
    assert apart_from_times(run) == apart_from_times(undisturbed)
    assert same_weights(run / "last", undisturbed / "last")
    assert same_weights(run / "best", undisturbed / "best")
    assert not list(run.rglob("*.part"))


def test_ctrl_c_finishes_the_step_saves_and_exits(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def press(done: int, total: int, note: str) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    summary = pretrain(phantom_cohort, run, small_recipe, progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert summary["finished"] is False
    assert summary["steps"] == 2
    assert pretrain(phantom_cohort, run, small_recipe)["finished"]
    assert same_weights(run / "last", undisturbed / "last")


def test_a_second_signal_ends_the_run_at_once(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    left = []

    def press(done: int, total: int, note: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        left.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        pretrain(phantom_cohort, tmp_path / "run", small_recipe, progress=press)
    assert left == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) is before


def no_step(training: Training, *_: object) -> float:
    """Replaces `take_step`."""
    training.state.step += 1
    return 0.0


def test_validation_losses_are_means_over_pairs(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medst.pretrain.loop.take_step", no_step)
    data = replace(small_recipe.data, sequences_per_batch=2)
    recipe = replace(small_recipe, data=data, optimiser=replace(small_recipe.optimiser, epochs=1))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    last = medst.load(tmp_path / "run" / "last")
    assert last.objective is not None
    cohort, pieces = open_cohort(phantom_cohort), recipe.model.text.pieces
    batches = Batches(cohort, "valid", last.tokenizer, data, pieces=pieces, seed=0, training=False)
    assert len({len(batches[number].pair) for number in range(len(batches))}) > 1
    step = Step(last.model, last.objective, data).eval()
    total, pairs = dict[str, float](), 0
    bf16 = computes_in_bf16(recipe, torch.device("cpu"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for batch in map(batches.__getitem__, range(len(batches))):
            pairs += len(batch.pair)
            for name, value in step(batch).items():
                total[name] = total.get(name, 0.0) + value.item() * len(batch.pair)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["split"] == "valid"
    for name, value in total.items():
        assert float(row[name]) == pytest.approx(value / pairs, rel=1e-4), name


def test_patience_counts_epochs_since_the_best(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([3.0, 2.0, 2.5, 2.4, 1.0, 0.5])
    monkeypatch.setattr("medst.pretrain.loop.validate", lambda *_: {"loss": next(found)})
    monkeypatch.setattr(Training, "save_model", lambda *_: None)
    monkeypatch.setattr("medst.pretrain.loop.take_step", no_step)
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, patience=2, epochs=6))
    for _ in range(2):  # a finished run stays finished
        summary = pretrain(phantom_cohort, tmp_path / "run", recipe)
        assert summary["finished"]
        assert summary["stopped_early"]
        assert (summary["epochs"], summary["best_epoch"], summary["best_loss"]) == (4, 2, 2.0)


@pytest.mark.parametrize(("ema", "tables"), [(0.0, 4), (0.9, 5)])
def test_disk_space_is_checked_for_a_checkpoint_and_a_model(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float, tables: int
) -> None:
    """In float32: weights, two moments and, if there is one, their average; and the weights of `best`."""

    def full(folder: RunFolder, asked: int) -> None:
        raise MedstError(f"{asked} bytes")

    monkeypatch.setattr(RunFolder, "check_disk_space", full)
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, ema=ema))
    with pytest.raises(MedstError) as refused:
        pretrain(phantom_cohort, tmp_path / "run", recipe)
    numbers = sum(
        p.numel()
        for part in weights.build(recipe, make_tokenizer(open_cohort(phantom_cohort), recipe))
        for p in part.parameters()
    )
    assert str(refused.value) == f"{4 * numbers * tables} bytes"


@pytest.mark.parametrize("wanted", ["on", "auto"])
def test_a_block_is_timed_on_the_pictures_of_an_average_batch(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Any
) -> None:
    asked: list[tuple[int, bool]] = []

    def noted(engine: Engine, pictures: int, always: bool) -> tuple[bool, str]:
        asked.append((pictures, always))
        return False, "off"

    monkeypatch.setattr(Engine, "compile", noted)
    recipe = replace(small_recipe, run=replace(small_recipe.run, compile=wanted))
    monkeypatch.setattr("medst.pretrain.loop.take_step", no_step)
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, stop_after=1))
    assert "off" in pretrain(phantom_cohort, tmp_path / "run", recipe)["notes"]
    pairs = open_cohort(phantom_cohort).pairs.filter(split="train")  # type: ignore[union-attr]
    sequences = len(cut_sequences(pairs.with_row_index("pair"), recipe.data.sequence_length))
    mean = (pairs.height + pairs["lateral"].count()) // sequences
    assert asked == [(mean * recipe.data.sequences_per_batch, wanted == "on")]


def test_a_finished_run_has_nothing_left_to_do(undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe) -> None:
    before = (undisturbed / "metrics.csv").read_bytes()
    steps: list[int] = []
    summary = pretrain(phantom_cohort, undisturbed, small_recipe, progress=lambda done, total, note: steps.append(done))
    assert summary["finished"]
    assert steps == []
    assert (undisturbed / "metrics.csv").read_bytes() == before


def test_loader_processes_change_nothing(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, loader_workers=1))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_a_step_with_too_large_a_gradient_is_skipped_and_counted(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    settings = replace(small_recipe.optimiser, skip_above=1e-9, epochs=1)
    summary = pretrain(phantom_cohort, tmp_path / "run", replace(small_recipe, optimiser=settings))
    assert summary["skipped"] == summary["steps"] > 0


def test_a_loss_that_is_nan_stops_the_run(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., dict[str, torch.Tensor]] = Step.forward

    def broken(self: Step, batch: object, shares: object = None) -> dict[str, torch.Tensor]:
        return {name: value * float("nan") for name, value in forward(self, batch, shares).items()}

    monkeypatch.setattr(Step, "forward", broken)
    with pytest.raises(MedstError, match=r"The loss is nan at step 0 .*optimiser\.lr may help"):
        pretrain(phantom_cohort, tmp_path / "run", small_recipe)


def test_the_best_model_loads_and_is_in_evaluation_mode(undisturbed: Path) -> None:
    loaded = medst.load(undisturbed / "best")
    assert not loaded.model.training
    assert loaded.objective is not None


def test_the_tokenizer_of_the_recipe_is_used(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    learn_tokenizer(["a tokenizer of other words"], 60).save_pretrained(str(tmp_path / "words"))
    recipe = replace(small_recipe, data=replace(small_recipe.data, tokenizer=str(tmp_path / "words")))
    found = make_tokenizer(open_cohort(phantom_cohort), recipe).get_vocab()
    assert found == load_tokenizer(tmp_path / "words", "--data.tokenizer").get_vocab()
    assert found != make_tokenizer(open_cohort(phantom_cohort), small_recipe).get_vocab()


def test_missing_start_weights_are_refused(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(small_recipe, start=replace(small_recipe.start, deit=str(tmp_path / "deit.pth")))
    with pytest.raises(MedstError, match=r"deit\.pth"):
        pretrain(phantom_cohort, tmp_path / "run", recipe)


def test_a_cohort_without_pairs_is_refused(phantom_comparisons: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no pairs"):
        pretrain(phantom_comparisons, tmp_path / "run", small_recipe)


def test_impossible_settings_are_refused_before_anything_is_written(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    bad = replace(small_recipe, data=replace(small_recipe.data, crop=300))
    with pytest.raises(MedstError, match="crop"):
        pretrain(phantom_cohort, tmp_path / "run", bad)
    assert not (tmp_path / "run").exists()


def test_the_batch_with_a_nan_loss_is_kept(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., dict[str, torch.Tensor]] = Step.forward
    seen: list[Batch] = []

    def broken(self: Step, batch: Batch, shares: object = None) -> dict[str, torch.Tensor]:
        seen.append(batch)
        factor = float("inf") if len(seen) == 3 else 1.0
        return {name: value * factor for name, value in forward(self, batch, shares).items()}

    monkeypatch.setattr(Step, "forward", broken)
    with pytest.raises(MedstError, match=r"The loss is inf at step 2 .*batch-0.safetensors"):
        pretrain(phantom_cohort, tmp_path / "run", small_recipe)
    kept = load_file(tmp_path / "run" / "failed-step-000000002" / "batch-0.safetensors")
    for field in fields(Batch):
        assert torch.equal(kept[field.name], getattr(seen[2], field.name))


def saved_often(recipe: Recipe, **run: object) -> Recipe:
    return replace(recipe, run=replace(recipe.run, save_every=2, **run))


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, damage: str
) -> None:
    run = tmp_path / "run"
    recipe = saved_often(small_recipe)
    pretrain(phantom_cohort, run, replace(recipe, optimiser=replace(recipe.optimiser, stop_after=4)))
    last = RunFolder(run).checkpoints()[0]
    file = last / "optimiser.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    summary = pretrain(phantom_cohort, run, recipe)
    assert summary["finished"]
    assert summary["damaged_states"] == [last.name]
    assert (run / "state" / f"{last.name}.damaged").is_dir()
    assert losses(run) == losses(undisturbed)
    assert same_weights(run / "last", undisturbed / "last")


def test_a_run_with_only_damaged_checkpoints_is_refused(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = saved_often(small_recipe)
    pretrain(phantom_cohort, run, replace(recipe, optimiser=replace(recipe.optimiser, stop_after=4)))
    for state in RunFolder(run).checkpoints():
        (state / "run.json").write_text("{")
    with pytest.raises(MedstError, match=r"every checkpoint is damaged \(step-000000004, step-000000002\)"):
        pretrain(phantom_cohort, run, recipe)


def test_the_number_of_checkpoints_to_keep_is_respected(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    pretrain(phantom_cohort, tmp_path / "run", saved_often(small_recipe, keep_states=3))
    assert len(RunFolder(tmp_path / "run").checkpoints()) == 3


def test_a_checkpoint_is_saved_after_so_many_minutes(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]

    def step(training: Training, *_: object) -> float:
        clock[0] += 40
        return no_step(training)

    for module in ("loop", "training"):
        monkeypatch.setattr(f"medst.pretrain.{module}.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("medst.pretrain.loop.take_step", step)
    recipe = replace(small_recipe, run=replace(small_recipe.run, save_minutes=1, keep_states=99))
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, stop_after=5))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    saved = [
        json.loads((state / "run.json").read_text())["step"] for state in RunFolder(tmp_path / "run").checkpoints()
    ]
    assert saved == [5, 4, 2]  # every 80 seconds, and where it was stopped


def test_more_parts_than_batches_are_refused(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, accumulate=99))
    with pytest.raises(MedstError, match="batches are fewer than the 1 processes x 99 parts"):
        pretrain(phantom_cohort, tmp_path / "run", recipe)


def test_too_little_disk_for_a_checkpoint_is_refused_before_the_first_step(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "medst.pretrain.checkpoint.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000)
    )
    with pytest.raises(MedstError, match="the next checkpoint takes"):
        pretrain(phantom_cohort, tmp_path / "run", small_recipe)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_recomputed_activations_give_the_same_weights(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, checkpoint_activations=True))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    ours, theirs = load_file(tmp_path / "run/last/model.safetensors"), load_file(undisturbed / "last/model.safetensors")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_saved_and_survive_a_resume(
    phantom_cohort: Path, small_recipe: Recipe, undisturbed: Path, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, ema=0.9))
    pretrain(phantom_cohort, tmp_path / "whole", recipe)
    assert losses(tmp_path / "whole") == losses(undisturbed)  # training itself does not see the average
    assert not same_weights(tmp_path / "whole" / "last", undisturbed / "last")
    pretrain(phantom_cohort, tmp_path / "run", replace(recipe, optimiser=replace(recipe.optimiser, stop_after=3)))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert losses(tmp_path / "run", "valid") == losses(tmp_path / "whole", "valid")
    assert same_weights(tmp_path / "run" / "last", tmp_path / "whole" / "last")


def test_the_averaged_model_has_its_own_batch_statistics(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, ema=0.9, epochs=1))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    kept = load_file(tmp_path / "run" / "last" / "model.safetensors")
    state = RunFolder(tmp_path / "run").checkpoints()[0]
    live, averaged = load_file(state / "weights.safetensors"), load_file(state / "average.safetensors")
    names = [name for name in kept if "running" in name]
    assert names
    for name in names:
        assert not torch.equal(kept[name], live[f"model.{name}"])
        assert torch.equal(kept[name], averaged[f"model.{name}"])


def test_a_validation_loss_that_is_nan_never_stays_the_best(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([math.nan, 5.0, math.nan, 4.0])

    def given(*args: Any) -> dict[str, float]:
        return validate(*args) | {"loss": next(found)}

    monkeypatch.setattr("medst.pretrain.loop.validate", given)
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=4))
    summary = pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert (summary["best_loss"], summary["best_epoch"]) == (4.0, 4)
    assert [note for note in summary["notes"] if "is nan" in note][1].startswith("the validation loss after epoch 3")
    assert same_weights(tmp_path / "run" / "best", tmp_path / "run" / "last")


def test_weights_and_biases_gets_one_named_run_across_resumes(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, logged, finished = list[dict[str, Any]](), list[int | None](), list[bool]()

    class Run:
        def log(self, values: object, step: int | None = None) -> None:
            logged.append(step)

        def finish(self) -> None:
            finished.append(True)

    def init(**options: Any) -> Run:
        begun.append(options)
        return Run()

    wandb = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])
    settings = replace(small_recipe.run, logger="wandb", project="chest")
    recipe = replace(small_recipe, run=settings)
    stopped = replace(recipe, optimiser=replace(recipe.optimiser, stop_after=2))
    pretrain(phantom_cohort, tmp_path / "first", stopped)
    pretrain(phantom_cohort, tmp_path / "first", recipe)
    pretrain(phantom_cohort, tmp_path / "second", replace(stopped, run=replace(settings, name="mine")))
    first, again, second = begun
    assert (first["project"], first["name"], first["resume"]) == ("chest", "first", "allow")
    assert first["id"] == again["id"] != second["id"]
    assert second["name"] == "mine"
    assert len(finished) == 3
    steps = [int(step) for step, _ in losses(tmp_path / "first")]
    assert list(dict.fromkeys(logged)) == steps
    assert first["config"]["optimiser"]["lr"] == recipe.optimiser.lr


def test_a_logger_that_is_not_installed_is_refused(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medst.pretrain.step.find_spec", lambda name: None)
    recipe = replace(small_recipe, run=replace(small_recipe.run, logger="wandb"))
    with pytest.raises(MedstError, match=r"wandb is not installed; pip install 'medst\[wandb\]'"):
        pretrain(phantom_cohort, tmp_path / "run", recipe)


def test_a_loss_that_explodes_stops_the_run(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., dict[str, torch.Tensor]] = Step.forward
    taken: list[int] = []

    def exploding(self: Step, batch: Batch, shares: object = None, **more: object) -> dict[str, torch.Tensor]:
        taken.append(self.training)
        factor = 500.0 if sum(taken) > 55 else 1.0
        return {name: value * factor for name, value in forward(self, batch, shares, **more).items()}

    monkeypatch.setattr(Step, "forward", exploding)
    optimiser = replace(small_recipe.optimiser, epochs=60)
    with pytest.raises(MedstError, match=r"over 100 times the [\d.]+ of the last 50 steps, at step 55 "):
        pretrain(phantom_cohort, tmp_path / "run", replace(small_recipe, optimiser=optimiser))
    assert (tmp_path / "run" / "failed-step-000000055" / "batch-0.safetensors").is_file()
    assert RunFolder(tmp_path / "run").checkpoints()


def test_the_environment_is_recorded_at_each_start(
    undisturbed: Path, phantom_cohort: Path, small_recipe: Recipe
) -> None:
    noted = json.loads((undisturbed / "environment.json").read_text())
    assert noted[0]["packages"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert noted[0]["processes"] == 1
    assert str(Path.home()) not in json.dumps(noted)
    pretrain(phantom_cohort, undisturbed, small_recipe)
    assert len(json.loads((undisturbed / "environment.json").read_text())) == len(noted) + 1


def test_days_as_the_time_axis_need_dates(
    phantom_cohort: Path, small_recipe: Recipe, undisturbed: Path, tmp_path: Path
) -> None:
    recipe = replace(small_recipe, objective=replace(small_recipe.objective, time_axis="days"))
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert losses(tmp_path / "run") != losses(undisturbed)
    shutil.copytree(phantom_cohort, tmp_path / "cohort")
    meta = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps(meta | {"time": "order"}))
    with pytest.raises(MedstError, match=r"knows only the order .* give --objective.time-axis steps"):
        pretrain(tmp_path / "cohort", tmp_path / "other", recipe)
    assert not (tmp_path / "other").exists()


def test_waiting_step_and_remaining_times_are_reported(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that only batches and forward passes advance: 3 seconds per batch, 60 per step."""
    clock, fetch, forward = [100.0], Batches.__getitem__, Step.forward

    def fetched(batches: Batches, number: int) -> Batch:
        clock[0] += 3
        return fetch(batches, number)

    def stepped(step: Step, *args: Any, **named: Any) -> dict[str, torch.Tensor]:
        clock[0] += 60
        return forward(step, *args, **named)

    monkeypatch.setattr("medst.pretrain.loop.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(Batches, "__getitem__", fetched)
    monkeypatch.setattr(Step, "forward", stepped)
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, stop_after=2))
    said: list[tuple[int, int, str]] = []
    pretrain(phantom_cohort, tmp_path / "run", recipe, progress=lambda *told: said.append(told))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    assert [(float(row["waited"]), float(row["seconds"])) for row in rows] == [(3.0, 60.0)] * 2
    for number, (done, total, note) in enumerate(said, 1):
        assert done == number
        assert note.startswith(f"epoch 1/{recipe.optimiser.epochs}, loss {float(rows[number - 1]['loss']):.3f}, ")
        assert note.endswith(f" {timedelta(seconds=63 * (total - number))} left")
    assert len(said) == 2


def test_a_checkpoint_of_other_files_is_refused(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = saved_often(small_recipe)
    pretrain(phantom_cohort, run, replace(recipe, optimiser=replace(recipe.optimiser, stop_after=2)))
    state = RunFolder(run).checkpoints()[0]
    (state / "weights.safetensors").rename(state / "model.safetensors")
    (state / "sha256.json").write_text("{}")
    with pytest.raises(MedstError, match="written by an earlier medst"):
        pretrain(phantom_cohort, run, recipe)
