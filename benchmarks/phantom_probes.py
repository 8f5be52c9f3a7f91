"""What trivial features of the phantom tell about its labels: AUROC of each probe, 0.5 where it tells nothing.

    python benchmarks/phantom_probes.py [--patients 1900] [--seed 2026]

Draws at least 5,000 comparisons and 5,000 pairs of sentences as tables, without pictures. For comparisons, each probe tells
worsening from improving; for sentences, paraphrases from contradictions. docs/phantom.md has the table and says why the last
rows can't be at 0.5.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from machine import keep
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.findings import FINDINGS
from medst_phantom.ms_cxr_t import Comparison, comparisons, sentence_rows
from medst_phantom.radiograph import sample_acquisition
from medst_phantom.reports import Report, write_report
from medst_phantom.trajectory import FOLLOWED, FOLLOWED_SHARES, GENERAL, StudyTruth, sample_trajectory

BOUND = 0.55
"""Most that a probe may tell: an AUROC from 1 - BOUND to BOUND."""
Patient = list[tuple[StudyTruth, Report, float]]
"""Study, report and the field of its first image, which with the body gives the size of the picture."""


def draw(patients: int, seed: int) -> list[Patient]:
    """Test patients without pictures."""
    drawn = []
    for index in range(patients):
        story, body = (np.random.default_rng(one) for one in np.random.SeedSequence([seed, index]).spawn(2))
        anatomy = sample_anatomy(body)
        background, studies = sample_background(story, anatomy), list[tuple[StudyTruth, Report, float]]()
        for study in sample_trajectory(story, FOLLOWED if story.random() < FOLLOWED_SHARES["test"] else GENERAL):
            report = write_report(study, background, story, studies[-1][1] if studies else None)
            studies.append((study, report, sample_acquisition(study.views[0], body).field))
        drawn.append(studies)
    return drawn


def compare(patients: Sequence[Patient], seed: int) -> list[Comparison]:
    """The matched comparisons of these patients."""
    severities = [[{one.name: one.severity for one in study.present} for study, *_ in studies] for studies in patients]
    return comparisons(severities, np.random.default_rng(seed))[0]


def comparison_probes(patients: Sequence[Patient], chosen: Sequence[Comparison]) -> dict[str, float]:
    """AUROC of each feature of one study, or of what surrounds it, for worsening against improving."""
    changes = [one for one in chosen if one.progression != "stable"]
    worse = np.array([one.progression == "worsening" for one in changes])
    pairs = [(patients[one.patient][one.prior], patients[one.patient][one.current]) for one in changes]

    def of(feature: Callable[[tuple[StudyTruth, Report, float]], float], side: int) -> list[float]:
        return [feature(pair[side]) for pair in pairs]

    features: dict[str, ArrayLike] = {
        "present severity": [one.now for one in changes],
        "prior severity": [one.before for one in changes],
        "gap in time": [(now[0].time - before[0].time).total_seconds() for before, now in pairs],
        "change of view, PA to AP": np.subtract(
            *(of(lambda s: s[0].views[0] == "AP", side) for side in (1, 0)), dtype=float
        ),
        "studies of the patient": [len(patients[one.patient]) for one in changes],
        "place in the series": [one.current / max(1, len(patients[one.patient]) - 1) for one in changes],
        "place of the patient in the table": [one.patient for one in changes],
    }
    for name, side in (("present", 1), ("prior", 0)):
        features |= {
            f"{name} view is AP": of(lambda s: s[0].views[0] == "AP", side),
            f"{name} study at the bedside": of(lambda s: s[0].portable, side),
            f"{name} study has a lateral": of(lambda s: bool({"LATERAL", "LL"} & set(s[0].views)), side),
            f"{name} field of the image": of(lambda s: s[2], side),
            f"{name} hour": of(lambda s: s[0].time.hour, side),
            f"{name} number of findings": of(lambda s: len(s[0].present), side),
            f"{name} number of devices": of(lambda s: len(s[0].devices), side),
            f"{name} length of the report": of(lambda s: len(s[1].text), side),
        }
    found = {name: float(roc_auc_score(worse, feature)) for name, feature in features.items()}
    for finding in FINDINGS:
        own = np.array([one.finding == finding for one in changes])
        for name in ("present severity", "prior severity"):
            found[f"{name}, {finding}"] = float(roc_auc_score(worse[own], np.asarray(features[name])[own]))
    return found


def free_form_probes(chosen: Sequence[Comparison]) -> dict[str, float]:
    """AUROC of gradient boosting on one study's severity, known to 0.0 and to 0.1: what any function of it tells."""
    changes = [one for one in chosen if one.progression != "stable"]
    worse = [one.progression == "worsening" for one in changes]
    patients, found, rng = [one.patient for one in changes], {}, np.random.default_rng(0)
    for name, severity in (("present", [one.now for one in changes]), ("prior", [one.before for one in changes])):
        for noise in (0.0, 0.1):
            x = np.array(severity)[:, None] + rng.normal(0, noise, (len(changes), 1))
            model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=20)
            given = cross_val_predict(model, x, worse, groups=patients, cv=GroupKFold(5), method="predict_proba")[:, 1]
            found[f"any function of the {name} severity, known to ± {noise}"] = float(roc_auc_score(worse, given))
    return found


def sentence_probes(rows: Sequence[tuple[str, str, str, str]]) -> dict[str, float]:
    """AUROC of each feature for paraphrase against contradiction, by subset and over all."""
    found = {}
    for subset in ("RadGraph", "swaps", "all"):
        own = [row for row in rows if subset in (row[3], "all")]
        same = np.array([row[2] == "paraphrase" for row in own])
        first, second = [row[0] for row in own], [row[1] for row in own]
        features = {
            "place in the table": np.arange(len(own)),
            "length of the first": [len(text) for text in first],
            "length of the second": [len(text) for text in second],
            "difference in length": [abs(len(a) - len(b)) for a, b in zip(first, second, strict=True)],
            "token overlap": _cosine(CountVectorizer(binary=True), first, second),
            "tf-idf cosine": _cosine(TfidfVectorizer(), first, second),
            "cosine of pieces of 2 to 4 letters": _cosine(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), first, second
            ),
            "bag of words of the first": _bag_of_words(first, second, same, first),
            "bag of words of the second": _bag_of_words(first, second, same, second),
        }
        found |= {f"{subset}: {name}": float(roc_auc_score(same, feature)) for name, feature in features.items()}
    return found


def _cosine(vectorizer: Any, first: list[str], second: list[str]) -> np.ndarray:
    vectorizer.fit(first + second)
    one, two = (vectorizer.transform(texts).astype(float) for texts in (first, second))
    lengths = [np.sqrt(np.asarray(side.multiply(side).sum(1)).ravel()) for side in (one, two)]
    return np.asarray(one.multiply(two).sum(1)).ravel() / (lengths[0] * lengths[1])


def _bag_of_words(first: list[str], second: list[str], same: np.ndarray, told: list[str]) -> np.ndarray:
    """A supervised bag of words on one sentence; pairs that share a sentence are in one fold."""
    place = {text: number for number, text in enumerate(dict.fromkeys(first + second))}
    links = np.zeros((len(place), len(place)), dtype=bool)
    links[[place[text] for text in first], [place[text] for text in second]] = True
    _, group = connected_components(links, directed=False)
    words = CountVectorizer(ngram_range=(1, 2)).fit_transform(told)
    groups = [group[place[text]] for text in first]
    model = LogisticRegression(max_iter=300)
    return cross_val_predict(model, words, same, groups=groups, cv=GroupKFold(5), method="decision_function")


def main() -> None:
    """Draw, probe, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=1900)
    parser.add_argument("--seed", type=int, default=2026)
    asked = parser.parse_args()
    patients = draw(asked.patients, asked.seed)
    chosen = compare(patients, asked.seed)
    rows = sentence_rows(np.random.default_rng(asked.seed), times=14)
    probes = {"comparisons": comparison_probes(patients, chosen), "sentences": sentence_probes(rows)}
    free = free_form_probes(chosen)
    print(f"{len(chosen)} comparisons of {asked.patients} test patients, {len(rows)} pairs of sentences")
    for name, auroc in [(name, auroc) for one in probes.values() for name, auroc in one.items()]:
        print(f"{name:50} {auroc:.3f}{'' if 1 - BOUND <= auroc <= BOUND else '  tells something'}")
    for name, auroc in free.items():
        print(f"{name:50} {auroc:.3f}  see docs/phantom.md")
    counts = {"patients": asked.patients, "seed": asked.seed, "comparisons": len(chosen), "sentences": len(rows)}
    keep("phantom_probes", counts | {"bound": BOUND, **probes, "free_form": free})


if __name__ == "__main__":
    main()
