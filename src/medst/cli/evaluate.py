"""`medst evaluate`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from medst.cli.arguments import Cohorts, Model
from medst.cli.results import print_results
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.task import STRICT, Question, results_name

OF_MODELS = ("protocol", "learn_from", "features", "tokens", "laterals", "precision")
"""Fields of `Question` that change how temporal-image measures a model."""
if TYPE_CHECKING:
    Task = str
else:
    Task = tyro.extras.literal_type_from_choices(("all", *BENCHMARKS))


def evaluate(
    task: Positional[Task],
    model: Model,
    cohorts: Cohorts,
    /,
    question: Annotated[Question, arg(name="")] = STRICT,
    embeddings: Annotated[tuple[Path, ...], arg(metavar="FILE...")] = (),
    untrained: int = 3,
    baselines: bool = True,
    leaks: Literal["warn", "refuse"] = "warn",
    cache: bool = True,
    answers: Path | None = None,
    out: Path | None = None,
    replace_all: Annotated[bool, arg(name="replace")] = False,
) -> None:
    """Measure a model, and the baselines that it has to beat, on benchmarks.

    Results are written after every benchmark, and the same command resumes: it does not repeat what the file holds. `all`
    runs every benchmark that the cohorts support; one that can't be measured is named, and the others continue.

    Args:
        task: which benchmark, or all.
        model: folder of a model, for instance RUN/best; left out with --embeddings or --answers.
        cohorts: one or several, one per data set.
        question: how to measure.
        embeddings: measure the embeddings of another model: Parquet files with id and vector of images and sentences, or
            with current, prior and vector of pairs of images. All positional paths are then cohorts.
        untrained: number of untrained models among the baselines.
        baselines: measure what a model has to beat, on the same rows.
        leaks: if the model was pre-trained on patients of a benchmark: warn, and under protocol strict also report numbers
            without their rows; or refuse, also if nobody recorded whom the model was pre-trained on.
        cache: keep image features in the folder features next to MODEL, so that they are computed once.
        answers: temporal-image: JSON-lines file with answers of any system, such as a language model. It takes the place of
            MODEL; the results are of protocol answers, by default in results-answers.json next to it.
        out: file for the results; results.json next to MODEL, or the first FILE, if not given; results-PROTOCOL.json for
            the other protocols.
        replace_all: measure everything again and write a new file; the numbers of the old one are lost.
    """
    from medst.hub import check_name

    if answers is not None:
        if embeddings:
            raise MedstError("--answers and --embeddings are of two systems; give one of them.")
        _check_answers(task, (model, *cohorts), question, leaks)
        _score_answers(answers, model, out, question, baselines, not replace_all)
        return
    if embeddings:
        cohorts = (model, *cohorts)
        if models := [path for path in cohorts if not _is_cohort(path)]:
            raise MedstError(
                f"{models[0]} is not a cohort; with --embeddings no MODEL is given, and all paths are cohorts."
            )
    elif _is_cohort(model):
        raise MedstError(f"{model} is a cohort; give a MODEL before it, or --embeddings or --answers of another one.")
    if not cohorts:
        raise MedstError("evaluate needs at least one COHORT after MODEL.")
    if untrained < 0:
        raise MedstError(f"--untrained is {untrained}; give 0 or more.")
    if not all(0 < fraction <= 1 for fraction in question.fractions):
        raise MedstError(f"--fractions {' '.join(map(str, question.fractions))}: give shares above 0 and up to 1.")
    if not embeddings:
        check_name(model, "model")  # before the seconds that the other imports take
    from medst.cohort.store import open_cohort
    from medst.evaluate.embeddings import read_embeddings
    from medst.evaluate.runner import evaluate as run
    from medst.progress import Display

    place = (*embeddings, model)[0].parent
    out = out or place / results_name(question.protocol)
    with Display(["evaluate"]) as display:
        results = run(
            read_embeddings(embeddings) if embeddings else model,
            cohorts,
            out,
            tasks=None if task == "all" else (task,),
            question=replace(question, cache=place / "features" if cache else None),
            baselines=baselines,
            baseline_seeds=tuple(range(untrained)),
            keep=not replace_all,
            leaks=leaks,
            progress=display.stage("evaluate"),
        )
    datasets = {open_cohort(path).dataset for path in cohorts}
    print_results(results, out, BENCHMARKS if task == "all" else (task,), datasets)


def _check_answers(task: str, paths: tuple[Path, ...], question: Question, leaks: str) -> None:
    if task != "temporal-image":
        raise MedstError(f"--answers is for temporal-image alone, not for {task}.")
    if len(paths) > 1 or (paths[0] / "config.json").is_file():
        raise MedstError("--answers takes the place of MODEL; give one COHORT with comparisons and no model.")
    changed = [name for name in OF_MODELS if getattr(question, name) != getattr(STRICT, name)]
    if changed:
        raise MedstError(
            f"--answers has a protocol of its own and no model; leave out --{changed[0].replace('_', '-')}."
        )
    if leaks == "refuse":
        raise MedstError("--leaks refuse needs a record of pre-training, and answers have none; leave it out.")


def _score_answers(
    answers: Path, cohort: Path, out: Path | None, question: Question, baselines: bool, keep: bool
) -> None:
    from medst.evaluate.answers import TASK, evaluate_answers
    from medst.progress import Display

    out = out or answers.parent / results_name("answers")
    with Display(["evaluate"]) as display:
        results = evaluate_answers(
            answers,
            cohort,
            out,
            question=question,
            baselines=baselines,
            keep=keep,
            progress=display.stage("evaluate"),
        )
    print_results(results, out, (TASK,), set(results["cohorts"]))


def _is_cohort(path: Path) -> bool:
    return (path / "cohort.json").is_file()
