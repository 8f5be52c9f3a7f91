"""The page itself: evidence in, one HTML file out that asks nothing of the network.

Unusual here: nothing on the page was picked by how good it looks. Every result stands beside chance and beside an untrained
model, and the patients are chosen without regard to what the model says of them.
"""

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from medst import __version__
from medst.errors import MedstError
from medst.evaluate.task import ALL, AVERAGE
from medst.evaluate.temporal_image import PROGRESSIONS
from medst.report import figures
from medst.report.evidence import Evidence, read_evidence
from medst.report.figures import Bar, share_text
from medst.report.look import finding_colour, plain
from medst.report.timelines import Timeline, timelines

FOLDS = 5
"""Of the numbers of folds in the results, the one that the headline, the bars and the confusion matrices are of."""

Progress = Callable[[int, int, str], None]


def build(
    out_html: Path,
    *,
    run: Path,
    results: Path,
    cohort: Path,
    comparisons: Path | None,
    patients: int = 4,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Draw a run, its results and a few patients over time as one self-contained HTML file.

    Args:
        out_html: the file to write, beside its final name first.
        run: folder of the run.
        results: what `medst.evaluate.run.evaluate` wrote about the run's best or last model.
        cohort: the one that the run was trained on; patients of its test split are shown.
        comparisons: the ms-cxr-t cohort of the results, for labels of findings that the results left out; may be None.
        patients: how many patients to show.
        synthetic: whether all patients are phantoms, which the page then says.
        progress: called with (parts done, parts in all, what is being drawn).

    Returns:
        `out_html`.

    Raises:
        MedstError: something is missing or damaged, or run, results and cohorts don't belong together.
    """
    if patients < 0:
        raise MedstError(f"patients is {patients}; give 0 or more.")
    say = progress or (lambda done, total, note: None)
    say(0, 4, "reading")
    evidence = read_evidence(run, results, cohort, comparisons)
    say(1, 4, "patients")
    shown, alignment = timelines(evidence, patients)
    say(2, 4, "figures")
    content = {
        "synthetic": synthetic,
        "tasks": [task for task in (_temporal_image(evidence.results), _temporal_text(evidence.results)) if task],
        "curves": figures.learning_curves(evidence.metrics),
        "run": _run_facts(evidence),
        "data": _data_facts(evidence.cohort.meta),
        "confusion": _confusion(evidence.results),
        "left_out": evidence.results["left_out"],
        "patients": [_patient(timeline) for timeline in shown],
        "alignment": alignment,
        "facts": _provenance(evidence),
    }
    say(3, 4, "page")
    html = _environment().get_template("page.html.j2").render(content)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    part = out_html.with_name(out_html.name + ".part")
    part.write_text(html, encoding="utf-8")
    os.replace(part, out_html)
    say(4, 4, f"{len(html) / 1e6:.1f} MB")
    return out_html


def _environment() -> jinja2.Environment:
    here = files("medst.report")
    sources = {name: (here / name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.css")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=lambda name: name == "page.html.j2",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "share": share_text, "colour": finding_colour}
    return environment


def _rows(results: dict[str, Any], task: str, metric: str, folds: int | None) -> dict[str, dict[str, Any]]:
    """The trained and untrained rows of a metric, by finding."""
    found: dict[str, dict[str, Any]] = {}
    for row in results["results"]:
        if (row["task"], row["metric"], row["folds"]) == (task, metric, folds):
            found.setdefault(row["finding"], {})[row["model"]] = row
    return found


def _bar(finding: str, rows: dict[str, Any]) -> Bar:
    trained, untrained = rows["trained"], rows.get("untrained")
    value = None if untrained is None else untrained["value"]
    return Bar(finding, trained["value"], trained["std"], value, trained["chance"])


def _task(
    task: str, results: dict[str, Any], head: str, *, metrics: list[tuple[str, int | None]]
) -> dict[str, Any] | None:
    """Bars of a task's first metric and a table of all of them, `head` (the sum of all findings) first."""
    by_metric = [(metric, folds, _rows(results, task, metric, folds)) for metric, folds in metrics]
    metric, _, rows = by_metric[0]
    if head not in rows:
        return None
    order = [head, *(finding for finding in rows if finding != head)]
    shown = [_bar(finding, rows[finding]) for finding in order]
    percent = metric == "accuracy"
    write = share_text if percent else "{:.3f}".format
    said = "; ".join(f"{plain(bar.finding)} {write(bar.value)}, chance {write(bar.chance)}" for bar in shown)
    table = [
        {
            "metric": name,
            "folds": folds,
            "finding": finding,
            "trained": of_finding["trained"],
            "untrained": of_finding.get("untrained"),
        }
        for name, folds, found in by_metric
        for finding, of_finding in sorted(found.items(), key=lambda item: item[0] != head)
    ]
    return {
        "task": task,
        "metric": metric,
        "percent": percent,
        "head": shown[0],
        "write": write,
        "bars": figures.bars(
            shown,
            percent=percent,
            lowest=0.0,
            key=f"bars-{task}",
            alt=f"{plain(task)}, {metric}: {said}.",
        ),
        "table": table,
    }


def _temporal_image(results: dict[str, Any]) -> dict[str, Any] | None:
    metrics: list[tuple[str, int | None]] = [
        ("accuracy", FOLDS), ("macro accuracy", FOLDS), ("accuracy", 10), ("macro accuracy", 10)
    ]  # fmt: skip
    return _task("temporal-image", results, AVERAGE, metrics=metrics)


def _temporal_text(results: dict[str, Any]) -> dict[str, Any] | None:
    metrics: list[tuple[str, int | None]] = [("auroc", None), ("accuracy", 10), ("accuracy at released threshold", 10)]
    return _task("temporal-text", results, ALL, metrics=metrics)


def _confusion(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "finding": finding,
            "n": int(np.sum(matrix)),
            "figure": figures.confusion(np.array(matrix), PROGRESSIONS, finding),
        }
        for finding, matrix in results["confusion"].items()
    ]


def _patient(timeline: Timeline) -> dict[str, Any]:
    hits = int((timeline.forward.argmax(1) == np.arange(timeline.studies)).sum())
    said = f"patient {timeline.patient_id}: {hits} of {timeline.studies}"
    return {
        "timeline": timeline,
        "hits": hits,
        "forward": figures.alignment(
            timeline.forward,
            down="image of study",
            across="report of study",
            key=f"forward-{timeline.patient_id}",
            alt=f"Weights of each image on the reports, {said} images have their own report on top.",
        ),
        "reverse": figures.alignment(
            timeline.reverse,
            down="start: image of study",
            across="landing: image of study",
            key=f"reverse-{timeline.patient_id}",
            alt=f"Where each image of patient {timeline.patient_id} lands on the way to the reports and back.",
        ),
    }


def _run_facts(evidence: Evidence) -> dict[str, Any]:
    recipe = evidence.settings["recipe"]
    train = [row for row in evidence.metrics if row["split"] == "train"]
    valid = [row for row in evidence.metrics if row["split"] == "valid"]
    best = min(valid, key=lambda row: float(row["loss"]), default=None)
    return {
        "recipe": recipe["name"],
        "steps": len(train),
        "epochs": int(train[-1]["epoch"]) if train else 0,
        "best_epoch": best["epoch"] if best else None,
        "minutes": sum(float(row["seconds"]) for row in train if row.get("seconds")) / 60,
        "parameters": sum(p.numel() for p in evidence.loaded.model.parameters()) / 1e6,
    }


def _data_facts(meta: dict[str, Any]) -> dict[str, Any]:
    counts = {name.replace("_", " "): f"{n:,}" for name, n in meta["counts"].items() if isinstance(n, int)}
    return {"dataset": meta["dataset"], "version": meta["dataset_version"], "counts": counts}


def _provenance(evidence: Evidence) -> list[tuple[str, str]]:
    """What made this page, to tell it from another one; no clock time and no path of a machine."""
    settings, results = evidence.settings, evidence.results
    vision = evidence.loaded.model.settings.vision
    return [
        ("Package", f"medst {__version__} (run: {settings['medst_version']}, results: {results['medst_version']})"),
        ("Recipe", f"{settings['recipe']['name']}, seed {settings['recipe']['run']['seed']}"),
        (
            "Image encoder",
            f"ViT, {vision.depth} blocks of width {vision.width}, {vision.image_size} px in patches of {vision.patch_size}",
        ),
        ("Protocol", f"{results['protocol']} (as released)"),
        ("Model", results["model"]["fingerprint"]),
        (f"Cohort ({settings['cohort']['dataset']})", settings["cohort"]["fingerprint"]),
        (f"Benchmark ({results['cohort']['dataset']})", results["cohort"]["fingerprint"]),
    ]
