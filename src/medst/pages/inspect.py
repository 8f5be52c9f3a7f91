"""The page of a cohort, and its numbers as JSON. Nothing is written to the cohort itself."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.pages import figures
from medst.pages.cohort_summary import ANSWERS, SEQUENCE_LENGTH, has_times, summarise
from medst.pages.contact_sheet import sample_rows
from medst.pages.html import csv_uri, render, write_page
from medst.pages.wording import day_written
from medst.recipes import RECIPES

MOST_STUDIES = 12
"""Numbers of studies with a bar of their own."""
HIDDEN_COUNTS = re.compile("^rejected|_comparisons$")
"""Counts that are not at the top of the page, because its tables have them."""
READY = {
    "comparisons": "temporal-image ({:,} labelled changes)",
    "sentences": "temporal-text ({:,} pairs of sentences)",
    "classes": "zero-shot and probe ({:,} labelled images)",
}
"""What a part of the summary, with the sum of its counts, allows to evaluate."""


def inspect(cohort: Path, out: Path | None = None, *, pairs: int = 12, seed: int = 0) -> Path:
    """Write the contents of a cohort as one self-contained HTML page, and the same numbers as JSON.

    The same cohort, `pairs` and `seed` give the same bytes.

    Args:
        cohort: folder of a finished cohort of any data set.
        out: the page; beside the cohort, under its name, if not given. The JSON file beside it ends in -numbers.json.
        pairs: rows on the contact sheet.
        seed: draws them.

    Returns:
        The page's path.

    Raises:
        MedstError: there is no finished cohort, `pairs` or `seed` is negative, `out` lies in a cohort, or another process
            is writing it.
    """
    if pairs < 0 or seed < 0:
        raise MedstError("--pairs and --seed must be 0 or more.")
    folder = Path(os.path.abspath(cohort))
    page = folder.with_name(folder.name + ".html") if out is None else Path(os.path.abspath(out))
    if folder == page or any((place / "cohort.json").is_file() for place in page.parents):
        raise MedstError(f"{page} lies in a cohort, which stays as it is; give another --out.")
    if page.suffix == ".json":
        raise MedstError(f"{page}: --out is the page's name, for instance {page.with_suffix('.html').name}.")
    opened = open_cohort(folder)
    summary = summarise(opened)
    html = render("pages/inspect.html.j2", _content(opened, summary, folder.name, pairs, seed))
    return write_page(page, html, beside={numbers_of(page): json.dumps(summary, indent=1) + "\n"})


def numbers_of(page: Path) -> Path:
    """The JSON file beside a page. Not PAGE.json: beside a cohort named cohort that would be a cohort.json."""
    return page.with_name(f"{page.stem}-numbers.json")


def verdict(cohort: Cohort, summary: dict[str, Any]) -> str:
    """A sentence about what the cohort is ready for, or what is missing."""
    if cohort.pairs is not None:
        return _training_verdict(summary)
    ready = [
        text.format(sum(sum(counts.values()) for counts in summary[key].values()))
        for key, text in READY.items()
        if key in summary
    ]
    if not ready:
        return "Nothing to train on and nothing to measure: every row was left out."
    return f"Ready to evaluate {' and '.join(ready)}; not a cohort to train on, because it has no pairs."


def _training_verdict(summary: dict[str, Any]) -> str:
    splits = {row["split"]: row for row in summary.get("splits", [])}
    sequences = {split: sum(summary["sequences"][split].values()) for split in splits}
    batch = min(recipe.data.sequences_per_batch for recipe in RECIPES.values())
    missing = []
    if sequences.get("train", 0) < batch:
        missing.append(f"split train has {sequences.get('train', 0)} sequences, and a batch needs {batch}")
    if not sequences.get("valid"):
        missing.append("split valid is empty")
    if missing:
        return f"Not ready to train: {'; '.join(missing)}."
    train, valid = splits["train"], splits["valid"]
    several = sequences["train"] - summary["sequences"]["train"]["1"]
    parts = [f"{train['pairs']:,} pairs of {train['patients']:,} patients", f"{valid['pairs']:,} pairs to validate"]
    parts += [
        f"{several:,} sequences of 2 or more pairs" if several else "no sequence of 2 pairs for the temporal loss"
    ]
    parts += [] if train["laterals"] else ["no lateral views"]
    return f"Ready to train: {', '.join(parts)}."


def _content(cohort: Cohort, summary: dict[str, Any], name: str, pairs: int, seed: int) -> dict[str, Any]:
    timed = has_times(cohort)
    data = summary["data"]
    version = "" if data["dataset_version"] == "unknown" else f" {data['dataset_version']}"
    date = f"prepared {day_written(cohort.path / 'cohort.json')}"
    return {
        "kind": "cohort",
        "title": f"Cohort {name}",
        "verdict": verdict(cohort, summary),
        "facts": [[("Data set", f"{data['dataset']}{version}"), ("Date", date)]],
        "csv": csv_uri(("table", "row", "column", "value"), _csv_rows(summary)),
        "csv_name": f"{name}.csv",
        "synthetic": False,
        "summary": summary,
        "counts": {name: n for name, n in data["counts"].items() if n and not HIDDEN_COUNTS.search(name)},
        "timed": timed,
        "sequence_length": SEQUENCE_LENGTH,
        "figures": _figures(summary),
        "sampled": sample_rows(cohort, pairs, seed, timed),
        "seed": seed,
    }


def _csv_rows(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str, float]]:
    """Every number of a summary, with the keys and texts that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _csv_rows(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            texts = [text for text in inner.values() if isinstance(text, str)] if isinstance(inner, dict) else []
            yield from _csv_rows(inner, (*path, *(texts or [str(number)])))
    elif isinstance(value, int | float):
        yield path[0], " / ".join(path[1:-1]), path[-1], value


def _figures(summary: dict[str, Any]) -> dict[str, Markup]:
    found: dict[str, Markup] = {}
    if "report_words" in summary:
        words = summary["report_words"]
        found["words"] = figures.histogram(
            words["histogram"]["from"],
            words["histogram"]["rows"],
            label="words per report",
            alt=f"Lengths of reports; half of them have up to {words['quantiles']['50 %']:.0f} words.",
        )
        found["studies"] = figures.counts(
            _studies_per_patient(summary["studies_a_patient"]),
            alt="Patients by their number of studies.",
        )
    if "days_between_studies" in summary:
        days = summary["days_between_studies"]
        alt = f"Time between a patient's studies; the median is {days['quantiles']['50 %']:.1f} days."
        found["days"] = figures.counts(days["bins"], alt=alt)
    if "labels" in summary:
        shares = _label_shares(summary["labels"])
        text = ", ".join(f"{label} {100 * answers['present']:.0f} %" for label, answers in shares.items())
        found["labels"] = figures.prevalence(shares, alt=f"Share of studies with each label: {text}")
    return found


def _studies_per_patient(by_split: dict[str, dict[str, int]]) -> dict[str, int]:
    """Patients by their number of studies, over all splits; large numbers together."""
    total: Counter[int] = Counter()
    for patients in by_split.values():
        for studies, count in patients.items():
            total[min(int(studies), MOST_STUDIES + 1)] += count
    return {str(n) if n <= MOST_STUDIES else f"over {MOST_STUDIES}": total[n] for n in sorted(total)}


def _label_shares(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The share of each answer by label, over all splits; the most frequent label first."""
    answers = [*ANSWERS, "not mentioned"]
    totals = pl.DataFrame(rows).group_by("label", maintain_order=True).agg(pl.col(answers).sum())
    shares = totals.with_columns(pl.col(answers) / pl.sum_horizontal(answers))
    ordered = shares.sort("present", descending=True, maintain_order=True)
    return {row.pop("label"): row for row in ordered.to_dicts()}
