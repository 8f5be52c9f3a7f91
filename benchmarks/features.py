"""Image features of a benchmark of the size of RSNA with the paper's ViT-B/16, against the time that its FLOPs need.

    python benchmarks/features.py [--images 192] [--model run/last --cohort comparisons]

`image_features` as `medst evaluate` calls it, on made-up pictures, best of two; FLOPs are those of the encoder and the
global head, at the measured peak of a large matmul before and after. The minutes for 26,684 images are extrapolated. With a
model and an ms-cxr-t cohort also: how many predictions of temporal-image and how many nearest images bf16 changes.
Memory: the highest resident set while features of so many and of eight times as many images go to a cache, each in a process
of its own, by a small encoder.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from machine import keep
from medst import weights
from medst.cohort.store import Cohort, open_cohort
from medst.encode import Precision, image_features
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import Question
from medst.evaluate.temporal_image import temporal_image
from medst.recipes import RECIPES
from medst.tokenizer import learn_tokenizer
from medst.use import Model, load
from train_step import matmul_peak

RSNA = 26_684


def made_up(recipe: str) -> Model:
    """A model that was never trained."""
    tokenizer = learn_tokenizer(["no change since the prior study"] * 4, 60)
    chosen = RECIPES[recipe]
    torch.manual_seed(0)
    model, objective = weights.build(chosen, tokenizer)
    return Model(model.eval(), objective, tokenizer, chosen, "made up")


def noise(images: int, folder: str) -> Cohort:
    """So many pictures of noise, on the disk."""
    path = Path(folder) / f"{images}.npy"
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (images, 256, 256))
    rng = np.random.default_rng(0)
    for start in range(0, images, 256):
        part = stored[start : start + 256]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    stored.flush()
    meta = {"fingerprint": f"noise of {images}", "dataset": "noise"}
    return Cohort(Path(folder), meta, np.load(path, mmap_mode="r"), pl.DataFrame({"row": range(images)}))


def seconds(loaded: Model, cohort: Cohort, precision: Precision) -> float:
    """Of one pass, the better of two."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        image_features(loaded, cohort, range(len(cohort.images)), precision=precision)
        best = min(best, time.perf_counter() - start)
    return best


def flops_an_image(loaded: Model) -> float:
    """Multiplications and additions of the encoder and the global head."""
    picture = torch.zeros(1, 1, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded.model.image_global(loaded.model.vision.encode_view(picture)[:, 0])
    return float(counter.get_total_flops())


def peak_memory(images: int) -> float:
    """GiB of a process that computes so many features into a cache."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = noise(images, folder)
        found = image_features(made_up("tiny"), cohort, range(images), cache=Path(folder) / "features")
        assert np.isfinite(found.embedding).all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def changed(model: Path, comparisons: Path) -> dict[str, Any]:
    """What bf16 decides otherwise than fp32."""
    loaded, cohort = load(model, device="cpu"), open_cohort(comparisons)
    outcomes = [temporal_image(ModelSubject(loaded, p), cohort, Question(protocol="paper")) for p in ("fp32", "bf16")]
    said = [[row["predicted"] for row in outcome.predictions] for outcome in outcomes]
    rows = range(len(cohort.images))
    whole, half = (image_features(loaded, cohort, rows, precision=p).embedding for p in ("fp32", "bf16"))
    nearest = []
    for embedding in (whole, half):
        similar = embedding @ embedding.T
        np.fill_diagonal(similar, -1)
        nearest.append(similar.argmax(1))
    return {
        "temporal-image predictions": len(said[0]),
        "changed by bf16": sum(a != b for a, b in zip(*said, strict=True)),
        "images": len(rows),
        "nearest images changed by bf16": int((nearest[0] != nearest[1]).sum()),
        "largest change of an embedding": round(float(np.abs(whole - half).max()), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cohort", type=Path)
    arguments = parser.parse_args()
    loaded = made_up("paper")
    flops, peak = flops_an_image(loaded), matmul_peak("cpu")
    with tempfile.TemporaryDirectory() as folder:
        cohort = noise(arguments.images, folder)
        taken = {p: seconds(loaded, cohort, p) / arguments.images for p in ("fp32", "bf16")}
    peak = max(peak, matmul_peak("cpu"))
    figures: dict[str, Any] = {
        "GFLOP an image": round(flops / 1e9, 2),
        "matmul peak, GFLOP/s": round(peak / 1e9, 1),
        "images measured": arguments.images,
        **{
            precision: {
                "images a second": round(1 / each, 2),
                "over the time of its FLOPs at the fp32 peak": round(each / (flops / peak), 3),
                f"minutes for {RSNA} images": round(RSNA * each / 60, 1),
            }
            for precision, each in taken.items()
        },
    }
    context = multiprocessing.get_context("spawn")
    memory = {}
    for images in (1000, 8000):
        with context.Pool(1) as pool:
            memory[f"{images} images"] = round(pool.apply(peak_memory, (images,)), 3)
    figures["peak memory, GiB"] = memory
    if arguments.model and arguments.cohort:
        figures["bf16 beside fp32"] = changed(arguments.model, arguments.cohort)
    print(figures)
    keep("features_cpu", figures)


if __name__ == "__main__":
    main()
