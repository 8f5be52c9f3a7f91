"""Zero-shot and probes on a cohort of two classes, and the inputs that they refuse."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from medst.cohort.store import Cohort, open_cohort
from medst.encode import ImageFeatures
from medst.errors import MedstError
from medst.evaluate import probe as probing
from medst.evaluate import zero_shot as zeroing
from medst.evaluate.classification import Classification, Split
from medst.evaluate.probe import draw, probe
from medst.evaluate.runner import evaluate
from medst.evaluate.task import Outcome, Question
from medst.evaluate.zero_shot import zero_shot
from medst.use import Model

STRICT = Question(protocol="strict")
SPLITS = ["train"] * 24 + ["valid"] * 12 + ["test"] * 12


@pytest.fixture
def cohort(write_cohort: Callable[..., Path]) -> Cohort:
    table = pl.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(48)],
            "image_id": [f"i{i}" for i in range(48)],
            "image": list(range(48)),
            "split": SPLITS,
            "label": np.random.default_rng(4).integers(0, 2, 48),
        }
    )
    path = write_cohort("labelled", "rsna", labelled=table)
    meta = json.loads((path / "cohort.json").read_text())
    (path / "cohort.json").write_text(json.dumps(meta | {"classes": ["normal", "Pneumonia"]}))
    return open_cohort(path)


@pytest.fixture
def seen(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Replace the model: features that predict the label, with some errors."""
    rng = np.random.default_rng(1)
    world = rng.normal(size=(48, 8)).astype(np.float32)
    world[:, 0] += 1.6 * (2 * cohort.labelled["label"].to_numpy() - 1)
    for module in (zeroing, probing):
        monkeypatch.setattr(
            module, "image_features", lambda loaded, cohort, rows, **_: ImageFeatures(*[world[np.asarray(rows)]] * 3)
        )
    monkeypatch.setattr(zeroing, "embed_prompts", lambda loaded, prompts: np.eye(8, dtype=np.float32)[[1, 0]])
    return world


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
    for task in (zero_shot, probe):
        with pytest.raises(MedstError, match="split 'test' has no Pneumonia"):
            task(loaded, replace(cohort, labelled=without))


def test_patients_of_the_test_split_in_train_are_named_and_refused_in_strict(
    loaded: Model, cohort: Cohort, seen: np.ndarray
) -> None:
    ids = cohort.labelled["patient_id"].to_list()
    ids[40] = ids[3]
    leaky = replace(cohort, labelled=cohort.labelled.with_columns(patient_id=pl.Series(ids)))
    assert "1 patients of the test split are also in train" in probe(loaded, leaky).warnings[0]
    with pytest.raises(MedstError, match=r"\(p3\); protocol strict does not measure that"):
        probe(loaded, leaky, STRICT)


def test_a_probe_learns_what_can_be_read_and_nothing_from_permuted_labels(
    loaded: Model, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LINEAR", replace(probing.LINEAR, lr=0.05))  # 24 rows are one step an epoch
    question = replace(STRICT, fractions=(1.0,))
    assert values(probe(loaded, cohort, question))["auroc", "100 %"] > 0.7
    areas = []
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(cohort.labelled["label"].to_numpy())
        permuted = replace(cohort, labelled=cohort.labelled.with_columns(label=labels))
        areas.append(values(probe(loaded, permuted, replace(question, bootstrap=False)))["auroc", "100 %"])
    assert 0.35 < np.mean(areas) < 0.65


def test_the_rows_of_a_share_are_the_released_ones() -> None:
    golden = json.loads((Path(__file__).parents[1] / "data" / "golden" / "covidx_subsets.json").read_text())
    for share, expected in golden["drawn"].items():
        rows = draw(len(golden["train"]), float(share), 42)
        assert [golden["train"][row] for row in rows] == expected


def test_a_share_with_one_class_is_left_out_by_name(loaded: Model, cohort: Cohort, seen: np.ndarray) -> None:
    outcome = probe(loaded, cohort, Question(fractions=(0.05, 1.0)))
    assert [left.finding for left in outcome.left_out] == ["5 %"]
    assert {score.finding for score in outcome.scores} == {"100 %"}
    assert outcome.train_rows == {"100 %": 24}


def test_a_share_with_one_row_of_a_class_says_how_many_rows_suffice(
    loaded: Model, cohort: Cohort, seen: np.ndarray
) -> None:
    label = cohort.labelled["label"].to_numpy()[:24]
    counts = {size: np.bincount(label[draw(24, size / 24, 42)], minlength=2) for size in range(25)}
    enough = min(size for size, held in counts.items() if held.min() >= 2)
    outcome = probe(loaded, cohort, Question(fractions=((enough - 1) / 24,)))
    assert not outcome.scores
    (left,) = outcome.left_out
    normal, pneumonia = counts[enough - 1]
    said = f"{enough - 1} of 24 training rows hold {normal} normal, {pneumonia} Pneumonia; 2 of each are needed: "
    assert left.reason.startswith(said + f"{enough} rows would suffice, --fractions ")
    advised = float(left.reason.rpartition(" ")[2])
    assert probe(loaded, cohort, Question(fractions=(advised,))).train_rows == {f"{100 * advised:g} %": enough}


def test_a_label_with_too_few_drawn_rows_is_left_out_and_so_is_the_mean(
    loaded: Model, cohort: Cohort, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = np.array([[1, 1], [0, 0]] * 20, dtype=np.float32)
    target[:, 1] = 0
    target[draw(40, 1.0, 42)[[0, 12, 30]], 1] = 1
    split = Split(np.arange(40), target, np.arange(40))
    data = Classification(["often", "seldom"], True, dict.fromkeys(("train", "valid", "test"), split), {})
    lacking = probing._lacking(data, 0.25, (42,))
    assert lacking == {
        "25 % seldom": "10 of 40 training rows hold 1 positive, 9 negative; 2 of each are needed: "
        "13 rows would suffice, --fractions 0.325"
    }
    monkeypatch.setattr(probing, "read_classification", lambda _: data)
    few = probe(loaded, cohort, Question(fractions=(0.25,)))
    assert [score.finding for score in few.scores] == ["25 % often"]
    assert [left.finding for left in few.left_out] == ["25 % seldom", "25 %"]
    enough = probe(loaded, cohort, Question(fractions=(0.325,)))
    assert [score.finding for score in enough.scores] == ["32.5 %", "32.5 % often", "32.5 % seldom"]
    assert not enough.left_out


def test_early_stopping_keeps_the_best_weights() -> None:
    layer = torch.nn.Linear(1, 2)
    x, y = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    plan = probing.Plan(lr=0.5, weight_decay=0.0, epochs=60, batch=8, patience=3)
    valid = torch.randn(20, 1, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 2
    found: list[float] = []

    def valid_logits() -> torch.Tensor:
        logits = layer(valid[0])
        found.append(probing.loss(logits, valid[1]).item())
        return logits

    best = probing.train(layer, lambda rows: layer(x[rows]), valid_logits, (y, valid[1]), plan, torch.Generator())
    assert len(found) == best + 3
    assert min(found) == found[best - 1]
    assert probing.loss(layer(valid[0]), valid[1]).item() == pytest.approx(found[best - 1])


def test_a_probe_whose_validation_loss_is_never_finite_is_refused(
    loaded: Model, cohort: Cohort, seen: np.ndarray
) -> None:
    seen[24:36] = np.nan
    with pytest.raises(MedstError, match="validation loss is nan from the first epoch on"):
        probe(loaded, cohort, Question(fractions=(1.0,)))


def test_a_probe_that_diverges_keeps_the_best_epoch_before() -> None:
    layer, given = torch.nn.Linear(1, 2), iter([1.0, 0.5, float("nan"), float("nan")])
    y = torch.tensor([0, 1])
    plan = probing.Plan(lr=0.5, weight_decay=0.0, epochs=60, batch=8, patience=2)
    best = probing.train(
        layer, lambda rows: layer(torch.ones(len(rows), 1)), lambda: next(given) * torch.tensor([[1.0, -1], [1, -1]]),
        (y, torch.tensor([1, 1])), plan, torch.Generator(),
    )  # fmt: skip
    assert best == 2


def test_finetuning_trains_the_encoder_and_leaves_the_model_as_it_was(loaded: Model, cohort: Cohort) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    outcome = probe(loaded, cohort, Question(fractions=(1.0,), finetune=True))
    assert 0 <= values(outcome)["auroc", "100 %"] <= 1
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_the_page_on_results_json_has_a_line_for_every_key(
    cohort: Cohort, model_folder: Path, benchmark_cohort: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    named = [set(re.findall(r"^\|.*?\|", part, re.MULTILINE)) for part in page.split("\n## ")[1:]]
    head, rows, details = ({key for cell in cells for key in re.findall(r"`(\w+)`", cell)} for cells in named)
    question = Question(protocol="strict", fractions=(1.0,), bootstrap=False)
    found = evaluate(model_folder, [cohort.path, benchmark_cohort], None, question=question, baseline_seeds=(0,))
    assert {row["task"] for row in found["results"]} == {"zero-shot", "probe", "temporal-image", "temporal-text"}
    assert found.keys() == head
    assert all(row.keys() == rows for row in found["results"])
    assert set().union(*found["details"].values()) == details
