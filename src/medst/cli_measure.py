"""The verbs that measure models and show what was measured; heavy imports stay inside of them, as in `cli.py`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from medst.cli_arguments import CohortPath, Cohorts, Model, Out, RecipeName, Runs
from medst.recipes.settings import Recipe


def evaluate(
    task: Positional[Literal["all", "temporal-image", "temporal-text", "zero-shot", "probe", "retrieval"]],
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
    """Hold a model, and untrained ones of its shape, against benchmarks.

    The results are written after every benchmark, and the same command resumes: it does not measure again what the file
    holds. Under all, a benchmark that can't be measured is named and recorded, and the others continue.

    Args:
        task: which benchmark; all: every one for which a cohort has the data.
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
    from medst.errors import MedstError
    from medst.hub import check_name

    if not cohorts:
        raise MedstError("evaluate needs at least one COHORT behind MODEL.")
    if untrained < 0:
        raise MedstError(f"--untrained is {untrained}; give 0 or more.")
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise MedstError(f"--fractions {' '.join(map(str, fractions))}: give shares above 0 and up to 1.")
    check_name(model, "model")  # before the seconds that the other imports take
    from medst.evaluate.run import evaluate as run
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
    for row in results["results"]:
        folds = f"{row['folds']} folds" if row["folds"] else ""
        words = [row["task"], row["dataset"], row["metric"], row["finding"], folds, row["model"]]
        spread = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}, "
        print(f"{' '.join(word for word in words if word)}: {row['value']:.3f} ({spread}chance {row['chance']:.3f})")
    for name, detail in results["details"].items():
        learnt = ", ".join(f"{share}: {rows}" for share, rows in detail.get("train_rows", {}).items())
        if learnt:
            print(f"Training rows of {name.replace('/', ' ')}: {learnt}")
    for left in results["left_out"]:
        folds = f", {left['folds']} folds" if left["folds"] else ""
        print(f"Not measured: {left['task']} {left['dataset']}, {left['finding']}{folds}: {left['reason']}.")
    for warning in results["warnings"]:
        print(f"Beware: {warning}")
    print(f"{out}: {len(results['results'])} numbers")


def report(
    runs: Runs,
    /,
    cohort: Path | None = None,
    results: Path | None = None,
    comparisons: Path | None = None,
    out: Path | None = None,
    tables: Literal["markdown", "latex"] | None = None,
    patients: int = 4,
    synthetic: bool = False,
) -> None:
    """Draw results as one HTML page: any number of runs side by side, or one with its learning curves and patients.

    Args:
        runs: folders of runs, or files that `medst evaluate` wrote.
        cohort: the cohort of the one run, whose curves and patients are then shown too.
        results: what `medst evaluate` wrote about the one run; RUN/results.json if not given.
        comparisons: the ms-cxr-t cohort of these results, for the true progressions.
        out: the page; RUN/report.html with --cohort, comparison.html in the first folder without.
        tables: print the numbers as tables in this language too.
        patients: how many patients to show.
        synthetic: say on the page that all patients are synthetic.
    """
    from medst.errors import MedstError
    from medst.pages.report import compare, tables_of
    from medst.pages.run_page import build

    if not runs:
        raise MedstError("report needs at least one RUN, a run's folder or a results file.")
    if cohort is None:
        if results is not None or comparisons is not None:
            raise MedstError("--results and --comparisons go with --cohort, which shows one run with its patients.")
        folder = runs[0] if runs[0].is_dir() else runs[0].parent
        page = compare(out or folder / "comparison.html", runs)
        if tables is not None:
            print(tables_of(runs, tables))
        print(page)
        return
    if len(runs) > 1:
        raise MedstError("--cohort shows the patients of one run; give one RUN, or leave --cohort out to compare them.")
    page = build(
        out or runs[0] / "report.html",
        run=runs[0],
        results=results or runs[0] / "results.json",
        cohort=cohort,
        comparisons=comparisons,
        patients=patients,
        synthetic=synthetic,
    )
    print(page)


def ablate_verb(default: Recipe) -> Callable[..., None]:
    """The verb `ablate`, whose settings start from a recipe."""

    def ablate(
        cohort: CohortPath,
        out: Out,
        /,
        comparisons: Path | None = None,
        recipe: RecipeName = "tiny",
        seeds: int = 3,
        only: tuple[str, ...] = (),
        epochs: int | None = None,
        jobs: int = 1,
        settings: Annotated[Recipe, arg(name="")] = default,
    ) -> None:
        """Train a recipe's variants, each without or with one thing, and report what each thing is worth.

        Args:
            cohort: folder of a prepared cohort with pairs.
            out: folder for all runs and the table; the same command resumes a stopped job, and tries runs that failed again.
            comparisons: an ms-cxr-t cohort to measure on; retrieval on COHORT is always measured.
            recipe: where the settings below start from; the variants vary the result.
            seeds: runs of each variant; they take the place of --run.seed.
            only: names of variants; all of them if not given.
            epochs: passes over the training sequences; the same as --optimiser.epochs.
            jobs: runs at a time.
            settings: all settings.
        """
        settings.check()
        from medst.ablate import ablate as run
        from medst.progress import Display

        with Display(["ablate"]) as display:
            table = run(
                cohort,
                out,
                comparisons=comparisons,
                recipe=settings,
                seeds=seeds,
                only=only,
                epochs=epochs,
                jobs=jobs,
                progress=display.stage("ablate"),
                say=lambda note: print(note, file=sys.stderr),
            )
        print(table)

    return ablate
