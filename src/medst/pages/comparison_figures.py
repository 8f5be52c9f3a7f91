"""The figures of a comparison: numbers with their intervals, and calibration. See `figures.py` for those of one run."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from medst.pages.collect_results import Line
from medst.pages.figure_style import ACCENT, INK, LINE, MUTED, new_figure, plain, to_svg
from medst.pages.tables import write

COLOURS = ("#2f78a8", "#b8593f", "#3f9080", "#8470aa", "#bb8a2e", "#7c8794")
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Run after run; read without colour too."""
_RUN_HEIGHT, _LINE_GAP = 20, 16


def intervals(lines: Sequence[Line], names: Sequence[str], key: str) -> Markup:
    """A row a finding, in it a mark a run with its interval, its untrained twin, chance and what is published."""
    heights = [len(names) * _RUN_HEIGHT + _LINE_GAP for _ in lines]
    figure, axes = new_figure(620, 40 + sum(heights))
    y, places, low, high = 0.0, [], 1.0, 0.0
    for line in lines:
        top = y
        for number, (row, twin) in enumerate(zip(line.trained, line.untrained, strict=True)):
            y += _RUN_HEIGHT
            if row is None:
                continue
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            ends = spread(row)
            if ends is not None:
                axes.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(row["value"], y, marker=marker, markersize=7, color=colour)
            if twin is not None:
                axes.plot(twin["value"], y, marker=marker, markersize=6, color=MUTED, markerfacecolor="none")
            ends = ends or (row["value"], row["value"])
            low, high = (
                min(low, ends[0], twin["value"] if twin else 1),
                max(high, ends[1], twin["value"] if twin else 0),
            )
        bottom = y + 0.5 * _RUN_HEIGHT
        axes.plot(
            [line.chance] * 2, [top + 0.5 * _RUN_HEIGHT, bottom], color=INK, linewidth=1.4, linestyle=(0, (1.5, 1))
        )
        for one in line.published:
            axes.plot(one.value, (top + y + _RUN_HEIGHT) / 2, marker="*", markersize=11, color=ACCENT)
            low, high = min(low, one.value), max(high, one.value)
        low, high = min(low, line.chance), max(high, line.chance)
        places.append((top + y + _RUN_HEIGHT) / 2)
        y += _LINE_GAP
        axes.axhline(y + 0.5 * _RUN_HEIGHT - _LINE_GAP / 2, color=LINE, linewidth=0.6)
    axes.set_yticks(places, [plain(line.finding) for line in lines], fontsize=12)
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.set_ylim(y + 0.5 * _RUN_HEIGHT - _LINE_GAP / 2, 0.5 * _RUN_HEIGHT - _LINE_GAP / 2)
    margin = 0.06 * max(high - low, 0.05)
    axes.set_xlim(max(0, low - margin), min(1, high + margin))
    style = write(lines[0].metric)
    axes.xaxis.set_major_formatter(lambda value, _: style(value).replace(".0 %", " %"))
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    said = "; ".join(f"{plain(line.finding)}: {_said(line, names)}" for line in lines)
    return to_svg(figure, f"{plain(lines[0].metric)} of each run. {said}.", key)


def spread(row: dict) -> tuple[float, float] | None:
    """The interval of a row; without one, a standard deviation to both sides; None where nothing was drawn."""
    if row["low"] is not None:
        return row["low"], row["high"]
    return (row["value"] - row["std"], row["value"] + row["std"]) if row["std"] else None


def _said(line: Line, names: Sequence[str]) -> str:
    style = write(line.metric)
    values = [f"{name} {style(row['value'])}" for name, row in zip(names, line.trained, strict=True) if row is not None]
    return ", ".join([*values, f"chance {style(line.chance)}"])


def calibration(bins: Sequence[tuple[float, float, int]], key: str, of: str) -> Markup:
    """Of the images that were given about a probability, the share that was positive; the diagonal is what should be.

    Args:
        bins: mean probability, share of positives and number of images of each bin.
        key: names the figure's ids.
        of: what it is a calibration of.
    """
    figure, axes = new_figure(260, 260)
    predicted, positive, count = np.array(bins, dtype=np.float64).T
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(predicted, positive, color=ACCENT, linewidth=1.5)
    axes.scatter(predicted, positive, s=16 + 120 * count / count.max(), color=ACCENT, zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share that is positive")
    axes.grid()
    axes.tick_params(length=0)
    said = "; ".join(f"of {int(n)} at about {p:.2f}, {share:.0%} positive" for p, share, n in bins)
    return to_svg(figure, f"Calibration of {of}: {said}.", key)
