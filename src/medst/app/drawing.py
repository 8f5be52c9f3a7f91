"""Pictures, heat maps and curves as the page shows them: data URIs and inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from medst.pages.figure_style import HEAT_MAP_COLOURS, INK, SIMILARITY_CURVE_COLOUR, new_figure, to_svg
from medst.pages.html import picture_uri
from medst.use import Grounding, HeatMap, Study

HEAT_SIDE = 320
"""Longer side of a heat map's picture, which the browser stretches over the radiograph."""


@dataclass(frozen=True)
class Scale:
    """The values at both ends of the colours, the same for all heat maps of one phrase."""

    low: float
    high: float

    @staticmethod
    def of(groundings: Sequence[Grounding]) -> "Scale":
        """From the smallest to the largest value that any view has."""
        maps = [m for g in groundings for m in (g.frontal, g.lateral) if m is not None]
        return Scale(min(float(m.grid.min()) for m in maps), max(float(m.grid.max()) for m in maps))

    def share(self, values: np.ndarray) -> np.ndarray:
        """Where values lie on the scale, 0 to 1; NaN stays NaN."""
        return np.clip((values - self.low) / max(self.high - self.low, 1e-12), 0, 1)


def heat_uri(heat: HeatMap, scale: Scale) -> str:
    """A heat map as a PNG inside a URI, to lie over its picture: the larger the value, the less it lets through; clear where
    the model saw nothing."""
    share = scale.share(heat.pixels(HEAT_SIDE))
    colours = mpl.colormaps[HEAT_MAP_COLOURS](np.nan_to_num(share), bytes=True)
    colours[..., 3] = np.rint(np.nan_to_num(share) * 255).astype(np.uint8)
    return picture_uri(colours)


def legend_css() -> str:
    """The colours as a CSS gradient."""
    stops = [mpl.colors.to_hex(mpl.colormaps[HEAT_MAP_COLOURS](x)) for x in np.linspace(0, 1, 7)]
    return f"linear-gradient(to right, {', '.join(stops)})"


def similarity_curve(studies: Sequence[Study], values: Sequence[float], phrase: str) -> Markup:
    """Similarity of a phrase over a patient's studies, evenly spaced, because visits come in clusters; dates below.

    Args:
        studies: in time order.
        values: cosines, one a study.
        phrase: what they belong to.
    """
    across = range(1, len(studies) + 1)
    figure, axes = new_figure(max(300, 90 + 74 * len(studies)), 210, grid="y")
    axes.plot(across, values, color=SIMILARITY_CURVE_COLOUR, linewidth=1.8, marker="o", markersize=5)
    for x, y in zip(across, values, strict=True):
        axes.annotate(f"{y:.2f}", (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=10, color=INK)
    axes.margins(x=0.08, y=0.3)
    names = [f"{n}" if s.time is None else f"{n}\n{s.time:%Y-%m-%d}" for n, s in zip(across, studies, strict=True)]
    axes.set_xticks(list(across), names)
    axes.set_ylabel("cosine")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    said = ", ".join(f"study {n}: {value:.2f}" for n, value in zip(across, values, strict=True))
    return to_svg(figure, f"Similarity of '{phrase}' and each study; {said}.", "similarity")
