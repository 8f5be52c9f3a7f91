"""`medst evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tyro.conf import Positional

from medst.cli.arguments import Cohorts, Model
from medst.cli.results import print_results
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS

if TYPE_CHECKING:
    Task = str
else:
    Task = tyro.extras.literal_type_from_choices(("all", *BENCHMARKS))


def evaluate(
    task: Positional[Task],
    model: Model,
    cohorts: Cohorts,
    /,
    protocol: Literal["paper", "strict"] = "paper",
    features: Literal["concat", "difference", "both"] = "concat",
    tokens: Literal["global", "patches", "both"] = "global",
    laterals: Path | None = None,
    prompts: Path | None = None,
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0),
    finetune: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    untrained: int = 3,
    leaks: Literal["warn", "refuse"] = "warn",
    cache: bool = True,
    out: Path | None = None,
    replace: bool = False,
) -> None:
    """Measure a model, and untrained ones of its shape, on benchmarks.

    Results are written after every benchmark, and the same command resumes: it does not repeat what the file holds. `all`
    runs every benchmark that the cohorts support; one that can't be measured is named, and the others continue.

    Args:
        task: which benchmark, or all.
        model: folder of a model, for instance RUN/best.
        cohorts: one or several, one per data set.
        protocol: paper, as released; strict, where nothing about a test row was used to choose anything.
        features: of two studies in temporal-image: both embeddings, their difference, or all of it.
        tokens: of an image in temporal-image: its global embedding, the mean of its patches', or both.
        laterals: a cohort with pairs; temporal-image then encodes a study's lateral view with its frontal one.
        prompts: a prompt file for zero-shot; the released prompts of pneumonia if not given.
        fractions: shares of the training rows that probe learns from.
        finetune: let probe train the image encoder too.
        precision: arithmetic of the encoders.
        untrained: how many untrained models to measure beside it.
        leaks: if the model was pre-trained on a benchmark's patients: warn, and with protocol strict report the rows without
            them beside; or refuse, also where nobody noted whom the model was pre-trained on.
        cache: keep image features in a folder features beside MODEL, so that they are computed once.
        out: file for the results; results.json beside MODEL if not given, results-strict.json for protocol strict.
        replace: measure everything anew and write a new file, which loses the numbers that the old one holds.
    """
    from medst.hub import check_name

    if not cohorts:
        raise MedstError("evaluate needs at least one COHORT behind MODEL.")
    if untrained < 0:
        raise MedstError(f"--untrained is {untrained}; give 0 or more.")
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise MedstError(f"--fractions {' '.join(map(str, fractions))}: give shares above 0 and up to 1.")
    check_name(model, "model")  # before the seconds that the other imports take
    from medst.cohort.store import open_cohort
    from medst.evaluate.runner import evaluate as run
    from medst.evaluate.task import Question
    from medst.progress import Display

    question = Question(
        protocol=protocol,
        features=features,
        tokens=tokens,
        laterals=laterals,
        prompts=prompts,
        fractions=fractions,
        finetune=finetune,
        precision=precision,
        cache=model.parent / "features" if cache else None,
    )
    out = out or model.parent / ("results.json" if protocol == "paper" else "results-strict.json")
    with Display(["evaluate"]) as display:
        results = run(
            model,
            cohorts,
            out,
            tasks=None if task == "all" else (task,),
            question=question,
            baseline_seeds=tuple(range(untrained)),
            keep=not replace,
            leaks=leaks,
            progress=display.stage("evaluate"),
        )
    datasets = {str(open_cohort(path).meta["dataset"]) for path in cohorts}
    print_results(results, out, BENCHMARKS if task == "all" else (task,), datasets)
