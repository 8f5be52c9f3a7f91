"""Tables of the size of MIMIC-CXR-JPG to pairs and sequences, and reports to text.

    python benchmarks/tables.py

Made-up tables of 377,110 images, 227,835 studies and 65,379 patients, gzipped as downloaded; no picture is read. Seconds
from the gzipped tables to pairs.parquet, cohort.json and sequences of 4, with the peak memory of the whole process; reports
a second on one core, from phantom reports; the same from the tree of files and from the zip file, with --reports N of them.
"""

import argparse
import gzip
import resource
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from machine import keep
from medst.cohort.mimic_cxr import CHEXPERT, METADATA, SPLIT, read_chexpert, read_images
from medst.cohort.mimic_reports import read_reports, study_path
from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, write_pairs
from medst.cohort.report_text import report_text
from medst.cohort.sequences import cut_sequences
from medst.cohort.writer import Writer
from medst.jobs import Workers
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.reports import write_report
from medst_phantom.trajectory import sample_trajectory

IMAGES, STUDIES, PATIENTS = 377_110, 227_835, 65_379
VIEWS, SHARES = ("AP", "PA", "LATERAL", "LL", ""), (0.39, 0.255, 0.215, 0.095, 0.045)


class Unread(Writer):
    """A writer that takes every picture for read."""

    def write_images(self, root: Path, table: pl.DataFrame) -> pl.DataFrame:
        """The rows that images would have."""
        with (self.part / "images-0.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (table.height, 0, 0)}
            )
        self.seen["image"] = table.height
        row = pl.int_range(pl.len(), dtype=pl.Int64)
        known = table.with_columns(row=row, height=3056, width=2544, status=pl.lit("ok"))
        return known.select("row", "image_id", "path", "view", "view_position", "height", "width", "status")


def write_tables(folder: Path, seed: int = 0) -> pl.DataFrame:
    """The three tables; the studies."""
    rng = np.random.default_rng(seed)
    patient_of = np.concatenate([np.arange(PATIENTS), rng.integers(0, PATIENTS, STUDIES - PATIENTS)])
    study_of = np.sort(np.concatenate([np.arange(STUDIES), rng.integers(0, STUDIES, IMAGES - STUDIES)]))
    subject, study = 10_000_000 + patient_of[study_of], 50_000_000 + study_of
    days = rng.integers(0, 3650, STUDIES)[study_of].astype("timedelta64[D]") + np.datetime64("2110-01-01")
    clock = rng.integers(0, 86_400_000, IMAGES)
    hours, rest = np.divmod(clock, 3_600_000)
    minutes, rest = np.divmod(rest, 60_000)
    seconds, parts = hours * 10000 + minutes * 100 + rest // 1000, rest % 1000
    split = rng.choice(["train", "validate", "test"], PATIENTS, p=[0.977, 0.008, 0.015])[patient_of][study_of]
    words = rng.integers(0, 2**32, (IMAGES, 5), dtype=np.uint32)
    ids = pl.DataFrame(words).select(
        pl.concat_str([pl.col(c).cast(pl.UInt32).cast(pl.String).str.zfill(10) for c in ("column_0", "column_1")])
        .alias("dicom_id")
    )["dicom_id"]  # fmt: skip
    table = pl.DataFrame(
        {
            "dicom_id": ids,
            "subject_id": subject,
            "study_id": study,
            "ViewPosition": rng.choice(VIEWS, IMAGES, p=SHARES),
            "StudyDate": pl.Series(days).dt.strftime("%Y%m%d"),
            "StudyTime": [f"{whole}.{part:03d}" for whole, part in zip(seconds, parts, strict=True)],
            "split": split,
        }
    )  # fmt: skip
    keys = table.select("subject_id", "study_id").unique(maintain_order=True)
    values = rng.choice([1.0, 0.0, -1.0, np.nan], (keys.height, len(LABELS)), p=[0.15, 0.1, 0.05, 0.7])
    labels = pl.DataFrame(values, schema=list(LABELS)).fill_nan(None)
    for name, part in (
        (METADATA, table.drop("split")),
        (SPLIT, table.select("dicom_id", "study_id", "subject_id", "split")),
        (CHEXPERT, pl.concat([keys, labels], how="horizontal")),
    ):
        (folder / name).write_bytes(gzip.compress(part.write_csv().encode(), 1))
    return keys.select(patient_id=pl.format("p{}", "subject_id"), study_id=pl.format("s{}", "study_id"))


def phantom_reports(count: int) -> list[str]:
    """Reports of phantom studies, no two of one draw."""
    found: list[str] = []
    seed = 0
    while len(found) < count:
        rng = np.random.default_rng(seed)
        background = sample_background(rng, sample_anatomy(rng))
        found += [write_report(study, background, rng).text for study in sample_trajectory(rng)]
        seed += 1
    return found[:count]


def time_reports(folder: Path, studies: pl.DataFrame, texts: list[str]) -> dict[str, Any]:
    """Reports a second and core: in memory, from files, from the zip file."""
    start = time.perf_counter()
    for text in texts:
        report_text(text)
    found: dict[str, Any] = {"in memory": round(len(texts) / (time.perf_counter() - start))}
    some = studies.head(len(texts))
    paths = some.select(path=study_path() + ".txt")["path"].to_list()
    for path, text in zip(paths, texts, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in zip(paths, texts, strict=True):
            archive.writestr(path, text)
    for name, place in (("from files", folder), ("from the zip file", folder / "mimic-cxr-reports.zip")):
        start = time.perf_counter()
        table = read_reports(place, some, Workers(workers=1))
        found[name] = round(len(texts) / (time.perf_counter() - start))
        assert table["report"].is_not_null().mean() > 0.9  # type: ignore[operator]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studies = write_tables(folder)
        texts = phantom_reports(arguments.reports)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        reports = studies.select(
            "study_id", path=pl.lit("x"), report=pl.Series(texts).gather(np.arange(studies.height) % len(texts)),
            reason=pl.lit(""), kind=pl.lit("text"),
        )  # fmt: skip
        start = time.perf_counter()
        writer = Unread(folder / "cohort", {"dataset": "mimic-cxr", "options": {}, "source": {}})
        writer.start()
        images = read_images(writer, folder)
        meta = write_pairs(writer, folder, images, reports, read_chexpert(writer, folder), Options().frontal)
        tables = time.perf_counter() - start
        pairs = pl.read_parquet(folder / "cohort" / "pairs.parquet")
        start = time.perf_counter()
        sequences = cut_sequences(pairs, 4)
        chunked = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        assert sum(map(len, sequences)) == pairs.height
        figures = {
            "rows": {"images": IMAGES, "studies": STUDIES, "patients": PATIENTS},
            "counts": meta["counts"],
            "sequences": len(sequences),
            "seconds": {"tables to pairs": round(tables, 2), "pairs to sequences": round(chunked, 2)},
            "peak memory of the process, GiB": round(peak, 2),
            "of which before the tables were read, GiB": round(before, 2),
            "reports a second and core": time_reports(folder / "reports", studies, texts),
        }
        print(figures)
    keep("tables", figures)


if __name__ == "__main__":
    main()
