"""Learning rate, weight decay and the averaged model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medst import weights
from medst.pretrain.schedule import Average, learning_rate, make_optimiser
from medst.pretrain.step import Step
from medst.recipes.settings import OptimiserSettings, Recipe
from medst.tokenizer import learn_tokenizer


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), st.floats(0.5, 0.999))
def test_an_average_equals_a_loop_over_steps(values: list[float], decay: float) -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average, expected = Average(module, decay), 0.0
    for step, value in enumerate(values, 1):
        nn.init.constant_(module.weight, value)
        average.update(step)
        own = min(decay, (1 + step) / (10 + step))
        expected = own * expected + (1 - own) * value
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_in_place_the_model_has_the_average_and_gets_its_own_weights_back() -> None:
    module = nn.Linear(2, 2)
    average = Average(module, 0.5)
    own = module.weight.detach().clone() + 1
    module.weight.data.copy_(own)
    averaged = average.values["weight"].clone()
    try:
        with average.in_place():
            assert torch.equal(module.weight, averaged)
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(module.weight, own)
    assert torch.equal(average.values["weight"], averaged)


def test_frozen_weights_are_not_averaged() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    assert set(Average(module, 0.5).values) == {"weight"}


def test_the_schedule_rises_linearly_and_falls_as_a_cosine() -> None:
    settings = OptimiserSettings(lr=4e-5, lr_min=1e-8, warmup=0.4)
    golden = np.load(Path(__file__).parents[1] / "data" / "golden" / "schedule_lr.npy")
    ours = [learning_rate(step, 100, settings) for step in range(100)]
    np.testing.assert_allclose(ours, golden, rtol=1e-12)


def test_all_parameters_decay_or_matrices_only() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    everything = make_optimiser(module, OptimiserSettings())
    assert [len(group["params"]) for group in everything.param_groups] == [4]
    matrices = make_optimiser(module, OptimiserSettings(decay_matrices_only=True))
    assert [(len(g["params"]), g["weight_decay"]) for g in matrices.param_groups] == [(1, 0.05), (3, 0.0)]


def test_statistics_are_averaged_too() -> None:
    module = nn.BatchNorm1d(2)
    average, expected = Average(module, 0.5), torch.zeros(2)
    for step in range(1, 8):
        module(torch.randn(5, 2, generator=torch.Generator().manual_seed(step)) + step)
        average.update(step)
        own = min(0.5, (1 + step) / (10 + step))
        expected = own * expected + (1 - own) * module.running_mean
    live = module.running_mean.clone()
    with average.in_place():
        torch.testing.assert_close(module.running_mean, expected)
        assert not torch.allclose(module.running_mean, live)
    assert torch.equal(module.running_mean, live)


def test_tables_added_to_tokens_do_not_decay(small_recipe: Recipe) -> None:
    tokenizer = learn_tokenizer(["the effusion has resolved"], 60)
    step = Step(*weights.build(small_recipe, tokenizer), small_recipe.data)
    groups = make_optimiser(step, OptimiserSettings(decay_matrices_only=True)).param_groups
    names = {id(p): name for name, p in step.named_parameters()}
    decay, spared = ({names[id(p)] for p in group["params"]} for group in groups)
    assert {name.split(".")[-1] for name in decay} == {"weight"}
    assert not any("norm" in name.lower() or "position" in name or "token_type" in name for name in decay)
    assert "model.text.bert.embeddings.word_embeddings.weight" in decay
    assert {
        "model.vision.pos_embed",
        "model.vision.cls_token",
        "model.text.bert.embeddings.position_embeddings.weight",
        "model.text.bert.embeddings.token_type_embeddings.weight",
    } <= spared
    assert decay | spared == {name for name, p in step.named_parameters() if p.requires_grad}
