"""One style for all figures, and matplotlib figures as inline SVG.

Figures are drawn in placeholder colours that become CSS variables, so that one SVG suits light and dark pages; `page.css`
has the colours themselves. Text stays text, in the font of the page.
"""

import io
import re
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT = "#01a0b1", "#02a0b2", "#03a0b3", "#04a0b4"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent"}

TRAINING_CURVE_COLOUR, MEAN_CURVE_COLOUR, VALIDATION_CURVE_COLOUR = MUTED, INK, ACCENT
"""Of learning curves: each training step, their running mean, and the validations."""
SIMILARITY_CURVE_COLOUR = ACCENT
CALIBRATION_CURVE_COLOUR = ACCENT
BAR_COLOUR = ACCENT
HEAT_MAP_COLOURS = "inferno"
"""A colour map of matplotlib."""
RUN_COLOURS = ("#2f78a8", "#b8593f", "#3f9080", "#8470aa", "#bb8a2e", "#7c8794")
RUN_MARKERS = ("o", "s", "^", "D", "v", "P")
"""Of the first run, the second and so on; the markers tell runs apart without colours."""
FINDING_COLOURS = {
    "consolidation": "#b8593f",
    "edema": "#3f82ab",
    "pleural_effusion": "#3f9080",
    "pneumonia": "#bb8a2e",
    "pneumothorax": "#8470aa",
}
"""Readable on light and on dark paper."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}
_PIXELS_PER_INCH = 72  # of matplotlib's SVG


def css_colour(colour: str) -> str:
    """A colour of a figure as CSS writes it."""
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour


def new_figure(width: int, height: int, grid: Literal["x", "y", "both", ""] = "") -> tuple[Figure, Axes]:
    """A figure of this size in CSS pixels, with one pair of axes.

    The ticks of axis `grid` have lines; with "x" the bottom line is left out.
    """
    lines = {"axes.grid": bool(grid), "axes.grid.axis": grid or "both", "axes.spines.bottom": grid != "x"}
    with mpl.rc_context(_STYLE | lines):
        figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), layout="constrained")
        return figure, figure.add_subplot()


def name_rows(axes: Axes, names: list[str], places: list[float] | None = None) -> None:
    """Write a name beside each row of a figure, the first row at the top."""
    axes.set_yticks(places or list(range(len(names))), names, fontsize=12, color=INK)
    axes.invert_yaxis()


def to_svg(figure: Figure, alt: str) -> Markup:
    """A figure from `new_figure` as inline SVG.

    `alt` describes it in a sentence for those who can't see it. It must differ between the figures of a page, because it
    also keeps the ids inside from clashing.
    """
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    width = figure.get_figwidth() * _PIXELS_PER_INCH
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+px|(?:\w+ )*[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    for placeholder in _VARIABLES:
        svg = svg.replace(placeholder, css_colour(placeholder))
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'style="max-width: {width:.0f}px"', svg, count=1)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip())
