"""The positional arguments that several verbs share."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Out = Annotated[Path, Positional, arg(metavar="OUT")]
Raw = Annotated[Path, Positional, arg(metavar="RAW")]
CohortPath = Annotated[Path, Positional, arg(metavar="COHORT")]
Cohorts = Annotated[tuple[Path, ...], Positional, arg(metavar="COHORT...")]
Run = Annotated[Path, Positional, arg(metavar="RUN")]
Runs = Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")]
Source = Annotated[Path, Positional, arg(metavar="SOURCE")]
Model = Annotated[Path, Positional, arg(metavar="MODEL")]
RecipeName = Literal["paper", "modern", "tiny"]
