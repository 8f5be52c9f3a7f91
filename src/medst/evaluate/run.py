"""A model and a benchmark cohort in, results.json out: the model's numbers beside those of untrained models of its shape.

What is in results.json depends on the model, the cohort and the seeds alone: no clock time, no path of this machine.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medst import __version__
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.evaluate import temporal_image, temporal_text
from medst.evaluate.task import Outcome, Score, Task
from medst.weights import load, untrained

SCHEMA = 1
_TASK_OF: dict[str, Task] = {
    temporal_image.TASK: temporal_image.temporal_image,
    temporal_text.TASK: temporal_text.temporal_text,
}
TASKS: tuple[str, ...] = tuple(_TASK_OF)
DIGITS = 6

Progress = Callable[[int, int, str], None]


def evaluate(
    model_folder: Path,
    cohort_path: Path,
    out: Path | None,
    *,
    tasks: Sequence[str] = TASKS,
    baseline_seeds: Sequence[int] = (0, 1, 2),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hold a model, and untrained ones of its shape, against benchmarks by the released protocols.

    Args:
        model_folder: a model, for instance RUN/best.
        cohort_path: an ms-cxr-t cohort.
        out: file to write the results to, beside its final name first; None writes nothing.
        tasks: which of `TASKS`.
        baseline_seeds: one untrained model is drawn from each; none leaves them out.
        progress: called with (models done, models in all, what is being done).

    Returns:
        What was written: `results`, a row a number; `confusion` and `predictions` of the trained model; `left_out`, what
        could not be measured, by name. An untrained row's value is the mean and its `std` the standard deviation over
        `seeds`, the models; a trained row's `std` is over `seeds`, the shuffles of its rows.

    Raises:
        MedstError: an unknown task, no model or no cohort there, or a cohort without what a task needs.
    """
    unknown = [task for task in tasks if task not in _TASK_OF]
    if unknown or not tasks:
        raise MedstError(f"There is no task {', '.join(unknown) or 'given'}; the tasks are {', '.join(TASKS)}.")
    loaded, cohort = load(model_folder), open_cohort(cohort_path)
    total, done = len(tasks) * (1 + len(baseline_seeds)), 0
    rows: list[dict[str, Any]] = []
    confusion: dict[str, Any] = {}
    predictions: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for task in tasks:
        outcomes: list[Outcome] = []
        for seed in (None, *baseline_seeds):
            if progress is not None:
                progress(done, total, task if seed is None else f"{task}, untrained {seed}")
            outcomes.append(_TASK_OF[task](loaded if seed is None else untrained(loaded, seed), cohort))
            done += 1
        trained, baselines = outcomes[0], outcomes[1:]
        rows += [_row(task, score) for score in trained.scores]
        rows += _untrained_rows(task, baselines, list(baseline_seeds))
        confusion |= trained.confusion
        predictions += trained.predictions
        left_out += [asdict(left) for left in trained.left_out]
    results = {
        "schema": SCHEMA,
        "medst_version": __version__,
        "protocol": "paper",
        "model": {"fingerprint": loaded.fingerprint, "recipe": loaded.recipe.name},
        "cohort": {"dataset": cohort.meta["dataset"], "fingerprint": cohort.fingerprint},
        "results": rows,
        "left_out": left_out,
        "confusion": confusion,
        "predictions": predictions,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(out.name + ".part")
        part.write_text(json.dumps(results, indent=1) + "\n")
        os.replace(part, out)
    if progress is not None:
        progress(total, total, f"{len(rows)} numbers")
    return results


def _row(task: str, score: Score, model: str = "trained") -> dict[str, Any]:
    return {
        "task": task,
        "metric": score.metric,
        "finding": score.finding,
        "model": model,
        "value": round(score.value, DIGITS),
        "std": None if score.std is None else round(score.std, DIGITS),
        "n": score.n,
        "chance": round(score.chance, DIGITS),
        "folds": score.folds,
        "seeds": list(score.seeds),
    }


def _untrained_rows(task: str, outcomes: list[Outcome], seeds: list[int]) -> list[dict[str, Any]]:
    """One row for what the untrained models reach on average; all were measured on the same rows."""
    rows = []
    for same in zip(*(outcome.scores for outcome in outcomes), strict=True):
        values = np.array([score.value for score in same])
        row = _row(task, same[0], "untrained")
        spread = {"value": round(float(values.mean()), DIGITS), "std": round(float(values.std()), DIGITS)}
        rows.append(row | spread | {"seeds": seeds})
    return rows
