"""Another model's embeddings: measured as a medst model's own, and every fault of a file is one sentence."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.evaluate.conftest import SENTENCES, comparisons_of

from medst.cli import main
from medst.cohort.report_text import clean
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.embeddings import read_embeddings
from medst.evaluate.probe import probe
from medst.evaluate.results import read_results
from medst.evaluate.retrieval import retrieval
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, STRICT, Question
from medst.evaluate.temporal_image import features_of
from medst.evaluate.zero_shot import zero_shot
from medst.files import sha256
from medst.use import Model

WRITTEN = sorted({sentence[side] for sentence in SENTENCES for side in ("sentence_1", "sentence_2")})
IMAGES = pl.DataFrame({"row": range(48), "image_id": [f"i{row}" for row in range(48)]})
Write = Callable[..., Path]


@pytest.fixture
def folder(write_cohort: Write) -> Path:
    """A benchmark cohort whose images have ids."""
    table = comparisons_of(edema=(12, 14, 11), pneumothorax=(15, 10, 13))
    return write_cohort("named", "ms-cxr-t", images=IMAGES, comparisons=table, sentences=pl.DataFrame(SENTENCES))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, rows: Any, **keys: Any) -> Path:
        vector = rows.astype(np.float64).tolist() if isinstance(rows, np.ndarray) else rows
        pl.DataFrame({**keys, "vector": vector}).write_parquet(tmp_path / name)
        return tmp_path / name

    return write


def drawn(rows: int, dim: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim))


def numbers(results: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    return [row for row in results["results"] if row["model"] in names]


@pytest.mark.parametrize("question", [PAPER, pytest.param(STRICT, marks=pytest.mark.slow)], ids=["paper", "strict"])
def test_a_models_own_embeddings_give_its_own_numbers(
    question: Question, folder: Path, model_folder: Path, loaded: Model, write: Write
) -> None:
    subject, cohort = ModelSubject(loaded), open_cohort(folder)
    files = [
        write("images.parquet", subject.images(cohort, range(48)).embedding, id=IMAGES["image_id"]),
        write("texts.parquet", subject.texts([clean(text, fewest_words=1) for text in WRITTEN]), id=WRITTEN),
    ]
    found = evaluate(read_embeddings(files), folder, None, question=question)
    own = evaluate(model_folder, folder, None, question=question, baseline_seeds=(0,))
    names = ("trained", "majority answer", "thumbnails", "current study alone", "prior study alone", "tf-idf")
    assert {row["model"] for row in found["results"]} == {*names, "token overlap"}
    assert numbers(found, *names) == numbers(own, *names)
    assert found["model"]["recipe"] == "embeddings"
    assert found["leaks"] == {"ms-cxr-t": "unknown"}
    assert found["leads"]
    assert found["left_out"] == own["left_out"]


def test_vectors_of_pairs_are_used_as_they_are_for_both_orders(folder: Path, write: Write) -> None:
    cohort = open_cohort(folder)
    table = cohort.comparisons
    ids = [(f"i{one}", f"i{two}") for one, two in table.select("current", "previous").iter_rows()]
    every = [*dict.fromkeys(ids + [(two, one) for one, two in ids])]
    rows = drawn(len(every))
    both = read_embeddings([write("both.parquet", rows, current=[a for a, _ in every], prior=[b for _, b in every])])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    place = {pair: row for row, pair in enumerate(every)}
    features, swapped = features_of(both, cohort, table, STRICT)
    np.testing.assert_allclose(features, unit[[place[pair] for pair in ids]], rtol=1e-6)
    np.testing.assert_allclose(swapped, unit[[place[two, one] for one, two in ids]], rtol=1e-6)

    found = evaluate(both, folder, None, question=PAPER)
    assert {row["model"] for row in found["results"]} == {"trained", "majority answer", "thumbnails"}
    assert "swap consistency" in {row["metric"] for row in numbers(found, "trained")}
    [left] = found["left_out"]
    assert left["task"] == "temporal-text"
    assert "no vector for" in left["reason"]

    kept = [*dict.fromkeys(ids)]
    rows = rows[[place[pair] for pair in kept]]
    one_way = read_embeddings([write("one.parquet", rows, current=[a for a, _ in kept], prior=[b for _, b in kept])])
    alone = evaluate(one_way, folder, None, tasks=["temporal-image"], question=PAPER)
    assert numbers(alone, "trained") == [r for r in numbers(found, "trained") if r["metric"] != "swap consistency"]
    [left] = alone["left_out"]
    assert left["finding"] == "swap consistency"
    assert "swapped pairs" in left["reason"]


def test_pairs_and_single_images_together_have_both_studies_alone(folder: Path, write: Write) -> None:
    table = open_cohort(folder).comparisons
    ids = [*dict.fromkeys((f"i{one}", f"i{two}") for one, two in table.select("current", "previous").iter_rows())]
    pairs = write("pairs.parquet", drawn(len(ids), 9), current=[a for a, _ in ids], prior=[b for _, b in ids])
    images = write("images.parquet", drawn(48, 5), id=IMAGES["image_id"])
    found = evaluate(read_embeddings([pairs, images]), folder, None, tasks=["temporal-image"], question=PAPER)
    assert {"current study alone", "prior study alone"} <= {row["model"] for row in found["results"]}
    lacking = read_embeddings([pairs, write("few.parquet", drawn(47, 5), id=IMAGES["image_id"][1:])])
    with pytest.raises(MedstError, match=r"few.parquet has no vector for 1 of \d+ images of named, such as i0\."):
        evaluate(lacking, folder, None, tasks=["temporal-image"], question=PAPER)


def test_a_sentence_is_found_as_written_or_cleaned(write: Write) -> None:
    rows = drawn(3)
    found = read_embeddings([write("a.parquet", rows, id=["The Edema is worse.", "clear lungs", "No effusion!"])])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for texts in (["the edema is worse", "no effusion"], ["The Edema is worse.", "No effusion!"]):
        np.testing.assert_allclose(found.texts(texts), unit[[0, 2]], rtol=1e-6)
    mean = (unit[0] + unit[1]) / 2
    prompts = found.prompts({"a": ["The Edema is worse.", "clear lungs"], "b": ["No effusion!"]})
    np.testing.assert_allclose(prompts, [mean / np.linalg.norm(mean), unit[2]], rtol=1e-5)
    with pytest.raises(MedstError, match=r"no vector for 2 of 2 sentences, such as edema, normal\."):
        found.prompts({"a": ["edema"], "b": ["normal"]})


def test_sentences_that_clean_alike_need_the_same_vector(write: Write) -> None:
    same = read_embeddings([write("a.parquet", np.ones((2, 4)), id=["No edema.", "no edema!"])])
    np.testing.assert_allclose(same.texts(["no edema"]), 0.5)
    other = read_embeddings([write("b.parquet", drawn(2), id=["No edema.", "no edema!"])])
    with pytest.raises(MedstError, match=r"1 sentences have several vectors.*\(no edema\)"):
        other.texts(["no edema"])
    exact = read_embeddings([write("c.parquet", drawn(3), id=["No edema.", "no edema!", "no edema"])])
    assert exact.texts(["no edema"]).shape == (1, 6)


def test_classes_are_measured(write_cohort: Write, cohort: Cohort, write: Write) -> None:
    """Zero-shot by the cosine, probe by the vectors as written."""
    label = cohort.labelled["label"].to_numpy()
    named = replace(cohort, image_table=IMAGES)
    rows = np.repeat(np.stack([1.0 - label, label, np.full(48, 0.1)], axis=1) * 5, 100, axis=1)
    prompts = ["There is no pneumonia", "No evidence of pneumonia", "No evidence of acute pneumonia"]
    prompts += ["No signs of pneumonia", "Findings consistent with pneumonia", "Findings suggesting pneumonia"]
    prompts += ["This opacity can represent pneumonia", "Findings are most compatible with pneumonia"]
    texts = np.repeat(np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 4, axis=0), 100, axis=1)
    found = read_embeddings([write("a.parquet", np.concatenate([rows, texts]), id=[*IMAGES["image_id"], *prompts])])
    [auroc] = [score for score in zero_shot(found, named, PAPER).scores if score.metric == "auroc"]
    assert auroc.value == 1
    np.testing.assert_array_equal(found.images(named, [3, 1]).feature, rows[[3, 1]].astype(np.float32))
    assert probe(found, named, replace(PAPER, fractions=(1.0,))).scores[0].value == 1


def test_retrieval_says_that_it_has_no_lateral_views(write_cohort: Write, write: Write) -> None:
    table = pl.DataFrame(
        {
            "patient_id": [f"p{i // 2}" for i in range(20)],
            "study_id": [f"s{i}" for i in range(20)],
            "report": [f"report {word}" for word in "abcdefghijklmnopqrst"],
            "frontal": [*range(20)],
            "lateral": [20] + [None] * 19,
        }
    )
    path = write_cohort("pairs", "open-i", images=IMAGES, pairs=table)
    rows = drawn(20)
    vectors = np.concatenate([rows, drawn(28, seed=1), rows])
    found = read_embeddings([write("a.parquet", vectors, id=[*IMAGES["image_id"], *table["report"]])])
    assert {score.value for score in retrieval(found, open_cohort(path)).scores} == {1.0}
    results = evaluate(found, path, None, tasks=["retrieval"])
    assert any("frontal views alone" in warning for warning in results["warnings"])
    assert {row["model"] for row in results["results"]} == {"trained", "random order"}


def test_the_fingerprint_is_that_of_the_files(write: Write) -> None:
    one, two = write("a.parquet", drawn(2), id=["a", "b"]), write("b.parquet", drawn(2), id=["c", "d"])
    assert read_embeddings([one]).fingerprint == sha256(one)
    assert read_embeddings([one, two]).fingerprint == read_embeddings([two, one]).fingerprint != sha256(one)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no vector": ({"id": ["a"], "embedding": [[1.0]]}, "the columns id, embedding; --embeddings needs id and vector"),
    "both": ({"id": ["a"], "current": ["a"], "prior": ["b"], "vector": [[1.0]]}, "needs id and vector, or current"),
    "numbers": ({"id": [1], "vector": [[1.0]]}, "column id is Int64, not text"),
    "no id": ({"id": ["a", None], "vector": [[1.0], [1.0]]}, "1 rows have no id"),
    "text": ({"id": ["a"], "vector": ["1 2"]}, "column vector is String, not lists of numbers"),
    "empty": ({"id": ["a"], "vector": pl.Series([[]], dtype=pl.List(pl.Float32))}, "the vectors are empty"),
    "none": ({"id": pl.Series([], dtype=pl.String), "vector": pl.Series([], dtype=pl.List(pl.Float32))}, "no rows"),
    "lengths": (
        {"id": ["a", "b", "c"], "vector": [[1.0], [1.0, 2.0], [2.0]]},
        r"differ in length: 1 \(2 rows\), 2 \(1",
    ),
    "null": ({"id": ["a", "b"], "vector": [[1.0], None]}, r"differ in length: "),
    "nan": ({"id": ["a", "b"], "vector": [[1.0], [np.nan]]}, "1 of 2 vectors hold a number that is missing.*such as b"),
    "hole": ({"id": ["a", "b"], "vector": [[1.0, None], [1.0, 2.0]]}, "1 of 2 vectors hold a number .*such as a"),
    "huge": ({"id": ["a"], "vector": [[1e300]]}, "1 of 1 vectors hold a number .* infinite"),
    "twice": ({"id": ["a", "b", "a"], "vector": [[1.0]] * 3}, "1 ids are given more than once, such as a"),
    "pair twice": ({"current": ["a"] * 2, "prior": ["b"] * 2, "vector": [[1.0]] * 2}, r"such as \(a, b\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence(fault: str, tmp_path: Path) -> None:
    columns, message = FAULTS[fault]
    pl.DataFrame(columns, strict=False).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(MedstError, match=message):
        read_embeddings([tmp_path / "a.parquet"])


def test_arrays_of_half_precision_are_vectors_too(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": ["a", "b"], "vector": np.array([[1, 2], [3, 4]], dtype=np.float32)})
    assert table.schema["vector"] == pl.Array(pl.Float32, 2)
    table.write_parquet(tmp_path / "a.parquet")
    assert read_embeddings([tmp_path / "a.parquet"]).singles.rows.tolist() == [[1, 2], [3, 4]]


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("id,vector\n")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("a.parquet", "is not a Parquet file"), ("pipe", "not a regular file"), (".", "is a folder")):
        with pytest.raises(MedstError, match=message):
            read_embeddings([tmp_path / name])


def test_ids_are_checked_across_files(write: Write) -> None:
    one, two = write("a.parquet", drawn(1), id=["x"]), write("b.parquet", drawn(1), id=["x"])
    with pytest.raises(MedstError, match=r"a.parquet, b.parquet: 1 ids are given more than once, such as x\."):
        read_embeddings([one, two])
    with pytest.raises(MedstError, match="differ in length"):
        read_embeddings([one, write("c.parquet", drawn(1, 7), id=["y"])])


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"tokens": "patches"}, "--tokens"), ({"finetune": True}, "--fine"), ({"precision": "bf16"}, "--prec")],
)
def test_switches_of_an_encoder_are_refused(changes: dict[str, Any], flag: str, folder: Path, write: Write) -> None:
    found = read_embeddings([write("a.parquet", drawn(1), id=["a"])])
    with pytest.raises(MedstError, match=flag):
        evaluate(found, folder, None, question=replace(PAPER, **changes))


def test_the_command_measures_reports_and_resumes(
    folder: Path, model_folder: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("my-model.parquet", drawn(48), id=IMAGES["image_id"])
    command = ["evaluate", "all", str(folder), "--embeddings", str(file), "--protocol", "paper"]
    main(command)
    said = capsys.readouterr().out
    out = file.parent / "results-paper.json"
    assert "Not measured: temporal-text ms-cxr-t" in said
    assert str(out) in said
    found = read_results(out)
    assert found["model"] == {"fingerprint": sha256(file), "recipe": "embeddings"}
    before = out.read_bytes()
    main(command)
    assert out.read_bytes() == before
    main(["report", str(out), "--tables", "markdown"])
    said = capsys.readouterr().out
    assert "thumbnails" in said
    page = Path(said.splitlines()[-1]).read_text()
    assert "recipe embeddings" in page
    assert sha256(file)[:12] in page


def test_a_mixture_of_model_and_embeddings_is_one_sentence(
    folder: Path, model_folder: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write("a.parquet", drawn(1), id=["a"]))
    for words, message in (
        ([str(model_folder), str(folder), "--embeddings", file], f"{model_folder} is not a cohort"),
        ([str(folder), str(folder)], f"{folder} is a cohort"),
        ([str(folder), "--embeddings", file, str(folder)], "is a folder, not a Parquet file"),
        ([str(folder), "--embeddings", file + "x"], "No such file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "all", *words])
        [said] = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 1
        assert message in said
