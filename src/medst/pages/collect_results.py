"""Results of any number of runs, collected by benchmark and protocol, with one line per number."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.evaluate.summary import headline
from medst.evaluate.task import STRICT
from medst.files import read_json
from medst.pages.inputs import models_with
from medst.pages.line import Line, Seeds
from medst.pages.wording import day_written
from medst.pretrain.checkpoint import SETTINGS

DEFAULT_SWITCHES = {**vars(STRICT), "laterals": False, "prompts": "released"}
"""Switches as a results file has them when none was given."""


@dataclass(frozen=True)
class ResultsFile:
    """A results.json.

    Attributes:
        name: distinguishes it from the others on the page.
        results: its content.
        measured: the day when the file was written, yyyy-mm-dd in UTC.
        settings: of its run, as in settings.json beside it; empty if there is none, or the model is not the run's.
        models: which models of its run the numbers may be of, see `models_with`.
        warnings: sentences for the reader, with those of the file.
    """

    name: str
    results: dict[str, Any]
    measured: str
    settings: dict[str, Any] = field(default_factory=dict)
    models: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """What runs that differ in their seed alone have in common; empty if the settings are not known."""
        if not self.settings:
            return ""
        recipe = {name: part for name, part in self.settings["recipe"].items() if name != "run"}
        numerics = self.settings.get("numerics", 1), self.results["numerics"]
        return json.dumps([recipe, self.settings["cohort"], self.results["switches"], numerics], sort_keys=True)

    @property
    def model(self) -> str:
        """Fingerprint of its model."""
        return str(self.results["model"]["fingerprint"])

    @property
    def seed(self) -> int | None:
        """Seed of its run."""
        found: int | None = self.settings.get("recipe", {}).get("run", {}).get("seed")
        return found


@dataclass
class BenchmarkResults:
    """A task on a data set under one protocol, with the runs that were measured on it.

    Attributes:
        task: name of the task.
        dataset: name of the data set.
        protocol: strict, paper, transfer or answers.
        names: of the runs.
        lines: one per number; the rows of each are in the order of `names`.
        details: of each run, as in results.json.
        fingerprints: of the cohort of each run.
        seeds: groups of at least two runs that differ in their seed alone.
        groups: of each run, its entries of `groups`.
    """

    task: str
    dataset: str
    protocol: str
    names: list[str]
    lines: list[Line]
    details: list[dict[str, Any]]
    fingerprints: list[str]
    seeds: list[Seeds] = field(default_factory=list)
    groups: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Its task and data set."""
        return f"{self.task} on {self.dataset}"

    def headline(self) -> list[Line]:
        """The lines that are drawn: those of the headline metric with the fewest folds, the summary first."""
        return headline(self.task, self.lines, attrgetter("metric", "finding", "folds"))

    def group_lines(self) -> tuple[list[Line], list[str]]:
        """The headline numbers of groups of rows, one line each, and a sentence for each that has too few rows."""
        lines, too_few = list[Line](), list[str]()
        for whole in self.headline():
            key = whole.metric, whole.finding, whole.folds
            of_runs = [
                {(row["by"], row["group"]): row for row in rows if (row["metric"], row["finding"], row["folds"]) == key}
                for rows in self.groups
            ]
            for by, group in dict.fromkeys(place for found in of_runs for place in found):
                name = f"{whole.finding}, {by}: {group}"
                rows = [found.get((by, group)) for found in of_runs]
                known = [row if row is not None and row["value"] is not None else None for row in rows]
                if not any(known):
                    too_few.append(f"{name}: {next(row['reason'] for row in rows if row is not None)}")
                    continue
                trained = [row and row | {"std": None, "chance": whole.chance} for row in known]
                leads = [
                    row
                    and row["lead"] is not None
                    and row | {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
                    for row in known
                ]
                lines.append(
                    Line(whole.metric, name, whole.folds, trained, [{} for _ in rows], [o or None for o in leads])
                )
        return lines, too_few


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
        _results_file(file, " ".join([name, *_switches(content["switches"])]), content)
        for file, name, content in zip(found, _names(found), contents, strict=True)
    ]
    for (name, protocol), count in Counter((one.name, one.results["protocol"]) for one in results_files).items():
        if count > 1:
            raise MedstError(f"{name} is given twice with protocol {protocol}; give each results file once.")
    return results_files


def _results_file(file: Path, name: str, content: dict[str, Any]) -> ResultsFile:
    run, day, warnings = file.absolute().parent, day_written(file), tuple(content["warnings"])
    if content["protocol"] == "answers" or not (run / "settings.json").is_file():  # answers are not of the run
        return ResultsFile(name, content, day, warnings=warnings)
    models = models_with(run, content["model"]["fingerprint"])
    if not models:
        warnings += ("The numbers are of a model that is not in this run's folder, so nothing of the run is shown.",)
        return ResultsFile(name, content, day, warnings=warnings)
    settings = read_json(run / "settings.json", "give the folder of a run", SETTINGS)
    return ResultsFile(name, content, day, settings, models, warnings)


def _seeds(runs: Sequence[ResultsFile], fingerprints: Sequence[str]) -> list[Seeds]:
    """The groups of runs of one recipe that were measured on one copy of a data set, each seed and each model once.

    The numbers of a group are all of `best` models or all of `last` ones, where the folders tell.
    """
    groups: list[tuple[tuple[str, str], list[int]]] = []
    for place, (one, fingerprint) in enumerate(zip(runs, fingerprints, strict=True)):
        key = one.recipe, fingerprint
        alike = (
            places
            for of, places in groups
            if of == key and one.models.intersection(*(runs[other].models for other in places))
        )
        members = next(alike, None)
        if members is not None:
            if not any(one.seed == runs[other].seed or one.model == runs[other].model for other in members):
                members.append(place)
        elif one.recipe:
            groups.append((key, [place]))
    return [
        Seeds(f"{len(places)} seeds of {runs[places[0]].results['model']['recipe']}", tuple(places))
        for _, places in groups
        if len(places) > 1
    ]


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart, with the file's name if it is unusual."""
    folders = [path.absolute().parent for path in paths]
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(set(folders)):
        depth += 1
    names = ["/".join(folder.parts[-depth:]) for folder in folders]
    usual = (
        "results",
        "results-paper",
        "results-transfer",
        "results-strict",
    )  # the last one was written by earlier versions
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
        )
        for key in keys
    ]
    fingerprints = [one.results["cohorts"][dataset] for one in chosen]
    return BenchmarkResults(
        task,
        dataset,
        protocol,
        names=[one.name for one in chosen],
        lines=lines,
        details=[one.results["details"][name] for one in chosen],
        fingerprints=fingerprints,
        seeds=_seeds(chosen, fingerprints),
        groups=[
            [row for row in one.results["groups"] if (row["task"], row["dataset"]) == (task, dataset)] for one in chosen
        ],
    )
