"""The lower bound of a step's memory is below what is measured; limits are those of the system."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medst import weights
from medst.batch import Batches
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.pretrain import memory, pretrain
from medst.pretrain.dry_run import _measure
from medst.pretrain.memory import Part, activation_bytes, available_bytes
from medst.pretrain.step import Step
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer


def changed(settings: Any, path: str, value: Any) -> Any:
    head, _, rest = path.partition(".")
    return replace(settings, **{head: changed(getattr(settings, head), rest, value) if rest else value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.vision.depth", 24),
        ("model.vision.patch_size", 2),
        ("model.text.layers", 12),
        ("model.projection_hidden", 4096),
        ("model.embedding", 2048),
        ("data.sequence_length", 128),
        ("data.sequences_per_batch", 12),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bound_is_below_measured_memory_but_not_by_much(
    phantom_cohort: Path, small_recipe: Recipe, path: str, value: int, precision: str
) -> None:
    recipe = changed(changed(small_recipe, path, value), "run.precision", precision)
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    batches = Batches(cohort, "train", tokenizer, recipe.data, pieces=48, seed=1, training=True)
    _, _, kept, _ = _measure(Step(*weights.build(recipe, tokenizer), recipe.data), batches, recipe)
    first = batches[0]
    pieces = float(first.attention_mask.sum()) / len(first.pair)
    part = Part(len(first.steps), len(first.pair), len(first.lateral), pieces)
    assert 0.35 * kept < activation_bytes(recipe, part, precision == "bf16") < kept


def test_the_average_part_equals_the_mean_of_batches(phantom_cohort: Path, small_recipe: Recipe) -> None:
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    part = Part.of(cohort, small_recipe, tokenizer)
    data = replace(small_recipe.data, sequences_per_batch=1)
    each = Batches(cohort, "train", tokenizer, data, pieces=48, seed=1, training=True)
    every = [each[number] for number in range(len(each))]
    for found, name in ((part.sequences, "steps"), (part.pairs, "pair"), (part.laterals, "lateral")):
        assert found == pytest.approx(6 * sum(len(getattr(batch, name)) for batch in every) / len(every))
    assert part.pieces == pytest.approx(sum(map(len, each.pieces)) / len(each.pieces))


def test_recomputation_parts_and_fewer_losses_take_less_memory(small_recipe: Recipe) -> None:
    part = Part(6, 14, 7, 40)
    whole = activation_bytes(small_recipe, part, False)
    assert activation_bytes(changed(small_recipe, "run.checkpoint_activations", True), part, False) < whole
    assert activation_bytes(changed(small_recipe, "objective.local_weight", 0.0), part, False) < whole
    assert activation_bytes(changed(small_recipe, "objective.temporal_weight", 0.0), part, False) < whole
    half = Part(3, 7, 3.5, 40)
    assert activation_bytes(changed(small_recipe, "optimiser.accumulate", 2), half, False) < whole


@pytest.mark.parametrize(
    ("path", "value", "remedy"),
    [
        ("model.vision.width", 1024, "take smaller encoders"),
        ("model.vision.patch_size", 1, "lower --data.sequences-per-batch"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_anything_is_written(
    phantom_cohort: Path,
    small_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    value: int,
    remedy: str,
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 40 * 2**20)
    with pytest.raises(MedstError, match=rf"takes at least [\d.]+ GiB .* has 0\.0 here; {remedy}"):
        pretrain(phantom_cohort, tmp_path / "run", changed(small_recipe, path, value))
    assert not (tmp_path / "run").exists()


def test_available_memory_is_the_lowest_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    whole = available_bytes(cpu)
    assert whole is not None
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**40 if which == resource.RLIMIT_AS else 2**50, -1))
    assert available_bytes(cpu) == whole
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**31, -1))
    assert available_bytes(cpu) < 2**31
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/job/step\n3:cpuset:/\n0::/user/one\n")
    for place, text in (
        ("memory/job/memory.limit_in_bytes", "4000"),
        ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ("user/memory.max", "max"),
        ("user/one/memory.max", "5000"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text + "\n")
    assert sorted(memory._cgroup_limits(groups, tmp_path)) == [4000, 5000, 9223372036854771712]
    assert memory._cgroup_limits(tmp_path / "none", tmp_path) == []
