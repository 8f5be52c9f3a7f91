"""The file results.json: written after every benchmark, and extended only with comparable numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, get_args, get_type_hints

from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.task import STRICT, Lead, Outcome, Question, Score, results_name
from medst.files import Form, misfit, read_json, write_json

SCHEMA = 2
DIGITS = 6
"""Decimals of every number."""
_DETAILS = ("classes", "confusion", "calibration", "perfect_calibration", "predictions", "warnings")
_SAME = {
    "model": "another model",
    "switches": "other switches",
    "numerics": "another version of medst's numerics",
}
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
_ROW = {
    "task": str, "dataset": str, "metric": str, "finding": str, "model": str, "value": _NUMBER, "std": _MAYBE,
    "low": _MAYBE, "high": _MAYBE, "n": int, "chance": _NUMBER, "folds": (int, type(None)), "seeds": [int],
}  # fmt: skip
_LEAD = {
    "task": str, "dataset": str, "metric": str, "finding": str, "folds": (int, type(None)), "n": int, "baseline": str,
    "value": _NUMBER, "low": _MAYBE, "high": _MAYBE,
}  # fmt: skip
_GROUP = _LEAD | {
    "by": str, "group": str, "baseline": (str, type(None)), "value": _MAYBE, "lead": _MAYBE, "lead_low": _MAYBE,
    "lead_high": _MAYBE, "reason": str,
}  # fmt: skip
_PREDICTION = {"study_id": str, "previous": int, "finding": str, "progression": str}
_FORM = {
    "medst_version": str,
    "protocol": str,
    "switches": dict,
    "model": {"fingerprint": str, "recipe": str},
    "cohorts": {str: str},
    "results": [_ROW],
    "left_out": [{"task": str, "dataset": str, "finding": str, "folds": int, "reason": str}],
    "warnings": [str],
    "details": {str: dict},
}
_LATER: dict[str, Form] = {"numerics": int, "leaks": {str: (dict, str)}, "leads": [_LEAD], "groups": [_GROUP]}
"""Form of what earlier versions did not write."""
_DETAIL = {
    "classes": [str],
    "confusion": {str: [[int]]},
    "calibration": {str: [[_NUMBER]]},
    "predictions": [_PREDICTION],
}
_DETAIL_LATER: dict[str, Form] = {
    "asked": dict, "train_rows": {str: int}, "perfect_calibration": {str: [_NUMBER]}, "warnings": [str],
}  # fmt: skip


def read_results(path: Path, made_by: str = "`medst evaluate`") -> dict[str, Any]:
    """Read a results.json. Deviations over seeds of earlier versions, which divided by n, are converted to n - 1.

    Raises:
        MedstError: it is missing, damaged or has another schema.
    """
    found = read_json(path, f"{made_by} writes it")
    schema = found.get("schema")
    if "results" not in found and "protocol" not in found:
        raise MedstError(f"{path} is not a results file; {made_by} writes one, results.json beside the model's folder.")
    if schema != SCHEMA:
        raise MedstError(f"{path} has results schema {schema}, this medst reads {SCHEMA}; {made_by} writes it again.")
    wrong = _wrong(found)
    if wrong:
        raise MedstError(f"{path} is damaged ({wrong}); {made_by} writes it.")
    if "leads" not in found:
        for row in found["results"]:
            count = len(row["seeds"])
            if row["std"] is not None and count > 1:
                row["std"] = round(row["std"] * (count / (count - 1)) ** 0.5, DIGITS)
    return {"numerics": 1, "leaks": {}, "leads": [], "groups": []} | found  # earlier versions did not write them


def _wrong(found: dict[str, Any]) -> str:
    """Describe what no results file can hold; empty if there is nothing."""
    known = {name: form for name, form in _LATER.items() if name in found}
    return misfit(found, _FORM | known) or next(_contradictions(found), "")


def _contradictions(found: dict[str, Any]) -> Iterator[str]:
    """What does not fit together, in a file whose parts have the right forms."""
    protocols = (*get_args(get_type_hints(Question)["protocol"]), "answers")
    if found["protocol"] not in protocols:
        yield f"protocol is {found['protocol']!r}, not one of {', '.join(protocols)}"
    yield from (f"switches has an unknown {name!r}" for name in found["switches"] if name not in vars(STRICT))
    for part in ("results", "leads", "groups"):
        for number, row in enumerate(found.get(part, ())):
            where = f"{part}[{number}]"
            if row["task"] not in BENCHMARKS:
                yield f"{where}.task is {row['task']!r}, not one of {', '.join(BENCHMARKS)}"
            key = f"{row['task']}/{row['dataset']}"
            if part == "results" and key not in found["details"]:
                yield f"details has no {key!r}, which {where} names"
            yield from (f"{where}.{name} is {value}" for name, value in row.items() if not _is_finite(value))
            for low, high in (("low", "high"), ("lead_low", "lead_high")):
                if (row.get(low) is None) != (row.get(high) is None):
                    yield f"{where} has one of {low} and {high} alone"
    for key, detail in found["details"].items():
        if key.partition("/")[2] not in found["cohorts"]:
            yield f"cohorts has no {key.partition('/')[2]!r}, which details names"
        yield from _detail_contradictions(f"details.{key}", detail)


def _detail_contradictions(where: str, detail: dict[str, Any]) -> Iterator[str]:
    wrong = misfit(detail, _DETAIL | {name: form for name, form in _DETAIL_LATER.items() if name in detail}, where)
    if wrong:
        yield wrong
        return
    asked = detail.get("asked", {})
    yield from filter(
        None, (misfit(asked[name], [(str, int, float)], f"{where}.asked.{name}") for name in _LISTED if name in asked)
    )
    count = len(detail["classes"])
    for finding, matrix in detail["confusion"].items():
        if [len(row) for row in matrix] != [count] * count:
            yield f"{where}.confusion.{finding} is not a table of {count} rows and {count} columns"
    for part, columns in (("calibration", 3), ("perfect_calibration", 2)):
        for finding, found in detail.get(part, {}).items():
            rows = found if part == "calibration" else [found]
            if any(len(row) != columns or not all(map(_is_finite, row)) for row in rows):
                yield f"{where}.{part}.{finding} does not hold {columns} numbers in a row"


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)


class Results:
    """The numbers measured so far, and the file that holds them.

    Args:
        path: the file; None keeps everything in memory.
        head: `schema`, `medst_version`, `numerics`, `protocol`, `switches` and `model` of all numbers.
        cohorts: fingerprint of each data set that is to be measured.
        leaks: for each data set that names patients, its patients in pre-training.
        keep: whether to add to the numbers in the file.

    Raises:
        MedstError: `path` is a folder; with `keep`, the file is damaged or its numbers are not comparable with the new ones.
    """

    def __init__(
        self, path: Path | None, head: dict[str, Any], cohorts: dict[str, str], leaks: dict[str, Any], keep: bool
    ) -> None:
        self.path, self.cohorts, self.leaks = path, cohorts, leaks
        empty: dict[str, Any] = {"cohorts": {}, "leaks": {}}
        empty |= {"results": [], "leads": [], "groups": [], "left_out": [], "warnings": [], "details": {}}
        before = empty
        if path is not None and path.is_dir():
            raise MedstError(f"{path} is a folder; give --out the name of a file.")
        if keep and path is not None and path.exists():
            before = read_results(path, "`medst evaluate --replace`")
            self._check(head, before)
        self.content = head | {name: before[name] for name in empty}

    def _check(self, head: dict[str, Any], before: dict[str, Any]) -> None:
        if before["protocol"] != head["protocol"]:
            name = results_name(before["protocol"])
            rename = "" if self.path is None or self.path.name == name else f"rename it to {name} to keep it, "
            raise MedstError(
                f"{self.path} holds numbers of protocol {before['protocol']}, these are of protocol {head['protocol']}; "
                f"{rename}give another --out, or --replace to lose them."
            )
        other = [difference for name, difference in _SAME.items() if before[name] != head[name]]
        other += [
            f"another {dataset} cohort"
            for dataset, fingerprint in self.cohorts.items()
            if before["cohorts"].get(dataset, fingerprint) != fingerprint
        ]
        if other:
            raise MedstError(f"{self.path} holds numbers of {other[0]}; give another --out, or --replace to lose them.")

    def holds(self, task: str, dataset: str, asked: dict[str, Any]) -> bool:
        """Whether a benchmark was measured on a data set as `asked`, or with more baselines, groups or shares.

        Raises:
            MedstError: it was measured otherwise, and measuring it again as `asked` would lose some of its numbers.
        """
        before = self.content["details"].get(f"{task}/{dataset}", {}).get("asked")
        if before is None or not _left_out(before, asked):
            return before is not None
        lost = _left_out(asked, before)
        if lost:
            raise MedstError(
                f"{self.path} holds {task} on {dataset} measured with other options ({lost}); give another --out, or "
                "--replace to lose its numbers."
            )
        return False

    def put(
        self,
        task: str,
        dataset: str,
        outcome: Outcome,
        baselines: Mapping[str, Sequence[Score]] | None = None,
        leads: Sequence[Lead] = (),
        groups: Sequence[dict[str, Any]] = (),
        asked: dict[str, Any] | None = None,
    ) -> None:
        """Replace the numbers of a benchmark and data set, and write the file.

        `outcome`, `leads` and `groups` are of the trained model, `asked` is how it was measured; None if nothing could be.
        """
        key, old = f"{task}/{dataset}", self.content
        from_details = {warning for one in old["details"].values() for warning in one.get("warnings", ())}
        warnings = [warning for warning in old["warnings"] if warning not in from_details]
        details = dict(old["details"])
        if asked is None:
            details.pop(key, None)
        else:
            details[key] = {"asked": asked} | {name: getattr(outcome, name) for name in _DETAILS}
            details[key] |= {"train_rows": outcome.train_rows} if outcome.train_rows else {}
        warnings += [warning for one in details.values() for warning in one.get("warnings", ())]
        every = {"trained": outcome.scores} | dict(baselines or {})
        measured = [(model, score) for model, scores in every.items() for score in scores]
        rows = [{"task": task, "dataset": dataset} | _row(score, model) for model, score in measured]
        ahead = [{"task": task, "dataset": dataset} | _lead(lead) for lead in leads]
        left_out = [{"task": task} | asdict(left) | {"dataset": dataset} for left in outcome.left_out]
        place = {name: number for number, name in enumerate(details)}

        def merged(name: str, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
            others = [row for row in old[name] if (row["task"], row["dataset"]) != (task, dataset)]
            return sorted([*others, *new], key=lambda row: place.get(f"{row['task']}/{row['dataset']}", len(place)))

        self.content = old | {
            "cohorts": old["cohorts"] | {dataset: self.cohorts[dataset]},
            "leaks": old["leaks"] | {name: found for name, found in self.leaks.items() if name == dataset},
            "results": merged("results", rows),
            "leads": merged("leads", ahead),
            "groups": merged("groups", [{"task": task, "dataset": dataset} | _rounded(row) for row in groups]),
            "left_out": merged("left_out", left_out),
            "warnings": list(dict.fromkeys(warnings)),
            "details": details,
        }
        if self.path is not None:
            write_json(self.path, self.content)


_LISTED = ("baselines", "untrained", "by", "fractions")
"""Parts of `asked` that are lists of what was measured."""


def _left_out(whole: dict[str, Any], part: dict[str, Any]) -> str:
    """The first option by which `part` asks for numbers that `whole` does not; empty if it has all of them."""
    for name in sorted(whole.keys() | part.keys()):
        one, other = whole.get(name), part.get(name)
        fits = set(other or ()) <= set(one or ()) if name in _LISTED else one == other or (name == "intervals" and one)
        if not fits:
            return name
    return ""


def _row(score: Score, model: str) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    row = {"metric": score.metric, "finding": score.finding, "model": model, "value": score.value, "std": score.std}
    row |= {"low": low, "high": high, "n": score.n, "chance": score.chance, "folds": score.folds}
    return _rounded(row) | {"seeds": list(score.seeds)}


def _lead(lead: Lead) -> dict[str, Any]:
    low, high = lead.interval or (None, None)
    row = {"metric": lead.metric, "finding": lead.finding, "folds": lead.folds, "n": lead.n}
    return _rounded(row | {"baseline": lead.baseline, "value": lead.value, "low": low, "high": high})


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in row.items()}
