"""Recipes hold together, survive JSON, and refuse what can't work."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from medst.errors import MedstError
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe, from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_its_own_check_and_survives_json(name: str) -> None:
    recipe = RECIPES[name]
    recipe.check()
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_paper_keeps_what_shaped_the_published_numbers_and_modern_mends_it() -> None:
    paper, modern = RECIPES["paper"], RECIPES["modern"]
    assert (paper.model.text.positions, modern.model.text.positions) == (False, True)
    assert (paper.model.text.token_types, modern.model.text.token_types) == (False, True)
    assert (paper.model.phantom_tokens, modern.model.phantom_tokens) == (True, False)
    assert (paper.objective.masked, modern.objective.masked) == (False, True)
    assert (paper.objective.regression, modern.objective.regression) == ("released", "bounded")
    assert (paper.model.vision.lateral_start, modern.model.vision.lateral_start) == ("random", "copy")
    assert (paper.data.temporal_from, modern.data.temporal_from) == (4, 2)
    assert (paper.optimiser.lr, paper.optimiser.epochs, paper.optimiser.warmup) == (4e-5, 8, 0.4)


def test_an_unknown_field_is_named() -> None:
    values = to_dict(RECIPES["tiny"])
    values["optimiser"]["learning_rate"] = 1
    with pytest.raises(MedstError, match="OptimiserSettings has no field learning_rate"):
        from_dict(Recipe, values)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("model.vision.image_size", 113, "image_size"),
        ("model.vision.heads", 5, "width must be a multiple of heads"),
        ("model.text.heads", 3, "width must be a multiple of heads"),
        ("model.text.pieces", 2, "pieces"),
        ("data.sequence_length", 1, "sequence_length"),
        ("data.temporal_from", 5, "temporal_from"),
        ("data.sequences_per_batch", 1, "needs a negative"),
        ("data.crop", 257, "crop"),
        ("data.patients", 0.0, "patients"),
        ("optimiser.lr", 0.0, "lr"),
        ("optimiser.epochs", 0, "epochs"),
        ("optimiser.warmup", 1.0, "warmup"),
        ("objective.temporal_warmup", 1.5, "temporal_warmup"),
        ("objective.masked", False, "phantom_tokens"),
    ],
)
def test_what_cannot_work_is_refused_by_name(field: str, value: Any, named: str) -> None:
    def changed(settings: Any, path: list[str]) -> Any:
        head, *rest = path
        return replace(settings, **{head: changed(getattr(settings, head), rest) if rest else value})

    with pytest.raises(MedstError, match=named):
        changed(RECIPES["tiny"], field.split(".")).check()


def test_every_setting_says_what_it_is() -> None:
    """Each field becomes a flag, and its docstring the flag's help."""
    import inspect

    from medst.recipes import settings

    source = inspect.getsource(settings)
    for cls in (settings.VisionSettings, settings.TextSettings, settings.ObjectiveSettings, settings.OptimiserSettings):
        for field in dataclasses.fields(cls):
            declaration = source.partition(f"    {field.name}: ")[2]
            assert declaration.split("\n")[1].lstrip().startswith('"""'), field.name
