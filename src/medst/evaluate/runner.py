"""Measure a model on cohorts and write results.json, with the numbers of untrained models of the same shape.

The file depends only on the model, the cohorts, the question and the seeds: it holds no clock time and no path.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medst import NUMERICS, __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS, Benchmark
from medst.evaluate.intervals import deviation
from medst.evaluate.leaks import Overlap, overlaps
from medst.evaluate.prompts import read_prompts
from medst.evaluate.results import SCHEMA, Results
from medst.evaluate.task import ALL, PAPER, UNSEEN, LeftOut, Outcome, Question, Score
from medst.files import claim
from medst.progress import Progress
from medst.use import Model, load

SWITCHES = ("features", "tokens", "laterals", "prompts", "finetune", "precision")
"""Fields of `Question` that all numbers of a file share, as they do the protocol."""


def evaluate(
    model_folder: Path,
    cohorts: Path | Sequence[Path],
    out: Path | None,
    *,
    tasks: Sequence[str] | None = None,
    question: Question = PAPER,
    baseline_seeds: Sequence[int] = (0, 1, 2),
    keep: bool = False,
    leaks: Literal["warn", "refuse", "ignore"] = "warn",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model, and untrained ones of its shape, on benchmarks.

    Args:
        model_folder: a model, for instance RUN/best.
        cohorts: one prepared cohort, or several.
        out: file for the results, written after every benchmark; None writes nothing.
        tasks: names of `BENCHMARKS`, each measured on every cohort; None takes those that each cohort supports, records in
            `left_out` what can't be measured, and continues.
        question: protocol and switches.
        baseline_seeds: one untrained model is drawn from each.
        keep: whether to add to the numbers in `out` and not to measure those again; False writes a new file.
        leaks: if the model was pre-trained on patients of a benchmark: warn, and under protocol `strict` also measure
            without them; refuse to measure anything; or ignore, which only warns.
        progress: called with (models done, models in all, name of the current step).

    Returns:
        The content of the file: `results`, one row per number; `details`, for each benchmark and data set the confusion
        matrices, calibration and predictions of the trained model and how it was `asked`; `left_out`, what could not be
        measured, by name; `leaks`, for each data set that names patients how many of them were in pre-training, or
        "unknown"; `warnings`. In an untrained row `value` is the mean and `std` the standard deviation over the models of
        `seeds`; in a trained row `std` is over `seeds`, which shuffled or drew its rows.

    Raises:
        MedstError: an unknown benchmark; no model or no cohort there; two cohorts of one data set; nothing can be measured;
            with `tasks`, a cohort lacks what a benchmark needs; with `leaks="refuse"`, patients of pre-training, or none
            known; with `keep`, `out` holds another model, cohort, protocol, numerics version or switches.
    """
    unknown = [task for task in tasks or () if task not in BENCHMARKS]
    if unknown or (tasks is not None and not tasks):
        named = f"There is no benchmark {', '.join(unknown)}" if unknown else "No benchmark is given"
        raise MedstError(f"{named}; choose from {', '.join(BENCHMARKS)}.")
    model, opened = load(model_folder, device="cpu"), _open(cohorts)
    plan = [
        (BENCHMARKS[name], dataset)
        for dataset, cohort in opened.items()
        for name in tasks or [name for name, one in BENCHMARKS.items() if one.fits(cohort, question)]
    ]
    if not plan:
        raise MedstError(f"There is no benchmark for a cohort of {', '.join(opened) or 'no data set'}.")
    seen = overlaps(model_folder, opened, refuse=leaks == "refuse")
    models, left_out = 1 + len(baseline_seeds), list[str]()

    def report_progress(done: int, note: str) -> None:
        if progress is not None:
            progress(done, len(plan) * models, note)

    with nullcontext() if out is None else claim(out):
        fingerprints = {dataset: cohort.fingerprint for dataset, cohort in opened.items()}
        known = {dataset: one.to_json() for dataset, one in seen.items()}
        results = Results(out, _head(model, question), fingerprints, known, keep)
        for number, (benchmark, dataset) in enumerate(plan):
            overlap = seen.get(dataset) if benchmark.names_patients else None
            job = _Job(benchmark, opened[dataset], overlap, question, tuple(baseline_seeds), leaks != "ignore")
            if results.holds(benchmark.name, dataset, job.asked()):
                continue
            try:
                outcomes = job.outcomes(model, report_progress, number * models)
            except MedstError as error:
                if tasks is not None:
                    raise
                reason = _without_paths(str(error), opened[dataset], question)
                left_out.append(f"{benchmark.name} on {dataset}: {reason}")
                results.put(benchmark.name, dataset, Outcome(left_out=[LeftOut(ALL, 0, reason)]))
            else:
                untrained = _mean_scores(outcomes, job.seeds)
                results.put(benchmark.name, dataset, outcomes[0], untrained, job.asked())
        if len(left_out) == len(plan):
            raise MedstError(f"Nothing could be measured ({'; '.join(left_out)}).")
        report_progress(len(plan) * models, f"{len(results.content['results'])} numbers")
    return results.content


def _open(paths: Path | Sequence[Path]) -> dict[str, Cohort]:
    opened: dict[str, Cohort] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        cohort = open_cohort(path)
        if cohort.dataset in opened:
            raise MedstError(f"Two of the cohorts are of one data set ({cohort.dataset}); evaluate them one at a time.")
        opened[cohort.dataset] = cohort
    return opened


@dataclass(frozen=True)
class _Job:
    """A benchmark on a cohort.

    Attributes:
        overlap: the cohort's patients in pre-training; None where the benchmark names no patient.
        measure_unseen: whether protocol `strict` also measures without these patients.
    """

    benchmark: Benchmark
    cohort: Cohort
    overlap: Overlap | None
    question: Question
    seeds: tuple[int, ...]
    measure_unseen: bool

    def asked(self) -> dict[str, Any]:
        """How the benchmark is measured, without the switches that all numbers of a file share; plain JSON."""
        asked: dict[str, Any] = {"untrained": list(self.seeds), "intervals": self.question.intervals}
        for name in self.benchmark.switches:
            value = getattr(self.question, name)
            if isinstance(value, Path):
                asked[name] = open_cohort(value).fingerprint
            elif value is not None:
                asked[name] = list(value)
        if self.overlap is not None:
            asked["leaks"] = self.overlap.to_json() if self.measure_unseen else "ignored"
        return asked

    def outcomes(self, model: Model, report_progress: Callable[[int, str], None], done: int) -> list[Outcome]:
        """The model's outcome, then that of each untrained model; `done` models were measured before."""
        task, strict, outcomes = self.benchmark.task(), self.question.protocol == "strict", []
        unseen = self.overlap.unseen() if strict and self.measure_unseen and self.overlap is not None else None
        for place, seed in enumerate((None, *self.seeds)):
            name = self.benchmark.name
            report_progress(done + place, name if seed is None else f"{name}, untrained {seed}")
            measured = model if seed is None else model.untrained(seed)
            question = self.question if seed is None else replace(self.question, cache=None, bootstrap=False)
            outcomes.append(task(measured, self.cohort, question))
            if unseen is None:
                continue
            try:
                outcomes[-1].add_unseen(task(measured, unseen, question))
            except MedstError as error:
                reason = _without_paths(str(error), self.cohort, question)
                outcomes[-1].left_out.append(LeftOut(ALL + UNSEEN, 0, reason))
        if self.overlap is not None:
            outcomes[0].warnings += self.overlap.warnings(strict)
        return outcomes


def _head(model: Model, question: Question) -> dict[str, Any]:
    switches: dict[str, Any] = {name: getattr(question, name) for name in SWITCHES}
    switches["laterals"] = question.laterals is not None
    switches["prompts"] = "released" if question.prompts is None else read_prompts(question.prompts)
    return {
        "schema": SCHEMA,
        "medst_version": __version__,
        "numerics": NUMERICS,
        "protocol": question.protocol,
        "switches": switches,
        "model": {"fingerprint": model.fingerprint, "recipe": model.recipe.name},
    }


def _without_paths(sentence: str, cohort: Cohort, question: Question) -> str:
    """A sentence without the paths of this machine and without its full stop."""
    known = {cohort.path: cohort.path.name, question.laterals: "--laterals", question.prompts: "--prompts"}
    for path, name in known.items():
        if path is not None:
            sentence = sentence.replace(str(path), name)
    return sentence.rstrip(".")


def _mean_scores(outcomes: list[Outcome], seeds: tuple[int, ...]) -> list[Score]:
    """The mean over the untrained models, `outcomes[1:]`, of each score of the trained one that all of them have."""
    by_key = [{score.key: score.value for score in outcome.scores} for outcome in outcomes[1:]]
    scores = []
    for score in outcomes[0].scores:
        if by_key and all(score.key in values for values in by_key):
            values = np.array([values[score.key] for values in by_key])
            mean, std = float(values.mean()), deviation(values) if len(values) > 1 else None
            scores.append(replace(score, value=mean, std=std, seeds=seeds, interval=None))
    return scores
