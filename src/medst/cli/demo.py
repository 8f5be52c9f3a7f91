"""`medst demo`."""

import sys
from pathlib import Path

from medst.cli.arguments import INTERRUPTED, Out
from medst.cli.results import print_results
from medst.evaluate.benchmarks import BENCHMARKS


def demo(
    out: Out = Path("medst-demo"), /, patients: int = 1100, seed: int = 0, epochs: int = 14, workers: int = 0
) -> None:
    """Run every step once on phantom patients: prepare, pretrain, evaluate, report. Made for a laptop's CPU.

    Args:
        out: folder for everything; a stopped demo resumes.
        patients: number of phantom patients.
        seed: seed of the phantom and of the run.
        epochs: passes over the training sequences.
        workers: processes that draw and read images; 0 means one per core.
    """
    from medst.demo import run_demo

    if (out / "raw").exists():
        print(f"Resuming the demo in {out}; finished steps are skipped.", file=sys.stderr)
    results = run_demo(out, patients=patients, seed=seed, epochs=epochs, workers=workers)
    if results is None:
        print(f"Stopped. `medst demo {out}` with the same options resumes it.", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    print_results(results, out / "run" / "results.json", BENCHMARKS, results["cohorts"])
    print(f"Report: {out / 'report.html'}")
    print(f"Look at a patient over time: medst app {out / 'run' / 'last'} {out / 'cohort'}")
