"""Thresholds against brute force, the flaw of the released one on noise, and the texts given to the encoder."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import intervals
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, Question
from medst.evaluate.temporal_text import best_threshold, clusters, temporal_text, thresholded


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=20))
def test_the_best_threshold_is_the_best_of_all(pairs: list[tuple[int, bool]]) -> None:
    score = np.array([value / 8 for value, _ in pairs])
    positive = np.array([label for _, label in pairs])
    accuracy = ((score > best_threshold(score, positive)) == positive).mean()
    every = [((score > threshold) == positive).mean() for threshold in np.arange(-1.03, 1.1, 0.05)]
    assert accuracy == max(every)


def test_both_accuracies_match_a_calculation_by_hand() -> None:
    # Two folds of four in order: {-.2 -, .4 -, .1 +, .9 +} and {0 -, .1 -, .6 +, .8 +}. The second sets the threshold
    # .35 for the first, which gets 2 of 4 right (.4 and .1 are wrong). The first sets -.05 (3 of 4 right) for the
    # second, which gets 2 of 4. Neither test fold is better, so the first threshold, .35, is scored on all: 6 of 8.
    score = np.array([-0.2, 0.4, 0.0, 0.1, 0.1, 0.9, 0.6, 0.8])
    positive = np.array([False, False, False, False, True, True, True, True])
    hit, honest, released = thresholded(score, positive, folds=2)
    assert hit.tolist() == [True, False, False, False, False, True, True, True]
    assert (honest, released) == (0.5, 0.75)


def test_without_signal_the_released_threshold_is_above_chance_and_the_honest_one_is_not() -> None:
    rng = np.random.default_rng(0)
    of_noise = [thresholded(rng.normal(size=200), np.arange(200) % 2 == 0) for _ in range(60)]
    honest, released = np.array([accuracies for _, *accuracies in of_noise]).T
    assert released.mean() > 0.52
    assert (released > 0.5).mean() > 0.85
    assert 0.46 < honest.mean() < 0.52


def test_identical_embeddings_give_an_area_of_one_half(
    subject: ModelSubject, benchmark: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = np.random.default_rng(0).normal(size=8).astype(np.float32)
    monkeypatch.setattr(ModelSubject, "texts", lambda self, texts: np.tile(same, (len(texts), 1)))
    scores = {score.key: score for score in temporal_text(subject, benchmark, PAPER).scores}
    assert scores["auroc", "all", None].value == 0.5


def test_the_area_is_that_of_the_cosine_with_paraphrases_on_top(
    subject: ModelSubject, benchmark: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(2 * benchmark.sentences.height, 8)).astype(np.float32)
    monkeypatch.setattr(ModelSubject, "texts", lambda self, texts: rows)
    scores = {score.key: score for score in temporal_text(subject, benchmark, PAPER).scores}
    first, second = np.split(rows.astype(np.float64), 2)
    for subset in ("RadGraph", "swaps", "all"):
        among = [subset in ("all", name) for name in benchmark.sentences["subset"]]
        expected = roc_auc_score(
            benchmark.sentences["category"].to_numpy()[among] == "paraphrase", (first * second).sum(1)[among]
        )
        assert scores["auroc", subset, None].value == pytest.approx(expected)
        assert scores["auroc", subset, None].n == sum(among)


def test_sentences_are_cleaned_as_reports_are_but_single_words_stay(
    subject: ModelSubject, benchmark: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def spy(self: ModelSubject, texts: list[str]) -> np.ndarray:
        given.extend(texts)
        return np.ones((len(texts), 8), dtype=np.float32)

    monkeypatch.setattr(ModelSubject, "texts", spy)
    texts = benchmark.sentences.with_columns(sentence_1=pl.lit("Edema. LARGER\neffusion, 2. Stable!"))
    temporal_text(subject, replace(benchmark, sentences=texts))
    assert given[0] == "edema larger effusion stable"
    assert len(given) == 2 * texts.height


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefghijkl")), min_size=1, max_size=12))
def test_clusters_are_those_of_a_loop(pairs: list[tuple[str, str]]) -> None:
    found = clusters([one for one, _ in pairs], [other for _, other in pairs])
    by_hand = list(range(len(pairs)))
    for _ in pairs:
        for i, one in enumerate(pairs):
            for j, other in enumerate(pairs):
                if set(one) & set(other):
                    by_hand[j] = by_hand[i] = min(by_hand[i], by_hand[j])
    together = [[a == b for b in by_hand] for a in by_hand]
    assert [[a == b for b in found] for a in found] == together
    assert set(found.tolist()) == set(range(len(set(by_hand))))


def in_squares(count: int, rng: np.random.Generator) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Pairs in squares of four that share their sentences, and embeddings whose cosine says more of the square than of
    the category."""
    rows, vectors = [], {}
    for square in range(count):
        own = rng.normal()
        for word, angle in zip(("one", "two", "three", "four"), rng.normal(size=4), strict=True):
            turned = angle + (own if word in ("three", "four") else 0)
            vectors[f"{word} {'x' * (square + 1)}"] = np.array([np.cos(turned), np.sin(turned)], dtype=np.float32)
        for first, second in product(("one", "two"), ("three", "four")):
            category = "paraphrase" if (first == "one") == (second == "three") else "contradiction"
            names = {"sentence_1": f"{first} {'x' * (square + 1)}.", "sentence_2": f"{second} {'x' * (square + 1)}."}
            rows.append(names | {"category": category, "subset": "RadGraph"})
    return pl.DataFrame(rows), vectors


def test_pairs_that_share_sentences_are_drawn_and_dealt_out_together(
    subject: ModelSubject, benchmark: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, vectors = in_squares(30, np.random.default_rng(0))
    monkeypatch.setattr(ModelSubject, "texts", lambda self, texts: np.stack([vectors[text] for text in texts]))
    drawn, dealt = [], []
    monkeypatch.setattr(intervals, "bootstrap", lambda statistic, names: drawn.append(names.tolist()) or (0.0, 1.0))
    real = StratifiedGroupKFold.split

    def split(self: StratifiedGroupKFold, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
        for train, test in real(self, x, y, groups):
            dealt.append((set(groups[train].tolist()), set(groups[test].tolist())))
            yield train, test

    monkeypatch.setattr(StratifiedGroupKFold, "split", split)
    outcome = temporal_text(subject, replace(benchmark, sentences=table), Question())
    assert drawn[0] == np.repeat(np.arange(30), 4).tolist()
    assert len(dealt) == 20  # ten folds for the subset, ten for all
    assert not any(train & test for train, test in dealt)
    assert {score.metric for score in outcome.scores} == {"auroc", "accuracy"}


def test_too_few_clusters_leave_the_accuracy_out_but_not_the_area(subject: ModelSubject, benchmark: Cohort) -> None:
    shared = benchmark.sentences.with_columns(sentence_1=pl.lit("The same sentence for all."))
    outcome = temporal_text(subject, replace(benchmark, sentences=shared), Question())
    assert {score.metric for score in outcome.scores} == {"auroc"}
    assert all(score.interval is None for score in outcome.scores)
    assert "10 clusters of pairs that share sentences of each category, it has 1 with contradictions" in (
        outcome.left_out[0].reason
    )


def test_a_small_subset_is_left_out_by_name(subject: ModelSubject, benchmark: Cohort) -> None:
    table = benchmark.sentences
    few = pl.concat([table.filter(subset="swaps"), table.filter(subset="RadGraph").head(12)])
    outcome = temporal_text(subject, replace(benchmark, sentences=few), PAPER)
    assert [left.finding for left in outcome.left_out] == ["RadGraph"]
    assert {score.finding for score in outcome.scores} == {"swaps", "all"}


def test_too_few_sentences_or_none_are_refused(subject: ModelSubject, benchmark: Cohort) -> None:
    with pytest.raises(MedstError, match="too few sentences"):
        temporal_text(subject, replace(benchmark, sentences=benchmark.sentences.head(6)))
    with pytest.raises(MedstError, match="no sentences: it is a ms-cxr-t cohort"):
        temporal_text(subject, replace(benchmark, sentences=None))
