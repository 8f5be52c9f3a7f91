"""Ablation: how much each part of a recipe is worth. Trains variants with several seeds, as one job that can be stopped.

Before anything is trained, settings.json and results.json of each run are compared with what is asked for, so that no old
run is reported as a new one.

A variant is compared with the reference of the same seed, which has the same initial weights and order of patients, so that
what both share cancels. The interval of the mean difference is Student's over the seeds: it says how much other seeds would
differ, not how much other patients would.
"""

from collections.abc import Callable, Container, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medst import NUMERICS
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.files import claim, write_json, write_text
from medst.jobs import cores, run_until_done
from medst.pretrain.checkpoint import RunFolder
from medst.progress import Progress
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe, changed_settings
from medst.recipes.variants import Variant, choose_variants

REFERENCE = "reference"
CONFIDENCE = 0.95
SETTINGS_WITHOUT_EFFECT = frozenset(
    ("name", "run.loader_workers", "run.save_every", "run.save_minutes", "run.keep_states", "run.logger")
)
"""Settings that change no number of a run, and so may change when a job is resumed."""


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
    say: Callable[[str], None] = lambda note: None,
) -> str:
    """Train and measure all variants. Finished runs are not repeated.

    A run that fails is recorded, and the others continue; the same command tries it again.

    Args:
        cohort: one with pairs; retrieval is measured on its test split.
        out: folder of the job: runs/VARIANT-SEED, ablation.json and ablation.md.
        comparisons: an ms-cxr-t cohort for the temporal tasks; None leaves them out.
        recipe: the reference, or the name of one of `RECIPES`.
        seeds: runs per variant and of the reference.
        only: names of variants; if empty, all that differ from the reference.
        epochs: overrides the recipe's.
        jobs: runs at a time, each with its share of the cores.
        progress: called with (runs done, runs in all, the last run).
        say: called before the first run with a sentence on each task that can't be measured.

    Returns:
        The table, in Markdown.

    Raises:
        MedstError: an unknown variant, impossible numbers, nothing to measure on `comparisons`, `out` holds runs of other
            settings, cohorts or another numerics version, a run's process was killed, or no run could be measured.
    """
    if seeds < 1 or jobs < 1:
        raise MedstError(f"seeds is {seeds} and jobs is {jobs}; give 1 or more.")
    base = RECIPES[recipe] if isinstance(recipe, str) else recipe
    if epochs is not None:
        base = replace(base, optimiser=replace(base.optimiser, epochs=epochs))
    if base.optimiser.stop_after:
        raise MedstError("--optimiser.stop-after is set, but variants are compared after whole runs; leave it at 0.")
    variants = choose_variants(base, only)
    measured, notes = [_MeasuredCohort.open(cohort, ["retrieval"])], list[str]()
    if comparisons is not None:
        tasks, notes = _temporal_tasks(comparisons)
        measured.append(_MeasuredCohort.open(comparisons, tasks))
    for note in notes:
        say(note)
    runs = []
    for seed, variant in product(range(seeds), (Variant(REFERENCE, "", {}), *variants)):
        made = Variant("", "", {**variant.changes, "run.seed": seed}).apply(base)
        made.check()
        runs.append(_Run(variant.name, seed, out / "runs" / f"{variant.name}-{seed}", made, measured))
    with claim(out):
        failed = _run_all(runs, jobs, progress or (lambda done, total, note: None))
        values = {(run.variant, run.seed): read_values(run.results, run.tasks) for run in runs if run not in failed}
        if not values:
            raise MedstError(f"No run could be measured; the first failed because: {next(iter(failed.values()))}")
        rows = differences(variants, values, seeds)
        missing = [{"variant": run.variant, "seed": run.seed, "reason": reason} for run, reason in failed.items()]
        about = {"recipe": base.name, "numerics": NUMERICS, "cohorts": {m.dataset: m.fingerprint for m in measured}}
        write_json(out / "ablation.json", about | {"seeds": seeds, "rows": rows, "failed": missing})
        table = as_table(rows, seeds)
        table += "".join(f"\n\n{note}" for note in notes)
        table += "".join(f"\n\nMissing: {m['variant']} with seed {m['seed']}, because: {m['reason']}" for m in missing)
        write_text(out / "ablation.md", table + "\n")
    return table


def _temporal_tasks(comparisons: Path) -> tuple[list[str], list[str]]:
    """Tasks that can be measured on comparisons, and a sentence about each that can't; raises MedstError if none can."""
    from medst.evaluate import temporal_image, temporal_text

    cohort, tasks, notes = open_cohort(comparisons), ["temporal-image", "temporal-text"], list[str]()
    sentences, fewest = cohort.sentences, temporal_text.FOLDS
    counts = [0 if sentences is None else sentences.filter(category=c).height for c in temporal_text.CATEGORIES]
    if min(counts) < fewest:
        tasks.remove("temporal-text")
        notes.append(f"Not measured: temporal-text, because a category has fewer than {fewest} pairs of sentences.")
    try:
        temporal_image.checked_comparisons(cohort, "strict")
    except MedstError:
        if cohort.comparisons is None or "temporal-text" not in tasks:
            raise
        tasks.remove("temporal-image")
        folds = min(temporal_image.FOLDS["strict"])
        notes.append(f"Not measured: temporal-image, because no finding has {folds} patients of each progression.")
    return tasks, notes


def differences(
    variants: Sequence[Variant], values: dict[tuple[str, int], dict[str, float]], seeds: int
) -> list[dict[str, Any]]:
    """Compute for each variant and measure the mean, the mean difference from the reference, and its 95 % interval.

    Differences are between runs of the same seed. `pairs` counts the seeds for which both were measured; without any, the
    difference is None. The interval is that of Student's t with pairs - 1 degrees of freedom; None with one pair.
    """
    rows = []
    measures = list(dict.fromkeys(measure for one in values.values() for measure in one))
    for name, what in [(REFERENCE, "the recipe as it is"), *((v.name, v.what) for v in variants)]:
        for measure in measures:
            own = [values.get((name, seed), {}).get(measure) for seed in range(seeds)]
            reference = [values.get((REFERENCE, seed), {}).get(measure) for seed in range(seeds)]
            known = [value for value in own if value is not None]
            paired = np.array([a - b for a, b in zip(own, reference, strict=True) if a is not None and b is not None])
            row: dict[str, Any] = {"variant": name, "what": what, "measure": measure, "pairs": len(paired)}
            row |= {"mean": float(np.mean(known)) if known else None, "difference": None, "low": None, "high": None}
            row["values"] = own
            if len(paired):
                row["difference"] = float(paired.mean())
            if len(paired) > 1 and name != REFERENCE:
                quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(paired) - 1)
                half_width = quantile * paired.std(ddof=1) / np.sqrt(len(paired))
                row |= {"low": float(paired.mean() - half_width), "high": float(paired.mean() + half_width)}
            rows.append(row)
    return rows


def as_table(rows: Sequence[dict[str, Any]], seeds: int) -> str:
    """Format a Markdown table: a row per variant, a column per measure; differences whose interval excludes 0 are bold."""
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    lines = ["| variant | what it does | " + " | ".join(measures) + " |", "| --- | --- |" + " --- |" * len(measures)]
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {row["measure"]: row for row in rows if row["variant"] == name}
        cells = [_cell(own[measure], seeds) for measure in measures]
        lines.append(f"| {name} | {next(iter(own.values()))['what']} | " + " | ".join(cells) + " |")
    before, after = f"Mean of {seeds} seeds", ", with its 95 % interval over the seeds; bold if that excludes 0."
    if seeds == 1:
        before, after = "One seed, so without intervals", "."
    note = f"{before}; variants as the difference from the reference of the same seed, in points{after}"
    return "\n".join([*lines, "", note])


def _cell(row: dict[str, Any], seeds: int) -> str:
    value = row["mean"] if row["variant"] == REFERENCE else row["difference"]
    if value is None:
        return "missing"
    text = f"{100 * value:.1f}" if row["variant"] == REFERENCE else f"{100 * value:+.1f}"
    if row["low"] is not None:
        text += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        text = f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text
    return text if row["pairs"] == seeds else f"{text}, {row['pairs']} of {seeds} seeds"


def read_values(file: Path, tasks: Container[str]) -> dict[str, float]:
    """Read the measures of `tasks` from a results.json."""
    rows = {
        (row["task"], row["metric"], row["finding"], row["folds"]): row["value"]
        for row in read_results(file)["results"]
        if row["model"] == "trained" and row["task"] in tasks
    }
    return {name: rows[key] for name, key in MEASURES.items() if key in rows}


@dataclass(frozen=True)
class _MeasuredCohort:
    """A cohort that every run is measured on, and the tasks."""

    path: Path
    dataset: str
    fingerprint: str
    tasks: list[str]

    @classmethod
    def open(cls, path: Path, tasks: list[str]) -> "_MeasuredCohort":
        cohort = open_cohort(path)
        return cls(path, cohort.dataset, cohort.fingerprint, tasks)


@dataclass(frozen=True, eq=False)
class _Run:
    """A run of the job; the first cohort of `measured` is also the one that it is trained on."""

    variant: str
    seed: int
    folder: Path
    recipe: Recipe
    measured: list[_MeasuredCohort]

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def tasks(self) -> list[str]:
        return [task for one in self.measured for task in one.tasks]

    def is_done(self) -> bool:
        """Whether all is measured.

        Raises:
            MedstError: the folder holds a run with other settings, on another cohort, or of another numerics version.
        """
        folder, other, found = RunFolder(self.folder), list[str](), None
        if folder.settings.exists():
            old = folder.read_settings(f"remove {self.folder}, and the same command trains that run again")
            changed = changed_settings(old["recipe"], self.recipe, SETTINGS_WITHOUT_EFFECT)
            if changed:
                other.append(f"a run with other settings ({', '.join(changed)})")
            if old["cohort"]["fingerprint"] != self.measured[0].fingerprint:
                other.append("a run on another cohort")
            if folder.numerics != NUMERICS:
                other.append(f"a run of numerics version {folder.numerics}, the current version is {NUMERICS}")
        if self.results.exists():
            try:
                found = read_results(self.results)
            except MedstError:  # can be measured again, since the model is there
                self.results.unlink()
        if found is not None:
            if found["protocol"] != "strict":
                other.append("results of another protocol")
            if found["numerics"] != NUMERICS:
                other.append(f"results of numerics version {found['numerics']}")
            for one in self.measured:
                if found["cohorts"].get(one.dataset, one.fingerprint) != one.fingerprint:
                    other.append(f"results on another {one.dataset} cohort")
        if other:
            raise MedstError(f"{self.folder} holds {other[0]}; give another folder.")
        tasks = [f"{task}/{one.dataset}" for one in self.measured for task in one.tasks]
        return found is not None and all(task in found["details"] for task in tasks)


def _run_all(runs: Sequence[_Run], jobs: int, progress: Progress) -> dict[_Run, str]:
    """Carry out the runs that are not done; returns those that failed, with the reason."""
    left = [run for run in runs if not run.is_done()]
    done, failed = len(runs) - len(left), dict[_Run, str]()
    progress(done, len(runs), "")
    carry_out = partial(_carry_out, threads=max(1, cores() // jobs))
    with closing(run_until_done(carry_out, left, jobs)) as results:
        for run, reason in results:
            if reason is None:
                raise KeyboardInterrupt
            if reason:
                failed[run] = reason
            done += 1
            progress(done, len(runs), f"{run.folder.name}{' failed' if reason else ''}")
    return failed


def _carry_out(run: _Run, threads: int) -> str | None:
    """Train, or resume training, and measure. Returns the reason if that fails, else ""; None if interrupted."""
    import torch

    from medst.evaluate.runner import evaluate
    from medst.evaluate.task import Question
    from medst.pretrain import pretrain

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        trained = pretrain(run.measured[0].path, run.folder, run.recipe)
        if trained.get("interrupted") or not trained["finished"]:
            return None
        strict = Question(bootstrap=False)  # the interval is over seeds, not over patients
        # Leaked patients do not matter here, because all runs have seen the same ones.
        measure = partial(evaluate, baselines=False, keep=True, question=strict, leaks="ignore")
        for one in run.measured:
            measure(run.folder / "last", one.path, run.results, tasks=one.tasks)
    except (MedstError, RuntimeError, MemoryError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""
