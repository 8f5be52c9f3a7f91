"""Positional arguments that several verbs share, and the exit codes."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Out = Annotated[Path, Positional, arg(metavar="OUT")]
Raw = Annotated[Path, Positional, arg(metavar="RAW")]
CohortPath = Annotated[Path, Positional, arg(metavar="COHORT")]
Cohorts = Annotated[tuple[Path, ...], Positional, arg(metavar="COHORT...")]
Run = Annotated[Path, Positional, arg(metavar="RUN")]
Runs = Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")]
Checkpoint = Annotated[Path, Positional, arg(metavar="CHECKPOINT")]
Model = Annotated[Path, Positional, arg(metavar="MODEL")]

INTERRUPTED, TERMINATED = 130, 143
