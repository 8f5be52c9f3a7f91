"""The margin of `compare`: what reports state, its choice by hand, and its way from the end of a run into `compare`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import medst
from medst import weights
from medst.cohort.store import open_cohort
from medst.encode import ImageFeatures
from medst.errors import MedstError
from medst.pretrain import pretrain, training
from medst.recipes.settings import Recipe
from medst.use import compare
from medst.use.compare import choose_margin, stated_between, stated_changes


@pytest.mark.parametrize(
    ("report", "stated"),
    [
        ("the right pleural effusion has decreased", {"pleural effusion": "improving"}),
        ("increased bilateral effusions edema is unchanged", {"pleural effusion": "worsening", "edema": "stable"}),
        ("no significant interval change in the left pneumothorax", {"pneumothorax": "stable"}),
        ("consolidation has not changed", {"consolidation": "stable"}),
        ("new pneumonia in the left base", {"pneumonia": "worsening"}),
        ("the edema is no longer seen", {"edema": "improving"}),
        ("the left effusion is less extensive", {"pleural effusion": "improving"}),
        ("little interval change in the pneumonia", {"pneumonia": "stable"}),
        ("no radiographic signs of pneumothorax new line", {}),
        ("no new consolidation", {}),
        ("there is no pneumothorax heart size is stable", {}),
        ("lungs are free of edema which has resolved", {}),
        ("improved edema worsened", {}),  # as near to one as to the other
        ("stable heart size and normal mediastinal contours with small effusion", {}),  # too far away
        ("atelectasis is similar to before", {"atelectasis": "stable"}),
    ],
)
def test_reports_state_changes_of_findings(report: str, stated: dict[str, str]) -> None:
    assert dict(stated_changes(report)) == stated


def test_statements_of_the_phantom_agree_with_its_labels(phantom_cohort: Path, phantom_comparisons: Path) -> None:
    cohort, labelled = open_cohort(phantom_cohort), open_cohort(phantom_comparisons).comparisons
    assert cohort.pairs is not None
    assert labelled is not None
    stated = pl.concat([stated_between(cohort, split) for split in ("train", "valid", "test")])
    stated = stated.with_columns(
        study_id=cohort.pairs["study_id"].gather(stated["current"]), finding=pl.col("finding").str.replace(" ", "_")
    )
    both = stated.join(labelled.select("study_id", "finding", "progression"), on=["study_id", "finding"])
    assert both.height >= 5
    assert (both["direction"] == both["progression"]).mean() > 0.6  # a third by chance; 0.9 in large phantoms


def test_a_report_speaks_of_the_study_before_it_in_its_split(phantom_cohort: Path) -> None:
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    pairs = cohort.pairs.with_columns(report=pl.lit("the edema is larger"))
    stated = stated_between(replace(cohort, pairs=pairs), "train")
    train = pairs.filter(split="train").unique("study_id")
    assert stated.height == train.height - train["patient_id"].n_unique()
    for prior, current in stated.select("prior", "current").iter_rows():
        before, after = pairs.row(prior, named=True), pairs.row(current, named=True)
        assert before["patient_id"] == after["patient_id"]
        between = train.filter(patient_id=after["patient_id"]).filter(
            pl.col("time").is_between(before["time"], after["time"])
        )
        assert between.height == 2


def test_the_margin_calls_as_many_changes_stable_as_the_reports(
    small_model: Path, phantom_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, loaded = open_cohort(phantom_cohort), medst.load(small_model)
    assert cohort.pairs is not None
    height, rng = cohort.pairs.height, np.random.default_rng(0)
    world, prompts = (
        rng.normal(size=(len(cohort.images), 4)).astype(np.float32),
        np.repeat(np.eye(4, dtype="f4")[:2], 4, 0),
    )
    monkeypatch.setattr(compare, "image_features", lambda e, c, rows, **_: ImageFeatures(*[world[rows.to_numpy()]] * 3))
    monkeypatch.setattr(compare, "embed_texts", lambda encoder, texts: prompts)
    rows = {"prior": rng.integers(0, height, 200), "current": rng.integers(0, height, 200), "finding": ["edema"] * 200}
    stated = pl.DataFrame(rows | {"direction": ["stable"] * 70 + ["improving"] * 50 + ["worsening"] * 80})
    margin = choose_margin(loaded, cohort, stated)
    assert margin is not None
    assert (margin.statements, margin.stable) == (200, 0.35)
    frontal = cohort.pairs["frontal"].to_numpy()
    change = [world[frontal[c]] - world[frontal[p]] for p, c in stated.select("prior", "current").iter_rows()]
    presence = np.abs([vector[0] - vector[1] for vector in change])  # the axis is (1, -1, 0, 0)
    assert np.mean(presence < margin.value) == pytest.approx(0.35, abs=0.006)
    assert choose_margin(loaded, cohort, stated.head(49)) is None
    monkeypatch.setattr(compare, "MOST_STATEMENTS", 60)
    sampled = choose_margin(loaded, cohort, stated)
    assert sampled is not None
    assert sampled.statements == 60


def test_a_finished_run_stores_the_margin_and_compare_uses_it(
    phantom_cohort: Path, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=1))
    assert any("to choose the margin" in note for note in pretrain(phantom_cohort, tmp_path / "run", recipe)["notes"])
    last = tmp_path / "run" / "last"
    assert medst.load(last).margin is None
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    valid = cohort.pairs.with_row_index().filter(split="valid")["index"].to_list()
    places = [(prior, current) for prior in valid for current in valid if prior != current] * 60
    rows = [(*place, "edema", ("stable", "worsening")[n % 3 == 0]) for n, place in enumerate(places[:60])]
    stated = pl.DataFrame(rows, schema=["prior", "current", "finding", "direction"], orient="row")
    monkeypatch.setattr(training, "stated_between", lambda cohort, split: stated if split == "valid" else None)
    pretrain(phantom_cohort, tmp_path / "run", recipe)  # was finished, but its models have no margin
    model = medst.load(last)
    assert model.margin == choose_margin(model, cohort, stated)
    assert model.margin is not None
    assert (model.margin.statements, model.margin.stable) == (60, round(2 / 3, 6))
    assert model.margin.value != compare.DEFAULT_MARGIN
    assert weights.read_margin(tmp_path / "run" / "best") is not None
    pictures = [cohort.images[cohort.pairs["frontal"][row]] for row in stated.row(0)[:2]]
    found = model.compare(*pictures, "edema")
    assert (found.margin, found.margin_is_own) == (model.margin.value, True)
    assert (found.most_likely == "stable") is (abs(found.change) <= model.margin.value)
    written = (last / "config.json").read_bytes()
    pretrain(phantom_cohort, tmp_path / "run", recipe)
    assert (last / "config.json").read_bytes() == written
    model.save_pretrained(tmp_path / "saved")
    assert medst.load(tmp_path / "saved").margin == model.margin


def test_a_model_without_a_margin_takes_the_default_and_says_so(small_model: Path) -> None:
    model = medst.load(small_model)
    found = model.compare(*np.random.default_rng(0).integers(0, 256, (2, 256, 256), dtype=np.uint8), "edema")
    assert (model.margin, found.margin, found.margin_is_own) == (None, 0.05, False)


@pytest.mark.parametrize(
    "change", [lambda entry: entry | {"value": 0.2}, lambda entry: None, lambda entry: {"value": "much"}]
)
def test_a_margin_that_was_changed_or_lost_is_refused(
    small_model: Path, tmp_path: Path, change: Callable[[dict[str, float]], object]
) -> None:
    folder = shutil.copytree(small_model, tmp_path / "model")
    weights.keep_margin(folder, weights.Margin(0.03, 80, 0.4))
    assert medst.load(folder).margin == weights.Margin(0.03, 80, 0.4)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"margin": change(config["margin"])}))
    with pytest.raises(MedstError, match=r"config.json is damaged"):
        medst.load(folder)
