"""A step in parts, on several devices or sharded gives the result of an undivided step on one device."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from accelerate.utils import LoggerType
from torch import Tensor

from medst import weights
from medst.batch import Batch, Batches
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.model.medst import Features
from medst.pretrain.step import Engine, Step, computes_in_bf16, make_accelerator
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer


def parts_of(cohort: Path, recipe: Recipe, parts: int) -> tuple[Engine, list[Batch]]:
    data = open_cohort(cohort)
    assert data.pairs is not None
    tokenizer = learn_tokenizer(data.pairs["report"], 300)
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, accumulate=parts))
    torch.manual_seed(0)
    step = Step(*weights.build(recipe, tokenizer), recipe.data)
    engine = Engine(make_accelerator(recipe, "nowhere"), recipe, step)
    batches = Batches(
        data, "train", tokenizer, recipe.data, pieces=recipe.model.text.pieces, seed=1, training=True, parts=parts
    )
    return engine, [batches[number] for number in range(parts)]


def gradients(engine: Engine) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in engine.bare.named_parameters() if p.grad is not None}
    engine.bare.zero_grad()
    return found


def plain(recipe: Recipe, **text: float) -> Recipe:
    run, model = replace(recipe.run, precision="fp32"), recipe.model
    return replace(recipe, run=run, model=replace(model, text=replace(model.text, **text)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["small", "paper", "no local loss", "local loss alone"])
def test_parts_give_the_losses_and_gradients_of_the_full_batch(
    phantom_cohort: Path, small_recipe: Recipe, kind: str
) -> None:
    recipe = plain(small_recipe, dropout=0.1, pieces=400)
    if kind == "paper":  # blank laterals, padding words, statistics over both
        model = replace(recipe.model, phantom_tokens=True)
        recipe = replace(recipe, model=model, objective=RECIPES["paper"].objective)
    if kind == "no local loss":
        recipe = replace(recipe, objective=replace(recipe.objective, local_weight=0.0))
    if kind == "local loss alone":
        recipe = replace(recipe, objective=replace(recipe.objective, global_weight=0.0, temporal_weight=0.0))
    engine, batches = parts_of(phantom_cohort, recipe, 3)
    assert len({batch.pieces.shape[1] for batch in batches}) > 1
    engine.bare.train()

    torch.manual_seed(7)
    losses, backward = engine.forward(batches, {"temporal": 0.5})
    after_forward = torch.get_rng_state()
    backward()
    assert torch.equal(torch.get_rng_state(), after_forward)
    ours = gradients(engine)

    # The same with every activation kept: dropout is the same, because nothing else draws random numbers.
    torch.manual_seed(7)
    joint = Features.join([Features(**engine.bare(batch, encode_only=True)) for batch in batches])
    starts = torch.tensor([0, *(len(batch.pair) for batch in batches)]).cumsum(0)
    steps = torch.cat([batch.steps + start for batch, start in zip(batches, starts, strict=False)])
    mask = torch.cat([batch.step_mask for batch in batches])
    whole = engine.bare.objective(engine.bare.model.project(joint), steps, mask, shares={"temporal": 0.5})
    whole["loss"].backward()
    expected = gradients(engine)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: v.item() for k, v in whole.items()}, rel=1e-5)
    assert set(ours) == set(expected)
    apart = sum((ours[name] - expected[name]).square().sum() for name in expected)
    assert apart / sum(value.square().sum() for value in expected.values()) < 1e-8  # type: ignore[operator]


def test_parts_contrast_more_pairs_than_each_has(phantom_cohort: Path, small_recipe: Recipe) -> None:
    engine, batches = parts_of(phantom_cohort, plain(small_recipe), 2)
    together = engine.forward(batches, {})[0]["global"].item()
    alone = [engine.forward([batch], {})[0]["global"].item() for batch in batches]
    assert together > max(alone)


def test_shards_need_processes(phantom_cohort: Path, small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, engine="fsdp"))
    with pytest.raises(MedstError, match="start them with torchrun"):
        parts_of(phantom_cohort, recipe, 1)


@pytest.mark.parametrize(("compiled", "kept"), [(150.0, False), (97.5, False), (97.0, True), (50.0, True)])
def test_blocks_are_compiled_if_that_is_faster(
    phantom_cohort: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, compiled: float, kept: bool
) -> None:
    engine, _ = parts_of(phantom_cohort, plain(small_recipe), 1)
    asked: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(self))
    monkeypatch.setattr(Engine, "_time", lambda self, block, *sizes: compiled if block in asked else 100.0)
    before = torch.get_rng_state()
    found, line = engine.compile(8, always=False)
    assert found == kept
    assert f"a block takes {1000 * compiled:.1f} ms compiled and 100000.0 ms" in line
    assert all((block in asked) == kept for block in engine.bare.model.vision.blocks)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("zero", [("local",), ("global",), ("global", "temporal"), ("global", "forward", "reverse")])
def test_parameters_that_no_loss_reaches_are_frozen(
    phantom_cohort: Path, small_recipe: Recipe, zero: tuple[str, ...]
) -> None:
    """DDP fails on a parameter that requires a gradient and gets none."""
    weights_of = {f"{name}_weight": 0.0 for name in zero}
    recipe = replace(small_recipe, objective=replace(small_recipe.objective, **weights_of))  # type: ignore[arg-type]
    engine, batches = parts_of(phantom_cohort, plain(recipe), 1)
    engine.forward(batches, {})[1]()
    learn = {name for name, p in engine.bare.named_parameters() if p.requires_grad}
    assert set(gradients(engine)) == learn
    assert len(learn) < len(dict(engine.bare.named_parameters())) or zero == ("global",)


def test_evaluation_has_no_dropout_and_gradients_and_training_continues_with_them(
    phantom_cohort: Path, small_recipe: Recipe
) -> None:
    engine, batches = parts_of(phantom_cohort, plain(small_recipe, dropout=0.5), 1)
    engine.bare.train()
    with engine.evaluating():
        one, two = (engine.module(batches[0])["loss"] for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert engine.bare.training
    assert engine.module(batches[0])["loss"].requires_grad


@pytest.mark.parametrize(("processes", "parts", "wrapped"), [(1, 1, False), (2, 1, True), (2, 2, False), (1, 2, False)])
def test_ddp_is_used_for_undivided_steps_on_several_processes_only(
    small_recipe: Recipe, processes: int, parts: int, wrapped: bool
) -> None:
    """Parts average their gradients themselves, once per step."""
    recipe = replace(plain(small_recipe), optimiser=replace(small_recipe.optimiser, accumulate=parts))
    recipe = replace(recipe, objective=replace(recipe.objective, across_devices=False))
    step = Step(*weights.build(recipe, learn_tokenizer(["clear lungs"], 60)), recipe.data)
    asked: list[torch.nn.Module] = []
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=processes,
        process_index=0,
        prepare=lambda module: asked.append(module) or torch.nn.Identity(),
    )
    engine = Engine(accelerator, recipe, step)  # type: ignore[arg-type]
    assert asked == ([step] if wrapped else [])
    assert isinstance(engine.module, torch.nn.Identity if wrapped else Step)


def test_the_logger_is_that_of_the_recipe(small_recipe: Recipe, tmp_path: Path) -> None:
    for logger, trackers in (("csv", []), ("tensorboard", [LoggerType.TENSORBOARD])):
        recipe = replace(small_recipe, run=replace(small_recipe.run, logger=logger))  # type: ignore[arg-type]
        assert make_accelerator(recipe, str(tmp_path)).log_with == trackers


def test_a_block_takes_as_long_as_the_fastest_of_several_rounds(
    phantom_cohort: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = parts_of(phantom_cohort, plain(small_recipe), 1)
    read = iter([10.0, 15.0, 20.0, 22.0, 30.0, 33.0, 40.0, 47.0])
    monkeypatch.setattr("medst.pretrain.step.time", SimpleNamespace(perf_counter=lambda: next(read)))
    block = engine.bare.model.vision.blocks[0]
    assert engine._time(block, 3, 5) == 2.0
    assert block.mlp.fc1.weight.grad is not None
    assert next(read, None) is None


@pytest.mark.parametrize(("wanted", "native", "found"), [("fp32", True, False), ("bf16", False, True)])
def test_bf16_is_used_if_asked_for(
    small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, wanted: Literal["fp32", "bf16"], native: bool, found: bool
) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, precision=wanted))
    monkeypatch.setattr("medst.pretrain.step.native_bf16", lambda device: native)
    assert computes_in_bf16(recipe, torch.device("cpu")) is found


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16", "avx512_vnni"])
def test_bf16_is_used_if_it_is_native(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, precision="auto"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    assert computes_in_bf16(recipe, torch.device("cpu")) is instruction.endswith("bf16")


@pytest.mark.parametrize("again", [False, True])
def test_activations_are_recomputed_if_the_recipe_says_so(
    phantom_cohort: Path, small_recipe: Recipe, again: bool
) -> None:
    recipe = replace(small_recipe, run=replace(small_recipe.run, checkpoint_activations=again))
    assert parts_of(phantom_cohort, recipe, 1)[0].bare.model.vision.checkpoint is again
