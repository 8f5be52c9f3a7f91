"""Ranges of settings, declared beside their types, and a check of all values."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """Range of a number; both ends are finite, so NaN and infinity are always outside.

    Attributes:
        low: lower end.
        high: upper end.
        open: end that is not part of the range: "low", "high" or neither.
        why: reason for an end that is not obvious, for the error message.

    >>> 1 in Range(0, 1), 1 in Range(0, 1, open="high"), float("nan") in Range(0, 1)
    (True, False, False)
    >>> print(Range(0, 1, open="low"))
    above 0 and at most 1
    """

    low: float
    high: float
    open: Literal["low", "high", ""] = ""
    why: str = ""

    def __contains__(self, value: float) -> bool:
        inside = self.low <= value <= self.high
        return inside and value != {"low": self.low, "high": self.high}.get(self.open)

    def __str__(self) -> str:
        low = f"above {self.low:g} and" if self.open == "low" else f"from {_plain(self.low)} to"
        high = {"low": "at most ", "high": "below "}.get(self.open, "")
        return f"{low} {high}{_plain(self.high)}" + (f": {self.why}" if self.why else "")


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def settings_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted name, declared type and value of each setting, nested ones included."""
    for each in dataclasses.fields(settings):
        value, name = getattr(settings, each.name), prefix + each.name
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{name}.")
        else:
            yield name, each.type, value


def outside(settings: Any) -> Iterator[str]:
    """Yield a clause for each setting whose value has the wrong type or is out of range."""
    for path, kind, value in settings_of(settings):
        ranges: list[Range] = []
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
            ranges = [mark for mark in marks if isinstance(mark, Range)]
        if get_origin(kind) is Literal:
            fits, wanted = value in get_args(kind), "one of " + ", ".join(map(str, get_args(kind)))
        else:
            numbers = (int, float) if kind is float else kind
            fits = isinstance(value, numbers) and (kind is bool or not isinstance(value, bool))
            wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
        if fits and ranges:
            fits, wanted = value in ranges[0], str(ranges[0])
        if not fits:
            flag = path.replace("_", "-")
            yield f"{path} is {value!r}; it must be {wanted} (--{flag})"
