"""Every step once, on phantom patients: prepare, pretrain, evaluate, report. Each step resumes where it was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from medst.files import claim
from medst.progress import Display
from medst.recipes import RECIPES


def run_demo(out: Path, *, patients: int, seed: int, epochs: int, workers: int) -> dict[str, Any] | None:
    """Make everything under `out`: raw/, cohort/, comparisons/, run/ and report.html.

    Args:
        out: a new folder, or that of a stopped demo.
        patients: number of phantom patients.
        seed: seed of phantom and run.
        epochs: passes over the training sequences.
        workers: processes that draw and read images; 0 means one per core.

    Returns:
        The content of run/results.json; None if training was interrupted.

    Raises:
        MedstError: `out` holds a demo with other options, another process writes it, or a step can't resume.
    """
    from medst.cohort.options import Options
    from medst.cohort.prepare import prepare
    from medst.evaluate.runner import evaluate
    from medst.pages.report import report
    from medst.pretrain import pretrain
    from medst_phantom.mimic import write_phantom

    raw, cohort, comparisons, run, page = (
        out / name for name in ("raw", "cohort", "comparisons", "run", "report.html")
    )
    images = raw / "mimic-cxr-jpg"
    tiny = RECIPES["tiny"]
    recipe = replace(tiny, optimiser=replace(tiny.optimiser, epochs=epochs), run=replace(tiny.run, seed=seed))
    with claim(out), Display(["phantom", "prepare", "comparisons", "pretrain", "evaluate", "report"]) as display:
        write_phantom(raw, patients=patients, seed=seed, workers=workers, progress=display.stage("phantom"))
        prepare("mimic-cxr", images, cohort, workers=workers, progress=display.stage("prepare"))
        prepare(
            "ms-cxr-t", raw / "ms-cxr-t", comparisons, Options(images=images), workers=workers,
            progress=display.stage("comparisons"),
        )  # fmt: skip
        trained = pretrain(cohort, run, recipe, progress=display.stage("pretrain"))
        if trained.get("interrupted") or not trained["finished"]:  # Ctrl-C in the last step counts too
            return None
        # Not `best`: with so few patients the lowest validation loss comes early, long before findings are told apart.
        results = evaluate(
            run / "last", comparisons, run / "results.json", keep=True, progress=display.stage("evaluate")
        )
        report([run], page, cohort=cohort, comparisons=comparisons, synthetic=True, progress=display.stage("report"))
    return results
