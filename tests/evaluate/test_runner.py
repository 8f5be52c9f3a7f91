"""results.json: complete, the same bytes for the same input, and an error where a benchmark can't be run."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from medst.cli import main
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate import runner
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.results import read_results
from medst.evaluate.subjects import ModelSubject
from medst.evaluate.task import PAPER, STRICT, Outcome, Question, Task
from medst.evaluate.temporal_text import temporal_text
from medst.files import claim, is_leftover
from medst.use import Model

evaluate = partial(runner.evaluate, question=PAPER)  # quicker than strict, which test_baselines.py takes
IMAGE = "temporal-image/ms-cxr-t"
SUBJECTS = {"temporal-image": 7, "temporal-text": 6}
"""The model, its baselines, two of which are untrained models."""


@pytest.fixture(scope="module")
def results_file(model_folder: Path, benchmark_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "new" / "results.json"
    evaluate(model_folder, benchmark_cohort, out, baseline_seeds=(0, 1))
    return out


def test_the_same_input_gives_the_same_bytes(
    results_file: Path, model_folder: Path, benchmark_cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again.json"
    returned = evaluate(model_folder, benchmark_cohort, out, baseline_seeds=(0, 1))
    assert out.read_bytes() == results_file.read_bytes()
    assert json.loads(out.read_text()) == returned
    assert [path.name for path in tmp_path.iterdir() if not is_leftover(path)] == [out.name]


def test_results_name_their_inputs_and_nothing_of_this_machine(
    results_file: Path, loaded: Model, benchmark_cohort: Path
) -> None:
    text = results_file.read_text()
    found = json.loads(text)
    assert found["schema"] == 2
    assert found["protocol"] == "paper"
    assert found["model"] == {"fingerprint": loaded.fingerprint, "recipe": "tiny"}
    assert found["cohorts"] == {"ms-cxr-t": "print-benchmark"}
    assert found["switches"]["prompts"] == "released"
    assert str(benchmark_cohort.parent) not in text


def test_every_trained_number_stands_beside_those_of_its_baselines_on_the_same_rows(results_file: Path) -> None:
    rows = json.loads(results_file.read_text())["results"]
    models = {row["model"] for row in rows}
    of = {
        model: {(r["task"], r["metric"], r["finding"], r["folds"]): r for r in rows if r["model"] == model}
        for model in models
    }
    assert {task for task, *_ in of["trained"]} == {"temporal-image", "temporal-text"}
    assert models == {"trained"}.union(*(BENCHMARKS[task].baselines for task, *_ in of["trained"]))
    for model in models:
        expected = [key for key in of["trained"] if model == "trained" or model in BENCHMARKS[key[0]].baselines]
        assert list(of[model]) == expected
        for key, row in of[model].items():
            assert row["n"] == of["trained"][key]["n"]
            if key[1] != "swap consistency":  # whose chance follows from the subject's own answers
                assert row["chance"] == of["trained"][key]["chance"]
    assert all(row["seeds"] == [0, 1] for row in of["untrained"].values())
    assert any(row["value"] != of["trained"][key]["value"] for key, row in of["untrained"].items())
    majority = of["majority answer"]["temporal-image", "macro accuracy", "average", 5]
    assert (majority["value"], majority["std"]) == (pytest.approx(1 / 3, abs=1e-6), 0.0)


def test_an_untrained_number_is_the_mean_over_its_models(
    results_file: Path, subject: ModelSubject, benchmark: Cohort
) -> None:
    values = [
        next(
            s.value for s in temporal_text(subject.untrained(seed), benchmark).scores if s.key == ("auroc", "all", None)
        )
        for seed in (0, 1)
    ]
    row = next(
        r
        for r in json.loads(results_file.read_text())["results"]
        if (r["metric"], r["finding"], r["model"]) == ("auroc", "all", "untrained")
    )
    assert row["value"] == pytest.approx(np.mean(values), abs=1e-6)
    assert row["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_one_task_without_baselines_writes_nothing_when_not_asked(model_folder: Path, benchmark_cohort: Path) -> None:
    before = sorted(model_folder.parent.rglob("*"))
    said: list[tuple[int, int, str]] = []
    found = evaluate(
        model_folder,
        benchmark_cohort,
        None,
        tasks=("temporal-text",),
        baselines=False,
        progress=lambda done, total, note: said.append((done, total, note)),
    )
    assert {row["model"] for row in found["results"]} == {"trained"}
    assert found["details"]["temporal-text/ms-cxr-t"]["predictions"] == []
    assert said[0] == (0, 1, "temporal-text")
    assert said[-1][:2] == (1, 1)
    assert sorted(model_folder.parent.rglob("*")) == before


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_cohort_of_the_wrong_kind_is_refused(
    task: str, model_folder: Path, write_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = pl.DataFrame({"patient_id": ["p1"], "study_id": ["s1"], "time": [datetime(2150, 1, 1)]})
    pairs = pairs.with_columns(labels=pl.lit(None, pl.Struct({"Edema": pl.Float64})))
    of_pairs = task in ("retrieval", "probe")
    name, tables = ("ms-cxr-t", {}) if of_pairs else ("mimic-cxr", {"pairs": pairs})
    cohort = write_cohort("other", name, **tables)
    with pytest.raises(MedstError, match=f"it is an? {name} cohort"):
        evaluate(model_folder, cohort, tmp_path / "results.json", tasks=(task,))
    assert not (tmp_path / "results.json").exists()


def test_an_unknown_task_or_none_is_refused(model_folder: Path, benchmark_cohort: Path) -> None:
    with pytest.raises(MedstError, match="no benchmark grounding; choose from temporal-image, temporal-text"):
        evaluate(model_folder, benchmark_cohort, None, tasks=("grounding",))
    with pytest.raises(MedstError, match="No benchmark is given; choose from"):
        evaluate(model_folder, benchmark_cohort, None, tasks=())


def test_a_file_is_added_to_and_never_mixed(model_folder: Path, benchmark_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"

    def add(task: str, **options: object) -> dict[str, list[dict[str, object]]]:
        return evaluate(model_folder, benchmark_cohort, out, tasks=(task,), baselines=False, **options)  # type: ignore[arg-type]

    text = add("temporal-text")["results"]
    both = add("temporal-image", keep=True)
    assert both["results"][: len(text)] == text
    assert set(both["details"]) == {"temporal-text/ms-cxr-t", "temporal-image/ms-cxr-t"}
    assert len(add("temporal-text", keep=True)["results"]) == len(both["results"])
    before = out.read_bytes()
    with pytest.raises(MedstError, match="numbers of other switches; give another --out, or --replace"):
        add("temporal-image", keep=True, question=replace(PAPER, features="difference"))
    # What an earlier version wrote as results.json, when paper was the default, stays as it is.
    with pytest.raises(
        MedstError, match=r"holds numbers of protocol paper, .* strict; rename it to results-paper\.json"
    ):
        add("temporal-image", keep=True, question=STRICT)
    assert out.read_bytes() == before
    out.write_text(json.dumps(json.loads(before) | {"protocol": "strict"}))
    with pytest.raises(MedstError, match=r"of protocol strict, these are of protocol paper; give another --out, or"):
        add("temporal-image", keep=True)
    elsewhere = out.rename(tmp_path / "mine.json")
    with pytest.raises(MedstError, match=r"rename it to results\.json to keep it, give another --out, or --replace"):
        evaluate(model_folder, benchmark_cohort, elsewhere, tasks=("temporal-image",), keep=True, question=PAPER)
    for keep in (True, False):
        with pytest.raises(MedstError, match=rf"{tmp_path} is a folder; give --out the name of a file\.$"):
            evaluate(model_folder, benchmark_cohort, tmp_path, tasks=("temporal-text",), keep=keep)
    other = json.loads(before)
    other["cohorts"]["ms-cxr-t"] = "another"
    out.write_text(json.dumps(other))
    with pytest.raises(MedstError, match="numbers of another ms-cxr-t cohort"):
        add("temporal-text", keep=True)
    assert add("temporal-text")["results"] == text


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of benchmarks as they are measured, once per model."""
    names: list[str] = []

    def watched(name: str, task: Task) -> Task:
        return lambda *given: names.append(name) or task(*given)

    for name, benchmark in BENCHMARKS.items():
        function = name.replace("-", "_")
        monkeypatch.setattr(f"medst.evaluate.{function}.{function}", watched(name, benchmark.task()))
    return names


def test_a_stopped_evaluation_resumes_and_writes_the_same_bytes(
    results_file: Path, model_folder: Path, benchmark_cohort: Path, tmp_path: Path, measured: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "results.json"

    def stop(*_: object) -> Outcome:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medst.evaluate.temporal_text.temporal_text", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model_folder, benchmark_cohort, out, baseline_seeds=(0, 1), keep=True)
    assert set(json.loads(out.read_text())["details"]) == {"temporal-image/ms-cxr-t"}
    (tmp_path / "results.json.1.part").write_text("{")
    assert measured == ["temporal-image"] * SUBJECTS["temporal-image"]
    measured.clear()
    for expected in (["temporal-text"] * SUBJECTS["temporal-text"], []):
        evaluate(model_folder, benchmark_cohort, out, baseline_seeds=(0, 1), keep=True)
        assert measured == expected
        assert out.read_bytes() == results_file.read_bytes()
        measured.clear()
    evaluate(model_folder, benchmark_cohort, out, tasks=("temporal-text",), baseline_seeds=(0,))
    assert measured == ["temporal-text"] * (SUBJECTS["temporal-text"] - 1)


def test_asking_for_less_loses_no_number_and_asking_for_more_adds_them(
    model_folder: Path, benchmark_cohort: Path, tmp_path: Path, measured: list[str]
) -> None:
    out = tmp_path / "results.json"

    def ask(by: str = "", **options: Any) -> None:
        evaluate(
            model_folder,
            benchmark_cohort,
            out,
            tasks=("temporal-image",),
            question=Question(by=by),
            keep=True,
            **options,
        )

    ask(baselines=False)
    ask(baseline_seeds=(0,))
    assert len(measured) == 1 + SUBJECTS["temporal-image"] - 1
    written = out.read_bytes()
    measured.clear()
    ask(baselines=False)
    ask(baseline_seeds=())
    assert (measured, out.read_bytes()) == ([], written)
    for wrong in ({"by": "view", "baselines": False}, {"by": "view", "baseline_seeds": (1,)}):
        with pytest.raises(MedstError, match="measured with other options"):
            ask(**wrong)
    assert out.read_bytes() == written


def test_results_of_another_numerics_version_are_not_taken_for_results_of_this_one(
    model_folder: Path, benchmark_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.json"
    evaluate(model_folder, benchmark_cohort, out, tasks=("temporal-text",), baselines=False)
    monkeypatch.setattr(runner, "NUMERICS", runner.NUMERICS + 1)
    with pytest.raises(MedstError, match=r"another version of medst's numerics; give another --out, or --replace"):
        evaluate(model_folder, benchmark_cohort, out, tasks=("temporal-text",), baselines=False, keep=True)


def test_what_can_not_be_measured_is_recorded_while_the_others_continue(
    model_folder: Path, write_cohort: Callable[..., Path], benchmark: Cohort, tmp_path: Path
) -> None:
    assert benchmark.sentences is not None
    few = write_cohort("few", "ms-cxr-t", comparisons=benchmark.comparisons, sentences=benchmark.sentences[:4])
    out = tmp_path / "results.json"
    for _ in range(2):
        found = evaluate(model_folder, few, out, baselines=False, keep=True)
        assert json.loads(out.read_text()) == found
        assert {row["task"] for row in found["results"]} == {"temporal-image"}
        (left,) = (row for row in found["left_out"] if row["task"] == "temporal-text")
        assert (left["finding"], left["folds"], left["dataset"]) == ("all", 0, "ms-cxr-t")
        assert left["reason"].startswith("few: too few sentences for temporal-text (10 folds need 10 pairs")
        assert str(tmp_path) not in out.read_text()
    with pytest.raises(MedstError, match="too few sentences"):
        evaluate(model_folder, few, out, tasks=("temporal-text",), baselines=False, keep=True)
    nothing = write_cohort("nothing", "ms-cxr-t", sentences=benchmark.sentences[:4])
    with pytest.raises(MedstError, match=r"^Nothing could be measured \(temporal-text on ms-cxr-t: nothing: too few"):
        evaluate(model_folder, nothing, tmp_path / "none.json", baselines=False)
    assert json.loads((tmp_path / "none.json").read_text())["left_out"]


def test_a_second_evaluation_into_one_file_is_refused(
    model_folder: Path, benchmark_cohort: Path, tmp_path: Path
) -> None:
    with claim(tmp_path / "results.json"), pytest.raises(MedstError, match="is being written by another process"):
        evaluate(model_folder, benchmark_cohort, tmp_path / "results.json")


def test_damaged_results_are_refused_in_a_sentence(
    results_file: Path, model_folder: Path, benchmark_cohort: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "results.json", json.loads(results_file.read_text())
    broken = [
        "", "{", "[]", json.dumps(whole | {"results": [{}]}), json.dumps(whole | {"cohorts": None}),
        json.dumps(whole | {"details": {"temporal-text/ms-cxr-t": []}}),
    ]  # fmt: skip
    for content in broken:
        out.write_text(content)
        with pytest.raises(MedstError, match=r"results\.json (is damaged|has results schema).*--replace` writes it"):
            evaluate(model_folder, benchmark_cohort, out, keep=True)
    old = {name: value for name, value in whole.items() if name != "numerics"}
    out.write_text(json.dumps(old))
    assert read_results(out)["numerics"] == 1


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["medst_version"], None, "medst_version is a NoneType"),
        (["protocol"], "lax", "protocol is 'lax', not one of strict, paper, transfer, answers"),
        (["switches"], {"speed": 1}, "switches has an unknown 'speed'"),
        (["cohorts"], {}, "cohorts has no"),
        (["leaks"], [], "leaks is a list"),
        (["groups"], None, "groups is a NoneType"),
        (["groups"], "none", "groups is a str"),
        (["groups"], [{}], r"groups\[0\] has no 'task'"),
        (["results", 0, "task"], "chess", r"results\[0\]\.task is 'chess', not one of temporal-image"),
        (["results", 0, "value"], float("nan"), r"results\[0\]\.value is nan"),
        (["results", 0, "low"], 0.5, r"results\[0\] has one of low and high alone"),
        (["leads", 0, "low"], 0.5, r"leads\[0\] has one of low and high alone"),
        (["groups", 0, "value"], "0.5", r"groups\[0\]\.value is a str"),
        (["groups", 0, "lead_high"], 0.5, r"groups\[0\] has one of lead_low and lead_high alone"),
        (["details"], {}, "details has no"),
        (["details", IMAGE, "asked"], "all", "asked is a str"),
        (["details", IMAGE, "asked", "untrained"], 3, r"asked\.untrained is a"),
        (["details", IMAGE, "train_rows"], 3, "train_rows is a int"),
        (["details", IMAGE, "confusion"], {"edema": [[1, 2, 3], [1, 2], [1, 2, 3]]}, "3 rows and 3 columns"),
        (["details", IMAGE, "confusion"], {"edema": "123"}, r"confusion\.edema is a str"),
        (["details", IMAGE, "calibration"], {"edema": "123"}, r"calibration\.edema is a str"),
        (["details", IMAGE, "calibration"], {"edema": [[0.5]]}, "3 numbers in a row"),
        (["details", IMAGE, "predictions"], [{}], "predictions.* has no 'study_id'"),
    ],
)
def test_no_part_of_a_results_file_is_believed_unread(
    results_file: Path, tmp_path: Path, place: list[str | int], value: object, said: str
) -> None:
    content, out = json.loads(results_file.read_text()), tmp_path / "results.json"
    for row in content["results"]:
        row["low"] = row["high"] = None
    row = dict.fromkeys(("low", "high", "lead", "lead_low", "lead_high", "value", "folds", "baseline"))
    row |= {"task": "temporal-image", "dataset": "ms-cxr-t", "metric": "accuracy", "finding": "edema", "n": 3}
    content["groups"] = [row | {"by": "view", "group": "AP", "reason": "too few rows"}]
    lead = {"value": 0.1, "low": None, "high": None, "baseline": "chance", "folds": None}
    content["leads"] = [lead | {name: row[name] for name in ("task", "dataset", "metric", "finding", "n")}]
    out.write_text(json.dumps(content))
    read_results(out)
    part = content
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    out.write_text(json.dumps(content))
    before = out.read_bytes()
    with pytest.raises(MedstError, match=rf"results\.json is damaged \(.*{said}"):
        read_results(out)
    assert out.read_bytes() == before


def test_deviations_of_earlier_files_are_converted_to_n_minus_1(results_file: Path, tmp_path: Path) -> None:
    now = json.loads(results_file.read_text())
    before = json.loads(results_file.read_text())
    del before["leads"]
    for row in before["results"]:
        if row["std"] is not None:
            row["std"] *= ((len(row["seeds"]) - 1) / len(row["seeds"])) ** 0.5
    (tmp_path / "results.json").write_text(json.dumps(before))
    read = read_results(tmp_path / "results.json")["results"]
    assert [row["std"] for row in read] == pytest.approx([row["std"] for row in now["results"]], abs=2e-6)
    assert any(row["std"] for row in read)
    assert read_results(results_file)["results"] == now["results"]


def test_the_terminal_names_what_was_not_measured_and_resumes(
    model_folder: Path, write_cohort: Callable[..., Path], benchmark: Cohort, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], measured: list[str],
) -> None:  # fmt: skip
    assert benchmark.sentences is not None
    few = write_cohort("few", "ms-cxr-t", comparisons=benchmark.comparisons, sentences=benchmark.sentences[:4])
    words = [
        "evaluate",
        "all",
        str(model_folder),
        str(few),
        "--out",
        str(tmp_path / "r.json"),
        "--no-baselines",
        "--protocol",
        "paper",
    ]
    main(words)
    said = capsys.readouterr().out
    assert "Not measured: temporal-text ms-cxr-t, all: few: too few sentences for temporal-text" in said
    assert "The folds of temporal-image share patients" in said
    measured.clear()
    main(words)
    assert measured == ["temporal-text"]
    main([*words, "--replace"])
    assert measured == ["temporal-text", "temporal-image", "temporal-text"]
    with pytest.raises(SystemExit) as stop:
        main([words[0], "temporal-text", *words[2:]])
    assert stop.value.code == 1
    assert "too few sentences" in capsys.readouterr().err


def test_the_same_data_set_twice_is_refused(model_folder: Path, benchmark_cohort: Path) -> None:
    with pytest.raises(MedstError, match="of one data set"):
        evaluate(model_folder, [benchmark_cohort, benchmark_cohort], None)


def test_the_page_on_results_json_has_a_line_for_every_key(
    cohort: Cohort, model_folder: Path, benchmark_cohort: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    named = [set(re.findall(r"^\|.*?\|", part, re.MULTILINE)) for part in page.split("\n## ")[1:]]
    head, rows, leads, groups, details = (
        {key for cell in cells for key in re.findall(r"`(\w+)`", cell)} for cells in named
    )
    question = Question(fractions=(1.0,), bootstrap=False, by="view")
    found = evaluate(model_folder, [cohort.path, benchmark_cohort], None, question=question, baseline_seeds=(0,))
    assert {row["task"] for row in found["results"]} == {"zero-shot", "probe", "temporal-image", "temporal-text"}
    assert found.keys() == head
    assert all(row.keys() == rows for row in found["results"])
    assert all(row.keys() == leads for row in found["leads"])
    assert {frozenset(row) for row in found["groups"]} == {frozenset(groups)}
    assert set().union(*found["details"].values()) == details


def test_results_on_phantom_patients_warn_that_a_program_drew_them(
    model_folder: Path, write_cohort: Callable[..., Path], benchmark: Cohort
) -> None:
    path = write_cohort("drawn", "ms-cxr-t", comparisons=benchmark.comparisons, sentences=benchmark.sentences)
    options: dict[str, Any] = {"tasks": ("temporal-text",), "baselines": False}
    assert evaluate(model_folder, path, None, **options)["warnings"] == []
    meta = json.loads((path / "cohort.json").read_text())
    (path / "cohort.json").write_text(json.dumps(meta | {"synthetic": True}))
    assert evaluate(model_folder, path, None, **options)["warnings"] == [f"drawn: {runner.SYNTHETIC}"]
