"""The patients that are shown, their changes, and the matrices of the temporal loss against a loop."""

import base64
import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medst.evaluate.results import read_results
from medst.pages import patients as module
from medst.pages.inputs import PatientInputs, read_patient_inputs, read_run
from medst.pages.patients import ShownChange, align, choose, held_out, read_patients


@pytest.fixture(scope="module")
def inputs(made_up: Path) -> PatientInputs:
    run = made_up / "run"
    results = read_results(run / "results.json")
    return read_patient_inputs(read_run(run), results, made_up / "cohort", made_up / "comparisons")


def softmax(values: list[float]) -> np.ndarray:
    powers = np.exp(np.array(values) - max(values))
    return powers / powers.sum()


def test_alignment_is_the_temporal_loss_s_by_a_loop(inputs: PatientInputs) -> None:
    rng = np.random.default_rng(0)
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 5, 16)))
    forward, reverse = align(inputs.model, u.astype(np.float32), v.astype(np.float32))
    for i in range(5):
        expected = softmax([-float(((u[i] - other) ** 2).sum()) / 0.1 for other in v])
        np.testing.assert_allclose(forward[i], expected, atol=1e-5)
        landed = sum(weight * other for weight, other in zip(expected, v, strict=True))
        back = softmax([-float(((landed - other) ** 2).sum()) / 0.1 for other in u])
        np.testing.assert_allclose(reverse[i], back, atol=1e-5)


def test_held_out_pairs_are_one_per_study_of_test_patients_with_two_studies(inputs: PatientInputs) -> None:
    pairs = held_out(inputs.cohort)
    assert set(pairs["split"]) == {"test"}
    assert pairs.group_by("patient_id").len()["len"].min() >= 2
    assert not pairs.select("patient_id", "study_id").is_duplicated().any()
    twice = pl.concat([inputs.cohort.pairs, inputs.cohort.pairs.with_columns(pl.col("frontal") + 1000)])
    assert held_out(replace(inputs.cohort, pairs=twice)).equals(pairs)


def test_a_patient_s_studies_are_in_time_order_and_agree_with_the_results(inputs: PatientInputs) -> None:
    shown, alignment = read_patients(inputs, 3)
    assert len(shown) == 3
    assert alignment is not None
    predictions = {(row["study_id"], row["finding"]): row for row in inputs.predictions}
    pairs = held_out(inputs.cohort)
    for patient in shown:
        of_patient = pairs.filter(patient_id=patient.patient_id)
        assert [study.date for study in patient.studies] == [f"{time:%Y-%m-%d}" for time in of_patient["time"]]
        assert not patient.studies[0].since
        assert not patient.studies[0].changes
        for study_id, study in zip(of_patient["study_id"], patient.studies, strict=True):
            for change in study.changes:
                row = predictions[study_id, change.finding]
                assert (row["progression"], row["predicted"]) == (change.progression, change.predicted)
        assert sum(len(study.changes) for study in patient.studies) == 3 * (len(patient.studies) - 1)


def test_hits_are_counted_over_all_held_out_patients(inputs: PatientInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = held_out(inputs.cohort)
    image, report = np.random.default_rng(0).normal(size=(2, pairs.height, 16)).astype(np.float32)
    monkeypatch.setattr(module, "embed_pairs", lambda loaded, cohort, pairs: (image, report))
    _, alignment = read_patients(inputs, 0)
    right, chance = [], []
    for i, patient in enumerate(pairs["patient_id"]):
        own = [j for j, other in enumerate(pairs["patient_id"]) if other == patient]
        nearest = min(own, key=lambda j: ((image[i] - report[j]) ** 2).sum())
        right.append(nearest == i)
        chance.append(1 / len(own))
    assert alignment is not None
    assert alignment.hits == pytest.approx(np.mean(right))
    assert alignment.chance == pytest.approx(np.mean(chance))
    assert alignment.studies == pairs.height


def test_labels_without_a_prediction_are_shown_without_one(inputs: PatientInputs) -> None:
    silent = replace(inputs, results=inputs.results | {"details": {}})
    shown, _ = read_patients(silent, 2)
    changes = [change for patient in shown for study in patient.studies for change in study.changes]
    assert changes
    assert all(change.predicted is None for change in changes)
    unknown, _ = read_patients(replace(silent, comparisons=None), 2)
    assert not any(study.changes for patient in unknown for study in patient.studies)


def test_without_held_out_patients_none_is_shown(inputs: PatientInputs) -> None:
    alone = replace(inputs.cohort, pairs=inputs.cohort.pairs.filter(split="train"))
    assert read_patients(replace(inputs, cohort=alone), 4) == ([], None)


def test_the_choice_looks_for_variety_and_never_at_predictions() -> None:
    day = datetime(2150, 1, 1)
    pairs = pl.DataFrame(
        [
            {"patient_id": patient, "study_id": f"{patient}{study}", "time": day + timedelta(study), "lateral": None}
            for patient in "abc"
            for study in range(2)
        ],
        schema_overrides={"lateral": pl.Int64},
    )

    def told(said: str) -> dict[str, list[ShownChange]]:
        return {
            "a1": [ShownChange("edema", "stable", said)],
            "b1": [ShownChange("edema", "stable", said), ShownChange("pneumonia", "worsening", said)],
            "c1": [ShownChange("pneumothorax", "improving", said)],
        }

    assert choose(pairs, told("stable"), 2) == ["b", "c"]
    assert choose(pairs, told("worsening"), 3) == ["b", "c", "a"]
    assert choose(pairs, {}, 9) == ["a", "b", "c"]


def test_padding_is_removed(inputs: PatientInputs) -> None:
    sizes = {"height": pl.lit(200, pl.Int32), "width": pl.lit(100, pl.Int32)}
    narrow = replace(inputs.cohort, image_table=inputs.cohort.image_table.with_columns(**sizes))
    shown, _ = read_patients(replace(inputs, cohort=narrow), 1)
    content = base64.b64decode(shown[0].studies[0].frontal.partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (128, 256)
