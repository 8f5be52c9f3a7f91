"""A run as users start it, with its loader: pairs a second, the share of time that steps wait for batches, use of the peak.

    python benchmarks/sustained.py COHORT                                    # recipe tiny, loader in 0, 1 and 2 processes
    python benchmarks/sustained.py COHORT --recipe modern --sequences 3 --steps 6 --workers 0 1
    python benchmarks/sustained.py COHORT --recipe modern --sequences 96 --steps 3000 --workers 12   # a GPU, ten minutes

Each configuration is a run of `medst pretrain` that is stopped after so many steps; the first three do not count. FLOPs are
those that `--dry-run` states, the peak is that of `train_step.py`. Evaluation and saving are not in the numbers.
"""

import argparse
import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from machine import keep
from medst.pretrain import pretrain
from medst.pretrain.dry_run import estimate
from medst.recipes import RECIPES
from train_step import matmul_peak

FIRST = 3


def measure(arguments: argparse.Namespace, workers: int, folder: Path) -> dict[str, Any]:
    """One run."""
    recipe = RECIPES[arguments.recipe]
    sequences = arguments.sequences or recipe.data.sequences_per_batch
    recipe = replace(
        recipe,
        data=replace(recipe.data, sequences_per_batch=sequences),
        optimiser=replace(recipe.optimiser, stop_after=arguments.steps, epochs=10_000),
        run=replace(recipe.run, loader_workers=workers, precision=arguments.precision, logger="csv"),
    )
    expected = estimate(arguments.cohort, recipe)
    pretrain(arguments.cohort, folder, recipe)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][FIRST:]
    seconds, waited = (sum(float(row[name]) for row in rows) for name in ("seconds", "waited"))
    flops = expected.flops_a_step * len(rows) / (seconds + waited)
    return {
        "loader processes": workers,
        "sequences a step": sequences,
        "steps": len(rows),
        "seconds a step": round((seconds + waited) / len(rows), 4),
        "pairs a second": round(expected.pairs_a_step * len(rows) / (seconds + waited), 2),
        "share of time waiting for batches": round(waited / (seconds + waited), 5),
        "TFLOPs a second": round(flops / 1e12, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--recipe", default="tiny", choices=sorted(RECIPES))
    parser.add_argument("--sequences", type=int, default=0, help="a batch; the recipe's if not given")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in arguments.workers:
            runs.append(measure(arguments, workers, Path(folder) / str(workers)))
            print(json.dumps(runs[-1]), flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = matmul_peak(device)
    for run in runs:
        run["of the matmul peak"] = round(run["TFLOPs a second"] / (peak / 1e12), 3)
    figures = {"recipe": arguments.recipe, "device": device, "matmul peak, GFLOP/s": round(peak / 1e9, 1), "runs": runs}
    print(json.dumps(figures, indent=1))
    keep(f"sustained_{arguments.recipe}_{device}", figures)


if __name__ == "__main__":
    main()
