"""The field's record: published numbers on the data sets of the benchmarks, beside the user's own.

They are in record.csv with protocol, metric, source and certainty; docs/record.md lists what is wrong with them. They are
shown only beside results on a whole copy of the same data set, as far as the number of its rows tells.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from medst.pages.collect_results import BenchmarkResults
from medst.pages.line import Line
from medst.pages.wording import readable

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
ROWS = {
    ("ms-cxr-t", "temporal-image"): dict(zip(FINDINGS, (201, 266, 411, 237, 211), strict=True)),
    ("ms-cxr-t", "temporal-text"): {"all": 361},
    ("rsna", "zero-shot"): {"all": 4003},
    ("rsna", "probe"): {"100 %": 4003},
    ("covidx", "probe"): {"100 %": 400},
}
"""Rows that a whole copy is tested on: those of MS-CXR-T 1.0.0, of the split that MGCA made, and of COVIDx version 6."""
LEAST_SHARE = 0.9
"""Of these rows, a copy with fewer is another data set: pictures may be missing, patients not."""
CERTAINTY = {
    "primary": "read in the source",
    "second-hand": "second-hand, not checked in the published paper",
    "arithmetic": "arithmetic",
}


@dataclass(frozen=True)
class Record:
    """Published numbers on the data set of a benchmark.

    Attributes:
        findings: columns beside the average.
        own: for each run and metric of the record, its name, the metric, a cell per finding and the average; with the
            fewest folds.
        rows: the same for the published systems, followed by protocol, certainty, source and note.
    """

    findings: tuple[str, ...]
    own: list[list[str]]
    rows: list[list[str]]

    @property
    def head(self) -> list[str]:
        """Names of the columns."""
        findings = [readable(finding) for finding in self.findings]
        return ["System", "Metric", *findings, "Average" if findings else "Value", "Protocol", "Certainty", "Source"]


@cache
def published() -> tuple[dict[str, str], ...]:
    """The rows of record.csv."""
    text = (files("medst.pages") / "record.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def record(benchmark: BenchmarkResults) -> Record | None:
    """The published numbers that stand beside a benchmark's; None if there are none, or it has another data set."""
    own = [row for row in published() if (_dataset(row), row["task"]) == (benchmark.dataset, benchmark.task)]
    if not own or not _is_whole(benchmark):
        return None
    findings = FINDINGS if benchmark.task == "temporal-image" else ()
    return Record(findings, _own(benchmark, findings), [_cells(row, findings) for row in own])


def _dataset(row: dict[str, str]) -> str:
    return row["benchmark"].split()[0].lower()


def _is_whole(benchmark: BenchmarkResults) -> bool:
    counts = ROWS[benchmark.dataset, benchmark.task]
    tested = {line.finding: row["n"] for line in benchmark.lines for row in line.trained if row is not None}
    return all(LEAST_SHARE * count <= tested.get(finding, 0) <= count for finding, count in counts.items())


def _cells(row: dict[str, str], findings: Sequence[str]) -> list[str]:
    name = f"{row['system']} ({row['year']})" if row["year"] else row["system"]
    values = [f"{row[column]} %" if row[column] else "" for column in (*findings, "average")]
    source = row["source"] + (f"; {row['note']}" if row["note"] else "")
    metric = row["metric"].replace("auroc", "AUROC")
    return [name, metric, *values, row["protocol"], CERTAINTY[row["evidence"]], source]


def _own(benchmark: BenchmarkResults, findings: Sequence[str]) -> list[list[str]]:
    """The run's own numbers in the metrics of the record."""
    rows = []
    for metric in ("accuracy", "macro accuracy", "auroc"):
        lines = [line for line in benchmark.lines if line.metric == metric]
        fewest = min((line.folds or 0 for line in lines), default=0)
        lines = [line for line in lines if (line.folds or 0) == fewest]
        for place, name in enumerate(benchmark.names):
            found = {line.finding: cell for line in lines if (cell := _own_cell(line, place))}
            whole = found.get("average") or found.get("all") or found.get("100 %")
            if whole:
                cells = [
                    name,
                    metric.replace("auroc", "AUROC"),
                    *(found.get(finding, "") for finding in findings),
                    whole,
                ]
                rows.append([*cells, benchmark.protocol, "", "this page"])
    return rows


def _own_cell(line: Line, place: int) -> str:
    row: dict[str, Any] | None = line.trained[place]
    return "" if row is None else f"{100 * row['value']:.1f} %"
