"""Measure a model on cohorts and write results.json, with the numbers of its baselines on the same rows.

The file depends only on the model, the cohorts, the question and the seeds: it holds no clock time and no path.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from medst import NUMERICS, __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS, Benchmark
from medst.evaluate.embeddings import Embeddings
from medst.evaluate.groups import chosen, group_scores, people_of, rows_of
from medst.evaluate.leads import GUESSES, guesses, leads, mean_scores
from medst.evaluate.leaks import Overlap, overlaps
from medst.evaluate.prompts import read_prompts
from medst.evaluate.results import SCHEMA, Results
from medst.evaluate.subjects import BASELINES, ONE_STUDY, ModelSubject, Subject
from medst.evaluate.task import ALL, STRICT, UNSEEN, LeftOut, Outcome, Question, Score
from medst.files import claim, sha256
from medst.progress import Progress
from medst.use import load

SYNTHETIC = "a program drew these patients (`medst phantom`); no number says anything about real ones."
TRANSFERRED = "temporal-image"
"""The benchmark that protocol transfer is for."""
SWITCHES = ("features", "tokens", "laterals", "prompts", "finetune", "precision")
"""Fields of `Question` that all numbers of a file share, as they do the protocol."""


def evaluate(
    model_folder: Path | Embeddings,
    cohorts: Path | Sequence[Path],
    out: Path | None,
    *,
    tasks: Sequence[str] | None = None,
    question: Question = STRICT,
    baselines: bool = True,
    baseline_seeds: Sequence[int] = (0, 1, 2),
    keep: bool = False,
    leaks: Literal["warn", "refuse", "ignore"] = "warn",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model, and its baselines, on benchmarks.

    Args:
        model_folder: a model, for instance RUN/best, or the embeddings of another model.
        cohorts: one prepared cohort, or several.
        out: file for the results, written after every benchmark; None writes nothing.
        tasks: names of `BENCHMARKS`, each measured on every cohort; None takes those that each cohort supports, records in
            `left_out` what can't be measured, and continues.
        question: protocol and switches.
        baselines: whether to measure those that the registry names for a benchmark.
        baseline_seeds: one untrained model is drawn from each.
        keep: whether to add to the numbers in `out` and not to measure those again; False writes a new file.
        leaks: if the model was pre-trained on patients of a benchmark: warn, and under protocol `strict` also measure
            without them; refuse to measure anything; or ignore, which only warns.
        progress: called with (subjects done, subjects in all, name of the current step).

    Returns:
        The content of the file: `results`, one row per number; `leads`, how far the model is ahead of its best baseline in
        each headline number; `groups`, the numbers on groups of rows, if `question.by` asks for them; `details`, for each
        benchmark and data set the confusion matrices, calibration and predictions of the trained model and how it was
        `asked`; `left_out`, what could not be measured, by name; `leaks`, for each data set that names patients how many of
        them were in pre-training, or "unknown"; `warnings`. In an untrained row `value` is the mean and `std` the standard
        deviation over the models of `seeds`; in a trained row `std` is over `seeds`, which shuffled or drew its rows.

    Raises:
        MedstError: an unknown benchmark; no model or no cohort there; two cohorts of one data set; nothing can be measured;
            with `tasks`, a cohort or the embeddings lack what a benchmark needs; with embeddings, a switch that only a
            medst model has; with `leaks="refuse"`, patients of pre-training, or none
            known; with `keep`, `out` holds another model, cohort, protocol, numerics version or switches.
    """
    _check_transfer(tasks, question)
    unknown = [task for task in tasks or () if task not in BENCHMARKS]
    if unknown or (tasks is not None and not tasks):
        named = f"There is no benchmark {', '.join(unknown)}" if unknown else "No benchmark is given"
        raise MedstError(f"{named}; choose from {', '.join(BENCHMARKS)}.")
    subject: Subject
    if isinstance(model_folder, Embeddings):
        _check_switches(question)
        subject, head = model_folder, _head(model_folder.fingerprint, "embeddings", question)
    else:
        model = load(model_folder, device="cpu")
        subject = ModelSubject(model, question.precision, question.cache)
        head = _head(model.fingerprint, model.recipe.name, question)
    opened = _open(cohorts)
    plan = [
        (BENCHMARKS[name], dataset)
        for dataset, cohort in opened.items()
        for name in tasks or [name for name in _possible(question) if BENCHMARKS[name].fits(cohort, question)]
    ]
    if not plan:
        under = " under protocol transfer" if question.protocol == "transfer" else ""
        raise MedstError(f"There is no benchmark{under} for a cohort of {', '.join(opened) or 'no data set'}.")
    by = chosen(question.by)
    people = people_of(question, opened.values())
    folder = None if isinstance(model_folder, Embeddings) else model_folder
    seen = overlaps(folder, opened, refuse=leaks == "refuse")
    jobs = [
        _Job(
            one,
            opened[dataset],
            seen.get(dataset) if one.names_patients else None,
            question,
            _baselines(one, subject, opened[dataset]) if baselines else (),
            tuple(baseline_seeds),
            leaks != "ignore",
        )
        for one, dataset in plan
    ]
    done, total, left_out = 0, sum(job.subjects for job in jobs), list[str]()

    def report_progress(measured: int, note: str) -> None:
        if progress is not None:
            progress(done + measured, total, note)

    with nullcontext() if out is None else claim(out):
        fingerprints = {dataset: cohort.fingerprint for dataset, cohort in opened.items()}
        known = {dataset: one.to_json() for dataset, one in seen.items()}
        results = Results(out, head, fingerprints, known, keep)
        for job in jobs:
            name, dataset = job.benchmark.name, job.cohort.dataset
            if not results.holds(name, dataset, job.asked()):
                try:
                    outcome, beside = job.measure(subject, report_progress)
                except MedstError as error:
                    if tasks is not None:
                        raise
                    reason = _without_paths(str(error), job.cohort, question)
                    left_out.append(f"{name} on {dataset}: {reason}")
                    results.put(name, dataset, Outcome(left_out=[LeftOut(ALL, 0, reason)]))
                else:
                    ahead = leads(name, outcome, beside, question.intervals)
                    groups, no_groups = group_scores(
                        name, by, outcome, beside, ahead, job.cohort, people, question.intervals
                    )
                    outcome.left_out += no_groups
                    results.put(name, dataset, outcome, beside, ahead, list(rows_of(groups)), job.asked())
            done += job.subjects
        if len(left_out) == len(plan):
            raise MedstError(f"Nothing could be measured ({'; '.join(left_out)}).")
        report_progress(0, f"{len(results.content['results'])} numbers")
    return results.content


def _possible(question: Question) -> Sequence[str]:
    return (TRANSFERRED,) if question.protocol == "transfer" else tuple(BENCHMARKS)


def _check_transfer(tasks: Sequence[str] | None, question: Question) -> None:
    if question.protocol != "transfer":
        if question.learn_from is not None:
            raise MedstError("--learn-from goes with --protocol transfer.")
        return
    if any(task != TRANSFERRED for task in tasks or ()):
        raise MedstError(f"--protocol transfer is for {TRANSFERRED} alone; measure the others under strict.")
    if question.learn_from is None:
        raise MedstError("--protocol transfer needs --learn-from, a cohort with comparisons to learn from.")
    if question.laterals is not None:
        raise MedstError("--laterals names the pairs of one cohort, and --protocol transfer has two; leave it out.")


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
        baselines: names of what is measured beside the model.
        seeds: those of the untrained models.
        measure_unseen: whether protocol `strict` also measures without these patients.
    """

    benchmark: Benchmark
    cohort: Cohort
    overlap: Overlap | None
    question: Question
    baselines: tuple[str, ...]
    seeds: tuple[int, ...]
    measure_unseen: bool

    @property
    def subjects(self) -> int:
        """How many subjects are measured."""
        return 1 + sum(len(self._seeds(name)) for name in self.baselines if name not in GUESSES)

    def _seeds(self, name: str) -> Sequence[int]:
        return self.seeds if BASELINES[name].seeded else (0,)

    def asked(self) -> dict[str, Any]:
        """How the benchmark is measured, without the switches that all numbers of a file share; plain JSON."""
        seeds = self.seeds if any(BASELINES[name].seeded for name in self.baselines if name not in GUESSES) else ()
        asked: dict[str, Any] = {"baselines": list(self.baselines), "untrained": list(seeds)}
        asked["intervals"] = self.question.intervals
        for name in self.benchmark.switches:
            value = getattr(self.question, name)
            if isinstance(value, Path):
                asked[name] = open_cohort(value).fingerprint
            elif value is not None:
                asked[name] = list(value)
        if self.question.by:
            people = self.question.patients
            asked["by"] = [*chosen(self.question.by), *([] if people is None else [sha256(people)])]
        if self.overlap is not None:
            asked["leaks"] = self.overlap.to_json() if self.measure_unseen else "ignored"
        return asked

    def measure(
        self, subject: Subject, report_progress: Callable[[int, str], None]
    ) -> tuple[Outcome, dict[str, list[Score]]]:
        """The subject's outcome, and the scores of each baseline on the same rows."""
        with ExitStack() as stack:
            if self.question.cache is None and isinstance(subject, ModelSubject) and self._features_are_reused:
                cache = Path(stack.enter_context(TemporaryDirectory(prefix="medst-")))
                subject = replace(subject, cache=cache)
            report_progress(0, self.benchmark.name)
            outcome, done = self._outcome(subject, self.question), 1
            beside: dict[str, list[Score]] = {}
            for name in self.baselines:
                if name in GUESSES:
                    beside[name] = guesses(outcome)
                    continue
                baseline, found = BASELINES[name], list[Outcome]()
                question = replace(self.question, bootstrap=False, **baseline.changes)
                for seed in self._seeds(name):
                    report_progress(done, f"{self.benchmark.name}, {name}{f' {seed}' if baseline.seeded else ''}")
                    measured = baseline.make(subject, seed)
                    if measured is not None:
                        found.append(self._outcome(measured, question))
                    done += 1
                if found:
                    beside[name] = mean_scores(found, self.seeds) if baseline.seeded else found[0].scores
        pairs = self.cohort.pairs if self.benchmark.name == "retrieval" else None
        if isinstance(subject, Embeddings) and pairs is not None and pairs["lateral"].count():
            outcome.warnings.append(
                f"{self.cohort.path.name}: embeddings are those of frontal views alone in retrieval."
            )
        if self.cohort.meta.get("synthetic"):
            outcome.warnings.append(f"{self.cohort.path.name}: {SYNTHETIC}")
        if self.overlap is not None:
            outcome.warnings += self.overlap.warnings(self.question.protocol != "paper")
        return outcome, beside

    @property
    def _features_are_reused(self) -> bool:
        return any(name in ONE_STUDY for name in self.baselines)

    def _outcome(self, subject: Subject, question: Question) -> Outcome:
        """The outcome of a subject, with that on unseen patients."""
        task = self.benchmark.task()
        outcome = task(subject, self.cohort, question)
        strict = question.protocol != "paper" and self.measure_unseen
        unseen = self.overlap.unseen() if strict and self.overlap is not None else None
        if unseen is not None:
            try:
                outcome.add_unseen(task(subject, unseen, question))
            except MedstError as error:
                reason = _without_paths(str(error), self.cohort, question)
                outcome.left_out.append(LeftOut(ALL + UNSEEN, 0, reason))
        return outcome


def _check_switches(question: Question) -> None:
    """Refuse the switches of an encoder, which embeddings don't have."""
    encoder = {"tokens": "--tokens", "laterals": "--laterals", "finetune": "--finetune", "precision": "--precision"}
    given = [flag for name, flag in encoder.items() if getattr(question, name) != getattr(STRICT, name)]
    if given:
        raise MedstError(
            f"Embeddings can't be measured with {' and '.join(given)}; leave out what a medst model needs."
        )


def _baselines(benchmark: Benchmark, subject: Subject, cohort: Cohort) -> tuple[str, ...]:
    """The baselines that a subject has: embeddings can't be untrained, and those of pairs hold no study alone."""
    if not isinstance(subject, Embeddings):
        return benchmark.baselines
    lacking = ("untrained", *(() if subject.has_images(cohort) else ONE_STUDY))
    return tuple(name for name in benchmark.baselines if name not in lacking)


def _head(fingerprint: str, recipe: str, question: Question) -> dict[str, Any]:
    switches: dict[str, Any] = {name: getattr(question, name) for name in SWITCHES}
    switches["laterals"] = question.laterals is not None
    switches["prompts"] = "released" if question.prompts is None else read_prompts(question.prompts)
    return {
        "schema": SCHEMA,
        "medst_version": __version__,
        "numerics": NUMERICS,
        "protocol": question.protocol,
        "switches": switches,
        "model": {"fingerprint": fingerprint, "recipe": recipe},
    }


def _without_paths(sentence: str, cohort: Cohort, question: Question) -> str:
    """A sentence without the paths of this machine and without its full stop."""
    known = {
        cohort.path: cohort.path.name,
        question.patients: "--patients",
        question.laterals: "--laterals",
        question.learn_from: "--learn-from",
        question.prompts: "--prompts",
    }
    for path, name in known.items():
        if path is not None:
            sentence = sentence.replace(str(path), name)
    return sentence.rstrip(".")
