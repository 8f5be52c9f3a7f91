"""MS-CXR-T 1.0.0 to a benchmark cohort: image comparisons tied to MIMIC-CXR's pictures, and sentence pairs."""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_cxr import METADATA, read_metadata
from medst.cohort.options import Options
from medst.cohort.raw_tables import digest, read_csv
from medst.cohort.store import open_cohort, part_path, read_meta
from medst.cohort.writer import Writer
from medst.errors import MedstError

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
IMAGE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
OPTIONS = ("images", "decode")
SENTENCE_FILE = "MS_CXR_T_temporal_sentence_similarity_v1.0.0.csv"


def read_comparisons(writer: Writer, raw: Path) -> pl.DataFrame:
    """The image table in long form: one row per labelled finding, with the dicom ids of both images.

    A row of the table without a finding or an id is noted in `writer`.

    Returns:
        finding, patient_id, study_id, current_id, previous_id, progression, rows (of the image table).

    Raises:
        MedstError: a column is missing or a progression is none of the three.
    """
    columns = [f"{finding}_progression" for finding in FINDINGS]
    file = raw / IMAGE_FILE
    wide = read_csv(file, ("dicom_id", "previous_dicom_id", "subject_id", "study_id", *columns))
    wide = writer.number_rows(wide.with_columns(pl.col(columns).str.strip_chars().replace("", None)))
    wide = wide.with_columns(image_id="dicom_id", path=pl.lit(IMAGE_FILE))
    ids = ("dicom_id", "previous_dicom_id", "subject_id", "study_id")
    wide = writer.reject_where(wide, pl.any_horizontal(pl.col(ids).is_null()), "row", "an id is missing")
    wide = writer.reject_where(
        wide, pl.all_horizontal(pl.col(columns).is_null()), "row", "no finding has a progression"
    )
    long = (
        wide.with_row_index("line")
        .unpivot(columns, index=["line", "rows", *ids])
        .filter(pl.col("value").is_not_null())
        .select(
            "line",
            "rows",
            finding=pl.col("variable").str.strip_suffix("_progression"),
            patient_id="p" + pl.col("subject_id").str.strip_prefix("p"),
            study_id="s" + pl.col("study_id").str.strip_prefix("s"),
            current_id="dicom_id",
            previous_id="previous_dicom_id",
            progression=pl.col("value").str.to_lowercase(),
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
        MedstError: a column is missing, a sentence is empty or a category is neither paraphrase nor contradiction.
    """
    file = raw / SENTENCE_FILE
    table = read_csv(file, ("sentence_1", "sentence_2", "category", "subset_name"))
    odd = table.filter(~pl.col("category").is_in(["paraphrase", "contradiction"]).fill_null(False))
    if odd.height:
        raise MedstError(f"{file}: category '{odd['category'][0]}' is neither paraphrase nor contradiction.")
    if table.select("sentence_1", "sentence_2").null_count().sum_horizontal().item():
        raise MedstError(f"{file}: a sentence is empty.")
    return table.select("sentence_1", "sentence_2", "category", subset="subset_name")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of these folders is made from: the start of cohort.json.

    Raises:
        MedstError: a folder or table is missing, `options.images` is, or the cohort of the images is unfinished.
    """
    images = _images(options)
    source = digest([raw / IMAGE_FILE, raw / SENTENCE_FILE])
    if part_path(images).exists() or read_meta(images) is not None:
        return _header("cohort", options, source | {"images": open_cohort(images).fingerprint})
    return _header("raw", options, source | digest([images / METADATA]))


def _images(options: Options) -> Path:
    if options.images is None:
        raise MedstError(
            "ms-cxr-t holds no pictures: give the MIMIC-CXR-JPG folder, or a mimic-cxr cohort, with --images."
        )
    return options.images


def _header(images: str, options: Options, source: dict[str, str]) -> dict[str, Any]:
    recorded = options.record(OPTIONS) | {"images": images}
    return {"dataset": "ms-cxr-t", "dataset_version": "1.0.0", "options": recorded, "source": source}


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    images = _images(options)
    comparisons, sentences = read_comparisons(writer, raw), read_sentences(raw)
    ids = pl.concat([comparisons["current_id"], comparisons["previous_id"]]).unique().sort().rename("image_id")
    if read_meta(images) is None:
        # The benchmark's images are frontal ones, whatever view the metadata gives, if any.
        known = read_metadata(images).filter(~pl.col("again") & pl.col("path").is_not_null())
        known = known.with_columns(view=pl.lit("frontal"))
        source, missed = None, "not in the metadata of the images"
        writer.seen["row"] = len(writer.rows) + len(ids)
    else:
        source = open_cohort(images)
        known = source.image_table.filter(status="ok")
        missed = "not in the cohort given for images, which has only those with a report; the raw images have all"
    wanted = known.join(ids.to_frame(), on="image_id", how="semi").sort("image_id")
    missing = ids.filter(~ids.is_in(wanted["image_id"].to_list()))
    writer.reject("row", missing, None, missed)
    if wanted.is_empty():
        raise MedstError(f"{images} holds none of the {len(ids)} images that {raw / IMAGE_FILE} names.")
    if source is None:
        stored = writer.write_images(images, wanted)
    else:
        stored = writer.copy_images(source, wanted)

    rows = stored.filter(status="ok").select("image_id", "row")
    tied = (
        comparisons.join(
            rows.rename({"row": "current"}), left_on="current_id", right_on="image_id", maintain_order="left"
        )
        .join(rows.rename({"row": "previous"}), left_on="previous_id", right_on="image_id", maintain_order="left")
        .select("finding", "patient_id", "study_id", "current", "previous", "progression", "rows")
    )
    untied = comparisons.join(tied, on="rows", how="anti", maintain_order="left").unique("rows", maintain_order=True)
    writer.reject("unused", untied["current_id"], None, "one of its two images is left out", untied["rows"])
    kept = tied["rows"].unique(maintain_order=True)
    counts = {
        "patients": tied["patient_id"].n_unique(),
        "images": rows.height,
        "comparisons": tied.height,
        **{f"{finding}_comparisons": tied.filter(finding=finding).height for finding in FINDINGS},
        "comparisons_without_image": comparisons.height - tied.height,
        "sentence_pairs": sentences.height,
    }
    return writer.finish(stored, {"comparisons": tied.drop("rows"), "sentences": sentences}, counts, kept)
