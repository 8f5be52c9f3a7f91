"""`medst pretrain`."""

import os
import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from medst.cli.arguments import INTERRUPTED, CohortPath, Run
from medst.cli.recipes import Settings


@dataclass(frozen=True)
class Pretrain:
    """Train a model on a cohort; a run that was stopped is resumed."""

    cohort: CohortPath
    """Folder of a prepared cohort with pairs."""
    out: Annotated[Run, arg(metavar="RUN")]
    """Folder of the run."""
    settings: Settings
    dry_run: bool = False
    """Only estimate hours, memory and disk, and name the GPUs that are large enough; writes nothing."""

    def run(self) -> None:
        """Train, or estimate, and print the outcome."""
        self.settings.check()  # before the seconds that the imports take
        from medst.pretrain import pretrain
        from medst.progress import Display

        if self.dry_run:
            from medst.pretrain.dry_run import estimate

            print(estimate(self.cohort, self.settings))
            return
        if os.environ.get("RANK", "0") != "0":  # one of several processes; only the first one prints
            pretrain(self.cohort, self.out, self.settings)
            return
        with Display(["pretrain"]) as display:
            stage = display.stage("pretrain")
            outcome = pretrain(self.cohort, self.out, self.settings, stage, say=_print_note)
        for state in outcome.get("damaged_states", ()):
            print(
                f"{self.out}: {state} was damaged and is set aside; the run resumed from the one before.",
                file=sys.stderr,
            )
        if not outcome["finished"]:
            print(f"Stopped after {outcome['steps']} steps; the same command resumes from there.", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        best = self.out / "best"
        loss = f"best validation loss {outcome['best_loss']:.4f} in {best}"
        print(f"{self.out}: trained to epoch {outcome['epochs']}, {loss}")
        print(f"Next: {shlex.join(['medst', 'evaluate', 'all', str(best), str(self.cohort)])}")


def _print_note(note: str) -> None:
    print(f"Note: {note}", file=sys.stderr)
