"""The page of one run: one file that fetches nothing and shows everything that was measured."""

import base64
import csv
import io
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.pages.figures import CURVES
from medst.pages.report import report

from .page_reader import Reader


def report_from(folder: Path, out: Path, *, run: Path | None = None, **options: object) -> Path:
    paths = {"cohort": folder / "cohort", "comparisons": folder / "comparisons"}
    return report([run or folder / "run"], out, **(paths | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert report_from(made_up, out, synthetic=True) == out
    assert [path.name for path in out.parent.glob("[!.]*")] == ["report.html"]
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_nothing_is_fetched_from_anywhere(page: str, read: Reader) -> None:
    for tag, attributes in read.attributes:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,", "data:text/csv;"))
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_tags_nest_and_ids_are_unique(read: Reader) -> None:
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.attributes:
        target = attributes.get("xlink:href", "#")[1:]
        assert not target or target in ids


def test_every_section_is_there_and_in_the_contents(read: Reader, made_up: Path) -> None:
    assert [section.get("id") for section in read.all("section")] == [
        "temporal-image-ms-cxr-t-paper", "temporal-text-ms-cxr-t-paper", "learning", "patients", "about"
    ]  # fmt: skip
    linked = [link["href"][1:] for link in read.all("a") if link["href"].startswith("#")]
    assert linked == [section.get("id") for section in read.all("section")]
    text = " ".join(" ".join(read.text).split())
    results = json.loads((made_up / "run" / "results.json").read_text())
    for fingerprint in (results["model"]["fingerprint"], "of-mimic-cxr", "of-ms-cxr-t"):
        assert fingerprint in text
    for title in CURVES.values():
        assert title in text
    for finding in ("Edema", "Pleural effusion", "Pneumothorax"):
        assert finding in text


def test_the_page_opens_with_run_model_data_date_and_verdict(read: Reader, made_up: Path) -> None:
    results = made_up / "run" / "results.json"
    model = json.loads(results.read_text())["model"]
    header = " ".join(" ".join(read.text).split()).partition("Download all numbers")[0]
    for text in (
        "Results of run",
        f"recipe {model['recipe']}, {model['fingerprint'][:12]}",
        "trained on mimic-cxr, measured on ms-cxr-t",
        f"measured {datetime.fromtimestamp(results.stat().st_mtime, UTC):%Y-%m-%d}",
        "protocol paper gives no intervals",
    ):
        assert text in header


def test_the_csv_file_holds_every_number(read: Reader, made_up: Path) -> None:
    (address,) = (link["href"] for link in read.all("a") if link["href"].startswith("data:"))
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(address.partition(",")[2]).decode())))
    results = json.loads((made_up / "run" / "results.json").read_text())["results"]
    assert [float(row["value"]) for row in rows] == [row["value"] for row in results]
    assert [row["finding"] for row in rows] == [row["finding"] for row in results]
    assert {row["run"] for row in rows} == {"run"}


@pytest.mark.parametrize("task", ["retrieval", "zero-shot"])
def test_a_run_with_one_other_benchmark_shows_it(made_up: Path, tmp_path: Path, task: str) -> None:
    """Every number of a task is shown, whatever else was measured."""
    run = shutil.copytree(made_up / "run", tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    row = next(row for row in results["results"] if row["model"] == "trained")
    metric = {"retrieval": "image to report R@1", "zero-shot": "auroc"}[task]
    row |= {"task": task, "dataset": "other", "metric": metric, "finding": "all", "value": 0.123456, "folds": None}
    details = {"classes": [], "confusion": {}, "calibration": {}, "predictions": []}
    results |= {"results": [row], "details": {f"{task}/other": details}, "cohorts": {"other": "f"}}
    (run / "results.json").write_text(json.dumps(results))
    read = Reader(report_from(made_up, tmp_path / "page.html", run=run, comparisons=None).read_text())
    alone = Reader(report([run]).read_text())
    for page, sections in ((read, ["learning", "patients", "about"]), (alone, ["learning", "about"])):
        assert [section["id"] for section in page.all("section")] == [f"{task}-other-paper", *sections]
        assert ("12.3 %" if task == "retrieval" else "0.123") in " ".join(page.text)
    assert (run / "comparison.html").is_file()


def test_numbers_stand_beside_chance_and_the_untrained_model(read: Reader, made_up: Path) -> None:
    results = json.loads((made_up / "run" / "results.json").read_text())["results"]
    text = " ".join(read.text)
    shown = 0
    for row in results:
        written = f"{row['value']:.3f}" if row["metric"] == "auroc" else f"{100 * row['value']:.1f} %"
        assert written in text, row
        shown += row["model"] == "untrained"
    assert shown > 10


def test_pictures_and_figures_have_a_text_alternative(read: Reader) -> None:
    assert all(image["alt"] for image in read.all("img"))
    figures = [svg["aria-label"] for svg in read.all("svg")]
    assert len(figures) == len(set(figures)) == 2 + 8 + 3 + 4 * 2
    assert any(label.startswith("Confusion matrix of Edema, run, protocol paper: of ") for label in figures)


def test_placeholder_colours_become_css_variables(page: str) -> None:
    assert "var(--ink)" in page
    assert not re.search(r"#0[1-5]a0b[1-5]", page)


def test_only_synthetic_patients_are_called_synthetic(page: str, made_up: Path, tmp_path: Path) -> None:
    real = report_from(made_up, tmp_path / "report.html").read_text()
    assert "All patients here are synthetic" in page
    assert "synthetic" not in real
    assert "Research software, not a medical device" in real


def test_the_same_input_gives_the_same_bytes(page: str, made_up: Path, tmp_path: Path) -> None:
    assert report_from(made_up, tmp_path / "report.html", synthetic=True).read_text(encoding="utf-8") == page
    assert str(made_up) not in page


def test_shown_images_are_those_of_the_cohort(page: str, read: Reader, made_up: Path) -> None:
    cohort = open_cohort(made_up / "cohort")
    assert cohort.pairs is not None
    held_out = cohort.pairs.filter(split="test")
    pictures = cohort.images[held_out["frontal"].to_numpy()].astype(float)
    frontal = [image for image in read.all("img") if image["alt"].startswith("Frontal")]
    assert len(frontal) >= 12
    for image in frontal[:3]:
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))), dtype=float)
        assert np.abs(pictures - decoded).mean((1, 2)).min() < 4
    assert any(image["alt"].startswith("Lateral") for image in read.all("img"))


def test_the_page_without_patients_or_without_a_task(made_up: Path, tmp_path: Path) -> None:
    results = json.loads((made_up / "run" / "results.json").read_text())
    results["results"] = [row for row in results["results"] if row["task"] == "temporal-text"]
    del results["details"]["temporal-image/ms-cxr-t"]
    left = {"task": "temporal-image", "dataset": "ms-cxr-t", "finding": "edema", "folds": 5}
    results |= {"left_out": [left | {"reason": "there is too little <of> it"}]}
    (tmp_path / "some.json").write_text(json.dumps(results))
    out = report_from(made_up, tmp_path / "report.html", results=tmp_path / "some.json", comparisons=None, patients=0)
    read = Reader(out.read_text())
    assert [section.get("id") for section in read.all("section")] == [
        "temporal-text-ms-cxr-t-paper", "warnings", "learning", "patients", "about"
    ]  # fmt: skip
    assert not read.all("img")
    assert "too little <of> it" in " ".join(read.text)


def test_predictions_and_laterals_are_mentioned_only_if_there_are_any(page: str, made_up: Path, tmp_path: Path) -> None:
    assert "where the prediction agrees" in page
    assert "no lateral view" in page
    results = json.loads((made_up / "run" / "results.json").read_text())
    results["details"]["temporal-image/ms-cxr-t"]["predictions"] = []
    (tmp_path / "some.json").write_text(json.dumps(results))
    cohort = shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    pairs = pl.read_parquet(cohort / "pairs.parquet")
    pairs.with_columns(lateral=pl.lit(None, pairs.schema["lateral"])).write_parquet(cohort / "pairs.parquet")
    out = report_from(made_up, tmp_path / "report.html", cohort=cohort, results=tmp_path / "some.json")
    text = out.read_text()
    assert "the change of each finding since" in text
    assert "where the prediction agrees" not in text
    assert "no lateral view" not in text


def test_progress_counts_to_its_total(made_up: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    report_from(
        made_up, tmp_path / "report.html", patients=1, progress=lambda done, total, note: said.append((done, total))
    )
    assert said == [(done, 4) for done in range(5)]


def test_inputs_that_do_not_belong_together_are_refused(made_up: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    results = json.loads((made_up / "run" / "results.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(results | {"model": {"fingerprint": "another", "recipe": "tiny"}}))
    (tmp_path / "newer.json").write_text(json.dumps(results | {"schema": 3}))
    (tmp_path / "torn.json").write_text(json.dumps(results)[:500])
    shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    meta = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps(meta | {"fingerprint": "another"}))
    for options, said in (
        ({"run": tmp_path}, "give the folder of a run"),
        ({"results": tmp_path / "nowhere.json"}, "medst evaluate all"),
        ({"results": tmp_path / "other.json"}, "about a model that is not in"),
        ({"results": tmp_path / "newer.json"}, "results schema 3"),
        ({"results": tmp_path / "torn.json"}, "is damaged"),
        ({"cohort": made_up / "comparisons"}, "has no pairs"),
        ({"cohort": tmp_path / "cohort"}, "is not the cohort that"),
        ({"comparisons": tmp_path / "cohort"}, "is not a cohort that"),
        ({"patients": -1}, "patients is -1"),
    ):
        with pytest.raises(MedstError, match=said):
            report_from(made_up, out, **options)  # type: ignore[arg-type]
    assert not out.exists()


def test_an_incomplete_last_line_of_metrics_is_ignored(made_up: Path, tmp_path: Path) -> None:
    shutil.copytree(made_up / "run", tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("41,5,train,0.001,2.0,1.0,3.1")
    results = tmp_path / "run" / "results.json"
    assert report_from(made_up, tmp_path / "report.html", run=tmp_path / "run", results=results).exists()


def test_reports_are_escaped(made_up: Path, tmp_path: Path) -> None:
    shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    pairs = pl.read_parquet(tmp_path / "cohort" / "pairs.parquet")
    pairs.with_columns(report=pl.lit("<script>alert(1)</script> & clear")).write_parquet(
        tmp_path / "cohort" / "pairs.parquet"
    )
    page = report_from(made_up, tmp_path / "report.html", cohort=tmp_path / "cohort").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
