"""Embeddings by the batch are those of one call, whatever is asked for and in whatever order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from medst import encode as features
from medst.batch import centre, tokenize
from medst.cohort.store import Cohort, open_cohort
from medst.encode import embed_images, embed_pairs, embed_texts, image_features
from medst.errors import MedstError
from medst.evaluate.task import Question
from medst.weights import Loaded


def test_images_are_the_centre_of_the_picture_through_the_frontal_encoder(loaded: Loaded, benchmark: Cohort) -> None:
    rows = [5, 0, 5, 47]
    pictures = centre(torch.from_numpy(benchmark.images[rows]), 224, 32)
    found = embed_images(loaded, benchmark, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, loaded.model.embed_frontal(pictures).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_recipe_s_crop_is_what_is_seen(loaded: Loaded, benchmark: Cohort) -> None:
    narrow = replace(loaded, recipe=replace(loaded.recipe, data=replace(loaded.recipe.data, crop=96)))
    expected = loaded.model.embed_frontal(centre(torch.from_numpy(benchmark.images[[3]]), 96, 32)).numpy()
    np.testing.assert_allclose(embed_images(narrow, benchmark, [3]), expected, atol=1e-6)
    assert np.abs(embed_images(loaded, benchmark, [3]) - expected).max() > 1e-3


def test_no_forward_pass_holds_more_than_a_batch_and_none_repeats_an_image(
    loaded: Loaded, benchmark: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed_images(loaded, benchmark, range(48))
    sizes: list[int] = []

    def watched(pictures: torch.Tensor, crop: int, size: int) -> torch.Tensor:
        sizes.append(len(pictures))
        return centre(pictures, crop, size)

    monkeypatch.setattr(features, "BATCH", 10)
    monkeypatch.setattr(features, "centre", watched)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(48), 5))
    np.testing.assert_allclose(embed_images(loaded, benchmark, rows), whole[rows], atol=1e-6)
    assert sizes == [10, 10, 10, 10, 8]


def test_texts_come_back_in_their_own_order(loaded: Loaded) -> None:
    texts = ["smaller effusion", "left effusion is larger", "smaller effusion", "", "right " * 40]
    found = embed_texts(loaded, texts)
    for row, text in zip(found, texts, strict=True):
        ids, attention = tokenize(loaded.tokenizer, [text], 16)
        np.testing.assert_allclose(row, loaded.model.embed_text(ids, attention)[0].numpy(), atol=1e-5)
    assert np.array_equal(found[0], found[2])


def test_nothing_asked_for_is_nothing_found(loaded: Loaded, benchmark: Cohort) -> None:
    assert embed_images(loaded, benchmark, []).shape == (0, 8)
    assert embed_texts(loaded, []).shape == (0, 8)


@pytest.mark.parametrize("row", [-1, 48])
def test_a_row_that_is_not_there_is_refused(row: int, loaded: Loaded, benchmark: Cohort) -> None:
    with pytest.raises(MedstError, match="there are 48"):
        embed_images(loaded, benchmark, [0, row])


def test_pairs_take_their_lateral_where_there_is_one(loaded: Loaded, write_cohort: Callable[..., Path]) -> None:
    pairs = pl.DataFrame(
        {
            "patient_id": "p1",
            "study_id": ["s1", "s2", "s3"],
            "time": datetime(2150, 1, 1),
            "split": "test",
            "report": ["left effusion is larger", "smaller effusion", "right effusion"],
            "frontal": [4, 9, 4],
            "lateral": [None, 10, 11],
        }
    )
    cohort = open_cohort(write_cohort("pairs", "mimic-cxr", pairs=pairs))
    image, report = embed_pairs(loaded, cohort, pairs)
    np.testing.assert_allclose(image[0], embed_images(loaded, cohort, [4])[0], atol=1e-5)
    assert np.abs(image[0] - image[2]).max() > 1e-3
    np.testing.assert_allclose(report, embed_texts(loaded, pairs["report"].to_list()), atol=1e-5)
    alone, _ = embed_pairs(loaded, cohort, pairs[[1]])
    np.testing.assert_allclose(image[1], alone[0], atol=1e-5)


def test_with_a_cache_what_was_asked_once_is_read(
    loaded: Loaded, benchmark: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Question(cache=tmp_path / "features")
    first = image_features(loaded, benchmark, [3, 9, 3], question)
    assert len(list((tmp_path / "features").iterdir())) == 1
    (tmp_path / "features" / "torn.part").write_bytes(b"x")
    encoded: list[int] = []
    encode = features._Encoder.__call__
    monkeypatch.setattr(
        features._Encoder, "__call__", lambda self, batch: encoded.append(len(batch)) or encode(self, batch)
    )
    again = image_features(loaded, benchmark, [9, 3], question)
    assert encoded == []
    np.testing.assert_array_equal(again.embedding, first.embedding[[1, 0]])
    np.testing.assert_array_equal(again.patches, first.patches[[1, 0]])
    for other in (replace(loaded, fingerprint="another"), loaded):
        precision = "fp32" if other is not loaded else "bf16"
        image_features(other, benchmark, [3, 9], replace(question, precision=precision))
    image_features(loaded, benchmark, [3, 9], question, laterals=[-1, 4])
    assert encoded == [2, 2, 2]
    monkeypatch.setattr(features, "NUMERICS", features.NUMERICS + 1)
    image_features(loaded, benchmark, [3, 9], question)
    assert encoded == [2, 2, 2, 2]


@pytest.mark.parametrize("length", [0, 5, 60, 300, None])
def test_a_damaged_cache_file_is_computed_again(
    length: int | None, loaded: Loaded, benchmark: Cohort, tmp_path: Path
) -> None:
    question = Question(cache=tmp_path / "features")
    first = image_features(loaded, benchmark, [3, 9], question)
    (file,) = (tmp_path / "features").iterdir()
    whole = file.read_bytes()
    file.write_bytes(b"PK" + whole[2:] if length is None else whole[:length])
    again = image_features(loaded, benchmark, [3, 9], question)
    np.testing.assert_array_equal(again.embedding, first.embedding)
    assert file.read_bytes() == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_cache_file(
    loaded: Loaded, benchmark: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, opened = tmp_path / "features", Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *mode: opened(Path("/dev/full") if path.suffix == ".part" else path, *mode)
    )
    with pytest.raises(OSError, match="No space left"):
        image_features(loaded, benchmark, [3, 9], Question(cache=cache))
    assert not list(cache.iterdir())


def test_a_study_with_its_lateral_is_what_the_model_makes_of_the_pair(
    loaded: Loaded, write_cohort: Callable[..., Path]
) -> None:
    pairs = pl.DataFrame({"report": "effusion", "frontal": [4, 9, 4], "lateral": [None, 10, 11]})
    cohort = open_cohort(write_cohort("pairs", "mimic-cxr", pairs=pairs))
    found = image_features(loaded, cohort, [4, 9, 4], laterals=[-1, 10, 11])
    np.testing.assert_allclose(found.embedding, embed_pairs(loaded, cohort, pairs)[0], atol=1e-5)
    assert found.feature.shape == (3, 32)
    both = found.of("both")
    np.testing.assert_array_equal(both, np.concatenate([found.of("global"), found.of("patches")], axis=1))
