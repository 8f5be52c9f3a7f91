"""From what a data set says of its images, studies and reports to a cohort of pairs: the same for every data set.

A pair is a frontal image, so that two frontal images of a study are two pairs unless one a study is asked for; the study's
first lateral image goes with each. What is left out is in rejected.csv, together with what was kept and should be known:
kind `study` names studies of the same minute, whose order rests on seconds and study ids.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from medst.cohort.writer import Writer
from medst.errors import MedstError

SPLITS = ("train", "valid", "test")
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *(
        "Lung Opacity",
        "No Finding",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
        "Support Devices",
    ),
)
PAIR_COLUMNS = ("patient_id", "study_id", "time", "split", "report", "frontal", "lateral", "labels")
BEST_FIRST = ("PA", "AP")


@dataclass
class Sources:
    """What a data set says.

    Attributes:
        images: image_id (unique), patient_id, study_id, view (frontal or lateral), view_position, time, split, path,
            rows (of the raw table, see `Rejections.number_rows`; null for an image that is not a row); no image that can't
            take part. A study's first lateral is the first in this order.
        texts: study_id, path, report (null where there is none), reason (why there is none, or what to know) and kind:
            `report` where the copy is damaged, `text` where the rules leave a whole report out.
        labels: study_id and labels, a struct of `LABELS`; None where the data set has none.
        timed: whether `time` is time; else it only orders a patient's studies.
        losing: reports that lose letters in the released cleaning, see `report_text.loses_letters`.
    """

    images: pl.DataFrame
    texts: pl.DataFrame
    labels: pl.DataFrame | None
    timed: bool = True
    losing: int = 0


def write_pairs(
    writer: Writer, root: Path, sources: Sources, frontal: Literal["all", "one-per-study"], nothing: str
) -> dict[str, Any]:
    """Read the pictures and write the cohort.

    Args:
        writer: of the cohort.
        root: what the paths of images are relative to.
        sources: what the data set says.
        frontal: a pair for each frontal image of a study, or for one.
        nothing: sentence for the user where no study has both a frontal image and a usable report.

    Returns:
        The content of cohort.json.

    Raises:
        MedstError: there is nothing to learn from.
    """
    images, texts = sources.images, sources.texts
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
        raise MedstError(nothing)
    _note_unused(writer, images, frontals, first_lateral, wanted)
    writer.check_all_rows(wanted["rows"])
    ordered = wanted.sort("patient_id", "time", "study_id", "view", maintain_order=True)
    stored = writer.write_images(root, ordered)

    rows = stored.filter(status="ok").select("image_id", "row")
    kept = ordered.join(rows, on="image_id", how="semi")["rows"]
    lateral_rows = first_lateral.join(rows, on="image_id").select("study_id", lateral="row")
    labels = pl.DataFrame(schema=labels_schema()) if sources.labels is None else sources.labels
    pairs = (
        frontals.join(usable, on="study_id", maintain_order="left")
        .join(rows.rename({"row": "frontal"}), on="image_id")
        .join(lateral_rows, on="study_id", how="left")
        .join(labels, on="study_id", how="left")
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
    if sources.losing:
        counts["reports_losing_letters"] = sources.losing
    if sources.timed:
        counts["same_minute_studies"] = _note_same_minute(writer, pairs)
    return writer.finish(stored, {"pairs": pairs}, counts, kept)


def _note_unused(
    writer: Writer, images: pl.DataFrame, frontals: pl.DataFrame, first_lateral: pl.DataFrame, wanted: pl.DataFrame
) -> None:
    """Name the images that have no place in the cohort although nothing is wrong with them."""
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
    rank = pl.col("view_position").replace_strict(
        {view: rank for rank, view in enumerate(BEST_FIRST)}, default=len(BEST_FIRST), return_dtype=pl.Int32
    )
    kept = frontals.with_row_index("place").sort(rank, "place").unique("study_id", keep="first")
    return kept.sort("place").drop("place")


def labels_schema() -> dict[str, Any]:
    """Schema of a table of labels."""
    return {"study_id": pl.String, "labels": pl.Struct(dict.fromkeys(LABELS, pl.Float32))}


def read_labels(writer: Writer, table: pl.DataFrame, place: str, names: tuple[str, ...] = LABELS) -> pl.DataFrame:
    """Texts of labels as numbers: 1 present, 0 absent, -1 uncertain, null not mentioned.

    The first value that a study has for a label counts; another one is noted in `writer`.

    Args:
        writer: of the cohort.
        table: study_id, and those of `names` that there are, as texts.
        place: of the table, for the sentence of an error.
        names: of the labels; those without a column are null.

    Returns:
        study_id and labels, a struct of float32, one row per study.

    Raises:
        MedstError: another value.
    """
    known = [name for name in names if name in table.columns]
    values = table.select(pl.col(name).cast(pl.Float32, strict=False) for name in known)
    for name in known:
        odd = table.filter(table[name].is_not_null() & ~values[name].is_in([0.0, 1.0, -1.0]).fill_null(False))
        if odd.height:
            raise MedstError(f"{place}: '{odd[name][0]}' is no value for {name}; a label is 1.0, 0.0, -1.0 or empty.")
    whole = values.with_columns(pl.lit(None, dtype=pl.Float32).alias(name) for name in names if name not in known)
    whole = whole.select(names).with_columns(study_id=table["study_id"])
    first = pl.col(names).drop_nulls().first()
    for name in known:
        other = whole.filter(pl.col(name) != pl.col(name).drop_nulls().first().over("study_id"))
        writer.reject(
            "row", other["study_id"], None, f"kept; an earlier row of its study has another {name}, which counts"
        )
    firsts = whole.group_by("study_id", maintain_order=True).agg(first)
    return firsts.select("study_id", labels=pl.struct(names))


def _note_same_minute(writer: Writer, pairs: pl.DataFrame) -> int:
    """Studies of a patient in the same minute stay, in the order of seconds, then of ids, and are named; how many."""
    minute = pl.col("time").dt.truncate("1m")
    same = (
        pairs.unique("study_id", keep="first", maintain_order=True)
        .with_columns(minute=minute, together=pl.col("study_id").str.join(", ").over("patient_id", minute))
        .filter(pl.struct("patient_id", "minute").is_duplicated())
        .with_columns(
            reason=pl.format("kept; {} have the same minute: ordered by second, then by study id", "together")
        )
    )
    writer.reject("study", same["study_id"], None, same["reason"])
    return same.height
