"""A small recipe, and the names that examples in docstrings use: a model, a frontal and a lateral picture, two studies."""

import os
import signal
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from medst.recipes.settings import (
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    Recipe,
    TextSettings,
    VisionSettings,
)

# A busy machine is no fault of the code; hypothesis has a profile of its own for continuous integration.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("busy")


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored, which the tests' child processes would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """A run of a few seconds."""
    return Recipe(
        name="tiny",
        model=ModelSettings(
            vision=VisionSettings(image_size=32, patch_size=16, channels=1, width=32, depth=2, heads=2, mlp_ratio=2.0),
            text=TextSettings(width=32, layers=1, heads=2, intermediate=64, pieces=48),
            projection_hidden=32,
            embedding=16,
        ),
        data=DataSettings(sequences_per_batch=6, vocabulary=400),
        optimiser=OptimiserSettings(lr=2e-3, warmup=0.1, epochs=2, patience=0),
    )


@pytest.fixture(scope="session")
def example_names(small_recipe: Recipe) -> dict[str, Any]:
    """Of a model that was never trained and pictures of noise: examples show shapes and types."""
    from datetime import datetime

    import numpy as np
    import torch

    import medst
    from medst.tokenizer import learn_tokenizer
    from medst.use import Model
    from medst.weights import build

    recipe = replace(small_recipe, model=replace(small_recipe.model, embedding=128))
    tokenizer = learn_tokenizer(["the effusion has resolved", "there is no pneumonia"], 60)
    torch.manual_seed(0)
    model, objective = build(recipe, tokenizer)
    rng = np.random.default_rng(0)
    frontal, lateral = (rng.integers(0, 256, size, dtype=np.uint8) for size in ((480, 400), (500, 420)))
    prior, current = (medst.Study(frontal, lateral, datetime(2150, month, 1)) for month in (1, 3))
    return {
        "medst": medst,
        "model": Model(model.eval(), objective, tokenizer, recipe, "example"),
        "frontal": frontal,
        "lateral": lateral,
        "prior": prior,
        "current": current,
    }


@pytest.fixture(autouse=True)
def _names_for_examples(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        names = request.getfixturevalue("doctest_namespace")
        names.update(request.getfixturevalue("example_names"))
