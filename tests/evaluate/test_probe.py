"""Probes: the drawn rows, what they learn, and what is left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import probe as module
from medst.evaluate.classification import Classification, Split
from medst.evaluate.probe import draw, probe
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, STRICT, Outcome, Question


def values(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(score.metric, score.finding): score.value for score in outcome.scores}


def test_a_class_that_is_missing_is_named(subject: ModelSubject, cohort: Cohort) -> None:
    without = cohort.labelled.filter((pl.col("split") != "test") | (pl.col("label") == 0))
    with pytest.raises(MedstError, match="split 'test' has no Pneumonia"):
        probe(subject, replace(cohort, labelled=without))


def test_patients_of_the_test_split_in_train_are_named_and_refused_in_strict(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    ids = cohort.labelled["patient_id"].to_list()
    ids[40] = ids[3]
    leaky = replace(cohort, labelled=cohort.labelled.with_columns(patient_id=pl.Series(ids)))
    assert "1 patients of the test split are also in train" in probe(subject, leaky, PAPER).warnings[0]
    with pytest.raises(MedstError, match=r"\(p3\); protocol strict does not measure that"):
        probe(subject, leaky, STRICT)


def test_a_probe_learns_what_can_be_read_and_nothing_from_permuted_labels(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINEAR", replace(module.LINEAR, lr=0.05))  # 24 rows are one step an epoch
    question = replace(STRICT, fractions=(1.0,))
    assert values(probe(subject, cohort, question))["auroc", "100 %"] > 0.7
    areas = []
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(cohort.labelled["label"].to_numpy())
        permuted = replace(cohort, labelled=cohort.labelled.with_columns(label=labels))
        areas.append(values(probe(subject, permuted, replace(question, bootstrap=False)))["auroc", "100 %"])
    assert 0.35 < np.mean(areas) < 0.65


def test_the_rows_of_a_share_are_the_released_ones() -> None:
    golden = json.loads((Path(__file__).parents[1] / "data" / "golden" / "covidx_subsets.json").read_text())
    for share, expected in golden["drawn"].items():
        rows = draw(len(golden["train"]), float(share), 42)
        assert [golden["train"][row] for row in rows] == expected


def test_a_share_with_one_class_is_left_out_by_name(subject: ModelSubject, cohort: Cohort, seen: np.ndarray) -> None:
    outcome = probe(subject, cohort, Question(protocol="paper", fractions=(0.05, 1.0)))
    assert [left.finding for left in outcome.left_out] == ["5 %"]
    assert {score.finding for score in outcome.scores} == {"100 %"}
    assert outcome.train_rows == {"100 %": 24}


def test_a_share_with_one_row_of_a_class_says_how_many_rows_suffice(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    label = cohort.labelled["label"].to_numpy()[:24]
    counts = {size: np.bincount(label[draw(24, size / 24, 42)], minlength=2) for size in range(25)}
    enough = min(size for size, held in counts.items() if held.min() >= 2)
    outcome = probe(subject, cohort, Question(protocol="paper", fractions=((enough - 1) / 24,)))
    assert not outcome.scores
    (left,) = outcome.left_out
    normal, pneumonia = counts[enough - 1]
    said = f"{enough - 1} of 24 training rows hold {normal} normal, {pneumonia} Pneumonia; 2 of each are needed: "
    assert left.reason.startswith(said + f"{enough} rows would suffice, --fractions ")
    advised = float(left.reason.rpartition(" ")[2])
    assert probe(subject, cohort, Question(protocol="paper", fractions=(advised,))).train_rows == {
        f"{100 * advised:g} %": enough
    }


def test_a_label_with_too_few_drawn_rows_is_left_out_and_so_is_the_mean(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = np.array([[1, 1], [0, 0]] * 20, dtype=np.float32)
    target[:, 1] = 0
    target[draw(40, 1.0, 42)[[0, 12, 30]], 1] = 1
    split = Split(np.arange(40), target, np.arange(40))
    data = Classification(["often", "seldom"], True, dict.fromkeys(("train", "valid", "test"), split), {})
    lacking = module._lacking(data, 0.25, (42,))
    assert lacking == {
        "25 % seldom": "10 of 40 training rows hold 1 positive, 9 negative; 2 of each are needed: "
        "13 rows would suffice, --fractions 0.325"
    }
    monkeypatch.setattr(module, "read_classification", lambda _: data)
    few = probe(subject, cohort, Question(protocol="paper", fractions=(0.25,)))
    assert [score.finding for score in few.scores] == ["25 % often"]
    assert [left.finding for left in few.left_out] == ["25 % seldom", "25 %"]
    enough = probe(subject, cohort, Question(protocol="paper", fractions=(0.325,)))
    assert [score.finding for score in enough.scores] == ["32.5 %", "32.5 % often", "32.5 % seldom"]
    assert not enough.left_out


def test_early_stopping_keeps_the_best_weights() -> None:
    layer = torch.nn.Linear(1, 2)
    x, y = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    plan = module.Plan(lr=0.5, weight_decay=0.0, epochs=60, batch=8, patience=3)
    valid = torch.randn(20, 1, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 2
    found: list[float] = []

    def valid_logits() -> torch.Tensor:
        logits = layer(valid[0])
        found.append(module.loss(logits, valid[1]).item())
        return logits

    best = module.train(layer, lambda rows: layer(x[rows]), valid_logits, (y, valid[1]), plan, torch.Generator())
    assert len(found) == best + 3
    assert min(found) == found[best - 1]
    assert module.loss(layer(valid[0]), valid[1]).item() == pytest.approx(found[best - 1])


def test_a_probe_whose_validation_loss_is_never_finite_is_refused(
    subject: ModelSubject, cohort: Cohort, seen: np.ndarray
) -> None:
    seen[24:36] = np.nan
    with pytest.raises(MedstError, match="validation loss is nan from the first epoch on"):
        probe(subject, cohort, Question(protocol="paper", fractions=(1.0,)))


def test_a_probe_that_diverges_keeps_the_best_epoch_before() -> None:
    layer, given = torch.nn.Linear(1, 2), iter([1.0, 0.5, float("nan"), float("nan")])
    y = torch.tensor([0, 1])
    plan = module.Plan(lr=0.5, weight_decay=0.0, epochs=60, batch=8, patience=2)
    best = module.train(
        layer, lambda rows: layer(torch.ones(len(rows), 1)), lambda: next(given) * torch.tensor([[1.0, -1], [1, -1]]),
        (y, torch.tensor([1, 1])), plan, torch.Generator(),
    )  # fmt: skip
    assert best == 2


def test_finetuning_trains_the_encoder_and_leaves_the_model_as_it_was(subject: ModelSubject, cohort: Cohort) -> None:
    before = {name: value.clone() for name, value in subject.model.model.state_dict().items()}
    outcome = probe(subject, cohort, Question(protocol="paper", fractions=(1.0,), finetune=True))
    assert 0 <= values(outcome)["auroc", "100 %"] <= 1
    assert all(torch.equal(value, before[name]) for name, value in subject.model.model.state_dict().items())
