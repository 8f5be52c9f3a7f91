"""Write synthetic patients in the raw layouts of MIMIC-CXR-JPG and MS-CXR-T."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from medst.errors import MedstError
from medst.files import write_bytes
from medst_phantom import ms_cxr_t
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.mimic_files import FRONTAL, LATERAL, PatientRecord, write_study, write_tables
from medst_phantom.output_folder import claimed, finish_tree, open_tree, record_path, write_all
from medst_phantom.radiograph import render_study, sample_acquisition
from medst_phantom.reports import Report, write_report
from medst_phantom.trajectory import FOLLOWED, FOLLOWED_SHARES, GENERAL, MAX_STUDIES, StudyTruth, sample_trajectory

JPG_FOLDER, MS_CXR_T_FOLDER = "mimic-cxr-jpg", "ms-cxr-t"
TRUTH = "ground_truth.parquet"
MOST_PATIENTS = 1_000_000  # so that eight-digit ids suffice

_ODD_VIEW_SHARE = 0.01
_TRUTH_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "patient_id": pl.String,
    "study_id": pl.String,
    "time": pl.Datetime("us"),
    "split": pl.String,
    "finding": pl.String,
    "side": pl.String,
    "zone": pl.String,
    "severity": pl.Float64,
    "progression": pl.String,
}


def write_phantom(
    out: Path,
    *,
    patients: int = 1000,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    test_share: float = 0.2,
    valid_share: float = 0.1,
) -> dict:
    """Write a phantom cohort in the layouts of MIMIC-CXR-JPG and MS-CXR-T, with its ground truth.

    Args:
        out: a new or empty folder, or one that an earlier run with the same options began.
        patients: number of patients, 1 to 1,000,000; about 3.5 studies each.
        seed: the files depend only on this and the other options, not on `workers`.
        workers: processes; 0 means one per core.
        progress: called with (patients done, all patients), first with those that are already written.
        test_share, valid_share: shares of the patients in the test and the validate split.

    Returns:
        Counts: patients, studies, images, findings, sentences and patients by split; comparisons of a finding, matched
        ones, and those in which it is new or resolved.

    Raises:
        MedstError: an option is out of range, `out` holds something else or was begun with other options, or it
            cannot be written (a full disk, for instance); what is written is kept for the next run.
    """
    out = Path(out)
    options = {"patients": patients, "seed": seed, "test_share": test_share, "valid_share": valid_share}
    _check_options(options, workers)
    with claimed(out):
        finished = open_tree(out, options)
        if finished and progress:
            progress(patients, patients)
        if finished is None:
            drawn = _draw_splits(options), *_draw_ids(options)
            write_all(out, patients, workers, progress, partial(_write_patients, out.absolute(), seed, *drawn))
            finished = _finish(out, options)
    return finished


def _check_options(options: dict, workers: int) -> None:
    if not 1 <= options["patients"] <= MOST_PATIENTS:
        raise MedstError(f"patients is {options['patients']}: choose a number from 1 to {MOST_PATIENTS}.")
    if options["seed"] < 0:
        raise MedstError(f"seed is {options['seed']}: choose 0 or a positive number.")
    if workers < 0:
        raise MedstError(f"workers is {workers}: choose 0 for one per core, or a positive number.")
    test, valid = options["test_share"], options["valid_share"]
    if not (test >= 0 and valid >= 0 and test + valid <= 1):
        raise MedstError(
            f"test_share {test} and valid_share {valid} must not be negative, and their sum must not exceed 1."
        )


def _write_patients(
    out: Path, seed: int, splits: list[str], subjects: np.ndarray, studies: np.ndarray, indices: list[int]
) -> None:
    for index in indices:
        ids = int(subjects[index]), studies[index].tolist()
        record = _write_patient(out / JPG_FOLDER, seed, index, splits[index], *ids)
        write_bytes(record_path(out, index), record.to_json())


def _write_patient(
    root: Path, seed: int, index: int, split: str, subject_id: int, study_ids: list[int]
) -> PatientRecord:
    """Draw one patient's story and body, and write the studies."""
    # Three streams, so that a change to the pictures does not change the stories, or the other way round.
    story, body, files = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, index]).spawn(3))
    anatomy = sample_anatomy(body)
    background = sample_background(story, anatomy)
    trajectory = sample_trajectory(story, FOLLOWED if story.random() < FOLLOWED_SHARES[split] else GENERAL)
    records = []
    report: Report | None = None
    for study, study_id in zip(trajectory, study_ids, strict=False):
        report = write_report(study, background, story, report)
        taken = _views_taken(study, files)
        acquisitions = [sample_acquisition(view, body) for view, _ in taken]
        pixels = render_study(anatomy, study.present, acquisitions, study.devices)
        images = [(position, image) for (_, position), image in zip(taken, pixels, strict=True)]
        records.append(write_study(root, subject_id, study_id, study, report, images, files))
    return PatientRecord(subject_id, tuple(records))


def _views_taken(study: StudyTruth, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(view to draw, view position to record); a few positions are unknown to any reader, as in MIMIC."""
    taken = [(view, view) for view in study.views]
    if rng.random() < _ODD_VIEW_SHARE:
        taken.append(("AP", "" if rng.random() < 0.7 else "AP AXIAL"))
    return taken


def _cohort_rng(seed: int, stream: int) -> np.random.Generator:
    # A spawn key keeps these apart from the patients' generators, whose entropy is (seed, patient index).
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))


def _draw_ids(options: dict) -> tuple[np.ndarray, np.ndarray]:
    """Subject ids (patients,), ascending, and study ids (patients, 8), unordered; all different."""
    rng = _cohort_rng(options["seed"], 0)
    count = options["patients"]
    subjects = 10_000_000 + np.sort(rng.choice(10_000_000, count, replace=False))
    studies = 50_000_000 + rng.choice(10_000_000, count * MAX_STUDIES, replace=False)
    return subjects, studies.reshape(count, MAX_STUDIES)


def _draw_splits(options: dict) -> list[str]:
    count = options["patients"]
    test, valid = round(count * options["test_share"]), round(count * options["valid_share"])
    names = ["test"] * test + ["validate"] * min(valid, count - test)
    names += ["train"] * (count - len(names))
    return [names[i] for i in _cohort_rng(options["seed"], 1).permutation(count)]


def _finish(out: Path, options: dict) -> dict:
    """Write the tables from the patients' records, and `phantom.json` last."""
    splits = _draw_splits(options)

    def records() -> Iterator[tuple[PatientRecord, str]]:
        for index, split in enumerate(splits):
            yield PatientRecord.from_json(record_path(out, index).read_bytes()), split

    write_tables(out / JPG_FOLDER, records)
    folder = out / MS_CXR_T_FOLDER
    folder.mkdir(exist_ok=True)
    tested = [patient for patient, split in records() if split == "test"]
    severities = [ms_cxr_t.severities_of(patient) for patient in tested]
    compared = {}
    chosen = ms_cxr_t.comparisons(severities, _cohort_rng(options["seed"], 3))
    for name, file, ones in zip(
        ("comparisons", "new_and_resolved"), (ms_cxr_t.IMAGE_FILE, ms_cxr_t.APART_FILE), chosen, strict=True
    ):
        ms_cxr_t.write_csv(folder / file, ms_cxr_t.IMAGE_COLUMNS, ms_cxr_t.image_rows(tested, ones))
        compared[name] = len(ones)
    pairs = ms_cxr_t.sentence_rows(_cohort_rng(options["seed"], 2))
    sentences = ms_cxr_t.write_csv(folder / ms_cxr_t.SENTENCE_FILE, ms_cxr_t.SENTENCE_COLUMNS, pairs)
    truth = pl.DataFrame(
        [row for patient, split in records() for row in _truth_rows(patient, split)],
        schema=_TRUTH_SCHEMA,
        orient="row",
    )
    packed = io.BytesIO()
    truth.write_parquet(packed)
    write_bytes(out / TRUTH, packed.getvalue())
    counts = _count(records()) | {
        "findings": len(truth),
        **compared,
        "sentences": sentences,
    }
    return finish_tree(out, options, counts)


def _truth_rows(patient: PatientRecord, split: str) -> Iterator[tuple]:
    for study in patient.studies:
        for entry in study.truth:
            yield (
                str(patient.subject_id),
                str(study.study_id),
                study.when,
                split,
                entry["finding"],
                entry["side"],
                entry["zone"],
                entry["severity"],
                entry["progression"],
            )


def _count(records: Iterator[tuple[PatientRecord, str]]) -> dict:
    counts = dict.fromkeys(("patients", "studies", "frontal_images", "lateral_images", "other_images"), 0)
    counts |= dict.fromkeys(("train_patients", "validate_patients", "test_patients"), 0)
    for patient, split in records:
        counts["patients"] += 1
        counts[f"{split}_patients"] += 1
        counts["studies"] += len(patient.studies)
        for image in (image for study in patient.studies for image in study.images):
            view = "frontal" if image.view_position in FRONTAL else "other"
            counts[f"{'lateral' if image.view_position in LATERAL else view}_images"] += 1
    return counts
