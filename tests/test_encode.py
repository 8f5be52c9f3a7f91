"""Features computed in batches equal those of one call of the networks, for any rows in any order."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from tests.model.small import frontal_embedding, text_embedding

import medst
from medst import encode
from medst.batch import centre, tokenize
from medst.cohort.store import Cohort
from medst.encode import embed_pairs, embed_prompts, embed_texts, image_features
from medst.errors import MedstError
from medst.model.medst import MedST
from medst.recipes import RECIPES
from medst.use import Model

PAIRS = pl.DataFrame(
    {
        "report": ["left effusion is larger", "smaller effusion", "right effusion"],
        "frontal": [4, 9, 4],
        "lateral": [None, 10, 11],
    }
)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Model:
    return medst.load(small_model, device="cpu")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """48 pictures of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 256, 256), dtype=np.uint8)
    return Cohort(path=Path("noise"), meta={"fingerprint": "noise"}, images=noise, image_table=pl.DataFrame())


def embed_images(model: Model, cohort: Cohort, rows: object) -> np.ndarray:
    return image_features(model, cohort, rows).embedding  # type: ignore[arg-type]


def test_images_are_the_centre_of_the_picture_through_the_frontal_encoder(model: Model, cohort: Cohort) -> None:
    rows = [5, 0, 5, 47]
    pictures = centre(torch.from_numpy(cohort.images[rows]), 224, 32)
    found = embed_images(model, cohort, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, frontal_embedding(model.model, pictures).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_crop_of_training_is_the_crop_of_evaluation(model: Model, cohort: Cohort) -> None:
    narrow = replace(model, recipe=replace(model.recipe, data=replace(model.recipe.data, crop=96)))
    expected = frontal_embedding(model.model, centre(torch.from_numpy(cohort.images[[3]]), 96, 32)).numpy()
    np.testing.assert_allclose(embed_images(narrow, cohort, [3]), expected, atol=1e-6)
    np.testing.assert_allclose(narrow.encode_image(cohort.images[3]).embedding, expected, atol=1e-6)
    assert np.abs(embed_images(model, cohort, [3]) - expected).max() > 1e-3


def test_no_forward_pass_holds_more_than_a_batch_and_none_repeats_an_image(
    model: Model, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = embed_images(model, cohort, range(48))
    sizes: list[int] = []

    def watched(pictures: torch.Tensor, crop: int, size: int) -> torch.Tensor:
        sizes.append(len(pictures))
        return centre(pictures, crop, size)

    monkeypatch.setattr(encode, "BATCH", 10)
    monkeypatch.setattr(encode, "centre", watched)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(48), 5))
    np.testing.assert_allclose(embed_images(model, cohort, rows), at_once[rows], atol=1e-6)
    assert sizes == [10, 10, 10, 10, 8]


def test_a_batch_on_a_cpu_stays_in_its_cache(model: Model) -> None:
    assert encode.batch_size(model) == encode.BATCH
    paper = replace(RECIPES["paper"].model, text=model.recipe.model.text)
    with torch.device("meta"):
        network = MedST(paper, torch.zeros(60, dtype=torch.bool), 3)
    wide = SimpleNamespace(model=network, device=torch.device("cpu"))
    assert encode.batch_size(wide) == 8  # type: ignore[arg-type]


def test_texts_are_returned_in_their_order(model: Model) -> None:
    texts = ["smaller effusion", "left effusion is larger", "smaller effusion", "", "right " * 60]
    found = embed_texts(model, texts)
    for row, text in zip(found, texts, strict=True):
        ids, attention = tokenize(model.tokenizer, [text], 48)
        np.testing.assert_allclose(row, text_embedding(model.model, ids, attention)[0].numpy(), atol=1e-5)
    assert np.array_equal(found[0], found[2])


def test_a_class_is_the_mean_of_its_prompts_before_normalisation(model: Model) -> None:
    prompts = {"none": ["no effusion"], "effusion": ["an effusion", "findings of effusion"]}
    found = embed_prompts(model, prompts)
    np.testing.assert_allclose(found[0], embed_texts(model, ["no effusion"])[0], atol=1e-6)
    with torch.no_grad():
        ids, attention = tokenize(model.tokenizer, prompts["effusion"], 48)
        outputs = model.model.text_global.head(model.model.text(ids, attention)[0]).numpy()
    np.testing.assert_allclose(found[1], outputs.mean(0) / np.linalg.norm(outputs.mean(0)), atol=1e-6)


def test_no_rows_and_no_texts_give_empty_results(model: Model, cohort: Cohort) -> None:
    assert embed_images(model, cohort, []).shape == (0, 16)
    assert embed_texts(model, []).shape == (0, 16)


@pytest.mark.parametrize("row", [-1, 48])
def test_a_missing_row_is_refused(row: int, model: Model, cohort: Cohort) -> None:
    with pytest.raises(MedstError, match="there are 48"):
        embed_images(model, cohort, [0, row])


@pytest.mark.parametrize("phantom_tokens", [False, True])
def test_pairs_equal_the_network_s_own_call(phantom_tokens: bool, model: Model, cohort: Cohort) -> None:
    settings = replace(model.recipe.model, phantom_tokens=phantom_tokens)
    chosen = replace(model, recipe=replace(model.recipe, model=settings)).untrained(5)
    image, report = embed_pairs(chosen, cohort, PAIRS)
    pictures = centre(torch.from_numpy(cohort.images[[4, 9, 4, 10, 11]]), 224, 32)
    ids, attention = tokenize(chosen.tokenizer, PAIRS["report"].to_list(), 48)
    with torch.no_grad():
        expected = chosen.model(pictures[:3], pictures[3:], torch.tensor([1, 2]), ids, attention)
    np.testing.assert_allclose(image, expected.image, atol=1e-5)
    np.testing.assert_allclose(report, expected.report, atol=1e-5)
    np.testing.assert_allclose(image[0], embed_images(chosen, cohort, [4])[0], atol=1e-5)
    alone, _ = embed_pairs(chosen, cohort, PAIRS[[1]])
    np.testing.assert_allclose(image[1], alone[0], atol=1e-5)


def test_the_mean_patch_counts_only_the_views_that_exist(model: Model, cohort: Cohort) -> None:
    found = image_features(model, cohort, [4, 9], laterals=[-1, 10])
    for row, (frontal, lateral) in enumerate([(4, None), (9, 10)]):
        images = model.encode_image(cohort.images[frontal], None if lateral is None else cohort.images[lateral])
        seen = images.patches[0] if lateral is not None else images.patches[0, :1]
        np.testing.assert_allclose(found.patches[row], seen.flatten(0, -2).mean(0), atol=1e-5)
        np.testing.assert_allclose(found.embedding[row], images.embedding[0], atol=1e-5)
    assert found.feature.shape == (2, 32)
    both = found.select("both")
    np.testing.assert_array_equal(both, np.concatenate([found.select("global"), found.select("patches")], axis=1))


def test_cached_features_are_read(
    model: Model, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "features"
    first = image_features(model, cohort, [3, 9, 3], cache=cache)
    assert len(list(cache.iterdir())) == 1
    (cache / "torn.part").write_bytes(b"x")
    encoded: list[int] = []
    encode_pictures = encode.encode_pictures
    monkeypatch.setattr(
        encode, "encode_pictures", lambda *given: encoded.append(len(given[1])) or encode_pictures(*given)
    )
    again = image_features(model, cohort, [9, 3], cache=cache)
    assert encoded == []
    np.testing.assert_array_equal(again.embedding, first.embedding[[1, 0]])
    np.testing.assert_array_equal(again.patches, first.patches[[1, 0]])
    image_features(replace(model, fingerprint="another"), cohort, [3, 9], cache=cache)
    image_features(model, cohort, [3, 9], cache=cache, precision="bf16")
    image_features(model, cohort, [3, 9], cache=cache, laterals=[-1, 4])
    assert encoded == [2, 2, 2]
    monkeypatch.setattr(encode, "NUMERICS", encode.NUMERICS + 1)
    image_features(model, cohort, [3, 9], cache=cache)
    assert encoded == [2, 2, 2, 2]


@pytest.mark.parametrize("length", [0, 5, 60, 300, None])
def test_a_damaged_cache_file_is_computed_again(
    length: int | None, model: Model, cohort: Cohort, tmp_path: Path
) -> None:
    cache = tmp_path / "features"
    first = image_features(model, cohort, [3, 9], cache=cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(b"PK" + content[2:] if length is None else content[:length])
    again = image_features(model, cohort, [3, 9], cache=cache)
    np.testing.assert_array_equal(again.embedding, first.embedding)
    assert file.read_bytes() == content


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_cache_file(
    model: Model, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, opened = tmp_path / "features", Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *mode: opened(Path("/dev/full") if path.suffix == ".part" else path, *mode)
    )
    with pytest.raises(OSError, match="No space left"):
        image_features(model, cohort, [3, 9], cache=cache)
    assert not list(cache.iterdir())
