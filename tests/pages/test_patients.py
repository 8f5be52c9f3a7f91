"""Who is shown, what is said of them, and the matrices of the temporal loss by a loop."""

import base64
import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medst.pages import patients as module
from medst.pages.inputs import Evidence, read_evidence
from medst.pages.patients import Verdict, align, choose, data_uri, held_out, timelines


@pytest.fixture(scope="module")
def evidence(made_up: Path) -> Evidence:
    run = made_up / "run"
    return read_evidence(run, run / "results.json", made_up / "cohort", made_up / "comparisons")


def softmax(values: list[float]) -> np.ndarray:
    powers = np.exp(np.array(values) - max(values))
    return powers / powers.sum()


def test_alignment_is_the_temporal_loss_s_by_a_loop(evidence: Evidence) -> None:
    rng = np.random.default_rng(0)
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 5, 16)))
    forward, reverse = align(evidence.loaded, u.astype(np.float32), v.astype(np.float32))
    for i in range(5):
        expected = softmax([-float(((u[i] - other) ** 2).sum()) / 0.1 for other in v])
        np.testing.assert_allclose(forward[i], expected, atol=1e-5)
        landed = sum(weight * other for weight, other in zip(expected, v, strict=True))
        back = softmax([-float(((landed - other) ** 2).sum()) / 0.1 for other in u])
        np.testing.assert_allclose(reverse[i], back, atol=1e-5)


def test_only_test_patients_with_two_studies_one_pair_a_study(evidence: Evidence) -> None:
    pairs = held_out(evidence.cohort)
    assert set(pairs["split"]) == {"test"}
    assert pairs.group_by("patient_id").len()["len"].min() >= 2
    assert not pairs.select("patient_id", "study_id").is_duplicated().any()
    twice = pl.concat([evidence.cohort.pairs, evidence.cohort.pairs.with_columns(pl.col("frontal") + 1000)])
    assert held_out(replace(evidence.cohort, pairs=twice)).equals(pairs)


def test_a_timeline_is_in_time_order_and_says_what_results_say(evidence: Evidence) -> None:
    shown, alignment = timelines(evidence, 3)
    assert len(shown) == 3
    assert alignment is not None
    predictions = {(row["study_id"], row["finding"]): row for row in evidence.progressions["predictions"]}
    pairs = held_out(evidence.cohort)
    for timeline in shown:
        of_patient = pairs.filter(patient_id=timeline.patient_id)
        assert [visit.date for visit in timeline.visits] == [f"{time:%Y-%m-%d}" for time in of_patient["time"]]
        assert not timeline.visits[0].since
        assert not timeline.visits[0].verdicts
        for study, visit in zip(of_patient["study_id"], timeline.visits, strict=True):
            for verdict in visit.verdicts:
                row = predictions[study, verdict.finding]
                assert (row["progression"], row["predicted"]) == (verdict.progression, verdict.predicted)
        assert sum(len(visit.verdicts) for visit in timeline.visits) == 3 * (len(timeline.visits) - 1)


def test_hits_are_counted_over_all_held_out_patients(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = held_out(evidence.cohort)
    image, report = np.random.default_rng(0).normal(size=(2, pairs.height, 16)).astype(np.float32)
    monkeypatch.setattr(module, "embed_pairs", lambda loaded, cohort, pairs: (image, report))
    _, alignment = timelines(evidence, 0)
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


def test_labels_without_a_prediction_are_shown_without_one(evidence: Evidence) -> None:
    silent = replace(evidence, results=evidence.results | {"details": {}})
    shown, _ = timelines(silent, 2)
    verdicts = [verdict for timeline in shown for visit in timeline.visits for verdict in visit.verdicts]
    assert verdicts
    assert all(verdict.predicted is None for verdict in verdicts)
    unknown, _ = timelines(replace(silent, comparisons=None), 2)
    assert not any(visit.verdicts for timeline in unknown for visit in timeline.visits)


def test_no_held_out_patient_gives_no_timeline(evidence: Evidence) -> None:
    alone = replace(evidence.cohort, pairs=evidence.cohort.pairs.filter(split="train"))
    assert timelines(replace(evidence, cohort=alone), 4) == ([], None)


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

    def told(said: str) -> dict[str, list[Verdict]]:
        return {
            "a1": [Verdict("edema", "stable", said)],
            "b1": [Verdict("edema", "stable", said), Verdict("pneumonia", "worsening", said)],
            "c1": [Verdict("pneumothorax", "improving", said)],
        }

    assert choose(pairs, told("stable"), 2) == ["b", "c"]
    assert choose(pairs, told("worsening"), 3) == ["b", "c", "a"]
    assert choose(pairs, {}, 9) == ["a", "b", "c"]


def test_padding_is_cut_off_a_picture() -> None:
    picture = np.zeros((256, 256), dtype=np.uint8)
    picture[:, 40:216] = np.linspace(30, 220, 176, dtype=np.uint8)
    decoded = Image.open(io.BytesIO(base64.b64decode(data_uri(picture).partition(",")[2])))
    assert decoded.size == (176, 256)
    assert np.abs(np.asarray(decoded, dtype=int) - picture[:, 40:216]).max() < 12
    assert Image.open(io.BytesIO(base64.b64decode(data_uri(np.zeros_like(picture)).partition(",")[2]))).size == (
        256,
        256,
    )
