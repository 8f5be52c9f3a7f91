"""Where the reports of MIMIC-CXR are, and the text of each. MIMIC-CXR-JPG holds none, so users put them in many places.

Three forms are understood: the folder tree of text files, mimic-cxr-reports.zip as downloaded, and mimic_cxr_sectioned.csv
that the MIT-LCP scripts make of them.
"""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

import joblib
import polars as pl

from medst.cohort.raw_tables import read_csv
from medst.cohort.report_text import hand_made_studies, report_text, section_text
from medst.cohort.unreadable_image import read_or_reason
from medst.errors import MedstError
from medst.jobs import Workers

FOLDERS = ("mimic-cxr-reports", "mimic-cxr", "reports")
ZIP, SECTIONED = "mimic-cxr-reports.zip", "mimic_cxr_sectioned.csv"
BLOCK = 2000
MOST_BYTES = 1_000_000
"""Size of a report, unpacked: those of MIMIC-CXR have at most about 10 kB."""


def study_path() -> pl.Expr:
    """Path of a study's folder below the data set's, from patient_id and study_id; its report is beside it, as .txt."""
    return pl.format("files/{}/{}/{}", pl.col("patient_id").str.slice(0, 3), "patient_id", "study_id")


def find_reports(raw: Path, given: Path | None, studies: pl.DataFrame) -> Path:
    """The folder below which the reports are, or the zip file or table that holds them: inside `raw`, or beside it.

    A folder with reports goes before a zip file, that before a table.

    Args:
        raw: the data set's folder.
        given: where the user says they are.
        studies: patient_id and study_id of studies that should have one.

    Raises:
        MedstError: there are none; the sentence says where reports come from.
    """
    sample = studies.head(200).select(path=study_path() + ".txt")["path"].to_list()
    beside = Path(raw.absolute()).parent
    if given is not None and given.is_file():
        return given
    places = [given] if given else [raw, *(raw / name for name in FOLDERS), *(beside / name for name in FOLDERS)]
    for place in places:
        for root in (place, place.parent if place.name == "files" else place):
            if any((root / path).is_file() for path in sample):
                return root
    for name in (ZIP, SECTIONED, f"{SECTIONED}.gz"):
        for place in [*places, *([] if given else [beside])]:
            if (place / name).is_file():
                return place / name
    looked = ", ".join(str(place) for place in places)
    raise MedstError(
        f"No report found (looked for {sample[0]}, {ZIP} and {SECTIONED} below {looked}). MIMIC-CXR-JPG holds none: they "
        "are mimic-cxr-reports.zip of the MIMIC-CXR project on PhysioNet (135 MB); put it, unpacked or not, in or beside "
        "RAW, or give its place with --reports."
    )


def read_reports(place: Path, studies: pl.DataFrame, workers: Workers, *, whole: bool = False) -> pl.DataFrame:
    """The text of every study.

    Args:
        place: what `find_reports` found.
        studies: patient_id and study_id.
        workers: who reads.
        whole: see `report_text`.

    Returns:
        `studies` with path, report (null where there is no usable text), reason (why there is none, else empty) and kind:
        `report` where the file can't be read, `text` where the rules leave it out.

    Raises:
        MedstError: the zip file or the table is damaged.
    """
    table = studies.with_columns(path=study_path() + ".txt")
    paths = table["path"].to_list()
    if place.is_dir() or zipfile.is_zipfile(place):
        found = _read_files(place, paths, workers, whole)
    elif place.suffix == ".zip":
        raise MedstError(f"{place} is no whole zip file; download it again.")
    else:
        found = _read_sectioned(place, table["study_id"].to_list(), whole)
    table = table.with_columns(
        pl.Series("report", [text for text, _, _ in found], dtype=pl.String),
        pl.Series("reason", [reason for _, reason, _ in found], dtype=pl.String),
        pl.Series("kind", [kind for _, _, kind in found], dtype=pl.String),
    )
    if whole:
        return table
    hand_made = pl.col("study_id").is_in(sorted(hand_made_studies()))
    cut_by_hand = pl.lit("its text is cut by a hand-made rule, which the released table lacks")
    return table.with_columns(
        report=pl.when(hand_made).then(None).otherwise("report"),
        reason=pl.when(hand_made).then(cut_by_hand).otherwise("reason"),
        kind=pl.when(hand_made).then(pl.lit("text")).otherwise("kind"),
    )


Found = tuple[str | None, str, str]


def _read_files(place: Path, paths: list[str], workers: Workers, whole: bool) -> list[Found]:
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    read: list[list[Found]] = [[] for _ in blocks]
    # Workers that are reused, or on other machines, may be in another working directory.
    place = place.absolute()
    jobs = (joblib.delayed(_read_block)(i, place, block, whole) for i, block in enumerate(blocks))
    with workers.run(jobs, len(blocks)) as results:
        for i, block in results:
            read[i] = block
    return [report for block in read for report in block]


def _read_sectioned(place: Path, studies: list[str], whole: bool) -> list[Found]:
    """From the sections that a table holds; its first column names the study, with or without the s.

    Of several rows of a study, the first that has a section gives it.
    """
    table = read_csv(place, ("impression", "findings"))
    first = table.columns[0]
    columns = ["impression", "findings", *(["last_paragraph"] if "last_paragraph" in table.columns else [])]
    table = table.select(
        pl.col(columns).str.strip_chars().replace("", None), study="s" + pl.col(first).str.strip_prefix("s")
    )
    table = table.group_by("study", maintain_order=True).agg(pl.col(columns).drop_nulls().first().fill_null(""))
    sections = dict(zip(table["study"], table.select(columns).iter_rows(), strict=True))

    def text(study: str) -> Found:
        if study not in sections:
            return None, f"not in {place.name}", "report"
        impression, findings, *rest = sections[study]
        if whole and rest and not impression.strip() and not findings.strip():
            impression = rest[0]
        found, reason = section_text(impression, findings, whole)
        return found, reason, "text"

    return [text(study) for study in studies]


def _read_block(number: int, place: Path, paths: list[str], whole: bool) -> tuple[int, list[Found]]:
    if place.is_dir():
        return number, [_text(_from_folder(place / path), path, whole) for path in paths]
    stat = place.stat()
    archive, members = _open_zip(place, stat.st_mtime_ns)
    return number, [_text(_from_zip(archive, members.get(path)), path, whole) for path in paths]


@lru_cache(maxsize=1)  # reading a directory of 227,835 entries takes longer than a block of reports
def _open_zip(place: Path, changed: int) -> tuple[zipfile.ZipFile, dict[str, str]]:
    """The open file, and its members by their path from `files` on, whatever folder that is in."""
    try:
        archive = zipfile.ZipFile(place)
        names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise MedstError(f"{place} is no whole zip file ({error}); download it again.") from error
    members = {}
    for name in names:
        if name.endswith(".txt"):
            parts = PurePosixPath(name).parts
            start = parts.index("files") if "files" in parts else 0
            members["/".join(parts[start:])] = name
    return archive, members


def _from_zip(archive: zipfile.ZipFile, member: str | None) -> bytes | str:
    if member is None:
        return "no report in the zip file"
    try:
        with archive.open(member) as file:
            # What the archive says of the size may be wrong, so that no more is inflated than may be read.
            content = file.read(MOST_BYTES + 1)
        return content if len(content) <= MOST_BYTES else f"larger than the {MOST_BYTES / 1e6:.0f} MB that are read"
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        return f"damaged in the zip file ({type(error).__name__})"


def _from_folder(path: Path) -> bytes | str:
    content = read_or_reason(path, MOST_BYTES)
    return "no report file" if content == "no such file" else content


def _text(read: bytes | str, path: str, whole: bool) -> Found:
    """The text of a report's bytes, or of the reason why there are none."""
    if isinstance(read, str):
        return None, read, "report"
    try:
        report = read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 text (byte {error.start} is {read[error.start]:#04x})", "report"
    if "\0" in report:
        return None, "not UTF-8 text (it holds zero bytes)", "report"
    # Line ends become "\n", which the headers are found by.
    report = report.replace("\r\n", "\n").replace("\r", "\n")
    text, reason = report_text(report, whole, PurePosixPath(path).stem)
    return text, reason, "report" if not report.strip() else "text"
