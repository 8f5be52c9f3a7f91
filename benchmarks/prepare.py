"""Images per second and memory of a complete `medst prepare`, exact and fast, for N and 4 N images.

    python benchmarks/prepare.py

Hard links to a few synthetic radiographs of 3056 x 2544 pixels, in MIMIC-CXR-JPG's layout. Memory is the largest resident
set of the main process and of any worker.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import joblib
import polars as pl

from decode import make
from machine import keep
from medst.cohort.mimic_cxr import CHEXPERT, METADATA, SPLIT
from medst.cohort.pairs import LABELS

RUN = """
import json, resource, sys, time
from pathlib import Path
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
start = time.perf_counter()
meta = prepare("mimic-cxr", Path(sys.argv[1]), Path(sys.argv[2]), Options(decode=sys.argv[3]))
seconds = time.perf_counter() - start
peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"seconds": seconds, "images": meta["counts"]["images"], "main": peak[0]}))
from joblib.externals.loky import get_reusable_executor
get_reusable_executor().shutdown(wait=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"worker": peak}))
"""


def write_tree(folder: Path, images: int, pictures: list[Path]) -> None:
    """Write studies of one frontal image each, with reports."""
    rows = []
    for i in range(images):
        study = {"dicom_id": f"d{i:07d}", "subject_id": str(10_000_000 + i // 4), "study_id": str(50_000_000 + i)}
        place = folder / "files" / "p10" / f"p{study['subject_id']}"
        target = place / f"s{study['study_id']}" / f"{study['dicom_id']}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures[i % len(pictures)], target)
        (place / f"s{study['study_id']}.txt").write_text("x\n IMPRESSION:  No acute process is seen.\n")
        rows.append(study | {"ViewPosition": "PA", "StudyDate": f"2150{i % 4 + 1:02d}01", "StudyTime": "0"})
    table = pl.DataFrame(rows)
    keys = table.select("subject_id", "study_id")
    for name, part in (
        (METADATA, table),
        (SPLIT, table.select("dicom_id", split=pl.lit("train"))),
        (CHEXPERT, keys.with_columns(**{label: pl.lit(None, dtype=pl.String) for label in LABELS})),
    ):
        (folder / name).write_bytes(gzip.compress(part.write_csv().encode()))


def run(raw: Path, cohort: Path, decode: str) -> dict[str, Any]:
    """Run one preparation in its own process."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(raw), str(cohort), decode], check=True, capture_output=True, text=True
    )
    first, second = (json.loads(line) for line in done.stdout.strip().splitlines()[-2:])
    return first | second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"cores": joblib.cpu_count(), "runs": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make(folder, 6)["usual"]
        for images in (arguments.images, 4 * arguments.images):
            raw = folder / f"raw-{images}"
            raw.mkdir()
            write_tree(raw, images, pictures)
            for decode in ("exact", "fast"):
                found = run(raw, folder / f"{decode}-{images}", decode)
                figures["runs"].append(
                    {
                        "decode": decode,
                        "images": found["images"],
                        "images a second": round(found["images"] / found["seconds"], 1),
                        "peak memory of the main process, MiB": round(found["main"]),
                        "peak memory of a worker, MiB": round(found["worker"]),
                    }
                )
                print(figures["runs"][-1])
    keep("prepare", figures)


if __name__ == "__main__":
    main()
