"""The calls of a loaded model, compared with the tensors below them."""

import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.small import frontal_embedding

import medst
from medst.batch import centre
from medst.cohort.store import Cohort, open_cohort
from medst.distributed import default_device
from medst.encode import BATCH, embed_pairs, embed_texts
from medst.errors import MedstError
from medst.recipes.settings import Recipe
from medst.use import Grounding, Model, Study, stored_picture
from medst.use.outputs import HeatMap
from medst.weights import build

PAIRS = BATCH + 5
TEXTS = ["There is a right pleural effusion.", "no pneumonia", "edema", "no pneumonia"]


@pytest.fixture(scope="module")
def model(small_model: Path) -> Model:
    return medst.load(small_model)


@pytest.fixture(scope="module")
def cohort(phantom_cohort: Path) -> Cohort:
    return open_cohort(phantom_cohort)


@pytest.fixture(scope="module")
def pairs(cohort: Cohort) -> pl.DataFrame:
    assert cohort.pairs is not None
    chosen = cohort.pairs.head(PAIRS)
    assert chosen["lateral"].is_null().any()
    assert chosen["lateral"].is_not_null().any()
    return chosen


@pytest.fixture(scope="module")
def studies(cohort: Cohort, pairs: pl.DataFrame) -> list[Study]:
    def picture(row: int) -> medst.Picture:
        sizes = cohort.image_table
        return stored_picture(cohort.images[row], sizes["height"][row], sizes["width"][row])

    return [
        Study(picture(p["frontal"]), None if p["lateral"] is None else picture(p["lateral"]), p["time"], p["report"])
        for p in pairs.iter_rows(named=True)
    ]


def test_embeddings_are_those_of_the_evaluation(
    model: Model, cohort: Cohort, pairs: pl.DataFrame, studies: list[Study]
) -> None:
    image, report = embed_pairs(model, cohort, pairs)
    np.testing.assert_allclose(model.encode_image(studies).embedding, image, atol=1e-5)
    texts = pairs["report"].to_list()
    np.testing.assert_allclose(model.encode_text(texts).embedding, report, atol=1e-5)
    np.testing.assert_allclose(model.encode_text(texts).embedding, embed_texts(model, texts), atol=1e-5)


def test_results_are_the_same_alone_and_in_a_batch(model: Model, studies: list[Study]) -> None:
    together, texts = model.encode_image(studies), model.encode_text(TEXTS)
    for i, study in enumerate(studies[:12]):
        alone = model.encode_image(study)
        torch.testing.assert_close(alone.embedding[0], together.embedding[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.patches[0], together.patches[i], atol=1e-5, rtol=0)
        assert bool(alone.has_lateral[0]) == (study.lateral is not None)
        apart = model.encode_image(study.frontal, study.lateral)
        torch.testing.assert_close(apart.embedding, alone.embedding, atol=0, rtol=0)
    for i, text in enumerate(TEXTS):
        alone_text = model.encode_text(text)
        count = alone_text.words.shape[1]
        torch.testing.assert_close(alone_text.embedding[0], texts.embedding[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone_text.words[0], texts.words[i, :count], atol=1e-5, rtol=0)
        assert not texts.words[i, count:].any()
        assert texts.word_mask[i].sum() == alone_text.word_mask.sum() == count


def test_shapes_and_lengths(model: Model, studies: list[Study]) -> None:
    images, texts = model.encode_image(studies), model.encode_text(TEXTS)
    assert (len(images), len(texts)) == (PAIRS, 4)
    assert images.patches.shape == (PAIRS, 2, 2, 2, 16)
    assert not images.patches[~images.has_lateral, 1].any()
    seen = torch.cat([images.patches[:, 0].flatten(0, 2), images.patches[images.has_lateral, 1].flatten(0, 2)])
    for unit in (images.embedding, texts.embedding, seen, texts.words[texts.word_mask]):
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(len(unit)))
    assert model.similarity(studies, TEXTS).shape == (PAIRS, 4)
    assert model.similarity(studies[0], TEXTS[0]).shape == (1, 1)
    assert model.encode_image([]).embedding.shape == (0, 16)
    assert model.encode_text([]).embedding.shape == (0, 16)


def test_embeddings_can_be_trained_on(model: Model, studies: list[Study]) -> None:
    probe = torch.nn.Linear(16, 1)
    probe(model.encode_image(studies[:2]).embedding).sum().backward()
    assert probe.weight.grad is not None


def test_tensors_of_four_dimensions_are_several_pictures(model: Model) -> None:
    several = torch.rand(3, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    assert len(model.encode_image(several)) == 3
    assert len(model.encode_image(several, [None, several[0], None])) == 3
    assert len(model.encode_image(several[0])) == 1


def test_a_heat_map_is_the_mean_cosine_of_words_and_patches(model: Model, studies: list[Study]) -> None:
    chosen = [next(s for s in studies if s.lateral is None), next(s for s in studies if s.lateral is not None)]
    alone, both = model.ground(chosen, TEXTS[0])
    assert alone.lateral is None
    assert isinstance(both, Grounding)
    assert both.lateral is not None
    words = model.encode_text(TEXTS[0]).words[0]
    for found, study in ((alone, chosen[0]), (both, chosen[1])):
        images = model.encode_image(study)
        for grid, view in ((found.frontal.grid, 0), *(((found.lateral.grid, 1),) if found.lateral else ())):
            expected = [[(words @ patch).mean() for patch in row] for row in images.patches[0, view]]
            np.testing.assert_allclose(grid, np.array(expected), atol=1e-6)
        assert found.similarity == pytest.approx(float(model.similarity(study, TEXTS[0])), abs=1e-6)
        assert isinstance(study.frontal, medst.Picture)
        assert found.frontal.pixels().shape == study.frontal.original.shape == found.frontal.shape
    assert max(both.lateral.pixels(60).shape) == 60


def test_a_heat_map_follows_the_picture(model: Model) -> None:
    """If the left and right halves of a picture change places, so do those of its map."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    model_of_pixels = model.model.vision.pos_embed.detach().clone()
    try:
        with torch.no_grad():
            model.model.vision.pos_embed.zero_()
        whole = np.kron(noise, np.ones((4, 4), dtype=np.uint8))
        inner = whole[16:240, 16:240]
        swapped = whole.copy()
        swapped[16:240, 16:240] = np.roll(inner, 112, axis=1)
        grids = [model.ground(picture, "edema")[0].frontal.grid for picture in (whole, swapped)]
    finally:
        with torch.no_grad():
            model.model.vision.pos_embed.copy_(model_of_pixels)
    np.testing.assert_allclose(grids[0][:, ::-1], grids[1], atol=1e-5)
    assert np.ptp(grids[0]) > 1e-3


@given(st.integers(0, 13), st.integers(0, 13), st.integers(40, 300), st.integers(40, 300))
@settings(max_examples=30)
def test_the_peak_is_inside_its_patch(row: int, column: int, height: int, width: int) -> None:
    grid = np.zeros((14, 14), dtype=np.float32)
    grid[row, column] = 1
    heat = HeatMap(grid, medst.use.geometry.Geometry(height, width), 224)
    pixels = np.nan_to_num(heat.pixels(), nan=-1)
    assert pixels[heat.peak] == pixels.max()


def test_a_timeline_is_in_time_order(model: Model, studies: list[Study]) -> None:
    chosen = studies[:4]
    line = model.timeline(chosen[::-1], TEXTS)
    times = [study.time for study in line.studies]
    assert times == sorted(study.time for study in chosen if study.time is not None)
    torch.testing.assert_close(line.similarity, model.similarity(list(line.studies), TEXTS), atol=1e-6, rtol=0)
    timeless = [Study(study.frontal) for study in chosen[::-1]]
    assert [s.frontal for s in model.timeline(timeless, "edema").studies] == [s.frontal for s in timeless]


def test_a_study_takes_its_time_as_text_and_date_and_sorts_by_it(model: Model, studies: list[Study]) -> None:
    picture = studies[0].frontal
    times = ["2150-03-01T10:30", date(2150, 3, 1), " 2150-12-01 ", datetime(2150, 4, 1), "21500301T09"]
    line = model.timeline([Study(picture, time=time) for time in times], "edema")
    assert [study.time for study in line.studies] == [
        datetime(2150, 3, 1), datetime(2150, 3, 1, 9), datetime(2150, 3, 1, 10, 30), datetime(2150, 4, 1),
        datetime(2150, 12, 1),
    ]  # fmt: skip
    assert replace(Study(picture, time="2150-03-01"), name="a").time == datetime(2150, 3, 1)
    for bad in ("yesterday", "", 2150, "01.03.2150"):
        with pytest.raises(MedstError, match=r"a study's time is '.*'; give a datetime, or a text such as 2150-03-01"):
            Study(picture, time=bad)  # type: ignore[arg-type]
    with pytest.raises(MedstError, match="have a time zone and others don't"):
        model.timeline([Study(picture, time=time) for time in ("2150-03-01", "2150-03-01T10:00+02:00")], "edema")


def test_the_repr_of_a_model_is_one_line(model: Model) -> None:
    assert re.fullmatch(
        r"<Model: recipe tiny, 0\.\d M parameters, ViT 32 x 2 at 32 px, BERT 32 x 1 with \d+ word pieces, on cpu, "
        r"weights [0-9a-f]{12}>",
        repr(model),
    )


def test_a_dicom_file_and_its_array(model: Model, tmp_path: Path) -> None:
    from medst_phantom.others import write_tree

    write_tree("rsna", tmp_path / "rsna", patients=8, seed=0, workers=1)
    file = next((tmp_path / "rsna").rglob("*.dcm"))
    of_file = model.encode_image(file)
    torch.testing.assert_close(
        model.encode_image(medst.use.read_picture(file).original).embedding, of_file.embedding, atol=0, rtol=0
    )


def test_the_squares_are_cut_and_scaled_as_in_evaluation(model: Model, studies: list[Study]) -> None:
    assert isinstance(studies[0].frontal, medst.Picture)
    pixels = centre(torch.from_numpy(studies[0].frontal.square)[None], 224, 32)
    expected = frontal_embedding(model.model, pixels)
    torch.testing.assert_close(model.encode_image(studies[0].frontal).embedding, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s: m.encode_image([s[0], s[1].frontal]), "give studies alone"),
        (lambda m, s: m.encode_image(s[0], s[1].frontal), "give studies alone"),
        (lambda m, s: m.encode_image([s[0].frontal] * 2, [None]), "2 frontal but 1 lateral views"),
        (lambda m, s: m.encode_image([s[0].frontal, "x.jpg"]), r"pair 2 of 2: x\.jpg: no such file\."),
        (lambda m, s: m.encode_text(["edema", " "]), "text 2 of 2 is empty"),
        (lambda m, s: m.encode_text([None]), "text 1 of 1 is empty or not a string"),
        (lambda m, s: m.encode_text("\ud800"), "half a surrogate pair"),
        (lambda m, s: m.encode_text(None), "a string or several, not NoneType"),
        (lambda m, s: m.ground(s[0], 5), "a string or several, not int"),
        (lambda m, s: m.similarity(s[0], m.encode_image(s[0])), "a string or several, not ImageEmbeddings"),
        (lambda m, s: m.compare(s[0], s[1], None), "name a finding"),
        (lambda m, s: m.compare(None, s[1], "edema"), "a picture is a path, .* not NoneType"),
        (lambda m, s: m.compare(s[0], s[1], ["edema"]), "name a finding"),
        (lambda m, s: m.timeline(["x.jpg"], "edema"), r"x\.jpg: no such file"),
        (lambda m, s: m.encode_image(torch.zeros(2, 1, 40, 40).to_sparse()), "give a dense one"),
        (lambda m, s: Study(s[0].frontal, time=b"2150-03-01"), "a study's time is"),
        (lambda m, s: medst.load(None), "model is None; give a path or a hub id"),  # type: ignore[arg-type]
        (lambda m, s: medst.load("/dev/null"), "model /dev/null: not a regular file"),
        (lambda m, s: m.ground(s[0], m.encode_text(["edema", "pneumonia"])), "ground takes one phrase, not 2"),
        (lambda m, s: m.compare(s[:2], s[0], "edema"), "one prior and one current study, not 2 and 1"),
        (lambda m, s: m.compare(s[0], s[1], " _ "), "name a finding"),
        (lambda m, s: m.timeline([], "edema"), "needs at least one study"),
        (lambda m, s: m.timeline([s[0], Study(s[1].frontal)], "edema"), "1 of 2 studies have no time"),
    ],
)
def test_refusals(model: Model, studies: list[Study], call: object, message: str) -> None:
    with pytest.raises(MedstError, match=message):
        call(model, studies)  # type: ignore[operator]


def test_the_default_device_is_that_of_pretrain(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert medst.load(small_model).device == default_device()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("meta"))
    assert medst.load(small_model).device.type == "meta"


def test_a_model_folder_with_another_tokenizer_is_refused(small_model: Path) -> None:
    with pytest.raises(MedstError, match="which has its own tokenizer; leave tokenizer out"):
        medst.load(small_model, tokenizer=small_model)


def test_frontal_views_alone_are_a_timeline_in_the_given_order(model: Model, studies: list[Study]) -> None:
    views = [studies[1].frontal, studies[0].frontal]
    line = model.timeline(views, ["edema"])
    assert [study.frontal for study in line.studies] == views
    torch.testing.assert_close(line.similarity, model.similarity(views, ["edema"]))


def test_a_missing_device_is_refused(small_model: Path) -> None:
    with pytest.raises(MedstError, match="device 'cuda:99' can't be used here"):
        medst.load(small_model, device="cuda:99")


def test_from_pretrained_gives_a_model_with_its_calls(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    again = Model.from_pretrained(str(tmp_path / "saved"))
    assert isinstance(again, Model)
    torch.testing.assert_close(again.encode_text("edema").embedding, model.encode_text("edema").embedding)


def test_swapping_studies_reverses_the_progression(model: Model, studies: list[Study]) -> None:
    there = model.compare(studies[0], studies[1], "pleural_effusion")
    back = model.compare(studies[1], studies[0], "pleural effusion")
    assert there.improving == pytest.approx(back.worsening)
    assert there.stable == pytest.approx(back.stable)
    assert there.change == pytest.approx(-back.change)
    assert there.improving + there.stable + there.worsening == pytest.approx(1)
    same = model.compare(studies[0], studies[0], "edema")
    assert same.most_likely == "stable"
    assert same.improving == pytest.approx(same.worsening)


def test_progression_equals_the_formula(model: Model, studies: list[Study]) -> None:
    def mean(texts: list[str]) -> np.ndarray:
        rows = np.mean([np.asarray(model.encode_text(text).embedding[0]) for text in texts], axis=0)
        return rows / np.linalg.norm(rows)

    there = mean(["there is edema", "edema is present", "edema", "findings consistent with edema"])
    none = mean(["there is no edema", "no edema", "no evidence of edema", "edema has resolved"])
    x, y = (np.asarray(model.encode_image(study).embedding[0]) for study in studies[:2])
    prior, current = x @ there - x @ none, y @ there - y @ none
    logits = np.array([prior - current, 0.05, current - prior]) / 0.07
    shares = np.exp(logits) / np.exp(logits).sum()
    found = model.compare(studies[0], studies[1], "edema")
    assert (found.improving, found.stable, found.worsening) == pytest.approx(tuple(shares), abs=1e-5)
    assert (found.prior, found.current) == pytest.approx((prior, current), abs=1e-5)


def test_with_phantom_tokens_results_are_the_same_alone_and_in_a_batch(
    model: Model, studies: list[Study], small_recipe: Recipe
) -> None:
    """Phantom tokens stand for missing laterals, as released."""
    recipe = replace(small_recipe, model=replace(small_recipe.model, phantom_tokens=True))
    torch.manual_seed(5)
    released = Model(build(recipe, model.tokenizer)[0].eval(), None, model.tokenizer, recipe, "released")
    together = released.encode_image(studies[:12])
    assert together.has_lateral.any()
    assert not together.has_lateral.all()
    for i, study in enumerate(studies[:12]):
        alone = released.encode_image(study)
        torch.testing.assert_close(alone.embedding[0], together.embedding[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.patches[0], together.patches[i], atol=1e-5, rtol=0)
