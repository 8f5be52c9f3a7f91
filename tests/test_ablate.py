"""Differences by hand; a small job that repeats nothing, survives failed runs and refuses another job's folder."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst import NUMERICS, pretrain
from medst import ablate as module
from medst.ablate import ablate, as_table, differences
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.files import claim
from medst.recipes import RECIPES, variants
from medst.recipes.settings import Recipe
from medst.recipes.variants import VARIANTS, Variant, choose_variants


@pytest.mark.parametrize("name", ["paper", "modern", "tiny"])
def test_every_variant_is_a_recipe_that_can_be_run_and_changes_something(name: str) -> None:
    base = RECIPES[name]
    chosen = choose_variants(base, ())
    assert len(chosen) >= 9
    for variant in chosen:
        made = variant.apply(base)
        made.check()
        assert made != base
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)


def test_differences_are_paired_by_seed_with_student_s_interval() -> None:
    # Differences +1, +2, +3: mean 2, standard error 1 / sqrt(3), and t(0.975; 2) = 4.3027.
    values = {("reference", seed): {"m": value} for seed, value in enumerate((10.0, 20.0, 60.0))}
    values |= {("no-local", seed): {"m": value} for seed, value in enumerate((11.0, 22.0, 63.0))}
    no_local = next(variant for variant in VARIANTS if variant.name == "no-local")
    reference, row = differences([no_local], values, 3)
    assert reference["mean"] == 30
    assert row["difference"] == pytest.approx(2)
    assert (row["low"], row["high"]) == pytest.approx((2 - 4.30265 / np.sqrt(3), 2 + 4.30265 / np.sqrt(3)), abs=1e-4)
    assert "**" not in as_table([reference, row], 3)
    row["low"] = 0.01
    assert "| **+200.0 (+1.0 to " in as_table([reference, row], 3)


def test_missing_runs_are_left_out_of_differences_and_counted() -> None:
    values = {("reference", seed): {"m": value} for seed, value in enumerate((0.1, 0.2, 0.6))}
    values |= {("no-local", 0): {"m": 0.2}, ("no-local", 2): {"m": 0.9}}
    chosen = [variant for variant in VARIANTS if variant.name in ("no-local", "days")]
    reference, no_local, days = differences(chosen, values, 3)
    assert (no_local["pairs"], no_local["values"]) == (2, [0.2, None, 0.9])
    assert no_local["difference"] == pytest.approx(0.2)
    assert no_local["high"] - no_local["difference"] == pytest.approx(12.7062 * 0.1, abs=1e-3)  # t(0.975; 1)
    assert (days["difference"], days["low"]) == (None, None)
    table = as_table([reference, no_local, days], 3)
    assert "+20.0 (-107.1 to +147.1), 2 of 3 seeds |" in table
    assert table.splitlines()[4].endswith("| missing |")
    assert "Mean of 3 seeds; " in table
    single = as_table(differences(chosen, {("reference", 0): {"m": 0.1}}, 1), 1)
    assert single.endswith(
        "One seed, so without intervals; variants as the difference from the reference of the same seed, in points."
    )
    (row,) = differences([], {("reference", 1): {"m": 0.2}}, 3)
    assert "| 20.0, 1 of 3 seeds |" in as_table([row], 3)


@pytest.fixture(scope="module")
def quick(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=1))


@pytest.fixture(scope="module")
def job(quick: Recipe, phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of three runs, of which one failed."""
    out = tmp_path_factory.mktemp("ablate") / "job"
    out.mkdir()
    (out / "job.json").write_text("")
    fails = Variant("too-large", "batches that the cohort can't fill", {"data.sequences_per_batch": 4000})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "VARIANTS", (*VARIANTS, fails))
        said: list[tuple[int, int, str]] = []
        ablate(
            phantom_cohort, out, recipe=quick, seeds=1, only=("too-large", "mixed-laterals"), jobs=2,
            progress=lambda *given: said.append(given),
        )  # fmt: skip
    assert said[0][:2] == (0, 3)
    assert said[-1][:2] == (3, 3)
    assert "too-large-0 failed" in [note for *_, note in said]
    return out


def test_a_run_that_fails_is_named_in_the_table_and_the_others_are_measured(job: Path) -> None:
    table = (job / "ablation.md").read_text()
    assert "retrieval, own report R@1" in table
    assert "| too-large | batches that the cohort can't fill | missing | missing |" in table
    assert "Missing: too-large with seed 0, because: " in table
    assert "fewer than the 4000" in table
    found = json.loads((job / "ablation.json").read_text())
    assert [(one["variant"], one["seed"]) for one in found["failed"]] == [("too-large", 0)]
    assert {row["variant"] for row in found["rows"] if row["mean"] is not None} == {"reference", "mixed-laterals"}


def test_a_job_repeats_nothing_but_damaged_results(
    job: Path, quick: Recipe, phantom_cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "job"
    shutil.copytree(job, out)
    said: list[tuple[int, int, str]] = []

    def again() -> str:
        said.clear()
        return ablate(
            phantom_cohort, out, recipe=quick, seeds=1, only=("mixed-laterals",),
            progress=lambda *given: said.append(given),
        )  # fmt: skip

    (out / "ablation.json").write_text("{")
    whole = (out / "runs" / "reference-0" / "results.json").read_text()
    table = again()
    assert said == [(2, 2, "")]
    assert "Missing" not in table
    (out / "runs" / "reference-0" / "results.json").write_text(whole[:100])
    assert again() == table
    assert [note for *_, note in said] == ["", "reference-0"]
    assert (out / "runs" / "reference-0" / "results.json").read_text() == whole
    assert not list(out.rglob("*.part"))


def test_old_runs_are_never_reported_as_new_results(
    job: Path, quick: Recipe, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, cohort: Path = phantom_cohort, recipe: Recipe = quick) -> None:
        with pytest.raises(MedstError, match=rf"reference-0 holds {said}.*; give another folder"):
            ablate(cohort, job, recipe=recipe, seeds=1, only=("mixed-laterals",))

    other = tmp_path / "other"
    shutil.copytree(phantom_cohort, other)
    meta = json.loads((other / "cohort.json").read_text())
    (other / "cohort.json").write_text(json.dumps(meta | {"fingerprint": "another"}))
    before = {path: path.stat().st_mtime_ns for path in job.rglob("*.json")}
    refused("a run on another cohort", other)
    refused(
        r"a run with other settings \(optimiser.lr\)",
        recipe=replace(quick, optimiser=replace(quick.optimiser, lr=1e-4)),
    )
    refused(
        r"a run with other settings \(run.precision\)", recipe=replace(quick, run=replace(quick.run, precision="bf16"))
    )
    with monkeypatch.context() as patch:
        patch.setattr(module, "NUMERICS", module.NUMERICS + 1)
        refused(f"a run of numerics version {NUMERICS}, the current version is {NUMERICS + 1}")
    results = job / "runs" / "reference-0" / "results.json"
    whole = results.read_text()
    for changed, said in (
        ({"protocol": "paper"}, "results of another protocol"),
        ({"numerics": 7}, "results of numerics version 7"),
        ({"cohorts": {"mimic-cxr": "another"}}, "results on another mimic-cxr cohort"),
    ):
        results.write_text(json.dumps(json.loads(whole) | changed))
        refused(said)
    results.write_text(whole)
    with pytest.raises(MedstError, match=r"--optimiser\.stop-after is set"):
        ablate(phantom_cohort, job, recipe=replace(quick, optimiser=replace(quick.optimiser, stop_after=1)), seeds=1)
    with claim(job), pytest.raises(MedstError, match="is being written by another process"):
        ablate(phantom_cohort, job, recipe=quick, seeds=1)
    assert {path: path.stat().st_mtime_ns for path in before if path != results} == {
        path: time for path, time in before.items() if path != results
    }


class Deadly:
    """Kills the process that it is sent to."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (1,)


def test_a_killed_process_is_reported(tmp_path: Path) -> None:
    run = module._Run("reference", 0, tmp_path / "reference-0", Deadly(), [])  # type: ignore[arg-type]
    with pytest.raises(MedstError, match="was killed, most likely because memory ran out; the same command resumes"):
        module._run_all([run], 1, lambda done, total, note: None)


@pytest.mark.parametrize("error", [MedstError("The loss is nan at step 3."), RuntimeError("out of memory\nmore")])
def test_an_error_fails_one_run_but_a_full_disk_or_ctrl_c_ends_the_job(
    error: Exception, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(what: BaseException) -> str | None:
        def fails(*_: object) -> None:
            raise what

        monkeypatch.setattr(pretrain, "pretrain", fails)
        cohort = module._MeasuredCohort(tmp_path, "mimic-cxr", "print", ["retrieval"])
        return module._carry_out(module._Run("reference", 0, tmp_path, quick, [cohort]), 1)

    assert raising(error) == str(error).splitlines()[0]
    for stops in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(stops)):
            raising(stops)


def test_impossible_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no variant no-lungs; the variants are no-laterals"):
        ablate(tmp_path, tmp_path / "job", only=("no-lungs",))
    with pytest.raises(MedstError, match="seeds is 0"):
        ablate(tmp_path, tmp_path / "job", seeds=0)
    assert not (tmp_path / "job").exists()


def test_unusable_comparisons_are_refused_before_the_first_run(phantom_cohort: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(phantom_cohort, few)
    with pytest.raises(MedstError, match="has no comparisons: it is a mimic-cxr cohort"):
        ablate(phantom_cohort, tmp_path / "job", comparisons=few)
    table = {
        "finding": ["edema"] * 3, "patient_id": ["a", "b", "c"], "study_id": ["a", "b", "c"], "current": [0, 1, 2],
        "previous": [1, 2, 0], "progression": ["improving", "stable", "worsening"],
    }  # fmt: skip
    pl.DataFrame(table).write_parquet(few / "comparisons.parquet")
    with pytest.raises(MedstError, match=r"no finding has enough rows .*edema: 5 folds need 5 patients"):
        ablate(phantom_cohort, tmp_path / "job", comparisons=few)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("comparisons", "sentences", "task", "said"),
    [
        (3, 2000, "temporal-text", "temporal-image, because no finding has 5 patients of each progression."),
        (2000, 9, "temporal-image", "temporal-text, because a category has fewer than 10 pairs of sentences."),
    ],
)
def test_a_task_with_too_few_comparisons_is_left_out_and_named(
    comparisons: int, sentences: int, task: str, said: str, quick: Recipe, phantom_cohort: Path,
    phantom_comparisons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def cut(path: Path) -> Cohort:
        whole = open_cohort(path)
        if whole.comparisons is None or whole.sentences is None:
            return whole
        many = pl.concat([whole.comparisons] * 20).with_row_index("n").with_columns(patient_id=pl.format("p{}", "n"))
        return replace(whole, comparisons=many.head(comparisons), sentences=whole.sentences.head(sentences))

    monkeypatch.setattr(module, "open_cohort", cut)
    asked: list[list[str]] = []
    notes: list[str] = []

    def fails(runs: list[module._Run], *_: object) -> dict[module._Run, str]:
        asked.extend(run.tasks for run in runs)
        return {runs[1]: "x"}

    monkeypatch.setattr(module, "_run_all", fails)
    monkeypatch.setattr(module, "read_values", lambda *_: {"temporal-text, AUROC": 0.5})
    table = ablate(
        phantom_cohort, tmp_path / "job", comparisons=phantom_comparisons, recipe=quick, seeds=1, only=("no-local",),
        say=notes.append,
    )  # fmt: skip
    assert asked == [["retrieval", task]] * 2
    assert notes == [f"Not measured: {said}"]
    assert table.count(notes[0]) == 1
    assert "Missing: no-local" in table
