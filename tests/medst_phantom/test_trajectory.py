from collections import Counter
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medst_phantom.findings import DEVELOPING, FINDINGS, SIDES, ZONES
from medst_phantom.trajectory import (
    CLEAR_STEP,
    FOLLOWED,
    GENERAL,
    LEAST_SEVERITY,
    MAX_STUDIES,
    STABLE_STEP,
    StudyTruth,
    progression_between,
    sample_trajectory,
)

SEEDS = st.integers(0, 2**32 - 1)
CLASS = {"new": "up", "worsening": "up", "improving": "down", "resolved": "down", "stable": "stable"}


def trajectory(seed: int) -> tuple[StudyTruth, ...]:
    return sample_trajectory(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def many() -> list[tuple[StudyTruth, ...]]:
    """Training patients: one in four is followed."""
    return [sample_trajectory(np.random.default_rng(seed), GENERAL if seed % 4 else FOLLOWED) for seed in range(1600)]


@given(SEEDS)
def test_every_step_is_clear_or_stable(seed):
    before: dict[str, float] = {}
    for index, study in enumerate(trajectory(seed)):
        now = {state.finding.name: state.finding.severity for state in study.findings}
        for state in study.findings:
            severity, earlier = state.finding.severity, before.get(state.finding.name, 0.0)
            assert severity == 0 or LEAST_SEVERITY <= severity <= 1
            if index == 0:
                assert state.progression is None
                assert state.change == 0
                continue
            assert state.progression == progression_between(earlier, severity)
            assert state.change == pytest.approx(severity - earlier)
            assert abs(state.change) <= STABLE_STEP or abs(state.change) >= CLEAR_STEP
        # Nothing that was there disappears without being called resolved.
        assert all(now.get(name) is not None for name, severity in before.items() if severity > 0)
        before = now


@given(SEEDS)
def test_a_lesion_keeps_its_place_and_shape(seed):
    lesions: dict[str, set] = {}
    for study in trajectory(seed):
        assert len({state.finding.name for state in study.findings}) == len(study.findings)
        for state in study.findings:
            finding = state.finding
            lesions.setdefault(finding.name, set()).add((finding.side, finding.zone, finding.seed))
    for name, places in lesions.items():
        assert len(places) == 1
        side, zone, _ = places.pop()
        assert name in DEVELOPING
        assert side in SIDES
        assert zone in ZONES
        if name == "edema":
            assert (side, zone) == ("bilateral", "mid")
        if name in ("pleural_effusion", "atelectasis"):
            assert zone == "lower"
        if name == "pneumothorax":
            assert side != "bilateral"
            assert zone == "upper"
        if zone == "retrocardiac":
            assert side == "left"


@given(SEEDS)
def test_studies_are_hours_apart_and_have_a_frontal_view(seed):
    studies = trajectory(seed)
    assert 1 <= len(studies) <= MAX_STUDIES
    assert [study.follow_up for study in studies] == [False] + [True] * (len(studies) - 1)
    for before, now in pairwise(studies):
        assert now.time - before.time >= timedelta(hours=6)
    for study in studies:
        assert 2100 <= study.time.year < 2200
        assert study.time.microsecond % 1000 == 0
        assert {"PA", "AP"} & set(study.views)
        if study.portable:
            assert set(study.views) == {"AP"}


def test_progressions_are_about_equally_frequent_for_every_finding(many):
    for name in FINDINGS:
        counts = Counter(
            CLASS[state.progression]
            for studies in many
            for study in studies
            for state in study.findings
            if state.finding.name == name and state.progression
        )
        assert abs(counts["up"] - counts["down"]) < 0.1 * counts.total(), (name, counts)
        assert counts["stable"] > 0.15 * counts.total(), (name, counts)


def test_studies_look_like_the_data_set_they_stand_in_for(many):
    studies = [study for patient in many for study in patient]
    lateral = np.mean([bool({"LATERAL", "LL"} & set(study.views)) for study in studies])
    two = np.mean([sum(view in ("PA", "AP") for view in study.views) == 2 for study in studies])
    frontal = [view for study in studies for view in study.views if view in ("PA", "AP")]
    assert 3.3 < len(studies) / len(many) < 4.0
    assert 0.35 < lateral < 0.5
    assert 0.05 < two < 0.11
    assert 0.54 < frontal.count("AP") / len(frontal) < 0.64
    severities = np.array([finding.severity for study in studies for finding in study.present])
    assert np.percentile(severities, 5) < 0.27
    assert np.percentile(severities, 95) > 0.85


def test_general_patients_have_findings_as_often_as_those_of_mimic_cxr():
    studies = [study for seed in range(1500) for study in sample_trajectory(np.random.default_rng(seed), GENERAL)]
    published = {
        "consolidation": 0.047,
        "edema": 0.119,
        "pleural_effusion": 0.238,
        "pneumonia": 0.073,
        "pneumothorax": 0.045,
        "atelectasis": 0.201,
    }
    for name, share in published.items():
        found = np.mean([name in {finding.name for finding in study.present} for study in studies])
        assert 0.75 * share < found < 1.25 * share, name


def test_setting_and_views_do_not_depend_on_severity(many):
    studies = [study for patient in many for study in patient if study.present]
    worst = [max(finding.severity for finding in study.present) for study in studies]
    assert abs(roc_auc_score([study.portable for study in studies], worst) - 0.5) < 0.03


def test_no_course_starts_twice(many):
    for studies in many:
        for name in FINDINGS:
            steps = [s.progression for study in studies for s in study.findings if s.finding.name == name]
            assert steps.count("new") <= 1
            assert steps.count("resolved") <= 1
