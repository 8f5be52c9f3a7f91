"""Open-i, the chest X-rays of Indiana University: a cohort of pairs from XML reports and PNG or DICOM images.

It has neither splits nor dates, and one study per patient, so its sequences have one pair each: it teaches views and
reports, not time. indiana_projections.csv or the DICOM headers say which image is frontal; PNG files alone do not.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from medst.cohort.dicom import read_element
from medst.cohort.images import guarded
from medst.cohort.options import Options
from medst.cohort.pairs import draw_splits, write_pairs
from medst.cohort.raw_tables import read_csv
from medst.cohort.report_text import MOST_BYTES, TEXT_COLUMNS, Text, section_text
from medst.cohort.unreadable import UnreadableImage, read_or_reason
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import sha256

PROJECTIONS = "indiana_projections.csv"
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
KEY = re.compile(r"(\d+)_(?:\d+_)?(IM-[\d-]+)")
"""What the XML, PNG and DICOM files and the projections call an image, despite their different prefixes."""
POSITIONS = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral"}


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""

    def contents() -> Iterator[bytes]:
        for path in find_xml_files(raw):
            content = read_or_reason(path, MOST_BYTES)
            yield f"{path.name}\n".encode()
            yield content.encode() if isinstance(content, str) else content

    return {"dataset_version": "NLMCXR", "source": {"reports": sha256(contents())}, "time": "order"}


def find_xml_files(raw: Path) -> list[Path]:
    """Find the reports below a folder, in the order of their numbers.

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


def read_xml(path: Path, whole: bool) -> dict[str, Any]:
    """Read one report: path, study_id, images (ids) and the fields of `Text`."""

    def found(text: Text, study_id: str = path.stem, images: Sequence[str] = ()) -> dict[str, Any]:
        return {"path": path.name, "study_id": study_id, "images": list(images), **text._asdict()}

    data = read_or_reason(path, MOST_BYTES)
    if isinstance(data, str):
        return found(Text(None, data, "report"))
    # No report of this data set has a document type, and one that does may expand without end.
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        return found(Text(None, "not an XML report of Open-i", "report"))
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return found(Text(None, f"damaged XML ({error})", "report"))
    uid = root.find(".//uId")
    name = uid.get("id") if uid is not None else None
    sections: dict[str, str] = {}
    for node in root.iter("AbstractText"):
        sections.setdefault((node.get("Label") or "").upper(), "".join(node.itertext()).strip())
    text = section_text(sections.get("IMPRESSION", ""), sections.get("FINDINGS", ""), whole)
    images = [image.get("id") or "" for image in root.iter("parentImage")]
    if text.report and not any(images):
        text = text._replace(report=None, reason="the report names no image")
    return found(text, name or f"CXR{path.stem}", images)


def key_of(name: str) -> str | None:
    """The part that all names of an image share.

    >>> key_of("CXR1_1_IM-0001-4001"), key_of("1_IM-0001-4001.dcm.png"), key_of("notes.txt")
    ('1_IM-0001-4001', '1_IM-0001-4001', None)
    """
    found = KEY.search(name)
    return f"{found.group(1)}_{found.group(2)}" if found else None


def find_pictures(raw: Path, given: Path | None) -> dict[str, Path]:
    """Find the images below a folder, by their key; PNG before JPEG before DICOM.

    Raises:
        MedstError: there is none.
    """
    root = given or raw
    found: dict[str, Path] = {}

    def rank(path: Path) -> int:
        return SUFFIXES.index(path.suffix.lower())

    for path in sorted(root.rglob("*")):
        key = key_of(path.name) if path.suffix.lower() in SUFFIXES else None
        if key and (key not in found or rank(path) < rank(found[key])):
            found[key] = path
    if not found:
        raise MedstError(
            f"{root}: no picture of Open-i below it; unpack NLMCXR_png.tgz or NLMCXR_dcm.tgz there, or give --images."
        )
    return found


def read_views(raw: Path, pictures: dict[str, Path]) -> dict[str, str]:
    """Read which images are frontal or lateral, by key, from the table if there is one, else from the DICOM headers."""
    tables = [place / PROJECTIONS for place in (raw, raw.parent) if (place / PROJECTIONS).exists()]
    if tables := tables or sorted(raw.rglob(PROJECTIONS)):
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


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    reports = pl.DataFrame(
        [read_xml(path, options.text == "whole") for path in find_xml_files(raw)],
        schema_overrides={"images": pl.List(pl.String), **TEXT_COLUMNS},
        infer_schema_length=None,
    ).with_columns(again=~pl.col("study_id").is_first_distinct())
    twice = reports.filter("again")
    writer.reject("row", twice["study_id"], twice["path"], "more than one report of this id; its first file counts")
    pictures = find_pictures(raw, options.images)
    root = options.images or raw
    images = _named_images(writer, reports)
    images = images.with_columns(view=_view(raw, pictures, images, options), split=draw_splits(images["study_id"]))
    places = {key: path.relative_to(root).as_posix() for key, path in pictures.items()}
    images = images.with_columns(
        # An image that isn't there is rejected by name when it is read.
        path=pl.col("key").replace_strict(places, default=None, return_dtype=pl.String).fill_null(pl.col("image_id")),
        patient_id="study_id",
        view_position=pl.lit(None, dtype=pl.String),
        time=pl.lit(datetime(2000, 1, 1), dtype=pl.Datetime("us")),
    )
    again = (~pl.col("image_id").is_first_distinct(), "named more than once; its first report counts")
    images = writer.reject_where(images, "row", again)
    # Not the kind `row`: undamaged copies have headers without a view, and reports with three images.
    why = "nothing says whether it is frontal or lateral"
    if options.views == "order":
        why = "its report names two images before it; --views order uses these alone"
    images = writer.reject_where(images, "unused", (pl.col("view").is_null(), why))
    if images.filter(view="frontal").is_empty():
        raise MedstError(f"{raw}: no report names a frontal image; see --views.")
    first, illustrated = reports.filter(~pl.col("again")), pl.col("images").list.len() > 0
    texts = pl.concat([first.filter(illustrated), first.filter(~illustrated & (pl.col("reason") != ""))])
    return write_pairs(writer, root, images, texts.select("study_id", "path", *TEXT_COLUMNS), None, options.frontal)


def _named_images(writer: Writer, reports: pl.DataFrame) -> pl.DataFrame:
    """The images that reports name, as the rows of the raw data: study_id, path (of the report), image_id, place, key."""
    named = writer.number_rows(
        reports.select("study_id", "path", "again", image_id="images")
        .with_columns(place=pl.int_ranges(pl.col("image_id").list.len()))
        .filter(pl.col("place").list.len() > 0)
        .explode("image_id", "place")
        .with_columns(key=pl.col("image_id").map_elements(key_of, return_dtype=pl.String))
    )
    again = (pl.col("again"), "its report has the id of an earlier file, which counts")
    named = writer.reject_where(named, "unused", again)
    return writer.reject_where(named, "row", (pl.col("image_id") == "", "its report gives no id"))


def _view(raw: Path, pictures: dict[str, Path], images: pl.DataFrame, options: Options) -> pl.Series:
    """frontal, lateral or null, for each of `images`."""
    if options.views == "order":
        return images["place"].replace_strict({0: "frontal", 1: "lateral"}, default=None, return_dtype=pl.String)
    views = read_views(raw, pictures)
    if not views:
        raise MedstError(
            f"{raw}: nothing says which images are frontal. Put {PROJECTIONS} (of the copy on Kaggle) there, use the "
            "DICOM files, which say it themselves, or take a report's first image for frontal with --views order."
        )
    return images["key"].replace_strict(views, default=None, return_dtype=pl.String)
