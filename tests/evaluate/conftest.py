"""A model that was never trained and a cohort of comparisons and sentences whose pixels are noise."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import medst
from medst import weights
from medst.cohort.store import COLUMNS, Cohort, open_cohort
from medst.encode import ImageFeatures
from medst.evaluate.subjects import ModelSubject
from medst.files import sha256
from medst.recipes.settings import DataSettings, ModelSettings, Recipe, TextSettings, VisionSettings
from medst.tokenizer import learn_tokenizer
from medst.use import Model

RECIPE = Recipe(
    name="tiny",
    model=ModelSettings(
        vision=VisionSettings(image_size=32, patch_size=16, channels=1, width=32, depth=1, heads=2, mlp_ratio=1.0),
        text=TextSettings(width=32, layers=1, heads=2, intermediate=32, pieces=16, dropout=0.0),
        projection_hidden=32,
        embedding=8,
    ),
    data=DataSettings(crop=224),
)
CHANGES = ("improving", "stable", "worsening")
SENTENCES = [
    {
        "sentence_1": f"The {side} effusion is {first}.",
        "sentence_2": f"{side} effusion: {second}, see {number}. {word}.",
        "category": "paraphrase" if first == second else "contradiction",
        "subset": subset,
    }
    for number, (side, first, second, word, subset) in enumerate(
        product(("left", "right"), ("larger", "smaller"), ("larger", "smaller"), "abc", ("RadGraph", "swaps"))
    )
]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "best"
    texts = [sentence[side] for sentence in SENTENCES for side in ("sentence_1", "sentence_2")]
    tokenizer = learn_tokenizer(texts, 90)
    torch.manual_seed(3)
    model, objective = weights.build(RECIPE, tokenizer)
    weights.save(folder, model, objective, tokenizer, RECIPE)
    return folder


@pytest.fixture(scope="session")
def loaded(model_folder: Path) -> Model:
    return medst.load(model_folder)


@pytest.fixture(scope="session")
def subject(loaded: Model) -> ModelSubject:
    return ModelSubject(loaded)


@dataclass
class Writes:
    """Writes cohorts of one table, or of several, with 48 images of noise."""

    folder: Path

    def __call__(self, name: str, dataset: str, **tables: pl.DataFrame) -> Path:
        path = self.folder / name
        path.mkdir()
        np.save(path / "images.npy", np.random.default_rng(0).integers(0, 256, (48, 256, 256), dtype=np.uint8))
        for table, content in {"images": pl.DataFrame({"row": range(48)}), **tables}.items():
            usual = {"frontal": 0, "status": "ok", "split": "test"}
            lacking = {n: kind for n, kind in COLUMNS.get(table, {}).items() if n not in content.columns}
            lacking |= {"labels": pl.Struct({"Edema": pl.Float32})} if "labels" in lacking else {}
            filled = content.with_columns(pl.lit(usual.get(n), kind).alias(n) for n, kind in lacking.items())
            filled.write_parquet(path / f"{table}.parquet")
        meta = {"schema": 1, "dataset": dataset, "dataset_version": "1", "options": {}, "source": {}, "counts": {}}
        meta["files"] = {file.name: sha256(file) for file in path.glob("*.parquet")}
        (path / "cohort.json").write_text(json.dumps(meta | {"medst_version": "0", "fingerprint": f"print-{name}"}))
        return path


@pytest.fixture
def write_cohort(tmp_path: Path) -> Callable[..., Path]:
    return Writes(tmp_path)


def comparisons_of(**counts: tuple[int, int, int]) -> pl.DataFrame:
    """Comparisons with these numbers of improving, stable and worsening rows per finding, in random order."""
    rows = []
    for finding, (better, same, worse) in counts.items():
        progressions = np.repeat(CHANGES, (better, same, worse))
        for number, progression in enumerate(np.random.default_rng(len(rows)).permutation(progressions)):
            ids = {"patient_id": f"p{number // 2}", "study_id": f"s{number}"}
            pair = {"current": number % 48, "previous": (number + 7) % 48}
            rows.append({"finding": finding} | ids | pair | {"progression": str(progression)})
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def make_comparisons() -> Callable[..., pl.DataFrame]:
    return comparisons_of


@pytest.fixture(scope="session")
def benchmark_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Comparisons of two findings and 48 pairs of sentences."""
    table = comparisons_of(edema=(12, 14, 11), pneumothorax=(15, 10, 13))
    return Writes(tmp_path_factory.mktemp("cohorts"))(
        "benchmark", "ms-cxr-t", comparisons=table, sentences=pl.DataFrame(SENTENCES)
    )


@pytest.fixture(scope="session")
def benchmark(benchmark_cohort: Path) -> Cohort:
    return open_cohort(benchmark_cohort)


@pytest.fixture
def cohort(write_cohort: Callable[..., Path]) -> Cohort:
    """48 images of two classes."""
    table = pl.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(48)],
            "image_id": [f"i{i}" for i in range(48)],
            "image": list(range(48)),
            "split": ["train"] * 24 + ["valid"] * 12 + ["test"] * 12,
            "label": np.random.default_rng(4).integers(0, 2, 48),
        }
    )
    path = write_cohort("labelled", "rsna", labelled=table)
    meta = json.loads((path / "cohort.json").read_text())
    (path / "cohort.json").write_text(json.dumps(meta | {"classes": ["normal", "Pneumonia"]}))
    return open_cohort(path)


@pytest.fixture
def seen(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Replace the model: features that predict the label, with some errors."""
    rng = np.random.default_rng(1)
    world = rng.normal(size=(48, 8)).astype(np.float32)
    world[:, 0] += 1.6 * (2 * cohort.labelled["label"].to_numpy() - 1)
    found = lambda self, cohort, rows, **_: ImageFeatures(*[world[np.asarray(rows)]] * 3)  # noqa: E731
    monkeypatch.setattr(ModelSubject, "images", found)
    monkeypatch.setattr(ModelSubject, "prompts", lambda self, prompts: np.eye(8, dtype=np.float32)[[1, 0]])
    return world
