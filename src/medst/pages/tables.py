"""Rows of results.json to what the page shows of a task: a headline, bars and tables."""

from collections.abc import Callable, Sequence
from typing import Any

from medst.evaluate.task import ALL, AVERAGE
from medst.pages import result_figures as figures
from medst.pages.figure_style import plain
from medst.pages.result_figures import Bar

AREAS = ("auroc", "average precision", "f1", "macro auroc")
"""Metrics that are written as numbers up to 1."""
Metric = tuple[str, int | None]
"""A metric and the number of folds it was measured with."""

_SHOWN: dict[str, tuple[str, list[list[Metric]]]] = {
    "temporal-image": (
        AVERAGE,
        [
            [("accuracy", 5), ("macro accuracy", 5)],
            [("accuracy", 10), ("macro accuracy", 10)],
            [("swap consistency", 5), ("swap consistency", 10)],
        ],
    ),
    "temporal-text": (
        ALL,
        [[("auroc", None), ("accuracy", 10), ("accuracy at released threshold", 10)]],
    ),
}
"""For each task, what sums its findings up, and its tables; the first metric of the first table makes headline and bars."""


def tasks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks that `results` holds numbers of, as the template wants them."""
    return [shown for task in _SHOWN if (shown := _task(task, results)) is not None]


def write(metric: str) -> Callable[[float], str]:
    """How values of a metric are written: areas and F1 as they are, everything else is a share and in per cent.

    >>> write("macro accuracy")(0.6124), write("auroc")(0.6124)
    ('61.2 %', '0.612')
    """
    return "{:.3f}".format if metric.startswith(AREAS) else percent


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.1f} %"


def _task(task: str, results: dict[str, Any]) -> dict[str, Any] | None:
    head, tables = _SHOWN[task]
    metric, folds = tables[0][0]
    rows = _by_finding(results, task, metric, folds)
    if head not in rows:
        return None
    order = [head, *(finding for finding in rows if finding != head)]
    bars = [_bar(finding, rows[finding]) for finding in order]
    said = "; ".join(
        f"{plain(bar.finding)} {write(metric)(bar.value)}, chance {write(metric)(bar.chance)}" for bar in bars
    )
    top = rows[head]
    return {
        "task": task,
        "value": write(metric)(bars[0].value),
        "chance": write(metric)(bars[0].chance),
        "untrained": None if bars[0].untrained is None else write(metric)(bars[0].untrained),
        "bars": figures.bars(bars, percent="accuracy" in metric, key=f"bars-{task}", alt=f"{task}, {metric}: {said}."),
        "tables": [table for metrics in tables if (table := _table(results, task, order, metrics))["rows"]],
        "seeds": top["trained"]["seeds"],
        "untrained_seeds": top["untrained"]["seeds"] if "untrained" in top else [],
    }


def _by_finding(results: dict[str, Any], task: str, metric: str, folds: int | None) -> dict[str, dict[str, Any]]:
    """The trained and untrained rows of a metric, by finding."""
    found: dict[str, dict[str, Any]] = {}
    for row in results["results"]:
        if (row["task"], row["metric"], row["folds"]) == (task, metric, folds):
            found.setdefault(row["finding"], {})[row["model"]] = row
    return found


def _bar(finding: str, rows: dict[str, Any]) -> Bar:
    trained, untrained = rows["trained"], rows.get("untrained")
    value = None if untrained is None else untrained["value"]
    return Bar(finding, trained["value"], trained["std"], value, trained["chance"])


def _table(results: dict[str, Any], task: str, order: Sequence[str], metrics: Sequence[Metric]) -> dict[str, Any]:
    """A row a finding, three columns a metric; findings that this number of folds left out are left out."""
    every = [(metric, _by_finding(results, task, metric, folds)) for metric, folds in metrics]
    columns = [(metric, found) for metric, found in every if found]
    if not columns:
        return {"metrics": [], "rows": []}
    rows = [
        {
            "finding": finding,
            "is_sum": finding in (AVERAGE, ALL),
            "n": columns[0][1][finding]["trained"]["n"],
            "cells": [_cell(metric, found[finding]) for metric, found in columns],
        }
        for finding in order
        if finding in columns[0][1]
    ]
    names = ["AUROC" if metric == "auroc" else plain(metric) for metric, _ in columns]
    is_swap = metrics[0][0] == "swap consistency"
    if is_swap:
        names = [f"{name}, {folds} folds" for name, (_, folds) in zip(names, metrics, strict=False)]
    title = "With the two studies swapped" if is_swap else f"The same with {metrics[0][1]} folds"
    return {"metrics": names, "title": title, "rows": rows}


def _cell(metric: str, rows: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"chance": write(metric)(rows["trained"]["chance"])}
    for model in ("trained", "untrained"):
        row = rows.get(model)
        said[model] = "–" if row is None else write(metric)(row["value"])
        said[f"{model}_std"] = "" if row is None or not row["std"] else f"± {write(metric)(row['std'])}"
    return said
