"""The page itself: evidence in, one HTML file out that asks nothing of the network.

Unusual here: nothing on the page was picked by how good it looks. Every result stands beside chance and beside an untrained
model, and the patients are chosen without regard to what the model says of them.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from medst import __version__
from medst.errors import MedstError
from medst.evaluate.temporal_image import PROGRESSIONS
from medst.files import claim, write_text
from medst.pages import result_figures as figures
from medst.pages.figure_style import finding_colour, plain
from medst.pages.inputs import Evidence, read_evidence
from medst.pages.patients import Timeline, timelines
from medst.pages.tables import percent, tasks
from medst.progress import Progress


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
        results: what `medst.evaluate.runner.evaluate` wrote about the run's best or last model.
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
    verdicts = [verdict for timeline in shown for visit in timeline.visits for verdict in visit.verdicts]
    content = {
        "synthetic": synthetic,
        "shows": {"verdicts": bool(verdicts), "predictions": any(verdict.predicted for verdict in verdicts)},
        "tasks": tasks(evidence.results),
        "protocol": evidence.results["protocol"],
        "curves": figures.learning_curves(evidence.metrics),
        "run": _run_facts(evidence),
        "data": _data_facts(evidence.cohort.meta),
        "confusion": _confusion(evidence.progressions),
        "left_out": evidence.results["left_out"],
        "patients": [_patient(timeline) for timeline in shown],
        "alignment": alignment,
        "facts": _provenance(evidence),
    }
    say(3, 4, "page")
    html = environment().get_template("run.html.j2").render(content)
    write_page(out_html, html)
    say(4, 4, f"{len(html) / 1e6:.1f} MB")
    return out_html


def write_page(out_html: Path, html: str) -> Path:
    """Write a whole page, or leave the old one.

    Raises:
        MedstError: another process writes it.
    """
    with claim(out_html):
        write_text(out_html, html)
    return out_html


def environment() -> jinja2.Environment:
    """The pages' templates, which escape all that is put into them."""
    templates = ("run.html.j2", "report.html.j2")
    places = dict.fromkeys(templates, files("medst.pages")) | {"page.css": files("medst.pages")}
    sources = {name: (folder / name).read_text(encoding="utf-8") for name, folder in places.items()}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=lambda name: name in templates,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "percent": percent, "colour": finding_colour}
    return environment


def _confusion(measured: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "finding": finding,
            "n": int(np.sum(matrix)),
            "figure": figures.confusion(np.array(matrix), PROGRESSIONS, finding, f"confusion-{finding}"),
        }
        for finding, matrix in measured["confusion"].items()
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
    counts = {
        name.replace("_", " "): f"{n:,}"
        for name, n in meta["counts"].items()
        if isinstance(n, int) and n and not name.startswith("rejected")
    }
    version = meta["dataset_version"]
    return {"dataset": meta["dataset"], "version": "" if version == "unknown" else version, "counts": counts}


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
        ("Protocol", "paper (as released)" if results["protocol"] == "paper" else results["protocol"]),
        ("Model", results["model"]["fingerprint"]),
        (f"Cohort ({settings['cohort']['dataset']})", settings["cohort"]["fingerprint"]),
        *((f"Benchmark ({dataset})", fingerprint) for dataset, fingerprint in results["cohorts"].items()),
    ]
