"""What must not change by accident: the losses of a short run, and that what earlier versions wrote still opens.

`tests/data/earlier` was written by medst 0.1.0. The losses were recorded with it on one thread; other processors round
differently, which 20 steps amplify (measured with two threads: 1e-4 after 10 steps, 2 % after 20).
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

import medst
from medst.cohort.store import open_cohort
from medst.embed import embed
from medst.pretrain import pretrain
from medst.recipes.settings import Recipe, from_dict

EARLIER = Path(__file__).parent / "data" / "earlier"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())


def processor() -> str:
    """Digest of the processor's model and instruction sets, which decide how sums are rounded."""
    named = ("cpu family", "model", "stepping", "flags")
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    kept = [line for line in lines if line.partition("\t")[0].partition(":")[0].strip() in named]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def test_twenty_steps_of_tiny_give_the_recorded_losses(phantom_cohort: Path, tmp_path: Path) -> None:
    settings = (
        "--data.sequences-per-batch 5 --optimiser.epochs 4 --optimiser.stop-after 20 --optimiser.patience 0 "
        "--optimiser.no-decay-matrices-only --run.precision fp32 --run.logger csv --run.seed 0"
    )
    done = subprocess.run(
        [sys.executable, "-m", "medst", "pretrain", "tiny", phantom_cohort, tmp_path / "run", *settings.split()],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]
    if (processor(), torch.__version__) == (EXPECTED["processor"], EXPECTED["torch"]):
        assert losses == EXPECTED["loss"]
    np.testing.assert_allclose(losses[:10], EXPECTED["loss"][:10], rtol=1e-3)
    np.testing.assert_allclose(losses, EXPECTED["loss"], rtol=0.1)


def test_an_earlier_cohort_opens() -> None:
    cohort = open_cohort(EARLIER / "cohort")
    assert cohort.pairs is not None
    assert cohort.pairs.height == EXPECTED["embeddings"]["pairs"]
    comparisons = open_cohort(EARLIER / "comparisons").comparisons
    assert comparisons is not None
    assert comparisons.height == 16


def test_an_earlier_model_gives_the_same_embeddings(tmp_path: Path) -> None:
    assert medst.load(EARLIER / "run" / "best") is not None
    embed(EARLIER / "run" / "best", EARLIER / "cohort", tmp_path / "out")
    first = pl.read_parquet(tmp_path / "out" / "*.parquet").row(0, named=True)
    for what in ("image", "report"):
        np.testing.assert_allclose(first[what], EXPECTED["embeddings"][what], atol=1e-5)


def test_an_earlier_run_resumes(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "run", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    recipe = from_dict(Recipe, settings["recipe"])
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, stop_after=0))
    done = pretrain(EARLIER / "cohort", tmp_path / "run", recipe)
    assert (done["finished"], done["steps"]) == (True, 4)
    assert sum("numerics version 1" in note for note in done["notes"]) == 1
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert steps == [1, 2, 3, 4]
