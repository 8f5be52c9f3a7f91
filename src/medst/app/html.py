"""The parts of the page that are not controls, as HTML: studies with heat maps and curves, comparisons, similar studies."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from medst.app.studies import OpenStudies, SimilarStudy
from medst.pages.figure_style import HEAT_MAP_COLOURS, INK, SIMILARITY_CURVE_COLOUR, new_figure, to_svg
from medst.pages.html import picture_uri, render_macro
from medst.pages.wording import time_span
from medst.use import Grounding, HeatMap, Picture, Progression, Source, Study, read_picture

TEMPLATE = "app/fragments.html.j2"
HEAT_SIDE = 320
"""Longer side of a heat map in pixels; the browser stretches it over the radiograph."""
# Encoded once for as long as the picture exists, so a visitor's own pictures are forgotten here too.
_URIS: WeakKeyDictionary[Picture, str] = WeakKeyDictionary()


def timeline_html(opened: OpenStudies, groundings: Sequence[Grounding] | None = None) -> str:
    """A patient's studies; with groundings of a phrase, one per study, also their heat maps and a curve."""
    scale = None if groundings is None else heat_scale(groundings)
    cards: list[dict[str, Any]] = []
    before = None
    for number, study in enumerate(opened.studies):
        found = None if groundings is None else groundings[number]
        heat, lateral_heat = (None, None) if found is None else (found.frontal, found.lateral)
        cards.append(
            {
                "name": opened.name(number),
                "since": _since(before, study.time),
                "similarity": None if found is None else found.similarity,
                "frontal": _view(study.frontal, heat, scale),
                "lateral": None if study.lateral is None else _view(study.lateral, lateral_heat, scale),
                "report": study.report,
            }
        )
        before = study.time
    phrase, curve = "", Markup()
    if groundings is not None:
        phrase = groundings[0].phrase
        curve = similarity_curve(opened.studies, [found.similarity for found in groundings], phrase)
    note = f"{opened.left_out} earlier studies of this patient are not shown." if opened.left_out else ""
    return render_macro(TEMPLATE, "timeline", cards, note, phrase, scale, curve)


def comparison_html(opened: OpenStudies, prior: int, current: int, found: Progression) -> str:
    """The progression of a finding, beside both pictures."""
    views = [(_view(opened.studies[number].frontal), opened.name(number)) for number in (prior, current)]
    return render_macro(TEMPLATE, "comparison", found, *views)


def similar_html(similar: Sequence[SimilarStudy]) -> str:
    """The most similar studies of other patients."""
    return render_macro(TEMPLATE, "similar", [(one, _view(one.study.frontal)) for one in similar])


def _view(source: Source, heat: HeatMap | None = None, scale: Normalize | None = None) -> dict[str, str]:
    """A picture and the heat map over it as data URIs; `heat` is empty if there is none."""
    picture = read_picture(source)
    if picture not in _URIS:
        _URIS[picture] = picture_uri(picture.original)
    return {"picture": _URIS[picture], "heat": "" if heat is None or scale is None else heat_uri(heat, scale)}


def _since(before: datetime | None, time: datetime | None) -> str:
    """The time between two studies; empty if it is not known or below a minute."""
    if before is None or time is None or (time - before).total_seconds() < 60:
        return ""
    return time_span((time - before).total_seconds())


def heat_scale(groundings: Sequence[Grounding]) -> Normalize:
    """The scale of the colours, from the smallest to the largest value of any view: the same for all maps of a phrase."""
    values = np.concatenate([m.grid.ravel() for g in groundings for m in (g.frontal, g.lateral) if m is not None])
    return Normalize(float(values.min()), float(values.max()), clip=True)


def heat_uri(heat: HeatMap, scale: Normalize) -> str:
    """A heat map as a PNG inside a URI, to lie over its picture.

    The larger a value, the more opaque it is. Where the model saw nothing, the map is clear.
    """
    share = np.nan_to_num(scale(heat.pixels(HEAT_SIDE)).data)
    colours = mpl.colormaps[HEAT_MAP_COLOURS](share, bytes=True)
    colours[..., 3] = np.rint(share * 255).astype(np.uint8)
    return picture_uri(colours)


def heat_colours_css() -> str:
    """The colours of heat maps as a CSS gradient."""
    stops = [mpl.colors.to_hex(mpl.colormaps[HEAT_MAP_COLOURS](x)) for x in np.linspace(0, 1, 7)]
    return f"linear-gradient(to right, {', '.join(stops)})"


def similarity_curve(studies: Sequence[Study], values: Sequence[float], phrase: str) -> Markup:
    """The cosine of a phrase with each study in time order, with dates below.

    Studies are evenly spaced, because they come in clusters.
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
    text = ", ".join(f"study {n}: {value:.2f}" for n, value in zip(across, values, strict=True))
    return to_svg(figure, f"Similarity of '{phrase}' and each study; {text}.")
