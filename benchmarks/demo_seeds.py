"""What the demo's model learns beyond the best of its baselines, under protocol strict, with several seeds.

    python benchmarks/demo_seeds.py OUT --seeds 0 1 2

One phantom cohort (seed 0), one run a seed: other weights, another order, other crops. What is already in OUT is not done
again. Prints a table and writes it to benchmarks/results/demo_seeds.json, with what it was measured on.
"""

import argparse
import json
import platform
import statistics
from dataclasses import replace
from pathlib import Path

import joblib
import torch

from medst import __version__
from medst.demo import run_demo
from medst.evaluate.intervals import over_runs
from medst.evaluate.runner import evaluate
from medst.pretrain import pretrain
from medst.progress import Display
from medst.recipes import RECIPES

ROWS = (
    ("temporal-image", "macro accuracy", "average"),
    ("temporal-text", "auroc", "all"),
    ("temporal-text", "auroc", "RadGraph"),
    ("temporal-text", "auroc", "swaps"),
)


def main() -> None:
    """Run the demo, train again with the other seeds, and set the numbers side by side; at least two seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--patients", type=int, default=1100)
    parser.add_argument("--epochs", type=int, default=14)
    args = parser.parse_args()

    first, *others = args.seeds
    demo = args.out / "demo"
    run_demo(demo, patients=args.patients, seed=first, epochs=args.epochs, workers=0)
    runs = [json.loads((demo / "run" / "results.json").read_text())]
    tiny = RECIPES["tiny"]
    for seed in others:
        recipe = replace(tiny, optimiser=replace(tiny.optimiser, epochs=args.epochs), run=replace(tiny.run, seed=seed))
        run = args.out / f"seed-{seed}"
        with Display([f"seed {seed}"]) as display:
            pretrain(demo / "cohort", run, recipe, progress=display.stage(f"seed {seed}"))
        runs.append(evaluate(run / "last", demo / "comparisons", run / "results.json"))

    table = []
    for task, metric, finding in ROWS:
        key = {"task": task, "metric": metric, "finding": finding}
        values: dict[str, list[float]] = {}
        for row in (row for results in runs for row in results["results"]):
            if key.items() <= row.items():
                values.setdefault(row["model"], []).append(row["value"])
        leads = [lead for results in runs for lead in results["leads"] if key.items() <= lead.items()]
        means = ", ".join(f"{model} {statistics.mean(numbers):.3f}" for model, numbers in values.items())
        print(f"{task}, {metric}, {finding}: {means}")
        table.append(key | {"values": values, "leads": leads})
        if leads:
            lead = over_runs([one["value"] for one in leads], [(one["low"], one["high"]) for one in leads])
            over = " or ".join(sorted({one["baseline"] for one in leads}))
            low, high = lead.both or lead.runs
            print(f"  lead over {over} {lead.mean:+.3f}, seeds and test data {low:+.3f} to {high:+.3f}")
            table[-1]["lead"] = {"mean": lead.mean, "low": low, "high": high}
    found = {
        "on": f"{platform.machine()}, {joblib.cpu_count()} cores, torch {torch.__version__}",
        "medst_version": __version__,
        "patients": args.patients,
        "epochs": args.epochs,
        "seeds": args.seeds,
        "table": table,
    }
    results_file = Path(__file__).parent / "results" / "demo_seeds.json"
    results_file.parent.mkdir(exist_ok=True)
    results_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
