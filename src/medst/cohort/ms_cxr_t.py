"""MS-CXR-T 1.0.0 to a benchmark cohort: image comparisons tied to MIMIC-CXR's pictures, and sentence pairs."""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_cxr import read_tables
from medst.cohort.store import Progress, Writer, open_cohort, read_meta
from medst.cohort.tables import read_table
from medst.errors import MedstError

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
IMAGE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
SENTENCE_FILE = "MS_CXR_T_temporal_sentence_similarity_v1.0.0.csv"


def read_comparisons(raw: Path) -> pl.DataFrame:
    """The image table in long form: a row a labelled finding, with the dicom ids of both images.

    Raises:
        MedstError: a column is missing or a progression is none of the three.
    """
    columns = [f"{finding}_progression" for finding in FINDINGS]
    file = raw / IMAGE_FILE
    wide = read_table(file, ("dicom_id", "previous_dicom_id", "subject_id", "study_id", *columns))
    long = (
        wide.with_row_index("line")
        .unpivot(columns, index=["line", "dicom_id", "previous_dicom_id", "subject_id", "study_id"])
        .filter(pl.col("value").is_not_null() & (pl.col("value").str.strip_chars() != ""))
        .select(
            "line",
            finding=pl.col("variable").str.strip_suffix("_progression"),
            patient_id="p" + pl.col("subject_id").str.strip_prefix("p"),
            study_id="s" + pl.col("study_id").str.strip_prefix("s"),
            current_id="dicom_id",
            previous_id="previous_dicom_id",
            progression=pl.col("value").str.strip_chars().str.to_lowercase(),
        )
        .sort("finding", "line")
        .drop("line")
    )
    odd = long.filter(~pl.col("progression").is_in(PROGRESSIONS))
    if odd.height:
        raise MedstError(
            f"{file}: '{odd['progression'][0]}' is no progression; it must be one of {', '.join(PROGRESSIONS)}."
        )
    return long


def read_sentences(raw: Path) -> pl.DataFrame:
    """Sentence pairs: sentence_1, sentence_2, category, subset.

    Raises:
        MedstError: a column is missing or a category is neither paraphrase nor contradiction.
    """
    file = raw / SENTENCE_FILE
    table = read_table(file, ("sentence_1", "sentence_2", "category", "subset_name"))
    odd = table.filter(~pl.col("category").is_in(["paraphrase", "contradiction"]).fill_null(False))
    if odd.height:
        raise MedstError(f"{file}: category '{odd['category'][0]}' is neither paraphrase nor contradiction.")
    return table.select("sentence_1", "sentence_2", "category", subset="subset_name")


def prepare(
    writer: Writer, raw: Path, *, images: Path | None, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    if not raw.is_dir():
        raise MedstError(f"{raw}: no such folder; give the one that holds {IMAGE_FILE}.")
    if images is None:
        raise MedstError(
            "ms-cxr-t holds no pictures: give the MIMIC-CXR-JPG folder, or a mimic-cxr cohort, with --images."
        )
    writer.header["dataset_version"] = "1.0.0"
    comparisons, sentences = read_comparisons(raw), read_sentences(raw)
    ids = pl.concat([comparisons["current_id"], comparisons["previous_id"]]).unique().sort()
    source = open_cohort(images) if read_meta(images) is not None else None
    known = read_tables(images).images if source is None else source.image_table.filter(status="ok")
    missing = ids.filter(~ids.is_in(known["image_id"].to_list()))
    writer.reject("row", missing, None, f"not among the readable images of {images.name}")
    wanted = known.filter(pl.col("image_id").is_in(ids.to_list())).sort("image_id")
    if wanted.is_empty():
        raise MedstError(f"{images} holds none of the {len(ids)} images that {raw / IMAGE_FILE} names.")
    if source is None:
        stored = writer.write_images(images, wanted, workers, progress)
    else:
        stored = writer.copy_images(source, wanted, progress)

    rows = stored.filter(status="ok").select("image_id", "row")
    tied = (
        comparisons.join(
            rows.rename({"row": "current"}), left_on="current_id", right_on="image_id", maintain_order="left"
        )
        .join(rows.rename({"row": "previous"}), left_on="previous_id", right_on="image_id", maintain_order="left")
        .select("finding", "patient_id", "study_id", "current", "previous", "progression")
    )
    counts = {
        "patients": tied["patient_id"].n_unique(),
        "images": rows.height,
        "comparisons": tied.height,
        **{f"{finding}_comparisons": tied.filter(finding=finding).height for finding in FINDINGS},
        "sentence_pairs": sentences.height,
    }
    return writer.finish(stored, {"comparisons": tied, "sentences": sentences}, counts)
