"""The table that `medst evaluate` prints: the headline metric of each benchmark."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeVar

from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.task import is_summary

MOST_ROWS = 20
"""Limit on the lines of the table, where the averages alone can stand for the findings."""
Row = dict[str, Any]
T = TypeVar("T")


def headline(task: str, numbers: Iterable[T], key: Callable[[T], tuple[str, str, int | None]]) -> list[T]:
    """The numbers in the headline metric of a task, with the fewest folds; summaries come first.

    Args:
        task: name of the task.
        numbers: what `key` can read.
        key: returns metric, finding and folds of a number.
    """
    found = [number for number in numbers if key(number)[0] == BENCHMARKS[task].headline]
    fewest = min((key(number)[2] or 0 for number in found), default=0)
    found = [number for number in found if (key(number)[2] or 0) == fewest]
    return sorted(found, key=lambda number: not is_summary(key(number)[1]))


def headline_rows(results: dict[str, Any], tasks: Collection[str], datasets: Collection[str]) -> list[Row]:
    """The trained model's rows in the headline metrics, with the fewest folds; summaries come first in their group.

    With more than `MOST_ROWS`, the largest groups are cut down to their summaries.
    """
    groups: list[list[Row]] = []
    trained = (row for row in results["results"] if row["model"] == "trained")
    for (task, dataset), rows in groupby(trained, key=itemgetter("task", "dataset")):
        if task in tasks and dataset in datasets:
            groups.append(headline(task, rows, itemgetter("metric", "finding", "folds")))
    for group in sorted(groups, key=len, reverse=True):
        if sum(map(len, groups)) <= MOST_ROWS:
            break
        group[:] = [row for row in group if is_summary(row["finding"])] or group
    return [row for group in groups for row in group]


def summary_table(results: dict[str, Any], tasks: Collection[str], datasets: Collection[str]) -> str:
    """One line per headline number: its value with interval or standard deviation, the untrained models', chance and n.

    Task, data set and metric stand once above their lines, so that the table fits into 80 columns.
    """
    untrained = {_key(row): row["value"] for row in results["results"] if row["model"] == "untrained"}
    head = ("", "value", "", "untrained", "chance", "n")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row in headline_rows(results, tasks, datasets):
        folds = f", {row['folds']} folds" if row["folds"] else ""
        learnt = results["details"][f"{row['task']}/{row['dataset']}"].get("train_rows", {}).get(row["finding"])
        finding = f"  {row['finding']}" + (f" ({learnt} rows)" if learnt else "")
        baseline = untrained.get(_key(row))
        cells = (finding, f"{row['value']:.3f}", _spread(row), "" if baseline is None else f"{baseline:.3f}")
        title = f"{row['task']} on {row['dataset']}: {row['metric']}{folds}"
        groups.setdefault(title, []).append((*cells, f"{row['chance']:.3f}", str(row["n"])))
    widths = [max(map(len, column)) for column in zip(head, *chain(*groups.values()), strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *numbers])

    lines = [line(head)]
    for title, rows in groups.items():
        lines += [title, *map(line, rows)]
    return "\n".join(lines)


def not_measured(results: dict[str, Any], tasks: Collection[str], datasets: Collection[str]) -> Iterator[str]:
    """One sentence for each benchmark and data set with numbers that are missing."""
    for (task, dataset), group in groupby(results["left_out"], key=itemgetter("task", "dataset")):
        if task in tasks and dataset in datasets:
            first, *others = group
            folds = f", {first['folds']} folds" if first["folds"] else ""
            more = f" {len(others)} more of this benchmark: see left_out in the file." if others else ""
            yield f"Not measured: {task} {dataset}, {first['finding']}{folds}: {first['reason']}.{more}"


def _key(row: Row) -> tuple[Any, ...]:
    return row["task"], row["dataset"], row["metric"], row["finding"], row["folds"]


def _spread(row: Row) -> str:
    if row["low"] is not None:
        return f"{row['low']:.3f} to {row['high']:.3f}"
    return "" if row["std"] is None else f"± {row['std']:.3f}"
