"""The page is one file that asks nothing of the network, and holds what it should."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.pages.result_figures import CURVES
from medst.pages.run_page import build


def build_from(folder: Path, out: Path, **options: object) -> Path:
    paths = {
        "run": folder / "run",
        "results": folder / "run" / "results.json",
        "cohort": folder / "cohort",
        "comparisons": folder / "comparisons",
    }
    return build(out, **(paths | options))  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Tags in order, whether they nest, and what they point to."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.attributes if name == tag]


@pytest.fixture(scope="module")
def page(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert build_from(made_up, out, synthetic=True) == out
    assert [path.name for path in out.parent.glob("[!.]*")] == ["report.html"]
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_nothing_is_fetched_from_anywhere(page: str, read: Reader) -> None:
    for tag, attributes in read.attributes:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
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


def test_every_section_is_there(read: Reader, made_up: Path) -> None:
    assert [section.get("id") for section in read.all("section")] == [
        "results", "learning", "confusion", "patients", "about"
    ]  # fmt: skip
    text = " ".join(" ".join(read.text).split())
    results = json.loads((made_up / "run" / "results.json").read_text())
    for fingerprint in (results["model"]["fingerprint"], "of-mimic-cxr", "of-ms-cxr-t"):
        assert fingerprint in text
    for title in CURVES.values():
        assert title in text
    for finding in ("Edema", "Pleural effusion", "Pneumothorax"):
        assert finding in text


def test_numbers_stand_beside_chance_and_the_untrained_model(read: Reader, made_up: Path) -> None:
    results = json.loads((made_up / "run" / "results.json").read_text())["results"]
    text = " ".join(read.text)
    shown = 0
    for row in results:
        written = f"{row['value']:.3f}" if row["metric"] == "auroc" else f"{100 * row['value']:.1f} %"
        assert written in text, row
        shown += row["model"] == "untrained"
    assert shown > 10


def test_pictures_and_figures_say_what_they_show(read: Reader) -> None:
    assert all(image["alt"] for image in read.all("img"))
    figures = [svg["aria-label"] for svg in read.all("svg")]
    assert len(figures) == len(set(figures)) == 2 + 8 + 3 + 4 * 2
    assert any(label.startswith("Confusion matrix of edema: of ") for label in figures)


def test_colours_are_those_of_the_page(page: str) -> None:
    assert "var(--ink)" in page
    assert not re.search(r"#0[1-5]a0b[1-5]", page)


def test_synthetic_patients_are_called_so_and_others_not(page: str, made_up: Path, tmp_path: Path) -> None:
    real = build_from(made_up, tmp_path / "report.html").read_text()
    assert "All patients here are synthetic" in page
    assert "synthetic" not in real
    assert "Research software, not a medical device" in real


def test_the_same_input_gives_the_same_bytes(page: str, made_up: Path, tmp_path: Path) -> None:
    assert build_from(made_up, tmp_path / "report.html", synthetic=True).read_text(encoding="utf-8") == page
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


def test_without_patients_or_a_task_the_rest_still_stands(made_up: Path, tmp_path: Path) -> None:
    results = json.loads((made_up / "run" / "results.json").read_text())
    results["results"] = [row for row in results["results"] if row["task"] == "temporal-text"]
    del results["details"]["temporal-image/ms-cxr-t"]
    left = {"task": "temporal-image", "dataset": "ms-cxr-t", "finding": "edema", "folds": 5}
    results |= {"left_out": [left | {"reason": "there is too little <of> it"}]}
    (tmp_path / "some.json").write_text(json.dumps(results))
    out = build_from(made_up, tmp_path / "report.html", results=tmp_path / "some.json", comparisons=None, patients=0)
    read = Reader(out.read_text())
    assert [section.get("id") for section in read.all("section")] == ["results", "learning", "patients", "about"]
    assert not read.all("img")
    assert "too little <of> it" in " ".join(read.text)


def test_no_legend_of_predictions_without_them_and_no_lateral_row_without_laterals(
    page: str, made_up: Path, tmp_path: Path
) -> None:
    assert "where the prediction agrees" in page
    assert "no lateral view" in page
    results = json.loads((made_up / "run" / "results.json").read_text())
    del results["details"]["temporal-image/ms-cxr-t"]
    (tmp_path / "some.json").write_text(json.dumps(results))
    cohort = shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    pairs = pl.read_parquet(cohort / "pairs.parquet")
    pairs.with_columns(lateral=pl.lit(None, pairs.schema["lateral"])).write_parquet(cohort / "pairs.parquet")
    out = build_from(made_up, tmp_path / "report.html", cohort=cohort, results=tmp_path / "some.json")
    text = out.read_text()
    assert "what became of each finding" in text
    assert "where the prediction agrees" not in text
    assert "no lateral view" not in text


def test_progress_ends_where_it_said(made_up: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    build_from(
        made_up, tmp_path / "report.html", patients=1, progress=lambda done, total, note: said.append((done, total))
    )
    assert said == [(done, 4) for done in range(5)]


def test_what_does_not_belong_together_is_refused(made_up: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    results = json.loads((made_up / "run" / "results.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(results | {"model": {"fingerprint": "another", "recipe": "tiny"}}))
    (tmp_path / "newer.json").write_text(json.dumps(results | {"schema": 3}))
    (tmp_path / "torn.json").write_text(json.dumps(results)[:500])
    shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    meta = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps(meta | {"fingerprint": "another"}))
    for options, said in (
        ({"run": tmp_path}, "no run here"),
        ({"results": tmp_path / "nowhere.json"}, "medst evaluate all"),
        ({"results": tmp_path / "other.json"}, "about a model that is not in"),
        ({"results": tmp_path / "newer.json"}, "results schema 3"),
        ({"results": tmp_path / "torn.json"}, "is damaged"),
        ({"cohort": made_up / "comparisons"}, "has no pairs"),
        ({"cohort": tmp_path / "cohort"}, "is not the cohort that"),
        ({"comparisons": tmp_path / "cohort"}, "is not the cohort that"),
        ({"patients": -1}, "patients is -1"),
    ):
        with pytest.raises(MedstError, match=said):
            build_from(made_up, out, **options)  # type: ignore[arg-type]
    assert not out.exists()


def test_a_torn_last_line_of_metrics_does_no_harm(made_up: Path, tmp_path: Path) -> None:
    shutil.copytree(made_up / "run", tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("41,5,train,0.001,2.0,1.0,3.1")
    results = tmp_path / "run" / "results.json"
    assert build_from(made_up, tmp_path / "report.html", run=tmp_path / "run", results=results).exists()


def test_reports_are_text_not_markup(made_up: Path, tmp_path: Path) -> None:
    shutil.copytree(made_up / "cohort", tmp_path / "cohort")
    pairs = pl.read_parquet(tmp_path / "cohort" / "pairs.parquet")
    pairs.with_columns(report=pl.lit("<script>alert(1)</script> & clear")).write_parquet(
        tmp_path / "cohort" / "pairs.parquet"
    )
    page = build_from(made_up, tmp_path / "report.html", cohort=tmp_path / "cohort").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
