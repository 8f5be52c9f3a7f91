"""Everything in a report besides the findings: the patient, tubes and lines, heart, bones, technique.

Devices, and the size of heart, aorta and mediastinum, are told as they are drawn. The other sentences are not drawn: they
are distractors that a model must learn to ignore.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom import background_phrases as phrases
from medst_phantom import device_phrases as said_of
from medst_phantom.anatomy import Anatomy
from medst_phantom.findings import BELOW_THE_IMAGE, CARDIOMEGALY_FROM, Device, heart_severity
from medst_phantom.sentences import Statement, pick, sentence
from medst_phantom.trajectory import StudyTruth

_Labelled = tuple[str, tuple[tuple[str, float], ...]]

_DEVICE = (("Support Devices", 1.0),)
_BORDERLINE = 0.03  # a heart this near to `CARDIOMEGALY_FROM` may be called either way
_WIDE_MEDIASTINUM, _LARGE_KNOB = 3.1, 2.35  # cm


@dataclass(frozen=True)
class Background:
    """Properties that are constant over a patient's studies.

    Attributes:
        sex: 'man' or 'woman'.
        heart: size of the heart, as `Anatomy.heart`.
        wide_mediastinum, large_knob: whether the upper mediastinum, or the aortic arch, is drawn wide.
        remnant, vessels: sentences, or '' if there is none.
        bones, lungs: a sentence on them with its labels, or None for unremarkable ones.
    """

    sex: str
    heart: float
    wide_mediastinum: bool
    large_knob: bool
    remnant: str
    vessels: str
    bones: _Labelled | None
    lungs: _Labelled | None

    @property
    def cardiomegaly(self) -> float:
        """Severity of cardiomegaly, 0 to 1."""
        return heart_severity(self.heart)

    @property
    def borderline(self) -> bool:
        """Whether a careful reader could be uncertain about the size of the heart."""
        return abs(self.heart - CARDIOMEGALY_FROM) < _BORDERLINE


def sample_background(rng: np.random.Generator, anatomy: Anatomy) -> Background:
    """Draw a patient with this body."""
    details = {name: pick(words, rng) for name, words in phrases.DETAILS.items()}

    def some(table: Sequence[_Labelled], share: float) -> _Labelled | None:
        if rng.random() >= share:
            return None
        text, labels = table[int(rng.integers(len(table)))]
        return text.format(**details), labels

    return Background(
        sex="woman" if anatomy.breast > 0.35 else "man",
        heart=anatomy.heart,
        wide_mediastinum=anatomy.mediastinum > _WIDE_MEDIASTINUM,
        large_knob=anatomy.aortic_knob > _LARGE_KNOB,
        remnant=pick(phrases.REMNANTS, rng).format(**details) if rng.random() < 0.2 else "",
        vessels=pick(phrases.VESSELS, rng).format(**details) if rng.random() < 0.35 else "",
        bones=some(phrases.BONES, 0.35),
        lungs=some(phrases.LUNG_EXTRAS, 0.2),
    )


def device_statements(study: StudyTruth, rng: np.random.Generator) -> list[Statement]:
    """What a findings section says of tubes, lines and implants, and of those that were removed."""
    statements = [_device_statement(device, rng) for device in study.devices if rng.random() < 0.92]
    if not study.devices and study.portable and rng.random() < 0.05:
        statements.append(Statement(sentence(pick(said_of.NO_DEVICES, rng)), (("Support Devices", 0.0),)))
    return statements


def device_summary(study: StudyTruth, rng: np.random.Generator) -> list[Statement]:
    """What an impression says of devices: one sentence, or nothing."""
    placed = [device for device in study.devices if device.present]
    if not placed:
        return []
    if len(placed) > 1 and rng.random() < 0.5:
        return [Statement(sentence(pick(said_of.DEVICES_SUMMARY, rng)), _DEVICE)]
    return [_device_statement(placed[int(rng.integers(len(placed)))], rng)]


def _device_statement(device: Device, rng: np.random.Generator) -> Statement:
    frames = said_of.DEVICES[device.name]
    step = device.step if device.step != "stable" or rng.random() < 0.4 else None
    text = pick(frames[step], rng).format(
        side=device.side, route=device.route, place=_place(device, rng), cm=f"{device.tip:.1f}"
    )
    text = sentence(text)
    if device.present and rng.random() < 0.5:
        if device.name == "endotracheal_tube" and device.tip < 2.5:
            text += f"  {sentence(pick(said_of.ADVICE_LOW_TUBE, rng))}"
        elif device.name in ("central_line", "picc") and device.tip < said_of.VEIN_PLACES[3][0]:
            text += f"  {sentence(pick(said_of.ADVICE_DEEP_LINE, rng))}"
    fact = ("device", device.name, device.seed) if step is None else ()
    return Statement(text, _DEVICE if device.present else (("Support Devices", 0.0),), fact)


def _place(device: Device, rng: np.random.Generator) -> str:
    """Where the tip lies, in words."""
    if device.name == "enteric_tube":
        return pick(said_of.ENTERIC_PLACES[device.tip < BELOW_THE_IMAGE], rng)
    if device.name == "chest_tube":
        return pick(said_of.CHEST_TUBE_PLACES[device.tip > 0], rng)
    return pick(next(words for lowest, words in said_of.VEIN_PLACES if device.tip >= lowest), rng)


def heart_statement(background: Background, follow_up: bool, rng: np.random.Generator) -> Statement:
    """The size of the heart; near the border between usual and large it may be uncertain."""
    severity = background.cardiomegaly
    if background.borderline and rng.random() < 0.2:
        return Statement(sentence(pick(phrases.BORDERLINE_HEART, rng)), (("Cardiomegaly", -1.0),), ("heart",))
    if severity:
        same = follow_up and rng.random() < 0.35
        size = pick(next(words for highest, words in phrases.HEART_WORDS if severity < highest), rng)
        text = pick(phrases.SAME_HEART if same else phrases.LARGE_HEART, rng).format(size=size, ly=f"{size}ly")
        return Statement(sentence(text), (("Cardiomegaly", 1.0),), () if same else ("heart",))
    if rng.random() < 0.5:
        return Statement(sentence(pick(phrases.NORMAL_HEART, rng)), (("Cardiomegaly", 0.0),), ("heart",))
    labels = (("Enlarged Cardiomediastinum", 0.0),) if rng.random() < 0.15 else ()
    return Statement(sentence(pick(phrases.NORMAL_SILHOUETTE, rng)), labels, ("heart",))


def other_statements(study: StudyTruth, background: Background, rng: np.random.Generator) -> list[Statement]:
    """Heart, vessels, old changes of the lungs, bones and surgical remnants: one to five sentences."""
    statements = []
    if rng.random() < 0.88:
        statements.append(heart_statement(background, study.follow_up, rng))
    if background.wide_mediastinum and rng.random() < 0.6:
        value = 1.0 if rng.random() < 0.45 else -1.0
        text = sentence(pick(phrases.WIDE_MEDIASTINUM, rng))
        statements.append(Statement(text, (("Enlarged Cardiomediastinum", value),), ("mediastinum",)))
    if background.large_knob and rng.random() < 0.6:
        statements.append(Statement(sentence(pick(phrases.KNOB, rng)), (), ("aorta",)))
    for text, name in ((background.vessels, "vessels"), (background.remnant, "remnant")):
        if text and rng.random() < 0.6:
            statements.append(Statement(sentence(text), (), (name,)))
    for old, name in ((background.lungs, "lungs"), (background.bones, "bones")):
        if old and rng.random() < 0.5:
            statements.append(Statement(sentence(old[0]), old[1], (name,)))
    if not background.bones and rng.random() < 0.35:
        statements.append(Statement(sentence(pick(phrases.NORMAL_BONES, rng)), (), ("bones",)))
    return statements


def limits_statement(study: StudyTruth, rng: np.random.Generator) -> list[Statement]:
    """A remark on the quality of the images, in some reports."""
    if study.portable:
        return [Statement(sentence(pick(phrases.LIMITS_BEDSIDE, rng)))] if rng.random() < 0.25 else []
    return [Statement(sentence(pick(phrases.LIMITS, rng)))] if rng.random() < 0.06 else []


def technique_remark(study: StudyTruth, rng: np.random.Generator) -> str:
    """Technique of the examination, as in a report's technique section."""
    if study.portable:
        return pick(phrases.BEDSIDE_TECHNIQUE, rng)
    forms: Sequence[str] = phrases.TWO_VIEWS if {"LATERAL", "LL"} & set(study.views) else phrases.ONE_VIEW
    return pick(forms, rng).format(view=study.views[0])


def indication(background: Background, rng: np.random.Generator) -> str:
    """Reason for the study; ages and names are blanked as in the de-identified originals."""
    text = pick(phrases.INDICATION_FORMS, rng).format(
        sex=background.sex,
        letter="M" if background.sex == "man" else "F",
        complaint=pick(phrases.COMPLAINTS, rng),
        other=pick(phrases.COMPLAINTS, rng),
        question=pick(phrases.QUESTIONS, rng),
    )
    return text[0].upper() + text[1:]
