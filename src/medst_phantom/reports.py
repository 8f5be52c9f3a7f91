"""Write a radiology report in MIMIC-CXR's layout from the findings of a study.

The CheXpert labels are not extracted from the text but collected from the sentences that are in it: those of the
impression, and without one those of the findings, which is the text that MIMIC-CXR's labels were extracted from
(create_section_files.py of MIT-LCP/mimic-cxr).
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom.background import (
    Background,
    device_statements,
    device_summary,
    heart_statement,
    indication,
    limits_statement,
    other_statements,
    technique_remark,
)
from medst_phantom.background_phrases import (
    ADVICE,
    ALL_NORMAL,
    CLEAR_LUNGS,
    IMPRESSION,
    MISSPELT,
    NOTHING_ACUTE,
    REASONS,
)
from medst_phantom.findings import DEVELOPING
from medst_phantom.phrasebook import SIZED
from medst_phantom.sentences import (
    Statement,
    deny,
    deny_other_side,
    describe,
    pick,
    present_fact,
    sample_hedged,
    sample_quantified,
    sentence,
)
from medst_phantom.trajectory import StudyTruth

CHEXPERT_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
# How often a report lacks a section; the rest has both. Of MIMIC-CXR's 227,835 reports (2,000 to 3,300 of them in the test
# split), 152,173 of training and validation have findings and 185,816 an impression (RRG24 shared task), and about 10,000
# have neither.
SHARES = {"impression only": 0.275, "findings only": 0.125, "last paragraph": 0.045}

_WIDTH = 79
# How often a sentence that is still true is repeated word for word from the previous report.
_REPEATED = 0.4
# How often an abnormality that is no finding is in the impression too, by the first word of its fact.
_ECHOED: dict[object, float] = {"heart": 0.9, "mediastinum": 0.6, "lungs": 0.6, "bones": 0.4}
# How often an absent finding is denied.
_DENIED = {
    "consolidation": 0.25,
    "edema": 0.5,
    "pleural_effusion": 0.7,
    "pneumonia": 0.5,
    "pneumothorax": 0.85,
    "atelectasis": 0.03,
}


@dataclass(frozen=True)
class Report:
    """The text of a report file and its CheXpert row.

    Attributes:
        text: the complete file, with headers.
        findings, impression: the sentences of the two sections, '' for one that is missing; in a report without
            headers both are in `findings`.
        labels: by name of `CHEXPERT_LABELS`, 1.0, 0.0 or -1.0; names that are not mentioned are absent.
        told: statements of the findings section that a later report may repeat.
    """

    text: str
    findings: str
    impression: str
    labels: dict[str, float]
    told: tuple[Statement, ...] = ()


def write_report(
    study: StudyTruth, background: Background, rng: np.random.Generator, earlier: Report | None = None
) -> Report:
    """Write the report of one study; every section states every present finding.

    Args:
        study: what is to be told.
        background: the patient.
        rng: source of chance.
        earlier: the report of the patient's previous study. Sentences of its findings section that are still true may
            be repeated word for word, as dictating radiologists do.
    """
    kind = _sample_kind(rng)
    # Decided once per finding, so that the two sections of a report agree.
    manner = {
        state.finding.name: {
            "hedged": sample_hedged(state, rng),
            "quantified": sample_quantified(state, rng),
        }
        for state in study.findings
    }
    # Only beside an impression, which tells each change.
    known = {said.fact: said for said in earlier.told} if earlier and kind != "findings only" else {}
    findings = _findings(study, background, manner, known, rng)
    impression = _impression(study, findings, manner, rng)
    if kind == "impression only":
        impression, findings = _whole_impression(study, background, impression, rng), []
    elif kind == "findings only":
        impression = []
    elif kind == "last paragraph":
        findings, impression = [*findings, *impression[:1]], []
    blocks = _headers(study, background, rng)
    blocks += _body(kind, study, findings, impression, rng)
    return Report(
        text=_layout(blocks, _wet_read(study, impression, rng)),
        findings="  ".join(statement.text for statement in findings),
        impression="  ".join(statement.text for statement in impression),
        labels=collect_labels(impression or findings),
        told=tuple(statement for statement in findings if statement.fact),
    )


def collect_labels(statements: Sequence[Statement]) -> dict[str, float]:
    """Labels of a report: a positive mention overrides an uncertain one, which overrides a negative one."""
    rank = {1.0: 2, -1.0: 1, 0.0: 0}
    labels: dict[str, float] = {}
    for statement in statements:
        for name, value in statement.labels:
            if name not in labels or rank[value] > rank[labels[name]]:
                labels[name] = value
    if all(value == 0 for name, value in labels.items() if name != "Support Devices"):
        labels["No Finding"] = 1.0
    return {name: labels[name] for name in CHEXPERT_LABELS if name in labels}


def _sample_kind(rng: np.random.Generator) -> str:
    names = [*SHARES, "both"]
    return names[int(rng.choice(len(names), p=[*SHARES.values(), 1 - sum(SHARES.values())]))]


def _findings(
    study: StudyTruth,
    background: Background,
    manner: dict[str, dict],
    known: Mapping[tuple[object, ...], Statement],
    rng: np.random.Generator,
) -> list[Statement]:
    first = _repeated(limits_statement(study, rng) + device_statements(study, rng), known, rng)
    told = []
    for state in study.findings:
        same = known.get(present_fact(state)) if state.present else None
        told.append(same if same and rng.random() < _REPEATED else describe(state, rng, **manner[state.finding.name]))
    last = _repeated(other_statements(study, background, rng), known, rng)
    if not study.present and rng.random() < 0.6 and not any(said.fact == ("lungs",) for said in last):
        told += _repeated([Statement(sentence(pick(CLEAR_LUNGS, rng)), (), ("clear",))], known, rng)
    middle = [told[i] for i in rng.permutation(len(told))] + _denials(study, known, rng)
    if rng.random() < 0.3:
        first, middle = [], middle + first
    return [*last, *first, *middle] if rng.random() < 0.25 else [*first, *middle, *last]


def _repeated(
    statements: list[Statement], known: Mapping[tuple[object, ...], Statement], rng: np.random.Generator
) -> list[Statement]:
    """The statements, some in the words of an earlier report that said the same."""
    return [known[said.fact] if said.fact in known and rng.random() < _REPEATED else said for said in statements]


def _denials(
    study: StudyTruth, known: Mapping[tuple[object, ...], Statement], rng: np.random.Generator
) -> list[Statement]:
    """Deny some of the absent findings, in one or two sentences."""
    spoken_of = {state.finding.name for state in study.findings}
    # "No consolidation" beside a pneumonia would contradict it, and the other way round.
    if spoken_of & {"consolidation", "pneumonia"}:
        spoken_of |= {"consolidation", "pneumonia"}
    absent = [name for name in DEVELOPING if name not in spoken_of and rng.random() < _DENIED[name]]
    absent = [absent[i] for i in rng.permutation(len(absent))]
    statements = []
    old = [said for fact, said in known.items() if fact[0] == "absent" and not spoken_of & set(fact[1:])]
    if old and rng.random() < _REPEATED:
        statements = old
    elif len(absent) > 1 and rng.random() < 0.4:
        statements = [deny(absent[:1], rng), deny(absent[1:], rng)]
    elif absent:
        statements = [deny(absent, rng)]
    one_sided = [f for f in study.present if f.name in SIZED and f.side != "bilateral"]
    return statements + [deny_other_side(finding, rng) for finding in one_sided if rng.random() < 0.1]


def _impression(
    study: StudyTruth, findings: list[Statement], manner: dict[str, dict], rng: np.random.Generator
) -> list[Statement]:
    """The findings again, the worst first; or a normal impression. Some of the rest word for word."""
    states = sorted(study.findings, key=lambda state: -state.finding.severity)
    told = [describe(state, rng, **manner[state.finding.name]) for state in states]
    odd = [said for said in findings if said.fact and said.fact[0] in _ECHOED and any(dict(said.labels).values())]
    if not study.present and (not told or rng.random() < 0.5):
        text = pick([text for text in NOTHING_ACUTE if not odd or text not in ALL_NORMAL], rng)
        told.append(Statement(sentence(text), (), ("normal",) if text in ALL_NORMAL else ()))
    elif rng.random() < 0.15:
        told += _denials(study, {}, rng)[:1]
    for said in findings:
        if said in odd and rng.random() < _ECHOED[said.fact[0]]:
            told.append(said)
    if rng.random() < 0.5:
        told += device_summary(study, rng)
    if study.present and rng.random() < 0.08:
        told.append(Statement(pick(ADVICE, rng)))
    return told


def _whole_impression(
    study: StudyTruth, background: Background, impression: list[Statement], rng: np.random.Generator
) -> list[Statement]:
    """An impression without a findings section: it also tells devices, absent findings and the heart."""
    rest = [said for said in impression if "Support Devices" not in dict(said.labels)]
    told = [*device_statements(study, rng), *rest]
    if rng.random() < 0.6:
        told += _denials(study, {}, rng)[:1]
    if rng.random() < 0.75 and not any(said.fact in (("heart",), ("normal",)) for said in impression):
        told.append(heart_statement(background, study.follow_up, rng))
    return told


def _headers(study: StudyTruth, background: Background, rng: np.random.Generator) -> list[str]:
    """The sections above the findings, each as 'HEADER:  text'."""
    upright = "CHEST (PA AND LAT)" if {"LATERAL", "LL"} & set(study.views) else "CHEST (SINGLE VIEW)"
    name = "CHEST (PORTABLE AP)" if study.portable else upright
    blocks = []
    if rng.random() < 0.65:
        header = pick(("EXAMINATION", "EXAMINATION", "TYPE OF EXAMINATION", "EXAM"), rng)
        blocks.append(f"{header}:  {name}")
    reason = pick(REASONS, rng)
    blocks.append(f"{reason}:  {indication(background, rng)}")
    if rng.random() < 0.6:
        blocks.append(f"TECHNIQUE:  {technique_remark(study, rng)}")
    if rng.random() < 0.85:
        header = pick((*["COMPARISON"] * 6, "COMPARISONS", "COMPARISONS", "REFERENCE EXAM", "COMPARISON EXAM"), rng)
        blocks.append(f"{_spelt(header, rng)}:  {_comparison(study, rng)}")
    return blocks


def _comparison(study: StudyTruth, rng: np.random.Generator) -> str:
    if not study.follow_up:
        return pick(("None.", "None available.", "No prior studies available for comparison."), rng)
    return pick(("___.", "Chest radiograph dated ___.", "Chest radiograph ___.", "Prior exam of ___."), rng)


def _body(
    kind: str,
    study: StudyTruth,
    findings: list[Statement],
    impression: list[Statement],
    rng: np.random.Generator,
) -> list[str]:
    """Findings and impression, under headers as they occur in MIMIC-CXR, some misspelt."""
    gap = pick(("  ", "  ", " "), rng)
    if kind == "last paragraph":
        return [gap.join(statement.text for statement in findings)]
    blocks = []
    if findings:
        header = "FINDINGS"
        if rng.random() < 0.06:
            header = "PORTABLE CHEST" if study.portable else "CHEST, TWO VIEWS"
            if len(study.views) == 1 and not study.portable:
                header = "FINDINGS"
        blocks.append(_section(header, gap.join(s.text for s in findings), rng))
    if impression:
        merged = not findings and rng.random() < 0.35
        header = (
            pick(("FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION"), rng)
            if merged
            else IMPRESSION[int(rng.random() < 0.02)]
        )
        if len(impression) > 1 and not merged and rng.random() < 0.6:
            text = "\n".join(f"{number}.  {s.text}" for number, s in enumerate(impression, start=1))
        else:
            text = gap.join(s.text for s in impression)
        blocks.append(_section(header, text, rng))
    if study.present and impression and rng.random() < 0.03:
        blocks.append(f"RECOMMENDATION(S):  {pick(ADVICE, rng)}")
    severe = [finding for finding in study.present if finding.severity > 0.7]
    if severe and rng.random() < 0.1:
        minute = int(rng.integers(60))
        blocks.append(
            "NOTIFICATION:  The findings were discussed by Dr. ___ with Dr. ___ on the telephone on ___ at "
            f"{int(rng.integers(1, 13))}:{minute:02d} {pick(('AM', 'PM'), rng)}, 5 minutes after discovery."
        )
    return blocks


def _section(header: str, text: str, rng: np.random.Generator) -> str:
    header = _spelt(header, rng)
    own_paragraph = rng.random() < 0.6 or text.startswith("1.")
    return f"{header}: \n\n{text}" if own_paragraph else f"{header}:  {text}"


def _spelt(header: str, rng: np.random.Generator) -> str:
    """The header, sometimes with a spelling mistake from MIMIC-CXR."""
    return pick(MISSPELT[header], rng) if header in MISSPELT and rng.random() < 0.02 else header


def _wet_read(study: StudyTruth, impression: list[Statement], rng: np.random.Generator) -> str:
    """A preliminary reading above the final report, in a few urgent studies."""
    if not (impression and study.present and rng.random() < 0.03):
        return ""
    time = f"{int(rng.integers(1, 13))}:{int(rng.integers(60)):02d} {pick(('AM', 'PM'), rng)}"
    return f"WET READ: ___ ___ ___ {time}\n{impression[0].text}"


def _layout(blocks: Sequence[str], wet_read: str) -> str:
    """Start every line with a space, separate paragraphs by a line with one space, and end lines before column 80."""
    title = f"{'':33}FINAL REPORT\n"
    if wet_read:
        title = f"{_wrap(wet_read)}\n {'_' * 78}\n{title}"
    return title + "\n \n".join(_wrap(block) for block in blocks) + "\n"


def _wrap(block: str) -> str:
    lines = []
    for line in block.split("\n"):
        wrapped = textwrap.wrap(
            line,
            _WIDTH,
            initial_indent=" ",
            subsequent_indent=" ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        # A header that stands alone keeps the blank after its colon, as the originals do.
        lines += [f"{wrapped[0]} " if line.endswith(": ") else wrapped[0], *wrapped[1:]] if wrapped else [" "]
    return "\n".join(lines)
