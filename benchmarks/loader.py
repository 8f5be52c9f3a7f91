"""The loader against decoding JPEGs in every step: images a second and core.

    python benchmarks/loader.py

A cohort of N made-up images in random order, batches as in training (crops on the device, here the CPU), one core; the other
way decodes the same number of JPEGs of 3056 x 2544 pixels, of MIMIC's kind, resizes, crops and normalises each by itself.
The store is in the page cache, as it is from the second epoch on where it fits (MIMIC-CXR: 17 GiB).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import torch

from decode import make, usual
from machine import keep
from medst.batch import Batches
from medst.cohort.pairs import labels_schema
from medst.cohort.resize import SIDE
from medst.cohort.store import SCHEMA, open_cohort
from medst.recipes.settings import DataSettings
from medst.tokenizer import learn_tokenizer

CROP = 224


def made_up_cohort(path: Path, images: int) -> None:
    """A cohort of patients with four studies each, every second with a lateral."""
    path.mkdir()
    rng = np.random.default_rng(0)
    store = np.lib.format.open_memmap(path / "images.npy", "w+", np.uint8, (images, SIDE, SIDE))
    for start in range(0, images, 256):
        store[start : start + 256] = rng.integers(0, 256, store[start : start + 256].shape, dtype=np.uint8)
    store.flush()
    pairs = images * 2 // 3
    has = np.arange(pairs) % 2 == 0
    laterals = np.where(has, pairs + np.cumsum(has) - 1, -1)
    laterals = [int(row) if 0 <= row < images else None for row in laterals]
    order = rng.permutation(pairs)
    pl.DataFrame(
        {
            "patient_id": [f"p{i // 4:06d}" for i in range(pairs)],
            "study_id": [f"s{i:06d}" for i in range(pairs)],
            "time": np.datetime64("2100-01-01", "us") + np.arange(pairs).astype("timedelta64[h]"),
            "split": "train",
            "report": "no acute cardiopulmonary process the lungs are clear",
            "frontal": order,
            "lateral": laterals,
            "labels": pl.Series([None] * pairs, dtype=labels_schema()["labels"]),
        }
    ).write_parquet(path / "pairs.parquet")
    texts = dict.fromkeys(("image_id", "path", "view", "view_position", "status"), pl.lit("", pl.String))
    sizes = dict.fromkeys(("height", "width"), pl.lit(SIDE, pl.Int32))
    pl.DataFrame({"row": np.arange(images)}).with_columns(**texts, **sizes).write_parquet(path / "images.parquet")
    meta = {"schema": SCHEMA, "dataset": "made up", "dataset_version": "", "medst_version": "", "fingerprint": "0"}
    meta |= {key: {} for key in ("options", "source", "counts")}
    (path / "cohort.json").write_text(json.dumps(meta))


def from_store(cohort: Path, sequences: int) -> dict[str, float]:
    """Images a second out of the loader, and after cropping and normalising on the device."""
    opened = open_cohort(cohort)
    tokenizer = learn_tokenizer(["no acute cardiopulmonary process the lungs are clear"], 100)
    data = DataSettings(sequences_per_batch=sequences)
    batches = Batches(opened, "train", tokenizer, data, pieces=112, seed=0, training=True)
    np.asarray(opened.images).max()  # into the page cache
    found = {"loaded": 0.0, "loaded, cropped and normalised": 0.0}
    for epoch in range(3):
        batches.epoch = epoch
        for name, finish in zip(found, (lambda batch: None, lambda batch: batch.pictures(CROP, CROP)), strict=True):
            images, start = 0, time.perf_counter()
            for number in range(len(batches)):
                batch = batches[number]
                images += len(batch.frontal) + len(batch.lateral)
                finish(batch)
            found[name] = max(found[name], images / (time.perf_counter() - start))
    return {name: round(rate) for name, rate in found.items()}


def from_files(folder: Path) -> float:
    """Images a second where each step decodes its JPEGs."""
    rng, best = np.random.default_rng(0), 0.0
    paths = make(folder, 4)["usual"]
    for _ in range(3):
        start = time.perf_counter()
        for path in paths:
            small = usual(path)
            whole = np.zeros((SIDE, SIDE), np.uint8)
            whole[: small.shape[0], : small.shape[1]] = small
            top, left = rng.integers(0, SIDE - CROP + 1, 2)
            torch.from_numpy(whole[top : top + CROP, left : left + CROP].copy()).float().div(127.5).sub(1)
        best = max(best, len(paths) / (time.perf_counter() - start))
    return round(best, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--sequences", type=int, default=32, help="in a batch, of 4 studies each")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made_up_cohort(Path(folder) / "cohort", arguments.images)
        store = from_store(Path(folder) / "cohort", arguments.sequences)
        decoded = from_files(Path(folder))
    figures = {
        "images": arguments.images,
        "sequences in a batch": arguments.sequences,
        "images a second and core": store | {"decoding a JPEG of 3056 x 2544 for each": decoded},
        "times decoding": {name: round(rate / decoded, 1) for name, rate in store.items()},
    }
    print(figures)
    keep("loader", figures)


if __name__ == "__main__":
    main()
