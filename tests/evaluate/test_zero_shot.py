"""Zero-shot classification against scikit-learn, and prompt files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import zero_shot as module
from medst.evaluate.runner import evaluate
from medst.evaluate.task import Outcome, Question
from medst.evaluate.zero_shot import zero_shot
from medst.use import Model

STRICT = Question(protocol="strict")


def values(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(score.metric, score.finding): score.value for score in outcome.scores}


def test_zero_shot_as_released_agrees_with_scikit_learn(loaded: Model, cohort: Cohort, seen: np.ndarray) -> None:
    label, score = cohort.labelled["label"].to_numpy()[36:], (seen[:, 0] - seen[:, 1])[36:]
    found = values(zero_shot(loaded, cohort))
    assert found["accuracy", "all"] == pytest.approx(accuracy_score(label, score > 0))
    assert found["f1", "all"] == pytest.approx(f1_score(label, score > 0))
    assert found["auroc of decisions", "all"] == pytest.approx(roc_auc_score(label, score > 0))
    assert found["auroc", "all"] == pytest.approx(roc_auc_score(label, score))


def test_strict_chooses_the_threshold_on_the_validation_split(loaded: Model, cohort: Cohort, seen: np.ndarray) -> None:
    label, score = cohort.labelled["label"].to_numpy(), (seen[:, 0] - seen[:, 1]).astype(np.float64)
    outcome = zero_shot(loaded, cohort, STRICT)
    found = values(outcome)
    assert found["average precision", "all"] == pytest.approx(average_precision_score(label[36:], score[36:]))
    valid, valid_score = label[24:36], score[24:36]
    levels = np.sort(valid_score)
    every = [levels[0] - 1, *(levels[:-1] + levels[1:]) / 2, levels[-1] + 1]
    balanced = [np.mean([((valid_score > t) == valid)[valid == one].mean() for one in (0, 1)]) for t in every]
    best = {t for t, value in zip(every, balanced, strict=True) if value == max(balanced)}
    reached = {accuracy_score(label[36:], score[36:] > t) for t in best}
    assert any(found["accuracy", "all"] == pytest.approx(value) for value in reached)
    assert sum(rows for _, _, rows in outcome.calibration["all"]) == 12
    assert all(s.interval is not None for s in outcome.scores if s.metric != "calibration error")
    # What the test labels are changes no decision.
    flipped = cohort.labelled.with_columns(
        label=pl.when(pl.col("split") == "test").then(1 - pl.col("label")).otherwise("label")
    )
    other = values(zero_shot(loaded, replace(cohort, labelled=flipped), STRICT))
    assert other["accuracy", "all"] == pytest.approx(1 - found["accuracy", "all"])


def test_prompts_come_from_a_file_or_are_refused(loaded: Model, cohort: Cohort, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"normal": ["clear lungs"], "Pneumonia": ["an opacity", "pneumonia"]}))
    assert len(values(zero_shot(loaded, cohort, Question(prompts=file)))) == 4
    for content, said in (
        ('{"normal": ["x"]}', "no prompts for Pneumonia"),
        ('{"edema": ["x"]}', "no class edema"),
        ('{"normal": ["x"], "Normal": ["z"], "Pneumonia": ["y"]}', "prompts for normal twice"),
        ('{"Pneumonia": {"positive": ["x"], "negative": ["y"]}, "normal": ["z"]}', "prompts for normal twice"),
    ):
        file.write_text(content)
        with pytest.raises(MedstError, match=said):
            zero_shot(loaded, cohort, Question(prompts=file))
    three = replace(cohort, meta=cohort.meta | {"classes": ["a", "b", "c"]})
    with pytest.raises(MedstError, match="--prompts FILE"):
        zero_shot(loaded, three)


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


def test_a_class_that_is_missing_is_named(loaded: Model, cohort: Cohort) -> None:
    without = cohort.labelled.filter((pl.col("split") != "test") | (pl.col("label") == 0))
    with pytest.raises(MedstError, match="split 'test' has no Pneumonia"):
        zero_shot(loaded, replace(cohort, labelled=without))


def test_several_classes_are_decided_by_the_highest_score(
    loaded: Model, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.random.default_rng(5).integers(0, 3, 48)
    label[36:39] = (0, 1, 2)
    three = replace(cohort, labelled=cohort.labelled.with_columns(label=pl.Series(label)))
    three = replace(three, meta=cohort.meta | {"classes": ["a", "b", "c"]})
    monkeypatch.setattr(module, "prompts_for", lambda *_: {})
    monkeypatch.setattr(module, "embed_prompts", lambda *_: np.eye(8, dtype=np.float32)[:3])
    outcome = zero_shot(loaded, three)
    found, score = values(outcome), seen[36:, :3]
    assert found["accuracy", "all"] == pytest.approx(accuracy_score(label[36:], score.argmax(1)))
    assert found["macro accuracy", "all"] == pytest.approx(balanced_accuracy_score(label[36:], score.argmax(1)))
    margin = score[:, 1] - np.maximum(score[:, 0], score[:, 2])
    assert found["auroc", "b"] == pytest.approx(roc_auc_score(label[36:] == 1, margin))
    assert np.trace(outcome.confusion["all"]) == (score.argmax(1) == label[36:]).sum()
