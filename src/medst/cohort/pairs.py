"""Write a cohort of pairs; shared by all data sets with reports.

Each frontal image makes a pair, so two frontal images of a study are two pairs unless one per study is asked for. The
study's first lateral image belongs to each. Whatever is left out is in rejected.csv, with remarks on what is kept.
"""

from pathlib import Path
from typing import Any, Literal

import polars as pl

from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import sha256

SPLITS = ("train", "valid", "test")
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *("Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax"),
    "Support Devices",
)
PAIR_COLUMNS = ("patient_id", "study_id", "time", "split", "report", "frontal", "lateral", "labels")


def write_pairs(
    writer: Writer,
    root: Path,
    images: pl.DataFrame,
    texts: pl.DataFrame,
    labels: pl.DataFrame | None,
    frontal: Literal["all", "one-per-study"],
) -> dict[str, Any]:
    """Read the images and write the cohort; return the content of cohort.json.

    Args:
        writer: of the cohort.
        root: folder that the paths of images are relative to.
        images: image_id (unique), patient_id, study_id, view (frontal or lateral), view_position, time, split, path, rows
            (of the raw table, see `Rejections.number_rows`; null for an image that is not a row). Only images that can be
            used. A study's first lateral is the first in this order.
        texts: study_id, path and the fields of `medst.cohort.report_text.Text`; loses_letters may be missing.
        labels: study_id and labels, a struct of `LABELS`; None if the data set has none.
        frontal: whether all frontal images of a study make a pair, or one.

    Raises:
        MedstError: no study has both a frontal image and a usable report.
    """
    for kind in ("report", "text"):
        noted = texts.filter((pl.col("reason") != "") & (pl.col("kind") == kind))
        writer.reject(kind, noted["study_id"], noted["path"], noted["reason"])
    writer.seen["report"] = texts.height
    usable = texts.filter(pl.col("report").is_not_null()).select("study_id", "report")
    frontals = images.filter(view="frontal")
    if frontal == "one-per-study":
        frontals = one_per_study(frontals)
    first_lateral = images.filter(view="lateral").unique("study_id", keep="first", maintain_order=True)
    wanted = pl.concat([frontals, first_lateral.join(frontals, on="study_id", how="semi", maintain_order="left")])
    wanted = wanted.join(usable, on="study_id", how="semi", maintain_order="left")
    if wanted.is_empty():
        raise MedstError(
            f"No study has both a frontal image in {root} and a usable report; check the images and the reports."
        )
    _note_unused(writer, images, frontals, first_lateral, wanted)
    writer.check_all_rows(wanted["rows"])
    ordered = wanted.sort("patient_id", "time", "study_id", "view", maintain_order=True)
    stored = writer.write_images(root, ordered)

    rows = stored.filter(status="ok").select("image_id", "row")
    kept = ordered.join(rows, on="image_id", how="semi")["rows"]
    lateral_rows = first_lateral.join(rows, on="image_id").select("study_id", lateral="row")
    pairs = (
        frontals.join(usable, on="study_id", maintain_order="left")
        .join(rows.rename({"row": "frontal"}), on="image_id")
        .join(lateral_rows, on="study_id", how="left")
        .join(pl.DataFrame(schema=labels_schema()) if labels is None else labels, on="study_id", how="left")
        .select(PAIR_COLUMNS)
        .sort("patient_id", "time", "study_id", "frontal")
    )
    counts = {
        "patients": pairs["patient_id"].n_unique(),
        "studies": pairs["study_id"].n_unique(),
        "pairs": pairs.height,
        "laterals": pairs["lateral"].count(),
        "images": rows.height,
        **{f"{split}_pairs": pairs.filter(split=split).height for split in SPLITS},
    }
    if "loses_letters" in texts.columns and texts["loses_letters"].any():
        counts["reports_losing_letters"] = int(texts["loses_letters"].sum())
    if writer.header.get("time") != "order":
        counts["same_minute_studies"] = _note_same_minute(writer, pairs)
    return writer.finish(stored, {"pairs": pairs}, counts, kept)


def _note_unused(
    writer: Writer, images: pl.DataFrame, frontals: pl.DataFrame, first_lateral: pl.DataFrame, wanted: pl.DataFrame
) -> None:
    """Reject the images that are intact but have no place in the cohort."""
    lateral, study = pl.col("view") == "lateral", pl.col("study_id")
    reason = (
        pl.when(lateral & ~study.is_in(frontals["study_id"].unique().to_list()))
        .then(pl.lit("its study has no frontal image"))
        .when(lateral & ~pl.col("image_id").is_in(first_lateral["image_id"].to_list()))
        .then(pl.lit("an earlier lateral image of its study is used"))
        .when(~lateral & ~pl.col("image_id").is_in(frontals["image_id"].to_list()))
        .then(pl.lit("another frontal image of its study is used, as --frontal one-per-study asks"))
        .otherwise(pl.lit("its study has no usable report"))
    )
    unused = images.join(wanted, on="image_id", how="anti", maintain_order="left").with_columns(reason=reason)
    writer.reject("unused", unused["image_id"], unused["path"], unused["reason"], unused["rows"])


def one_per_study(frontals: pl.DataFrame) -> pl.DataFrame:
    """The first PA image of each study, or its first AP image, or its first; in the order of the table."""
    rank = pl.col("view_position").replace_strict({"PA": 0, "AP": 1}, default=2, return_dtype=pl.Int32)
    kept = frontals.with_row_index("place").sort(rank, "place").unique("study_id", keep="first")
    return kept.sort("place").drop("place")


def labels_schema() -> dict[str, Any]:
    """Schema of a table of labels."""
    return {"study_id": pl.String, "labels": pl.Struct(dict.fromkeys(LABELS, pl.Float32))}


def read_labels(writer: Writer, table: pl.DataFrame, place: str, names: tuple[str, ...] = LABELS) -> pl.DataFrame:
    """Convert texts of labels to numbers: 1 present, 0 absent, -1 uncertain, null not mentioned.

    The first value that a study has for a label counts; others are noted in rejected.csv.

    Args:
        writer: of the cohort.
        table: study_id, and texts of some or all of `names`.
        place: the table's path, for error messages.
        names: of the labels; those without a column are null.

    Returns:
        study_id and labels, a struct of float32; one row per study.

    Raises:
        MedstError: a label has another value.
    """
    missing = [pl.lit(None, dtype=pl.String).alias(name) for name in names if name not in table.columns]
    texts = table.with_columns(missing).select("study_id", *names)
    values = texts.with_columns(pl.col(names).cast(pl.Float32, strict=False))
    first = pl.col(names).drop_nulls().first()
    for name in names:
        odd = texts.filter(texts[name].is_not_null() & ~values[name].is_in([0.0, 1.0, -1.0]).fill_null(False))
        if odd.height:
            raise MedstError(f"{place}: '{odd[name][0]}' is not a value of {name}; a label is 1.0, 0.0, -1.0 or empty.")
        other = values.filter(pl.col(name) != pl.col(name).drop_nulls().first().over("study_id"))
        writer.reject(
            "row", other["study_id"], None, f"kept; an earlier row of its study has another {name}, which counts"
        )
    firsts = values.group_by("study_id", maintain_order=True).agg(first)
    return firsts.select("study_id", labels=pl.struct(names))


def _note_same_minute(writer: Writer, pairs: pl.DataFrame) -> int:
    """Note a patient's studies of the same minute, which are ordered by seconds, then by id; return how many there are."""
    minute = pl.col("time").dt.truncate("1m")
    together = pl.col("study_id").str.join(", ").over("patient_id", minute)
    reason = pl.format("kept; {} have the same minute: ordered by second, then by study id", together)
    studies = pairs.unique("study_id", keep="first", maintain_order=True).with_columns(reason=reason)
    same = studies.filter(pl.struct("patient_id", minute).is_duplicated())
    writer.reject("study", same["study_id"], None, same["reason"])
    return same.height


def draw_splits(patients: pl.Series) -> pl.Series:
    """Draw a split for each id of a patient, by a hash of the id: 80 % train, 10 % valid, 10 % test.

    The split does not depend on the order or on other patients, so a data set that grows keeps its splits.

    >>> draw_splits(pl.Series(["c", "a", "c"])).to_list()
    ['valid', 'train', 'valid']
    """
    unique = patients.unique().sort()
    shares = [int(sha256(str(name).encode())[:16], 16) / 2**64 for name in unique]
    names = ["test" if share < 0.1 else "valid" if share < 0.2 else "train" for share in shares]
    return patients.replace_strict(unique, pl.Series(names, dtype=pl.String), return_dtype=pl.String)
