"""The example scripts run as their headers say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.evaluate.conftest import Writes, comparisons_of
from tests.weights.checkpoints import dinov2

from medst.cli import main
from medst.cohort.store import open_cohort
from medst.embed import embed
from medst.evaluate.results import read_results
from medst.files import sha256

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / f"{name}.py", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pictures(phantom_tree: Path) -> list[Path]:
    return sorted((phantom_tree / "mimic-cxr-jpg" / "files").rglob("*.jpg"))[:2]


def test_heat_map(small_model: Path, pictures: list[Path], tmp_path: Path) -> None:
    said = run("heat_map", small_model, pictures[0], "edema", tmp_path / "a.png")
    assert "similarity " in said
    run("heat_map", small_model, pictures[0], "edema", tmp_path / "b.png", "--lateral", pictures[1])
    with Image.open(tmp_path / "a.png") as alone, Image.open(tmp_path / "b.png") as both:
        assert both.width > 1.8 * alone.width


def test_patient_over_time(small_model: Path, phantom_cohort: Path) -> None:
    said = run("patient_over_time", small_model, phantom_cohort, "--phrases", "edema", "pneumonia").splitlines()
    assert said[0].startswith("patient p")
    dates = [line[:10] for line in said[2:-2]]
    assert dates == sorted(dates)
    assert [line.partition(":")[0] for line in said[-2:]] == ["edema", "pneumonia"]


def test_similar_studies(small_model: Path, phantom_cohort: Path, pictures: list[Path], tmp_path: Path) -> None:
    embed(small_model, phantom_cohort, tmp_path / "out", rows=50)
    for question in (["--picture", pictures[0]], ["--sentence", "The effusion has resolved."]):
        assert "similarity" in run("similar_studies", small_model, tmp_path / "out", *question)


def test_embed_with_transformers(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    names = pl.DataFrame({"row": range(48), "image_id": [f"i{row}" for row in range(48)]})
    comparisons = Writes(tmp_path)("named", "ms-cxr-t", images=names, comparisons=comparisons_of(edema=(6, 6, 6)))
    model, out = dinov2(tmp_path / "dinov2"), tmp_path / "out.parquet"
    cohort = open_cohort(comparisons)
    said = run("embed_with_transformers", model, comparisons, out)
    assert said == f"{len(cohort.images)} images, vectors of 16: {out}\n"
    table = pl.read_parquet(out)
    assert table["id"].to_list() == cohort.image_table["image_id"].to_list()
    picture = Image.fromarray(cohort.images[17]).convert("RGB")
    inputs = AutoImageProcessor.from_pretrained(model)(images=[picture], return_tensors="pt")
    expected = AutoModel.from_pretrained(model).eval()(**inputs).last_hidden_state[0, 0].detach()
    np.testing.assert_allclose(table["vector"][17].to_numpy(), expected, atol=1e-4)

    main(["evaluate", "temporal-image", str(comparisons), "--embeddings", str(out), "--protocol", "paper"])
    results = read_results(tmp_path / "results-paper.json")
    assert results["model"] == {"fingerprint": sha256(out), "recipe": "embeddings"}
    assert {"trained", "thumbnails", "prior study alone"} <= {row["model"] for row in results["results"]}


def test_a_wrong_path_or_patient_is_one_sentence(small_model: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    for words in (
        ["heat_map", none, none, "edema", tmp_path / "a.png"],
        ["heat_map", small_model, none, "edema", tmp_path / "a.png"],
        ["patient_over_time", small_model, none],
        ["embed_with_transformers", none, none, tmp_path / "a.parquet"],
        ["patient_over_time", small_model, phantom_cohort, "--patient", "none"],
    ):
        command = [sys.executable, EXAMPLES / f"{words[0]}.py", *map(str, words[1:])]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        [said] = done.stderr.splitlines()
        assert done.returncode == 1
        assert "none" in said


def test_every_example_is_tested() -> None:
    tested, examples = Path(__file__).read_text(), [*EXAMPLES.glob("*.py")]
    assert examples
    for example in examples:
        assert f"def test_{example.stem}(" in tested
