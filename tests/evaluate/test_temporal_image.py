"""Both protocols of temporal image classification, by hand and against scikit-learn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import shuffle

from medst.cohort.store import Cohort, open_cohort
from medst.encode import ImageFeatures
from medst.errors import MedstError
from medst.evaluate import temporal_image as module
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.progression_svm import (
    MIRROR,
    SEEDS,
    CrossValidated,
    chosen_svm,
    cross_validate,
    cross_validate_strictly,
)
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, STRICT, Question
from medst.evaluate.temporal_image import PROGRESSIONS, features_of, temporal_image


def by_key(outcome: module.Outcome) -> dict[tuple[str, str, int | None], module.Score]:
    return {score.key: score for score in outcome.scores}


def test_accuracy_matches_a_calculation_by_hand() -> None:
    # Each class has a place of its own, ten rows each; one row of class 0 is labelled 1. Whatever the folds, an SVM says
    # the place's class, so that this row alone is wrong: 29 of 30, and a recall of 10 of 11 for class 1.
    places = np.repeat(np.arange(3), 10)
    features = 10 * np.eye(3, dtype=np.float32)[places]
    classes = places.copy()
    classes[4] = 1
    found = cross_validate(features, classes, 5)
    assert found.predicted.tolist() == [places.tolist()] * 3
    np.testing.assert_allclose(found.accuracy, 29 / 30)
    np.testing.assert_allclose(found.values("macro accuracy"), (1 + 10 / 11 + 1) / 3)


@pytest.mark.parametrize("folds", [5, 10])
def test_accuracy_agrees_with_scikit_learn_on_shuffled_rows(folds: int) -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 3, 97)
    features = (rng.normal(size=(97, 6)) + 1.5 * np.eye(3, 6)[classes]).astype(np.float32)
    found = cross_validate(features, classes, folds)
    for number, seed in enumerate(SEEDS):
        x, y = shuffle(features, classes, random_state=seed)
        expected = cross_val_score(SVC(kernel="linear", C=1), x, y, cv=StratifiedKFold(folds))
        np.testing.assert_allclose(found.accuracy[number], expected.mean())
        expected = balanced_accuracy_score(classes, found.predicted[number])
        np.testing.assert_allclose(found.values("macro accuracy")[number], expected)
    assert found.accuracy.min() > 0.4


def test_permuted_labels_give_about_chance() -> None:
    rng = np.random.default_rng(2)
    classes = np.repeat(np.arange(3), 80)
    features = (rng.normal(size=(240, 4)) + 3 * np.eye(3, 4)[classes]).astype(np.float32)
    assert cross_validate(features, classes, 5).accuracy.mean() > 0.9
    permuted = [cross_validate(features, rng.permutation(classes), 5, seeds=(42,)).accuracy[0] for _ in range(5)]
    assert 0.25 < np.mean(permuted) < 0.42


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the model: a random embedding for each image."""
    world = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    seen = lambda self, cohort, rows, **_: ImageFeatures(*[world[np.asarray(rows)]] * 3)  # noqa: E731
    monkeypatch.setattr(ModelSubject, "images", seen)


def test_the_feature_is_the_current_embedding_then_the_previous_one(
    subject: ModelSubject, benchmark: Cohort, seen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = subject.images(benchmark, range(48)).embedding
    given: list[np.ndarray] = []

    def spy(features: np.ndarray, classes: np.ndarray, folds: int, swapped: np.ndarray) -> CrossValidated:
        given.extend([features, swapped])
        return cross_validate(features, classes, folds, SEEDS, swapped)

    monkeypatch.setattr(module, "cross_validate", spy)
    temporal_image(subject, benchmark, PAPER)
    edema = benchmark.comparisons.filter(finding="edema")
    np.testing.assert_array_equal(given[0][:, :5], world[edema["current"].to_numpy()])
    np.testing.assert_array_equal(given[0][:, 5:], world[edema["previous"].to_numpy()])
    np.testing.assert_array_equal(given[1], np.roll(given[0], 5, axis=1))


def test_chance_average_confusion_and_predictions_belong_together(
    subject: ModelSubject, benchmark: Cohort, seen: None
) -> None:
    outcome = temporal_image(subject, benchmark, PAPER)
    scores = by_key(outcome)
    assert scores["accuracy", "edema", 5].chance == 14 / 37
    assert scores["macro accuracy", "edema", 10].chance == pytest.approx(1 / 3)
    for folds in (5, 10):
        parts = [scores["accuracy", finding, folds].value for finding in ("edema", "pneumothorax")]
        assert scores["accuracy", "average", folds].value == pytest.approx(np.mean(parts))
        assert scores["accuracy", "average", folds].n == 37 + 38
    for finding in ("edema", "pneumothorax"):
        rows = [row for row in outcome.predictions if row["finding"] == finding]
        labelled = benchmark.comparisons.filter(finding=finding)
        assert [row["study_id"] for row in rows] == labelled["study_id"].to_list()
        assert [row["progression"] for row in rows] == labelled["progression"].to_list()
        counted = [
            [sum((row["progression"], row["predicted"]) == (true, said) for row in rows) for said in PROGRESSIONS]
            for true in PROGRESSIONS
        ]
        assert outcome.confusion[finding] == counted


def test_too_small_classes_leave_a_finding_out_by_name(
    subject: ModelSubject, seen: None, write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]
) -> None:
    table = make_comparisons(edema=(12, 12, 12), consolidation=(4, 20, 20), pneumonia=(7, 20, 20))
    outcome = temporal_image(subject, open_cohort(write_cohort("few", "ms-cxr-t", comparisons=table)), PAPER)
    assert [(left.finding, left.folds) for left in outcome.left_out] == [
        ("consolidation", 5), ("consolidation", 10), ("pneumonia", 10)
    ]  # fmt: skip
    assert "4 improving, 20 stable, 20 worsening" in outcome.left_out[0].reason
    scores = by_key(outcome)
    assert ("accuracy", "pneumonia", 5) in scores
    assert ("accuracy", "pneumonia", 10) not in scores
    assert scores["accuracy", "average", 10].value == scores["accuracy", "edema", 10].value
    assert set(outcome.confusion) == {"edema", "pneumonia"}


def test_a_missing_class_in_every_finding_is_refused_with_its_counts(
    subject: ModelSubject, seen: None, write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]
) -> None:
    cohort = open_cohort(write_cohort("none", "ms-cxr-t", comparisons=make_comparisons(edema=(12, 0, 12))))
    with pytest.raises(MedstError, match=r"edema: 5 folds need 5 rows .* 12 improving, 0 stable, 12 worsening"):
        temporal_image(subject, cohort, PAPER)


def test_a_cohort_without_comparisons_is_refused(subject: ModelSubject, benchmark: Cohort) -> None:
    other = replace(benchmark, comparisons=None, meta=benchmark.meta | {"dataset": "mimic-cxr"})
    with pytest.raises(MedstError, match="no comparisons: it is a mimic-cxr cohort"):
        temporal_image(subject, other, PAPER)


def of_patients(rng: np.random.Generator, patients: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three rows per patient, all of one class; features that identify the patient and not the class."""
    patient = np.repeat(np.arange(patients), 3)
    classes = rng.permutation(np.arange(patients) % 3)[patient]
    own = rng.normal(size=(patients, 40))
    return (own[patient] + 0.05 * rng.normal(size=(3 * patients, 40))).astype(np.float32), classes, patient


def test_strict_can_not_recognise_patients_but_the_released_protocol_can() -> None:
    rng = np.random.default_rng(0)
    released, strict = [], []
    for _ in range(3):
        features, classes, patients = of_patients(rng)
        released.append(cross_validate(features, classes, 5, seeds=(42,)).accuracy[0])
        strict.append(cross_validate_strictly(features, features, classes, patients, 5, seeds=(42,)).accuracy[0])
    assert np.mean(released) > 0.8
    assert 0.2 < np.mean(strict) < 0.47


def test_strict_learns_what_is_there_whatever_its_scale_and_swaps_it() -> None:
    rng = np.random.default_rng(3)
    classes = np.tile(np.arange(3), 40)
    change = np.array([-1.0, 0.0, 1.0])[classes]
    features = np.stack([1e4 * change + 300 * rng.normal(size=120), rng.normal(size=120)], 1).astype(np.float32)
    swapped = features * np.array([-1, 1], dtype=np.float32)
    found = cross_validate_strictly(features, swapped, classes, np.arange(120) // 2, 5)
    assert found.accuracy.min() > 0.97
    assert (found.swapped == MIRROR[found.predicted]).mean() > 0.97


def test_permuted_labels_give_chance_in_strict(subject: ModelSubject, benchmark: Cohort, seen: None) -> None:
    rng, found = np.random.default_rng(5), []
    for _, table in benchmark.comparisons.group_by("finding", maintain_order=True):
        features, swapped = module.features_of(subject, benchmark, table, STRICT)
        classes = np.array([PROGRESSIONS.index(progression) for progression in table["progression"]])
        for _ in range(5):
            permuted = rng.permutation(classes)
            one = cross_validate_strictly(features, swapped, permuted, table["patient_id"].to_numpy(), 5, seeds=(42,))
            found.append(balanced_accuracy_score(permuted, one.predicted[0]))
    assert 0.22 < np.mean(found) < 0.44


def test_strict_reports_intervals_and_the_recall_of_each_class(
    subject: ModelSubject, benchmark: Cohort, seen: None
) -> None:
    outcome = temporal_image(subject, benchmark, STRICT)
    scores = by_key(outcome)
    for metric in ("accuracy", "macro accuracy", "swap consistency"):
        for finding in ("edema", "pneumothorax", "average"):
            low, high = scores[metric, finding, 5].interval or (1, 0)
            assert low <= scores[metric, finding, 5].value <= high
    recalls = [scores[f"recall of {name}", "edema", 5] for name in PROGRESSIONS]
    assert scores["macro accuracy", "edema", 5].value == pytest.approx(np.mean([score.value for score in recalls]))
    for score in recalls:
        low, high = score.interval or (1, 0)
        assert low < score.value < high
        assert (score.chance, score.n) == (
            pytest.approx(1 / 3),
            {"improving": 12, "stable": 14}.get(score.metric[10:], 11),
        )


def test_recalls_agree_with_scikit_learn_for_any_weights() -> None:
    rng = np.random.default_rng(2)
    classes, predicted, weights = rng.integers(0, 3, 60), rng.integers(0, 3, (3, 60)), rng.integers(0, 4, 60) * 1.0
    found = CrossValidated(np.zeros(3), classes, predicted, predicted)
    for place, name in enumerate(PROGRESSIONS):
        expected = [
            recall_score(classes, one, labels=[place], average=None, sample_weight=weights)[0] for one in predicted
        ]
        assert [statistic(weights) for statistic in found.statistics(f"recall of {name}")] == pytest.approx(expected)


def test_chance_of_the_swap_consistency_is_that_of_independent_answers() -> None:
    rng = np.random.default_rng(3)
    predicted = rng.choice(3, (2, 3000), p=[0.2, 0.7, 0.1])
    swapped = rng.choice(3, (2, 3000), p=[0.3, 0.5, 0.2])
    found = CrossValidated(np.zeros(2), np.zeros(3000, dtype=np.int64), predicted, swapped)
    by_permuting = []
    for _ in range(50):
        shuffled = rng.permuted(swapped, axis=1)
        by_permuting += [(shuffled[seed] == np.array([2, 1, 0])[predicted[seed]]).mean() for seed in range(2)]
    assert found.chance("swap consistency") == pytest.approx(np.mean(by_permuting), abs=0.002)
    assert found.chance("swap consistency") == pytest.approx(0.2 * 0.2 + 0.7 * 0.5 + 0.1 * 0.3, abs=0.02)
    # One answer to everything is consistent, and no achievement.
    always = np.ones((2, 30), dtype=np.int64)
    assert CrossValidated(np.zeros(2), always[0], always, always).chance("swap consistency") == 1.0


def test_strict_needs_as_many_patients_as_folds(
    subject: ModelSubject, seen: None, write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]
) -> None:
    table = make_comparisons(edema=(12, 12, 12), pneumonia=(12, 12, 12))
    one = pl.when((pl.col("finding") == "pneumonia") & (pl.col("progression") == "stable"))
    table = table.with_columns(patient_id=one.then(pl.lit("p0")).otherwise("patient_id"))
    outcome = temporal_image(subject, open_cohort(write_cohort("few", "ms-cxr-t", comparisons=table)), STRICT)
    assert [left.finding for left in outcome.left_out] == ["pneumonia"]
    assert "patients of each progression" in outcome.left_out[0].reason


@pytest.mark.parametrize(("features", "width"), [("concat", 16), ("difference", 8), ("both", 24)])
def test_features_and_tokens_follow_the_question(
    features: str, width: int, subject: ModelSubject, benchmark: Cohort
) -> None:
    table = benchmark.comparisons
    question = Question(features=features)  # type: ignore[arg-type]
    now, swapped = module.features_of(subject, benchmark, table, question)
    assert now.shape == (table.height, width)
    if features == "difference":
        np.testing.assert_allclose(now, -swapped)
    patches, _ = module.features_of(subject, benchmark, table, replace(question, tokens="patches"))
    assert np.abs(patches - now).max() > 1e-3
    assert module.features_of(subject, benchmark, table, replace(question, tokens="both"))[0].shape[1] == 2 * width


def test_laterals_are_looked_up_in_the_cohort_with_pairs(
    subject: ModelSubject, benchmark: Cohort, benchmark_cohort: Path, phantom_cohort: Path, phantom_comparisons: Path
) -> None:
    cohort, source = open_cohort(phantom_comparisons), open_cohort(phantom_cohort)
    assert cohort.comparisons is not None
    assert source.pairs is not None
    table, pairs = cohort.comparisons[:6], source.pairs
    now, _ = module.features_of(subject, cohort, table, Question(laterals=phantom_cohort))
    rows = [source.image_table["image_id"].to_list().index(cohort.image_table["image_id"][i]) for i in table["current"]]
    laterals = [pairs.filter(frontal=row)["lateral"][0] for row in rows]
    assert None in laterals
    assert any(lateral is not None for lateral in laterals)
    given = [-1 if lateral is None else lateral for lateral in laterals]
    expected = subject.images(source, rows, laterals=given).embedding
    np.testing.assert_array_equal(now[:, : expected.shape[1]], expected)
    with pytest.raises(MedstError, match=r"does not have .* of the images of .*; give the cohort that the comparisons"):
        module.features_of(subject, benchmark, benchmark.comparisons[:3], Question(laterals=phantom_cohort))
    with pytest.raises(MedstError, match="has no pairs: it is a ms-cxr-t cohort; the lateral views"):
        module.features_of(subject, cohort, table, Question(laterals=benchmark_cohort))


def test_new_or_resolved_findings_stand_apart(
    subject: ModelSubject, seen: None, write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]
) -> None:
    table = make_comparisons(edema=(14, 14, 14), **{"edema, new or resolved": (20, 0, 12)})
    outcome = temporal_image(subject, open_cohort(write_cohort("apart", "ms-cxr-t", comparisons=table)))
    scores = by_key(outcome)
    for metric in ("accuracy", "macro accuracy", "swap consistency"):
        assert scores[metric, "average", 5].value == pytest.approx(scores[metric, "edema", 5].value)
        assert scores[metric, "average", 5].n == 42
    assert scores["macro accuracy", "edema, new or resolved", 5].chance == 0.5
    assert scores["accuracy", "edema, new or resolved", 5].chance == 20 / 32
    assert ("recall of stable", "edema, new or resolved", 5) not in scores
    assert not outcome.left_out


@pytest.fixture
def two_cohorts(
    write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]
) -> tuple[pl.DataFrame, Cohort, Path]:
    """Comparisons to learn from, of patients p15 and later, and others to test on."""
    learnt = make_comparisons(edema=(20, 22, 24), pneumonia=(4, 20, 20), pneumothorax=(20, 20, 20))
    learnt = learnt.with_columns(
        patient_id="p" + (pl.col("patient_id").str.slice(1).cast(pl.Int64) + 15).cast(pl.String)
    )
    tested = make_comparisons(edema=(12, 14, 11), pneumonia=(12, 12, 12), consolidation=(9, 9, 9))
    return (
        learnt,
        open_cohort(write_cohort("tested", "ms-cxr-t", comparisons=tested)),
        write_cohort("learnt", "ms-cxr-t", comparisons=learnt),
    )


def test_transfer_learns_from_one_cohort_and_tests_on_another(
    subject: ModelSubject, seen: None, two_cohorts: tuple[pl.DataFrame, Cohort, Path]
) -> None:
    learnt, tested, path = two_cohorts
    question = Question(protocol="transfer", learn_from=path)
    outcome = temporal_image(subject, tested, question)
    own = learnt.filter(~pl.col("patient_id").is_in(tested.comparisons["patient_id"].to_list()), finding="edema")
    shared = (
        learnt["patient_id"].n_unique()
        - learnt.filter(~pl.col("patient_id").is_in(tested.comparisons["patient_id"].to_list()))[
            "patient_id"
        ].n_unique()
    )
    assert outcome.warnings == [
        f"--learn-from: {shared} patients are in the tested cohort too; nothing is learnt from them."
    ]
    rows = tested.comparisons.filter(finding="edema")
    source = open_cohort(path)
    x, test_x = (features_of(subject, c, t, question)[0] for c, t in ((source, own), (tested, rows)))
    classes, true = ([PROGRESSIONS.index(p) for p in t["progression"]] for t in (own, rows))
    found = []
    for seed in SEEDS:
        inner = StratifiedGroupKFold(3, shuffle=True, random_state=seed).split(x, classes, own["patient_id"].to_numpy())
        pipe = make_pipeline(StandardScaler(), SVC(kernel="linear"))
        grid = {"svc__C": (0.001, 0.01, 0.1, 1.0)}
        search = GridSearchCV(pipe, grid, scoring="balanced_accuracy", cv=inner).fit(x, classes)
        found.append(balanced_accuracy_score(true, search.predict(test_x)))
    score = by_key(outcome)["macro accuracy", "edema", None]
    assert score.value == pytest.approx(np.mean(found))
    assert score.interval is not None
    assert {left.finding for left in outcome.left_out} == {"pneumonia", "consolidation"}
    assert all(left.reason.startswith("--learn-from: ") for left in outcome.left_out)


def test_transfer_has_its_file_and_its_baselines(
    model_folder: Path, seen: None, two_cohorts: tuple[pl.DataFrame, Cohort, Path], tmp_path: Path
) -> None:
    _, tested, path = two_cohorts
    question = Question(protocol="transfer", learn_from=path)
    results = evaluate(model_folder, tested.path, tmp_path / "out.json", question=question, baseline_seeds=(0,))
    assert {row["model"] for row in results["results"]} == {"trained", *BENCHMARKS["temporal-image"].baselines}
    assert results["leads"]
    assert results["protocol"] == "transfer"
    for wrong, reason in (
        (replace(question, learn_from=None), "--learn-from"),
        (Question(learn_from=path), "goes with --protocol transfer"),
        (replace(question, laterals=path), "leave it out"),
    ):
        with pytest.raises(MedstError, match=reason):
            evaluate(model_folder, tested.path, None, question=wrong)
    with pytest.raises(MedstError, match="for temporal-image alone"):
        evaluate(model_folder, tested.path, None, tasks=("temporal-text",), question=question)


def test_an_inner_fold_without_one_of_the_classes_still_chooses() -> None:
    """The only patient who worsens is in one of the two inner folds, and the other fold's rows look alike."""
    classes = np.array([0] * 6 + [1] * 6 + [2] * 6)
    patients = np.array([f"p{row}" for row in range(12)] + ["worse"] * 6)
    features = np.array([0, 0, 0, 5, 5, 5, 1, 1, 1, 5, 5, 5] + [5] * 6, dtype=np.float32)[:, None]
    search = chosen_svm(features, classes, patients, seed=42)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
