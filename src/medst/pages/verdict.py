"""The verdict of a results page: one sentence about the headline numbers.

What counts is the lead over the best baseline, and only if its interval supports it. The `paper` protocol gives no
intervals: the sentence says so, and a difference has to reach `LEAST_DIFFERENCE`.
"""

from collections.abc import Sequence

from medst.evaluate.intervals import OverRuns, too_wide
from medst.evaluate.task import ALL, AVERAGE
from medst.pages.collect_results import BenchmarkResults
from medst.pages.line import Line
from medst.pages.wording import readable

NO_INTERVALS = "protocol paper gives no intervals, so part of a difference may be chance"
LEAST_DIFFERENCE = 0.02
"""Without an interval, a smaller difference counts as none."""
LEAST_ROWS = 20
"""Fewer rows have no verdict."""


def verdict(benchmarks: Sequence[BenchmarkResults]) -> str:
    """Compare the headline numbers of a run, or of a recipe's seeds, with the best baselines, or those of several runs.

    Answers, which have no run, have a sentence of their own after that.
    """
    answers = [one for one in benchmarks if one.protocol == "answers"]
    models = [one for one in benchmarks if one.protocol != "answers"]
    return f"{_verdict(models)} Answers: {_verdict(answers)}" if models and answers else _verdict(benchmarks)


def _verdict(benchmarks: Sequence[BenchmarkResults]) -> str:
    names = {name for benchmark in benchmarks for name in benchmark.names}
    compare = _with_baselines if len(names) == 1 else _between_runs
    chosen = _one_protocol([one for one in benchmarks if len(names) == 1 or len(one.names) > 1])
    if not chosen:
        return (
            "No benchmark was measured for more than one run under the same protocol." if names else "No results yet."
        )
    outcomes: dict[str, list[str]] = {}
    for benchmark in chosen:
        outcome, numbers = compare(benchmark)
        outcomes.setdefault(outcome, []).append(f"{benchmark.title} ({numbers})")
    parts = [f"{outcome}: {', '.join(titles)}" for outcome, titles in outcomes.items()]
    if any(benchmark.protocol == "paper" for benchmark in chosen):
        parts.append(NO_INTERVALS)
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _one_protocol(benchmarks: Sequence[BenchmarkResults]) -> list[BenchmarkResults]:
    """Each task and data set once, under protocol strict if there is a choice, because that gives intervals."""
    chosen: dict[tuple[str, str], BenchmarkResults] = {}
    for one in sorted(benchmarks, key=lambda one: one.protocol != "strict"):
        if one.headline():
            chosen.setdefault((one.task, one.dataset), one)
    return list(chosen.values())


def _with_baselines(benchmark: BenchmarkResults) -> tuple[str, str]:
    """The outcome of a run against its best baseline, and the numbers."""
    line = benchmark.headline()[0]
    row, _, lead = line.runs()[0]
    assert row is not None
    # A file of an earlier version has no leads, and one without baselines has only chance.
    name, value = line.best_baseline(0) or ("chance", line.chance)
    if lead is None:
        lead = {"baseline": name, "value": row["value"] - value, "low": None, "high": None}
    margin = LEAST_DIFFERENCE
    has_interval = lead["low"] is not None
    low, high = (lead["low"], lead["high"]) if has_interval else (lead["value"] - margin, lead["value"] + margin)
    if row["n"] < LEAST_ROWS or too_wide(row["low"], row["high"]) or too_wide(lead["low"], lead["high"]):
        outcome = "too few rows to tell"
    elif low > 0:
        outcome = "better than the best baseline"
    else:
        outcome = "worse than the best baseline" if high < 0 else "no lead over the best baseline"
    values = f"{line.written(row['value'])} against {line.written(value)}"
    return outcome, f"{_subject(line)} {line.lead_written(lead)}: {values}"


def _subject(line: Line) -> str:
    """The metric, with the finding unless it stands for all findings."""
    metric = line.metric.replace("auroc", "AUROC")
    return metric if line.finding in (AVERAGE, ALL) else f"{readable(line.finding)}: {metric}"


def _between_runs(benchmark: BenchmarkResults) -> tuple[str, str]:
    """Which run leads, and the numbers of the first two."""
    line = benchmark.headline()[0]
    if [seeds.places for seeds in benchmark.seeds] == [tuple(range(len(benchmark.names)))]:
        found, lead = line.over_seeds(benchmark.seeds[0])
        if found is not None and lead is not None:
            return _of_one_recipe(benchmark.seeds[0].name, line, found, lead)
    rows = [(row, name) for row, name in zip(line.trained, benchmark.names, strict=True) if row is not None]
    (first, leader), *others = sorted(rows, key=lambda pair: -pair[0]["value"])
    if not others:
        return "measured for one run only", f"{leader} {line.written(first['value'])}"
    second, name = others[0]
    numbers = f"{_subject(line)} of {leader} {line.written(first['value'])}, of {name} {line.written(second['value'])}"
    if len(set(benchmark.fingerprints)) > 1:
        return "not comparable, because the runs were measured on different copies", numbers
    if first["low"] is None or second["low"] is None:
        ahead = first["value"] - second["value"] > LEAST_DIFFERENCE
        return (f"run {leader} is ahead" if ahead else "no difference to speak of"), numbers
    if first["low"] > second["high"]:
        return f"run {leader} is clearly ahead", numbers
    return "no clear difference, because the intervals overlap", numbers


def _of_one_recipe(name: str, line: Line, found: OverRuns, lead: OverRuns) -> tuple[str, str]:
    """The outcome of a recipe's seeds against their best baselines, and the numbers."""
    low, high = lead.both or lead.runs
    outcome = "better than" if low > 0 else "worse than" if high < 0 else "no lead over"
    numbers = f"{_subject(line)} of {name} {line.written(found.mean)} ± {line.written(found.std)}"
    return f"{outcome} the best baseline", f"{numbers}; {line.lead_over_seeds(lead)}"
