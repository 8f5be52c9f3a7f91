"""Results of any number of runs, brought together: a group for each benchmark and protocol, a row for each number."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.evaluate.task import ALL, AVERAGE

PLAIN: dict[str, Any] = {
    "features": "concat", "tokens": "global", "laterals": False, "prompts": "released", "finetune": False,
    "precision": "fp32",
}  # fmt: skip
"""The switches that go without saying."""
HEADLINES = {
    "temporal-image": "macro accuracy",
    "temporal-text": "auroc",
    "zero-shot": "auroc",
    "probe": "auroc",
    "retrieval": "image to report R@1",
}
"""The metric of each task that is drawn."""


@dataclass(frozen=True)
class Source:
    """One results.json: a name that tells it from the others, and its content."""

    name: str
    results: dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A number that somebody reports, and where it was found."""

    system: str
    value: float
    protocol: str
    source: str
    confirmed: str


@dataclass
class Line:
    """A number: what it is of, and what each source found, None where it found nothing."""

    metric: str
    finding: str
    folds: int | None
    trained: list[dict[str, Any] | None]
    untrained: list[dict[str, Any] | None]
    published: list[Published] = field(default_factory=list)

    @property
    def chance(self) -> float:
        """What a guess reaches."""
        return next(row["chance"] for row in self.trained if row is not None)

    @property
    def is_sum(self) -> bool:
        """Whether it sums up all findings."""
        return self.finding in (AVERAGE, ALL)


@dataclass
class Group:
    """A benchmark under one protocol: the names of the sources that measured it, and its lines."""

    task: str
    dataset: str
    protocol: str
    names: list[str]
    lines: list[Line]
    details: list[dict[str, Any]]
    fingerprints: list[str]

    def headline(self) -> list[Line]:
        """The lines that are drawn, what sums them up first."""
        folds = min(
            (line.folds for line in self.lines if line.metric == HEADLINES[self.task] and line.folds), default=None
        )
        drawn = [line for line in self.lines if (line.metric, line.folds) == (HEADLINES[self.task], folds)]
        return sorted(drawn, key=lambda line: not line.is_sum)


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """Every results file of every path, a file or a run's folder.

    Raises:
        MedstError: there is none in a folder, or one can't be read.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        files_here = sorted(path.glob("results*.json")) if path.is_dir() else [path]
        if not files_here:
            if (path / "config.json").is_file():
                raise MedstError(
                    f"{path} is a model; give its run {path.parent}, measured by `medst evaluate all {path} COHORT`."
                )
            raise MedstError(f"{path} has no results.json; `medst evaluate all {path / 'best'} COHORT` writes it.")
        found += [(file, read_results(file)) for file in files_here]
    names = _names([file for file, _ in found])
    sources = [
        Source(" ".join([name, *_switches(results["switches"])]), results)
        for name, (_, results) in zip(names, found, strict=True)
    ]
    same = {source.name for source in sources if [s.name for s in sources].count(source.name) > 1}
    for name in same:
        protocols = [source.results["protocol"] for source in sources if source.name == name]
        if len(set(protocols)) < len(protocols):
            raise MedstError(f"{name} is given twice with protocol {protocols[0]}; give each results file once.")
    return sources


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart; a file of its own name adds that."""
    folders = [path.absolute().parent for path in paths]
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(set(folders)):
        depth += 1
    names = ["/".join(folder.parts[-depth:]) for folder in folders]
    usual = ("results", "results-strict")
    return [name if path.stem in usual else f"{name}/{path.stem}" for name, path in zip(names, paths, strict=True)]


def _switches(switches: dict[str, Any]) -> list[str]:
    said = []
    for name, value in switches.items():
        if value == PLAIN[name]:
            continue
        said.append(
            f"with {name}" if value is True else f"own {name}" if isinstance(value, dict) else f"{name} {value}"
        )
    return [f"({', '.join(said)})"] if said else []


def group(sources: Sequence[Source]) -> list[Group]:
    """Bring numbers of the same benchmark and protocol together, in the order in which they first appear."""
    keys = dict.fromkeys(
        (row["task"], row["dataset"], source.results["protocol"])
        for source in sources
        for row in source.results["results"]
    )
    return [_one(*key, sources) for key in keys]


def _one(task: str, dataset: str, protocol: str, sources: Sequence[Source]) -> Group:
    chosen = [
        source
        for source in sources
        if source.results["protocol"] == protocol and f"{task}/{dataset}" in source.results["details"]
    ]
    rows = [
        {_key(row): row for row in source.results["results"] if (row["task"], row["dataset"]) == (task, dataset)}
        for source in chosen
    ]
    keys = dict.fromkeys(key[:3] for found in rows for key in found if key[3] == "trained")
    lines = [
        Line(
            *key,
            trained=[found.get((*key, "trained")) for found in rows],
            untrained=[found.get((*key, "untrained")) for found in rows],
            published=[one for wanted, one in published() if wanted == (dataset, task, key[0], key[1])],
        )
        for key in keys
    ]
    return Group(
        task,
        dataset,
        protocol,
        [source.name for source in chosen],
        lines,
        [source.results["details"][f"{task}/{dataset}"] for source in chosen],
        [source.results["cohorts"][dataset] for source in chosen],
    )


def _key(row: dict[str, Any]) -> tuple[str, str, int | None, str]:
    return row["metric"], row["finding"], row["folds"], row["model"]


@cache
def published() -> list[tuple[tuple[str, str, str, str], Published]]:
    """The numbers that are carried in the package: (data set, task, metric, finding) and what is reported of it."""
    text = (files("medst.pages") / "published.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        if row["system"] == "chance":
            continue
        scale = 100 if row["unit"] == "%" else 1
        number = Published(
            row["system"],
            float(row["value"]) / scale,
            row["protocol"],
            f"{row['benchmark']}, {row['source']}",
            row["confirmed"],
        )
        dataset = row["benchmark"].split()[0].lower()
        found.append(((dataset, row["task"], row["metric"], row["finding"]), number))
    return found
