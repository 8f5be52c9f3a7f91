"""The file results.json: written whole or not at all, and added to only where the numbers can stand beside each other."""

import json
import os
from pathlib import Path
from typing import Any

from medst.errors import MedstError

SCHEMA = 2
_SAME = {"model": "another model", "protocol": "another protocol", "switches": "other switches"}


def read_results(path: Path, made_by: str = "`medst evaluate`") -> dict[str, Any]:
    """The content of a results.json.

    Raises:
        MedstError: it is not there, damaged or of another schema.
    """
    if not path.is_file():
        raise MedstError(f"{path}: no such file; {made_by} writes it.")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise MedstError(f"{path} is damaged: {error}.") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise MedstError(f"{path} has results schema {schema}, this medst reads {SCHEMA}; evaluate again.")
    return found


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write beside the final name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, path)


def read_for_merging(path: Path, head: dict[str, Any]) -> dict[str, Any] | None:
    """What `path` holds, None if there is no such file.

    Args:
        path: a results.json.
        head: `model`, `protocol`, `switches` and `cohorts` of the numbers that are to be added.

    Raises:
        MedstError: they can't stand in one file with those that are there.
    """
    if not path.exists():
        return None
    before = read_results(path)
    other = [said for name, said in _SAME.items() if before[name] != head[name]]
    other += [
        f"another {dataset} cohort"
        for dataset, fingerprint in head["cohorts"].items()
        if before["cohorts"].get(dataset, fingerprint) != fingerprint
    ]
    if other:
        raise MedstError(f"{path} holds numbers of {other[0]}; give another --out, or --replace to lose them.")
    return before


def merged(before: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The new numbers behind those of other tasks and data sets from before."""
    if before is None:
        return new

    def others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if f"{row['task']}/{row['dataset']}" not in new["details"]]

    return new | {
        "cohorts": before["cohorts"] | new["cohorts"],
        "results": others(before["results"]) + new["results"],
        "left_out": others(before["left_out"]) + new["left_out"],
        "warnings": list(dict.fromkeys(before["warnings"] + new["warnings"])),
        "details": before["details"] | new["details"],
    }
