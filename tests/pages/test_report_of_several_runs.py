"""The page and the tables of several runs: every number is there, and only like is compared with like."""

import json
import shutil
from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.evaluate.runner import evaluate
from medst.evaluate.task import Question
from medst.files import sha256
from medst.pages.collect_results import collect, read_results_files
from medst.pages.report import report
from medst.pages.tables import tables_of
from medst.pages.verdict import verdict
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
        question=Question(),
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


def test_protocols_are_not_mixed(runs: list[Path]) -> None:
    groups = {(one.task, one.protocol): one for one in collect(read_results_files(runs))}
    assert groups["temporal-image", "paper"].names == ["first", "second"]
    assert groups["temporal-image", "strict"].names == ["first"]
    line = next(one for one in groups["temporal-image", "paper"].headline() if one.is_summary)
    values = [row["value"] for row in line.trained if row is not None]
    assert values[1] == pytest.approx(0.9 * values[0], abs=1e-6)


def test_runs_on_different_copies_of_a_benchmark_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    other = json.loads((runs[1] / "results.json").read_text())
    other["cohorts"]["ms-cxr-t"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(other))
    page = report(out=tmp_path / "page.html", runs=[runs[0] / "results.json", tmp_path / "other.json"]).read_text()
    assert "can’t be compared" in page
    assert "can’t be compared" not in report(out=tmp_path / "page.html", runs=runs).read_text()


@pytest.fixture
def seeds(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Three runs of one recipe, one of another recipe, and one whose settings are not known."""
    strict = json.loads((runs[0] / "results-strict.json").read_text())
    folders = []
    for number, name in enumerate(("one", "two", "three", "other", "unknown")):
        (tmp_path / name).mkdir()
        for row in strict["results"]:
            row["value"] = row["low"] = row["high"] = round(0.4 + 0.05 * number, 6)
            row["high"] += 0.1
            row["low"] -= 0.6 if row["finding"] == "edema" else 0.1
        for lead in strict["leads"]:
            lead |= {"value": 0.01 * number, "low": 0.01 * number - 0.03, "high": 0.01 * number + 0.03}
        strict["model"]["fingerprint"] = sha256(name.encode())
        (tmp_path / name / "results.json").write_text(json.dumps(strict))
        recipe = {
            "optimiser": {"lr": 1.0 if name == "other" else 2.0},
            "run": {"seed": number, "loader_workers": number},
        }
        settings = {"medst_version": "0", "recipe": recipe, "cohort": {"dataset": "mimic-cxr", "fingerprint": "f"}}
        if name != "unknown":
            (tmp_path / name / "settings.json").write_text(json.dumps(settings))
        folders.append(tmp_path / name)
    return folders


def test_runs_of_one_recipe_stand_together_with_each_kind_of_interval(seeds: list[Path], tmp_path: Path) -> None:
    benchmark = next(one for one in collect(read_results_files(seeds)) if one.task == "temporal-image")
    (group,) = benchmark.seeds
    assert group.places == (0, 1, 2)
    line = next(one for one in benchmark.lines if (one.metric, one.finding) == ("macro accuracy", "average"))
    mean, both, alone, patients, lead = line.seeds_written(group)
    assert mean == "45.0 % ± 5.0 %"
    half = 4.302653 * 0.05 / 3**0.5
    assert alone == f"seeds alone {100 * (0.45 - half):.1f} % to {100 * (0.45 + half):.1f} %"
    assert patients == "test data alone 35.0 % to 55.0 %"
    wide = (half**2 + 0.01) ** 0.5
    assert both == f"seeds and test data {100 * (0.45 - wide):.1f} % to {100 * (0.45 + wide):.1f} %"
    far = ((4.302653 * 0.01) ** 2 / 3 + 0.03**2) ** 0.5
    expected = f"{100 * (0.01 - far):+.1f} to {100 * (0.01 + far):+.1f} points"
    assert lead == f"lead over the best baseline +1.0 points, seeds and test data {expected}"
    read = Reader(report(out=tmp_path / "page.html", runs=seeds).read_text(encoding="utf-8"))
    text = " ".join(" ".join(read.text).split())
    assert "3 seeds of" in text
    assert "the one to quote" in text
    for said in (mean, both, alone, patients, lead):
        assert said in text
        assert said in tables_of(seeds, "markdown")
    assert not any(one.seeds for one in collect(read_results_files(seeds[2:])))
    sentence = verdict(collect(read_results_files(seeds[:3])))
    assert sentence.startswith(
        f"No lead over the best baseline: temporal-image on ms-cxr-t (macro accuracy of {group.name}"
    )
    assert f"{mean}; {lead}" in sentence
    assert "ahead" not in sentence


def _change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _pooled(seeds: list[Path]) -> list[tuple[int, ...]]:
    benchmark = next(one for one in collect(read_results_files(seeds)) if one.task == "temporal-image")
    return [group.places for group in benchmark.seeds]


@pytest.mark.parametrize("what", ["same model", "numerics of the results", "numerics of the run", "last, not best"])
def test_only_models_that_differ_in_their_seed_alone_are_pooled(seeds: list[Path], what: str) -> None:
    if what == "same model":
        _change(seeds[1] / "results.json", model=json.loads((seeds[0] / "results.json").read_text())["model"])
    elif what == "numerics of the results":
        _change(seeds[1] / "results.json", numerics=1)
    elif what == "numerics of the run":
        _change(seeds[1] / "settings.json", numerics=2)
    else:
        for folder in seeds[:3]:
            for kind in ("best", "last"):
                is_measured = kind == ("last" if folder == seeds[1] else "best")
                _write_model(folder / kind, folder.name if is_measured else f"other {kind} of {folder.name}")
    assert _pooled(seeds) == [(0, 2)]


def test_one_model_that_is_both_best_and_last_stands_with_either(seeds: list[Path]) -> None:
    for number, folder in enumerate(seeds[:3]):
        _write_model(folder / "last", folder.name)
        _write_model(folder / "best", folder.name if number == 0 else f"best of {folder.name}")
    assert _pooled(seeds) == [(0, 1, 2)]


def _write_model(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(content)


def test_numbers_of_another_model_get_nothing_of_the_run_beside_them(made_up: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made_up / "run", tmp_path / "run")
    own = report([run], tmp_path / "own.html").read_text(encoding="utf-8")
    assert "trained on mimic-cxr" in own
    assert "not in this run" not in own
    _change(run / "results.json", model={"fingerprint": "another", "recipe": "tiny"})
    other = report([run], tmp_path / "other.html").read_text(encoding="utf-8")
    assert "not in this run" in other
    for said in ("trained on mimic-cxr", "of-mimic-cxr", "Image encoder", 'id="learning"'):
        assert said in own
        assert said not in other


def test_an_interval_over_half_the_range_says_too_few_rows(seeds: list[Path], tmp_path: Path) -> None:
    benchmark = next(one for one in collect(read_results_files(seeds[:1])) if one.task == "temporal-image")
    written = {line.finding: line.spread(row) for line in benchmark.lines if (row := line.trained[0])}
    assert written["edema"].endswith("too few rows")
    assert "too few" not in written["average"]
    file = seeds[0] / "results.json"
    assert "too few rows" in report(out=tmp_path / "page.html", runs=[file]).read_text(encoding="utf-8")
    assert "too few rows" in tables_of([file], "latex")


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
