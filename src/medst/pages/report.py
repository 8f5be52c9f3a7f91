"""The page of one or more runs: every number that was measured, and for one run its learning curves and patients.

Every number stands beside chance and its baselines, and those on a published data set beside the field's record. Nothing
was selected by how good it looks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS
from medst.pages import figures
from medst.pages.collect_results import BenchmarkResults, ResultsFile, collect, read_results_files
from medst.pages.figure_style import RUN_COLOURS
from medst.pages.html import render, write_page
from medst.pages.inputs import PatientInputs, RunInputs, read_patient_inputs, read_run
from medst.pages.patients import ShownPatient, read_patients
from medst.pages.record import record
from medst.pages.tables import csv_of
from medst.pages.verdict import verdict
from medst.pages.wording import percent, readable
from medst.progress import Progress

MOST_DRAWN = 12
"""Findings in one figure; the others are in the table."""
PROTOCOL_NOTES = {
    "paper": "as released, to compare with numbers in papers; ± is the standard deviation over seeds, with n - 1",
    "transfer": "learnt from another cohort, without the tested patients; a run’s interval holds 95 % of a bootstrap over "
    "patients for its predictions as they are",
    "answers": "answers of a system that was not trained here, on the rows of protocol strict; a row without an answer "
    "counts as wrong; an interval holds 95 % of a bootstrap over patients",
    "strict": "nothing about a test row was used to choose anything; a run’s interval holds 95 % of a bootstrap over "
    "patients, or over clusters of sentences, for its predictions as they are",
}
SEEDS_NOTE = (
    "Runs that differ in their seed alone also stand together: their mean, ± the standard deviation over the seeds (with "
    "n - 1). The interval of seeds alone is Student’s, for other seeds on this test data; that of test data alone is the "
    "mean of the runs’ own, for other patients or sentences and the predictions as they are; that of seeds and test data "
    "adds the squares of both distances, and is the one to quote."
)
METRIC_NOTES = {
    "calibration error": "The calibration error of a perfect model is not 0 on so few rows: its labels are random too. Its "
    "mean stands in place of chance.",
    "accuracy at released threshold": "Accuracy at released threshold picks the threshold by test accuracy, as the released "
    "code does, and so lies above chance where there is no signal.",
    "swap consistency": "Swap consistency is the share of pairs whose prediction reverses when the two studies are "
    "exchanged; a model that always predicts stable gets all of them.",
}


def report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    cohort: Path | None = None,
    results: Path | None = None,
    comparisons: Path | None = None,
    patients: int = 4,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the results of one or more runs as one self-contained HTML page.

    Args:
        runs: folders of runs, or results files.
        out: the page; RUN/report.html with `cohort`, comparison.html in the first folder without.
        cohort: the cohort that the one run was trained on; some patients of its test split are then shown.
        results: the results of the one run with `cohort`; RUN/results.json if not given.
        comparisons: the ms-cxr-t cohort of these results, for labels of findings that the results left out.
        patients: how many patients to show.
        synthetic: whether all patients are phantoms, which the page then says.
        progress: called with (parts done, parts in all, what is being drawn).

    Returns:
        The page's path.

    Raises:
        MedstError: something is missing or damaged, or run, results and cohorts don't belong together.
    """
    if not runs:
        raise MedstError("report needs at least one RUN, a run's folder or a results file.")
    if cohort is None and (results is not None or comparisons is not None):
        raise MedstError("--results and --comparisons go with --cohort, which shows one run with its patients.")
    if cohort is not None and len(runs) > 1:
        raise MedstError("--cohort shows the patients of one run; give one RUN, or leave --cohort out to compare runs.")
    if patients < 0:
        raise MedstError(f"--patients is {patients}; give 0 or more.")
    say = progress or (lambda done, total, note: None)
    say(0, 4, "reading")
    is_run = len(runs) == 1 and (cohort is not None or (runs[0] / "settings.json").is_file())
    run = read_run(runs[0]) if is_run else None
    results_files = read_results_files([results or runs[0] / "results.json"] if cohort is not None else runs)
    if cohort is None and not any(one.settings for one in results_files):
        run = None  # the numbers are not of its models
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    out = out or folder / ("comparison.html" if cohort is None else "report.html")
    say(1, 4, "patients")
    shown_patients = None
    if run is not None and cohort is not None:
        shown_patients = _patients(read_patient_inputs(run, results_files[0].results, cohort, comparisons), patients)
    say(2, 4, "figures")
    content = _content(results_files, run, cohort is not None) | {"synthetic": synthetic, "patients": shown_patients}
    say(3, 4, "page")
    html = render("pages/report.html.j2", content)
    write_page(out, html)
    say(4, 4, f"{len(html) / 1e6:.1f} MB")
    return out


def _content(results_files: Sequence[ResultsFile], run: RunInputs | None, with_patients: bool) -> dict[str, Any]:
    benchmarks = collect(results_files)
    names = list(dict.fromkeys(one.name for one in results_files))
    # With --cohort the run's model was checked, and its results may lie elsewhere.
    owned = [(one, run if one.settings or with_patients else None) for one in results_files]
    return {
        "kind": "results",
        "title": f"Results of {names[0]}" if len(names) == 1 else f"Results of {len(names)} runs side by side",
        "verdict": verdict(benchmarks),
        "facts": [_facts(one, of) for one, of in owned],
        "csv": csv_of(results_files),
        "csv_name": "results.csv",
        "benchmarks": [_benchmark(one) for one in benchmarks],
        "left_out": [(one.name, left) for one in results_files for left in one.results["left_out"]],
        "warnings": [(one.name, warning) for one in results_files for warning in one.warnings],
        "training": None if run is None else _training(run),
        "provenance": [fact for one, of in owned for fact in _provenance(one, of)],
    }


def _facts(one: ResultsFile, run: RunInputs | None) -> list[tuple[str, str]]:
    model, measured_on = one.results["model"], " and ".join(one.results["cohorts"])
    data, date = f"measured on {measured_on}", f"measured {one.measured}"
    if one.results["protocol"] == "answers":
        return [
            ("Answers", f"{one.name}, {model['fingerprint'][:12]}"),
            ("Data", data),
            ("Date", date),
            ("Protocol", "answers"),
        ]
    if run is not None:
        data = f"trained on {run.settings['cohort']['dataset']}, {data}"
        date = f"trained {run.began}, {date}" if run.began else date
    return [
        ("Run", one.name),
        ("Model", f"recipe {model['recipe']}, {model['fingerprint'][:12]}"),
        ("Data", data),
        ("Date", date),
        ("Protocol", one.results["protocol"]),
    ]


def _provenance(one: ResultsFile, run: RunInputs | None) -> list[tuple[str, str]]:
    """Versions and fingerprints in full; no path of a machine."""
    results = one.results
    found = [
        ("Results", f"{one.name}, measured with medst {results['medst_version']}"),
        ("Model", results["model"]["fingerprint"]),
    ]
    found += [(f"Benchmark ({dataset})", fingerprint) for dataset, fingerprint in results["cohorts"].items()]
    if run is not None and results["protocol"] != "answers":
        settings, vision = run.settings, run.settings["recipe"]["model"]["vision"]
        found += [
            ("Recipe", f"{settings['recipe']['name']}, seed {settings['recipe']['run']['seed']}"),
            ("Trained with", f"medst {settings['medst_version']}"),
            (
                "Image encoder",
                f"ViT, {vision['depth']} blocks of width {vision['width']}, {vision['image_size']} px in patches of "
                f"{vision['patch_size']}",
            ),
            (f"Cohort ({settings['cohort']['dataset']})", settings["cohort"]["fingerprint"]),
        ]
    return found


def _training(run: RunInputs) -> dict[str, Any]:
    train, valid = ([row for row in run.metrics if row["split"] == split] for split in ("train", "valid"))
    best = min(valid, key=lambda row: float(row["loss"]), default=None)
    return {
        "curves": figures.learning_curves(run.metrics),
        "legend": figures.CURVE_LEGEND,
        "steps": len(train),
        "epochs": int(train[-1]["epoch"]) if train else 0,
        "best_epoch": best["epoch"] if best else None,
        "minutes": sum(float(row["seconds"]) for row in train if row.get("seconds")) / 60,
    }


def _benchmark(one: BenchmarkResults) -> dict[str, Any]:
    drawn = one.headline()[:MOST_DRAWN]
    first = [*drawn, *(line for line in one.lines if line.is_summary and line not in drawn)]
    others = [line for line in one.lines if line not in first]
    metrics = {line.metric for line in one.lines}
    title = f"{one.title}, protocol {one.protocol}"
    groups, too_few = one.group_lines()
    asks = BENCHMARKS[one.task].asks.replace("`", "")
    return {
        "id": f"{one.task}-{one.dataset}-{one.protocol}",
        "title": title,
        "protocol": one.protocol,
        "question": asks[:1].upper() + asks[1:],
        "meaning": PROTOCOL_NOTES[one.protocol],
        "notes": [note for metric, note in METRIC_NOTES.items() if metric in metrics] + [SEEDS_NOTE] * bool(one.seeds),
        "seeds": one.seeds,
        "metric": drawn[0].name if drawn else "",
        "figure": figures.intervals(drawn, one.names, title) if drawn else "",
        "more": len(one.headline()) - len(drawn),
        "runs": [
            (name, RUN_COLOURS[place % len(RUN_COLOURS)], _errors(details, f"{name}, protocol {one.protocol}"))
            for place, (name, details) in enumerate(zip(one.names, one.details, strict=True))
        ],
        "lines": first,
        "other_lines": others,
        "groups": groups,
        "too_few": too_few,
        "record": record(one),
        "is_one_copy": len(set(one.fingerprints)) == 1,
    }


def _errors(details: dict[str, Any], name: str) -> list[tuple[str, str, Markup]]:
    """Finding, caption and figure of every confusion matrix and calibration curve of a run."""
    matrices = [
        (finding, "", figures.confusion(np.array(matrix), details["classes"], finding, f"{readable(finding)}, {name}"))
        for finding, matrix in details["confusion"].items()
    ]
    perfect = details.get("perfect_calibration", {})
    curves = [
        (finding, _calibration_caption(perfect.get(finding)), figures.calibration(bins, f"{readable(finding)}, {name}"))
        for finding, bins in details["calibration"].items()
        if bins
    ]
    return matrices + curves


def _calibration_caption(perfect: Sequence[float] | None) -> str:
    if perfect is None:
        return "calibration"
    mean, highest = map(percent, perfect)
    return f"calibration; of a perfect model, the error is {mean} in the mean and below {highest} in 95 %"


def _patients(inputs: PatientInputs, count: int) -> dict[str, Any]:
    shown, alignment = read_patients(inputs, count)
    changes = [change for patient in shown for study in patient.studies for change in study.changes]
    return {
        "alignment": alignment,
        "shown": [(patient, *_alignment_figures(patient)) for patient in shown],
        "has_changes": bool(changes),
        "has_predictions": any(change.predicted for change in changes),
    }


def _alignment_figures(patient: ShownPatient) -> tuple[Markup, Markup]:
    name = f"patient {patient.patient_id}"
    own = f"{patient.hits} of {patient.total} images have their own report on top"
    forward = f"Weights of each image on the reports, {name}: {own}."
    reverse = f"Where each image of {name} lands on the way to the reports and back."
    return (
        figures.alignment(patient.forward, down="image of study", across="report of study", alt=forward),
        figures.alignment(patient.reverse, down="start: image of study", across="landing: image of study", alt=reverse),
    )
