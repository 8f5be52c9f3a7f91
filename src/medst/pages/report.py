"""Any number of results files as one page, and as tables for a paper.

Unusual here: a number stands beside what guessing reaches, what an untrained model of the same shape reaches and what is
published, and only beside numbers of the same protocol; runs on different copies of a benchmark are said to be so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medst import __version__
from medst.pages import result_figures as figures
from medst.pages.collect_results import Group, Line, group, read_sources
from medst.pages.comparison_figures import COLOURS, calibration, intervals
from medst.pages.figure_style import plain
from medst.pages.run_page import environment, write_page
from medst.pages.tables import write

MOST_DRAWN = 10
PROTOCOLS = {
    "paper": "as released, to stand beside numbers in papers",
    "strict": "nothing about a test row was used to choose anything; intervals hold 95 % of a bootstrap",
}
Language = Literal["markdown", "latex"]


def compare(out_html: Path, sources: Sequence[Path]) -> Path:
    """Draw results of any number of runs as one self-contained HTML file.

    Args:
        out_html: the file to write, beside its final name first.
        sources: results files, or folders of runs with such files.

    Returns:
        `out_html`.

    Raises:
        MedstError: a source has no results, or damaged ones.
    """
    read = read_sources(sources)
    groups = group(read)
    content = {
        "groups": [_shown(one, number) for number, one in enumerate(groups)],
        "left_out": _by_source(read, "left_out"),
        "warnings": _by_source(read, "warnings"),
        "facts": [
            (source.name, f"{source.results['protocol']}; recipe {source.results['model']['recipe']}; model "
             f"{source.results['model']['fingerprint']}; medst {source.results['medst_version']}")
            for source in read
        ],
        "version": __version__,
    }  # fmt: skip
    return write_page(out_html, environment().get_template("report.html.j2").render(content))


def tables_of(sources: Sequence[Path], language: Language) -> str:
    """The numbers as tables, one a benchmark and protocol.

    Raises:
        MedstError: a source has no results, or damaged ones.
    """
    make = _markdown if language == "markdown" else _latex
    return "\n\n".join(make(one) for one in group(read_sources(sources)))


def _by_source(sources: Sequence[Any], name: str) -> list[tuple[str, Any]]:
    return [(source.name, said) for source in sources for said in source.results[name]]


def _shown(one: Group, number: int) -> dict[str, Any]:
    drawn = one.headline()[:MOST_DRAWN]
    runs = [
        {
            "name": name,
            "colour": COLOURS[place % len(COLOURS)],
            "confusion": [
                (finding, figures.confusion(
                    np.array(matrix), details["classes"], finding, key=f"confusion-{number}-{place}-{index}"
                ))
                for index, (finding, matrix) in enumerate(details["confusion"].items())
            ],
            "calibration": [
                (finding, calibration(bins, f"calibration-{number}-{place}-{index}", f"{name}, {finding}"))
                for index, (finding, bins) in enumerate(details["calibration"].items())
                if bins
            ],
        }
        for place, (name, details) in enumerate(zip(one.names, one.details, strict=True))
    ]  # fmt: skip
    return {
        "task": one.task,
        "dataset": one.dataset,
        "protocol": one.protocol,
        "meaning": PROTOCOLS[one.protocol],
        "metric": name_of(drawn[0]) if drawn else "",
        "figure": intervals(drawn, one.names, f"intervals-{number}") if drawn else "",
        "more": len(one.headline()) - len(drawn),
        "runs": runs,
        "rows": [_row(line) for line in one.lines],
        "published": list({(p.system, p.source, p.confirmed) for line in one.lines for p in line.published}),
        "same": len(set(one.fingerprints)) == 1,
    }


def _row(line: Line) -> dict[str, Any]:
    style = write(line.metric)
    rows = [row for row in line.trained if row is not None]
    return {
        "metric": name_of(line),
        "finding": line.finding,
        "is_sum": line.is_sum,
        "chance": style(line.chance),
        "published": [f"{style(one.value)} ({one.system})" for one in line.published],
        "n": ", ".join(dict.fromkeys(f"{row['n']:,}" for row in rows)),
        "cells": [
            None if row is None else {
                "value": style(row["value"]),
                "spread": said_spread(row, style),
                "untrained": None if twin is None else style(twin["value"]),
            }
            for row, twin in zip(line.trained, line.untrained, strict=True)
        ],
    }  # fmt: skip


def name_of(line: Line) -> str:
    """A metric as it is read, with its folds."""
    name = line.metric.replace("auroc", "AUROC").replace("f1", "F1")
    return (name[:1].upper() + name[1:]) + (f", {line.folds} folds" if line.folds else "")


def said_spread(row: dict[str, Any], style: Any) -> str:
    """The interval, or what a standard deviation is, in words."""
    if row["low"] is not None:
        return f"{style(row['low'])} to {style(row['high'])}"
    return f"± {style(row['std'])}" if row["std"] else ""


def _cells(one: Group) -> tuple[list[str], list[list[str]]]:
    head = ["Metric", "Finding", "n", "Chance", *(f for name in one.names for f in (name, "untrained")), "Published"]
    body = []
    for line in one.lines:
        row = _row(line)
        cells: list[str] = []
        for cell in row["cells"]:
            spread = f" ({cell['spread']})" if cell and cell["spread"] else ""
            cells += [f"{cell['value']}{spread}", cell["untrained"] or ""] if cell else ["", ""]
        body.append(
            [row["metric"], plain(row["finding"]), row["n"], row["chance"], *cells, "; ".join(row["published"])]
        )
    if not any(line[-1] for line in body):
        head, body = head[:-1], [line[:-1] for line in body]
    return head, body


def _markdown(one: Group) -> str:
    head, body = _cells(one)
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *body]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{one.task} on {one.dataset}, protocol {one.protocol}**\n\n{table}"


def _latex(one: Group) -> str:
    head, body = _cells(one)
    lines = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in body]
    return "\n".join(
        [
            f"% {one.task} on {one.dataset}, protocol {one.protocol}; needs the package booktabs",
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
            r"\toprule",
            " & ".join(_escaped(cell) for cell in head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escaped(text: str) -> str:
    """Text as LaTeX reads it.

    >>> _escaped("50 % & ± 1_2")
    '50\\\\,\\\\% \\\\& $\\\\pm$ 1\\\\_2'
    """
    for sign, said in (("\\", r"\textbackslash "), ("&", r"\&"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$")):
        text = text.replace(sign, said)
    return text.replace(" %", r"\,\%").replace(" to ", "--")
