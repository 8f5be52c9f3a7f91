"""Temporal sentence similarity on MS-CXR-T: do two sentences state the same change, or opposite ones?

`accuracy` chooses the threshold on the training folds only. `accuracy at released threshold` (protocol `paper` only)
reproduces a flaw of the released code, to compare with its numbers: it takes the threshold of the fold with the best *test*
accuracy and scores it on all pairs, which is above chance where there is no signal at all. Intervals come from a bootstrap
over pairs of sentences, because the sentences name no patient.
"""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from sklearn.model_selection import StratifiedKFold

from medst.cohort.report_text import clean
from medst.cohort.store import Cohort
from medst.encode import embed_texts
from medst.errors import MedstError
from medst.evaluate.intervals import Ranked, accuracy, scored
from medst.evaluate.task import ALL, PAPER, LeftOut, Outcome, Question, Score
from medst.use import Model

CATEGORIES = ("contradiction", "paraphrase")
FOLDS = 10


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has pairs of sentences."""
    return cohort.sentences is not None


def temporal_text(model: Model, cohort: Cohort, question: Question = PAPER) -> Outcome:
    """Measure a model on each subset of sentence pairs and on all of them, by the cosine of a pair's two embeddings.

    Sentences are cleaned like the reports of a cohort, but those of a single word are kept. A subset with fewer than 10
    paraphrases or contradictions is left out by name.

    Raises:
        MedstError: the cohort has no sentences, or every subset would be left out.
    """
    table = cohort.require("sentences", "temporal-text needs one made by `medst prepare ms-cxr-t`")
    sides = [[clean(text, fewest_words=1) for text in table[name]] for name in ("sentence_1", "sentence_2")]
    rows = embed_texts(model, sides[0] + sides[1]).astype(np.float64)
    cosine = (rows[: table.height] * rows[table.height :]).sum(1)
    paraphrase = table["category"].to_numpy() == "paraphrase"
    outcome = Outcome()
    for subset in (*table["subset"].unique().sort().to_list(), ALL):
        among = np.full(table.height, True) if subset == ALL else table["subset"].to_numpy() == subset
        counts = np.bincount(paraphrase[among], minlength=2)
        if counts.min() < FOLDS:
            held = ", ".join(f"{count} {name}s" for name, count in zip(CATEGORIES, counts, strict=True))
            reason = f"{FOLDS} folds need {FOLDS} pairs of each category, it has {held}"
            outcome.left_out.append(LeftOut(subset, FOLDS, reason))
        else:
            outcome.scores += _scores(subset, cosine[among], paraphrase[among], question)
    if not outcome.scores:
        raise MedstError(f"{cohort.path}: too few sentences for temporal-text ({outcome.left_out[-1].reason}).")
    return outcome


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
    score: Float[np.ndarray, " pair"], positive: Bool[np.ndarray, " pair"], folds: int = FOLDS
) -> tuple[Bool[np.ndarray, " pair"], float, float]:
    """Measure the accuracy with thresholds chosen on training folds, and with the released code's threshold.

    Returns:
        Whether each pair is right with the threshold of its fold's training folds; the mean accuracy of the test folds; and
        the accuracy on all pairs of the threshold that did best on its test fold.
    """
    thresholds, accuracies, hit = [], [], np.empty(len(score), dtype=bool)
    for train, test in StratifiedKFold(folds).split(score, positive):
        thresholds.append(best_threshold(score[train], positive[train]))
        hit[test] = (score[test] > thresholds[-1]) == positive[test]
        accuracies.append(float(hit[test].mean()))
    released = thresholds[int(np.argmax(accuracies))]
    return hit, float(np.mean(accuracies)), float(((score > released) == positive).mean())


def _scores(
    subset: str, cosine: Float[np.ndarray, " pair"], positive: Bool[np.ndarray, " pair"], question: Question
) -> list[Score]:
    n, majority = len(cosine), float(max(positive.mean(), 1 - positive.mean()))
    hit, honest, released = thresholded(cosine, positive)
    each = np.arange(n)  # no patients are named, so the bootstrap draws pairs
    scores = [
        scored("auroc", subset, [Ranked(positive, cosine).auroc], each, 0.5, question),
        scored("accuracy", subset, [partial(accuracy, hit)], each, majority, question, values=[honest], folds=FOLDS),
    ]
    if question.protocol == "paper":
        scores.append(Score("accuracy at released threshold", subset, released, None, n, majority, FOLDS))
    return scores
