"""A small job that states its design first, repeats nothing, survives failed runs and refuses another job's folder."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from medst import NUMERICS, jobs, pretrain
from medst.ablate import ablate, table
from medst.ablate import job as module
from medst.ablate.design import read_design, spread_of_reference
from medst.cli import main
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
    assert 8 <= len(chosen) <= 12
    for variant in [*chosen, *choose_variants(base, variants.BY_NAME_ALONE)]:
        made = variant.apply(base)
        made.check()
        assert made != base
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)


@pytest.fixture(scope="module")
def quick(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=1))


@pytest.fixture(scope="module")
def job(quick: Recipe, phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two variants with two seeds, of which the runs of one failed."""
    out = tmp_path_factory.mktemp("ablate") / "job"
    large = {"data.sequences_per_batch": 4000}
    fails = Variant("too-large", "batches that the cohort can't fill", variants.OWN_REPORT, large)
    designs: list[tuple[str, list[str]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "VARIANTS", (*VARIANTS, fails))
        # In this process, because starting others takes longer than training.
        patch.setattr(jobs, "ProcessPoolExecutor", lambda count, *_: ThreadPoolExecutor(count))
        patch.setattr(torch, "set_num_threads", lambda threads: None)
        said: list[tuple[int, int, str]] = []
        ablate(
            [phantom_cohort], out, recipe=quick, seeds=2, only=("too-large", "mixed-laterals"),
            progress=lambda *given: said.append(given),
            say=lambda text: designs.append((text, sorted(run.name for run in (out / "runs").iterdir()))),
        )  # fmt: skip
    assert [said[0][:2], said[-1][:2]] == [(0, 6), (6, 6)]
    assert {"too-large-0 failed", "too-large-1 failed"} <= {note for *_, note in said}
    ((statement, trained),) = designs
    assert "Stated before any variant was trained: 2 questions" in statement
    assert trained == ["reference-0", "reference-1"]
    return out


def test_a_run_that_fails_is_named_in_the_table_and_the_others_are_measured(job: Path) -> None:
    table = (job / "ablation.md").read_text()
    assert "| too-large | batches that the cohort can't fill | retrieval, own report R@1 | " in table
    assert "Missing: too-large with seed 0, because: " in table
    assert "fewer than the 4000" in table
    found = json.loads((job / "ablation.json").read_text())
    assert [(one["variant"], one["seed"]) for one in found["failed"]] == [("too-large", 0), ("too-large", 1)]
    assert {row["variant"] for row in found["rows"] if row["mean"] is not None} == {"reference", "mixed-laterals"}


def test_the_design_says_what_the_reference_s_own_spread_lets_it_detect(job: Path) -> None:
    rows, stated = json.loads((job / "ablation.json").read_text())["rows"], read_design(job / "design.json")
    assert stated is not None
    assert stated.questions == dict.fromkeys(("mixed-laterals", "too-large"), variants.OWN_REPORT)
    for row in rows:
        if row["variant"] == "reference":
            assert stated.spreads.get(row["measure"]) == spread_of_reference(row["values"])
    assert stated.statement() in (job / "ablation.md").read_text()


def test_a_job_repeats_nothing_but_damaged_results(
    job: Path, quick: Recipe, phantom_cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "job"
    shutil.copytree(job, out)
    said: list[tuple[int, int, str]] = []

    def again() -> str:
        said.clear()
        return ablate(
            [phantom_cohort], out, recipe=quick, seeds=2, only=("mixed-laterals",),
            progress=lambda *given: said.append(given),
        )  # fmt: skip

    (out / "ablation.json").write_text("{")
    whole = (out / "runs" / "reference-0" / "results.json").read_text()
    table = again()
    assert {given[:2] for given in said} == {(4, 4)}
    assert "Missing" not in table
    assert "This design replaces 1 that this folder had before" in table
    (out / "runs" / "reference-0" / "results.json").write_text(whole[:100])
    assert again() == table
    assert [note for *_, note in said if note] == ["reference-0"]
    assert (out / "runs" / "reference-0" / "results.json").read_text() == whole
    assert not list(out.rglob("*.part"))


def test_old_runs_are_never_reported_as_new_results(
    job: Path, quick: Recipe, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, cohort: Path = phantom_cohort, recipe: Recipe = quick) -> None:
        with pytest.raises(MedstError, match=rf"reference-0 holds {said}.*; give another folder"):
            ablate([cohort], job, recipe=recipe, seeds=2, only=("mixed-laterals",))

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
        ablate([phantom_cohort], job, recipe=replace(quick, optimiser=replace(quick.optimiser, stop_after=1)), seeds=1)
    with claim(job), pytest.raises(MedstError, match="is being written by another process"):
        ablate([phantom_cohort], job, recipe=quick, seeds=1)
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
        module._run_all([run], 0, 1, 1, lambda done, total, note: None)


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
        ablate([tmp_path], tmp_path / "job", only=("no-lungs",))
    with pytest.raises(MedstError, match="seeds is 0"):
        ablate([tmp_path], tmp_path / "job", seeds=0)
    assert not (tmp_path / "job").exists()


def planned(
    monkeypatch: pytest.MonkeyPatch, cohorts: list[Path], out: Path, **given: Any
) -> tuple[list[module._Run], list[str]]:
    """The runs of a job that trains nothing, and what it says."""
    runs: list[module._Run] = []
    said: list[str] = []
    monkeypatch.setattr(module, "_run_all", lambda left, *_: runs.extend(left) or {})
    monkeypatch.setattr(table, "read_values", lambda *_: {variants.OWN_REPORT: 0.5})
    ablate(cohorts, out, say=said.append, **given)
    return runs, said


def copy_of(cohort: Path, to: Path) -> Path:
    """A cohort of other patients, as far as its fingerprint tells."""
    shutil.copytree(cohort, to)
    meta = json.loads((to / "cohort.json").read_text())
    (to / "cohort.json").write_text(json.dumps(meta | {"fingerprint": to.name}))
    return to


def test_each_seed_has_a_cohort_and_its_comparisons(
    quick: Recipe, phantom_cohort: Path, phantom_comparisons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohorts = [phantom_cohort, copy_of(phantom_cohort, tmp_path / "other")]
    comparisons = [phantom_comparisons, copy_of(phantom_comparisons, tmp_path / "more")]
    runs, said = planned(
        monkeypatch, cohorts, tmp_path / "job", comparisons=comparisons, recipe=quick, seeds=3, only=("no-local",)
    )
    assert [(run.variant, run.seed) for run in runs] == [
        *(("reference", seed) for seed in range(3)), *(("no-local", seed) for seed in range(3))
    ]  # fmt: skip
    for run in runs:
        assert [one.path for one in run.measured] == [cohorts[run.seed % 2], comparisons[run.seed % 2]]
        assert run.recipe.run.seed == run.seed
    assert "3 seeds on 2 cohorts." in said[-1]
    assert "Some seeds share a cohort" in said[-1]
    for wrong, sentence in (
        ({"cohorts": cohorts, "comparisons": comparisons[:1]}, r"2 cohorts and 1 --comparisons; give one for each"),
        ({"cohorts": cohorts, "seeds": 1}, r"2 cohorts for 1 seeds; give --seeds 2 or more"),
        ({"cohorts": cohorts[:1] * 2}, r"are the same cohort; give each once"),
    ):
        with pytest.raises(MedstError, match=sentence):
            ablate(out=tmp_path / "refused", recipe=quick, **wrong)  # type: ignore[arg-type]


def test_a_question_that_cannot_be_answered_is_left_out_or_refused_by_name(
    quick: Recipe, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MedstError, match=r"can't be measured here: days \(temporal-image.*; give --comparisons\."):
        ablate([phantom_cohort], tmp_path / "refused", recipe=quick, seeds=1, only=("no-local", "days"))
    runs, said = planned(monkeypatch, [phantom_cohort], tmp_path / "job", recipe=quick, seeds=1)
    tried = {run.variant for run in runs}
    assert "no-local" in tried
    assert "days" not in tried
    assert said[0].startswith("Not asked, because what they are judged by can't be measured here: ")
    assert "days (temporal-image, macro accuracy)" in said[0]


def test_an_ablation_of_an_earlier_version_is_refused_and_is_a_pilot(
    quick: Recipe, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    (old / "runs" / "no-local-0").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "benchmarks" / "results" / "ablation.json", old / "ablation.json")
    with pytest.raises(MedstError, match=r"holds an ablation of an earlier version.* --pilot .*old/ablation\.json"):
        ablate([phantom_cohort], old, recipe=quick, seeds=1)
    runs, (_, statement) = planned(
        monkeypatch, [phantom_cohort], tmp_path / "job", recipe=quick, seeds=2, pilot=old / "ablation.json"
    )
    assert [run.variant for run in runs[:2]] == ["reference", "no-laterals"]  # nothing has to be trained beforehand
    assert f"Spreads from {old / 'ablation.json'}" in statement
    assert "not known" not in statement


def test_cohorts_without_pairs_are_refused_before_the_first_run(
    phantom_cohort: Path, phantom_comparisons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["ablate", "tiny", str(phantom_cohort), str(tmp_path / "job"), "--more-cohorts", str(phantom_comparisons)])
    assert f"{phantom_comparisons} has no pairs" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


def test_the_command_fails_if_runs_are_missing_after_it_prints_the_tables(
    phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_run_all", lambda left, *_: {run: "x" for run in left if run.seed == 1})
    monkeypatch.setattr(table, "read_values", lambda *_: {variants.OWN_REPORT: 0.5})
    words = ["ablate", "tiny", str(phantom_cohort), str(tmp_path / "job"), "--only", "no-local", "--seeds"]
    with pytest.raises(SystemExit, match="1"):
        main([*words, "2"])
    said = capsys.readouterr()
    assert "Missing: no-local with seed 1, because: x" in said.out
    assert "2 runs are missing from the tables" in said.err
    main([*words, "1"])


def test_unusable_comparisons_are_refused_before_the_first_run(phantom_cohort: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(phantom_cohort, few)
    with pytest.raises(MedstError, match="has no comparisons: it is a mimic-cxr cohort"):
        ablate([phantom_cohort], tmp_path / "job", comparisons=[few])
    table = {
        "finding": ["edema"] * 3, "patient_id": ["a", "b", "c"], "study_id": ["a", "b", "c"], "current": [0, 1, 2],
        "previous": [1, 2, 0], "progression": ["improving", "stable", "worsening"],
    }  # fmt: skip
    pl.DataFrame(table).write_parquet(few / "comparisons.parquet")
    with pytest.raises(MedstError, match=r"no finding has enough rows .*edema: 5 folds need 5 patients"):
        ablate([phantom_cohort], tmp_path / "job", comparisons=[few])
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
        return {run: "x" for run in runs if run.variant != "reference"}

    monkeypatch.setattr(module, "_run_all", fails)
    monkeypatch.setattr(table, "read_values", lambda *_: {"temporal-text, AUROC": 0.5})
    text = ablate(
        [phantom_cohort], tmp_path / "job", comparisons=[phantom_comparisons], recipe=quick, seeds=1, only=("no-local",),
        say=notes.append,
    )  # fmt: skip
    assert asked == [["retrieval", task]] * 2
    assert notes[:-1] == [f"Not measured: {said}"]
    assert text.count(notes[0]) == 1
    assert "Missing: no-local" in text
