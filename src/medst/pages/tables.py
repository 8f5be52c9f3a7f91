"""The numbers of benchmarks as rows of tables: for a page, for Markdown, LaTeX and CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from medst.pages.collect_results import BenchmarkResults, Line, ResultsFile, collect, read_results_files
from medst.pages.html import csv_uri
from medst.pages.wording import metric_format, metric_name, readable

CSV_COLUMNS = (
    "run", "protocol", "task", "dataset", "metric", "finding", "folds", "model", "value", "std", "low", "high", "n",
    "chance", "seeds",
)  # fmt: skip


def csv_of(results_files: Sequence[ResultsFile]) -> str:
    """A data URI of all numbers as CSV."""
    rows = [
        row | {"run": one.name, "protocol": one.results["protocol"], "seeds": " ".join(map(str, row["seeds"]))}
        for one in results_files
        for row in one.results["results"]
    ]
    return csv_uri(CSV_COLUMNS, ([row[column] for column in CSV_COLUMNS] for row in rows))


def row_of(line: Line) -> dict[str, Any]:
    """One line of a benchmark as text."""
    written = metric_format(line.metric)
    rows = [row for row in line.trained if row is not None]
    return {
        "metric": metric_name(line.metric, line.folds),
        "finding": line.finding,
        "is_summary": line.is_summary,
        "chance": written(line.chance),
        "published": [f"{written(one.value)} ({one.system})" for one in line.published],
        "n": ", ".join(dict.fromkeys(f"{row['n']:,}" for row in rows)),
        "cells": [
            None if row is None else {
                "value": written(row["value"]),
                "spread": spread_text(row, written),
                "untrained": None if untrained is None else written(untrained["value"]),
            }
            for row, untrained in zip(line.trained, line.untrained, strict=True)
        ],
    }  # fmt: skip


def spread_text(row: dict[str, Any], written: Callable[[float], str]) -> str:
    """The interval of a number, or its standard deviation; empty if it has neither."""
    if row["low"] is not None:
        return f"{written(row['low'])} to {written(row['high'])}"
    return f"± {written(row['std'])}" if row["std"] else ""


def tables_of(runs: Sequence[Path], language: Literal["markdown", "latex"]) -> str:
    """All numbers as text, one table per benchmark and protocol.

    Raises:
        MedstError: a run has no results, or damaged ones.
    """
    write = _markdown if language == "markdown" else _latex
    return "\n\n".join(write(benchmark) for benchmark in collect(read_results_files(runs)))


def _cells(benchmark: BenchmarkResults) -> tuple[list[str], list[list[str]]]:
    runs = [column for name in benchmark.names for column in (name, "untrained")]
    head = ["Metric", "Finding", "n", "Chance", *runs, "Published"]
    body = []
    for row in map(row_of, benchmark.lines):
        cells: list[str] = []
        for cell in row["cells"]:
            spread = f" ({cell['spread']})" if cell and cell["spread"] else ""
            cells += [f"{cell['value']}{spread}", cell["untrained"] or ""] if cell else ["", ""]
        published = "; ".join(row["published"])
        body.append([row["metric"], readable(row["finding"]), row["n"], row["chance"], *cells, published])
    if not any(line[-1] for line in body):
        head, body = head[:-1], [line[:-1] for line in body]
    return head, body


def _markdown(benchmark: BenchmarkResults) -> str:
    head, body = _cells(benchmark)
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *body]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{benchmark.title}, protocol {benchmark.protocol}**\n\n{table}"


def _latex(benchmark: BenchmarkResults) -> str:
    head, body = _cells(benchmark)
    return "\n".join(
        [
            f"% {benchmark.title}, protocol {benchmark.protocol}; needs the package booktabs",
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
            r"\toprule",
            " & ".join(map(_latex_text, head)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex_text, line)) + r" \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex_text(text: str) -> str:
    """Text with the special characters of LaTeX escaped.

    >>> _latex_text("50 % & ± 1_2")
    '50\\\\,\\\\% \\\\& $\\\\pm$ 1\\\\_2'
    """
    for sign, escaped in (("\\", r"\textbackslash "), ("&", r"\&"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$")):
        text = text.replace(sign, escaped)
    return text.replace(" %", r"\,\%").replace(" to ", "--")
