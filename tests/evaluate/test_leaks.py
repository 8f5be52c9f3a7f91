"""Patients of a benchmark who were in pre-training: counted, named, refused, and left out of extra numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import progression_svm
from medst.evaluate.leaks import overlap
from medst.evaluate.runner import evaluate
from medst.evaluate.task import PAPER, Question
from medst.weights.trained_on import note_patients, read_trained_on

STRICT = Question(bootstrap=False)


def trained_on(folder: Path, dataset: str = "mimic-cxr", complete: bool = True, **splits: list[str]) -> None:
    rows = [(patient, split) for split, patients in splits.items() for patient in patients]
    pairs = pl.DataFrame(rows, schema=["patient_id", "split"], orient="row")
    note_patients(folder, Cohort(folder, {"dataset": dataset}, None, None, pairs=pairs), complete=complete)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def one_regularisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit one SVM instead of four."""
    monkeypatch.setattr(progression_svm, "CHOICES_OF_C", (1.0,))


@pytest.fixture
def leaky(model_folder: Path, tmp_path: Path) -> Path:
    """A model that was trained on two of the benchmark's patients."""
    folder = tmp_path / "leaky"
    shutil.copytree(model_folder, folder)
    trained_on(folder, train=["p0", "p3", "someone else"], valid=["p1"])
    return folder


def rows_of(found: dict[str, Any], task: str = "temporal-image") -> dict[tuple[Any, ...], float]:
    return {
        (row["metric"], row["finding"], row["folds"], row["model"]): row["value"]
        for row in found["results"]
        if row["task"] == task
    }


def test_strict_counts_patients_of_pre_training_and_measures_without_them_beside(
    leaky: Path, benchmark: Cohort, benchmark_cohort: Path, write_cohort: Callable[..., Path], model_folder: Path
) -> None:
    found = evaluate(leaky, benchmark_cohort, None, question=STRICT, baseline_seeds=(0,))
    assert benchmark.comparisons is not None
    patients = benchmark.comparisons["patient_id"].n_unique()
    assert found["leaks"] == {
        "ms-cxr-t": {"patients": patients, "in_training": 2, "in_validation": 1, "complete": True}
    }
    assert found["warnings"] == [
        f"benchmark: the model was pre-trained on 2 of the {patients} patients (p0, p3).",
        f"benchmark: 1 of the {patients} patients were in the validation split of pre-training, which chose the best epoch "
        "(p1).",
    ]
    without = write_cohort(
        "without", "ms-cxr-t", comparisons=benchmark.comparisons.filter(~pl.col("patient_id").is_in(["p0", "p3"]))
    )
    rows = rows_of(found)
    beside = {key: value for key, value in rows.items() if key[1].endswith(", unseen patients")}
    expected = rows_of(evaluate(model_folder, without, None, question=STRICT, baselines=False))
    assert {
        (metric, finding.removesuffix(", unseen patients"), folds, model): value
        for (metric, finding, folds, model), value in beside.items()
        if model == "trained"
    } == expected
    for baseline in ("untrained", "thumbnails", "current study alone"):
        assert {key[:3] for key in beside if key[3] == baseline} == {key[:3] for key in beside if key[3] == "trained"}
    whole = evaluate(model_folder, benchmark_cohort, None, question=STRICT, baselines=False)
    trained = {key: value for key, value in rows.items() if key not in beside and key[3] == "trained"}
    assert trained == rows_of(whole)
    assert not any("unseen" in finding for _, finding, *_ in rows_of(found, "temporal-text"))  # which names no patient


def test_paper_warns_and_changes_no_number(leaky: Path, benchmark_cohort: Path, model_folder: Path) -> None:
    found = evaluate(leaky, benchmark_cohort, None, tasks=("temporal-image",), question=PAPER, baselines=False)
    plain = evaluate(model_folder, benchmark_cohort, None, tasks=("temporal-image",), question=PAPER, baselines=False)
    assert found["results"] == plain["results"]
    assert found["leaks"]["ms-cxr-t"]["in_training"] == 2
    assert "pre-trained on 2 of" in found["warnings"][0]
    assert (plain["leaks"], plain["warnings"]) == ({"ms-cxr-t": "unknown"}, [])


def test_unknown_patients_are_reported_as_unknown(model_folder: Path, benchmark_cohort: Path, leaky: Path) -> None:
    found = evaluate(model_folder, benchmark_cohort, None, tasks=("temporal-image",), question=STRICT, baselines=False)
    assert found["leaks"] == {"ms-cxr-t": "unknown"}
    assert found["warnings"] == [
        "benchmark: whether the model was pre-trained on these patients is unknown; it has no trained_on.json."
    ]
    (leaky / "trained_on.json").unlink()
    trained_on(leaky, train=["someone else"], complete=False)
    found = evaluate(leaky, benchmark_cohort, None, tasks=("temporal-image",), question=STRICT, baselines=False)
    assert (found["leaks"]["ms-cxr-t"]["in_training"], found["leaks"]["ms-cxr-t"]["complete"]) == (0, False)
    assert "the checkpoint that training began with was trained on is unknown" in found["warnings"][0]
    assert not any("unseen" in row["finding"] for row in found["results"])


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_refuse_stops_before_anything_is_measured(
    protocol: Any, leaky: Path, model_folder: Path, benchmark_cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    for folder, said in ((leaky, r"pre-trained on 2 of the \d+ patients \(p0, p3\)"), (model_folder, "is unknown")):
        with pytest.raises(MedstError, match=rf"{said}.*--leaks warn"):
            evaluate(folder, benchmark_cohort, out, question=Question(protocol=protocol), leaks="refuse")
    assert not out.exists()
    (leaky / "trained_on.json").unlink()
    trained_on(leaky, train=["someone else"])
    evaluate(leaky, benchmark_cohort, out, tasks=("temporal-text",), baseline_seeds=(), leaks="refuse")
    assert out.exists()


def test_a_benchmark_of_seen_patients_alone_says_that_nothing_is_left(
    model_folder: Path, benchmark: Cohort, benchmark_cohort: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "leaky"
    shutil.copytree(model_folder, folder)
    assert benchmark.comparisons is not None
    trained_on(folder, train=benchmark.comparisons["patient_id"].to_list())
    found = evaluate(folder, benchmark_cohort, None, tasks=("temporal-image",), question=STRICT, baselines=False)
    (left,) = found["left_out"]
    assert left["finding"] == "all, unseen patients"
    assert left["reason"].startswith("benchmark: no finding has enough rows")
    ignored = evaluate(
        folder, benchmark_cohort, None, tasks=("temporal-image",), question=STRICT, baselines=False, leaks="ignore"
    )
    assert ignored["results"] == found["results"]
    assert ignored["left_out"] == []


@pytest.mark.parametrize("table", ["labelled", "pairs"])
def test_only_tested_rows_are_left_out(table: str, tmp_path: Path) -> None:
    content = pl.DataFrame(
        {"patient_id": ["a", "a", "b", "c", "d"], "split": ["train", "test", "test", "valid", "test"]}
    )
    cohort = Cohort(tmp_path, {"dataset": "table"}, None, None, **{table: content})  # type: ignore[arg-type]
    trained_on(tmp_path, "table", train=["a", "c"], valid=["d"])
    found = overlap(read_trained_on(tmp_path), cohort)
    assert found is not None
    assert (found.patients, found.training, found.validation) == (3, ["a"], ["d"])
    unseen = found.unseen()
    assert unseen is not None
    assert getattr(unseen, table).rows() == [("a", "train"), ("b", "test"), ("c", "valid"), ("d", "test")]
