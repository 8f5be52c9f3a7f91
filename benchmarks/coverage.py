"""How often the 95 % intervals of protocol `strict` hold the true value, by number of patients; nominal is 0.95.

    python benchmarks/coverage.py [--simulations 1000]

Patients are drawn from a population whose true value is known: each has one to four rows that share an effect of the
patient. Macro accuracy has three classes of unequal difficulty, AUROC one score; both are near what models of the demo
reach. With several runs, a run shifts the accuracy of all patients and judges each row a little differently; the truth
is the mean over runs and patients.
"""

import argparse
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import norm

from machine import keep
from medst.evaluate.intervals import Ranked, Statistic, accuracy, bootstrap, macro_accuracy, mean_of, over_runs

PATIENTS = (10, 20, 40, 80, 160, 320)
RUNS = (2, 3, 5)
LEVELS = np.array([0.3, -0.1, -0.4])
"""Of the three classes, in standard deviations: a row is a hit if its class's level exceeds patient and noise."""
PATIENT, NOISE, SHIFT = 0.6, 1.0, 0.9
"""Standard deviations of a patient's and a row's effect; shift of positive scores."""
POINTS = (2, 5)
"""Standard deviations over runs, in points of accuracy."""
SHARES, FEWEST = (0.35, 0.25, 0.15, 0.15, 0.1), 5
"""Shares of the findings of the average; one counts if each class has so many patients, as temporal-image demands."""
OWN = 0.6
"""Part of `NOISE` that each run draws anew."""
SPREAD = float(np.hypot(PATIENT, NOISE))


def rows_of(patients: int, rng: np.random.Generator) -> np.ndarray:
    """The patient of each row."""
    return np.repeat(np.arange(patients), rng.integers(1, 5, patients))


def covers(interval: tuple[float, float] | None, truth: float) -> float:
    """1 if the interval holds the truth, NaN if there is none."""
    return np.nan if interval is None else float(interval[0] <= truth <= interval[1])


def one_run(patients: int, rng: np.random.Generator) -> dict[str, float]:
    """Whether the interval of each metric holds the truth, for one draw of patients."""
    of = rows_of(patients, rng)
    effect = rng.normal(0, PATIENT, patients)[of] + rng.normal(0, NOISE, len(of))
    classes, positive = rng.integers(0, 3, len(of)), rng.random(len(of)) < 0.4
    hit = effect < LEVELS[classes]
    score = effect + SHIFT * positive
    finding = rng.choice(len(SHARES), len(of), p=SHARES)
    kept = [
        np.flatnonzero(finding == one)
        for one in range(len(SHARES))
        if min(len(np.unique(of[(finding == one) & (classes == level)])) for level in range(3)) >= FEWEST
    ]
    parts = [partial(_of_rows, rows, partial(macro_accuracy, hit[rows], classes[rows])) for rows in kept]
    average = bootstrap(mean_of(parts), of) if kept else None
    return {
        "average macro accuracy": covers(average, float(norm.cdf(LEVELS / SPREAD).mean())),
        "macro accuracy": covers(
            bootstrap(partial(macro_accuracy, hit, classes), of), float(norm.cdf(LEVELS / SPREAD).mean())
        ),
        "auroc": covers(bootstrap(Ranked(positive, score).auroc, of), float(norm.cdf(SHIFT / SPREAD / 2**0.5))),
    }


def _of_rows(rows: np.ndarray, statistic: Statistic, weights: np.ndarray) -> float:
    return statistic(weights[rows])


def several_runs(patients: int, runs: int, points: int, rng: np.random.Generator) -> dict[str, float]:
    """Whether each interval of several runs holds the mean over runs and patients."""
    shift = points / 100 * SPREAD / float(norm.pdf(0))
    of = rows_of(patients, rng)
    effect = rng.normal(0, PATIENT, patients)[of] + rng.normal(0, (NOISE**2 - OWN**2) ** 0.5, len(of))
    values, intervals = [], []
    for _ in range(runs):
        hit = effect + rng.normal(0, OWN, len(of)) < rng.normal(0, shift)
        values.append(float(hit.mean()))
        intervals.append(bootstrap(partial(accuracy, hit), of, rounds=300))
    found, truth = over_runs(values, intervals), 0.5
    return {
        "one run's own": covers(intervals[0], truth),
        "seeds alone": covers(found.runs, truth),
        "test data alone": covers(found.patients, truth),
        "seeds and test data": covers(found.both, truth),
    }


def shares(found: list[dict[str, float]]) -> dict[str, float]:
    """The share of draws whose interval holds the truth, and of those without an interval."""
    table = {name: np.array([one[name] for one in found]) for name in found[0]}
    missing = {f"{name}, no interval": round(float(np.isnan(held).mean()), 3) for name, held in table.items()}
    held = {name: round(float(np.nanmean(held)), 3) for name, held in table.items() if not np.isnan(held).all()}
    return held | {name: share for name, share in missing.items() if share}


def main() -> None:
    """Simulate, print and write benchmarks/results/coverage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    count = parser.parse_args().simulations
    content: dict[str, Any] = {"simulations": count, "one run": {}, "several runs": {}}
    for patients in PATIENTS:
        rng = np.random.default_rng(patients)
        content["one run"][f"{patients} patients"] = shares([one_run(patients, rng) for _ in range(count)])
        print(patients, content["one run"][f"{patients} patients"], flush=True)
    for points, runs, patients in product(POINTS, RUNS, (40, 160)):
        rng = np.random.default_rng([points, runs, patients])
        name = f"{runs} runs, {points} points apart, {patients} patients"
        content["several runs"][name] = shares([several_runs(patients, runs, points, rng) for _ in range(count)])
        print(name, content["several runs"][name], flush=True)
    keep("coverage", content)


if __name__ == "__main__":
    main()
