"""One look for all figures, and how a matplotlib figure gets into the page.

Unusual here: figures are drawn in placeholder colours that become the page's CSS variables, so that the same inline SVG is
right on light and on dark paper, and their text stays text in the page's own font.
"""

import io
import re
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, PAPER = "#01a0b1", "#02a0b2", "#03a0b3", "#04a0b4", "#05a0b5"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}

_FINDING_COLOURS = {
    "consolidation": "#b8593f",
    "edema": "#3f82ab",
    "pleural_effusion": "#3f9080",
    "pneumonia": "#bb8a2e",
    "pneumothorax": "#8470aa",
}
_OTHER_COLOUR = "#7c8794"

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
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
}
_PIXELS_PER_INCH = 72  # of matplotlib's SVG


def finding_colour(finding: str, otherwise: str = _OTHER_COLOUR) -> str:
    """The colour of a finding on the whole page, readable on light and on dark paper."""
    return _FINDING_COLOURS.get(finding, otherwise)


def plain(name: str) -> str:
    """A column's or finding's name as it is read: 'pleural_effusion' is 'Pleural effusion'."""
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def new_figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A figure of that many CSS pixels with one pair of axes, in the page's style."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), layout="constrained")
        return figure, figure.add_subplot()


def to_svg(figure: Figure, alt: str, key: str) -> Markup:
    """The figure as inline SVG that says `alt` to those who can't see it.

    Args:
        figure: made by `new_figure`.
        alt: what it shows, in a sentence.
        key: another one for each figure of a page, so that the ids inside don't clash.
    """
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    width = figure.get_figwidth() * _PIXELS_PER_INCH
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+px|(?:\w+ )*[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'style="max-width: {width:.0f}px"', svg, count=1)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip())
