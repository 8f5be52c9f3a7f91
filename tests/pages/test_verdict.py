"""The verdict: a difference needs an interval, and is called none where there is none."""

from typing import Any

import pytest

from medst.pages.collect_results import BenchmarkResults
from medst.pages.line import Line
from medst.pages.verdict import NO_INTERVALS, verdict


def row(value: float, interval: tuple[float, float] | None = None, n: int = 90) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high, "std": None, "chance": 0.5, "n": n}


def measured(
    *rows: dict[str, Any], lead: tuple[float, float, float] | None = None, baseline: float = 0.5, protocol: str = "strict",
    cohorts: str = "aaaa",
) -> BenchmarkResults:  # fmt: skip
    """A benchmark with AUROC of runs called a, b and so on, and the lead with its interval of the first."""
    beside = [{"thumbnails": row(baseline), "untrained": row(0.3)}] * len(rows)
    leads = [lead and {"baseline": "thumbnails", "value": lead[0], "low": lead[1], "high": lead[2]}] * len(rows)
    line = Line("auroc", "all", None, list(rows), beside, leads)
    names = list("abcd"[: len(rows)])
    return BenchmarkResults("temporal-text", "ms-cxr-t", protocol, names, [line], [], list(cohorts[: len(rows)]))


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        (measured(row(0.7), lead=(0.2, 0.1, 0.3)), "Better than the best baseline: temporal-text on ms-cxr-t (AUROC "),
        (measured(row(0.7), lead=(0.2, -0.1, 0.3)), "No lead over the best baseline: "),
        (measured(row(0.3), lead=(-0.2, -0.3, -0.1)), "Worse than the best baseline: "),
        (measured(row(0.7), protocol="paper"), "Better than the best baseline: "),
        (measured(row(0.51), protocol="paper"), "No lead over the best baseline: "),
        (measured(row(0.47), protocol="paper"), "Worse than the best baseline: "),
        (measured(row(0.9, n=19), lead=(0.2, 0.1, 0.3)), "Too few rows to tell: "),
        (measured(row(0.7, (0.3, 0.81)), lead=(0.2, 0.1, 0.3)), "Too few rows to tell: "),
    ],
)
def test_one_run_against_its_best_baseline(benchmark: BenchmarkResults, expected: str) -> None:
    found = verdict([benchmark])
    assert found.startswith(expected)
    assert (NO_INTERVALS in found) == (benchmark.protocol == "paper")
    assert f": {benchmark.lines[0].trained[0]['value']:.3f} against 0.500" in found  # type: ignore[index]
    assert ", 95 % interval " in found or benchmark.protocol == "paper"


def test_the_finding_is_named_unless_it_stands_for_all() -> None:
    benchmark = measured(row(0.7), lead=(0.2, 0.1, 0.3))
    benchmark.lines[0].finding = "pneumonia"
    said = "(Pneumonia: AUROC +0.200 over thumbnails, 95 % interval +0.100 to +0.300: 0.700 against 0.500)"
    assert said in verdict([benchmark])


def test_a_file_without_baselines_has_a_lead_over_chance() -> None:
    benchmark = measured(row(0.7))
    benchmark.lines[0].baselines = [{}]
    assert "(AUROC +0.200 over chance: 0.700 against 0.500)" in verdict([benchmark])


def test_the_strict_protocol_is_preferred() -> None:
    paper, strict = measured(row(0.9), protocol="paper"), measured(row(0.52), lead=(0.02, -0.02, 0.06))
    assert verdict([paper, strict]) == verdict([strict])


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        (measured(row(0.7, (0.65, 0.75)), row(0.6, (0.55, 0.64))), "Run a is clearly ahead: "),
        (
            measured(row(0.7, (0.65, 0.75)), row(0.71, (0.6, 0.8))),
            "No clear difference, because the intervals overlap: ",
        ),
        (measured(row(0.6), row(0.7), protocol="paper"), "Run b is ahead: "),
        (measured(row(0.7), row(0.7), protocol="paper"), "No difference to speak of: "),
        (
            measured(row(0.7), row(0.6), cohorts="ab"),
            "Not comparable, because the runs were measured on different copies: ",
        ),
    ],
)
def test_several_runs_against_each_other(benchmark: BenchmarkResults, expected: str) -> None:
    assert verdict([benchmark]).startswith(expected)


def test_the_verdict_if_there_is_nothing_to_compare() -> None:
    one, other = measured(row(0.7)), measured(row(0.7), protocol="paper")
    other.names = ["b"]
    assert verdict([one, other]) == "No benchmark was measured for more than one run under the same protocol."
    assert verdict([]) == "No results yet."
