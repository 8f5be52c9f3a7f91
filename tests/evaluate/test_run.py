"""results.json: complete, the same bytes for the same input, and refused where a task can't be run."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.run import TASKS, evaluate
from medst.evaluate.task import Question
from medst.evaluate.temporal_text import temporal_text
from medst.weights import Loaded, untrained


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
    assert list(tmp_path.iterdir()) == [out]


def test_results_say_what_they_are_of_and_nothing_of_this_machine(
    results_file: Path, loaded: Loaded, benchmark_cohort: Path
) -> None:
    text = results_file.read_text()
    found = json.loads(text)
    assert found["schema"] == 2
    assert found["protocol"] == "paper"
    assert found["model"] == {"fingerprint": loaded.fingerprint, "recipe": "tiny"}
    assert found["cohorts"] == {"ms-cxr-t": "print-benchmark"}
    assert found["switches"]["prompts"] == "released"
    assert str(benchmark_cohort.parent) not in text


def test_every_trained_number_has_an_untrained_one_on_the_same_rows(results_file: Path) -> None:
    rows = json.loads(results_file.read_text())["results"]
    of = {
        model: {(r["task"], r["metric"], r["finding"], r["folds"]): r for r in rows if r["model"] == model}
        for model in ("trained", "untrained")
    }
    assert len(of["trained"]) + len(of["untrained"]) == len(rows)
    assert of["trained"].keys() == of["untrained"].keys()
    assert {task for task, *_ in of["trained"]} == {"temporal-image", "temporal-text"}
    for key, row in of["untrained"].items():
        assert row["seeds"] == [0, 1]
        assert (row["n"], row["chance"]) == (of["trained"][key]["n"], of["trained"][key]["chance"])
    assert any(row["value"] != of["trained"][key]["value"] for key, row in of["untrained"].items())


def test_an_untrained_number_is_the_mean_over_its_models(results_file: Path, loaded: Loaded, benchmark: Cohort) -> None:
    values = [
        next(
            s.value for s in temporal_text(untrained(loaded, seed), benchmark).scores if s.key == ("auroc", "all", None)
        )
        for seed in (0, 1)
    ]
    row = next(
        r
        for r in json.loads(results_file.read_text())["results"]
        if (r["metric"], r["finding"], r["model"]) == ("auroc", "all", "untrained")
    )
    assert row["value"] == pytest.approx(np.mean(values), abs=1e-6)
    assert row["std"] == pytest.approx(np.std(values), abs=1e-6)


def test_one_task_without_baselines_writes_nothing_when_not_asked(model_folder: Path, benchmark_cohort: Path) -> None:
    before = sorted(model_folder.parent.rglob("*"))
    said: list[tuple[int, int, str]] = []
    found = evaluate(
        model_folder,
        benchmark_cohort,
        None,
        tasks=("temporal-text",),
        baseline_seeds=(),
        progress=lambda done, total, note: said.append((done, total, note)),
    )
    assert {row["model"] for row in found["results"]} == {"trained"}
    assert found["details"]["temporal-text/ms-cxr-t"]["predictions"] == []
    assert said[0] == (0, 1, "temporal-text")
    assert said[-1][:2] == (1, 1)
    assert sorted(model_folder.parent.rglob("*")) == before


@pytest.mark.parametrize("task", TASKS)
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
    with pytest.raises(MedstError, match="no task grounding; the tasks are temporal-image, temporal-text"):
        evaluate(model_folder, benchmark_cohort, None, tasks=("grounding",))
    with pytest.raises(MedstError, match="no task given"):
        evaluate(model_folder, benchmark_cohort, None, tasks=())


def test_a_file_is_added_to_and_never_mixed(model_folder: Path, benchmark_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"

    def run(task: str, **options: object) -> dict[str, list[dict[str, object]]]:
        return evaluate(model_folder, benchmark_cohort, out, tasks=(task,), baseline_seeds=(), **options)  # type: ignore[arg-type]

    text = run("temporal-text")["results"]
    both = run("temporal-image", keep=True)
    assert both["results"][: len(text)] == text
    assert set(both["details"]) == {"temporal-text/ms-cxr-t", "temporal-image/ms-cxr-t"}
    assert len(run("temporal-text", keep=True)["results"]) == len(both["results"])
    before = out.read_bytes()
    with pytest.raises(MedstError, match="numbers of other switches; give another --out, or --replace"):
        run("temporal-image", keep=True, question=Question(features="difference"))
    with pytest.raises(MedstError, match="numbers of another protocol"):
        run("temporal-image", keep=True, question=Question(protocol="strict"))
    other = json.loads(before)
    other["cohorts"]["ms-cxr-t"] = "another"
    out.write_text(json.dumps(other))
    with pytest.raises(MedstError, match="numbers of another ms-cxr-t cohort"):
        run("temporal-text", keep=True)
    assert run("temporal-text")["results"] == text


def test_the_same_data_set_twice_is_refused(model_folder: Path, benchmark_cohort: Path) -> None:
    with pytest.raises(MedstError, match="of one data set"):
        evaluate(model_folder, [benchmark_cohort, benchmark_cohort], None)
