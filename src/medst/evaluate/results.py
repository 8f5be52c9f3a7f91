"""The file results.json: written after every task, and added to only where the numbers can stand beside each other."""

from pathlib import Path
from typing import Any

from medst.errors import MedstError
from medst.files import misfit, read_json, write_json

SCHEMA = 2
_SAME = {
    "model": "another model",
    "protocol": "another protocol",
    "switches": "other switches",
    "numerics": "another version of medst's numerics",
}
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
_ROW = {
    "task": str, "dataset": str, "metric": str, "finding": str, "model": str, "value": _NUMBER, "std": _MAYBE,
    "low": _MAYBE, "high": _MAYBE, "n": int, "chance": _NUMBER, "folds": (int, type(None)), "seeds": [int],
}  # fmt: skip
_FORM = {
    "protocol": str,
    "switches": dict,
    "model": {"fingerprint": str, "recipe": str},
    "cohorts": {str: str},
    "results": [_ROW],
    "left_out": [{"task": str, "dataset": str, "finding": str, "folds": int, "reason": str}],
    "warnings": [str],
    "details": {str: {"classes": [str], "confusion": dict, "calibration": dict, "predictions": [dict]}},
}


def read_results(path: Path, made_by: str = "`medst evaluate`") -> dict[str, Any]:
    """The content of a results.json.

    Raises:
        MedstError: it is missing, damaged or has another schema.
    """
    found = read_json(path, f"{made_by} writes it")
    schema = found.get("schema")
    if "results" not in found and "protocol" not in found:
        raise MedstError(f"{path} is not a results file; {made_by} writes one, results.json beside the model's folder.")
    if schema != SCHEMA:
        raise MedstError(f"{path} has results schema {schema}, this medst reads {SCHEMA}; {made_by} writes it anew.")
    wrong = misfit(found, _FORM)
    if wrong:
        raise MedstError(f"{path} is damaged ({wrong}); {made_by} writes it.")
    return {"numerics": 1, "leaks": {}} | found  # what they were before they were written down


class Results:
    """What has been measured so far, and the file that holds it.

    Args:
        path: the file; None keeps everything in memory.
        head: `schema`, `medst_version`, `numerics`, `protocol`, `switches` and `model` of all numbers.
        cohorts: fingerprint of each data set that is to be measured.
        leaks: for each data set that names patients, what is known of those in pre-training.
        keep: whether to add to what the file holds.

    Raises:
        MedstError: with `keep`, the file is damaged or its numbers can't stand beside the new ones.
    """

    def __init__(
        self, path: Path | None, head: dict[str, Any], cohorts: dict[str, str], leaks: dict[str, Any], keep: bool
    ) -> None:
        self.path, self.cohorts, self.leaks = path, cohorts, leaks
        empty: dict[str, Any] = {
            "cohorts": {},
            "leaks": {},
            "results": [],
            "left_out": [],
            "warnings": [],
            "details": {},
        }
        before = (
            read_results(path, "`medst evaluate --replace`") if keep and path is not None and path.exists() else empty
        )
        if before is not empty:
            self._check(head, before)
        self.content = head | {name: before[name] for name in empty}

    def _check(self, head: dict[str, Any], before: dict[str, Any]) -> None:
        other = [said for name, said in _SAME.items() if before[name] != head[name]]
        other += [
            f"another {dataset} cohort"
            for dataset, fingerprint in self.cohorts.items()
            if before["cohorts"].get(dataset, fingerprint) != fingerprint
        ]
        if other:
            raise MedstError(f"{self.path} holds numbers of {other[0]}; give another --out, or --replace to lose them.")

    def holds(self, task: str, dataset: str, asked: dict[str, Any]) -> bool:
        """Whether a task was measured on a data set in the way that is asked for."""
        return bool(self.content["details"].get(f"{task}/{dataset}", {}).get("asked") == asked)

    def put(
        self,
        task: str,
        dataset: str,
        *,
        rows: list[dict[str, Any]],
        left_out: list[dict[str, Any]],
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Replace what is known of a task and data set, and write the file.

        Args:
            task: name of the task.
            dataset: name of the data set.
            rows: its numbers.
            left_out: what of it could not be measured.
            detail: its entry in `details`, with `asked` and `warnings`; None where it could not be measured at all.
        """
        key, old = f"{task}/{dataset}", self.content
        known = {warning for one in old["details"].values() for warning in one.get("warnings", ())}
        warnings = [warning for warning in old["warnings"] if warning not in known]
        details = {name: one for name, one in old["details"].items() if detail is not None or name != key}
        if detail is not None:
            details[key] = detail
        places = {name: place for place, name in enumerate(details)}

        def ordered(name: str, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
            others = [row for row in old[name] if (row["task"], row["dataset"]) != (task, dataset)]
            return sorted([*others, *new], key=lambda row: places.get(f"{row['task']}/{row['dataset']}", len(places)))

        self.content = old | {
            "cohorts": old["cohorts"] | {dataset: self.cohorts[dataset]},
            "leaks": old["leaks"] | {name: found for name, found in self.leaks.items() if name == dataset},
            "results": ordered("results", rows),
            "left_out": ordered("left_out", left_out),
            "warnings": list(
                dict.fromkeys([*warnings, *(w for one in details.values() for w in one.get("warnings", ()))])
            ),
            "details": details,
        }
        if self.path is not None:
            write_json(self.path, self.content)
