"""Ranks against a loop and by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.evaluate import retrieval as module
from medst.evaluate.retrieval import ranks, retrieval
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import Question


def slow_ranks(queries: np.ndarray, targets: np.ndarray, report: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    found = {}
    for query in range(len(queries)):
        own = [target for target in range(len(targets)) if groups[target] == groups[query]]
        if len({report[target] for target in own}) < 2:
            continue
        best = max(queries[query] @ targets[t] for t in own if report[t] == report[query])
        wrong = [t for t in own if report[t] != report[query]]
        found[query] = sum(queries[query] @ targets[t] >= best for t in wrong)
    return found


@pytest.mark.parametrize("block", [3, 1000])
def test_ranks_are_those_of_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(0)
    queries, targets = rng.integers(-3, 4, (2, 40, 3)).astype(np.float32)
    report, groups = rng.integers(0, 20, 40), rng.integers(0, 8, 40)
    rank, _, rows = ranks(queries, targets, report, groups)
    assert dict(zip(rows.tolist(), rank.tolist(), strict=True)) == slow_ranks(queries, targets, report, groups)


def test_random_embeddings_reach_chance() -> None:
    rng = np.random.default_rng(1)
    report, groups = rng.integers(0, 25, 60), np.arange(60) // 30
    hits = []
    for _ in range(200):
        queries, targets = rng.normal(size=(2, 60, 4))
        rank, chance, _ = ranks(queries, targets[report], report, groups, (1, 5))
        hits.append((rank < 5).mean())
    assert 0 < chance[1] < chance[5] < 1
    queries = rng.normal(size=(60, 4))
    by_row = [(ranks(queries, rng.normal(size=(60, 4)), np.arange(60), groups, (5,))[0] < 5).mean() for _ in range(200)]
    expected = ranks(queries, queries, np.arange(60), groups, (5,))[1][5]
    assert expected == pytest.approx(5 / 30)
    assert np.mean(by_row) == pytest.approx(expected, abs=0.02)


def test_a_perfect_model_finds_everything(
    subject: ModelSubject, write_cohort: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pl.DataFrame(
        {
            "patient_id": [f"p{i // 3}" for i in range(12)],
            "study_id": [f"s{i}" for i in range(12)],
            "time": datetime(2150, 1, 1),
            "split": "test",
            "report": [f"report {i}" for i in range(12)],
            "frontal": list(range(12)),
            "lateral": pl.Series([None] * 12, dtype=pl.Int64),
        }
    )
    cohort = open_cohort(write_cohort("perfect", "mimic-cxr", pairs=pairs))
    rows = np.eye(12, dtype=np.float32)
    monkeypatch.setattr(ModelSubject, "texts", lambda self, texts: rows[[int(t.split()[1]) for t in texts]])
    features = type("F", (), {"of": lambda self, tokens: rows, "embedding": rows})()
    monkeypatch.setattr(ModelSubject, "images", lambda *given, **named: features)
    outcome = retrieval(subject, cohort, Question())
    assert {score.value for score in outcome.scores} == {1.0}
    within = [score for score in outcome.scores if score.finding == "within a patient"]
    assert [score.chance for score in within] == pytest.approx([1 / 3, 1 / 3])
    assert all(score.interval == (1.0, 1.0) for score in outcome.scores)
    assert cohort.pairs is not None
    alone = replace(cohort, pairs=cohort.pairs.with_columns(patient_id=pl.col("study_id")))
    (left,) = retrieval(subject, alone).left_out
    assert (left.finding, left.reason) == ("within a patient", "no patient has two different reports")


def test_a_cohort_without_test_pairs_is_refused(subject: ModelSubject, write_cohort: Callable[..., Path]) -> None:
    with pytest.raises(MedstError, match="has no pairs"):
        retrieval(subject, open_cohort(write_cohort("none", "rsna")))
