"""`medst ablate`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from medst.cli.arguments import CohortPath, Out
from medst.cli.recipes import Settings
from medst.errors import MedstError


@dataclass(frozen=True)
class Ablate:
    """Train variants of a recipe, each with one part left out or added, and report what each part is worth."""

    cohort: CohortPath
    """Folder of a prepared cohort with pairs: seed 0 trains on it."""
    out: Out
    """Folder for all runs and the table; the same command resumes a stopped job and retries runs that failed."""
    settings: Settings
    more_cohorts: tuple[Path, ...] = ()
    """Cohorts of other patients for the next seeds, which start again with COHORT when these are used up."""
    comparisons: tuple[Path, ...] = ()
    """An ms-cxr-t cohort to measure on for each cohort, in the same order; retrieval is always measured on the cohort."""
    seeds: int = 5
    """Runs per variant; their seeds replace --run.seed."""
    only: tuple[str, ...] = ()
    """Names of variants; a dozen if not given. Fewer questions detect smaller differences."""
    pilot: Path | None = None
    """An earlier ablation.json, whose spread tells what this one can detect; without it, the reference's runs tell."""
    epochs: int | None = None
    """Passes over the training sequences; the same as --optimiser.epochs."""
    jobs: int = 1
    """Runs at a time."""

    def run(self) -> None:
        """State what can be detected, train and measure all variants and print the tables.

        Raises:
            MedstError: as `medst.ablate.ablate`; or, after the tables are printed, runs are missing from them.
        """
        self.settings.check()  # before the seconds that the imports take
        from medst.ablate import ablate
        from medst.files import read_json
        from medst.progress import Display

        with Display(["ablate"]) as display:
            tables = ablate(
                (self.cohort, *self.more_cohorts),
                self.out,
                comparisons=self.comparisons,
                recipe=self.settings,
                seeds=self.seeds,
                only=self.only,
                pilot=self.pilot,
                epochs=self.epochs,
                jobs=self.jobs,
                progress=display.stage("ablate"),
                say=lambda note: print(note, file=sys.stderr),
            )
        print(tables)
        file = self.out / "ablation.json"
        missing = len(read_json(file, "the same command writes it", {"failed": [dict]})["failed"])
        if missing:
            raise MedstError(
                f"{missing} {'run is' if missing == 1 else 'runs are'} missing from the tables, for the reasons above; "
                "the same command tries again."
            )
