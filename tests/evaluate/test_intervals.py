"""Weighted statistics against scikit-learn and by hand; intervals against theory."""

import json
import re
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import sem, t
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from medst.evaluate.intervals import Ranked, accuracy, bootstrap, f1, macro_accuracy, over_runs, scored
from medst.evaluate.task import PAPER

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=30)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_weighted_statistics_agree_with_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    positive = np.array([row[0] for row in rows])
    score = np.array([row[1] for row in rows]) / 4
    weights = np.array([row[2] for row in rows], dtype=np.float64)
    ranked, decided = Ranked(positive, score), score > 0
    if weights.any():
        assert f1(positive, decided, weights) == pytest.approx(
            f1_score(positive, decided, sample_weight=weights, zero_division=0.0)
        )
    if not (weights[positive].any() and weights[~positive].any()):
        assert np.isnan(ranked.auroc(weights))
        assert np.isnan(ranked.average_precision(weights))
        return
    drawn = weights > 0
    given_to = {"sample_weight": weights[drawn]}
    assert ranked.auroc(weights) == pytest.approx(roc_auc_score(positive[drawn], score[drawn], **given_to))
    expected = average_precision_score(positive[drawn], score[drawn], **given_to)
    assert ranked.average_precision(weights) == pytest.approx(expected)
    expected = balanced_accuracy_score(positive[drawn], decided[drawn], **given_to)
    assert macro_accuracy(positive == decided, positive, weights) == pytest.approx(expected)


def test_the_interval_of_a_mean_agrees_with_theory() -> None:
    # 400 patients with one row each: the standard error of a share of one half is 0.025.
    hit = np.arange(400) % 2 == 0
    low, high = bootstrap(lambda weights: accuracy(hit, weights), np.arange(400)) or (0, 0)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_rows_of_one_patient_are_drawn_together() -> None:
    hit = np.arange(400) < 200
    patients = np.arange(400) // 20
    together = bootstrap(lambda weights: accuracy(hit, weights), patients)
    alone = bootstrap(lambda weights: accuracy(hit, weights), np.arange(400))
    assert together is not None
    assert alone is not None
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_one_patient_has_no_interval() -> None:
    hit = np.arange(40) < 20
    assert bootstrap(lambda weights: accuracy(hit, weights), np.zeros(40)) is None


def test_the_deviation_over_seeds_divides_by_one_less() -> None:
    values = [0.1, 0.4, 0.7]
    hits = [np.arange(10) < 10 * value for value in values]
    score = scored(
        "accuracy", "all", [partial(accuracy, hit) for hit in hits], np.arange(10), 0.5, PAPER, seeds=(1, 2, 3)
    )
    assert score.value == pytest.approx(0.4)
    assert score.std == pytest.approx(statistics.stdev(values))
    assert score.std == pytest.approx(0.3)


def test_over_runs_agrees_with_scipy_and_with_a_calculation_by_hand() -> None:
    values, intervals = [0.40, 0.50, 0.45], [(0.37, 0.44), (0.46, 0.54), (0.42, 0.48)]
    found = over_runs(values, intervals)
    assert (found.mean, found.std) == pytest.approx((0.45, 0.05))
    assert found.runs == pytest.approx(t.interval(0.95, 2, 0.45, sem(values)))
    assert found.patients == pytest.approx((0.45 - 0.1 / 3, 0.45 + 0.11 / 3))
    half = 4.302653 * 0.05 / 3**0.5
    assert found.both == pytest.approx((0.45 - (half**2 + 0.01 / 9) ** 0.5, 0.45 + (half**2 + 0.0121 / 9) ** 0.5))
    alone = over_runs(values, [(0.37, 0.44), None, (0.42, 0.48)])
    assert (alone.patients, alone.both) == (None, None)
    assert alone.runs == found.runs


def test_the_interval_over_seeds_and_patients_holds_what_fixed_predictions_miss() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):  # 3 runs; standard errors of 0.03 over patients and 0.03 over runs; the truth is 0.5
        values = 0.5 + rng.normal(0, 0.03) + rng.normal(0, 0.03, 3)
        found = over_runs(values.tolist(), [(value - 0.0588, value + 0.0588) for value in values])
        one = (values[0] - 0.0588, values[0] + 0.0588)
        held.append([low < 0.5 < high for low, high in (found.both, found.runs, one)])
    both, runs, fixed = np.mean(held, axis=0)
    assert 0.93 < both < 0.995
    assert runs < 0.9
    assert fixed < 0.9


def test_there_is_no_interval_if_half_of_the_draws_give_nan() -> None:
    assert bootstrap(lambda weights: np.nan, np.arange(5), rounds=20) is None


def test_the_page_states_the_coverage_that_was_simulated() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "evaluate.md").read_text()
    found = json.loads((root / "benchmarks" / "results" / "coverage.json").read_text())
    assert f"in {found['simulations']:,} simulated test sets" in " ".join(page.split())
    for name, shares in found["one run"].items():
        assert f"| {name.split()[0]} |" in page
        assert f" | {shares['macro accuracy']:.3f} | {shares['auroc']:.3f} |" in page
    for name, shares in found["several runs"].items():
        runs, points, patients = re.findall(r"\d+", name)
        assert f"| {runs} | {points} | {patients} | {' | '.join(f'{share:.3f}' for share in shares.values())} |" in page
