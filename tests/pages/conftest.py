"""A made-up run: patients drawn with three ellipses, a model that was never trained, and metrics from a formula."""

import csv
import json
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch

from medst import weights
from medst.evaluate.runner import evaluate
from medst.evaluate.task import PAPER
from medst.pretrain.checkpoint import RunFolder
from medst.pretrain.metrics import COLUMNS
from medst.recipes.settings import DataSettings, ModelSettings, Recipe, TextSettings, VisionSettings
from medst.tokenizer import learn_tokenizer

FINDINGS = ("edema", "pleural_effusion", "pneumothorax")
RECIPE = Recipe(
    name="tiny",
    model=ModelSettings(
        vision=VisionSettings(image_size=32, patch_size=16, channels=1, width=32, depth=1, heads=2, mlp_ratio=1.0),
        text=TextSettings(width=32, layers=1, heads=2, intermediate=32, pieces=48, dropout=0.0),
        projection_hidden=32,
        embedding=16,
    ),
    data=DataSettings(sequences_per_batch=4),
)


def radiograph(severity: dict[str, float], rng: np.random.Generator, lateral: bool) -> np.ndarray:
    """Two dark lungs on grey, whiter below with more effusion; uint8 (256, 256)."""
    picture = np.full((256, 256), 150.0)
    for x in (128,) if lateral else (84, 172):
        cv2.ellipse(picture, (x, 125), (38, 80), 0, 0, 360, 60 + 60 * severity["edema"], -1)
    floor = int(215 - 110 * severity["pleural_effusion"])
    picture[floor:] = 200
    picture[40 : 40 + int(60 * severity["pneumothorax"]), 50:110] = 20
    noisy = cv2.GaussianBlur(picture, (0, 0), 3) + rng.normal(0, 6, picture.shape)
    return noisy.clip(1, 255).astype(np.uint8)


def write_cohorts(folder: Path, patients: int, seed: int = 0) -> tuple[Path, Path]:
    """A cohort of pairs and one of comparisons and sentences, of the same patients."""
    rng = np.random.default_rng(seed)
    images, pairs, comparisons = [], [], []
    for patient in range(patients):
        severity = {finding: float(rng.uniform(0, 1)) for finding in FINDINGS}
        time = datetime(2150, 1, 5, 9) + timedelta(days=int(rng.integers(4000)))
        before = None
        for study in range(int(rng.integers(3, 6))):
            step = {finding: int(rng.integers(-1, 2)) for finding in FINDINGS}
            severity = {f: float(np.clip(severity[f] + 0.35 * step[f], 0, 1)) for f in FINDINGS}
            words = {1: "has increased", 0: "is unchanged", -1: "has decreased"}
            report = " ".join(f"the {f.replace('_', ' ')} {words[step[f]]} since the prior study" for f in FINDINGS)
            frontal = len(images)
            images.append(radiograph(severity, rng, lateral=False))
            lateral = None
            if rng.random() < 0.5:
                lateral = len(images)
                images.append(radiograph(severity, rng, lateral=True))
            ids = {"patient_id": f"p{10000000 + patient}", "study_id": f"s{50000000 + 10 * patient + study}"}
            split = ("test", "test", "valid", "train")[patient % 4]
            pairs.append(
                ids
                | {"time": time, "split": split, "report": report, "frontal": frontal, "lateral": lateral}
                | {"labels": {"Edema": None}}
            )
            if before is not None and split == "test":
                for finding, change in step.items():
                    name = {1: "worsening", 0: "stable", -1: "improving"}[change]
                    pair = {"current": frontal, "previous": before, "progression": name}
                    comparisons.append({"finding": finding} | ids | pair)
            before = frontal
            time += timedelta(days=float(rng.choice([0.4, 2, 9, 75, 800])))
    sentences = [
        {
            "sentence_1": f"The {finding} has {first}.",
            "sentence_2": f"{'New' if number % 2 else 'Prior'} {finding} has {second} by {number} cm.",
            "category": "paraphrase" if first == second else "contradiction",
            "subset": "swaps" if number % 3 else "RadGraph",
        }
        for number in range(32)
        for finding in ("effusion", "edema")
        for first, second in [(("increased", "decreased")[number % 2], ("increased", "decreased")[number // 2 % 2])]
    ]
    pixels = np.stack(images)
    schema = {"frontal": pl.Int64, "lateral": pl.Int64, "time": pl.Datetime("us")}
    _write(folder / "cohort", "mimic-cxr", pixels, {"pairs": pl.DataFrame(pairs, schema_overrides=schema)})
    tables = {"comparisons": pl.DataFrame(comparisons), "sentences": pl.DataFrame(sentences)}
    _write(folder / "comparisons", "ms-cxr-t", pixels, tables)
    return folder / "cohort", folder / "comparisons"


def _write(path: Path, dataset: str, images: np.ndarray, tables: dict[str, pl.DataFrame]) -> None:
    path.mkdir(parents=True)
    np.save(path / "images.npy", images)
    said = {"path": "a.jpg", "view": "frontal", "view_position": "PA", "status": "ok"}
    sizes = {"height": pl.lit(256, pl.Int32), "width": pl.lit(256, pl.Int32)}
    rows = pl.DataFrame({"row": range(len(images))}).with_columns(image_id=pl.format("i{}", "row"), **sizes)
    rows.with_columns(pl.lit(value).alias(name) for name, value in said.items()).write_parquet(path / "images.parquet")
    for name, table in tables.items():
        table.write_parquet(path / f"{name}.parquet")
    counts = {name: table.height for name, table in tables.items()} | {"images": len(images)}
    meta = {
        "schema": 1,
        "dataset": dataset,
        "dataset_version": "made up",
        "options": {},
        "source": {},
        "counts": counts,
    }
    (path / "cohort.json").write_text(json.dumps(meta | {"medst_version": "0", "fingerprint": f"of-{dataset}"}))


def write_run(run: Path, cohort: Path) -> None:
    """A run folder whose model was never trained, with losses that go down by a formula."""
    RunFolder(run).start(RECIPE, {"dataset": "mimic-cxr", "fingerprint": "of-mimic-cxr"})
    reports = pl.read_parquet(cohort / "pairs.parquet")["report"]
    tokenizer = learn_tokenizer(reports, 120)
    torch.manual_seed(0)
    model, objective = weights.build(RECIPE, tokenizer)
    weights.save(run / "best", model, objective, tokenizer, RECIPE)
    rng = np.random.default_rng(0)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for step in range(1, 41):
            row = {name: 3 * np.exp(-step / 20) + rng.uniform(0, 0.3) for name in COLUMNS[6:]}
            extra = {"lr": 1e-3, "seconds": 2.0, "gradient_norm": 1.0}
            writer.writerow({"step": step, "epoch": (step - 1) // 10 + 1, "split": "train"} | extra | row)
            if step % 10 == 0:
                writer.writerow({"step": step, "epoch": step // 10, "split": "valid"} | row)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cohort/, comparisons/, run/ and run/results.json."""
    folder = tmp_path_factory.mktemp("made_up")
    cohort, comparisons = write_cohorts(folder, 40)
    write_run(folder / "run", cohort)
    evaluate(
        folder / "run" / "best", comparisons, folder / "run" / "results.json", question=PAPER, baseline_seeds=(0, 1)
    )
    return folder
