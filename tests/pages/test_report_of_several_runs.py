"""The page and the tables of several runs: every number is there, and only like is compared with like."""

import json
from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.evaluate.runner import evaluate
from medst.evaluate.task import Question
from medst.pages.collect_results import collect, published, read_results_files
from medst.pages.report import report
from medst.pages.tables import tables_of
from medst.pages.wording import metric_format

from .page_reader import Reader


@pytest.fixture(scope="module")
def runs(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One model by the released protocol and by the strict one, and another one by the released."""
    folder = tmp_path_factory.mktemp("runs")
    results = json.loads((made_up / "run" / "results.json").read_text())
    (folder / "first").mkdir()
    (folder / "first" / "results.json").write_text(json.dumps(results))
    strict = folder / "first" / "results-strict.json"
    evaluate(
        made_up / "run" / "best",
        made_up / "comparisons",
        strict,
        question=Question(protocol="strict"),
        baseline_seeds=(0,),
    )
    (folder / "second").mkdir()
    for row in results["results"]:
        row["value"] = round(row["value"] * 0.9, 6)
    results["warnings"] = ["two <b>patients</b> are in both"]
    (folder / "second" / "results.json").write_text(json.dumps(results))
    return [folder / "first", folder / "second"]


def test_every_number_is_on_the_page_and_nothing_is_fetched(runs: list[Path], tmp_path: Path) -> None:
    page = report(out=tmp_path / "new" / "page.html", runs=runs).read_text(encoding="utf-8")
    read = Reader(page)
    assert read.open == []
    text = " ".join(" ".join(read.text).split())
    for file in (runs[0] / "results.json", runs[0] / "results-strict.json", runs[1] / "results.json"):
        for row in json.loads(file.read_text())["results"]:
            assert metric_format(row["metric"])(row["value"]) in text, row
            if row["low"] is not None:
                assert (
                    f"{metric_format(row['metric'])(row['low'])} to {metric_format(row['metric'])(row['high'])}" in text
                )
    for tag, attributes in read.attributes:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:text/csv;"))
    ids = [attributes["id"] for _, attributes in read.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "<b>patients</b>" not in page
    assert "wizwand" in text


def test_protocols_are_not_mixed(runs: list[Path]) -> None:
    groups = {(one.task, one.protocol): one for one in collect(read_results_files(runs))}
    assert groups["temporal-image", "paper"].names == ["first", "second"]
    assert groups["temporal-image", "strict"].names == ["first"]
    line = next(one for one in groups["temporal-image", "paper"].headline() if one.is_summary)
    values = [row["value"] for row in line.trained if row is not None]
    for protocol in ("paper", "strict"):
        assert any(each.published for each in groups["temporal-image", protocol].lines) == (protocol == "paper")
    assert values[1] == pytest.approx(0.9 * values[0], abs=1e-6)


def test_runs_on_different_copies_of_a_benchmark_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    other = json.loads((runs[1] / "results.json").read_text())
    other["cohorts"]["ms-cxr-t"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(other))
    page = report(out=tmp_path / "page.html", runs=[runs[0] / "results.json", tmp_path / "other.json"]).read_text()
    assert "can’t be compared" in page
    assert "can’t be compared" not in report(out=tmp_path / "page.html", runs=runs).read_text()


def test_published_numbers_have_a_source() -> None:
    assert published()
    for _, number in published():
        assert number.source
        assert number.confirmed in ("yes", "second-hand")
        assert 0 < number.value < 1


def test_tables_hold_every_number(runs: list[Path]) -> None:
    markdown, latex = tables_of(runs, "markdown"), tables_of(runs, "latex")
    for row in json.loads((runs[1] / "results.json").read_text())["results"]:
        written = metric_format(row["metric"])(row["value"])
        assert written in markdown
        assert written.replace(" %", r"\,\%") in latex
    widths = {line.count("|") for line in markdown.split("\n\n")[1].splitlines()}
    assert len(widths) == 1
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4


def test_folders_without_results_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"has no results\.json"):
        report(out=tmp_path / "page.html", runs=[tmp_path])
    model = tmp_path / "run" / "best"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    with pytest.raises(
        MedstError, match=r"best is a model; give its run .*run, measured by `medst evaluate all .*/run/best C"
    ):
        report(out=tmp_path / "page.html", runs=[model])
    (tmp_path / "cohort.json").write_text('{"schema": 1, "dataset": "rsna"}')
    with pytest.raises(MedstError, match=r"cohort\.json is not a results file"):
        report(out=tmp_path / "page.html", runs=[tmp_path / "cohort.json"])
    with pytest.raises(MedstError, match="given twice"):
        report(out=tmp_path / "page.html", runs=[runs[0], runs[0]])
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(MedstError, match="is damaged"):
        report(out=tmp_path / "page.html", runs=[runs[0], tmp_path / "torn.json"])
    assert not (tmp_path / "page.html").exists()
