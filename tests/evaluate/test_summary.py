"""The table that `medst evaluate` prints."""

from typing import Any

from medst.evaluate.summary import MOST_ROWS, headline_rows, not_measured, summary_table

EVERY = ("temporal-image", "temporal-text", "probe")


def row(task: str, dataset: str, metric: str, finding: str, value: float = 0.5, **others: Any) -> dict[str, Any]:
    given = {"task": task, "dataset": dataset, "metric": metric, "finding": finding, "model": "trained", "value": value}
    return given | {"std": None, "low": None, "high": None, "n": 7, "chance": 0.25, "folds": None, "seeds": []} | others


def printed(
    results: dict[str, Any], tasks: tuple[str, ...] = EVERY, datasets: tuple[str, ...] = ("a", "b")
) -> list[str]:
    return summary_table(results, tasks, datasets).splitlines()


def words(line: str) -> str:
    return " ".join(line.split())


def test_one_line_per_number_with_its_lead_over_the_best_baseline() -> None:
    rows = [
        row("temporal-image", "a", "macro accuracy", "edema", 0.4, folds=5),
        row("temporal-image", "a", "macro accuracy", "average", 0.6, folds=5),
        row("temporal-image", "a", "macro accuracy", "average", 0.9, folds=10),
        row("temporal-image", "a", "accuracy", "average", 0.9, folds=5),
        row("temporal-image", "a", "macro accuracy", "average", 0.35, folds=5, model="untrained"),
        row("temporal-image", "a", "macro accuracy", "average", 0.58, folds=5, model="thumbnails"),
        row("probe", "b", "auroc", "10 %"),
    ]
    of_edema = {"task": "temporal-image", "dataset": "a", "metric": "macro accuracy", "folds": 5, "finding": "edema"}
    of_edema |= {"baseline": "current study alone", "value": -0.1, "low": -0.2, "high": 0.01, "n": 7}
    average = of_edema | {"finding": "average", "baseline": "thumbnails", "value": 0.02, "low": None, "high": None}
    details = {"temporal-image/a": {}, "probe/b": {"train_rows": {"10 %": 42}}}
    lines = printed({"results": rows, "leads": [of_edema, average], "details": details})
    assert [words(line) for line in lines] == [
        "value lead 95 % interval over n",
        "temporal-image on a: macro accuracy, 5 folds",
        "average 0.600 +0.020 thumbnails 7",
        "edema 0.400 -0.100 -0.200 to +0.010 current study alone 7",
        "average: untrained 0.350, thumbnails 0.580, chance 0.250",
        "probe on b: auroc",
        "10 % (42 rows) 0.500 +0.250 chance 7",
    ]
    assert lines[2].index("0.600") == lines[3].index("0.400") == lines[6].index("0.500")
    assert max(map(len, lines)) <= 80


def test_a_wide_interval_is_replaced_by_too_few_rows() -> None:
    rows = [
        row("probe", "a", "auroc", "1 %", low=0.2, high=0.71),
        row("probe", "a", "auroc", "10 %", low=0.2, high=0.7),
        row("probe", "a", "auroc", "100 %", low=0.4, high=0.6),
    ]
    lead = {
        "task": "probe",
        "dataset": "a",
        "metric": "auroc",
        "folds": None,
        "baseline": "untrained",
        "value": 0.1,
        "n": 7,
    }
    leads = [
        lead | {"finding": "1 %", "low": -0.1, "high": 0.3},
        lead | {"finding": "10 %", "low": -0.1, "high": 0.3},
        lead | {"finding": "100 %", "low": -0.2, "high": 0.4},
    ]
    lines = printed({"results": rows, "leads": leads, "details": {"probe/a": {}}})
    assert [("too few rows" in line, "-0.100 to +0.300" in line) for line in lines[2:5]] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert max(map(len, lines)) <= 80


def test_only_what_this_call_asked_for_is_shown() -> None:
    rows = [
        row("temporal-text", "a", "auroc", "all"),
        row("probe", "a", "auroc", "1 %"),
        row("probe", "b", "auroc", "1 %"),
    ]
    found = headline_rows({"results": rows}, ("probe",), ("b",))
    assert found == rows[2:]


def test_the_largest_groups_are_reduced_to_their_summaries() -> None:
    labels = [f"{share} %{label}" for share in (1, 10) for label in ("", *(f" label {n}" for n in range(MOST_ROWS)))]
    rows = [row("probe", "a", "auroc", label) for label in labels]
    rows += [row("temporal-image", "a", "macro accuracy", name, folds=5) for name in ("edema", "average")]
    found = headline_rows({"results": rows}, EVERY, ("a",))
    assert [each["finding"] for each in found] == ["1 %", "10 %", "average", "edema"]


def test_one_sentence_per_benchmark_for_missing_numbers() -> None:
    left = {"task": "probe", "dataset": "a", "folds": 0, "reason": "too few rows"}
    left_out = [left | {"finding": "1 %"}, left | {"finding": "10 %"}, left | {"finding": "1 %", "dataset": "c"}]
    left_out += [left | {"task": "temporal-image", "finding": "edema", "folds": 5}]
    assert list(not_measured({"left_out": left_out}, EVERY, ("a",))) == [
        "Not measured: probe a, 1 %: too few rows. 1 more of this benchmark: see left_out in the file.",
        "Not measured: temporal-image a, edema, 5 folds: too few rows.",
    ]


def test_new_or_resolved_findings_have_a_title_of_their_own() -> None:
    rows = [
        row("temporal-image", "a", "macro accuracy", finding, 0.5, folds=5)
        for finding in ("average", "pleural_effusion", "pleural_effusion, new or resolved")
    ]
    lines = printed({"results": rows, "leads": [], "details": {"temporal-image/a": {}}})
    assert [words(line) for line in lines[3:]] == [
        "pleural_effusion 0.500 +0.250 chance 7",
        "temporal-image on a, new or resolved: macro accuracy, 5 folds",
        "pleural_effusion 0.500 +0.250 chance 7",
    ]
