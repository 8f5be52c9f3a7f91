"""`medst demo`."""

import sys
from pathlib import Path

from medst.cli.arguments import INTERRUPTED, Out


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
    outcome = run_demo(out, patients=patients, seed=seed, epochs=epochs, workers=workers)
    if not outcome.finished:
        print(f"Stopped. `medst demo {out}` with the same options resumes it.", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    print(outcome.headline)
    print(f"Look at a patient over time: medst app {out / 'run' / 'last'} {out / 'cohort'}")
