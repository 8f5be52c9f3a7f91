"""Embeddings of a cohort as Parquet: those of one call, and the same files after a stop."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import medst
from medst import embed as module
from medst import weights
from medst.cohort.store import open_cohort
from medst.embed import embed
from medst.encode import embed_pairs, image_features
from medst.errors import MedstError
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer


@pytest.fixture(scope="module")
def model(phantom_cohort: Path, small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed") / "best"
    tokenizer = learn_tokenizer(open_cohort(phantom_cohort).pairs["report"], 200)
    made, objective = weights.build(small_recipe, tokenizer)
    weights.save(folder, made, objective, tokenizer, small_recipe)
    return folder


def test_pairs_are_embedded_as_in_one_call(model: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    told = embed(model, phantom_cohort, tmp_path / "out", rows=30, progress=lambda *given: said.append(given))
    cohort = open_cohort(phantom_cohort)
    table = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert told["rows"] == table.height == cohort.pairs.height
    assert said[-1][:2] == (table.height, table.height)
    assert len(said) == told["files"] == -(-table.height // 30)
    image, report = embed_pairs(medst.load(model), cohort, cohort.pairs)
    np.testing.assert_allclose(np.array(table["image"].to_list()), image, atol=1e-5)
    np.testing.assert_allclose(np.array(table["report"].to_list()), report, atol=1e-5)
    assert table["study_id"].equals(cohort.pairs["study_id"])


def test_cohorts_without_pairs_are_embedded_by_image(model: Path, phantom_comparisons: Path, tmp_path: Path) -> None:
    embed(model, phantom_comparisons, tmp_path / "out")
    cohort = open_cohort(phantom_comparisons)
    table = pl.read_parquet(tmp_path / "out" / "*.parquet")
    expected = image_features(medst.load(model), cohort, range(len(cohort.images))).embedding
    np.testing.assert_allclose(np.array(table["image"].to_list()), expected, atol=1e-5)
    assert table["image_id"].equals(cohort.image_table["image_id"])


def test_a_resumed_job_gives_the_same_bytes(model: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    embed(model, phantom_cohort, calm, rows=25)

    def stop(done: int, total: int, note: str) -> None:
        if note == "part-00001.parquet":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, phantom_cohort, stopped, rows=25, progress=stop)
    (stopped / "part-00002.part").write_bytes(b"torn")
    kept = (stopped / "part-00000.parquet").stat().st_mtime_ns
    embed(model, phantom_cohort, stopped, rows=25)
    assert (stopped / "part-00000.parquet").stat().st_mtime_ns == kept
    assert {p.name: p.read_bytes() for p in stopped.iterdir()} == {p.name: p.read_bytes() for p in calm.iterdir()}


def test_leftovers_and_damaged_parts_are_replaced(model: Path, phantom_comparisons: Path, tmp_path: Path) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    embed(model, phantom_comparisons, calm, rows=40)
    out.mkdir()
    for name in ("embed.json.part", "embed.json.9.part", ".lock"):
        (out / name).touch()
    embed(model, phantom_comparisons, out, rows=40)
    whole = (out / "part-00000.parquet").read_bytes()
    for content in (b"", whole[:-9], whole[len(whole) // 2 :]):
        (out / "part-00000.parquet").write_bytes(content)
        embed(model, phantom_comparisons, out, rows=40)
        assert {p.name: p.read_bytes() for p in out.glob("[!.]*")} == {p.name: p.read_bytes() for p in calm.iterdir()}
    for content in (b"", b"[]", b"{"):
        (out / "embed.json").write_bytes(content)
        with pytest.raises(MedstError, match=r"embed\.json is damaged"):
            embed(model, phantom_comparisons, out, rows=40)


def test_a_job_resumes_with_another_package_and_not_with_other_numerics(
    model: Path, phantom_comparisons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    embed(model, phantom_comparisons, out)
    said = json.loads((out / "embed.json").read_text())
    (out / "embed.json").write_text(json.dumps(said | {"medst_version": "0.0.9"}))
    (out / "part-00000.parquet").unlink()
    embed(model, phantom_comparisons, out)
    assert (out / "part-00000.parquet").exists()
    monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
    with pytest.raises(MedstError, match="embeddings of another numerics"):
        embed(model, phantom_comparisons, out)


def test_a_folder_with_something_else_is_refused(
    model: Path, phantom_cohort: Path, phantom_comparisons: Path, tmp_path: Path
) -> None:
    embed(model, phantom_comparisons, tmp_path / "out")
    with pytest.raises(MedstError, match="embeddings of another cohort"):
        embed(model, phantom_cohort, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(MedstError, match="does not hold embeddings"):
        embed(model, phantom_cohort, tmp_path / "mine")
    with pytest.raises(MedstError, match="rows is 0"):
        embed(model, phantom_cohort, tmp_path / "new", rows=0)
    assert not (tmp_path / "new").exists()
