"""Write sentences about a finding: its name, severity, location and progression.

The severity word always comes from the present severity and the progression word from the true change, so a report never
says anything that its images do not show. The words are in `phrasebook.py`, the
frames in `frames.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom.findings import Finding
from medst_phantom.frames import FRAMES, HEDGED, OWN_FRAMES
from medst_phantom.phrasebook import (
    ABSENT_FRAMES,
    ABSENT_WORDS,
    CHANGE,
    CHANGE_IN_REPORTS,
    CHEXPERT_NAME,
    HEDGES,
    MIRRORED,
    ONLY_SIZED,
    OPENINGS,
    SEVERITY_BOUNDS,
    SEVERITY_WORDS,
    SIGNS,
    SIMILAR_TO,
    SINCE,
    SIZED,
)
from medst_phantom.trajectory import FindingState

_OWN_WEIGHT = 5  # a finding's own frames are drawn as often as this many times their number
# By progression, the share of reports that do not say how severe a finding is now.
_UNQUANTIFIED = {None: 0.1, "new": 0.2, "improving": 0.75, "stable": 0.5, "worsening": 0.75, "resolved": 0.0}
_BOTH_BASES = ("bibasilar atelectasis", "bilateral lower lobe atelectasis", "bibasal atelectasis")
_EDEMAS = (
    "pulmonary edema",
    "pulmonary edema",
    "interstitial edema",
    "interstitial pulmonary edema",
    "hydrostatic edema",
)
_ZONE_PLACES = {
    "upper": ("upper lobe", "upper lung", "upper zone", "suprahilar"),
    "mid": ("mid lung", "perihilar", "midzone"),
    "lower": ("lower lobe", "basilar", "lower lung", "basal", "infrahilar"),
}


@dataclass(frozen=True)
class Statement:
    """One sentence, with the CheXpert labels that it implies (1 present, 0 absent, -1 uncertain).

    Attributes:
        text: the sentence.
        labels: (label, value) pairs.
        fact: what it asserts of the present study alone; a sentence of an earlier report with the same fact is still
            true. () for a sentence that compares, or that stands for itself.
    """

    text: str
    labels: tuple[tuple[str, float], ...] = ()
    fact: tuple[object, ...] = ()


@dataclass(frozen=True)
class NounPhrase:
    """A finding's name in words, without severity: 'right pleural effusion'."""

    bare: str
    plural: bool
    countable: bool

    def article(self, text: str) -> str:
        if self.plural or not self.countable:
            return text
        return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(text: str) -> str:
    """Remove the spaces that empty slots leave, start with a capital, end with a full stop.

    >>> sentence("the edema has  improved , now mild")
    'The edema has improved, now mild.'
    """
    text = re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", text)).strip().rstrip(",.")
    return text[0].upper() + text[1:] + "."


def severity_word(name: str, severity: float, rng: np.random.Generator) -> str:
    return pick(SEVERITY_WORDS[name][_band(severity)], rng)


def _band(severity: float) -> int:
    return next(i for i, bound in enumerate(SEVERITY_BOUNDS) if severity < bound)


def present_fact(state: FindingState) -> tuple[object, ...]:
    """What a sentence on a present finding asserts if it compares with nothing: see `Statement.fact`."""
    finding = state.finding
    return "present", finding.name, finding.side, finding.zone, _band(finding.severity)


def noun_phrase(finding: Finding, rng: np.random.Generator) -> NounPhrase:
    """Name a finding with its side and zone, in one of several ways."""
    side, both = finding.side, finding.side == "bilateral"
    if finding.name == "edema":
        return NounPhrase(pick(_EDEMAS, rng), False, False)
    if finding.name == "pleural_effusion":
        if both:
            return NounPhrase(pick(("bilateral pleural effusions", "bilateral layering effusions"), rng), True, True)
        forms = (f"{side} pleural effusion", f"{side} basal effusion", f"{side}-sided pleural effusion")
        return NounPhrase(pick(forms, rng), False, True)
    if finding.name == "pneumothorax":
        forms = (f"{side} pneumothorax", f"{side} apical pneumothorax", f"{side}-sided pneumothorax")
        return NounPhrase(pick((*forms, f"{side} apicolateral pneumothorax"), rng), False, True)
    if finding.name == "atelectasis" and both:
        return NounPhrase(pick(_BOTH_BASES, rng), False, False)
    if finding.zone == "retrocardiac":
        place = pick(("retrocardiac", "left retrocardiac", "left lower lobe retrocardiac", "medial left basal"), rng)
    else:
        place = f"{side} {pick(_ZONE_PLACES[finding.zone], rng)}"
    if finding.name == "atelectasis":
        place += pick(("", "", " subsegmental", " linear", " platelike", " compressive"), rng)
    return NounPhrase(f"{place} {finding.name}", False, False)


def location(finding: Finding, rng: np.random.Generator) -> str:
    """Location as a phrase: 'in the right lower lobe'."""
    side, both = finding.side, finding.side == "bilateral"
    if finding.zone == "retrocardiac":
        return pick(("in the retrocardiac region", "behind the heart in the left lower lobe"), rng)
    if finding.name == "pleural_effusion":
        return "on both sides" if both else f"on the {side}"
    if finding.name == "pneumothorax":
        return pick((f"at the {side} apex", f"in the {side} apical region", f"along the {side} upper chest wall"), rng)
    if finding.name == "edema":
        return pick(("in both lungs", "bilaterally"), rng)
    if finding.name == "atelectasis":
        return pick(("at the lung bases", "in both lower lungs") if both else (f"at the {side} lung base",), rng)
    zone = {"upper": "upper lobe", "mid": "mid lung", "lower": "lower lobe"}[finding.zone]
    if both:
        return f"in both {zone}s" if zone != "mid lung" else "in both mid lungs"
    region = {"upper": "upper lung field", "mid": "perihilar region", "lower": "lung base"}[finding.zone]
    return pick((f"in the {side} {zone}", f"within the {side} {zone}", f"projecting over the {side} {region}"), rng)


def change_words(name: str, progression: str, kind: str) -> tuple[str, ...]:
    """Words for a change that suit a finding: an edema may be worse but not larger."""
    words = CHANGE[progression].get(kind, ())
    return words if name in SIZED else tuple(word for word in words if word not in ONLY_SIZED)


def _words(name: str, progression: str, kind: str) -> tuple[str, ...]:
    """`change_words`, twice as often as each of those that only reports use."""
    more = CHANGE_IN_REPORTS[progression].get(kind, ())
    if name not in SIZED:
        more = tuple(word for word in more if word not in ONLY_SIZED)
    return 2 * change_words(name, progression, kind) + more


def may_hedge(state: FindingState) -> bool:
    """Whether a careful reader could be uncertain what a sign means: a finding that is not yet plain."""
    return 0 < state.finding.severity < HEDGES[state.finding.name][1]


def sample_hedged(state: FindingState, rng: np.random.Generator) -> bool:
    """Draw whether a report is uncertain about a finding; neither depends on how it changed."""
    return may_hedge(state) and bool(rng.random() < HEDGES[state.finding.name][0])


def sample_quantified(state: FindingState, rng: np.random.Generator) -> bool:
    """Draw whether a report gives the severity of a finding, or only its progression.

    A comparison mostly gives the direction alone ("the effusion has decreased"), so that only the words for the
    direction carry this information. If every sentence gave both, these words would be redundant, and a model that sees
    one image at a time could not learn "increased" from "decreased".
    """
    return bool(rng.random() >= _UNQUANTIFIED[state.progression])


def describe(
    state: FindingState, rng: np.random.Generator, *, hedged: bool = False, quantified: bool = True
) -> Statement:
    """Describe a present or just-resolved finding in one sentence; a hedged one is labelled -1."""
    finding, progression = state.finding, state.progression
    frames = FRAMES[progression] + _OWN_WEIGHT * OWN_FRAMES[finding.name][progression]
    if hedged:
        frames = HEDGED[progression]
    if quantified:
        frame = re.sub(r"[\[\]]", "", pick(frames, rng))
    else:
        frames = tuple(re.sub(r"\[.*?\]", "", frame) for frame in frames)
        frame = pick([frame for frame in frames if "{size}" not in frame], rng)
    text = sentence(frame.format_map(_slots(state, quantified, rng)))
    value = -1.0 if hedged else (1.0 if state.present else 0.0)
    labels = [(CHEXPERT_NAME[finding.name], value)]
    if state.present and re.search(r"opacit|opacif|densit|infiltrat|airspace disease", text, re.IGNORECASE):
        labels.append(("Lung Opacity", 1.0))
    return Statement(text, tuple(labels), present_fact(state) if progression is None else ())


def deny(names: Sequence[str], rng: np.random.Generator) -> Statement:
    """Deny the named findings in one sentence."""
    words = [pick(ABSENT_WORDS[name], rng) for name in names]
    frame = pick(ABSENT_FRAMES, rng)
    # "Evidence of" governs a whole list and is not itself seen, so it only fits one word in a plain sentence.
    if len(words) > 1 or "{list} is" in frame or "of {list}" in frame:
        words = [word.removeprefix("evidence of ") for word in words]
    comma = "," if len(words) > 2 and rng.random() < 0.5 else ""
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])}{comma} or {words[-1]}"
    text = sentence(frame.format(list=listed))
    return Statement(text, tuple((CHEXPERT_NAME[name], 0.0) for name in names), ("absent", *sorted(names)))


def deny_other_side(finding: Finding, rng: np.random.Generator) -> Statement:
    """'No left pleural effusion.' for a finding on the right; it sets no label, because the finding is present."""
    other = "left" if finding.side == "right" else "right"
    word = "pleural effusion" if finding.name == "pleural_effusion" else finding.name
    return Statement(sentence(f"{pick(('no', 'there is no'), rng)} {other} {word}"))


def _slots(state: FindingState, quantified: bool, rng: np.random.Generator) -> dict[str, str]:
    finding, progression = state.finding, state.progression
    # A resolved finding has no severity left to speak of; its frames have no slot for one.
    size = severity_word(finding.name, finding.severity, rng) if state.present and quantified else ""
    noun = noun_phrase(finding, rng)
    full = f"{size} {noun.bare}".strip()
    against, opening = pick(SINCE, rng), pick(OPENINGS, rng)
    since = against if rng.random() < 0.8 else ""
    same = pick(_words(finding.name, "stable", "comparative"), rng)
    adverb = _adverb(abs(state.change), rng)
    where = location(finding, rng)
    angle = "both costophrenic angles" if finding.side == "bilateral" else f"the {finding.side} costophrenic angle"
    slots = {
        "full": full,
        "a": noun.article(full),
        "bare": noun.bare,
        "the": f"the {noun.bare}",
        "noun": noun.bare.split()[-1],
        "new": f"{'a ' if noun.countable and not noun.plural else ''}new",
        "size": size,
        "side": finding.side,
        "where": where,
        "angle": angle,
        "sign": pick(SIGNS[finding.name], rng).format(where=where, angle=angle),
        "angle_is": "are" if finding.side == "bilateral" else "is",
        "bases": "lung bases are" if finding.side == "bilateral" else f"{finding.side} base is",
        "extent": "size" if finding.name in SIZED else "extent",
        "since": since,
        "against": against,
        "opening": opening,
        "adv": adverb,
        "slight": adverb.removesuffix("ly"),
        "same": same,
        "same_since": f"{same} {pick(SIMILAR_TO, rng) if same == 'similar' else since}",
        "persistent": pick(_words(finding.name, "stable", "changing"), rng),
    }
    for kind in ("verb", "change", "changing", "comparative"):
        words = _words(finding.name, progression, kind) if progression in CHANGE else ()
        slots[kind] = pick(words, rng) if words else ""
    inward = ("decrease", "increase", "improvement", "reduction", "deterioration")
    slots["change_of"] = f"{slots['change']} {'in' if slots['change'] in inward else 'of'}"
    slots |= MIRRORED.get(progression or "", {})
    forms = {"has": "have", "is": "are", "was": "were", "remains": "remain", "appears": "appear"}
    forms |= {"shows": "show", "persists": "persist"}
    slots.update({one: many if noun.plural else one for one, many in forms.items()})
    return slots


def _adverb(change: float, rng: np.random.Generator) -> str:
    """Size of a change; none of these words describes severity."""
    if rng.random() < 0.5:
        return ""
    if change < 0.3:
        return pick(("slightly", "modestly", "marginally"), rng)
    return pick(("substantially", "significantly", "considerably", "notably"), rng)
