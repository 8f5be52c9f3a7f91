"""The table that `medst evaluate` prints: the headline metric of each benchmark."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from textwrap import wrap
from typing import Any, TypeVar

from medst.cohort.ms_cxr_t import APART
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.intervals import too_wide
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
    """One line per headline number: the model's value, and its lead over the best baseline with the interval.

    Task, data set and metric stand once above their lines, and below them what each baseline reaches in the first, so that
    the table fits into 80 columns. A file without baselines has a lead over chance. In place of an interval that spans more
    than half of the metric's range, the table says that there are too few rows.
    """
    leads = {_key(lead): lead for lead in results["leads"]}
    head = ("", "value", "lead", "95 % interval", "over", "n")
    groups: dict[str, list[tuple[str, ...]]] = {}
    notes: dict[str, str] = {}
    for row in headline_rows(results, tasks, datasets):
        folds = f", {row['folds']} folds" if row["folds"] else ""
        learnt = results["details"][f"{row['task']}/{row['dataset']}"].get("train_rows", {}).get(row["finding"])
        apart = row["finding"].endswith(APART)
        finding = f"  {row['finding'].removesuffix(APART)}" + (f" ({learnt} rows)" if learnt else "")
        lead = leads.get(_key(row), {"value": row["value"] - row["chance"], "low": None, "baseline": "chance"})
        interval = "" if lead["low"] is None else f"{lead['low']:+.3f} to {lead['high']:+.3f}"
        if too_wide(lead["low"], lead.get("high")) or too_wide(row["low"], row["high"]):
            interval = "too few rows"
        title = f"{row['task']} on {row['dataset']}{APART if apart else ''}: {row['metric']}{folds}"
        if title not in groups and not apart:
            notes[title] = _baselines(results, row)
        cells = (finding, f"{row['value']:.3f}", f"{lead['value']:+.3f}", interval, lead["baseline"], str(row["n"]))
        groups.setdefault(title, []).append(cells)
    return _aligned(head, groups, notes)


def groups_table(results: dict[str, Any], tasks: Collection[str], datasets: Collection[str]) -> str:
    """One line per group of rows that `--by` asked for, of the first headline number; empty if there are none."""
    head = ("", "value", "95 % interval", "lead", "95 % interval", "n")
    tables: dict[str, list[tuple[str, ...]]] = {}
    first = {(row["task"], row["dataset"]): row for row in reversed(headline_rows(results, tasks, datasets))}
    for group in results["groups"]:
        row = first.get((group["task"], group["dataset"]))
        if row is None or _key(row) != _key(group):
            continue
        cells = [f"  {group['by']}: {group['group']}", "too few", "", "", "", str(group["n"])]
        if group["value"] is not None:
            cells[1:3] = f"{group['value']:.3f}", _interval(group["low"], group["high"], "")
        if group["lead"] is not None:
            cells[3:5] = f"{group['lead']:+.3f}", _interval(group["lead_low"], group["lead_high"], "+")
        over = next((f", over {lead['baseline']}" for lead in results["leads"] if _key(lead) == _key(row)), "")
        title = f"{row['task']} on {row['dataset']}: {row['metric']} of groups ({row['finding']}{over})"
        tables.setdefault(title, []).append(tuple(cells))
    return _aligned(head, tables, {}) if tables else ""


def _interval(low: float | None, high: float | None, sign: str) -> str:
    if low is None or high is None:
        return ""
    return "too few rows" if too_wide(low, high) else f"{low:{sign}.3f} to {high:{sign}.3f}"


def _aligned(head: Sequence[str], groups: Mapping[str, list[tuple[str, ...]]], notes: Mapping[str, str]) -> str:
    """Lines in columns, with a title above each group and a note below it."""
    widths = [max(map(len, column)) for column in zip(head, *chain(*groups.values()), strict=True)]

    def line(cells: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *numbers])

    lines = [line(head)]
    for title, rows in groups.items():
        lines += [title, *map(line, rows), *wrap(notes.get(title, ""), 80, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines)


def _baselines(results: dict[str, Any], row: Row) -> str:
    """What each baseline reaches in a number of the model; empty if none was measured."""
    found = [one for one in results["results"] if _key(one) == _key(row) and one["model"] != "trained"]
    reached = ", ".join(f"{one['model']} {one['value']:.3f}" for one in found)
    return f"{row['finding']}: {reached}, chance {row['chance']:.3f}" if found else ""


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
