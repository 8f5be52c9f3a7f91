"""Exact search against sorting everything, and where embeddings come from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst.app import search
from medst.app.search import SearchIndex, nearest
from medst.app.studies import Backend
from medst.embed import embed
from medst.encode import embed_pairs
from medst.errors import MedstError


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32), st.sets(st.integers(0, 59)))
def test_the_nearest_are_those_of_a_sort(pairs: int, count: int, seed: int, left_out: set[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (pairs, 3)).astype(np.float32)  # whole numbers, so that there are ties
    question = rng.integers(-2, 3, 3).astype(np.float32)
    without = np.array(sorted(i for i in left_out if i < pairs), dtype=np.int64)
    found = nearest(rows, question, count, without)
    cosine = rows @ question
    order = sorted((i for i in range(pairs) if i not in left_out), key=lambda i: (-cosine[i], i))
    assert found == [(i, float(cosine[i])) for i in order[:count]]


def test_the_index_is_the_pairs_embeddings_however_it_is_made(
    backend: Backend, small_model: Path, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BLOCK", 32)
    cohort = backend.cohort
    assert cohort is not None
    assert cohort.pairs is not None
    expected = embed_pairs(backend.model, cohort, cohort.pairs)[0]
    made = SearchIndex(backend.model, cohort, None)
    np.testing.assert_allclose(made.rows(60), expected, atol=1e-5)
    assert made.done == cohort.pairs.height
    embed(small_model, phantom_cohort, tmp_path / "out", rows=30)
    np.testing.assert_allclose(SearchIndex(backend.model, cohort, tmp_path / "out").rows(), expected, atol=1e-5)


def test_a_search_says_how_far_the_index_is(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    assert backend.cohort is not None
    go = Event()
    image_features = search.image_features

    def slow(*args: object, **kwargs: object) -> object:
        go.wait(30)
        return image_features(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "image_features", slow)
    made = SearchIndex(backend.model, backend.cohort, None)
    with pytest.raises(MedstError, match=r"being embedded for the first search: 0 of \d+ studies; ask again"):
        made.rows(0.01)
    go.set()
    assert len(made.rows(30)) > 0


def test_an_index_that_fails_says_so_and_resumes(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.cohort is not None

    monkeypatch.setattr(search, "BLOCK", 32)
    image_features, calls = search.image_features, []

    def fails_once(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError("no room")
        return image_features(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "image_features", fails_once)
    made = SearchIndex(backend.model, backend.cohort, None)
    with pytest.raises(MedstError, match=r"could not be embedded \(MemoryError: no room\); ask again to resume"):
        made.rows(60)
    expected = embed_pairs(backend.model, backend.cohort, made.pairs)[0]
    np.testing.assert_allclose(made.rows(60), expected, atol=1e-5)
    assert len(calls) == -(-made.pairs.height // 32) + 1  # nothing is embedded twice


def test_a_cohort_that_is_too_large(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.cohort is not None
    monkeypatch.setattr(search, "MOST_EMBEDDED", 3)
    with pytest.raises(MedstError, match="too many to embed now; run `medst embed"):
        SearchIndex(backend.model, backend.cohort, None).rows()


def test_embeddings_of_something_else_or_damaged(
    backend: Backend, small_model: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    assert backend.cohort is not None
    whole = tmp_path / "whole"
    embed(small_model, phantom_cohort, whole, rows=40)

    def broken(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        return folder

    said = json.loads((whole / "embed.json").read_text())
    for what in ("model", "cohort"):
        folder = broken(what)
        (folder / "embed.json").write_text(json.dumps(said | {what: "other"}))
        with pytest.raises(MedstError, match=f"embeddings of another {what}"):
            Backend(backend.model, backend.cohort, folder)
    (broken("part") / "part-00001.parquet").unlink()
    with pytest.raises(MedstError, match="no finished embeddings here"):
        Backend(backend.model, backend.cohort, tmp_path / "part")
    (broken("bytes") / "part-00001.parquet").write_bytes(b"garbage")
    with pytest.raises(MedstError, match="the embeddings are damaged"):
        Backend(backend.model, backend.cohort, tmp_path / "bytes")
    for content in (b"", b"[]", b"{", json.dumps(said | {"files": "3"}).encode()):
        (broken(f"json{len(content)}") / "embed.json").write_bytes(content)
        with pytest.raises(MedstError, match=r"embed\.json is damaged"):
            Backend(backend.model, backend.cohort, tmp_path / f"json{len(content)}")
    with pytest.raises(MedstError, match="no finished embeddings here"):
        Backend(backend.model, backend.cohort, tmp_path / "nowhere")
