"""Recipes are consistent, survive JSON, and refuse settings that can't work."""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, get_args, get_origin

import pytest

from medst.errors import MedstError
from medst.recipes import RECIPES
from medst.recipes.ranges import Range
from medst.recipes.settings import Recipe, from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_its_own_check_and_survives_json(name: str) -> None:
    recipe = RECIPES[name]
    recipe.check()
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_paper_keeps_the_released_errors_and_modern_fixes_them() -> None:
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
        ("model.vision.image_size", 113, "--model.vision.image-size 113 must be"),
        ("model.vision.heads", 5, r"--model\.vision\.width \d+ must be a multiple of --model\.vision\.heads 5"),
        ("model.text.heads", 3, r"--model\.text\.width \d+ must be a multiple of --model\.text\.heads 3"),
        ("model.text.pieces", 2, "pieces"),
        ("data.sequence_length", 1, "sequence_length"),
        ("data.temporal_from", 5, "--data.temporal-from 5 must be at most --data.sequence-length 4"),
        ("data.sequences_per_batch", 1, "needs a negative"),
        ("data.crop", 257, "crop"),
        ("data.patients", 0.0, "patients"),
        ("optimiser.lr", 0.0, "lr"),
        ("optimiser.epochs", 0, "epochs"),
        ("optimiser.warmup", 1.0, "warmup"),
        ("objective.temporal_warmup", 1.5, "temporal_warmup"),
        ("objective.masked", False, "--model.phantom-tokens"),
        ("model.text.pieces", 513, r"from 3 to 512: .*BERT's positions \(--model\.text\.pieces\)"),
        (
            "model.vision.mlp_ratio",
            1e-320,
            r"--model\.vision\.mlp-ratio 1e-320 times --model\.vision\.width \d+ leaves an expert no hidden unit",
        ),
        ("optimiser.lr_min", 1e-2, "--optimiser.lr-min 0.01 must be at most --optimiser.lr 0"),
        ("optimiser.explode_above", 0.5, "--optimiser.explode-above 0.5 must be 0 or above 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(field: str, value: Any, named: str) -> None:
    with pytest.raises(MedstError, match=named):
        changed(RECIPES["tiny"], field, value).check()


def changed(settings: Any, path: str, value: Any) -> Any:
    head, _, rest = path.partition(".")
    return replace(settings, **{head: changed(getattr(settings, head), rest, value) if rest else value})


def fields_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and declared type of every setting."""
    for each in dataclasses.fields(settings):
        if dataclasses.is_dataclass(each.type):
            yield from fields_of(getattr(settings, each.name), f"{prefix}{each.name}.")
        else:
            yield prefix + each.name, each.type


@pytest.mark.parametrize(("path", "kind"), list(fields_of(Recipe())), ids=str)
def test_no_setting_accepts_a_wrong_type_or_a_value_out_of_range(path: str, kind: Any) -> None:
    wrong: list[Any] = [None, [1], {"a": 1}]
    ranges = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Range)]
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if ranges:
        [ends] = ranges
        step = 1 if kind is int else 1e-9
        wrong += [ends.low - step, ends.high * 1.001 + step, math.nan, math.inf, -math.inf, True, "1", 10**400]
        wrong += [1.5] if kind is int else []
        wrong += {"low": [ends.low], "high": [ends.high], "": []}[ends.open]
    else:
        assert kind not in (int, float), "a number without a range"
        wrong += [2, 1.5] if kind in (bool, str) else ["no such choice"]
    for value in wrong:
        with pytest.raises(
            MedstError, match=rf"^[^\n]*{path} is [^\n]*; it must be [^\n]*\(--{path.replace('_', '-')}\)\.$"
        ):
            changed(RECIPES["tiny"], path, value).check()


def test_without_any_weight_there_is_nothing_to_learn() -> None:
    recipe = RECIPES["tiny"]
    for path in ("objective.global_weight", "objective.local_weight", "objective.forward_weight"):
        recipe = changed(recipe, path, 0.0)
        recipe.check()
    with pytest.raises(MedstError, match="every loss has a weight of 0"):
        changed(recipe, "objective.reverse_weight", 0.0).check()


@pytest.mark.parametrize("value", [7, "tiny", [1]])
def test_a_single_value_in_place_of_several_settings_is_refused(value: Any) -> None:
    with pytest.raises(MedstError, match=r"OptimiserSettings is .*; it must hold lr, lr_min"):
        from_dict(Recipe, to_dict(RECIPES["tiny"]) | {"optimiser": value})


def test_every_setting_has_a_docstring() -> None:
    """Each field becomes a flag, and its docstring the flag's help."""
    import inspect

    for each in dataclasses.fields(Recipe):
        if not dataclasses.is_dataclass(each.type):
            continue
        source = inspect.getsource(each.type)  # type: ignore[arg-type]
        for field in dataclasses.fields(each.type):
            declaration = source.partition(f"    {field.name}: ")[2]
            assert declaration.split("\n")[1].lstrip().startswith('"""'), field.name
