"""The parts of the page that are not controls, as HTML."""

from dataclasses import dataclass
from datetime import datetime
from weakref import WeakKeyDictionary

from medst.app.drawing import Scale, heat_uri, similarity_curve
from medst.app.studies import Hit, Visit
from medst.pages.html import picture_uri, render_macro
from medst.pages.wording import time_span
from medst.use import Grounding, HeatMap, Picture, Progression, read_picture
from medst.use.pictures import Source

# Drawn once for as long as the picture is there: a visitor's own are forgotten with the visit.
_URIS: WeakKeyDictionary[Picture, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Shown:
    """A picture and the heat map over it, or none, as URIs."""

    picture: str
    heat: str = ""


@dataclass(frozen=True)
class Card:
    """A study on the time line."""

    name: str
    since: str
    similarity: float | None
    frontal: Shown
    lateral: Shown | None
    report: str


def timeline_html(visit: Visit, found: list[Grounding] | None = None) -> str:
    """A patient's studies; with heat maps and a curve where a phrase was looked for.

    Args:
        visit: the studies.
        found: one for each, or None.
    """
    scale = None if found is None else Scale.of(found)
    cards = []
    for number, study in enumerate(visit.studies):
        before = visit.studies[number - 1].time if number else None
        here = None if found is None else found[number]
        cards.append(
            Card(
                visit.name(number),
                _since(before, study.time),
                None if here is None else here.similarity,
                _shown(study.frontal, None if here is None else here.frontal, scale),
                None if study.lateral is None else _shown(study.lateral, None if here is None else here.lateral, scale),
                study.report,
            )
        )
    phrase = "" if found is None else found[0].phrase
    curve = "" if found is None else similarity_curve(visit.studies, [g.similarity for g in found], phrase)
    note = f"{visit.left_out} earlier studies of this patient are not shown." if visit.left_out else ""
    return _fragment("timeline", cards, note, phrase, scale, curve)


def comparison_html(visit: Visit, prior: int, current: int, found: Progression) -> str:
    """What became of a finding, beside both pictures."""
    shares = [(name, getattr(found, name)) for name in ("improving", "stable", "worsening")]
    values = {
        "finding": found.finding,
        "most_likely": found.most_likely,
        "shares": shares,
        "prior": found.prior,
        "current": found.current,
    }
    pictures = [_shown(visit.studies[number].frontal, None, None) for number in (prior, current)]
    return _fragment("comparison", values, *pictures, visit.name(prior), visit.name(current))


def similar_html(hits: list[Hit]) -> str:
    """The most similar studies of other patients."""
    rows = [
        {
            "patient": hit.patient,
            "similarity": hit.similarity,
            "when": "without a date" if hit.time is None else f"{hit.time:%Y-%m-%d}",
            "report": hit.report,
            "shown": _shown(hit.picture, None, None),
        }
        for hit in hits
    ]
    return _fragment("similar", rows)


def _shown(source: Source, heat: HeatMap | None, scale: Scale | None) -> Shown:
    picture = read_picture(source)
    if picture not in _URIS:
        _URIS[picture] = picture_uri(picture.original)
    return Shown(_URIS[picture], "" if heat is None or scale is None else heat_uri(heat, scale))


def _since(before: datetime | None, time: datetime | None) -> str:
    """Time between two studies in words; empty where it is not known, or both pictures are of one moment."""
    if before is None or time is None or (time - before).total_seconds() < 60:
        return ""
    return time_span((time - before).total_seconds())


def _fragment(name: str, *values: object) -> str:
    return render_macro("app/fragments.html.j2", name, *values)
