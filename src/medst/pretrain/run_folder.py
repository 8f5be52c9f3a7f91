"""What a run leaves on disk, and how it is found again.

    settings.json      recipe, cohort, version; written first
    environment.json   what it ran on and with, an entry each time it was begun or resumed
    tokenizer/         the word pieces
    metrics.csv        one row per training step, one per validation
    tensorboard/       the same, to look at
    wandb.json         id of the run at Weights & Biases, with that logger
    state/step-*/      what resuming needs: weights, optimiser, random states, place in the data, the metrics so far;
                       the last few
    failed-step-*/     the batch whose loss exploded or is not finite
    trained_on.json    salted digests of the patients' ids; the same in each model
    best/, last/       models in the format of `medst.load`

A state is written beside its final name and moved there whole, so a folder named step-* is always complete.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from medst import NUMERICS, __version__
from medst.environment import describe_environment
from medst.errors import MedstError
from medst.files import UnusableFile, is_free, read_json, sha256, write_json, write_text
from medst.pretrain.metrics import HEAD, digest_of, line_of, lines_until, read_rows
from medst.recipes.settings import Recipe, from_dict, to_dict

DIGESTS = "sha256.json"
PLACE = "run.json"
METRICS = "metrics.csv"
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
        self.metrics = path / METRICS
        self.tokenizer = path / "tokenizer"
        self.settings = path / "settings.json"
        self._lines: list[str] = []  # of metrics.csv: what happens to the file during the run costs no row

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
            state = self.path / "state"
            if state.exists() and not state.is_dir():
                raise MedstError(
                    f"{state} is not a folder; put the run's states back there, or give another run folder."
                )
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

    def note_environment(self, processes: int) -> str:
        """Add what the run is about to run on to environment.json.

        Returns:
            What the user should know: a damaged file was begun anew. Empty otherwise.
        """
        file, before, note = self.path / "environment.json", list[Any](), ""
        try:
            before = read_json(file, "", list) if file.exists() else []
        except MedstError:
            aside = set_aside(file)
            note = f"{file} was damaged, is now {aside.name}, and has been begun anew; the model is not affected."
        write_json(file, [*before, describe_environment(processes)], indent=2)
        return note

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
        # These two are written again when an epoch was validated after its last step; run.json vouches for both.
        files = [path for path in sorted(part.iterdir()) if path.name not in (PLACE, METRICS)]
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

    def cut_metrics(self, step: int, validated: int, state: Path | None = None, digest: str | None = None) -> str:
        """Make metrics.csv hold what the run had logged after `step` steps and `validated` epochs.

        Later rows are computed again. Rows that are missing or foreign come from the state's copy; what stood in the file
        is then set aside.

        Args:
            step: steps of the state.
            validated: epochs that the state counts as validated.
            state: the state's folder; None at the beginning of a run.
            digest: SHA-256 of the rows as the state knows it; None in states of earlier versions.

        Returns:
            What the user should know; empty if all rows were there.

        Raises:
            MedstError: metrics.csv is not a regular file.
        """
        try:
            lines, wrong = lines_until(self.read_metrics(), step, validated)
        except UnusableFile as error:
            raise MedstError(f"{error} Move it away; the run then writes it anew.") from None
        except MedstError:
            lines, wrong = [], "was damaged"
        if digest is not None:
            wrong = "" if digest_of(lines) == digest else wrong or "held another run's rows"
        note = ""
        if wrong:
            kept = self._kept_lines(step, validated, state, digest)
            aside = f"; the old file is {set_aside(self.metrics).name}" if self.metrics.is_file() else ""
            if kept is not None:
                lines, note = kept, f"{self.metrics} {wrong}; its rows are restored from {state}{aside}."
            else:
                note = f"{self.metrics} {wrong}, which can't be restored{aside}; the weights are not affected."
        self._lines = lines
        write_text(self.metrics, "".join([HEAD, *lines]))
        return note

    def _kept_lines(self, step: int, validated: int, state: Path | None, digest: str | None) -> list[str] | None:
        """The rows that a state kept; None if it has none, or damaged ones."""
        if state is None or digest is None:
            return None
        try:
            lines, _ = lines_until(read_rows(state / METRICS), step, validated)
        except (OSError, MedstError):
            return None
        return lines if digest_of(lines) == digest else None

    def keep_metrics(self, state: Path) -> str:
        """Copy the rows so far to a state; returns the digest that `cut_metrics` takes."""
        write_text(state / METRICS, "".join([HEAD, *self._lines]))
        return digest_of(self._lines)

    def read_metrics(self) -> list[dict[str, str]]:
        """All rows of metrics.csv, a torn last line left out.

        Raises:
            MedstError: it is damaged otherwise, or not a regular file.
        """
        return read_rows(self.metrics) if self.metrics.exists() else []

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.csv."""
        line = line_of(row)
        self._lines.append(line)
        with self.metrics.open("a", newline="") as file:
            file.write(line)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder of a run to the first free NAME.damaged, NAME.damaged-2 and so on."""
    names = (f"{path.name}.damaged" + (f"-{number}" if number > 1 else "") for number in count(1))
    aside = next(place for name in names if not (place := path.with_name(name)).exists())
    path.rename(aside)
    return aside


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
