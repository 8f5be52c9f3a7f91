"""The field's record: its arithmetic, and where it is shown."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from medst.pages.collect_results import collect, read_results_files
from medst.pages.record import CERTAINTY, FINDINGS, ROWS, published, record
from medst.pages.report import report
from medst.pages.tables import tables_of

PAGE = (Path(__file__).parents[2] / "docs" / "record.md").read_text(encoding="utf-8")
MOST_FREQUENT = dict(zip(FINDINGS, (88, 114, 200, 159, 117), strict=True))
COUNTS = ROWS["ms-cxr-t", "temporal-image"]


def row(system: str, metric: str = "accuracy", task: str = "temporal-image") -> dict[str, str]:
    return next(one for one in published() if (one["system"], one["metric"], one["task"]) == (system, metric, task))


def test_every_row_has_a_source_and_a_certainty() -> None:
    for one in published():
        assert one["source"], one
        assert one["protocol"], one
        assert one["evidence"] in CERTAINTY, one
        assert 0 < float(one["average"]) <= 100, one


def test_the_majority_rows_follow_from_the_counts() -> None:
    shares = []
    for finding, rows in COUNTS.items():
        true = np.repeat([0, 1, 2], [MOST_FREQUENT[finding], rows - MOST_FREQUENT[finding] - 1, 1])
        constant = np.zeros(rows, dtype=int)
        shares.append(100 * accuracy_score(true, constant))
        assert row("majority class")[finding] == f"{shares[-1]:.1f}"
        assert (
            row("majority class", "macro accuracy")[finding] == f"{100 * balanced_accuracy_score(true, constant):.1f}"
        )
    assert row("majority class")["average"] == f"{np.mean(shares):.1f}" == "51.6"
    assert row("majority class", "accuracy", "temporal-text")["average"] == f"{100 * 220 / 361:.1f}"
    assert sum(COUNTS.values()) == 1326
    for finding, rows in COUNTS.items():
        assert f"{MOST_FREQUENT[finding]}/{rows}" in PAGE


@pytest.mark.parametrize(
    ("system", "findings"), [("MAVL", FINDINGS), ("MedCLIP", ("edema", "pneumonia", "pneumothorax"))]
)
def test_rows_that_are_the_majority_answer(system: str, findings: tuple[str, ...]) -> None:
    for finding in findings:
        constant = 100 * MOST_FREQUENT[finding] / COUNTS[finding]
        assert abs(float(row(system)[finding]) - constant) < 0.012  # 43.79 for 43.781, 42.85 for 42.857
        assert row(system)[finding] in PAGE


def test_med_st_is_below_the_majority_on_two_findings() -> None:
    below = [f for f in FINDINGS if float(row("Med-ST")[f]) < 100 * MOST_FREQUENT[f] / COUNTS[f]]
    assert below == ["pneumonia", "pneumothorax"]
    assert np.mean([float(row("Med-ST")[f]) for f in FINDINGS]) == pytest.approx(
        float(row("Med-ST")["average"]), abs=0.01
    )


def test_averages_are_those_of_the_five_findings() -> None:
    whole = [one for one in published() if all(one[finding] for finding in FINDINGS)]
    assert len(whole) > 10
    for one in whole:
        assert float(one["average"]) == pytest.approx(np.mean([float(one[f]) for f in FINDINGS]), abs=0.06), one


def test_coca_cxr_has_two_averages() -> None:
    own, later = (float(row("CoCa-CXR", metric)["average"]) for metric in ("macro accuracy", "as reported"))
    assert later - own == pytest.approx(4.2)
    assert f"{own}" in PAGE
    assert f"{later}" in PAGE


def whole_copy(results: dict) -> dict:
    results = copy.deepcopy(results)
    rows = [one for one in results["results"] if one["task"] == "temporal-image"]
    first = [one for one in rows if one["finding"] == next(one["finding"] for one in rows if one["finding"] in COUNTS)]
    results["results"] = [one for one in results["results"] if one not in rows or one["finding"] == "average"]
    results["results"] += [one | {"finding": f, "n": rows - 3} for f, rows in COUNTS.items() for one in first]
    return results


def test_the_record_stands_beside_a_whole_copy_only(made_up: Path, tmp_path: Path) -> None:
    results = json.loads((made_up / "run" / "results.json").read_text())
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    assert all(record(one) is None for one in collect(read_results_files([file])))
    assert "The field’s record" not in report(out=tmp_path / "page.html", runs=[file]).read_text(encoding="utf-8")
    file.write_text(json.dumps(whole_copy(results)))
    found = {one.task: record(one) for one in collect(read_results_files([file]))}
    shown = found["temporal-image"]
    assert shown is not None
    assert found["temporal-text"] is None
    assert all(len(one) == len(shown.head) for one in (*shown.own, *shown.rows))
    assert shown.rows[0][0] == "majority class"
    value = next(
        one["value"] for one in results["results"]
        if (one["task"], one["metric"], one["finding"], one["model"])
        == ("temporal-image", "macro accuracy", "average", "trained")
    )  # fmt: skip
    assert [one[-4] for one in shown.own if one[1] == "macro accuracy"] == [f"{100 * value:.1f} %"]
    page = report(out=tmp_path / "page.html", runs=[file]).read_text(encoding="utf-8")
    assert "The field’s record" in page
    assert "second-hand, not checked in the published paper" in page
    assert "the field's record" in tables_of([file], "markdown")
    assert r"TAMM (2026)" in tables_of([file], "latex")
