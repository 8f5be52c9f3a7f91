"""A run's metrics.csv: written row by row, and cut back to a checkpoint when the run resumes."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.files import UnusableFile, read_regular, set_aside, sha256, write_text
from medst.recipes.objective import TERMS

METRICS = "metrics.csv"
COLUMNS = ("step", "epoch", "split", "lr", "seconds", "waited", "gradient_norm", "loss", *TERMS)


class Metrics:
    """metrics.csv of a run. Its rows are kept in memory as well, so that losing the file during the run costs none."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: list[str] = []

    def read(self) -> list[dict[str, str]]:
        """All rows, without a torn last line; an empty list if the file does not exist.

        Raises:
            MedstError: it is damaged otherwise, or not a regular file.
        """
        return _read_rows(self.file)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        line = _line(row)
        self._lines.append(line)
        with self.file.open("a", newline="") as file:
            file.write(line)

    def copy_to(self, checkpoint: Path) -> str:
        """Copy the rows so far to a checkpoint; returns their digest."""
        write_text(checkpoint / METRICS, "".join([HEAD, *self._lines]))
        return _digest(self._lines)

    def cut(self, step: int, validated: int, checkpoint: Path | None = None, digest: str | None = None) -> str:
        """Keep what the run had logged after `step` steps and `validated` epochs; later rows are computed again.

        If rows are missing or belong to another run, the checkpoint's copy replaces them, and the file is set aside.

        Args:
            step: steps of the checkpoint.
            validated: epochs that the checkpoint counts as validated.
            checkpoint: its folder; None at the start of a run.
            digest: that of the rows as the checkpoint knows it; None in checkpoints of earlier versions.

        Returns:
            A note for the user; empty if all rows were there.

        Raises:
            MedstError: metrics.csv is not a regular file.
        """

        def lines_of(file: Path) -> list[str]:
            limits = {"train": ("step", step), "valid": ("epoch", validated)}
            return [
                _line(row) for row in _read_rows(file) if int(row[limits[row["split"]][0]]) <= limits[row["split"]][1]
            ]

        def is_complete(lines: list[str]) -> bool:
            return len(lines) == step + validated if digest is None else _digest(lines) == digest

        try:
            lines = lines_of(self.file)
        except UnusableFile as error:
            raise MedstError(f"{error} Move it away; the run then writes a new one.") from None
        except MedstError:
            lines = []
        note = ""
        if not is_complete(lines):
            copy = list[str]()
            with suppress(OSError, MedstError):
                copy = lines_of(checkpoint / METRICS) if checkpoint is not None and digest is not None else []
            aside = f"; the old file is {set_aside(self.file).name}" if self.file.is_file() else ""
            if is_complete(copy):
                lines, note = copy, f"restored from {checkpoint}{aside}."
            else:
                note = f"lost{aside}; the weights are not affected."
            note = f"{self.file} was damaged or lacked rows up to step {step}, which are {note}"
        self._lines = lines
        write_text(self.file, "".join([HEAD, *lines]))
        return note


def _read_rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    complete = [line for line in read_regular(file).splitlines(keepends=True) if line.endswith(b"\n")]
    try:
        lines = [line.decode() for line in complete]
        head, *rows = csv.reader(lines) if lines else [list(COLUMNS)]
        for number, values in enumerate(rows, 2):
            if len(values) != len(head):
                raise ValueError(f"line {number} has {len(values)} values, the header has {len(head)}")
        missing = [name for name in ("step", "epoch", "split") if name not in head]
        if missing:
            raise ValueError(f"it has no column {missing[0]!r}")
        found = [dict(zip(head, values, strict=True)) for values in rows]
        for row in found:
            int(row["step"]), int(row["epoch"])
            [float(value) for name, value in row.items() if value and name != "split"]
            if row["split"] not in ("train", "valid"):
                raise ValueError(f"split {row['split']!r}")
    except (ValueError, csv.Error) as error:
        raise MedstError(f"{file} is damaged ({error}); move it away: a run that resumes restores its rows.") from error
    return found


def _line(row: Mapping[str, Any]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, COLUMNS).writerow({name: row.get(name, "") for name in COLUMNS})
    return text.getvalue()


HEAD = _line({name: name for name in COLUMNS})


def _digest(lines: Sequence[str]) -> str:
    return sha256("".join(lines).encode())
