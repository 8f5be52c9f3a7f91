"""A model and cohorts in, results.json out: the model's numbers beside those of untrained models of its shape.

What is in results.json depends on the model, the cohorts, the question and the seeds alone: no clock time, no path of this
machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from medst import __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate import probe, retrieval, temporal_image, temporal_text, zero_shot
from medst.evaluate.prompts import RELEASED, read_prompts
from medst.evaluate.results import SCHEMA, merged, read_for_merging, write_results
from medst.evaluate.task import PAPER, Outcome, Question, Score, Task
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

Progress = Callable[[int, int, str], None]


def fitting(cohort: Cohort, question: Question = PAPER) -> list[str]:
    """The tasks that a cohort has what it takes for."""
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
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hold a model, and untrained ones of its shape, against benchmarks.

    Args:
        model_folder: a model, for instance RUN/best.
        cohorts: one prepared cohort, or several.
        out: file to write the results to, beside its final name first; None writes nothing.
        tasks: which of `TASKS`, each on every cohort; None takes those that fit each cohort.
        question: protocol and switches.
        baseline_seeds: one untrained model is drawn from each; none leaves them out.
        keep: whether numbers of other tasks and data sets stay that `out` already holds; False writes a new file.
        progress: called with (models done, models in all, what is being done).

    Returns:
        What was written: `results`, a row a number; `details`, for each task and data set the confusion matrices,
        calibration and predictions of the trained model; `left_out`, what could not be measured, by name; `warnings`. An
        untrained row's value is the mean and its `std` the standard deviation over `seeds`, the models; a trained row's
        `std` is over `seeds`, what its rows were shuffled or drawn with.

    Raises:
        MedstError: an unknown task, no model or no cohort there, two cohorts of one data set, a cohort without what a task
            needs, or with `keep` an `out` of another model, cohort, protocol or switches.
    """
    unknown = [task for task in tasks or () if task not in _TASK_OF]
    if unknown or (tasks is not None and not tasks):
        raise MedstError(f"There is no task {', '.join(unknown) or 'given'}; the tasks are {', '.join(TASKS)}.")
    loaded = load(model_folder)
    opened = [open_cohort(path) for path in ([cohorts] if isinstance(cohorts, Path) else cohorts)]
    datasets = [str(cohort.meta["dataset"]) for cohort in opened]
    if len(set(datasets)) < len(datasets):
        raise MedstError(
            f"Two of the cohorts are of one data set ({', '.join(datasets)}); evaluate them one at a time."
        )
    plan = [(task, cohort) for cohort in opened for task in (tasks or fitting(cohort, question))]
    if not plan:
        raise MedstError(f"{opened[0].path}: there is no benchmark for a {datasets[0]} cohort.")
    head = _described(loaded, opened, question)
    before = read_for_merging(out, head) if keep and out is not None else None
    total, done = len(plan) * (1 + len(baseline_seeds)), 0
    found = _Found()
    for task, cohort in plan:
        outcomes: list[Outcome] = []
        for seed in (None, *baseline_seeds):
            if progress is not None:
                progress(done, total, task if seed is None else f"{task}, untrained {seed}")
            asked = question if seed is None else replace(question, cache=None, bootstrap=False)
            outcomes.append(_TASK_OF[task](loaded if seed is None else untrained(loaded, seed), cohort, asked))
            done += 1
        found.add(task, str(cohort.meta["dataset"]), outcomes, list(baseline_seeds))
    results = merged(before, head | found.written())
    if out is not None:
        write_results(out, results)
    if progress is not None:
        progress(total, total, f"{len(found.rows)} numbers")
    return results


def _described(loaded: Loaded, cohorts: Sequence[Cohort], question: Question) -> dict[str, Any]:
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
        "protocol": question.protocol,
        "switches": switches,
        "model": {"fingerprint": loaded.fingerprint, "recipe": loaded.recipe.name},
        "cohorts": {str(cohort.meta["dataset"]): cohort.fingerprint for cohort in cohorts},
    }


class _Found:
    """What was found out so far."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.details: dict[str, dict[str, Any]] = {}
        self.left_out: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def add(self, task: str, dataset: str, outcomes: list[Outcome], seeds: list[int]) -> None:
        """The trained model's outcome, then one for each untrained model."""
        trained = outcomes[0]
        self.rows += [_row(task, dataset, score) for score in trained.scores]
        self.rows += _untrained_rows(task, dataset, trained, outcomes[1:], seeds)
        self.details[f"{task}/{dataset}"] = {
            "classes": trained.classes,
            "confusion": trained.confusion,
            "calibration": trained.calibration,
            "predictions": trained.predictions,
        }
        self.left_out += [{**asdict(left), "dataset": dataset} for left in trained.left_out]
        self.warnings += [warning for warning in trained.warnings if warning not in self.warnings]

    def written(self) -> dict[str, Any]:
        """As it stands in results.json."""
        return {
            "results": self.rows,
            "left_out": self.left_out,
            "warnings": self.warnings,
            "details": self.details,
        }


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
