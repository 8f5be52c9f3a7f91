"""The numbers of benchmarks as tables: Markdown, LaTeX and CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medst.pages.collect_results import BenchmarkResults, ResultsFile, collect, read_results_files
from medst.pages.html import csv_uri
from medst.pages.record import record
from medst.pages.wording import readable

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


def tables_of(runs: Sequence[Path], language: Literal["markdown", "latex"]) -> str:
    """All numbers as text: a table per benchmark and protocol, and one of published numbers on the same data set.

    Raises:
        MedstError: a run has no results, or damaged ones.
    """
    write = _markdown if language == "markdown" else _latex
    tables = []
    for benchmark in collect(read_results_files(runs)):
        tables.append(write(f"{benchmark.title}, protocol {benchmark.protocol}", *_cells(benchmark)))
        if beside := record(benchmark):
            tables.append(write(f"{benchmark.title}, the field's record", beside.head, [*beside.own, *beside.rows]))
    return "\n\n".join(tables)


def _cells(benchmark: BenchmarkResults) -> tuple[list[str], list[list[str]]]:
    beside = list(dict.fromkeys(name for line in benchmark.lines for rows in line.baselines for name in rows))
    runs = [column for name in benchmark.names for column in (name, *beside)]
    head = ["Metric", "Finding", "n", "Chance", *runs, *(seeds.name for seeds in benchmark.seeds)]
    body = []
    for line in benchmark.lines:
        cells: list[str] = []
        for row, baselines, _ in line.runs():
            spread = row and line.spread(row)
            cells.append(f"{line.written(row['value'])}{f' ({spread})' if spread else ''}" if row else "")
            cells += [line.written(baselines[name]["value"]) if row and name in baselines else "" for name in beside]
        cells += ["; ".join(line.seeds_written(seeds)) for seeds in benchmark.seeds]
        body.append([line.name, readable(line.finding), line.n, line.chance_written, *cells])
    return head, body


def _markdown(title: str, head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *body]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{title}**\n\n{table}"


def _latex(title: str, head: list[str], body: list[list[str]]) -> str:
    return "\n".join(
        [
            f"% {title}; needs the package booktabs",
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
