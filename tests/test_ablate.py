"""Differences by hand, and a small job that does nothing twice and refuses the folder of another one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst import ablate as module
from medst.ablate import VARIANTS, ablate, as_table, choose, differences
from medst.errors import MedstError
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe


@pytest.mark.parametrize("name", ["paper", "modern", "tiny"])
def test_every_variant_is_a_recipe_that_can_be_run_and_changes_something(name: str) -> None:
    base = RECIPES[name]
    chosen = choose(base, ())
    assert len(chosen) >= 9
    for variant in chosen:
        made = variant.of(base)
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


def test_a_job_measures_goes_on_and_does_nothing_twice(
    phantom_cohort: Path,
    small_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = replace(small_recipe, optimiser=replace(small_recipe.optimiser, epochs=1))
    monkeypatch.setitem(module.RECIPES, "tiny", quick)
    out, said = tmp_path / "job", list[tuple[int, int, str]]()

    def run(seeds: int) -> str:
        said.clear()
        return ablate(
            phantom_cohort, out, seeds=seeds, only=("mixed-laterals",), jobs=2,
            progress=lambda *given: said.append(given),
        )  # fmt: skip

    table = run(1)
    assert said[0][:2] == (0, 2)
    assert said[-1][:2] == (2, 2)
    assert (out / "ablation.md").read_text().strip() == table
    assert "retrieval, own report R@1" in table
    assert "| mixed-laterals |" in table
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}
    assert len(written) == 2
    assert run(1) == table
    assert said == [(2, 2, "")]
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")} == written
    with pytest.raises(MedstError, match="another folder"):
        ablate(phantom_cohort, out, epochs=3, only=("no-local",))


def test_impossible_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no variant no-lungs; the variants are no-laterals"):
        ablate(tmp_path, tmp_path / "job", only=("no-lungs",))
    with pytest.raises(MedstError, match="seeds is 0"):
        ablate(tmp_path, tmp_path / "job", seeds=0)
    assert not (tmp_path / "job").exists()


def test_comparisons_that_can_not_be_measured_are_refused_before_the_first_run(
    phantom_cohort: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    shutil.copytree(phantom_cohort, few)
    (few / "pairs.parquet").unlink()
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
