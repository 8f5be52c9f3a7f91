"""What stands beside a model: subjects that know little, and the lead over the best of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.leads import GUESSES, guesses, leads, mean_scores
from medst.evaluate.probe import probe
from medst.evaluate.progression_svm import cross_validate, cross_validate_strictly
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import BASELINES, ModelSubject, Nothing, Thumbnails, Words
from medst.evaluate.task import STRICT, Outcome, Question, Score
from medst.evaluate.temporal_image import features_of
from medst.evaluate.temporal_text import temporal_text


def test_every_baseline_of_the_registry_exists() -> None:
    named = {name for benchmark in BENCHMARKS.values() for name in benchmark.baselines}
    assert named == BASELINES.keys() | set(GUESSES)


def test_a_thumbnail_is_the_mean_of_the_stored_grey_values(benchmark: Cohort) -> None:
    found = Thumbnails().images(benchmark, [5, 3, 5])
    small = Image.fromarray(np.asarray(benchmark.images[5])).convert("F").reduce(16)
    np.testing.assert_allclose(found.embedding[0], np.asarray(small).ravel() / 255, rtol=1e-5)
    np.testing.assert_array_equal(found.embedding[0], found.embedding[2])
    assert found.feature.shape == (3, 256)
    assert np.abs(found.embedding[0] - found.embedding[1]).max() > 0


def test_words_are_tf_idf_or_the_overlap_of_two_sets() -> None:
    texts = ["left effusion is larger", "the left effusion effusion is smaller", "no change", ""]
    by_hand = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)
    rows = Words(weighted=True).texts(texts)
    np.testing.assert_allclose(rows @ rows.T, cosine_similarity(by_hand), atol=1e-6)
    sets = Words(weighted=False).texts(texts)
    assert (sets @ sets.T)[0, 1] == pytest.approx(3 / np.sqrt(4 * 5))
    assert (sets @ sets.T)[0, 2] == 0
    assert not sets[3].any()


def test_who_sees_nothing_gives_the_most_frequent_answer_of_the_training_rows(
    benchmark: Cohort, cohort: Cohort
) -> None:
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.repeat(np.arange(3), (20, 50, 30)))
    features = Nothing().images(benchmark, np.zeros(100, dtype=np.int64)).embedding
    assert (cross_validate(features, classes, 5).predicted == 1).all()
    assert (cross_validate_strictly(features, features, classes, np.arange(100) // 2, 5).predicted == 1).all()
    text = {score.key: score.value for score in temporal_text(Nothing(), benchmark).scores}
    assert text["auroc", "all", None] == 0.5
    probed = {
        (s.metric, s.finding): s for s in probe(Nothing(), cohort, Question(protocol="paper", fractions=(1.0,))).scores
    }
    assert probed["auroc", "100 %"].value == 0.5
    majority = np.bincount(cohort.labelled["label"].to_numpy()[:24]).argmax()
    assert probed["accuracy", "100 %"].value == (cohort.labelled["label"].to_numpy()[36:] == majority).mean()


def test_one_study_alone_is_one_half_of_the_features(subject: ModelSubject, benchmark: Cohort) -> None:
    assert benchmark.comparisons is not None
    whole, swapped = features_of(subject, benchmark, benchmark.comparisons, STRICT)
    width = whole.shape[1] // 2
    for name, half in (("current study alone", slice(0, width)), ("prior study alone", slice(width, None))):
        baseline = BASELINES[name]
        assert baseline.make(subject, 0) is subject
        question = replace(STRICT, **baseline.changes)
        alone, alone_swapped = features_of(subject, benchmark, benchmark.comparisons, question)
        np.testing.assert_array_equal(alone, whole[:, half])
        np.testing.assert_array_equal(alone_swapped, swapped[:, half])


def test_only_a_model_has_untrained_ones_and_can_be_fine_tuned(cohort: Cohort, subject: ModelSubject) -> None:
    assert BASELINES["untrained"].make(Thumbnails(), 0) is None
    other = BASELINES["untrained"].make(subject, 4)
    assert isinstance(other, ModelSubject)
    assert other.model.fingerprint == "untrained-4"
    with pytest.raises(MedstError, match="--finetune trains an image encoder, and only a model has one"):
        probe(Thumbnails(), cohort, Question(protocol="paper", finetune=True))
    assert not any(BASELINES[name].changes["finetune"] for name in ("majority answer", "thumbnails"))


def scored(value: float, hit: list[bool] | None, finding: str = "average", folds: int | None = 5) -> Score:
    patients = np.repeat(np.arange(20), 2)
    hits = None if hit is None else np.array(hit, dtype=float)
    statistic = None if hits is None else lambda w: float(np.average(hits, weights=w))
    return Score("macro accuracy", finding, value, None, 40, 0.5, folds, (), None, statistic, patients)


def test_a_lead_is_over_the_best_baseline_on_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    own, weak, strong = (rng.random(40) < share for share in (0.8, 0.5, 0.7))
    outcome = Outcome([scored(own.mean(), own.tolist()), scored(0.9, own.tolist(), folds=10)])
    baselines = {
        "thumbnails": [scored(strong.mean(), strong.tolist())],
        "untrained": [scored(weak.mean(), weak.tolist())],
        "chance": [scored(0.1, None)],
    }
    [lead] = leads("temporal-image", outcome, baselines, intervals=True)
    assert (lead.baseline, lead.folds, lead.n) == ("thumbnails", 5, 40)
    assert lead.value == pytest.approx(own.mean() - strong.mean())
    # The same bootstrap by hand: the difference of both means over whole patients that are drawn with replacement.
    rng = np.random.default_rng(0)
    by_patient = (own.astype(float) - strong).reshape(20, 2).mean(1)
    drawn = [rng.multinomial(20, np.full(20, 1 / 20)) @ by_patient / 20 for _ in range(1000)]
    assert lead.interval == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    # Equal predictions have no lead, whatever is drawn; unpaired intervals would overlap widely here.
    [none] = leads("temporal-image", outcome, {"thumbnails": [scored(own.mean(), own.tolist())]}, intervals=True)
    assert (none.value, none.interval) == (0, (0, 0))
    [fast] = leads("temporal-image", outcome, baselines, intervals=False)
    assert fast.interval is None
    assert leads("temporal-image", outcome, {}, intervals=True) == []


def test_a_lead_over_a_guess_has_the_width_of_the_model_alone_and_other_rows_are_refused() -> None:
    hit = (np.arange(40) % 4 > 0).tolist()
    [lead] = leads("temporal-image", Outcome([scored(0.75, hit)]), {"chance": [scored(0.5, None)]}, intervals=True)
    low, high = lead.interval or (1, 0)
    assert low < lead.value == 0.25 < high
    other = replace(scored(0.5, hit), drawn=np.arange(40))
    with pytest.raises(ValueError, match="measured on other rows"):
        leads("temporal-image", Outcome([scored(0.75, hit)]), {"thumbnails": [other]}, intervals=True)


def test_untrained_models_are_averaged_and_a_guess_has_no_spread() -> None:
    one, other = scored(0.4, [True] * 16 + [False] * 24), scored(0.6, [True] * 24 + [False] * 16)
    [mean] = mean_scores([Outcome([one]), Outcome([other])], (3, 4))
    assert (mean.value, mean.seeds) == (0.5, (3, 4))
    assert mean.std == pytest.approx(np.std([0.4, 0.6], ddof=1))
    assert mean.statistic is not None
    assert mean.statistic(np.ones(40)) == pytest.approx(0.5)
    error = replace(one, metric="calibration error")
    [guess] = guesses(Outcome([replace(one, std=0.1, seeds=(1, 2)), error]))
    assert (guess.value, guess.std, guess.seeds) == (0.5, None, ())


def test_a_model_that_reads_the_change_leads_over_thumbnails(
    write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame], model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The whole way: pixels are noise, so that only the features that are put in place of the model's can tell."""
    table = make_comparisons(edema=(16, 16, 16)).with_row_index("place")
    table = table.with_columns(current="place", previous="place").drop("place").cast({"current": pl.Int64})
    cohort = open_cohort(write_cohort("change", "ms-cxr-t", comparisons=table.cast({"previous": pl.Int64})))
    true = np.array(["improving", "stable", "worsening"])[:, None] == table["progression"].to_numpy()
    of_rows = (true.T + 0.5 * np.random.default_rng(0).normal(size=(48, 3))).astype(np.float32)
    images = ModelSubject.images

    def known(self: ModelSubject, cohort: Cohort, rows: list[int], **given: object) -> object:
        found = images(self, cohort, rows)
        trained = not self.model.fingerprint.startswith("untrained")
        return replace(found, embedding=of_rows[np.asarray(rows)]) if trained else found

    monkeypatch.setattr(ModelSubject, "images", known)
    found = evaluate(model_folder, cohort.path, None, question=STRICT, baseline_seeds=(0,))
    [average] = [lead for lead in found["leads"] if lead["finding"] == "average"]
    value = {
        row["model"]: row["value"]
        for row in found["results"]
        if (row["metric"], row["finding"]) == ("macro accuracy", "average")
    }
    assert value["current study alone"] > 0.7  # both studies are the same picture here
    assert average["baseline"] in ("current study alone", "prior study alone")
    assert average["value"] == pytest.approx(
        value["trained"] - max(v for m, v in value.items() if m != "trained"), abs=2e-6
    )
    assert value["thumbnails"] < 0.6
    predicted = [
        (row["progression"], row["predicted"]) for row in found["details"]["temporal-image/ms-cxr-t"]["predictions"]
    ]
    assert balanced_accuracy_score(*zip(*predicted, strict=True)) > 0.6
