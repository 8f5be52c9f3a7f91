"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 to a cohort of pairs, by the released rules (docs/method.md)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import polars as pl

from medst.cohort.reports import hand_made_studies, report_text
from medst.cohort.store import Progress, Writer
from medst.cohort.tables import read_table, study_time
from medst.errors import MedstError

PREFIX = "mimic-cxr-2.0.0"
FRONTAL, LATERAL = ("PA", "AP"), ("LL", "LATERAL")
PAIR_COLUMNS = ("patient_id", "study_id", "time", "split", "report", "frontal", "lateral", "labels")
REPORT_BLOCK = 2000


@dataclass(frozen=True)
class Tables:
    """What the CSV files say.

    Attributes:
        images: a row a frontal or lateral image, in metadata order: image_id, patient_id, study_id, path, view,
            view_position, time, split.
        labels: study_id and `labels`, a struct of the CheXpert columns.
        version: of the data set, as far as its folder tells.
    """

    images: pl.DataFrame
    labels: pl.DataFrame
    version: str


def read_tables(raw: Path) -> Tables:
    """Read the three tables of a MIMIC-CXR-JPG folder.

    Raises:
        MedstError: the folder or a table is missing, lacks a column, or names an image twice.
    """
    if not raw.is_dir():
        raise MedstError(f"{raw}: no such folder; give the one that holds files/ and {PREFIX}-metadata.csv.gz.")
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    metadata = read_table(raw / f"{PREFIX}-metadata.csv.gz", columns)
    split = read_table(raw / f"{PREFIX}-split.csv.gz", ("dicom_id", "split"))
    chexpert = read_table(raw / f"{PREFIX}-chexpert.csv.gz", ("subject_id", "study_id"))
    for name, table in (("metadata", metadata), ("split", split)):
        twice = table.filter(pl.col("dicom_id").is_duplicated())
        if twice.height:
            raise MedstError(f"{raw / f'{PREFIX}-{name}.csv.gz'} names image {twice['dicom_id'][0]} more than once.")
    images = (
        metadata.filter(pl.col("ViewPosition").is_in([*FRONTAL, *LATERAL]))
        .join(split.select("dicom_id", "split"), on="dicom_id", how="left", maintain_order="left")
        .select(
            image_id="dicom_id",
            patient_id="p" + pl.col("subject_id"),
            study_id="s" + pl.col("study_id"),
            view=pl.when(pl.col("ViewPosition").is_in(FRONTAL)).then(pl.lit("frontal")).otherwise(pl.lit("lateral")),
            view_position="ViewPosition",
            time=study_time(pl.col("StudyDate"), pl.col("StudyTime")),
            split=pl.col("split").replace("validate", "valid"),
        )
        .with_columns(path=image_path())
    )
    names = [c for c in chexpert.columns if c not in ("subject_id", "study_id")]
    labels = chexpert.unique("study_id", keep="first", maintain_order=True).select(
        study_id="s" + pl.col("study_id"),
        labels=pl.struct(pl.col(name).cast(pl.Float32, strict=False) for name in names),
    )
    return Tables(images, labels, _version(raw))


def image_path() -> pl.Expr:
    """Path of an image below the data set's folder."""
    return pl.concat_str(study_path(), pl.lit("/"), pl.col("image_id"), pl.lit(".jpg"))


def study_path() -> pl.Expr:
    """Path of a study's folder below the data set's; its report is beside it, with the ending .txt."""
    return pl.format("files/{}/{}/{}", pl.col("patient_id").str.slice(0, 3), "patient_id", "study_id")


def _version(raw: Path) -> str:
    return next((v for v in ("2.1.0", "2.0.0") if v in (raw.name, raw.resolve().name)), "unknown")


def find_reports(raw: Path, given: Path | None, studies: pl.DataFrame) -> Path:
    """The folder below which the reports are.

    Args:
        raw: the data set's folder.
        given: where the user says they are.
        studies: patient_id and study_id of studies that should have one.

    Raises:
        MedstError: there are none; the sentence says where reports come from.
    """
    sample = studies.head(200).select(path=study_path() + ".txt")["path"].to_list()
    siblings = [raw.parent / name for name in ("mimic-cxr-reports", "mimic-cxr", "reports")]
    places = [given] if given else [raw, *(raw / p.name for p in siblings), *siblings]
    for place in places:
        for root in (place, place.parent if place.name == "files" else place):
            if any((root / path).is_file() for path in sample):
                return root
    looked = ", ".join(str(place) for place in places)
    raise MedstError(
        f"No report found (looked for {sample[0] if sample else 'files/p10/...'} below {looked}). MIMIC-CXR-JPG holds none: "
        "they are mimic-cxr-reports.zip of the MIMIC-CXR project on PhysioNet (135 MB); unpack it beside RAW, "
        "or give its folder with --reports."
    )


def _read_reports(paths: list[Path]) -> list[tuple[str | None, str]]:
    found = []
    for path in paths:
        try:
            # The reports are UTF-8 with a few broken bytes, which the cleaning drops like any other non-ASCII letter.
            found.append(report_text(path.read_bytes().decode("utf-8", errors="replace")))
        except FileNotFoundError:
            found.append((None, "no report file"))
    return found


def read_reports(root: Path, studies: pl.DataFrame, workers: int) -> pl.DataFrame:
    """The text of every study.

    Args:
        root: folder below which the reports are.
        studies: patient_id and study_id.
        workers: processes; 0: one a core.

    Returns:
        `studies` with path, report (null where there is no usable text) and reason (empty where there is).
    """
    table = studies.with_columns(path=study_path() + ".txt")
    paths = [root / path for path in table["path"]]
    blocks = [paths[start : start + REPORT_BLOCK] for start in range(0, len(paths), REPORT_BLOCK)]
    jobs = workers or -1 if len(blocks) > 1 else 1  # starting processes costs more than a block of small files
    found = [
        text for block in joblib.Parallel(n_jobs=jobs)(map(joblib.delayed(_read_reports), blocks)) for text in block
    ]
    hand_made = pl.col("study_id").is_in(list(hand_made_studies()))
    cut_by_hand = pl.lit("its text is cut by a hand-made rule, which the released table lacks")
    return table.with_columns(
        pl.Series("report", [text for text, _ in found], dtype=pl.String),
        pl.Series("reason", [reason for _, reason in found], dtype=pl.String),
    ).with_columns(
        report=pl.when(hand_made).then(None).otherwise("report"),
        reason=pl.when(hand_made).then(cut_by_hand).otherwise("reason"),
    )


def prepare(
    writer: Writer, raw: Path, *, reports: Path | None, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    tables = read_tables(raw)
    writer.header["dataset_version"] = tables.version
    images = tables.images
    writer.reject_where(images, pl.col("split").is_null(), "row", "not in the split table")
    writer.reject_where(images, pl.col("time").is_null(), "row", "StudyDate and StudyTime are no time")
    images = images.filter(pl.col("split").is_not_null() & pl.col("time").is_not_null())

    frontal = images.filter(view="frontal")
    studies = frontal.select("patient_id", "study_id").unique(maintain_order=True)
    if studies.is_empty():
        raise MedstError(f"{raw}: the tables name no frontal image (ViewPosition PA or AP).")
    texts = read_reports(find_reports(raw, reports, studies), studies, workers)
    left_out = texts.filter(pl.col("report").is_null())
    writer.reject("report", left_out["study_id"], left_out["path"], left_out["reason"])
    frontal = frontal.join(
        texts.filter(pl.col("report").is_not_null()).select("study_id", "report"),
        on="study_id",
        maintain_order="left",
    )
    first_lateral = (
        images.filter(view="lateral")
        .unique("study_id", keep="first", maintain_order=True)
        .filter(pl.col("study_id").is_in(frontal["study_id"].unique().to_list()))
    )
    wanted = pl.concat([frontal.drop("report"), first_lateral]).sort(
        "patient_id", "time", "study_id", "view", maintain_order=True
    )
    if wanted.is_empty():
        raise MedstError(f"{raw}: no study has both a frontal image and a usable report; see --reports.")
    stored = writer.write_images(raw, wanted, workers, progress)

    rows = stored.filter(status="ok").select("image_id", "row")
    lateral_rows = first_lateral.join(rows, on="image_id").select("study_id", lateral="row")
    pairs = (
        frontal.join(rows.rename({"row": "frontal"}), on="image_id")
        .join(lateral_rows, on="study_id", how="left")
        .join(tables.labels, on="study_id", how="left")
        .select(PAIR_COLUMNS)
        .sort("patient_id", "time", "study_id", "frontal")
    )
    _note_same_minute(writer, pairs)
    counts = {
        "patients": pairs["patient_id"].n_unique(),
        "studies": pairs["study_id"].n_unique(),
        "pairs": pairs.height,
        "laterals": pairs["lateral"].count(),
        "images": rows.height,
        **{f"{split}_pairs": pairs.filter(split=split).height for split in ("train", "valid", "test")},
    }
    return writer.finish(stored, {"pairs": pairs}, counts)


def _note_same_minute(writer: Writer, pairs: pl.DataFrame) -> None:
    """Two studies of a patient at the same minute stay, in the order of their ids, and are named."""
    studies = pairs.unique("study_id", maintain_order=True).with_columns(minute=pl.col("time").dt.truncate("1m"))
    same = studies.filter(pl.struct("patient_id", "minute").is_duplicated())
    writer.reject("study", same["study_id"], None, "kept, but at the same minute as another study; ordered by study id")
