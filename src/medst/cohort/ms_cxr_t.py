"""MS-CXR-T 1.0.0: a benchmark cohort of image comparisons, with the images of MIMIC-CXR, and of sentence pairs."""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_cxr import METADATA, read_metadata
from medst.cohort.options import Options
from medst.cohort.raw_tables import digest, read_csv
from medst.cohort.store import open_cohort, read_meta
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import part_of

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
"""In the order of the confusion matrices."""
IMAGE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
APART_FILE = "MS_CXR_T_new_and_resolved_v1.0.0.csv"
"""Rows of new (worsening) and resolved (improving) findings, where a source keeps them apart; MS-CXR-T does not."""
APART = ", new or resolved"
"""Ends the finding of these rows."""
SENTENCE_FILE = "MS_CXR_T_temporal_sentence_similarity_v1.0.0.csv"
IDS = ("dicom_id", "previous_dicom_id", "subject_id", "study_id")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    images = _images(options)
    source = digest([*_image_files(raw), raw / SENTENCE_FILE])
    if part_of(images).exists() or read_meta(images) is not None:
        kind, source["images"] = "cohort", open_cohort(images).fingerprint
    else:
        kind, source = "raw", source | digest([images / METADATA])
    return {"dataset_version": "1.0.0", "options": {"images": kind, "decode": options.decode}, "source": source}


def _image_files(raw: Path) -> list[Path]:
    return [raw / IMAGE_FILE, *([raw / APART_FILE] if (raw / APART_FILE).exists() else [])]


def _images(options: Options) -> Path:
    if options.images is None:
        raise MedstError(
            "ms-cxr-t holds no pictures: give the MIMIC-CXR-JPG folder, or a mimic-cxr cohort, with --images."
        )
    return options.images


def read_comparisons(writer: Writer, raw: Path) -> pl.DataFrame:
    """Read the image tables in long form: one row per labelled finding. Rows without a finding or an id are rejected.

    Findings of `APART_FILE` end in `APART`.

    Returns:
        finding, patient_id, study_id, current_id, previous_id, progression, rows (of the image table).

    Raises:
        MedstError: a column is missing, or a progression is not one of `PROGRESSIONS`.
    """
    columns = [f"{finding}_progression" for finding in FINDINGS]
    tables = []
    for file, ending in zip(_image_files(raw), ("", APART), strict=False):
        table = writer.number_rows(read_csv(file, (*IDS, *columns)), f"{ending[2:5]}:" if ending else "")
        tables.append(table.with_columns(path=pl.lit(file.name), ending=pl.lit(ending)))
    wide = pl.concat(tables, how="diagonal").with_columns(
        pl.col(columns).str.strip_chars().replace("", None), image_id="dicom_id"
    )
    wide = writer.reject_where(
        wide,
        "row",
        (pl.any_horizontal(pl.col(IDS).is_null()), "an id is missing"),
        (pl.all_horizontal(pl.col(columns).is_null()), "no finding has a progression"),
    )
    long = (
        wide.with_row_index("line")
        .unpivot(columns, index=["line", "rows", "path", "ending", *IDS])
        .filter(pl.col("value").is_not_null())
        .sort(pl.col("variable").str.strip_suffix("_progression"), "line")
        .select(
            finding=pl.col("variable").str.strip_suffix("_progression") + pl.col("ending"),
            patient_id="p" + pl.col("subject_id").str.strip_prefix("p"),
            study_id="s" + pl.col("study_id").str.strip_prefix("s"),
            current_id="dicom_id",
            previous_id="previous_dicom_id",
            progression=pl.col("value").str.to_lowercase(),
            rows="rows",
            path="path",
        )
    )
    odd = long.filter(~pl.col("progression").is_in(PROGRESSIONS))
    if odd.height:
        file, value = raw / odd["path"][0], odd["progression"][0]
        raise MedstError(f"{file}: '{value}' is not a progression; it must be one of {', '.join(PROGRESSIONS)}.")
    still = long.filter(pl.col("finding").str.ends_with(APART), progression="stable")
    if still.height:
        raise MedstError(f"{raw / APART_FILE}: 'stable' is neither new (worsening) nor resolved (improving).")
    return long.drop("path")


def read_sentences(raw: Path) -> pl.DataFrame:
    """Read the sentence pairs: sentence_1, sentence_2, category, subset.

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


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    images = _images(options)
    comparisons, sentences = read_comparisons(writer, raw), read_sentences(raw)
    ids = pl.concat([comparisons["current_id"], comparisons["previous_id"]]).unique().sort().rename("image_id")
    if read_meta(images) is None:
        # The benchmark's images are all frontal, whatever view the metadata gives.
        known = read_metadata(images).filter(~pl.col("again") & pl.col("path").is_not_null())
        known = known.with_columns(view=pl.lit("frontal"))
        source, missed = None, "not in the metadata of the images"
        writer.seen["row"] += len(ids)
    else:
        source = open_cohort(images)
        known = source.image_table.filter(status="ok")
        missed = "not in the cohort given for images, which has only those with a report; the raw images have all"
        del writer.seen["row"]  # such images are expected to be missing, so no share of them is too large
    wanted = known.join(ids.to_frame(), on="image_id", how="semi").sort("image_id")
    missing = ids.filter(~ids.is_in(wanted["image_id"].to_list()))
    writer.reject("row", missing, None, missed)
    if wanted.is_empty():
        raise MedstError(f"{images} holds none of the {len(ids)} images that {raw / IMAGE_FILE} names.")
    stored = writer.copy_images(source, wanted) if source else writer.write_images(images, wanted)

    rows = stored.filter(status="ok").select("image_id", "row")
    tied = comparisons
    for name in ("current", "previous"):
        column = rows.select(pl.col("image_id").alias(f"{name}_id"), pl.col("row").alias(name))
        tied = tied.join(column, on=f"{name}_id", maintain_order="left")
    tied = tied.select("finding", "patient_id", "study_id", "current", "previous", "progression", "rows")
    untied = comparisons.join(tied, on="rows", how="anti", maintain_order="left").unique("rows", maintain_order=True)
    writer.reject("unused", untied["current_id"], None, "one of its two images is left out", untied["rows"])
    kept = tied["rows"].unique(maintain_order=True)
    counts = {
        "patients": tied["patient_id"].n_unique(),
        "images": rows.height,
        "comparisons": tied.height,
        **{f"{finding}_comparisons": tied.filter(finding=finding).height for finding in FINDINGS},
        "new_or_resolved_comparisons": tied.filter(pl.col("finding").str.ends_with(APART)).height,
        "comparisons_without_image": comparisons.height - tied.height,
        "sentence_pairs": sentences.height,
    }
    return writer.finish(stored, {"comparisons": tied.drop("rows"), "sentences": sentences}, counts, kept)
