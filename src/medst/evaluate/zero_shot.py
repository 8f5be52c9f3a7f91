"""Zero-shot classification of the test split by prompts (paper, section 4.4; RSNA, or any cohort with prompts).

An image's score for a class is the product of its embedding with the class's prompts' (`prompts.py`). Protocol `paper`, as
released: the class with the higher score; accuracy, F1, and an AUROC of these decisions, which is their balanced accuracy
and is named so; the AUROC of the scores beside it. Protocol `strict`: AUROC and average precision of the difference of the
two scores, decisions by the threshold that is best on the validation split, probabilities calibrated there too, intervals
by a bootstrap over patients.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from medst.cohort.store import Cohort
from medst.encode import embed_prompts, image_features
from medst.errors import MedstError
from medst.evaluate.intervals import Ranked, accuracy, auroc, bootstrap, f1, macro_accuracy
from medst.evaluate.leaks import say_leaks
from medst.evaluate.prompts import RELEASED, prompts_for
from medst.evaluate.task import ALL, PAPER, Outcome, Question, Score
from medst.evaluate.temporal_text import best_threshold
from medst.use import Model

BINS = 10


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has classes, and prompts for them are given or released."""
    if cohort.labelled is None:
        return False
    classes = [str(name).lower() for name in cohort.meta["classes"]]
    return question.prompts is not None or (len(classes) == 2 and not RELEASED.keys().isdisjoint(classes))


def zero_shot(loaded: Model, cohort: Cohort, question: Question = PAPER) -> Outcome:
    """Score a model.

    Raises:
        MedstError: the cohort has no classes, no test split (strict: no validation split either), too few classes in it,
            or prompts that don't fit.
    """
    if cohort.labelled is None:
        raise MedstError(
            f"{cohort.path} has no classes: it is a {cohort.meta['dataset']} cohort; zero-shot needs rsna or covidx."
        )
    classes = [str(name) for name in cohort.meta["classes"]]
    prompts = prompts_for(cohort, question.prompts)
    wanted = ("valid", "test") if question.protocol == "strict" else ("test",)
    scores, labels = {}, {}
    for split in wanted:
        table = cohort.labelled.filter(split=split)
        labels[split] = table["label"].to_numpy()
        missing = sorted(set(range(len(classes))) - set(labels[split].tolist()))
        if missing:
            names = ", ".join(classes[i] for i in missing)
            raise MedstError(f"{cohort.path}: split '{split}' has no {names}; zero-shot can't be measured.")
        rows = table["image"].to_numpy()
        features = image_features(loaded, cohort, rows, precision=question.precision, cache=question.cache)
        scores[split] = features.embedding @ embed_prompts(loaded, prompts).T
    outcome = Outcome(classes=classes)
    patients = cohort.labelled.filter(split="test")["patient_id"].to_numpy()
    if question.protocol == "strict":
        outcome.warnings += say_leaks(cohort, ("valid",), refuse=False)
    if len(classes) != 2:
        _many(outcome, scores, labels["test"], patients, question)
    elif question.protocol == "paper":
        _as_released(outcome, scores["test"], labels["test"])
    else:
        _strictly(
            outcome,
            {split: score[:, 1] - score[:, 0] for split, score in scores.items()},
            labels,
            patients,
            question.intervals,
        )
    return outcome


def _as_released(
    outcome: Outcome, scores: Float[np.ndarray, "image class"], label: Int64[np.ndarray, " image"]
) -> None:
    decided = (scores[:, 1] > scores[:, 0]).astype(int)
    positive, n = label == 1, len(label)
    majority = float(max(positive.mean(), 1 - positive.mean()))
    guess = float(2 * positive.mean() / (1 + positive.mean()))  # F1 of saying yes to all
    outcome.scores += [
        Score("accuracy", ALL, float((decided == label).mean()), None, n, majority),
        Score("f1", ALL, f1(positive, decided, np.ones(n)), None, n, guess),
        Score("auroc of decisions", ALL, auroc(positive, decided), None, n, 0.5),
        Score("auroc", ALL, auroc(positive, scores[:, 1] - scores[:, 0]), None, n, 0.5),
    ]
    outcome.confusion[ALL] = confusion_matrix(label, decided, labels=[0, 1]).tolist()


def _strictly(
    outcome: Outcome,
    difference: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    patients: np.ndarray,
    intervals: bool,
) -> None:
    label, score = labels["test"], difference["test"]
    positive, n = label == 1, len(label)
    balance = labels["valid"] == 1
    weights = np.where(balance, 0.5 / balance.mean(), 0.5 / (1 - balance.mean()))
    threshold = best_threshold(*_repeated(difference["valid"], balance, weights))
    decided = (score > threshold).astype(int)
    hit = decided == label
    chance, ranked = float(positive.mean()), Ranked(positive, score)

    rows: list[tuple[str, float, Callable[[np.ndarray], float]]] = [
        ("auroc", 0.5, ranked.auroc),
        ("average precision", chance, ranked.average_precision),
        ("macro accuracy", 0.5, partial(macro_accuracy, hit, label)),
        ("accuracy", max(chance, 1 - chance), partial(accuracy, hit)),
        ("f1", 2 * chance / (1 + chance), partial(f1, positive, decided)),
    ]
    even = np.ones(n)
    outcome.scores += [
        Score(
            metric, ALL, statistic(even), None, n, guess, interval=bootstrap(statistic, patients) if intervals else None
        )
        for metric, guess, statistic in rows
    ]
    outcome.confusion[ALL] = confusion_matrix(label, decided, labels=[0, 1]).tolist()
    platt = LogisticRegression(C=1e6, max_iter=1000).fit(difference["valid"][:, None], balance)
    probability = platt.predict_proba(score[:, None])[:, 1]
    curve = calibration(probability, positive)
    outcome.calibration[ALL] = curve
    error = sum(rows * abs(said - true) for said, true, rows in curve) / n
    outcome.scores.append(Score("calibration error", ALL, error, None, n, 0.0))


def calibration(probability: np.ndarray, positive: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean probability, share of positives and rows of groups of about equal size, by rising probability.

    >>> calibration(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, True, True]), bins=2)
    [(0.15, 0.5, 2), (0.85, 1.0, 2)]
    """
    order = np.argsort(probability, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return [(round(float(probability[g].mean()), 6), round(float(positive[g].mean()), 6), len(g)) for g in groups]


def _many(
    outcome: Outcome, scores: dict[str, np.ndarray], label: np.ndarray, patients: np.ndarray, question: Question
) -> None:
    """More than two classes: the highest score decides; one class against the others for areas."""
    test, n = scores["test"], len(label)
    decided = test.argmax(1)
    hit = decided == label
    counts = np.bincount(label, minlength=test.shape[1])
    rows: list[tuple[str, str, float, Callable[[np.ndarray], float]]] = [
        ("accuracy", ALL, float(counts.max() / n), partial(accuracy, hit)),
        ("macro accuracy", ALL, 1 / test.shape[1], partial(macro_accuracy, hit, label)),
    ]
    for one, name in enumerate(outcome.classes):
        others = np.delete(test, one, axis=1).max(1)
        rows.append(
            (
                "auroc",
                name,
                0.5,
                Ranked(label == one, test[:, one] - others).auroc,
            )
        )
    even = np.ones(n)
    outcome.scores += [
        Score(
            metric,
            finding,
            value(even),
            None,
            n,
            guess,
            interval=bootstrap(value, patients) if question.intervals else None,
        )
        for metric, finding, guess, value in rows
    ]
    outcome.confusion[ALL] = confusion_matrix(label, decided, labels=range(test.shape[1])).tolist()


def _repeated(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the rarer class as often as it takes for both to weigh about the same."""
    times = np.maximum(1, np.round(weights / weights.min())).astype(int)
    return np.repeat(score, times), np.repeat(positive, times)
