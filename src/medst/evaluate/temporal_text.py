"""Temporal sentence similarity on MS-CXR-T: do two sentences state the same change, or opposite ones?

`accuracy` chooses the threshold on the training folds only. `accuracy at released threshold` (protocol `paper` only)
reproduces a flaw of the released code, to compare with its numbers: it takes the threshold of the fold with the best *test*
accuracy and scores it on all pairs, which is above chance where there is no signal at all.

The sentences name no patient, but pairs may share sentences. Pairs that share one, directly or through others, are a
cluster. Protocol `strict` draws clusters for its intervals and keeps each in one fold.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from medst.cohort.report_text import clean
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.intervals import Ranked, accuracy, scored
from medst.evaluate.subjects import Subject
from medst.evaluate.task import ALL, STRICT, LeftOut, Outcome, Question, Score

CATEGORIES = ("contradiction", "paraphrase")
FOLDS = 10


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has pairs of sentences."""
    return cohort.sentences is not None


def temporal_text(subject: Subject, cohort: Cohort, question: Question = STRICT) -> Outcome:
    """Measure a subject on each subset of sentence pairs and on all of them, by the cosine of a pair's two embeddings.

    Sentences are cleaned like the reports of a cohort, but those of a single word are kept. A subset with fewer than 10
    paraphrases or contradictions is left out by name; under protocol `strict`, so is the accuracy of one with fewer than 10
    clusters that hold either.

    Raises:
        MedstError: the cohort has no sentences, or every subset would be left out.
    """
    table = cohort.require("sentences", "temporal-text needs one made by `medst prepare ms-cxr-t`")
    sides = [[clean(text, fewest_words=1) for text in table[name]] for name in ("sentence_1", "sentence_2")]
    rows = subject.texts(sides[0] + sides[1]).astype(np.float64)
    cosine = (rows[: table.height] * rows[table.height :]).sum(1)
    paraphrase, cluster = table["category"].to_numpy() == "paraphrase", clusters(*sides)
    outcome = Outcome()
    for subset in (*table["subset"].unique().sort().to_list(), ALL):
        among = np.full(table.height, True) if subset == ALL else table["subset"].to_numpy() == subset
        counts = np.bincount(paraphrase[among], minlength=2)
        if counts.min() < FOLDS:
            outcome.left_out.append(LeftOut(subset, FOLDS, _too_few(counts, "pairs")))
        else:
            _measure(outcome, subset, cosine[among], paraphrase[among], cluster[among], question)
    if not outcome.scores:
        raise MedstError(f"{cohort.path}: too few sentences for temporal-text ({outcome.left_out[-1].reason}).")
    return outcome


def clusters(first: Sequence[str], second: Sequence[str]) -> Int64[np.ndarray, " pair"]:
    """Number the clusters of pairs that share sentences: the connected components of the graph of sentences.

    >>> clusters(["a", "a", "d", "e"], ["b", "c", "c", "f"]).tolist()
    [0, 0, 0, 1]
    """
    _, sentence = np.unique([*first, *second], return_inverse=True)
    ends = np.split(sentence, 2)
    graph = coo_array((np.ones(len(first)), ends), shape=(sentence.max() + 1,) * 2)
    component = connected_components(graph, directed=False)[1]
    return np.unique(component[ends[0]], return_inverse=True)[1]


def best_threshold(score: Float[np.ndarray, " pair"], positive: Bool[np.ndarray, " pair"]) -> float:
    """Return the threshold with the best accuracy if scores above it are positive; the lowest of equally good ones.

    It lies half-way between two neighbouring scores, or below or above all of them.

    >>> best_threshold(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]))
    0.5
    """
    levels = np.unique(score)
    thresholds = np.concatenate([[levels[0] - 1], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1]])
    order = np.argsort(score, kind="stable")
    below = np.searchsorted(score[order], thresholds, side="right")
    negatives_below = np.concatenate([[0], np.cumsum(~positive[order])])[below]
    positives_above = positive.sum() - np.concatenate([[0], np.cumsum(positive[order])])[below]
    return float(thresholds[np.argmax(negatives_below + positives_above)])


def thresholded(
    score: Float[np.ndarray, " pair"],
    positive: Bool[np.ndarray, " pair"],
    folds: int = FOLDS,
    cluster: Int64[np.ndarray, " pair"] | None = None,
) -> tuple[Bool[np.ndarray, " pair"], float, float]:
    """Measure the accuracy with thresholds chosen on training folds, and with the released code's threshold.

    Args:
        cluster: pairs with the same number share a fold; None deals out single pairs, as released.

    Returns:
        Whether each pair is right with the threshold of its fold's training folds; the mean accuracy of the test folds; and
        the accuracy on all pairs of the threshold that did best on its test fold.
    """
    thresholds, accuracies, hit = [], [], np.empty(len(score), dtype=bool)
    kind = StratifiedKFold if cluster is None else StratifiedGroupKFold
    for train, test in kind(folds).split(score, positive, cluster):
        if not len(test):  # clusters of very different sizes can leave a fold empty
            continue
        thresholds.append(best_threshold(score[train], positive[train]))
        hit[test] = (score[test] > thresholds[-1]) == positive[test]
        accuracies.append(float(hit[test].mean()))
    released = thresholds[int(np.argmax(accuracies))]
    return hit, float(np.mean(accuracies)), float(((score > released) == positive).mean())


def _measure(
    outcome: Outcome,
    subset: str,
    cosine: Float[np.ndarray, " pair"],
    positive: Bool[np.ndarray, " pair"],
    cluster: Int64[np.ndarray, " pair"],
    question: Question,
) -> None:
    n, majority = len(cosine), float(max(positive.mean(), 1 - positive.mean()))
    strict = question.protocol == "strict"
    outcome.scores.append(scored("auroc", subset, [Ranked(positive, cosine).auroc], cluster, 0.5, question))
    counts = np.array([len(np.unique(cluster[positive == one])) for one in (False, True)])
    if strict and counts.min() < FOLDS:
        outcome.left_out.append(LeftOut(subset, FOLDS, _too_few(counts, "clusters of pairs that share sentences")))
        return
    hit, honest, released = thresholded(cosine, positive, cluster=cluster if strict else None)
    right = [partial(accuracy, hit)]
    outcome.scores.append(
        scored("accuracy", subset, right, cluster, majority, question, values=None if strict else [honest], folds=FOLDS)
    )
    if not strict:
        outcome.scores.append(Score("accuracy at released threshold", subset, released, None, n, majority, FOLDS))


def _too_few(counts: np.ndarray, of: str) -> str:
    held = ", ".join(f"{count} {name}s" for name, count in zip(CATEGORIES, counts, strict=True))
    if of != "pairs":
        held = ", ".join(f"{count} with {name}s" for name, count in zip(CATEGORIES, counts, strict=True))
    return f"{FOLDS} folds need {FOLDS} {of} of each category, it has {held}"
