"""A patient's studies as a caller gives them: one or several, in any order, with or without lateral views."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import torch
from torch import Tensor

from medst.errors import MedstError
from medst.use.pictures import Source


@dataclass(frozen=True, eq=False, init=False)
class Study:
    """One study of a patient.

    Attributes:
        frontal: the frontal view, see `Source`.
        lateral: the lateral view, or None.
        time: when it was made; may be given as a date, or as a text such as "2150-03-01" or "2150-03-01T10:30".
        report: its text.
        name: what to call it.

    Raises:
        MedstError: the time can't be read.

    >>> Study("a.png", time="2150-03-01").time
    datetime.datetime(2150, 3, 1, 0, 0)
    """

    frontal: Source
    lateral: Source | None = None
    time: datetime | None = None
    report: str = ""
    name: str = ""

    def __init__(
        self,
        frontal: Source,
        lateral: Source | None = None,
        time: datetime | date | str | None = None,
        report: str = "",
        name: str = "",
    ) -> None:
        given = {"frontal": frontal, "lateral": lateral, "time": _read_time(time), "report": report, "name": name}
        for attribute, value in given.items():
            object.__setattr__(self, attribute, value)


def _read_time(given: object) -> datetime | None:
    if given is None or isinstance(given, datetime):
        return given
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day)
    try:
        return datetime.fromisoformat(given.strip())  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        raise MedstError(
            f"a study's time is {str(given)[:40]!r}; give a datetime, or a text such as 2150-03-01 or 2150-03-01T10:30."
        ) from None


def time_order(studies: Sequence[Study]) -> list[int]:
    """Places of the studies in time order; in the given order if none has a time.

    Raises:
        MedstError: some have a time, or a time zone, and others don't.
    """
    times = [study.time for study in studies if study.time is not None]
    if not times:
        return list(range(len(studies)))
    if len(times) < len(studies):
        raise MedstError(f"{len(studies) - len(times)} of {len(studies)} studies have no time; give all or none.")
    if len({time.tzinfo is None for time in times}) > 1:
        raise MedstError("some studies' times have a time zone and others don't; give one to all or to none.")
    return sorted(range(len(studies)), key=times.__getitem__)


def as_pairs(
    frontal: Source | Study | Sequence[Source | Study], lateral: Source | Sequence[Source | None] | None
) -> list[tuple[Source, Source | None]]:
    """Frontal views, each with its lateral view or None.

    `frontal` is one frontal view or several, or one study or several, which have their own lateral views.

    Raises:
        MedstError: not as many laterals as frontal views, or studies together with something else.
    """
    given = list(each_of(frontal))
    if any(isinstance(item, Study) for item in given):
        if lateral is not None or not all(isinstance(item, Study) for item in given):
            raise MedstError("give studies alone: each brings its own lateral view.")
        return [(item.frontal, item.lateral) for item in given]
    laterals = [None] * len(given) if lateral is None else list(each_of(lateral))
    if len(laterals) != len(given):
        raise MedstError(f"{len(given)} frontal but {len(laterals)} lateral views; give None where there is none.")
    return list(zip(given, laterals, strict=True))


def each_of(given: object) -> Iterator:
    """The items of a list or tuple, or the one thing given; a four-dimensional array or tensor is several pictures."""
    # A sparse tensor can't be taken apart; the reader refuses it.
    several = isinstance(given, np.ndarray) or (isinstance(given, Tensor) and given.layout == torch.strided)
    if isinstance(given, (list, tuple)) or (several and given.ndim == 4):  # type: ignore[attr-defined]
        return iter(given)  # type: ignore[call-overload]
    return iter([given])
