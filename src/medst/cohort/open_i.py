"""Open-i, the chest X-rays of Indiana University, to a cohort of pairs: XML reports, PNG or DICOM pictures.

It gives neither splits nor dates, and one study a patient, so that its sequences have one pair each: it serves to learn from
views and reports, not from time. Which image is frontal is in indiana_projections.csv or in the DICOM headers; PNG files by
themselves don't say.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from medst.cohort.dicom import read_element
from medst.cohort.guarded_decode import guarded
from medst.cohort.options import Options
from medst.cohort.pairs import Sources, write_pairs
from medst.cohort.raw_tables import read_csv
from medst.cohort.report_text import loses_letters, section_text
from medst.cohort.splits import draw_splits
from medst.cohort.unreadable_image import UnreadableImage, read_or_reason
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import sha256

OPTIONS = ("images", "frontal", "text", "decode", "intensity", "views")
PROJECTIONS = "indiana_projections.csv"
PICTURES = (".png", ".jpg", ".jpeg", ".dcm")
KEY = re.compile(r"(\d+)_(?:\d+_)?(IM-[\d-]+)")
"""What XML, PNG, DICOM and the projections call an image, in spite of their different prefixes."""
POSITIONS = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral"}
MOST_BYTES = 1_000_000


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this folder is made from: the start of cohort.json.

    Raises:
        MedstError: the folder or its reports are missing.
    """

    def contents() -> Iterator[bytes]:
        for path in find_reports(raw):
            content = read_or_reason(path, MOST_BYTES)
            yield f"{path.name}\n".encode()
            yield content.encode() if isinstance(content, str) else content

    return {
        "dataset": "open-i",
        "dataset_version": "NLMCXR",
        "options": options.record(OPTIONS),
        "source": {"reports": sha256(contents())},
        "time": "order",
    }


def find_reports(raw: Path) -> list[Path]:
    """The XML files below a folder, in the order of their numbers.

    Raises:
        MedstError: there is none.
    """
    if not raw.is_dir():
        raise MedstError(f"{raw}: no such folder; give the one that holds Open-i's reports and pictures.")
    found = [path for path in raw.rglob("*.xml") if path.is_file()]
    if not found:
        raise MedstError(
            f"{raw}: no XML report below it; unpack NLMCXR_reports.tgz there (openi.nlm.nih.gov, no account needed)."
        )
    return sorted(found, key=lambda path: (len(path.stem), path.stem))


def read_report(path: Path, whole: bool) -> dict[str, Any]:
    """One XML report.

    Returns:
        path, study_id (null where the file can't be read), images (ids), report, reason and kind as in `Sources.texts`,
        loses (whether the cleaning drops letters).
    """
    found: dict[str, Any] = {
        "path": path.name,
        "study_id": path.stem,
        "images": [],
        "report": None,
        "kind": "report",
        "loses": False,
    }
    data = read_or_reason(path, MOST_BYTES)
    if isinstance(data, str):
        return found | {"reason": data}
    # No report of this data set has a document type; one that does may expand without end.
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        return found | {"reason": "not an XML report of Open-i"}
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return found | {"reason": f"damaged XML ({error})"}
    uid = root.find(".//uId")
    name = uid.get("id") if uid is not None else None
    sections: dict[str, str] = {}
    for node in root.iter("AbstractText"):
        sections.setdefault((node.get("Label") or "").upper(), "".join(node.itertext()).strip())
    parts = sections.get("IMPRESSION", ""), sections.get("FINDINGS", "")
    report, reason = section_text(*parts, whole)
    images = [image.get("id") or "" for image in root.iter("parentImage")]
    if report and not any(images):
        report, reason = None, "the report names no image"
    return found | {
        "study_id": name or f"CXR{path.stem}",
        "images": images,
        "report": report,
        "reason": reason,
        "kind": "text",
        "loses": not whole and loses_letters(*parts),
    }


def key_of(name: str) -> str | None:
    """What is the same in all names of an image.

    >>> key_of("CXR1_1_IM-0001-4001"), key_of("1_IM-0001-4001.dcm.png"), key_of("notes.txt")
    ('1_IM-0001-4001', '1_IM-0001-4001', None)
    """
    found = KEY.search(name)
    return f"{found.group(1)}_{found.group(2)}" if found else None


def find_pictures(raw: Path, given: Path | None) -> dict[str, Path]:
    """Pictures below a folder by their key; PNG before JPEG before DICOM.

    Raises:
        MedstError: there is none.
    """
    root = given or raw
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        key = key_of(path.name) if path.suffix.lower() in PICTURES else None
        if key and (key not in found or _rank(path) < _rank(found[key])):
            found[key] = path
    if not found:
        raise MedstError(
            f"{root}: no picture of Open-i below it; unpack NLMCXR_png.tgz or NLMCXR_dcm.tgz there, or give --images."
        )
    return found


def _rank(path: Path) -> int:
    return PICTURES.index(path.suffix.lower())


def read_views(raw: Path, pictures: dict[str, Path]) -> dict[str, str]:
    """frontal or lateral for each key that a table or a DICOM header knows."""
    tables = [path for place in (raw, raw.parent) for path in sorted(place.glob(PROJECTIONS))]
    if not tables:
        tables = sorted(raw.rglob(PROJECTIONS))
    if tables:
        table = read_csv(tables[0], ("filename", "projection")).drop_nulls()
        known = zip(table["filename"], table["projection"].str.to_lowercase(), strict=True)
        return {key: view for name, view in known if (key := key_of(name)) and view in ("frontal", "lateral")}
    return {
        key: view for key, path in pictures.items() if path.suffix.lower() == ".dcm" and (view := _dicom_view(path))
    }


def _dicom_view(path: Path) -> str | None:
    try:
        return POSITIONS.get(guarded(read_element, path.absolute(), "ViewPosition").upper())
    except UnreadableImage:  # named in rejected.csv when its pixels are read
        return None


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    reports = pl.DataFrame(
        [read_report(path, options.text == "whole") for path in find_reports(raw)],
        schema_overrides={"images": pl.List(pl.String), "report": pl.String},
        infer_schema_length=None,
    )
    twice = reports.filter(~pl.col("study_id").is_first_distinct())
    writer.reject("row", twice["study_id"], twice["path"], "more than one report of this id; its first file counts")
    pictures = find_pictures(raw, options.images)
    root = options.images or raw
    named = writer.number_rows(
        reports.select("study_id", "path", again=~pl.col("study_id").is_first_distinct(), image_id="images")
        .with_columns(place=pl.int_ranges(pl.col("image_id").list.len()))
        .filter(pl.col("place").list.len() > 0)
        .explode("image_id", "place")
        .with_columns(key=pl.col("image_id").map_elements(key_of, return_dtype=pl.String))
    )
    writer.seen["row"] = named.height
    named = writer.reject_where(
        named, pl.col("again"), "unused", "its report has the id of an earlier file, which counts"
    )
    named = writer.reject_where(named, pl.col("image_id") == "", "row", "its report gives no id")
    reports = reports.unique("study_id", keep="first", maintain_order=True)
    if options.views == "order":
        first, second = pl.col("place") == 0, pl.col("place") == 1
        view: pl.Expr = pl.when(first).then(pl.lit("frontal")).when(second).then(pl.lit("lateral"))
    else:
        views = read_views(raw, pictures)
        if not views:
            raise MedstError(
                f"{raw}: nothing says which images are frontal. Put {PROJECTIONS} (of the copy on Kaggle) there, use the "
                "DICOM files, which say it themselves, or take a report's first image for frontal with --views order."
            )
        view = pl.col("key").replace_strict(views, default=None, return_dtype=pl.String)
    places = {key: path.relative_to(root).as_posix() for key, path in pictures.items()}
    images = named.with_columns(
        view=view,
        # What isn't there is left out by name when it is to be read.
        path=pl.col("key").replace_strict(places, default=None, return_dtype=pl.String).fill_null(pl.col("image_id")),
    ).with_columns(
        patient_id="study_id",
        view_position=pl.lit(None, dtype=pl.String),
        time=pl.lit(None, dtype=pl.Datetime("us")).fill_null(pl.datetime(2000, 1, 1)),
        split=draw_splits(named["study_id"]),
    )
    images = writer.reject_where(
        images, ~pl.col("image_id").is_first_distinct(), "row", "named more than once; its first report counts"
    )
    # Not the kind `row`: whole copies have both, headers without a view and reports of three images.
    given = "nothing says whether it is frontal or lateral"
    ordered = "its report names two images before it; --views order uses these alone"
    why = ordered if options.views == "order" else given
    images = writer.reject_where(images, pl.col("view").is_null(), "unused", why)
    if images.filter(view="frontal").is_empty():
        raise MedstError(f"{raw}: no report names a frontal image; see --views.")
    texts = reports.filter(pl.col("images").list.len() > 0)
    unillustrated = reports.filter((pl.col("images").list.len() == 0) & (pl.col("reason") != ""))
    texts = pl.concat([texts, unillustrated]).select("study_id", "path", "report", "reason", "kind", "loses")
    nothing = f"{raw}: no report has both a frontal image and usable text."
    sources = Sources(images, texts.drop("loses"), None, timed=False, losing=int(texts["loses"].sum()))
    return write_pairs(writer, root, sources, options.frontal, nothing)
