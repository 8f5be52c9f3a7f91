"""What is each part of the recipe worth? Its variants, each trained with several seeds, as one job that can be stopped.

Each run's own settings.json and results.json say what it is of: recipe, cohorts, protocol and numerics version. They are
held against what is asked before anything is trained, so that no old run is reported as a new one.

A variant is held against the reference of the same seed, which has the same start and the same order of
patients, so that what the two share cancels; the interval of the mean difference is Student's over the seeds. It says how
far other seeds would differ, not how far other patients would.
"""

from collections.abc import Callable, Container, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
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

REFERENCE = "reference"
CONFIDENCE = 0.95
UNMEASURABLE = frozenset(
    ("name", "run.loader_workers", "run.save_every", "run.save_minutes", "run.keep_states", "run.logger")
)
"""Settings that change no number of a run, so that the same job may be given others."""


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
    say: Callable[[str], None] = lambda note: None,
) -> str:
    """Train and measure all variants; what is finished is not done again.

    A run that fails is recorded, and the others continue; the same command tries it again.

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
        say: called before the first run with what can't be measured, a sentence.

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
    variants = choose(base, only)
    measured, notes = [_Measured.of(cohort, ("retrieval",))], list[str]()
    if comparisons is not None:
        tasks, notes = _temporal_tasks(comparisons)
        measured.append(_Measured.of(comparisons, tasks))
    for note in notes:
        say(note)
    runs = [
        _Run(
            variant.name,
            seed,
            out / "runs" / f"{variant.name}-{seed}",
            replace(made, run=replace(made.run, seed=seed)),
            measured,
        )
        for seed in range(seeds)
        for variant in (Variant(REFERENCE, "", {}), *variants)
        for made in [variant.of(base)]
    ]
    for run in runs:
        run.recipe.check()
    with claim(out):
        failed = _run_all(runs, jobs, progress or (lambda done, total, note: None))
        values = {(run.variant, run.seed): read_values(run.results, run.wanted) for run in runs if run not in failed}
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


def _temporal_tasks(comparisons: Path) -> tuple[tuple[str, ...], list[str]]:
    """What can be measured on comparisons, and a sentence about what can't; raises where nothing can."""
    from medst.evaluate import temporal_image, temporal_text

    cohort, tasks, notes = open_cohort(comparisons), ["temporal-image", "temporal-text"], list[str]()
    sentences, fewest = cohort.sentences, temporal_text.FOLDS
    kinds = temporal_text.CATEGORIES
    if sentences is None or min(sentences.filter(category=kind).height for kind in kinds) < fewest:
        tasks.remove("temporal-text")
        notes.append(
            f"Not measured: temporal-text, because there are not {fewest} pairs of sentences of each category."
        )
    try:
        temporal_image.checked_comparisons(cohort, "strict")
    except MedstError:
        if cohort.comparisons is None or "temporal-text" not in tasks:
            raise
        tasks.remove("temporal-image")
        folds = min(temporal_image.FOLDS["strict"])
        notes.append(f"Not measured: temporal-image, because no finding has {folds} patients of each progression.")
    return tuple(tasks), notes


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

    `pairs` counts the seeds for which both were measured; without any, the difference is None. The interval is that of
    Student's t with pairs - 1 degrees of freedom; None with one pair.
    """
    rows = []
    measures = list(dict.fromkeys(measure for one in values.values() for measure in one))
    for name, what in [(REFERENCE, "the recipe as it is"), *((v.name, v.what) for v in variants)]:
        for measure in measures:
            own = [values.get((name, seed), {}).get(measure) for seed in range(seeds)]
            reference = [values.get((REFERENCE, seed), {}).get(measure) for seed in range(seeds)]
            known = [value for value in own if value is not None]
            apart = np.array([a - b for a, b in zip(own, reference, strict=True) if a is not None and b is not None])
            row: dict[str, Any] = {"variant": name, "what": what, "measure": measure, "pairs": len(apart)}
            row |= {"mean": float(np.mean(known)) if known else None, "difference": None, "low": None, "high": None}
            row["values"] = own
            if len(apart):
                row["difference"] = float(apart.mean())
            if len(apart) > 1 and name != REFERENCE:
                reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
                row |= {"low": float(apart.mean() - reach), "high": float(apart.mean() + reach)}
            rows.append(row)
    return rows


def as_table(rows: Sequence[dict[str, Any]], seeds: int) -> str:
    """Markdown: one line per variant, one column per measure; a difference whose interval leaves out 0 is set bold."""
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    lines = ["| variant | what it does | " + " | ".join(measures) + " |", "| --- | --- |" + " --- |" * len(measures)]
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {row["measure"]: row for row in rows if row["variant"] == name}
        cells = [_cell(own[measure], seeds) for measure in measures]
        lines.append(f"| {name} | {next(iter(own.values()))['what']} | " + " | ".join(cells) + " |")
    note = "variants as the difference from the reference of the same seed, in points"
    if seeds == 1:
        note = f"One seed, so without intervals; {note}."
    else:
        note = f"Mean of {seeds} seeds; {note}, with its 95 % interval over the seeds; bold where that leaves out 0."
    return "\n".join([*lines, "", note])


def _cell(row: dict[str, Any], seeds: int) -> str:
    value = row["mean"] if row["variant"] == REFERENCE else row["difference"]
    if value is None:
        return "missing"
    said = f"{100 * value:.1f}" if row["variant"] == REFERENCE else f"{100 * value:+.1f}"
    if row["low"] is not None:
        said += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        said = f"**{said}**" if row["low"] > 0 or row["high"] < 0 else said
    return said if row["pairs"] == seeds else f"{said}, {row['pairs']} of {seeds} seeds"


def read_values(file: Path, tasks: Container[str]) -> dict[str, float]:
    """The measures of `tasks` that a results.json holds."""
    rows = {
        (row["task"], row["metric"], row["finding"], row["folds"]): row["value"]
        for row in read_results(file)["results"]
        if row["model"] == "trained" and row["task"] in tasks
    }
    return {name: rows[key] for name, key in MEASURES.items() if key in rows}


@dataclass(frozen=True)
class _Measured:
    """A cohort that every run is measured on, and the tasks."""

    path: Path
    dataset: str
    fingerprint: str
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, tasks: tuple[str, ...]) -> "_Measured":
        cohort = open_cohort(path)
        return cls(path, str(cohort.meta["dataset"]), cohort.fingerprint, tasks)


@dataclass(frozen=True, eq=False)
class _Run:
    """A run of the job; `measured` begins with the cohort that it is trained on."""

    variant: str
    seed: int
    folder: Path
    recipe: Recipe
    measured: list[_Measured]

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def wanted(self) -> list[str]:
        return [task for one in self.measured for task in one.tasks]

    def done(self) -> bool:
        """Whether all is measured.

        Raises:
            MedstError: the folder holds a run of other settings, on another cohort, or of another numerics version.
        """
        other, found = self._other_run(), None
        if self.results.exists():
            try:
                found = read_results(self.results)
            except MedstError:  # the model is there, so what is damaged can be measured again
                self.results.unlink()
        if found is not None:
            other += ["results of another protocol"] * (found["protocol"] != "strict")
            other += [f"results of numerics version {found['numerics']}"] * (found["numerics"] != NUMERICS)
            other += [
                f"results on another {one.dataset} cohort"
                for one in self.measured
                if found["cohorts"].get(one.dataset, one.fingerprint) != one.fingerprint
            ]
        if other:
            raise MedstError(f"{self.folder} holds {other[0]}; give another folder.")
        tasks = [f"{task}/{one.dataset}" for one in self.measured for task in one.tasks]
        return found is not None and all(task in found["details"] for task in tasks)

    def _other_run(self) -> list[str]:
        folder = RunFolder(self.folder)
        if not folder.settings.exists():
            return []
        old = folder.read_settings(f"remove {self.folder}, and the same command trains that run anew")
        changed = changed_settings(old["recipe"], self.recipe, UNMEASURABLE)
        numerics = old.get("numerics", 1)  # the first version, where none is recorded
        other = [f"a run with other settings ({', '.join(changed)})"] * bool(changed)
        other += ["a run on another cohort"] * (old["cohort"]["fingerprint"] != self.measured[0].fingerprint)
        return other + [f"a run of numerics version {numerics}, this is {NUMERICS}"] * (numerics != NUMERICS)


def _run_all(runs: Sequence[_Run], jobs: int, progress: Progress) -> dict[_Run, str]:
    """Carry out the runs that are not done; returns those that failed, with the reason."""
    left = [run for run in runs if not run.done()]
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
    """In a process of its own: train, which resumes, and measure. Why that failed, or nothing; None if interrupted."""
    import torch

    from medst.evaluate.runner import evaluate
    from medst.evaluate.task import Question
    from medst.pretrain import pretrain

    torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        trained = pretrain(run.measured[0].path, run.folder, run.recipe)
        if trained.get("interrupted") or not trained["finished"]:
            return None
        strict = Question(protocol="strict", bootstrap=False)  # the interval is over seeds, not over patients
        # All runs have seen the same patients, so no row without them is needed.
        measure = partial(evaluate, baseline_seeds=(), keep=True, question=strict, leaks="ignore")
        for one in run.measured:
            measure(run.folder / "last", one.path, run.results, tasks=one.tasks)
    except (MedstError, RuntimeError, MemoryError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _replaced(settings: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return replace(settings, **{head: _replaced(getattr(settings, head), rest, value) if rest else value})
