"""The whole road once: phantom, prepare, pretrain, evaluate, report. Each stage resumes where it was stopped."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medst.files import claim
from medst.progress import Display
from medst.recipes import RECIPES


@dataclass
class Outcome:
    """How a demo ended: whether it ran to its end, and what to tell of it."""

    finished: bool
    headline: str = ""


def run_demo(out: Path, *, patients: int, seed: int, epochs: int, workers: int) -> Outcome:
    """Make everything under `out`: raw/, cohort/, comparisons/, run/ and report.html.

    Args:
        out: a new folder, or that of a demo that was stopped.
        patients: phantom patients.
        seed: of phantom and run.
        epochs: passes over the training sequences.
        workers: processes for drawing and reading images; 0: one a core.

    Raises:
        MedstError: `out` holds a demo with other options, another process writes it, or a stage can't resume.
    """
    from medst.cohort.options import Options
    from medst.cohort.prepare import prepare
    from medst.evaluate.runner import evaluate
    from medst.pages.run_page import build
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
        if trained.get("interrupted") or not trained["finished"]:  # a Ctrl-C in the last step is one too
            return Outcome(finished=False)
        # Not the best by validation loss: on so few patients that is an early epoch, long before findings are told apart.
        results = evaluate(run / "last", comparisons, run / "results.json", progress=display.stage("evaluate"))
        build(
            page,
            run=run,
            results=run / "results.json",
            cohort=cohort,
            comparisons=comparisons,
            synthetic=True,
            progress=display.stage("report"),
        )
    return Outcome(finished=True, headline=headline(results, page))


def headline(results: dict[str, Any], page: Path) -> str:
    """The numbers worth a look, a line each, and where the report is."""
    lines = []
    for task, metric, finding in (
        ("temporal-image", "accuracy", "average"),
        ("temporal-text", "auroc", "all"),
    ):
        rows = [
            row
            for row in results["results"]
            if (row["task"], row["metric"], row["finding"]) == (task, metric, finding) and row["folds"] in (5, None)
        ]
        values = {row["model"]: row["value"] for row in rows}
        if "trained" not in values:  # too few patients for its folds
            reasons = [row["reason"] for row in results["left_out"] if row["task"] == task]
            lines.append(f"{task}: not measured ({'; '.join(dict.fromkeys(reasons)) or 'too few patients'})")
            continue
        line = f"{task}, {metric}: {values['trained']:.3f}"
        lines.append(f"{line} (untrained {values['untrained']:.3f}, chance {rows[0]['chance']:.3f})")
    return "\n".join([*lines, f"Report: {page}"])
