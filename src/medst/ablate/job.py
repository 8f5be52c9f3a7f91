"""The job: trains and measures the reference and every variant with every seed; it can be stopped and resumed.

Before anything is trained, settings.json and results.json of each run are compared with what is asked for, so that no old
run is reported as a new one. The reference is trained first, and the design is stated before any variant is.

A variant is compared with the reference of the same seed, which has the same initial weights, cohort and order of patients,
so that what they share cancels.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from medst import NUMERICS
from medst.ablate import table
from medst.ablate.design import REFERENCE, Design, Spread, settle, spread_of_pilot, spread_of_reference
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.evaluate.results import read_results
from medst.files import claim, write_json, write_text
from medst.jobs import cores, run_until_done
from medst.pretrain.checkpoint import RunFolder
from medst.progress import Progress
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe, changed_settings
from medst.recipes.variants import MEASURES, Variant, choose_variants

SETTINGS_WITHOUT_EFFECT = frozenset(
    ("name", "run.loader_workers", "run.save_every", "run.save_minutes", "run.keep_states", "run.logger")
)
"""Settings that change no number of a run, and so may change when a job is resumed."""
TEMPORAL = ("temporal-image", "temporal-text")


def ablate(
    cohorts: Sequence[Path],
    out: Path,
    *,
    comparisons: Sequence[Path] = (),
    recipe: Recipe | str = "tiny",
    seeds: int = 5,
    only: Sequence[str] = (),
    pilot: Path | None = None,
    epochs: int | None = None,
    jobs: int = 1,
    progress: Progress = lambda done, total, note: None,
    say: Callable[[str], None] = lambda note: None,
) -> str:
    """Train and measure all variants, and test their main measures. Finished runs are not repeated.

    A run that fails is recorded, and the others continue; the same command tries it again.

    Args:
        cohorts: with pairs; seed k trains on the one at k modulo their number, and retrieval is measured on its test split.
        out: folder of the job: runs/VARIANT-SEED, design.json, ablation.json and ablation.md.
        comparisons: an ms-cxr-t cohort for each of `cohorts`, for the temporal tasks; empty leaves them out.
        recipe: the reference, or the name of one of `RECIPES`.
        seeds: runs per variant and of the reference.
        only: names of variants; if empty, those asked by default that differ from the reference.
        pilot: an earlier ablation.json that tells how much differences vary; None: the reference's own seeds do.
        epochs: overrides the recipe's.
        jobs: runs at a time, each with its share of the cores.
        progress: called with (runs done, runs in all, the last run).
        say: called with a sentence on each task and variant that can't be measured, and with the design.

    Returns:
        The design and the tables, in Markdown.

    Raises:
        MedstError: an unknown variant, impossible numbers, cohorts without pairs or that don't fit together, nothing to
            measure on `comparisons`, an unreadable pilot, `out` holds an ablation of an earlier version or runs of other
            settings, cohorts or another numerics version, a run's process was killed, or no run could be measured.
    """
    if seeds < 1 or jobs < 1:
        raise MedstError(f"seeds is {seeds} and jobs is {jobs}; give 1 or more.")
    base = RECIPES[recipe] if isinstance(recipe, str) else recipe
    if epochs is not None:
        base = replace(base, optimiser=replace(base.optimiser, epochs=epochs))
    if base.optimiser.stop_after:
        raise MedstError("--optimiser.stop-after is set, but variants are compared after whole runs; leave it at 0.")
    chosen = choose_variants(base, only)
    measured, notes = _open_cohorts(cohorts, comparisons, seeds)
    variants, left_out = _measurable(chosen, measured[0], named=bool(only))
    notes += left_out
    for note in notes:
        say(note)
    runs = []
    for seed, variant in product(range(seeds), (Variant(REFERENCE, "", "", {}), *variants)):
        made = replace(variant, changes={**variant.changes, "run.seed": seed}).apply(base)
        made.check()
        folder = out / "runs" / f"{variant.name}-{seed}"
        runs.append(_Run(variant.name, seed, folder, made, measured[seed % len(measured)]))
    spreads = None if pilot is None else spread_of_pilot(pilot)
    source = "the reference's own seeds" if pilot is None else str(pilot.resolve())
    questions, prints = {v.name: v.main for v in variants}, [one[0].fingerprint for one in measured]
    with claim(out):
        _refuse_undesigned(out)
        left = [run for run in runs if not run.is_done()]
        failed = dict[_Run, str]()
        if spreads is None:
            first = [run for run in left if run.variant == REFERENCE]
            failed = _run_all(first, len(runs) - len(left), len(runs), jobs, progress)
            left = [run for run in left if run.variant != REFERENCE]
            spreads = _own_spreads([run for run in runs if run.variant == REFERENCE and run not in failed])
        design = settle(out / "design.json", Design(questions, seeds, prints, source, spreads, []))
        say(design.statement())
        failed |= _run_all(left, len(runs) - len(left), len(runs), jobs, progress)
        return _write_tables(out, runs, failed, variants, design, notes, base.name)


def _open_cohorts(
    cohorts: Sequence[Path], comparisons: Sequence[Path], seeds: int
) -> tuple[list[list["_MeasuredCohort"]], list[str]]:
    """What each cohort's seeds are measured on, first what they are trained on; and a sentence on each task left out."""
    if comparisons and len(comparisons) != len(cohorts):
        raise MedstError(
            f"There are {len(cohorts)} cohorts and {len(comparisons)} --comparisons; give one for each cohort, in the "
            "same order."
        )
    if len(cohorts) > seeds:
        raise MedstError(f"There are {len(cohorts)} cohorts for {seeds} seeds; give --seeds {len(cohorts)} or more.")
    for path in cohorts:
        open_cohort(path).require("pairs", "train on cohorts with pairs, and give ms-cxr-t ones as --comparisons")
    measured = [[_MeasuredCohort.open(path, ["retrieval"])] for path in cohorts]
    known = dict[str, Path]()
    for (one,) in measured:
        if one.fingerprint in known:
            raise MedstError(f"{known[one.fingerprint]} and {one.path} are the same cohort; give each once.")
        known[one.fingerprint] = one.path
    found = [_temporal_tasks(path) for path in comparisons]
    shared = [task for task in TEMPORAL if all(task in tasks for tasks, _ in found)]
    for own, path in zip(measured, comparisons, strict=False):
        own.append(_MeasuredCohort.open(path, shared))
    return measured, list(dict.fromkeys(note for _, notes in found for note in notes))


def _measurable(
    chosen: Sequence[Variant], measured: Sequence["_MeasuredCohort"], named: bool
) -> tuple[list[Variant], list[str]]:
    """The variants whose main measure can be measured, and a sentence on the others; refuses those that were `named`."""
    tasks = [task for one in measured for task in one.tasks]
    without = [variant for variant in chosen if MEASURES[variant.main][0] not in tasks]
    kept = [variant for variant in chosen if variant not in without]
    if not without:
        return kept, []
    names = ", ".join(f"{variant.name} ({variant.main})" for variant in without)
    remedy = "give --comparisons" if len(measured) == 1 else "give --comparisons with more rows"
    if named or not kept:
        raise MedstError(f"What the variants are judged by can't be measured here: {names}; {remedy}.")
    return kept, [f"Not asked, because what they are judged by can't be measured here: {names}; {remedy}."]


def _refuse_undesigned(out: Path) -> None:
    runs = out / "runs"
    variants = [run for run in runs.iterdir() if not run.name.startswith(REFERENCE)] if runs.is_dir() else []
    if variants and not (out / "design.json").exists():
        raise MedstError(
            f"{out} holds an ablation of an earlier version, whose questions were not stated beforehand; give another "
            f"folder, and --pilot {out / 'ablation.json'} to plan with its spread."
        )


def _own_spreads(references: Sequence["_Run"]) -> dict[str, Spread]:
    values = [table.read_values(run.results, run.tasks) for run in references]
    found = {name: spread_of_reference([one[name] for one in values if name in one]) for name in MEASURES}
    return {name: spread for name, spread in found.items() if spread is not None}


def _write_tables(
    out: Path,
    runs: Sequence["_Run"],
    failed: dict["_Run", str],
    variants: Sequence[Variant],
    design: Design,
    notes: Sequence[str],
    recipe: str,
) -> str:
    values = {(run.variant, run.seed): table.read_values(run.results, run.tasks) for run in runs if run not in failed}
    if not values:
        raise MedstError(f"No run could be measured; the first failed because: {next(iter(failed.values()))}")
    rows = table.differences(variants, values, design)
    missing = [{"variant": run.variant, "seed": run.seed, "reason": reason} for run, reason in failed.items()]
    cohorts = [{one.dataset: one.fingerprint for one in run.measured} for run in runs if run.variant == REFERENCE]
    about = {"recipe": recipe, "numerics": NUMERICS, "cohorts": cohorts[: len(design.cohorts)], "seeds": design.seeds}
    write_json(out / "ablation.json", about | {"rows": rows, "failed": missing})
    text = "\n\n".join(
        [
            design.statement(),
            table.as_tables(rows, design),
            *notes,
            *(f"Missing: {m['variant']} with seed {m['seed']}, because: {m['reason']}" for m in missing),
        ]
    )
    write_text(out / "ablation.md", text + "\n")
    return text


def _temporal_tasks(comparisons: Path) -> tuple[list[str], list[str]]:
    """Tasks that can be measured on comparisons, and a sentence about each that can't; raises MedstError if none can."""
    from medst.evaluate import temporal_image, temporal_text

    cohort, tasks, notes = open_cohort(comparisons), list(TEMPORAL), list[str]()
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


def _run_all(left: Sequence[_Run], done: int, count: int, jobs: int, progress: Progress) -> dict[_Run, str]:
    """Carry out the runs that are `left`, `done` of `count` being done; returns those that failed, with the reason."""
    failed = dict[_Run, str]()
    progress(done, count, "")
    carry_out = partial(_carry_out, threads=max(1, cores() // jobs))
    with closing(run_until_done(carry_out, left, jobs)) as results:
        for run, reason in results:
            if reason is None:
                raise KeyboardInterrupt
            if reason:
                failed[run] = reason
            done += 1
            progress(done, count, f"{run.folder.name}{' failed' if reason else ''}")
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
