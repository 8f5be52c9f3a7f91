"""Where the reports of MIMIC-CXR are, and the text of each. MIMIC-CXR-JPG holds none, so users put them in many places."""

from pathlib import Path

import joblib
import polars as pl

from medst.cohort.reports import hand_made_studies, report_text
from medst.errors import MedstError

FOLDERS = ("mimic-cxr-reports", "mimic-cxr", "reports")
BLOCK = 2000


def study_path() -> pl.Expr:
    """Path of a study's folder below the data set's, from patient_id and study_id; its report is beside it, as .txt."""
    return pl.format("files/{}/{}/{}", pl.col("patient_id").str.slice(0, 3), "patient_id", "study_id")


def find_reports(raw: Path, given: Path | None, studies: pl.DataFrame) -> Path:
    """The folder below which the reports are: inside `raw`, or beside it.

    Args:
        raw: the data set's folder.
        given: where the user says they are.
        studies: patient_id and study_id of studies that should have one.

    Raises:
        MedstError: there are none; the sentence says where reports come from.
    """
    sample = studies.head(200).select(path=study_path() + ".txt")["path"].to_list()
    beside = Path(raw.absolute()).parent
    places = [given] if given else [raw, *(raw / name for name in FOLDERS), *(beside / name for name in FOLDERS)]
    for place in places:
        for root in (place, place.parent if place.name == "files" else place):
            if any((root / path).is_file() for path in sample):
                return root
    looked = ", ".join(str(place) for place in places)
    raise MedstError(
        f"No report found (looked for {sample[0]} below {looked}). MIMIC-CXR-JPG holds none: they are "
        "mimic-cxr-reports.zip of the MIMIC-CXR project on PhysioNet (135 MB); unpack it in or beside RAW, or give "
        "its folder with --reports."
    )


def read_reports(root: Path, studies: pl.DataFrame, workers: int) -> pl.DataFrame:
    """The text of every study.

    Args:
        root: folder below which the reports are.
        studies: patient_id and study_id.
        workers: processes; 0: one a core.

    Returns:
        `studies` with path, report (null where there is no usable text) and reason: why there is none, or what to know of
        one that is kept, else empty.
    """
    table = studies.with_columns(path=study_path() + ".txt")
    paths = table["path"].to_list()
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    jobs = (workers or -1) if len(blocks) > 1 else 1  # starting processes costs more than a block of small files
    read = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_read_block)(root, block) for block in blocks)
    found = [report for block in read for report in block]
    hand_made = pl.col("study_id").is_in(sorted(hand_made_studies()))
    cut_by_hand = pl.lit("its text is cut by a hand-made rule, which the released table lacks")
    return table.with_columns(
        pl.Series("report", [text for text, _ in found], dtype=pl.String),
        pl.Series("reason", [reason for _, reason in found], dtype=pl.String),
    ).with_columns(
        report=pl.when(hand_made).then(None).otherwise("report"),
        reason=pl.when(hand_made).then(cut_by_hand).otherwise("reason"),
    )


def _read_block(root: Path, paths: list[str]) -> list[tuple[str | None, str]]:
    return [_read(root / path) for path in paths]


def _read(path: Path) -> tuple[str | None, str]:
    kept = ""
    try:
        # Read as text, for line ends become "\n", which the headers are found by.
        try:
            report = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            report = path.read_text(encoding="utf-8", errors="replace")
            kept = "kept, but bytes of it are not UTF-8 and were read as blanks"
    except (FileNotFoundError, NotADirectoryError):
        return None, "no report file"
    except IsADirectoryError:
        return None, "a folder, not a file"
    except PermissionError:
        return None, "no permission to read it"
    if "\0" in report:
        return None, "not UTF-8 text (it holds zero bytes)"
    text, reason = report_text(report)
    return text, reason or kept
