"""Write sentences about a finding: its name, severity, location and progression.

The severity word always comes from the present severity and the progression word from the true change, so a report never
says anything that its images do not show. The words are in `phrasebook.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom.findings import Finding
from medst_phantom.phrasebook import (
    ABSENT_FRAMES,
    ABSENT_WORDS,
    CHANGE,
    CHEXPERT_NAME,
    FRAMES,
    ONLY_SIZED,
    OPENINGS,
    OWN_FRAMES,
    SEVERITY_BOUNDS,
    SEVERITY_WORDS,
    SIMILAR_TO,
    SINCE,
    SIZED,
)
from medst_phantom.trajectory import FindingState

HEDGE_BELOW = 0.34  # only faint findings are hedged
# By progression, the share of reports that do not say how severe a finding is now.
_UNQUANTIFIED = {None: 0.1, "new": 0.2, "improving": 0.75, "stable": 0.5, "worsening": 0.75, "resolved": 0.0}
_ZONE_PLACES = {
    "upper": ("upper lobe", "upper lung"),
    "mid": ("mid lung", "perihilar"),
    "lower": ("lower lobe", "basilar", "lower lung"),
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
        return NounPhrase(pick(("pulmonary edema", "pulmonary edema", "interstitial edema"), rng), False, False)
    if finding.name == "pleural_effusion":
        if both:
            return NounPhrase("bilateral pleural effusions", True, True)
        forms = (f"{side} pleural effusion", f"{side} pleural effusion", f"{side}-sided pleural effusion")
        return NounPhrase(pick(forms, rng), False, True)
    if finding.name == "pneumothorax":
        forms = (f"{side} pneumothorax", f"{side} apical pneumothorax", f"{side}-sided pneumothorax")
        return NounPhrase(pick(forms, rng), False, True)
    if finding.name == "atelectasis" and both:
        return NounPhrase(pick(("bibasilar atelectasis", "bilateral lower lobe atelectasis"), rng), False, False)
    if finding.zone == "retrocardiac":
        place = pick(("retrocardiac", "left retrocardiac", "left lower lobe retrocardiac"), rng)
    else:
        place = f"{side} {pick(_ZONE_PLACES[finding.zone], rng)}"
    return NounPhrase(f"{place} {finding.name}", False, False)


def location(finding: Finding, rng: np.random.Generator) -> str:
    """Location as a phrase: 'in the right lower lobe'."""
    side, both = finding.side, finding.side == "bilateral"
    if finding.zone == "retrocardiac":
        return pick(("in the retrocardiac region", "behind the heart in the left lower lobe"), rng)
    if finding.name == "pleural_effusion":
        return "on both sides" if both else f"on the {side}"
    if finding.name == "pneumothorax":
        return pick((f"at the {side} apex", f"in the {side} apical region"), rng)
    if finding.name == "edema":
        return "in both lungs"
    if finding.name == "atelectasis":
        return pick(("at the lung bases", "in both lower lungs") if both else (f"at the {side} lung base",), rng)
    zone = {"upper": "upper lobe", "mid": "mid lung", "lower": "lower lobe"}[finding.zone]
    if both:
        return f"in both {zone}s" if zone != "mid lung" else "in both mid lungs"
    return f"in the {side} {zone}"


def change_words(name: str, progression: str, kind: str) -> tuple[str, ...]:
    """Words for a change that suit a finding: an edema may be worse but not larger."""
    words = CHANGE[progression].get(kind, ())
    return words if name in SIZED else tuple(word for word in words if word not in ONLY_SIZED)


def may_hedge(state: FindingState) -> bool:
    """Whether a careful reader could be uncertain: a faint finding that is seen for the first time."""
    return state.progression in (None, "new") and state.present and state.finding.severity < HEDGE_BELOW


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
    frames = FRAMES["hedged"] if hedged else FRAMES[progression] + 2 * OWN_FRAMES[finding.name][progression]
    if quantified:
        frame = re.sub(r"[\[\]]", "", pick(frames, rng))
    else:
        frames = tuple(re.sub(r"\[.*?\]", "", frame) for frame in frames)
        frame = pick([frame for frame in frames if "{size}" not in frame], rng)
    text = sentence(frame.format_map(_slots(state, quantified, rng)))
    value = -1.0 if hedged else (1.0 if state.present else 0.0)
    labels = [(CHEXPERT_NAME[finding.name], value)]
    if re.search("opacit(y|ies)", text) and state.present:
        labels.append(("Lung Opacity", 1.0))
    return Statement(text, tuple(labels), present_fact(state) if progression is None else ())


def deny(names: Sequence[str], rng: np.random.Generator) -> Statement:
    """Deny the named findings in one sentence."""
    words = [pick(ABSENT_WORDS[name], rng) for name in names]
    frame = pick(ABSENT_FRAMES, rng)
    # "Evidence of" governs a whole list and is not itself seen, so it only fits one word in a plain sentence.
    if len(words) > 1 or "{list} is" in frame or "evidence" in frame:
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
    same = pick(CHANGE["stable"]["comparative"], rng)
    adverb = _adverb(abs(state.change), rng)
    slots = {
        "full": full,
        "a": noun.article(full),
        "bare": noun.bare,
        "the": f"the {noun.bare}",
        "noun": noun.bare.split()[-1],
        "new": f"{'a ' if noun.countable and not noun.plural else ''}new",
        "size": size,
        "side": finding.side,
        "where": location(finding, rng),
        "angle": (
            "both costophrenic angles" if finding.side == "bilateral" else f"the {finding.side} costophrenic angle"
        ),
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
        "persistent": pick(CHANGE["stable"]["changing"], rng),
    }
    for kind in ("verb", "change", "changing", "comparative"):
        words = change_words(finding.name, progression, kind) if progression in CHANGE else ()
        slots[kind] = pick(words, rng) if words else ""
    slots["change_of"] = f"{slots['change']} {'of' if slots['change'] in ('worsening', 'progression') else 'in'}"
    forms = {"has": "have", "is": "are", "was": "were", "remains": "remain", "appears": "appear"}
    slots.update({one: many if noun.plural else one for one, many in forms.items()})
    return slots


def _adverb(change: float, rng: np.random.Generator) -> str:
    """Size of a change; none of these words describes severity."""
    if rng.random() < 0.5:
        return ""
    if change < 0.3:
        return pick(("slightly", "modestly"), rng)
    return pick(("substantially", "significantly"), rng)
