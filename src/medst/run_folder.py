"""What a run leaves on disk, and how it is found again.

    settings.json      recipe, cohort, version; written first
    environment.json   what it ran on and with, an entry each time it was begun or resumed
    tokenizer/         the word pieces
    metrics.csv        one row per training step, one per validation
    tensorboard/       the same, to look at
    wandb.json         id of the run at Weights & Biases, with that logger
    state/step-*/      what resuming needs: weights, optimiser, random states, place in the data; the last few
    failed-step-*/     the batch whose loss exploded or is not finite
    trained_on.json    salted digests of the patients' ids; the same in each model
    best/, last/       models in the format of `medst.load`

A state is written beside its final name and moved there whole, so a folder named step-* is always complete.
"""

import csv
import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medst import NUMERICS, __version__
from medst.environment import describe_environment
from medst.errors import MedstError
from medst.files import is_free, read_json, read_regular, sha256, write_json, write_text
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
SETTINGS = {"medst_version": str, "recipe": dict, "cohort": {"dataset": str, "fingerprint": str}}
"""What settings.json has, see `medst.files.misfit`."""
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
        self.tokenizer = path / "tokenizer"
        self.settings = path / "settings.json"

    def check(self, recipe: Recipe, cohort: Mapping[str, Any]) -> bool:
        """Hold the settings against those of the run that is already here; write nothing.

        Args:
            recipe: all settings.
            cohort: `dataset` and `fingerprint` of the cohort.

        Returns:
            Whether there is a run here to resume.

        Raises:
            MedstError: the folder holds something else, or a run with other settings or another cohort.
        """
        file = self.settings
        settings = {"recipe": to_dict(recipe), "cohort": dict(cohort)}
        if file.is_file():
            old = read_json(file, "give another run folder", SETTINGS)
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
        if not is_free(self.path):
            raise MedstError(f"{self.path} is not empty and holds no run; give an empty or a new folder.")
        return False

    def start(self, recipe: Recipe, cohort: Mapping[str, Any]) -> bool:
        """Write the settings, unless the same run is already here.

        Args:
            recipe: all settings.
            cohort: `dataset` and `fingerprint` of the cohort.

        Returns:
            Whether there was a run here to resume.

        Raises:
            MedstError: as `check`.
        """
        resumes = self.check(recipe, cohort)
        if not resumes:
            settings = {
                "medst_version": __version__,
                "numerics": NUMERICS,
                "recipe": to_dict(recipe),
                "cohort": dict(cohort),
            }
            write_json(self.settings, settings, indent=2)
        return resumes

    @property
    def numerics(self) -> int:
        """Numerics version that the run was started with; 1 for a run that does not say."""
        return int(read_json(self.settings, "give another run folder", SETTINGS).get("numerics", 1))

    def note_environment(self, processes: int) -> None:
        """Add what the run is about to run on to environment.json."""
        file = self.path / "environment.json"
        before = (
            read_json(file, "remove that file, which only notes what the run ran on", list) if file.is_file() else []
        )
        write_json(file, [*before, describe_environment(processes)], indent=2)

    def tracker(self) -> str:
        """Id of this run at Weights & Biases: drawn once, so that a run that resumes stays one run."""
        file = self.path / "wandb.json"
        if not file.is_file():
            write_json(file, {"id": secrets.token_hex(8)})
        return str(read_json(file, "remove that file; the run then gets a new id", {"id": str})["id"])

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
                f"for instance from {self.path / 'last'} with --start.checkpoint."
            )
        return []

    def drop_unfinished_states(self) -> None:
        """Remove what a kill left of a state; its files are those of another number of processes, perhaps."""
        for part in (self.path / "state").glob("step-*.part"):
            shutil.rmtree(part)

    def seal(self, part: Path) -> None:
        """Write the digests of a state's files and give it its name; from then on it counts."""
        # run.json is written again, in one move, when an epoch was validated after its last step.
        files = [path for path in sorted(part.iterdir()) if path.name != PLACE]
        write_json(part / DIGESTS, {path.name: sha256(path) for path in files})
        part.rename(part.with_suffix(""))

    def check_room(self, needed: int) -> None:
        """Refuse to begin where the next checkpoint has no room.

        Raises:
            MedstError: the disk has fewer than `needed` bytes free.
        """
        place = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(place).free
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

    def cut_metrics(self, step: int, validated: int) -> None:
        """Forget rows of steps after `step` and of epochs after the first `validated`, which will be computed again."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        for row in self.read_metrics():
            if int(row["epoch"]) <= validated if row["split"] == "valid" else int(row["step"]) <= step:
                writer.writerow({name: row.get(name, "") for name in COLUMNS})
        write_text(self.metrics, text.getvalue())

    def read_metrics(self) -> list[dict[str, str]]:
        """All rows of metrics.csv, a torn last line left out.

        Raises:
            MedstError: it is damaged otherwise.
        """
        if not self.metrics.is_file():
            return []
        whole = [line for line in read_regular(self.metrics).splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            lines = [line.decode() for line in whole]
            head, *rows = csv.reader(lines) if lines else [list(COLUMNS)]
            found = [dict(zip(head, row, strict=True)) for row in rows]
            for row in found:
                int(row["step"]), int(row["epoch"])
                [float(value) for name, value in row.items() if value and name != "split"]
                if row["split"] not in ("train", "valid"):
                    raise ValueError(f"split {row['split']!r}")
        except (ValueError, KeyError, csv.Error) as error:
            raise MedstError(
                f"{self.metrics} is damaged ({error}); move it away: the run resumes without it and writes the rows to come."
            ) from error
        return found

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.csv."""
        with self.metrics.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)


def write_place(state: Path, at: Mapping[str, Any]) -> None:
    """Write where the run stands to a state's run.json, with a digest: no other file vouches for this one."""
    write_json(state / PLACE, {**at, "sha256": _digest(at)}, indent=2)


def read_place(state: Path) -> dict[str, Any]:
    """What `write_place` wrote.

    Raises:
        MedstError: it is missing or damaged.
    """
    at: dict[str, Any] = read_json(state / PLACE, "resume from an earlier state", {"step": int})
    digest = at.pop("sha256", None)  # states of earlier versions have none
    if digest is not None and digest != _digest(at):
        raise MedstError(f"{state / PLACE} is damaged; resume from an earlier state.")
    return at


def _digest(at: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(at, sort_keys=True).encode()).hexdigest()


def _is_whole(state: Path) -> bool:
    try:
        read_place(state)
        digests = read_json(state / DIGESTS, "", {str: str})
        return all(sha256(state / name) == digest for name, digest in digests.items())
    except (OSError, MedstError):
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
