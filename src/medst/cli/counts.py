"""Counts as a phrase."""

from typing import Any


def count_phrase(counts: dict[str, Any]) -> str:
    """Join the integers of `counts` with their names, singular where the count is 1.

    >>> count_phrase({"patients": 1, "studies": 2, "share": 0.5})
    '1 patient, 2 studies'
    """
    shown = {name.replace("_", " "): value for name, value in counts.items() if isinstance(value, int)}
    one = {name: name.removesuffix("ies") + "y" if name.endswith("ies") else name.removesuffix("s") for name in shown}
    return ", ".join(f"{value} {one[name] if value == 1 else name}" for name, value in shown.items())
