"""Rows of a run's metrics.csv as text: read, checked and cut."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.files import read_regular
from medst.recipes.objective import TERMS

COLUMNS = (
    "step",
    "epoch",
    "split",
    "lr",
    "seconds",
    "waited",
    "gradient_norm",
    "loss",
    *TERMS,
)


def read_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a file of metrics."""
    whole = [line for line in read_regular(file).splitlines(keepends=True) if line.endswith(b"\n")]
    try:
        lines = [line.decode() for line in whole]
        head, *rows = csv.reader(lines) if lines else [list(COLUMNS)]
        for number, values in enumerate(rows, 2):
            if len(values) != len(head):
                raise ValueError(f"line {number} has {len(values)} values, the header has {len(head)}")
        lacking = [name for name in ("step", "epoch", "split") if name not in head]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]!r}")
        found = [dict(zip(head, values, strict=True)) for values in rows]
        for row in found:
            int(row["step"]), int(row["epoch"])
            [float(value) for name, value in row.items() if value and name != "split"]
            if row["split"] not in ("train", "valid"):
                raise ValueError(f"split {row['split']!r}")
    except (ValueError, csv.Error) as error:
        raise MedstError(f"{file} is damaged ({error}); move it away: a run that resumes restores its rows.") from error
    return found


def line_of(row: Mapping[str, Any]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, COLUMNS).writerow({name: row.get(name, "") for name in COLUMNS})
    return text.getvalue()


HEAD = line_of({name: name for name in COLUMNS})


def digest_of(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def lines_until(rows: Iterable[Mapping[str, str]], step: int, validated: int) -> tuple[list[str], str]:
    """Lines of the rows that a state knows, and what is wrong with them as the rest of a sentence; empty if nothing is."""
    limits = {"train": ("step", step), "valid": ("epoch", validated)}
    kept = [row for row in rows if int(row[limits[row["split"]][0]]) <= limits[row["split"]][1]]
    for split, (column, last) in limits.items():
        found = [int(row[column]) for row in kept if row["split"] == split]
        lost = sorted(set(range(1, last + 1)) - set(found))
        if lost:
            some = f"{column} {lost[0]}" if len(lost) == 1 else f"{column}s {lost[0]} to {lost[-1]}"
            return [line_of(row) for row in kept], f"lacked {len(lost)} {split} rows ({some})"
        if len(found) != last:
            return [line_of(row) for row in kept], f"had {split} rows twice"
    return [line_of(row) for row in kept], ""
