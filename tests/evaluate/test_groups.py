"""Numbers of groups of rows: recomputed from the predictions, and what is said where there is none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score

from medst.cli import main
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.benchmarks import BENCHMARKS
from medst.evaluate.groups import FEWEST, NAMES, group_scores, read_people
from medst.evaluate.leads import leads, mean_scores
from medst.evaluate.results import read_results
from medst.evaluate.runner import evaluate
from medst.evaluate.subjects import ModelSubject, Thumbnails
from medst.evaluate.task import PAPER, Outcome, Question
from medst.evaluate.temporal_image import temporal_image
from medst.pages.report import report

START = datetime(2150, 1, 1)
DAYS = np.array([0.5, 1, 7.9, 8, 30.9, 31, 400])
"""Of the gap of seven in a row."""
GAP = ["under a day", *["1 to 7 days"] * 2, *["8 to 30 days"] * 2, *["more than 30 days"] * 2]


@pytest.fixture
def split_cohort(write_cohort: Callable[..., Path], make_comparisons: Callable[..., pl.DataFrame]) -> Path:
    """Images 0 to 23 are prior ones, all on one day; 24 later comes the current one of each."""
    late = [START + timedelta(days=float(DAYS[i % 7])) for i in range(24)]
    images = pl.DataFrame(
        {
            "row": range(48),
            "view_position": ["AP", "PA", None] * 16,
            "time": [START] * 24 + late,
            "portable": [True, False] * 12 + [True] * 24,
        }
    )
    table = make_comparisons(edema=(20, 20, 20), pneumonia=(20, 20, 20))
    prior = pl.Series(np.arange(table.height) % 24)
    table = table.with_columns(previous=prior, current=prior // 2 * 2 % 24 + 24)
    return write_cohort("split", "ms-cxr-t", images=images, comparisons=table)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    rows = [f"p{i},{'FM'[i % 2]},{20 + 2 * i}" for i in range(29)]  # p29 is not in it
    file.write_text("\n".join(["patient_id,sex,age", *rows]))
    return file


def split(
    cohort: Cohort, outcome: Outcome, *by: str, people: Path | None = None, intervals: bool = False, **beside: Outcome
) -> tuple[list[Any], list[Any]]:
    scores = {name: one.scores for name, one in beside.items()}
    ahead = leads("temporal-image", outcome, scores, intervals=False)
    table = None if people is None else read_people(people, [cohort])
    return group_scores("temporal-image", by, outcome, scores, ahead, cohort, table, intervals)


def test_a_group_has_the_number_of_its_rows_by_scikit_learn(
    split_cohort: Path, subject: ModelSubject, people: Path
) -> None:
    cohort = open_cohort(split_cohort)
    outcome = temporal_image(subject, cohort, PAPER)
    found, reasons = split(cohort, outcome, *NAMES, people=people)
    assert reasons == []
    table = pl.DataFrame(outcome.predictions).with_columns(number=pl.col("patient_id").str.slice(1).cast(pl.Int64))
    position = cohort.image_table["view_position"]
    now, before = (position.gather(table[name]).to_list() for name in ("current", "previous"))
    views = [
        "unknown" if None in pair else "same view" if len(set(pair)) == 1 else " to ".join(pair[::-1])
        for pair in zip(now, before, strict=True)
    ]
    expected = {
        "view": views,
        "gap": [GAP[(row - 24) % 7] for row in table["current"]],
        "portable": ["both studies" if row % 2 == 0 else "current alone" for row in table["previous"]],
        "sex": ["unknown" if number == 29 else "FM"[number % 2] for number in table["number"]],
        "age": [
            "unknown" if number == 29 else "under 40" if number < 10 else "40 to 59" if number < 20 else "60 to 79"
            for number in table["number"]
        ],
    }
    # Of the first seed alone, which is what the predictions are of.
    by_hand: dict[tuple[str, str, str], Any] = {}
    for by, labels in expected.items():
        for (finding, group), rows in table.with_columns(group=pl.Series(labels)).group_by("finding", "group"):
            by_hand[finding, by, group] = rows
    of_findings = [one for one in found if one.score.finding != "average"]
    assert {(one.score.finding, one.by, one.group) for one in of_findings} == by_hand.keys()
    for one in of_findings:
        rows = by_hand[one.score.finding, one.by, one.group]
        assert one.n == rows.height
        assert (one.value is None) == (rows.height < FEWEST or rows["progression"].n_unique() < 3)
    first_alone = [
        replace(score, statistic=_first_seed(outcome, score.finding))
        for score in outcome.scores
        if score.finding != "average"
    ]
    only_first = Outcome(first_alone, images=outcome.images)
    checked = 0
    for one in split(cohort, only_first, *NAMES, people=people)[0]:
        if one.value is not None:
            rows = by_hand[one.score.finding, one.by, one.group]
            assert one.value == pytest.approx(balanced_accuracy_score(rows["progression"], rows["predicted"]))
            checked += 1
    assert checked > 10


def _first_seed(outcome: Outcome, finding: str) -> Callable[[np.ndarray], float]:
    rows = [row for row in outcome.predictions if row["finding"] == finding]
    true, said = (np.array([row[name] for row in rows]) for name in ("progression", "predicted"))

    def statistic(weights: np.ndarray) -> float:
        recalls = [
            np.average((true == said)[true == one], weights=weights[true == one])
            if weights[true == one].any()
            else np.nan
            for one in set(true)
        ]
        return float(np.mean(recalls))

    return statistic


def test_intervals_and_leads_of_a_group_draw_patients_and_keep_its_rows(
    split_cohort: Path, subject: ModelSubject
) -> None:
    cohort = open_cohort(split_cohort)
    own, other = (temporal_image(one, cohort, PAPER) for one in (subject, Thumbnails()))
    own.scores = [score for score in own.scores if score.finding == "average"]
    found, _ = split(cohort, own, "gap", intervals=True, thumbnails=other)
    [group] = [one for one in found if (one.score.finding, one.group) == ("average", "1 to 7 days")]
    assert group.baseline == "thumbnails"
    rival = next(score for score in other.scores if score.key == group.score.key)
    among = np.array([GAP[(row - 24) % 7] == "1 to 7 days" for row in own.images["average", 5][:, 0]])
    rng, patients = np.random.default_rng(0), np.unique(group.score.drawn, return_inverse=True)
    values, differences = [], []
    for _ in range(1000):
        drawn = rng.multinomial(len(patients[0]), np.full(len(patients[0]), 1 / len(patients[0])))[patients[1]] * among
        values.append(group.score.statistic(drawn.astype(float)))
        differences.append(values[-1] - rival.statistic(drawn.astype(float)))
    assert group.interval == pytest.approx(tuple(np.nanpercentile(values, [2.5, 97.5])))
    assert group.lead[1] == pytest.approx(tuple(np.nanpercentile(differences, [2.5, 97.5])))
    assert group.lead[0] == pytest.approx(group.value - rival.statistic(among.astype(float)))


def test_what_a_cohort_does_not_hold_is_said(benchmark: Cohort, cohort: Cohort, subject: ModelSubject) -> None:
    outcome = temporal_image(subject, benchmark, PAPER)
    found, reasons = split(benchmark, outcome, "view", "gap", "portable", "sex")
    assert {(one.by, one.group) for one in found} == {("view", "unknown")}
    assert [(left.finding, left.reason.partition(";")[0]) for left in reasons] == [
        ("by gap", "this cohort has no times of its images"),
        ("by portable", "this cohort does not say which images are portable"),
        ("by sex", "the cohort does not hold it"),
    ]
    for name in ("zero-shot", "probe"):  # one image a row
        single = BENCHMARKS[name].task()(subject, cohort, Question(protocol="paper", fractions=(1.0,)))
        ahead = mean_scores([single], (0,))
        found, reasons = group_scores(name, ("view", "gap"), single, {"untrained": ahead}, [], cohort, None, False)
        assert {one.by for one in found} == {"view"}
        assert all(one.reason.startswith("too few rows: 12, 20") for one in found)
        assert [left.reason for left in reasons] == ["one study has no time since another"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("patient_id\np1", "needs the column patient_id, and sex, age or birth_year"),
        ("id,sex\np1,F", "has no column patient_id"),
        ("patient_id,age\np1,old", "'old' is not a number of 0 or more, as age must be"),
        ("patient_id,sex\np1,F\np1,M", "has patient p1 in several rows"),
        ("patient_id,sex\n7,F", r"names no patient of .*, such as p0; its column"),
    ],
)
def test_a_bad_table_of_patients_is_refused(
    content: str, said: str, split_cohort: Path, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    question = Question(by="sex", patients=tmp_path / "bad.csv", bootstrap=False)
    with pytest.raises(MedstError, match=said):
        evaluate(model_folder, split_cohort, None, tasks=("temporal-image",), question=question, baselines=False)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"age": [[40]]}, r"the column age is of type List"),
        ({"sex": [["F"]]}, r"the column sex is of type List"),
        ({"age": [float("inf")]}, "'inf' is not a number of 0 or more, as age must be"),
        ({"age": [-4]}, "'-4' is not a number of 0 or more, as age must be"),
    ],
)
def test_a_parquet_of_patients_with_impossible_columns_is_refused(
    columns: dict[str, list[Any]], said: str, split_cohort: Path, tmp_path: Path
) -> None:
    file = tmp_path / "people.parquet"
    pl.DataFrame({"patient_id": ["p0"], **columns}).write_parquet(file)
    with pytest.raises(MedstError, match=rf"--patients {file}: {said}"):
        read_people(file, [open_cohort(split_cohort)])


def test_an_age_that_is_not_a_number_is_unknown(split_cohort: Path, subject: ModelSubject, tmp_path: Path) -> None:
    cohort, file = open_cohort(split_cohort), tmp_path / "people.parquet"
    ages = [float("nan")] * 15 + [50.0] * 15
    pl.DataFrame({"patient_id": [f"p{i}" for i in range(30)], "age": ages}).write_parquet(file)
    found, _ = split(cohort, temporal_image(subject, cohort, PAPER), "age", people=file)
    assert {one.group for one in found} == {"40 to 59", "unknown"}


def test_a_patient_born_after_a_study_is_named(split_cohort: Path, subject: ModelSubject, tmp_path: Path) -> None:
    cohort, file = open_cohort(split_cohort), tmp_path / "people.csv"
    file.write_text("patient_id,birth_year\np0,2160\n")
    found, left = split(cohort, temporal_image(subject, cohort, PAPER), "age", people=file)
    assert not found
    assert [one.reason for one in left] == ["--patients says that patient p0 was born after the year of a study"]


def test_a_missing_file_of_patients_or_a_folder_is_named(split_cohort: Path, tmp_path: Path) -> None:
    for place, said in ((tmp_path, "not a file"), (tmp_path / "a.csv", "no such file"), (tmp_path / "a.pq", "no such")):
        with pytest.raises(MedstError, match=rf"--patients {place}: {said}.*give a CSV or Parquet file\.$"):
            read_people(place, [open_cohort(split_cohort)])


def test_years_of_birth_give_the_age_at_the_study(split_cohort: Path, subject: ModelSubject, tmp_path: Path) -> None:
    file = tmp_path / "born.parquet"
    pl.DataFrame(
        {"patient_id": [f"p{i}" for i in range(30)], "birth_year": [2111 - 21 * (i % 2) for i in range(30)]}
    ).write_parquet(file)
    cohort = open_cohort(split_cohort)
    found, _ = split(cohort, temporal_image(subject, cohort, PAPER), "age", people=file)
    late = cohort.image_table["time"].dt.year()  # 2150, or 2151 after 400 days
    assert late.max() == 2151
    assert {one.group for one in found} == {"under 40", "40 to 59", "60 to 79"}


def test_groups_are_in_the_file_on_the_terminal_and_on_the_page(
    split_cohort: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    words = [
        "evaluate",
        "temporal-image",
        str(model_folder),
        str(split_cohort),
        "--out",
        str(out),
        "--protocol",
        "paper",
    ]
    main([*words, "--untrained", "0", "--by", "view,gap,sex"])
    said = capsys.readouterr().out
    found = read_results(out)
    assert {(row["by"], row["finding"]) for row in found["groups"]} >= {("view", "average"), ("gap", "edema")}
    assert all(row["metric"] == "macro accuracy" for row in found["groups"])
    [far] = [row for row in found["groups"] if (row["finding"], row["group"]) == ("average", "more than 30 days")]
    line = next(line for line in said.splitlines() if line.startswith("  gap: more than 30 days"))
    assert line.split()[5:] == [f"{far['value']:.3f}", f"{far['lead']:+.3f}", str(far["n"])]
    assert "by sex: the cohort does not hold it; give --patients FILE with patient_id and sex" in said
    page = report([out], tmp_path / "page.html").read_text()
    assert "For whom is it worse? Macro accuracy, 5 folds of groups" in page
    assert "Average, gap: more than 30 days" in page
    few = next(row for row in found["groups"] if row["value"] is None)
    assert f"{few['by']}: {few['group']}: {few['reason']}" in page
    before = out.read_bytes()
    main([*words, "--untrained", "0"])  # which asks for less, and so keeps what is there
    assert out.read_bytes() == before
    with pytest.raises(SystemExit):
        main([*words, "--by", "colour"])
    assert "--by colour: there is no colour; choose from view,gap,portable,sex,age." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--patients", str(out)])
    assert "--patients goes with --by sex or --by age." in capsys.readouterr().err
