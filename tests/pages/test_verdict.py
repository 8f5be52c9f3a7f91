"""The verdict: a difference needs an interval, and is called none where there is none."""

from typing import Any

import pytest

from medst.pages.collect_results import BenchmarkResults, Line
from medst.pages.verdict import NO_INTERVALS, verdict


def row(value: float, interval: tuple[float, float] | None = None, n: int = 90) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high, "std": None, "chance": 0.5, "n": n}


def measured(
    *rows: dict[str, Any], untrained: float | None = 0.5, protocol: str = "strict", cohorts: str = "aaaa"
) -> BenchmarkResults:
    """A benchmark with AUROC of runs called a, b and so on."""
    beside = [None if untrained is None else row(untrained)] * len(rows)
    line = Line("auroc", "all", None, list(rows), beside)
    names = list("abcd"[: len(rows)])
    return BenchmarkResults("temporal-text", "ms-cxr-t", protocol, names, [line], [], list(cohorts[: len(rows)]))


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        (
            measured(row(0.7, (0.6, 0.8))),
            "Better than chance and better than an untrained model: temporal-text on ms-cxr",
        ),
        (measured(row(0.7, (0.6, 0.8)), untrained=0.65), "Better than chance but not better than an untrained model: "),
        (measured(row(0.7, (0.6, 0.8)), untrained=None), "Better than chance: "),
        (measured(row(0.52, (0.48, 0.56))), "No different from chance: "),
        (measured(row(0.3, (0.2, 0.4))), "Worse than chance: "),
        (measured(row(0.7), protocol="paper"), "Above chance and above an untrained model: "),
        (measured(row(0.5), protocol="paper"), "About chance: "),
        (measured(row(0.51), protocol="paper"), "About chance: "),
        (measured(row(0.9, (0.8, 1.0), n=19)), "Too few rows to tell: "),
        (measured(row(0.7), untrained=0.69, protocol="paper"), "Above chance but not above an untrained model: "),
    ],
)
def test_one_run_against_chance_and_the_untrained_model(benchmark: BenchmarkResults, expected: str) -> None:
    found = verdict([benchmark])
    assert found.startswith(expected)
    assert (NO_INTERVALS in found) == (benchmark.protocol == "paper")
    assert f"AUROC {benchmark.lines[0].trained[0]['value']:.3f}" in found  # type: ignore[index]


def test_the_finding_is_named_unless_it_stands_for_all() -> None:
    benchmark = measured(row(0.7, (0.6, 0.8)))
    benchmark.lines[0].finding = "pneumonia"
    assert "(Pneumonia: AUROC 0.700, 95 % interval 0.600 to 0.800, chance 0.500, untrained 0.500)" in verdict(
        [benchmark]
    )


def test_the_strict_protocol_is_preferred() -> None:
    paper, strict = measured(row(0.9), protocol="paper"), measured(row(0.52, (0.48, 0.56)))
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
