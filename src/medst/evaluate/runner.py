"""A model and cohorts in, results.json out: the model's numbers beside those of untrained models of its shape.

What is in results.json depends on the model, the cohorts, the question and the seeds alone: no clock time, no path of this
machine.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medst import NUMERICS, __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate import probe, retrieval, temporal_image, temporal_text, zero_shot
from medst.evaluate.leaks import Overlap, overlaps
from medst.evaluate.prompts import RELEASED, read_prompts
from medst.evaluate.results import SCHEMA, Results
from medst.evaluate.task import ALL, PAPER, UNSEEN, LeftOut, Outcome, Question, Score, Task
from medst.files import claim
from medst.progress import Progress
from medst.weights import Loaded, load, untrained

_TASK_OF: dict[str, Task] = {
    temporal_image.TASK: temporal_image.temporal_image,
    temporal_text.TASK: temporal_text.temporal_text,
    zero_shot.TASK: zero_shot.zero_shot,
    probe.TASK: probe.probe,
    retrieval.TASK: retrieval.retrieval,
}
TASKS: tuple[str, ...] = tuple(_TASK_OF)
DIGITS = 6


def fitting(cohort: Cohort, question: Question = PAPER) -> list[str]:
    """The tasks for which a cohort has the data."""
    tasks = []
    if cohort.comparisons is not None:
        tasks.append(temporal_image.TASK)
    if cohort.sentences is not None:
        tasks.append(temporal_text.TASK)
    if cohort.labelled is not None:
        asked = {str(name).lower() for name in cohort.meta["classes"]} & set(RELEASED)
        if question.prompts is not None or (asked and len(cohort.meta["classes"]) == 2):
            tasks.append(zero_shot.TASK)
        tasks.append(probe.TASK)
    if cohort.pairs is not None:
        if cohort.pairs["labels"].null_count() < cohort.pairs.height:
            tasks.append(probe.TASK)
        tasks.append(retrieval.TASK)
    return tasks


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
    """Hold a model, and untrained ones of its shape, against benchmarks.

    Args:
        model_folder: a model, for instance RUN/best.
        cohorts: one prepared cohort, or several.
        out: file for the results, written after every task; None writes nothing.
        tasks: which of `TASKS`, each on every cohort; None takes those that fit each cohort, and one that can't be measured
            is recorded in `left_out` while the others continue.
        question: protocol and switches.
        baseline_seeds: one untrained model is drawn from each; none leaves them out.
        keep: whether to add to what `out` holds and not to measure that again; False writes a new file.
        leaks: what to do about patients that the model was pre-trained on: warn, and under protocol `strict` measure the
            rows without them beside; refuse to measure anything; or ignore, which warns only.
        progress: called with (models done, models in all, what is being done).

    Returns:
        What was written: `results`, one row per number; `details`, for each task and data set the confusion matrices,
        calibration and predictions of the trained model and how it was `asked`; `left_out`, what could not be measured, by
        name; `leaks`, for each data set that names patients how many of them were in pre-training, or "unknown"; `warnings`.
        An untrained row's value is the mean and its `std` the standard deviation over `seeds`, the models; a trained row's
        `std` is over `seeds`, what its rows were shuffled or drawn with.

    Raises:
        MedstError: an unknown task, no model or no cohort there, two cohorts of one data set, nothing that can be measured,
            with `tasks` a cohort without what a task needs, with `leaks="refuse"` patients of pre-training or none known, or
            with `keep` an `out` of another model, cohort, protocol, numerics version or switches.
    """
    unknown = [task for task in tasks or () if task not in _TASK_OF]
    if unknown or (tasks is not None and not tasks):
        raise MedstError(f"There is no task {', '.join(unknown) or 'given'}; the tasks are {', '.join(TASKS)}.")
    loaded, opened = load(model_folder), _opened(cohorts)
    plan = [(task, dataset) for dataset, cohort in opened.items() for task in (tasks or fitting(cohort, question))]
    if not plan:
        raise MedstError(f"There is no benchmark for a cohort of {', '.join(opened) or 'no data set'}.")
    seen = overlaps(model_folder, opened, refuse=leaks == "refuse")
    total, left_out = len(plan) * (1 + len(baseline_seeds)), list[str]()

    def say(done: int, note: str) -> None:
        if progress is not None:
            progress(done, total, note)

    with nullcontext() if out is None else claim(out):
        fingerprints = {dataset: cohort.fingerprint for dataset, cohort in opened.items()}
        known = {dataset: one.written() for dataset, one in seen.items()}
        results = Results(out, _head(loaded, question), fingerprints, known, keep)
        for number, (task, dataset) in enumerate(plan):
            beside = None if task == temporal_text.TASK else seen.get(dataset)  # whose sentences name no patient
            job = _Job(task, opened[dataset], beside, question, tuple(baseline_seeds), leaks != "ignore")
            if results.holds(task, dataset, job.asked()):
                continue
            try:
                outcomes = job.outcomes(loaded, say, number * (1 + len(baseline_seeds)))
            except MedstError as error:
                if tasks is not None:
                    raise
                reason = _without_paths(str(error), opened[dataset], question)
                left_out.append(f"{task} on {dataset}: {reason}")
                row = asdict(LeftOut(task, ALL, 0, reason)) | {"dataset": dataset}
                results.put(task, dataset, rows=[], left_out=[row])
            else:
                _put(results, task, dataset, outcomes, list(baseline_seeds), job.asked())
        if len(left_out) == len(plan):
            raise MedstError(f"Nothing could be measured ({'; '.join(left_out)}).")
        say(total, f"{len(results.content['results'])} numbers")
    return results.content


def _opened(paths: Path | Sequence[Path]) -> dict[str, Cohort]:
    opened: dict[str, Cohort] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        cohort = open_cohort(path)
        dataset = str(cohort.meta["dataset"])
        if dataset in opened:
            raise MedstError(f"Two of the cohorts are of one data set ({dataset}); evaluate them one at a time.")
        opened[dataset] = cohort
    return opened


@dataclass(frozen=True)
class _Job:
    """A task on a cohort.

    Attributes:
        overlap: the cohort's patients in pre-training; None where the task names no patient.
        apart: whether to measure without these patients beside, as protocol `strict` does.
    """

    task: str
    cohort: Cohort
    overlap: Overlap | None
    question: Question
    seeds: tuple[int, ...]
    apart: bool

    def asked(self) -> dict[str, Any]:
        """How the task is measured, apart from what all tasks of a file share; plain JSON."""
        asked: dict[str, Any] = {"untrained": list(self.seeds), "intervals": self.question.intervals}
        if self.task == probe.TASK:
            asked["fractions"] = list(self.question.fractions)
        if self.task == temporal_image.TASK and self.question.laterals is not None:
            asked["laterals"] = open_cohort(self.question.laterals).fingerprint
        if self.overlap is not None:
            asked["leaks"] = self.overlap.written() if self.apart else "ignored"
        return asked

    def outcomes(self, loaded: Loaded, say: Callable[[int, str], None], before: int) -> list[Outcome]:
        """The model's outcome, then that of each untrained model; `say` is called when one begins."""
        strict, unseen, outcomes = self.question.protocol == "strict", None, []
        if strict and self.apart and self.overlap is not None:
            unseen = self.overlap.unseen()
        for place, seed in enumerate((None, *self.seeds)):
            say(before + place, self.task if seed is None else f"{self.task}, untrained {seed}")
            model = loaded if seed is None else untrained(loaded, seed)
            asked = self.question if seed is None else replace(self.question, cache=None, bootstrap=False)
            outcomes.append(_TASK_OF[self.task](model, self.cohort, asked))
            if unseen is not None:
                self._add(outcomes[-1], model, unseen, asked)
        if self.overlap is not None:
            outcomes[0].warnings += self.overlap.sentences(strict)
        return outcomes

    def _add(self, outcome: Outcome, model: Loaded, unseen: Cohort, question: Question) -> None:
        """Add what the task finds without the patients of pre-training."""
        try:
            beside = _TASK_OF[self.task](model, unseen, question)
        except MedstError as error:
            reason = _without_paths(str(error), self.cohort, question)
            outcome.left_out.append(LeftOut(self.task, ALL + UNSEEN, 0, reason))
            return
        outcome.scores += [replace(score, finding=score.finding + UNSEEN) for score in beside.scores]
        outcome.left_out += [replace(left, finding=left.finding + UNSEEN) for left in beside.left_out]
        outcome.confusion |= {finding + UNSEEN: matrix for finding, matrix in beside.confusion.items()}
        outcome.calibration |= {finding + UNSEEN: curve for finding, curve in beside.calibration.items()}


def _head(loaded: Loaded, question: Question) -> dict[str, Any]:
    switches = {
        "features": question.features,
        "tokens": question.tokens,
        "laterals": question.laterals is not None,
        "prompts": "released" if question.prompts is None else read_prompts(question.prompts),
        "finetune": question.finetune,
        "precision": question.precision,
    }
    return {
        "schema": SCHEMA,
        "medst_version": __version__,
        "numerics": NUMERICS,
        "protocol": question.protocol,
        "switches": switches,
        "model": {"fingerprint": loaded.fingerprint, "recipe": loaded.recipe.name},
    }


def _without_paths(sentence: str, cohort: Cohort, question: Question) -> str:
    """A sentence without the paths of this machine and without its full stop."""
    known = {cohort.path: cohort.path.name, question.laterals: "--laterals", question.prompts: "--prompts"}
    for path, name in known.items():
        if path is not None:
            sentence = sentence.replace(str(path), name)
    return sentence.rstrip(".")


def _put(
    results: Results, task: str, dataset: str, outcomes: list[Outcome], seeds: list[int], asked: dict[str, Any]
) -> None:
    """The trained model's outcome, then one for each untrained model."""
    trained = outcomes[0]
    rows = [_row(task, dataset, score) for score in trained.scores]
    results.put(
        task,
        dataset,
        rows=rows + _untrained_rows(task, dataset, trained, outcomes[1:], seeds),
        left_out=[asdict(left) | {"dataset": dataset} for left in trained.left_out],
        detail={
            "asked": asked,
            "classes": trained.classes,
            "confusion": trained.confusion,
            "calibration": trained.calibration,
            "predictions": trained.predictions,
            "warnings": trained.warnings,
        }
        | ({"train_rows": trained.train_rows} if trained.train_rows else {}),
    )


def _row(task: str, dataset: str, score: Score, model: str = "trained") -> dict[str, Any]:
    low, high = score.interval or (None, None)
    return {
        "task": task,
        "dataset": dataset,
        "metric": score.metric,
        "finding": score.finding,
        "model": model,
        "value": round(score.value, DIGITS),
        "std": None if score.std is None else round(score.std, DIGITS),
        "low": None if low is None else round(low, DIGITS),
        "high": None if high is None else round(high, DIGITS),
        "n": score.n,
        "chance": round(score.chance, DIGITS),
        "folds": score.folds,
        "seeds": list(score.seeds),
    }


def _untrained_rows(
    task: str, dataset: str, trained: Outcome, outcomes: list[Outcome], seeds: list[int]
) -> list[dict[str, Any]]:
    """One row for what the untrained models reach on average, where all of them were measured; all on the same rows."""
    if not outcomes:
        return []
    by_key = [{score.key: score for score in outcome.scores} for outcome in outcomes]
    rows = []
    for score in trained.scores:
        if not all(score.key in scores for scores in by_key):
            continue
        values = np.array([scores[score.key].value for scores in by_key])
        row = _row(task, dataset, replace(score, interval=None), "untrained")
        spread = {"value": round(float(values.mean()), DIGITS), "std": round(float(values.std()), DIGITS)}
        rows.append(row | spread | {"seeds": seeds})
    return rows
