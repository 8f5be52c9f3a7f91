"""Zero-shot classification against scikit-learn, and prompt files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import zero_shot as module
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, STRICT, Outcome, Question
from medst.evaluate.zero_shot import balanced_threshold, calibration_error, perfect_calibration, zero_shot


def values(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(score.metric, score.finding): score.value for score in outcome.scores}


def test_zero_shot_as_released_agrees_with_scikit_learn(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    label, score = cohort.labelled["label"].to_numpy()[36:], (seen[:, 0] - seen[:, 1])[36:]
    found = values(zero_shot(subject, cohort, PAPER))
    assert found["accuracy", "all"] == pytest.approx(accuracy_score(label, score > 0))
    assert found["f1", "all"] == pytest.approx(f1_score(label, score > 0))
    assert found["auroc of decisions", "all"] == pytest.approx(roc_auc_score(label, score > 0))
    assert found["auroc", "all"] == pytest.approx(roc_auc_score(label, score))


def test_strict_chooses_the_threshold_on_the_validation_split(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    label, score = cohort.labelled["label"].to_numpy(), (seen[:, 0] - seen[:, 1]).astype(np.float64)
    outcome = zero_shot(subject, cohort, STRICT)
    found = values(outcome)
    assert found["average precision", "all"] == pytest.approx(average_precision_score(label[36:], score[36:]))
    valid, valid_score = label[24:36], score[24:36]
    levels = np.sort(valid_score)
    every = [levels[0] - 1, *(levels[:-1] + levels[1:]) / 2, levels[-1] + 1]
    balanced = [np.mean([((valid_score > t) == valid)[valid == one].mean() for one in (0, 1)]) for t in every]
    best = {t for t, value in zip(every, balanced, strict=True) if value == max(balanced)}
    assert found["accuracy", "all"] == pytest.approx(accuracy_score(label[36:], score[36:] > min(best)))
    assert sum(rows for _, _, rows in outcome.calibration["all"]) == 12
    assert all(s.interval is not None for s in outcome.scores if s.metric != "calibration error")
    # What the test labels are changes no decision.
    flipped = cohort.labelled.with_columns(
        label=pl.when(pl.col("split") == "test").then(1 - pl.col("label")).otherwise("label")
    )
    other = values(zero_shot(subject, replace(cohort, labelled=flipped), STRICT))
    assert other["accuracy", "all"] == pytest.approx(1 - found["accuracy", "all"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=20))
def test_the_balanced_threshold_is_the_best_of_all(pairs: list[tuple[int, bool]]) -> None:
    margin = np.array([value / 8 for value, _ in pairs] + [0.125, 0.25], dtype=np.float32)
    positive = np.array([label for _, label in pairs] + [True, False])
    every = np.arange(-0.6875, 0.7, 0.125)  # below, between and above all values that can occur
    reached = [balanced_accuracy_score(positive, margin > threshold) for threshold in every]
    found = balanced_threshold(margin, positive)
    assert balanced_accuracy_score(positive, margin > found) == pytest.approx(max(reached))
    assert not (margin[margin < found].max(initial=-9) > every[int(np.argmax(np.isclose(reached, max(reached))))])


def test_a_rare_class_weighs_exactly_as_much_as_the_other() -> None:
    # 4 of 13 negatives are fewer than 3 of 9 positives. Weights rounded to whole numbers (13 / 9 to 1) chose 2.5.
    margin = np.concatenate([np.repeat([0.0, 2.0], (9, 4)), np.repeat([1.0, 3.0], (3, 6))])
    positive = np.repeat([False, True], (13, 9))
    assert balanced_threshold(margin, positive) == 0.5
    with pytest.raises(ValueError, match="both classes"):
        balanced_threshold(margin[:13], positive[:13])


def test_a_perfect_model_has_the_calibration_error_that_its_rows_give_it() -> None:
    # One group of 10,000 rows at one half: the share of positives is normal with standard deviation 0.005.
    mean, highest = perfect_calibration(np.full(10_000, 0.5), bins=1)
    assert mean == pytest.approx(np.sqrt(2 / np.pi) * 0.005, rel=0.1)
    assert highest == pytest.approx(1.96 * 0.005, rel=0.1)
    # In ten groups of 40 it is ten times as large as in all rows at once, whatever the labels are.
    probability = np.linspace(0.05, 0.95, 400)
    errors = [
        calibration_error(probability, np.random.default_rng(seed).random(400) < probability) for seed in range(300)
    ]
    mean, highest = perfect_calibration(probability)
    assert mean == pytest.approx(np.mean(errors), rel=0.05)
    assert np.mean(np.array(errors) > highest) == pytest.approx(0.05, abs=0.035)


def test_the_calibration_error_stands_beside_that_of_a_perfect_model(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    outcome = zero_shot(subject, cohort, STRICT)
    (score,) = [score for score in outcome.scores if score.metric == "calibration error"]
    mean, highest = outcome.perfect_calibration["all"]
    by_hand = sum(rows * abs(said - true) for said, true, rows in outcome.calibration["all"]) / 12
    assert score.value == pytest.approx(by_hand, abs=1e-5)
    assert score.chance == pytest.approx(mean, abs=1e-6)
    assert 0 < mean < highest < 1


def test_prompts_come_from_a_file_or_are_refused(subject: ModelSubject, cohort: Cohort, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"normal": ["clear lungs"], "Pneumonia": ["an opacity", "pneumonia"]}))
    assert len(values(zero_shot(subject, cohort, Question(protocol="paper", prompts=file)))) == 4
    for content, said in (
        ('{"normal": ["x"]}', "no prompts for Pneumonia"),
        ('{"edema": ["x"]}', "no class edema"),
        ('{"normal": ["x"], "Normal": ["z"], "Pneumonia": ["y"]}', "prompts for normal twice"),
        ('{"Pneumonia": {"positive": ["x"], "negative": ["y"]}, "normal": ["z"]}', "prompts for normal twice"),
    ):
        file.write_text(content)
        with pytest.raises(MedstError, match=said):
            zero_shot(subject, cohort, Question(protocol="paper", prompts=file))
    three = replace(cohort, meta=cohort.meta | {"classes": ["a", "b", "c"]})
    with pytest.raises(MedstError, match="--prompts FILE"):
        zero_shot(subject, three)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b'["normal"]', "it is a list, not a dict"),
        (b"{}", "names no class"),
        (b'{"normal": "x"}', "not a list of sentences"),
        (b'{"normal": []}', "not a list of sentences"),
        (b'{"normal": ["x", 3]}', "not a list of sentences"),
        (b'{"normal": ["\\ud800"]}', "not a list of sentences"),
        (b'{"normal": {"positive": ["x"]}}', "'normal' has positive;"),
        (b'{"normal": {"positive": ["x"], "negative": null}}', "not a list of sentences"),
        (None, "no such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
    ],
)
def test_a_bad_prompts_file_ends_every_evaluation_in_a_sentence(
    content: bytes | str | None, said: str, model_folder: Path, benchmark_cohort: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.json"
    if content == "folder":
        file.mkdir()
    elif content == "pipe":
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(MedstError, match=said):
        evaluate(model_folder, benchmark_cohort, tmp_path / "results.json", question=Question(prompts=file))
    assert not (tmp_path / "results.json").exists()


def test_a_class_that_is_missing_is_named(subject: ModelSubject, cohort: Cohort) -> None:
    without = cohort.labelled.filter((pl.col("split") != "test") | (pl.col("label") == 0))
    with pytest.raises(MedstError, match="split 'test' has no Pneumonia"):
        zero_shot(subject, replace(cohort, labelled=without))


def test_several_classes_are_decided_by_the_highest_score(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.random.default_rng(5).integers(0, 3, 48)
    label[36:39] = (0, 1, 2)
    three = replace(cohort, labelled=cohort.labelled.with_columns(label=pl.Series(label)))
    three = replace(three, meta=cohort.meta | {"classes": ["a", "b", "c"]})
    monkeypatch.setattr(module, "prompts_for", lambda *_: {})
    monkeypatch.setattr(ModelSubject, "prompts", lambda *_: np.eye(8, dtype=np.float32)[:3])
    outcome = zero_shot(subject, three)
    found, score = values(outcome), seen[36:, :3]
    assert found["accuracy", "all"] == pytest.approx(accuracy_score(label[36:], score.argmax(1)))
    assert found["macro accuracy", "all"] == pytest.approx(balanced_accuracy_score(label[36:], score.argmax(1)))
    margin = score[:, 1] - np.maximum(score[:, 0], score[:, 2])
    assert found["auroc", "b"] == pytest.approx(roc_auc_score(label[36:] == 1, margin))
    assert np.trace(outcome.confusion["all"]) == (score.argmax(1) == label[36:]).sum()
