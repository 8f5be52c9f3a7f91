"""The estimates of a dry run, compared with the run itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medst import weights
from medst.batch import Batches
from medst.cohort.store import open_cohort
from medst.pretrain.dry_run import estimate
from medst.pretrain.loop import pretrain
from medst.pretrain.setup import make_tokenizer, open_training_cohort
from medst.pretrain.step import Step
from medst.recipes.settings import Recipe


def test_an_estimate_agrees_with_the_run(phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, precision="fp32"))
    before = torch.get_rng_state()
    found = estimate(phantom_cohort, recipe)
    assert torch.equal(torch.get_rng_state(), before)
    summary = pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert found.steps == summary["steps"]
    state = next((tmp_path / "run" / "state").iterdir())
    on_disk = sum(file.stat().st_size for file in state.iterdir())
    assert found.checkpoint_bytes == pytest.approx(on_disk, rel=0.1)

    data = open_cohort(phantom_cohort)
    tokenizer = make_tokenizer(data, recipe)
    batches = Batches(data, "train", tokenizer, recipe.data, pieces=48, seed=recipe.run.seed, training=True)
    step = Step(*weights.build(recipe, tokenizer), recipe.data)
    assert found.parameters == sum(p.numel() for p in step.parameters() if p.requires_grad)
    parameters = [*step.parameters()]
    learn, frozen = (sum(p.numel() for p in parameters if p.requires_grad is each) for each in (True, False))
    # In float32: weights, gradients and two moments of what learns; only weights of what is frozen.
    assert found.fixed_bytes == 4 * (4 * learn + frozen)
    rows = open_training_cohort(phantom_cohort, recipe).pairs.filter(split="train")  # type: ignore[union-attr]
    pictures = rows.height + rows["lateral"].count()
    assert found.laterals == pytest.approx(pictures / rows.height - 1)
    assert found.read_bytes == pictures * data.images.shape[1] ** 2
    flops, pairs = [], []
    for number in range(len(batches)):
        with FlopCounterMode(display=False) as counter:
            step(batches[number])["loss"].backward()
        flops.append(counter.get_total_flops())
        pairs.append(len(batches[number].pair))
    assert found.flops_a_step == pytest.approx(float(np.mean(flops)), rel=0.15)
    assert found.pairs_a_step == pytest.approx(float(np.mean(pairs)), rel=0.15)


def test_recomputation_shards_and_averages_change_the_estimate(phantom_cohort: Path, small_recipe: Recipe) -> None:
    plain = estimate(phantom_cohort, small_recipe)
    again = estimate(phantom_cohort, replace(small_recipe, run=replace(small_recipe.run, checkpoint_activations=True)))
    assert again.activation_bytes < 0.8 * plain.activation_bytes
    shards = replace(small_recipe, run=replace(small_recipe.run, engine="fsdp"))
    assert estimate(phantom_cohort, shards, processes=2).fixed_bytes == plain.fixed_bytes // 2
    averaged = replace(small_recipe, optimiser=replace(small_recipe.optimiser, ema=0.9))
    assert estimate(phantom_cohort, averaged).fixed_bytes > 1.2 * plain.fixed_bytes
    text = str(estimate(phantom_cohort, small_recipe, processes=2))
    for word in (
        "million that learn",
        "TFLOPs per step on each of 2 devices",
        "GiB",
        "GB of stored pixels",
        "GB per checkpoint",
        "16 GB yes",
        "h on this cpu (",
        "at 40% of the bf16 peak",
        "note:       the vocabulary is learnt from the training reports",
    ):
        assert word in text


def test_a_gpu_holds_fixed_memory_and_as_many_sequences_as_fit(phantom_cohort: Path, small_recipe: Recipe) -> None:
    found = estimate(phantom_cohort, small_recipe)
    assert found.seconds_a_step > 0
    # In bf16, as on a GPU, at most what is kept here for the largest batch, and not less than half an average batch.
    assert found.sequence_bytes * found.sequences > 0.5 * found.activation_bytes
    tight = replace(found, fixed_bytes=20 * 2**30, sequence_bytes=2**29, sequences=10)
    assert [tight.room_for(size) for size in (16, 24, 40, 80)] == [0, 1, 30, 102]
    assert "16 GB no, 24 GB no, 40 GB yes, 80 GB yes; for less memory: --run.checkpoint-activations" in str(tight)
    assert "24 GB no (up to 3)" in str(replace(tight, sequence_bytes=2**27 * 1.3))
    twice = replace(small_recipe, data=replace(small_recipe.data, sequences_per_batch=12))
    assert estimate(phantom_cohort, twice).sequence_bytes == pytest.approx(found.sequence_bytes, rel=0.3)


def test_hours_follow_from_seconds_per_step(phantom_cohort: Path, small_recipe: Recipe) -> None:
    found = replace(estimate(phantom_cohort, small_recipe), steps=3600, seconds_a_step=2.0, flops_a_step=4 * 312e12)
    assert "2.0 h on this cpu (624 TFLOPs per second" in found.hours()
    assert "10.0 h on an A100" in found.hours()


def test_the_first_stored_picture_is_a_lateral_like_any_other(
    phantom_cohort: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    first = pl.when(pl.col("lateral").is_not_null()).then(0).cast(cohort.pairs.schema["lateral"])
    moved = replace(cohort, pairs=cohort.pairs.with_columns(lateral=first))
    expected = estimate(phantom_cohort, small_recipe)
    monkeypatch.setattr("medst.pretrain.dry_run.open_training_cohort", lambda *_: moved)
    found = estimate(phantom_cohort, small_recipe)
    assert (found.laterals, found.read_bytes) == (expected.laterals, expected.read_bytes)
