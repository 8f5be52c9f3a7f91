"""Patients and visitors' own studies."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from medst.app import studies
from medst.app.studies import Desk, read_upload, shrunk
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.use import Picture, Study, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)


def test_the_patients_are_listed_by_studies_and_held_out_first(desk: Desk) -> None:
    assert desk.cohort is not None
    assert desk.cohort.pairs is not None
    splits = [label.rpartition(", ")[2] for label, _ in desk.patients]
    counts = [int(label.split(": ")[1].split()[0]) for label, _ in desk.patients]
    held_out = [split != "train" for split in splits]
    assert held_out == sorted(held_out, reverse=True)
    for group in (True, False):
        here = [n for n, out in zip(counts, held_out, strict=True) if out is group]
        assert here == sorted(here, reverse=True)
    assert len(desk.patients) == desk.cohort.pairs["patient_id"].n_unique()


def test_a_visit_is_the_patient_in_time_order(desk: Desk) -> None:
    assert desk.cohort is not None
    assert desk.cohort.pairs is not None
    patient = desk.patients[0][1]
    visit = desk.visit(f" {patient} ")
    mine = desk.cohort.pairs.filter(patient_id=patient).sort("time")
    assert [study.name for study in visit.studies] == mine["study_id"].to_list()
    assert [study.report for study in visit.studies] == mine["report"].to_list()
    assert [study.lateral is not None for study in visit.studies] == mine["lateral"].is_not_null().to_list()
    expected = desk.model.encode_image(list(visit.studies)).embedding
    torch.testing.assert_close(visit.images.embedding, expected, atol=1e-6, rtol=0)
    assert desk.visit(patient) is visit
    assert visit.name(0) == f"Study 1, {mine['time'][0]:%Y-%m-%d}"


def test_only_the_latest_studies_are_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_STUDIES", 2)
    patient = desk.patients[0][1]
    whole, cut = desk.visit(patient), Desk(desk.model, desk.cohort).visit(patient)
    assert [s.name for s in cut.studies] == [s.name for s in whole.studies][-2:]
    assert cut.left_out == len(whole) - 2


def test_comparing_is_what_the_model_says(desk: Desk) -> None:
    visit = desk.visit(desk.patients[0][1])
    found = desk.compare(visit, 0, 1, "edema")
    expected = desk.model.compare(visit.studies[0], visit.studies[1], "edema")
    assert found.change == pytest.approx(expected.change, abs=1e-5)
    for numbers in ((0, len(visit)), (-1, 0)):
        with pytest.raises(MedstError, match=rf"there is no study .* of {len(visit)}"):
            desk.compare(visit, *numbers, "edema")


def test_similar_studies_are_of_others_and_in_order(desk: Desk) -> None:
    visit = desk.visit(desk.patients[0][1])
    hits = desk.similar(visit, 0, 5)
    assert len(hits) == 5
    assert visit.patient not in {hit.patient for hit in hits}
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    own = desk.visit(hits[0].patient)
    names = [study.name for study in own.studies]
    best = float(own.images.embedding[names.index(hits[0].study)] @ visit.images.embedding[0])
    assert hits[0].similarity == pytest.approx(best, abs=1e-5)
    with pytest.raises(MedstError, match="there is no study 99"):
        desk.similar(visit, 98)


def test_a_visitors_own_studies_go_in_time_order_and_search_the_cohort(desk: Desk) -> None:
    pictures = [read_picture(np.roll(NOISE, shift)) for shift in (0, 50)]
    studies = [Study(p, None, datetime(2150, month, 1)) for p, month in zip(pictures, (5, 2), strict=True)]
    visit = desk.add(desk.add(None, studies[0]), studies[1])
    assert [study.time for study in visit.studies] == [datetime(2150, 2, 1), datetime(2150, 5, 1)]
    expected = desk.model.encode_image([studies[1], studies[0]])
    torch.testing.assert_close(visit.images.embedding, expected.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(visit.images.patches, expected.patches, atol=1e-5, rtol=0)
    assert visit.images.frontal == expected.frontal
    assert len(desk.similar(visit, 0, 3)) == 3
    with pytest.raises(MedstError, match="1 of 3 studies have no time"):
        desk.add(visit, Study(pictures[1]))


def test_a_visitor_has_so_many_studies(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_STUDIES", 2)
    study = Study(read_picture(NOISE))
    visit = desk.add(desk.add(None, study), study)
    assert [s.time for s in visit.studies] == [None, None]
    with pytest.raises(MedstError, match="the page shows 2 studies; start over"):
        desk.add(visit, study)


def test_an_upload_keeps_what_the_model_sees(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    large = cv2.resize(NOISE, (1600, 2400))
    cv2.imwrite(str(file), large)
    picture, date = read_upload(file, "the frontal view")
    assert date is None
    assert picture.original.shape == (768, 512)
    assert np.array_equal(picture.square, read_picture(large).square)
    small = read_picture(NOISE)
    assert shrunk(small, 768) is small
    assert isinstance(picture, Picture)


def test_a_message_names_the_view_and_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "DOE_JANE.png"
    file.write_bytes(b"garbage")
    with pytest.raises(MedstError) as caught:
        read_upload(file, "the frontal view of study 1")
    assert str(caught.value) == "the frontal view of study 1: not a picture."


def test_desks_that_can_not_be(desk: Desk, phantom_comparisons: Path) -> None:
    with pytest.raises(MedstError, match="it is a ms-cxr-t cohort; give one with patients"):
        Desk(desk.model, open_cohort(phantom_comparisons))
    alone = Desk(desk.model, None)
    assert alone.patients == []
    with pytest.raises(MedstError, match="there is no cohort on this page"):
        alone.visit("p1")
    with pytest.raises(MedstError, match=r"there is no patient '\.\./\.\./etc/passwd' in this cohort"):
        desk.visit("../../etc/passwd")
    assert replace(desk.visit(desk.patients[0][1])).patient
