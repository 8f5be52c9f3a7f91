"""`medst ablate`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from medst.cli.arguments import CohortPath, Out
from medst.cli.recipes import Settings


@dataclass(frozen=True)
class Ablate:
    """Train variants of a recipe, each with one part left out or added, and report what each part is worth."""

    cohort: CohortPath
    """Folder of a prepared cohort with pairs."""
    out: Out
    """Folder for all runs and the table; the same command resumes a stopped job and retries runs that failed."""
    settings: Settings
    comparisons: Path | None = None
    """An ms-cxr-t cohort to measure on; retrieval on COHORT is always measured."""
    seeds: int = 3
    """Runs per variant; their seeds replace --run.seed."""
    only: tuple[str, ...] = ()
    """Names of variants; all of them if not given."""
    epochs: int | None = None
    """Passes over the training sequences; the same as --optimiser.epochs."""
    jobs: int = 1
    """Runs at a time."""

    def run(self) -> None:
        """Train and measure all variants and print the table."""
        self.settings.check()  # before the seconds that the imports take
        from medst.ablate import ablate
        from medst.progress import Display

        with Display(["ablate"]) as display:
            table = ablate(
                self.cohort,
                self.out,
                comparisons=self.comparisons,
                recipe=self.settings,
                seeds=self.seeds,
                only=self.only,
                epochs=self.epochs,
                jobs=self.jobs,
                progress=display.stage("ablate"),
                say=lambda note: print(note, file=sys.stderr),
            )
        print(table)
