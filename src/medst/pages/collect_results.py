"""Results of any number of runs, collected by benchmark and protocol, with one line per number."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.evaluate.summary import headline
from medst.evaluate.task import PAPER, is_summary
from medst.pages.wording import day_written, difference_format, metric_format, metric_name

DEFAULT_SWITCHES = {**vars(PAPER), "laterals": False, "prompts": "released"}
"""Switches as a results file has them when none was given."""


@dataclass(frozen=True)
class ResultsFile:
    """A results.json.

    Attributes:
        name: distinguishes it from the others on the page.
        results: its content.
        measured: the day when the file was written, yyyy-mm-dd in UTC.
    """

    name: str
    results: dict[str, Any]
    measured: str


@dataclass(frozen=True)
class Published:
    """A published number and its source."""

    system: str
    value: float
    source: str
    confirmed: str


@dataclass
class Line:
    """One number of every run; None for a run that lacks it.

    Attributes:
        trained: rows of results.json, one per run.
        baselines: for each run, the rows of its baselines by name.
        leads: for each run, its entry of `leads`.
    """

    metric: str
    finding: str
    folds: int | None
    trained: list[dict[str, Any] | None]
    baselines: list[dict[str, dict[str, Any]]]
    leads: list[dict[str, Any] | None]
    published: list[Published] = field(default_factory=list)

    @property
    def chance(self) -> float:
        """The value that guessing reaches."""
        return next(row["chance"] for row in self.trained if row is not None)

    @property
    def chance_written(self) -> str:
        """Chance as text; a dash for the calibration error, which is 0 for a perfect model and not for a guess."""
        return "–" if self.metric == "calibration error" else self.written(self.chance)

    @property
    def is_summary(self) -> bool:
        """Whether it covers all findings."""
        return is_summary(self.finding)

    @property
    def name(self) -> str:
        """The metric and its number of folds, as people read it."""
        return metric_name(self.metric, self.folds)

    @property
    def n(self) -> str:
        """The number of rows that it was measured on; several if the runs differ."""
        return ", ".join(dict.fromkeys(f"{row['n']:,}" for row in self.trained if row is not None))

    def written(self, value: float) -> str:
        """A value of the metric as text."""
        return metric_format(self.metric)(value)

    def spread(self, row: dict[str, Any]) -> str:
        """The interval of a row, or its standard deviation; empty if it has neither."""
        if row["low"] is not None:
            return f"{self.written(row['low'])} to {self.written(row['high'])}"
        return f"± {self.written(row['std'])}" if row["std"] else ""

    def best_baseline(self, run: int) -> tuple[str, float] | None:
        """Name and value of a run's best baseline; None if it has none."""
        values = {name: row["value"] for name, row in self.baselines[run].items()}
        return max(values.items(), key=itemgetter(1), default=None)

    def runs(self) -> list[tuple[dict[str, Any] | None, dict[str, dict[str, Any]], dict[str, Any] | None]]:
        """The row of the trained model of every run, those of its baselines by name, and its lead over the best."""
        return list(zip(self.trained, self.baselines, self.leads, strict=True))

    def lead_written(self, lead: dict[str, Any]) -> str:
        """A lead over the best baseline as text."""
        by = difference_format(self.metric)
        written = f"{by(lead['value'])} over {lead['baseline']}"
        if lead["low"] is not None:
            low, high = (by(lead[end]).removesuffix(" points") for end in ("low", "high"))
            written += f", 95 % interval {low} to {high}"
        return written


@dataclass
class BenchmarkResults:
    """A task on a data set under one protocol, with the runs that were measured on it.

    Attributes:
        task: name of the task.
        dataset: name of the data set.
        protocol: paper or strict.
        names: of the runs.
        lines: one per number; the rows of each are in the order of `names`.
        details: of each run, as in results.json.
        fingerprints: of the cohort of each run.
    """

    task: str
    dataset: str
    protocol: str
    names: list[str]
    lines: list[Line]
    details: list[dict[str, Any]]
    fingerprints: list[str]

    @property
    def title(self) -> str:
        """Its task and data set."""
        return f"{self.task} on {self.dataset}"

    def headline(self) -> list[Line]:
        """The lines that are drawn: those of the headline metric with the fewest folds, the summary first."""
        return headline(self.task, self.lines, attrgetter("metric", "finding", "folds"))


def read_results_files(paths: Sequence[Path]) -> list[ResultsFile]:
    """Read every results file.

    Args:
        paths: results files, or folders of runs, of which every results file is read.

    Raises:
        MedstError: a folder has no results, a file is damaged, or a run is given twice.
    """
    found: list[Path] = []
    for path in paths:
        files_here = sorted(path.glob("results*.json")) if path.is_dir() else [path]
        if not files_here:
            if (path / "config.json").is_file():
                raise MedstError(
                    f"{path} is a model; give its run {path.parent}, measured by `medst evaluate all {path} COHORT`."
                )
            raise MedstError(f"{path} has no results.json; `medst evaluate all {path / 'best'} COHORT` writes it.")
        found += files_here
    contents = [read_results(file, "`medst evaluate all MODEL COHORT`") for file in found]
    results_files = [
        ResultsFile(" ".join([name, *_switches(content["switches"])]), content, day_written(file))
        for file, name, content in zip(found, _names(found), contents, strict=True)
    ]
    for (name, protocol), count in Counter((one.name, one.results["protocol"]) for one in results_files).items():
        if count > 1:
            raise MedstError(f"{name} is given twice with protocol {protocol}; give each results file once.")
    return results_files


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart, with the file's name if it is unusual."""
    folders = [path.absolute().parent for path in paths]
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(set(folders)):
        depth += 1
    names = ["/".join(folder.parts[-depth:]) for folder in folders]
    usual = ("results", "results-strict")
    return [name if path.stem in usual else f"{name}/{path.stem}" for name, path in zip(names, paths, strict=True)]


def _switches(switches: dict[str, Any]) -> list[str]:
    """The switches that differ from the defaults, in brackets."""
    changed = [
        f"with {name}" if value is True else f"own {name}" if isinstance(value, dict) else f"{name} {value}"
        for name, value in switches.items()
        if value != DEFAULT_SWITCHES[name]
    ]
    return [f"({', '.join(changed)})"] if changed else []


def collect(results_files: Sequence[ResultsFile]) -> list[BenchmarkResults]:
    """Bring numbers of the same benchmark and protocol together, in the order in which they first appear."""
    keys = dict.fromkeys(
        (row["task"], row["dataset"], one.results["protocol"])
        for one in results_files
        for row in one.results["results"]
    )
    return [_benchmark(*key, results_files) for key in keys]


def _benchmark(task: str, dataset: str, protocol: str, results_files: Sequence[ResultsFile]) -> BenchmarkResults:
    name = f"{task}/{dataset}"
    chosen = [one for one in results_files if one.results["protocol"] == protocol and name in one.results["details"]]
    rows = [
        {
            (row["metric"], row["finding"], row["folds"], row["model"]): row
            for row in one.results["results"]
            if (row["task"], row["dataset"]) == (task, dataset)
        }
        for one in chosen
    ]
    leads = [
        {
            (lead["metric"], lead["finding"], lead["folds"]): lead
            for lead in one.results["leads"]
            if (lead["task"], lead["dataset"]) == (task, dataset)
        }
        for one in chosen
    ]
    keys = dict.fromkeys(key[:3] for found in rows for key in found if key[3] == "trained")
    lines = [
        Line(
            *key,
            trained=[found.get((*key, "trained")) for found in rows],
            baselines=[
                {model: row for (*of, model), row in found.items() if tuple(of) == key and model != "trained"}
                for found in rows
            ],
            leads=[found.get(key) for found in leads],
            published=[
                number for wanted, number in published() if protocol == "paper" and wanted == (dataset, task, *key[:2])
            ],
        )
        for key in keys
    ]
    return BenchmarkResults(
        task,
        dataset,
        protocol,
        names=[one.name for one in chosen],
        lines=lines,
        details=[one.results["details"][name] for one in chosen],
        fingerprints=[one.results["cohorts"][dataset] for one in chosen],
    )


@cache
def published() -> list[tuple[tuple[str, str, str, str], Published]]:
    """The numbers in published.csv by (data set, task, metric, finding)."""
    text = (files("medst.pages") / "published.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        if row["system"] == "chance":
            continue
        number = Published(
            row["system"],
            float(row["value"]) / (100 if row["unit"] == "%" else 1),
            f"{row['benchmark']}, with {row['protocol']}: {row['source']}",
            row["confirmed"],
        )
        found.append(((row["benchmark"].split()[0].lower(), row["task"], row["metric"], row["finding"]), number))
    return found
