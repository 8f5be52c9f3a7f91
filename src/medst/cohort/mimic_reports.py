"""Find the reports of MIMIC-CXR and read their texts. MIMIC-CXR-JPG has none, so users put them in many places.

Three forms are supported: the tree of text files, mimic-cxr-reports.zip as downloaded, and mimic_cxr_sectioned.csv, which
the scripts of MIT-LCP make.
"""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

import polars as pl

from medst.cohort.raw_tables import read_csv
from medst.cohort.report_text import (
    MOST_BYTES,
    TEXT_COLUMNS,
    TOO_LARGE,
    Text,
    hand_made_studies,
    report_text,
    section_text,
)
from medst.cohort.unreadable import read_or_reason
from medst.errors import MedstError
from medst.jobs import Workers

FOLDERS = ("mimic-cxr-reports", "mimic-cxr", "reports")
ZIP, SECTIONED = "mimic-cxr-reports.zip", "mimic_cxr_sectioned.csv"
HAND_MADE = "its text is selected by a hand-made rule, which the released table lacks"
BLOCK = 2000


def study_path() -> pl.Expr:
    """Path of a study's folder in the data set, from patient_id and study_id; its report is beside it, as .txt."""
    return pl.format("files/{}/{}/{}", pl.col("patient_id").str.slice(0, 3), "patient_id", "study_id")


def find_reports(raw: Path, given: Path | None, studies: pl.DataFrame) -> Path:
    """Find the folder, zip file or table that holds the reports, in `raw` or beside it.

    A folder with reports is preferred to a zip file, and a zip file to a table.

    Args:
        raw: the data set's folder.
        given: where the user says they are; then nowhere else is searched.
        studies: patient_id and study_id of studies that should have one.

    Raises:
        MedstError: there are none; the message says where to get them.
    """
    sample = studies.head(200).select(path=study_path() + ".txt")["path"].to_list()
    beside = raw.absolute().parent
    if given is not None and given.is_file():
        return given
    places = [given] if given else [raw, *(parent / name for parent in (raw, beside) for name in FOLDERS)]
    for place in places:
        for root in (place, place.parent if place.name == "files" else place):
            if any((root / path).is_file() for path in sample):
                return root
    for name in (ZIP, SECTIONED, f"{SECTIONED}.gz"):
        for place in places if given else [*places, beside]:
            if (place / name).is_file():
                return place / name
    looked = ", ".join(str(place) for place in places)
    raise MedstError(
        f"No report found (looked for {sample[0]}, {ZIP} and {SECTIONED} below {looked}). MIMIC-CXR-JPG has none: they are "
        "in mimic-cxr-reports.zip of the MIMIC-CXR project on PhysioNet (135 MB); put it, unpacked or not, in or beside "
        "RAW, or give its place with --reports."
    )


def read_reports(place: Path, studies: pl.DataFrame, workers: Workers, *, whole: bool = False) -> pl.DataFrame:
    """Read the text of every study.

    Args:
        place: result of `find_reports`.
        studies: patient_id and study_id.
        workers: processes that read the files.
        whole: see `report_text`.

    Returns:
        `studies` with path, report, reason and kind, see `medst.cohort.report_text.Text`.

    Raises:
        MedstError: the zip file or the table is damaged.
    """
    table = studies.with_columns(path=study_path() + ".txt")
    ids, paths = table["study_id"].to_list(), table["path"].to_list()
    if place.is_dir() or zipfile.is_zipfile(place):
        found = _read_files(place, paths, workers, whole)
    elif place.suffix == ".zip":
        raise MedstError(f"{place} is not a complete zip file; download it again.")
    else:
        found = _read_sectioned(place, ids, whole)
    if not whole:
        by_hand, studies_by_hand = Text(None, HAND_MADE), hand_made_studies()
        found = [by_hand if study in studies_by_hand else text for study, text in zip(ids, found, strict=True)]
    return table.hstack(pl.DataFrame(found, schema=TEXT_COLUMNS, orient="row").drop("loses_letters"))


def _read_files(place: Path, paths: list[str], workers: Workers, whole: bool) -> list[Text]:
    place = place.absolute()  # workers that are reused, or on other machines, may be in another working directory
    calls = [(start, place, paths[start : start + BLOCK], whole) for start in range(0, len(paths), BLOCK)]
    with workers.run(_read_block, calls) as results:
        return [text for _, block in sorted(results) for text in block]


def _read_sectioned(place: Path, studies: list[str], whole: bool) -> list[Text]:
    """Read a table of sections; its first column has the study, with or without the s.

    A study may have several rows; the first with a section counts, for each section.
    """
    table = read_csv(place, ("impression", "findings"))
    columns = [name for name in ("impression", "findings", "last_paragraph") if name in table.columns]
    study = "s" + pl.col(table.columns[0]).str.strip_prefix("s")
    table = table.select(pl.col(columns).str.strip_chars().replace("", None), study=study)
    table = table.group_by("study", maintain_order=True).agg(pl.col(columns).drop_nulls().first().fill_null(""))
    texts = dict.fromkeys(studies, Text(None, f"not in {place.name}", "report"))
    for name, impression, findings, *rest in table.select("study", *columns).iter_rows():
        if whole and rest and not impression and not findings:
            impression = rest[0]
        texts[name] = section_text(impression, findings, whole)
    return [texts[name] for name in studies]


def _read_block(start: int, place: Path, paths: list[str], whole: bool) -> tuple[int, list[Text]]:
    if place.is_dir():
        contents = (read_or_reason(place / path, MOST_BYTES) for path in paths)
    else:
        archive, members = _open_zip(place, place.stat().st_mtime_ns)
        contents = (_from_zip(archive, members.get(path)) for path in paths)
    return start, [_text(content, path, whole) for content, path in zip(contents, paths, strict=True)]


@lru_cache(maxsize=1)  # reading a directory of 227,835 entries takes longer than reading a block of reports
def _open_zip(place: Path, changed: int) -> tuple[zipfile.ZipFile, dict[str, str]]:
    """The open file, and its members by their path from `files` on, whatever folder that is in."""
    try:
        archive = zipfile.ZipFile(place)
        names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise MedstError(f"{place} is not a complete zip file ({error}); download it again.") from error
    members = {}
    for name in names:
        if name.endswith(".txt"):
            parts = PurePosixPath(name).parts
            start = parts.index("files") if "files" in parts else 0
            members["/".join(parts[start:])] = name
    return archive, members


def _from_zip(archive: zipfile.ZipFile, member: str | None) -> bytes | str:
    """The content of a member, or why there is none."""
    if member is None:
        return "no report in the zip file"
    try:
        with archive.open(member) as file:
            # The size that the archive gives may be wrong, so never inflate more than may be read.
            content = file.read(MOST_BYTES + 1)
        return content if len(content) <= MOST_BYTES else TOO_LARGE
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        return f"damaged in the zip file ({type(error).__name__})"


def _text(read: bytes | str, path: str, whole: bool) -> Text:
    """The text of a report, given its bytes or the reason why there are none."""
    if isinstance(read, str):
        return Text(None, read, "report")
    try:
        report = read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Text(None, f"not UTF-8 text (byte {error.start} is {read[error.start]:#04x})", "report")
    if "\0" in report:
        return Text(None, "not UTF-8 text (it holds zero bytes)", "report")
    # The headers are found by "\n" alone.
    report = report.replace("\r\n", "\n").replace("\r", "\n")
    return report_text(report, whole, PurePosixPath(path).stem)
