"""The page and the JSON file: a cohort in, two files beside it out; a cohort itself is never written to."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from medst import __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.files import claim, write_json, write_text
from medst.pages import cohort_figures as figures
from medst.pages.cohort_summary import ANSWERS, LENGTH, is_timed, summarise
from medst.pages.contact_sheet import cards
from medst.pages.figure_style import plain


def inspect(cohort: Path, out: Path | None = None, *, pairs: int = 12, seed: int = 0) -> Path:
    """Write what is in a cohort as one self-contained HTML page, and the same numbers as JSON.

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
            writes it.
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
    content = _content(opened, summary, folder.name, pairs, seed)
    html = _environment().get_template("inspect.html.j2").render(content)
    with claim(page):
        write_json(numbers_of(page), summary)
        write_text(page, html)
    return page


def numbers_of(page: Path) -> Path:
    """The JSON file beside a page. Not PAGE.json: beside a cohort named cohort that would be a cohort.json."""
    return page.with_name(f"{page.stem}-numbers.json")


def _content(cohort: Cohort, summary: dict[str, Any], name: str, pairs: int, seed: int) -> dict[str, Any]:
    timed = is_timed(cohort)
    shown = cards(cohort, pairs, seed, timed)
    return {
        "name": name,
        "summary": summary,
        "counts": {key: value for key, value in summary["data"]["counts"].items() if value},
        "timed": timed,
        "length": LENGTH,
        "figures": _figures(summary),
        "cards": shown,
        "seed": seed,
        "version": __version__,
    }


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "report_words" in summary:
        words = summary["report_words"]
        found["words"] = figures.upright(
            words["histogram"]["from"],
            words["histogram"]["rows"],
            label="words of a report",
            key="words",
            alt=f"Lengths of reports; half of them have up to {words['quantiles']['50 %']:.0f} words.",
        )
    if "days_between_studies" in summary:
        days = summary["days_between_studies"]
        found["days"] = figures.lying(
            days["bins"],
            key="days",
            alt=f"Time between a patient's studies; the median is {days['quantiles']['50 %']:.1f} days.",
        )
    if "studies_a_patient" in summary:
        total: dict[str, int] = {}
        for lengths in summary["studies_a_patient"].values():
            for studies, patients in lengths.items():
                total[studies] = total.get(studies, 0) + patients
        ordered = {n: total[n] for n in sorted(total, key=int)}
        most = 12
        short = {n: rows for n, rows in ordered.items() if int(n) <= most}
        rest = sum(rows for n, rows in ordered.items() if int(n) > most)
        found["studies"] = figures.lying(
            short | ({f"over {most}": rest} if rest else {}), key="studies", alt="Patients by their number of studies."
        )
    if "labels" in summary:
        totals: dict[str, dict[str, int]] = {}
        for row in summary["labels"]:
            counts = totals.setdefault(row["label"], dict.fromkeys([*ANSWERS, "not mentioned"], 0))
            for answer in counts:
                counts[answer] += row[answer]
        shares = {
            label: {answer: count / sum(counts.values()) for answer, count in counts.items()}
            for label, counts in totals.items()
        }
        found["labels"] = figures.prevalence(
            dict(sorted(shares.items(), key=lambda item: -item[1]["present"])),
            key="labels",
            alt="Share of studies with each label: "
            + ", ".join(f"{label} {100 * answers['present']:.0f} %" for label, answers in shares.items()),
        )
    return found


def _environment() -> jinja2.Environment:
    places = {"inspect.html.j2": files("medst.pages"), "page.css": files("medst.pages")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(
            {name: (folder / name).read_text(encoding="utf-8") for name, folder in places.items()}
        ),
        autoescape=lambda name: name == "inspect.html.j2",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "count": lambda number: f"{number:,}"}
    return environment
