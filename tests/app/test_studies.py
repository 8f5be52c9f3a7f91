"""Patients and visitors' own studies."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from medst.app import studies
from medst.app.studies import Backend
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.use import Study, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)


def test_the_patients_are_listed_by_studies_and_held_out_first(backend: Backend) -> None:
    assert backend.cohort is not None
    assert backend.cohort.pairs is not None
    splits = [label.rpartition(", ")[2] for label, _ in backend.patients]
    counts = [int(label.split(": ")[1].split()[0]) for label, _ in backend.patients]
    held_out = [split != "train" for split in splits]
    assert held_out == sorted(held_out, reverse=True)
    for group in (True, False):
        here = [n for n, out in zip(counts, held_out, strict=True) if out is group]
        assert here == sorted(here, reverse=True)
    assert len(backend.patients) == backend.cohort.pairs["patient_id"].n_unique()


def test_an_open_patient_s_studies_are_in_time_order(backend: Backend) -> None:
    assert backend.cohort is not None
    assert backend.cohort.pairs is not None
    patient = backend.patients[0][1]
    opened = backend.open_patient(f" {patient} ")
    mine = backend.cohort.pairs.filter(patient_id=patient).sort("time")
    assert [study.name for study in opened.studies] == mine["study_id"].to_list()
    assert [study.report for study in opened.studies] == mine["report"].to_list()
    assert [study.lateral is not None for study in opened.studies] == mine["lateral"].is_not_null().to_list()
    expected = backend.model.encode_image(list(opened.studies)).embedding
    torch.testing.assert_close(opened.images.embedding, expected, atol=1e-6, rtol=0)
    assert backend.open_patient(patient) is opened
    assert opened.name(0) == f"Study 1, {mine['time'][0]:%Y-%m-%d}"


def test_only_the_latest_studies_are_shown(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_STUDIES", 2)
    patient = backend.patients[0][1]
    whole, cut = backend.open_patient(patient), Backend(backend.model, backend.cohort).open_patient(patient)
    assert [s.name for s in cut.studies] == [s.name for s in whole.studies][-2:]
    assert cut.left_out == len(whole) - 2


def test_comparing_gives_what_the_model_gives(backend: Backend) -> None:
    opened = backend.open_patient(backend.patients[0][1])
    found = backend.compare(opened, 0, 1, "edema")
    expected = backend.model.compare(opened.studies[0], opened.studies[1], "edema")
    assert found.change == pytest.approx(expected.change, abs=1e-5)
    for numbers in ((0, len(opened)), (-1, 0)):
        with pytest.raises(MedstError, match=rf"study .* is out of range; there are {len(opened)} studies"):
            backend.compare(opened, *numbers, "edema")


def test_similar_studies_are_of_others_and_in_order(backend: Backend) -> None:
    opened = backend.open_patient(backend.patients[0][1])
    hits = backend.similar(opened, 0, 5)
    assert len(hits) == 5
    assert opened.patient not in {hit.patient for hit in hits}
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    own = backend.open_patient(hits[0].patient)
    of_that_day = [study.name == hits[0].study.name for study in own.studies]
    best = (own.images.embedding[of_that_day] @ opened.images.embedding[0]).max()
    assert hits[0].similarity == pytest.approx(float(best), abs=1e-5)
    with pytest.raises(MedstError, match="study 99 is out of range"):
        backend.similar(opened, 98)


def test_a_visitors_own_studies_go_in_time_order_and_search_the_cohort(backend: Backend) -> None:
    pictures = [read_picture(np.roll(NOISE, shift)) for shift in (0, 50)]
    studies = [Study(p, None, datetime(2150, month, 1)) for p, month in zip(pictures, (5, 2), strict=True)]
    opened = backend.add_study(backend.add_study(None, studies[0]), studies[1])
    assert [study.time for study in opened.studies] == [datetime(2150, 2, 1), datetime(2150, 5, 1)]
    expected = backend.model.encode_image([studies[1], studies[0]])
    torch.testing.assert_close(opened.images.embedding, expected.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(opened.images.patches, expected.patches, atol=1e-5, rtol=0)
    assert opened.images.frontal == expected.frontal
    assert len(backend.similar(opened, 0, 3)) == 3
    with pytest.raises(MedstError, match="1 of 3 studies have no time"):
        backend.add_study(opened, Study(pictures[1]))


def test_the_number_of_a_visitors_studies_is_limited(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_STUDIES", 2)
    study = Study(read_picture(NOISE))
    opened = backend.add_study(backend.add_study(None, study), study)
    assert [s.time for s in opened.studies] == [None, None]
    with pytest.raises(MedstError, match="the page shows 2 studies; start over"):
        backend.add_study(opened, study)


def test_impossible_backends_are_refused(backend: Backend, phantom_comparisons: Path) -> None:
    with pytest.raises(MedstError, match="it is a ms-cxr-t cohort; give one with patients"):
        Backend(backend.model, open_cohort(phantom_comparisons))
    alone = Backend(backend.model, None)
    assert alone.patients == []
    with pytest.raises(MedstError, match="there is no cohort on this page"):
        alone.open_patient("p1")
    with pytest.raises(MedstError, match=r"there is no patient '\.\./\.\./etc/passwd' in this cohort"):
        backend.open_patient("../../etc/passwd")
