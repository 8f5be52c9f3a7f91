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


def test_one_line_per_number_with_interval_untrained_chance_and_rows() -> None:
    rows = [
        row("temporal-image", "a", "macro accuracy", "edema", 0.4, folds=5, low=0.3, high=0.5),
        row("temporal-image", "a", "macro accuracy", "average", 0.6, folds=5, std=0.01),
        row("temporal-image", "a", "macro accuracy", "average", 0.9, folds=10),
        row("temporal-image", "a", "accuracy", "average", 0.9, folds=5),
        row("temporal-image", "a", "macro accuracy", "average", 0.35, folds=5, model="untrained"),
        row("probe", "b", "auroc", "10 %"),
    ]
    details = {"temporal-image/a": {}, "probe/b": {"train_rows": {"10 %": 42}}}
    head, image, average, edema, on_b, probe = printed({"results": rows, "details": details})
    assert words(head) == "value untrained chance n"
    assert (image, on_b) == ("temporal-image on a: macro accuracy, 5 folds", "probe on b: auroc")
    assert words(average) == "average 0.600 ± 0.010 0.350 0.250 7"
    assert words(edema) == "edema 0.400 0.300 to 0.500 0.250 7"
    assert words(probe) == "10 % (42 rows) 0.500 0.250 7"
    assert average.index("0.600") == edema.index("0.400") == probe.index("0.500")
    assert max(map(len, (average, edema, probe))) <= 80


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
