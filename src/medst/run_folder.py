"""What a run leaves on disk, and how it is found again.

    settings.json      recipe, cohort, version; written first
    environment.json   what it ran on and with, an entry each time it was begun or gone on with
    tokenizer/         the word pieces
    metrics.csv        a row a training step, a row a validation
    tensorboard/       the same, to look at
    wandb.json         id of the run at Weights & Biases, with that logger
    state/step-*/      what it takes to go on: weights, optimiser, random states, place in the data; the last few
    failed-step-*/     the batch whose loss exploded or is no number
    best/, last/       models in the format of `medst.load`

A state is written beside its final name and moved there whole, so a folder named step-* is always complete.
"""

import csv
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medst import NUMERICS, __version__
from medst.environment import describe_environment
from medst.errors import MedstError
from medst.recipes.settings import Recipe, from_dict, to_dict

COLUMNS = (
    "step",
    "epoch",
    "split",
    "lr",
    "seconds",
    "waited",
    "gradient_norm",
    "loss",
    "global",
    "local_words",
    "local_patches",
    "image_to_report_classification",
    "image_to_report_regression",
    "report_to_image_classification",
    "report_to_image_regression",
)
DIGESTS = "sha256.json"
PLACE = "run.json"
FREE_TO_CHANGE = frozenset(
    (
        "name",
        "optimiser.stop_after",
        "run.precision",
        "run.loader_workers",
        "run.save_every",
        "run.save_minutes",
        "run.keep_states",
        "run.engine",
        "run.checkpoint_activations",
        "optimiser.accumulate",
        "run.logger",
        "run.project",
        "run.name",
    )
)


class RunFolder:
    """A run's folder: opened once, by the run that writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.csv"

    def start(self, recipe: Recipe, cohort: Mapping[str, Any]) -> bool:
        """Write the settings, or hold them against those of the run that is already here.

        Args:
            recipe: all settings.
            cohort: `dataset` and `fingerprint` of the cohort.

        Returns:
            Whether there was a run here to go on with.

        Raises:
            MedstError: the folder holds something else, or a run with other settings or another cohort.
        """
        file = self.path / "settings.json"
        settings: dict[str, Any] = {
            "medst_version": __version__,
            "numerics": NUMERICS,
            "recipe": to_dict(recipe),
            "cohort": dict(cohort),
        }
        if file.is_file():
            old = json.loads(file.read_text())
            # Fields that came after that run was begun have their defaults in it.
            before = to_dict(from_dict(Recipe, old["recipe"]))
            changed = [n for n in differing(before, settings["recipe"]) if n not in FREE_TO_CHANGE]
            if changed:
                raise MedstError(
                    f"{self.path} holds a run with other settings ({', '.join(changed)}); "
                    "give them as they were, or another run folder."
                )
            if old["cohort"] != settings["cohort"]:
                raise MedstError(f"{self.path} holds a run on another cohort; give that cohort, or another run folder.")
            return True
        if self.path.exists() and any(self.path.iterdir()):
            raise MedstError(f"{self.path} is not empty and holds no run; give an empty or a new folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)
        return False

    def note_environment(self, processes: int) -> None:
        """Add what the run is about to run on to environment.json."""
        file = self.path / "environment.json"
        before = json.loads(file.read_text()) if file.is_file() else []
        write_json(file, [*before, describe_environment(processes)])

    def tracker(self) -> str:
        """Id of this run at Weights & Biases: drawn once, so that a run that resumes stays one run."""
        file = self.path / "wandb.json"
        if not file.is_file():
            write_json(file, {"id": secrets.token_hex(8)})
        return str(json.loads(file.read_text())["id"])

    def states(self) -> list[Path]:
        """Complete states, newest first."""
        found = [p for p in (self.path / "state").glob("step-*") if p.suffix not in (".part", ".damaged")]
        return sorted(found, reverse=True)

    def set_damaged_aside(self) -> list[str]:
        """Rename states whose files are not what was written to step-*.damaged, from the newest to the first whole one.

        Returns:
            The names of those set aside.

        Raises:
            MedstError: there are states, and all of them are damaged.
        """
        damaged: list[str] = []
        for state in self.states():
            if _is_whole(state):
                return damaged
            aside = state.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            state.rename(aside)
            damaged.append(state.name)
        if damaged:
            raise MedstError(
                f"{self.path / 'state'}: every saved state is damaged ({', '.join(damaged)}); begin again in a new folder, "
                f"for instance from {self.path / 'last'} with --start."
            )
        return []

    def seal(self, part: Path) -> None:
        """Note the digests of a state's files and give it its name; from then on it counts."""
        # run.json is written again, in one move, when an epoch was validated after its last step.
        files = [path for path in sorted(part.iterdir()) if path.name != PLACE]
        write_json(part / DIGESTS, {path.name: _digest(path) for path in files})
        part.rename(part.with_suffix(""))

    def check_room(self, needed: int) -> None:
        """Refuse to begin where the next checkpoint has no room.

        Raises:
            MedstError: the disk has fewer than `needed` bytes free.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise MedstError(
                f"{self.path}: the next checkpoint takes {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; make "
                "room or give a folder on another disk."
            )

    def state_path(self, step: int) -> Path:
        """Where the state after so many steps belongs."""
        return self.path / "state" / f"step-{step:09d}"

    def drop_old_states(self, keep: int) -> None:
        """Keep the newest states only."""
        for state in self.states()[keep:]:
            shutil.rmtree(state)

    def cut_metrics(self, step: int) -> None:
        """Forget rows of steps after `step`, which will be taken again."""
        rows = [row for row in self.read_metrics() if int(row["step"]) <= step]
        part = self.metrics.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.metrics)

    def read_metrics(self) -> list[dict[str, str]]:
        """All rows of metrics.csv, a torn last line left out."""
        if not self.metrics.is_file():
            return []
        with self.metrics.open(newline="") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.csv."""
        with self.metrics.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside its final name and move it there."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(state: Path) -> bool:
    try:
        json.loads((state / PLACE).read_text())
        digests = json.loads((state / DIGESTS).read_text())
        return all(_digest(state / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ between two nested dictionaries."""
    names = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differing(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(prefix + key)
    return names
