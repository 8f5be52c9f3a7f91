"""Zero-shot classification of the test split by prompts (paper, section 4.4; RSNA, or any cohort with prompts).

The score of an image for a class is the product of its embedding and the class's prompt embedding (`prompts.py`). Protocol
`paper`, as released: the class with the higher score; accuracy, F1, and the AUROC of these decisions, named so because it is
their balanced accuracy; and the AUROC of the scores. Protocol `strict`: AUROC and average precision of the difference
of the two scores, decisions by the threshold that is best on the validation split, probabilities calibrated there too.
"""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_curve

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.intervals import ROUNDS, Ranked, Statistic, accuracy, f1, macro_accuracy, scored
from medst.evaluate.leaks import shared_patients
from medst.evaluate.prompts import RELEASED, prompts_for
from medst.evaluate.subjects import Subject
from medst.evaluate.task import ALL, STRICT, Outcome, Question, Score

BINS = 10
REPORTED = {
    "paper": ("accuracy", "f1", "auroc of decisions", "auroc"),
    "strict": ("auroc", "average precision", "macro accuracy", "accuracy", "f1"),
}
Metric = tuple[str, str, float, Statistic]
"""Name, finding, chance and value."""


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has classes, and prompts for them are given or released."""
    if cohort.labelled is None:
        return False
    classes = [name.lower() for name in cohort.classes]
    return question.prompts is not None or (len(classes) == 2 and not RELEASED.keys().isdisjoint(classes))


def zero_shot(subject: Subject, cohort: Cohort, question: Question = STRICT) -> Outcome:
    """Measure a subject.

    Raises:
        MedstError: the cohort has no classes, no test split (strict: no validation split either), too few classes in it,
            or prompts that don't fit.
    """
    labelled = cohort.require("labelled", "zero-shot needs rsna or covidx")
    outcome = Outcome(classes=cohort.classes)
    prompts, strict = subject.prompts(prompts_for(cohort, question.prompts)), question.protocol == "strict"
    scores, labels = {}, {}
    for split in ("valid", "test") if strict else ("test",):
        table = labelled.filter(split=split)
        labels[split] = table["label"].to_numpy()
        missing = sorted(set(range(len(outcome.classes))) - set(labels[split].tolist()))
        if missing:
            names = ", ".join(outcome.classes[i] for i in missing)
            raise MedstError(f"{cohort.path}: split '{split}' has no {names}; zero-shot can't be measured.")
        rows = table["image"].to_numpy()
        scores[split] = subject.images(cohort, rows).embedding @ prompts.T
    if strict:
        outcome.warnings += shared_patients(cohort, ("valid",), refuse=False)
    if len(outcome.classes) == 2:
        margins = {split: score[:, 1] - score[:, 0] for split, score in scores.items()}
        threshold = balanced_threshold(margins["valid"], labels["valid"] == 1) if strict else 0.0
        decided = (margins["test"] > threshold).astype(int)
        metrics = _two_classes(margins["test"], labels["test"], decided)
        metrics = [metric for name in REPORTED[question.protocol] for metric in metrics if metric[0] == name]
    else:
        decided = scores["test"].argmax(1)
        metrics = _several_classes(outcome.classes, scores["test"], labels["test"], decided)
    patients = labelled.filter(split="test")["patient_id"].to_numpy()
    outcome.scores = [
        scored(name, finding, [statistic], patients, chance, question) for name, finding, chance, statistic in metrics
    ]
    images = labelled.filter(split="test")["image"].to_numpy()[:, None]
    outcome.images = {(score.finding, None): images for score in outcome.scores}
    outcome.confusion[ALL] = confusion_matrix(labels["test"], decided, labels=range(len(outcome.classes))).tolist()
    if strict and len(outcome.classes) == 2:
        _calibrate(outcome, margins, labels)
    return outcome


def _two_classes(
    margin: Float[np.ndarray, " image"], label: Int64[np.ndarray, " image"], decided: Int64[np.ndarray, " image"]
) -> list[Metric]:
    positive = label == 1
    hit, share, ranked = decided == label, float(positive.mean()), Ranked(positive, margin)
    return [
        ("auroc", ALL, 0.5, ranked.auroc),
        ("auroc of decisions", ALL, 0.5, Ranked(positive, decided).auroc),
        ("average precision", ALL, share, ranked.average_precision),
        ("macro accuracy", ALL, 0.5, partial(macro_accuracy, hit, label)),
        ("accuracy", ALL, max(share, 1 - share), partial(accuracy, hit)),
        ("f1", ALL, 2 * share / (1 + share), partial(f1, positive, decided)),  # chance: all positive
    ]


def _several_classes(
    names: list[str],
    scores: Float[np.ndarray, "image class"],
    label: Int64[np.ndarray, " image"],
    decided: Int64[np.ndarray, " image"],
) -> list[Metric]:
    hit, majority = decided == label, float(np.bincount(label).max() / len(label))
    metrics: list[Metric] = [
        ("accuracy", ALL, majority, partial(accuracy, hit)),
        ("macro accuracy", ALL, 1 / len(names), partial(macro_accuracy, hit, label)),
    ]
    for one, name in enumerate(names):
        margin = scores[:, one] - np.delete(scores, one, axis=1).max(1)
        metrics.append(("auroc", name, 0.5, Ranked(label == one, margin).auroc))
    return metrics


def _calibrate(outcome: Outcome, margins: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> None:
    """Add the calibration curve of probabilities after Platt's scaling on the validation split, and its error.

    The error of few rows is above 0 even for a perfect model, whose labels are drawn with the very probabilities that it
    states. `chance` is the mean error of such a model on these rows.
    """
    platt = LogisticRegression(C=1e6, max_iter=1000).fit(margins["valid"][:, None], labels["valid"] == 1)
    probability = platt.predict_proba(margins["test"][:, None])[:, 1]
    positive, n = labels["test"] == 1, len(probability)
    outcome.calibration[ALL] = calibration(probability, positive)
    mean, highest = perfect_calibration(probability)
    outcome.perfect_calibration[ALL] = (round(mean, 6), round(highest, 6))
    outcome.scores.append(Score("calibration error", ALL, calibration_error(probability, positive), None, n, mean))


def calibration_error(probability: np.ndarray, positive: np.ndarray, bins: int = BINS) -> float:
    """Mean over the rows of the gap between the mean probability and the share of positives of their group.

    >>> round(calibration_error(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, True, True]), bins=2), 6)
    0.25
    """
    gaps = [len(g) * abs(float(probability[g].mean() - positive[g].mean())) for g in _bins(probability, bins)]
    return sum(gaps) / len(probability)


def perfect_calibration(
    probability: np.ndarray, bins: int = BINS, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float]:
    """Mean and 95th percentile of the calibration error of a perfect model: labels drawn with these probabilities."""
    rng = np.random.default_rng(seed)
    errors = [calibration_error(probability, rng.random(len(probability)) < probability, bins) for _ in range(rounds)]
    return float(np.mean(errors)), float(np.percentile(errors, 95))


def calibration(probability: np.ndarray, positive: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Compute mean probability, share of positives and size of groups of about equal size, by rising probability.

    >>> calibration(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, True, True]), bins=2)
    [(0.15, 0.5, 2), (0.85, 1.0, 2)]
    """
    return [
        (round(float(probability[g].mean()), 6), round(float(positive[g].mean()), 6), len(g))
        for g in _bins(probability, bins)
    ]


def _bins(probability: np.ndarray, bins: int) -> list[np.ndarray]:
    order = np.argsort(probability, kind="stable")
    return [group for group in np.array_split(order, bins) if len(group)]


def balanced_threshold(margin: Float[np.ndarray, " image"], positive: Bool[np.ndarray, " image"]) -> float:
    """Return the threshold with the best balanced accuracy if margins above it are positive; the lowest of equally good
    ones.

    Balanced accuracy is (sensitivity + specificity) / 2. The threshold lies half-way between two neighbouring margins, or
    below all of them.

    Raises:
        ValueError: all rows are of one class.

    >>> balanced_threshold(np.array([0.1, 0.2, 0.3, 0.4, 0.9]), np.array([False, False, False, True, False]))
    0.35
    """
    if positive.all() or not positive.any():
        raise ValueError("a threshold needs rows of both classes")
    fallout, sensitivity, levels = roc_curve(positive, margin.astype(np.float64), drop_intermediate=False)
    gain = sensitivity - fallout
    best = np.flatnonzero(gain > gain.max() - 1e-12)[-1]  # the levels fall; the last one calls every row positive
    return float((levels[best] + np.append(levels, levels[-1] - 2)[best + 1]) / 2)
