"""Packages, code and machine of a run, so that its numbers can be traced."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medst import __version__
from medst.errors import MedstError
from medst.files import read_json, set_aside, write_json
from medst.jobs import cores

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "polars",
    "opencv-python-headless",
)


def add_environment(file: Path, processes: int) -> str:
    """Add an entry on the current environment to environment.json.

    Returns:
        A note for the user if a damaged file was replaced; empty otherwise.
    """
    entries, note = list[Any](), ""
    try:
        entries = read_json(file, "", list) if file.exists() else []
    except MedstError:
        note = (
            f"{file} was damaged; it is now {set_aside(file).name}, and a new one is begun. The model is not affected."
        )
    write_json(file, [*entries, describe_environment(processes)], indent=2)
    return note


def describe_environment(processes: int) -> dict[str, Any]:
    """Describe time, code, packages, machine and number of processes. Names no user, host or path."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "medst": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": processes,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that this code runs from, with + if files differ from it; None if there is no checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        git = partial(subprocess.run, cwd=root, capture_output=True, text=True, check=True, timeout=10)
        commit, changed = git(["git", "rev-parse", "HEAD"]), git(["git", "status", "--porcelain"])
    except (OSError, subprocess.SubprocessError):
        return None
    return str(commit.stdout).strip() + ("+" if changed.stdout.strip() else "")
