"""Differences by hand, p-values against scipy, and what the tables mark."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medst.ablate.design import Design, Spread, detectable
from medst.ablate.table import as_tables, differences
from medst.recipes.variants import MEASURES, VARIANTS, Variant

MAIN, OTHER = "retrieval, R@10", "retrieval, own report R@1"
NO_LOCAL, DAYS = (
    replace(next(v for v in VARIANTS if v.name == name), main=main)
    for name, main in (("no-local", MAIN), ("days", MAIN))
)


def plan(*variants: Variant, seeds: int = 3) -> Design:
    return Design({v.name: v.main for v in variants}, seeds, ["x"], "a file", {MAIN: Spread(0.01, 2)}, [])


def runs(name: str, *values: float, measure: str = MAIN) -> dict[tuple[str, int], dict[str, float]]:
    return {(name, seed): {measure: value} for seed, value in enumerate(values)}


def test_differences_are_paired_by_seed_with_student_s_interval_and_test() -> None:
    # Differences +1, +2, +3: mean 2, standard error 1 / sqrt(3), and t(0.975; 2) = 4.3027.
    values = runs("reference", 10, 20, 60) | runs("no-local", 11, 22, 63)
    reference, row = differences([NO_LOCAL], values, plan(NO_LOCAL))
    assert (reference["mean"], reference["p"], reference["question"]) == (30, None, False)
    assert row["difference"] == pytest.approx(2)
    assert (row["low"], row["high"]) == pytest.approx((2 - 4.30265 / np.sqrt(3), 2 + 4.30265 / np.sqrt(3)), abs=1e-4)
    assert row["p"] == pytest.approx(stats.ttest_rel([11, 22, 63], [10, 20, 60]).pvalue)
    assert row["adjusted"] == row["p"]


def test_a_difference_is_marked_only_if_it_survives_the_correction() -> None:
    values = runs("reference", 0.1, 0.2, 0.3) | runs("no-local", 0.15, 0.26, 0.355) | runs("days", 0.2, 0.1, 0.4)
    alone, both = plan(NO_LOCAL), plan(NO_LOCAL, DAYS)
    *_, row = differences([NO_LOCAL], values, alone)
    assert 0.001 < row["p"] < 0.025
    assert "| 20.0 | **+5.5 (+4.3 to +6.7)** |" in as_tables([*_, row], alone)
    _, first, second = differences([NO_LOCAL, DAYS], values, both)
    assert first["adjusted"] == pytest.approx(2 * first["p"])
    assert second["adjusted"] == second["p"] > 0.05
    many = replace(both, questions=both.questions | {f"failed-{i}": MAIN for i in range(20)})
    failed = [Variant(f"failed-{i}", "", MAIN, {}) for i in range(20)]
    rows = differences([NO_LOCAL, DAYS, *failed], values, many)
    found = next(row for row in rows if row["variant"] == "no-local")
    assert found["adjusted"] == pytest.approx(22 * found["p"]) == pytest.approx(0.060, abs=0.001)
    text = as_tables(rows, many)
    assert "**" not in text
    assert f"| {100 * 0.01 * detectable(3, 22):.1f} | {found['adjusted']:.3f} |" in text
    assert "Exploratory" not in text


def test_other_measures_are_exploratory_and_never_marked() -> None:
    values = {
        (name, seed): {MAIN: 0.1 * seed, OTHER: 0.2 + 0.01 * seed + shift + 1e-4 * seed**2 * (shift > 0)}
        for name, shift in (("reference", 0.0), ("no-local", 0.5))
        for seed in range(3)
    }
    rows = differences([NO_LOCAL], values, plan(NO_LOCAL))
    assert [(row["variant"], row["measure"], row["question"]) for row in rows] == [
        ("reference", OTHER, False), ("reference", MAIN, False),
        ("no-local", OTHER, False), ("no-local", MAIN, True),
    ]  # fmt: skip
    assert rows[2]["p"] < 1e-6
    assert rows[2]["adjusted"] is None
    answers, exploratory = as_tables(rows, plan(NO_LOCAL)).split("## Exploratory")
    assert "**" not in exploratory
    assert "| reference | 21.0 | 10.0 |" in exploratory
    assert "| no-local | +50.0 (+50.0 to +50.1) | above |" in exploratory
    assert f"| no-local | no local alignment (paper) | {MAIN} | 10.0 | +0.0 |" in answers  # equal: no test


def test_missing_runs_are_left_out_of_differences_and_counted() -> None:
    values = runs("reference", 0.1, 0.2, 0.6) | {("no-local", 0): {MAIN: 0.2}, ("no-local", 2): {MAIN: 0.9}}
    reference, no_local, days = differences([NO_LOCAL, DAYS], values, plan(NO_LOCAL, DAYS))
    assert (no_local["pairs"], no_local["values"]) == (2, [0.2, None, 0.9])
    assert no_local["difference"] == pytest.approx(0.2)
    assert no_local["high"] - no_local["difference"] == pytest.approx(12.7062 * 0.1, abs=1e-3)  # t(0.975; 1)
    assert (days["difference"], days["low"], days["p"]) == (None, None, None)
    table = as_tables([reference, no_local, days], plan(NO_LOCAL, DAYS))
    assert "+20.0 (-107.1 to +147.1), 2 of 3 seeds |" in table
    assert "| missing | " in table.splitlines()[3]
    assert "means of 3 seeds" in table
    single = plan(NO_LOCAL, seeds=1)
    text = as_tables(differences([NO_LOCAL], runs("reference", 0.1) | runs("no-local", 0.3), single), single)
    assert "| 10.0 | +20.0 | not known |  |" in text
    assert text.endswith("Points, one seed, so without intervals and tests.")


def test_every_variant_has_a_main_measure() -> None:
    assert {variant.main for variant in VARIANTS} <= set(MEASURES)
