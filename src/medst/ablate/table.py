"""Differences from the reference, the correction for their number, and the tables."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from medst.ablate.design import LEVEL, NO_SPREAD, REFERENCE, Design, holm
from medst.evaluate.results import read_results
from medst.recipes.variants import MEASURES, Variant

EXPLORATORY = (
    "Not asked beforehand and not corrected for their number, so nothing is marked: where there is no difference, about "
    "5 of 100 intervals exclude 0. A difference here is a question for another ablation."
)


def read_values(file: Path, tasks: Container[str]) -> dict[str, float]:
    """Read the measures of `tasks` from a results.json."""
    rows = {
        (row["task"], row["metric"], row["finding"], row["folds"]): row["value"]
        for row in read_results(file)["results"]
        if row["model"] == "trained" and row["task"] in tasks
    }
    return {name: rows[key] for name, key in MEASURES.items() if key in rows}


def differences(
    variants: Sequence[Variant], values: dict[tuple[str, int], dict[str, float]], design: Design
) -> list[dict[str, Any]]:
    """Compute for each variant and measure the mean, the mean difference from the reference, its 95 % interval and p-value.

    Differences are between runs of the same seed. `pairs` counts the seeds for which both were measured; without any, the
    difference is None. Interval and p-value are those of the paired t test with pairs - 1 degrees of freedom; None with one
    pair or with equal differences. Rows of a design's questions have `question` True, and in `adjusted` the p-value after
    Holm's correction for all questions, including those whose runs failed.
    """
    rows = []
    measures = [name for name in MEASURES if any(name in one for one in values.values())]
    measures += [measure for measure in dict.fromkeys(design.questions.values()) if measure not in measures]
    for name, what in [(REFERENCE, "the recipe as it is"), *((v.name, v.what) for v in variants)]:
        for measure in measures:
            own = [values.get((name, seed), {}).get(measure) for seed in range(design.seeds)]
            reference = [values.get((REFERENCE, seed), {}).get(measure) for seed in range(design.seeds)]
            known = [value for value in own if value is not None]
            paired = [a - b for a, b in zip(own, reference, strict=True) if a is not None and b is not None]
            row: dict[str, Any] = {"variant": name, "what": what, "measure": measure, "pairs": len(paired)}
            row["question"] = design.questions.get(name) == measure
            row |= {"mean": float(np.mean(known)) if known else None, "values": own}
            rows.append(row | _paired(paired if name != REFERENCE else []) | {"adjusted": None})
    asked = [row for row in rows if row["question"]]
    for row, adjusted in zip(asked, holm([row["p"] for row in asked]), strict=True):
        row["adjusted"] = adjusted
    return rows


def _paired(found: list[float]) -> dict[str, float | None]:
    """Mean, 95 % interval and p-value of paired differences."""
    row: dict[str, float | None] = {"difference": None, "low": None, "high": None, "p": None}
    if found:
        row["difference"] = float(np.mean(found))
    if len(found) > 1 and np.std(found) > NO_SPREAD:
        test = stats.ttest_1samp(found, 0.0)
        low, high = test.confidence_interval(0.95)
        row |= {"low": float(low), "high": float(high), "p": float(test.pvalue)}
    return row


def as_tables(rows: Sequence[dict[str, Any]], design: Design) -> str:
    """Format the answers, one per question, and below them all other measures as exploratory; in Markdown."""
    seeds, many = design.seeds, design.seeds > 1
    reference = {row["measure"]: row["mean"] for row in rows if row["variant"] == REFERENCE}
    lines = [
        "| variant | what it does | measure | reference | difference | detectable | p after Holm |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in (row for row in rows if row["question"]):
        found, limit, measure = _difference(row, seeds), design.detectable(row["measure"]), row["measure"]
        marked = f"**{found}**" if row["adjusted"] is not None and row["adjusted"] <= LEVEL else found
        cells = [row["variant"], row["what"], measure, _points(reference[measure]), marked, _points(limit)]
        lines.append(f"| {' | '.join(cells)} | {'' if row['adjusted'] is None else format(row['adjusted'], '.3f')} |")
    note = f"Points, means of {seeds} seeds. Differences are from the reference of the same seed"
    if many:
        note += ", with their own 95 % interval, which is not corrected; bold: p at most 0.05 after Holm's correction"
    lines += ["", f"{note}." if many else "Points, one seed, so without intervals and tests."]
    rest = [row for row in rows if row["variant"] == REFERENCE or not row["question"]]
    if any(row["variant"] != REFERENCE for row in rest):
        lines += ["", "## Exploratory", "", EXPLORATORY, "", *_exploratory(rest, seeds)]
    return "\n".join(lines)


def _exploratory(rows: Sequence[dict[str, Any]], seeds: int) -> list[str]:
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    lines = ["| variant | " + " | ".join(measures) + " |", "| --- |" + " --- |" * len(measures)]
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {row["measure"]: row for row in rows if row["variant"] == name}
        cells = ["above" if m not in own else _difference(own[m], seeds) for m in measures]
        if name == REFERENCE:
            cells = [_points(own[measure]["mean"]) for measure in measures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _points(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.1f}"


def _difference(row: dict[str, Any], seeds: int) -> str:
    if row["difference"] is None:
        return "missing"
    text = f"{100 * row['difference']:+.1f}"
    if row["low"] is not None:
        text += f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return text if row["pairs"] == seeds else f"{text}, {row['pairs']} of {seeds} seeds"
