import re
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import heart_statement, sample_background
from medst_phantom.background_phrases import ALL_NORMAL
from medst_phantom.findings import CARDIOMEGALY_FROM, DEVELOPING, Finding, heart_severity
from medst_phantom.phrasebook import CHEXPERT_NAME, MENTIONS
from medst_phantom.reports import CHEXPERT_LABELS, Report, collect_labels, write_report
from medst_phantom.sentences import Statement, sentence
from medst_phantom.trajectory import FindingState, StudyTruth, sample_trajectory

SEEDS = st.integers(0, 2**32 - 1)
# MIT-LCP's rule of what is a header.
HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
NEGATION = re.compile(r"\bno\b|\bcannot\b|resol|clear|no longer|disappear|vanish|subsid", re.IGNORECASE)


def patient(seed: int) -> list[tuple[StudyTruth, Report]]:
    rng = np.random.default_rng(seed)
    background = sample_background(rng, sample_anatomy(rng))
    pairs: list[tuple[StudyTruth, Report]] = []
    for study in sample_trajectory(rng):
        pairs.append((study, write_report(study, background, rng, pairs[-1][1] if pairs else None)))
    return pairs


@pytest.fixture(scope="module")
def many() -> list[tuple[StudyTruth, Report]]:
    return [pair for seed in range(700) for pair in patient(seed)]


def sentences(text: str) -> list[str]:
    # A decimal's full stop does not end a sentence.
    return [part for part in re.split(r"\.(?:\s+|$)", text) if part]


def denies(said: str) -> bool:
    return re.match(r"(there is )?no (?!significant|change|longer|appreciable)", said.lower()) is not None


def mentions(said: str, name: str) -> bool:
    return any(word in said.lower() for word in MENTIONS[name])


@given(SEEDS)
def test_every_section_states_what_is_present(seed):
    for study, report in patient(seed):
        for section in (report.findings, report.impression):
            for finding in study.present if section else ():
                told = [said for said in sentences(section) if mentions(said, finding.name)]
                assert any(not denies(said) for said in told), (finding, section)


@given(SEEDS)
def test_nothing_absent_is_asserted(seed):
    for study, report in patient(seed):
        present = {finding.name for finding in study.present}
        for name in set(DEVELOPING) - present:
            for said in sentences(f"{report.findings}  {report.impression}"):
                if mentions(said, name):
                    assert NEGATION.search(said), (name, said)


@given(SEEDS)
def test_present_findings_are_not_denied_altogether(seed):
    for study, report in patient(seed):
        for finding in study.present:
            for said in sentences(f"{report.findings}  {report.impression}"):
                if denies(said) and mentions(said, finding.name):
                    assert finding.side != "bilateral"
                    other = "left" if finding.side == "right" else "right"
                    assert re.search(rf"no {other} (pleural effusion|pneumothorax)", said.lower()), said


@given(SEEDS)
def test_labels_follow_the_truth(seed):
    for study, report in patient(seed):
        severity = {finding.name: finding.severity for finding in study.present}
        for name in DEVELOPING:
            value = report.labels.get(CHEXPERT_NAME[name])
            assert (value in (1.0, -1.0)) if name in severity else (value in (0.0, None))
        assert set(report.labels) <= set(CHEXPERT_LABELS)
        # As in the originals, the labels are those of the impression, and without one of the findings.
        positive = [label for label, value in report.labels.items() if value != 0 and label != "Support Devices"]
        assert ("No Finding" in report.labels) == (positive in ([], ["No Finding"]))


@given(SEEDS)
def test_a_first_report_compares_with_nothing(seed):
    study, report = patient(seed)[0]
    assert not study.follow_up
    said = f"{report.findings}  {report.impression}".lower()
    assert not re.search(r"___|prior|previous|interval|since|unchanged|\bnew\b|again|compar", said)


@given(SEEDS)
def test_the_layout_is_that_of_the_originals(seed):
    for _, report in patient(seed):
        lines = report.text.split("\n")
        assert f"{'':33}FINAL REPORT" in lines
        assert lines[-1] == ""
        assert all(line.startswith(" ") and len(line) <= 80 for line in lines[:-1])
        headers = HEADER.findall(report.text)
        assert len(headers) == len(set(headers))
        body = " ".join(report.text.split())
        for section in (report.findings, report.impression):
            for said in sentences(section):
                assert " ".join(said.split()) in body


def test_sections_are_missing_as_often_as_in_the_originals(many):
    total = len(many)
    headless = [
        r for _, r in many if not re.search(r"\n (FIND|IMP|CONC|CHEST,|PORTABLE CHEST|FINDINGS)[A-Z ,/]*:", r.text)
    ]
    assert 0.03 < len(headless) / total < 0.06
    assert 0.25 < sum(not report.findings for _, report in many) / total < 0.31
    no_impression = sum(not report.impression for _, report in many) - len(headless)
    assert 0.10 < no_impression / total < 0.15
    assert any(re.search(r"\n (FINDINGS AND IMPRESSION|FINDINGS/IMPRESSION):", r.text) for _, r in many)
    assert any("WET READ:" in r.text for _, r in many)
    for header in ("NOTIFICATION:", "CONCLUSION:", "RECOMMENDATION(S):", "CLINICAL HISTORY:", "REFERENCE EXAM:"):
        assert any(f"\n {header}" in r.text for _, r in many), header
    assert any(re.search(r"\n (IMPRESSON|IMPRESION|IMPRSSION|FINDINS|FINDNGS|FINDING):", r.text) for _, r in many)


def test_lengths_are_those_of_the_originals(many):
    words = np.array([len(f"{report.findings} {report.impression}".split()) for _, report in many])
    low, middle, high = np.percentile(words, [5, 50, 95])
    assert low >= 10
    assert 30 <= middle <= 60
    assert high <= 110


def test_a_report_with_only_a_last_paragraph_has_it_after_a_blank_line(many):
    headed = r"\n (FIND|IMP|CONC|CHEST,|PORTABLE CHEST)[A-Z ,/]*:"
    bare = [report for _, report in many if not re.search(headed, report.text)]
    assert bare
    for report in bare:
        last = report.text.rstrip("\n").rsplit("\n \n", 1)[1]
        assert " ".join(last.split()) == " ".join(report.findings.split())


def test_a_positive_mention_overrides_an_uncertain_and_a_negative_one():
    said = [
        Statement("", (("Edema", 0.0), ("Pneumonia", -1.0))),
        Statement("", (("Edema", -1.0), ("Support Devices", 1.0))),
        Statement("", (("Edema", 1.0), ("Pneumonia", 0.0))),
    ]
    assert collect_labels(said) == {"Edema": 1.0, "Pneumonia": -1.0, "Support Devices": 1.0}
    assert collect_labels([Statement("", (("Support Devices", 1.0), ("Edema", 0.0)))])["No Finding"] == 1.0


def test_the_vocabulary_is_wide(many):
    said = " ".join(f"{report.findings} {report.impression}" for _, report in many[:1000])
    assert len(set(re.findall(r"[a-z]+(?:[-'][a-z]+)*", said.lower()))) > 850


def test_nothing_is_called_normal_beside_a_large_heart(many):
    normal = 0
    for _, report in many:
        told = sentences(report.impression)
        normal += any(sentence(said) == f"{text.strip()}." for text in told for said in ALL_NORMAL)
        if report.labels.get("Cardiomegaly") == 1.0:
            assert not any(sentence(said) == f"{text.strip()}." for text in told for said in ALL_NORMAL)
    assert normal > 20


def test_uncertain_labels_are_about_as_frequent_as_in_the_originals(many):
    """Share of uncertain among positive and uncertain labels; those of MIMIC-CXR-JPG as in docs/phantom.md."""
    for name, published in (("Edema", 0.33), ("Consolidation", 0.29), ("Pneumonia", 0.52), ("Pleural Effusion", 0.10)):
        values = [report.labels.get(name, 0.0) for _, report in many]
        uncertain, certain = values.count(-1.0), values.count(1.0)
        assert abs(uncertain / (uncertain + certain) - published) < 0.13, name


@given(SEEDS)
def test_the_heart_is_called_what_it_is(seed):
    rng = np.random.default_rng(seed)
    anatomy = replace(sample_anatomy(rng), heart=float(rng.uniform(0.8, 1.3)))
    background = sample_background(rng, anatomy)
    assert background.cardiomegaly == heart_severity(anatomy.heart)
    large = float(anatomy.heart > CARDIOMEGALY_FROM)
    for study in sample_trajectory(rng):
        value = write_report(study, background, rng).labels.get("Cardiomegaly", large)
        assert value == large or (value == -1 and abs(anatomy.heart - CARDIOMEGALY_FROM) < 0.03)


def test_severity_of_cardiomegaly_is_in_the_words():
    rng = np.random.default_rng(0)
    for heart, words, foreign in (
        (1.12, r"mild|minimal", r"moderate|severe|marked"),
        (1.29, r"severe|marked", r"mild|moder"),
    ):
        background = sample_background(rng, replace(sample_anatomy(rng), heart=heart))
        said = " ".join(heart_statement(background, True, rng).text for _ in range(100)).lower()
        assert re.search(words, said)
        assert not re.search(foreign, said)


def test_devices_are_told_as_they_are(many):
    device = re.compile(r"\b(tubes?|catheter|lines?|PICC|pacemaker|pacer|Mediport|AICD|thoracostomy)\b")
    told = 0
    for study, report in many:
        if report.labels.get("Support Devices") == 1.0:
            assert any(device.present for device in study.devices)
            told += 1
        if not study.devices:
            text = re.sub("pleural line|Kerley B lines", "", f"{report.findings}  {report.impression}")
            said = [s for s in sentences(text) if device.search(s)]
            assert all(s.strip().startswith("No indwelling") for s in said)
    assert told > 100


def test_true_sentences_are_repeated_word_for_word(many):
    """A later report repeats sentences of the findings section, but never one that is no longer true."""
    repeated = follow_ups = 0
    for (_, before), (study, now) in pairwise(many):
        if study.follow_up and before.told and now.findings:
            follow_ups += 1
            same = {said.text for said in before.told} & {said.text for said in now.told}
            repeated += bool(same)
    assert repeated / follow_ups > 0.5


def test_a_sentence_that_is_no_longer_true_is_not_repeated():
    rng = np.random.default_rng(1)
    background = sample_background(rng, sample_anatomy(rng))
    first = study_with(None, 0.4)
    earlier = next(r for r in (write_report(first, background, rng) for _ in range(99)) if r.findings and r.impression)
    old = {said.text for said in earlier.told if said.fact[0] == "present"}
    assert old
    for step, severity, true in (("worsening", 0.9, False), ("resolved", 0.0, False), ("stable", 0.42, True)):
        reports = [write_report(study_with(step, severity), background, rng, earlier) for _ in range(60)]
        assert any(text in report.findings for report in reports for text in old) == true


def study_with(step: str | None, severity: float) -> StudyTruth:
    finding = Finding("pleural_effusion", "right", "lower", severity, 1)
    state = FindingState(finding, step, 0.0 if step is None else severity - 0.4)
    return StudyTruth(datetime(2150, 1, 1), ("AP",), True, (state,), follow_up=step is not None)
