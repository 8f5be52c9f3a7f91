"""What is each part of the recipe worth? Its variants, each trained with several seeds, as one job that can be stopped.

Unusual here: a variant is held against the reference of the same seed, which has the same start and the same order of
patients, so that what the two share cancels; the interval of the mean difference is Student's over the seeds. It says how
far other seeds would differ, not how far other patients would.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe

Progress = Callable[[int, int, str], None]
REFERENCE = "reference"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Variant:
    """A change to a recipe: its name, what it does, and the settings it replaces, by their dotted names."""

    name: str
    what: str
    changes: dict[str, Any]

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes."""
        for path, value in self.changes.items():
            recipe = _replaced(recipe, path.split("."), value)
        return recipe


VARIANTS = (
    Variant("no-laterals", "frontal views alone (paper)", {"data.laterals": "none"}),
    Variant("no-local", "no local alignment (paper)", {"objective.local_weight": 0.0}),
    Variant("no-forward", "no forward mapping classification (paper)", {"objective.forward_weight": 0.0}),
    Variant("no-reverse", "no reverse mapping regression (paper)", {"objective.reverse_weight": 0.0}),
    Variant("no-temporal", "no temporal loss at all", {"objective.temporal_weight": 0.0}),
    Variant("length-2", "sequences of 2 studies (paper)", {"data.sequence_length": 2, "data.temporal_from": 2}),
    Variant("length-3", "sequences of 3 studies (paper)", {"data.sequence_length": 3, "data.temporal_from": 2}),
    Variant("length-4", "sequences of 4 studies (paper)", {"data.sequence_length": 4, "data.temporal_from": 2}),
    Variant("full-sequences", "temporal loss on sequences of exactly 4, as released", {"data.temporal_from": 4}),
    Variant("mixed-laterals", "laterals go to the wrong study, as released", {"data.laterals": "mixed"}),
    Variant("no-word-order", "text encoder without positions, as released", {"model.text.positions": False}),
    Variant("released-regression", "the unbounded regression, as released", {"objective.regression": "released"}),
    Variant(
        "phantom-tokens",
        "absent laterals and padding words in the local loss, as released",
        {"model.phantom_tokens": True, "objective.masked": False},
    ),
    Variant("random-experts", "lateral experts start at random, as released", {"model.vision.lateral_start": "random"}),
    Variant("no-temporal-warmup", "full temporal weight from the first step", {"objective.temporal_warmup": 0.0}),
    Variant("days", "real days as the time axis of the regression", {"objective.time_axis": "days"}),
)

MEASURES: dict[str, tuple[str, str, str, int | None]] = {
    "temporal-image, macro accuracy": ("temporal-image", "macro accuracy", "average", 5),
    "temporal-image, swap consistency": ("temporal-image", "swap consistency", "average", 5),
    "temporal-text, AUROC": ("temporal-text", "auroc", "all", None),
    "retrieval, own report R@1": ("retrieval", "image to report R@1", "within a patient", None),
    "retrieval, R@10": ("retrieval", "image to report R@10", "all", None),
}


def ablate(
    cohort: Path,
    out: Path,
    *,
    comparisons: Path | None = None,
    recipe: Recipe | str = "tiny",
    seeds: int = 3,
    only: Sequence[str] = (),
    epochs: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> str:
    """Train and measure all variants; what is finished is not done again.

    Args:
        cohort: one with pairs; retrieval is measured on its test split.
        out: folder of the job: runs/VARIANT-SEED, ablation.json and ablation.md.
        comparisons: an ms-cxr-t cohort for the temporal tasks; None leaves them out.
        recipe: the reference, or the name of one of `RECIPES`.
        seeds: runs of each variant and of the reference.
        only: names of variants; all that differ from the reference if empty.
        epochs: instead of those of the recipe.
        jobs: runs at a time, each with its share of the cores.
        progress: called with (runs done, runs in all, what is done).

    Returns:
        The table, in Markdown.

    Raises:
        MedstError: an unknown variant, impossible numbers, another job in `out`, or a run that failed or was interrupted.
    """
    if seeds < 1 or jobs < 1:
        raise MedstError(f"seeds is {seeds} and jobs is {jobs}; give 1 or more.")
    base = RECIPES[recipe] if isinstance(recipe, str) else recipe
    if epochs is not None:
        base = replace(base, optimiser=replace(base.optimiser, epochs=epochs))
    variants = choose(base, only)
    open_cohort(cohort)
    if comparisons is not None:
        from medst.evaluate.temporal_image import checked_comparisons

        checked_comparisons(open_cohort(comparisons), "strict")
    _claim(out, {"recipe": base.name, "epochs": base.optimiser.epochs, "protocol": "strict"})
    tasks = [
        _Run(
            out / "runs" / f"{variant.name}-{seed}",
            replace(made, run=replace(made.run, seed=seed)),
            cohort,
            comparisons,
        )
        for seed in range(seeds)
        for variant in (Variant(REFERENCE, "", {}), *variants)
        for made in [variant.of(base)]
    ]
    for task in tasks:
        task.recipe.check()
    _all(tasks, jobs, progress or (lambda done, total, note: None))
    values = {
        (variant, seed): read_values(out / "runs" / f"{variant}-{seed}" / "results.json")
        for variant in (REFERENCE, *(v.name for v in variants))
        for seed in range(seeds)
    }
    rows = differences(variants, values, seeds)
    (out / "ablation.json").write_text(json.dumps({"recipe": base.name, "seeds": seeds, "rows": rows}, indent=1) + "\n")
    table = as_table(rows, seeds)
    (out / "ablation.md").write_text(table + "\n")
    return table


def choose(base: Recipe, only: Sequence[str]) -> list[Variant]:
    """The variants of these names, or all; those that change nothing about `base` are left out."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise MedstError(f"There is no variant {', '.join(unknown)}; the variants are {', '.join(known)}.")
    wanted = [known[name] for name in only] or list(VARIANTS)
    return [variant for variant in wanted if variant.of(base) != base]


def differences(
    variants: Sequence[Variant], values: dict[tuple[str, int], dict[str, float]], seeds: int
) -> list[dict[str, Any]]:
    """For each variant and measure, its mean, the mean of (variant - reference) of the same seed, and its 95 % interval.

    The interval is that of Student's t with seeds - 1 degrees of freedom; None with one seed.
    """
    rows = []
    for name, what in [(REFERENCE, "the recipe as it is"), *((v.name, v.what) for v in variants)]:
        for measure in values[REFERENCE, 0]:
            own = np.array([values[name, seed][measure] for seed in range(seeds)])
            apart = own - np.array([values[REFERENCE, seed][measure] for seed in range(seeds)])
            row: dict[str, Any] = {"variant": name, "what": what, "measure": measure, "mean": float(own.mean())}
            row |= {"difference": float(apart.mean()), "low": None, "high": None, "values": own.tolist()}
            if seeds > 1 and name != REFERENCE:
                reach = stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * apart.std(ddof=1) / np.sqrt(seeds)
                row |= {"low": float(apart.mean() - reach), "high": float(apart.mean() + reach)}
            rows.append(row)
    return rows


def as_table(rows: Sequence[dict[str, Any]], seeds: int) -> str:
    """Markdown: a line a variant, a column a measure; a difference whose interval leaves out 0 is set bold."""
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    lines = ["| variant | what it does | " + " | ".join(measures) + " |", "| --- | --- |" + " --- |" * len(measures)]
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {row["measure"]: row for row in rows if row["variant"] == name}
        cells = [_cell(own[measure]) for measure in measures]
        lines.append(f"| {name} | {next(iter(own.values()))['what']} | " + " | ".join(cells) + " |")
    note = f"Mean of {seeds} seeds; variants as the difference from the reference of the same seed, in points"
    return "\n".join([*lines, "", f"{note}, with its 95 % interval over the seeds; bold where that leaves out 0."])


def _cell(row: dict[str, Any]) -> str:
    if row["variant"] == REFERENCE:
        return f"{100 * row['mean']:.1f}"
    said = f"{100 * row['difference']:+.1f}"
    if row["low"] is None:
        return said
    said += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"**{said}**" if row["low"] > 0 or row["high"] < 0 else said


def read_values(file: Path) -> dict[str, float]:
    """The measures that a results.json holds."""
    rows = {
        (row["task"], row["metric"], row["finding"], row["folds"]): row["value"]
        for row in read_results(file)["results"]
        if row["model"] == "trained"
    }
    return {name: rows[key] for name, key in MEASURES.items() if key in rows}


@dataclass(frozen=True)
class _Run:
    folder: Path
    recipe: Recipe
    cohort: Path
    comparisons: Path | None

    def done(self) -> bool:
        return (self.folder / "results.json").is_file()


def _all(tasks: Sequence[_Run], jobs: int, progress: Progress) -> None:
    left = [task for task in tasks if not task.done()]
    done = len(tasks) - len(left)
    progress(done, len(tasks), "")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_carry_out, task, threads): task for task in left}
        try:
            for future in as_completed(running):
                if not future.result():
                    raise KeyboardInterrupt
                done += 1
                progress(done, len(tasks), running[future].folder.name)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _carry_out(task: _Run, threads: int) -> bool:
    """In a process of its own: train, which goes on where it was, and measure. False where it was interrupted."""
    import torch

    from medst.evaluate.run import evaluate
    from medst.evaluate.task import Question
    from medst.pretrain import pretrain

    torch.set_num_threads(threads)
    trained = pretrain(task.cohort, task.folder, task.recipe)
    if trained.get("interrupted") or not trained["finished"]:
        return False
    strict = Question(protocol="strict", bootstrap=False)  # the interval is over seeds, not over patients
    last, parts = task.folder / "last", task.folder / "retrieval.json"
    found = evaluate(last, task.cohort, parts, tasks=("retrieval",), baseline_seeds=(), question=strict)
    if task.comparisons is not None:
        tasks = ("temporal-image", "temporal-text")
        evaluate(last, task.comparisons, parts, tasks=tasks, baseline_seeds=(), keep=True, question=strict)
    assert found["results"]
    os.replace(parts, task.folder / "results.json")
    return True


def _claim(out: Path, job: dict[str, Any]) -> None:
    """Refuse a folder that holds another job."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "job.json"
    if file.is_file():
        if json.loads(file.read_text()) != job:
            raise MedstError(
                f"{out} holds a job with other settings ({file.read_text().strip()}); give another folder."
            )
        return
    file.write_text(json.dumps(job) + "\n")


def _replaced(settings: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return replace(settings, **{head: _replaced(getattr(settings, head), rest, value) if rest else value})
