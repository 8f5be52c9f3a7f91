"""For whom is it worse: numbers of groups of the tested rows, by view, time between two studies, portable images, sex, age.

Nothing is trained or predicted again: a number is a function of the rows' weights, and a group's number gives weight to its
rows alone. The bootstrap draws patients as for all rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst.cohort.raw_tables import read_csv, read_parquet
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.intervals import bootstrap
from medst.evaluate.summary import headline
from medst.evaluate.task import Lead, LeftOut, Outcome, Question, Score

NAMES = ("view", "gap", "portable", "sex", "age")
FEWEST = 20
"""Rows that a number of a group needs."""
GAPS = ((1.0, "under a day"), (8.0, "1 to 7 days"), (31.0, "8 to 30 days"), (np.inf, "more than 30 days"))
"""Days below which a gap has this name."""
AGES = ((40.0, "under 40"), (60.0, "40 to 59"), (80.0, "60 to 79"), (np.inf, "80 and over"))
UNKNOWN = "unknown"
ORDER = (*(name for _, name in (*GAPS, *AGES)), "same view", UNKNOWN)
"""Groups with a place of their own, after all others."""


@dataclass(frozen=True)
class GroupScore:
    """One number of the model on one group of rows.

    Attributes:
        by: what the rows are split by, one of `NAMES`.
        group: the group.
        score: the headline number on all rows.
        n: rows of the group.
        value: the number on the group; None if there are too few rows.
        interval: 95 % interval of a bootstrap over patients; None if not computed.
        baseline: the model's best baseline on all rows; None without baselines.
        lead: the model's value on the group minus the baseline's, and its interval.
        reason: why there is no value; empty if there is one.
    """

    by: str
    group: str
    score: Score
    n: int
    value: float | None
    interval: tuple[float, float] | None
    baseline: str | None
    lead: tuple[float, tuple[float, float] | None] | None
    reason: str


def chosen(by: str) -> tuple[str, ...]:
    """The names in `--by`, in the order of `NAMES`.

    Raises:
        MedstError: one of them is unknown.

    >>> chosen("gap, view")
    ('view', 'gap')
    """
    given = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise MedstError(f"--by {by}: there is no {unknown[0]}; choose from {','.join(NAMES)}.")
    return tuple(name for name in NAMES if name in given)


def people_of(question: Question, cohorts: Iterable[Cohort]) -> pl.DataFrame | None:
    """What `--patients` says of the patients of `cohorts`, see `read_people`; None if it is not given.

    Raises:
        MedstError: as `chosen` and `read_people`, or nothing is split by it.
    """
    if question.patients is None:
        return None
    if not set(chosen(question.by)) & {"sex", "age"}:
        raise MedstError("--patients goes with --by sex or --by age.")
    return read_people(question.patients, cohorts)


def read_people(path: Path, cohorts: Iterable[Cohort]) -> pl.DataFrame:
    """Read `--patients`: a CSV or Parquet file with patient_id, and sex, age or birth_year of the patients of `cohorts`.

    Returns:
        patient_id, sex (text), age (years) and birth_year; columns that the file lacks are null.

    Raises:
        MedstError: the file is missing, a folder, damaged, lacks patient_id or all others, names a patient twice or no
            patient of the cohorts, has a column of lists or the like, or an age or a year that is not a number of 0 or more.
    """
    if not path.is_file():
        raise MedstError(
            f"--patients {path}: {'not a file' if path.exists() else 'no such file'}; give a CSV or Parquet file."
        )
    given = path.suffix.lower() in (".parquet", ".pq")
    table = read_parquet(path) if given else read_csv(path, ("patient_id",), remedy="write it again")
    numbers = [name for name in ("age", "birth_year") if name in table.columns]
    if "patient_id" not in table.columns or not (numbers or "sex" in table.columns):
        raise MedstError(f"--patients {path} needs the column patient_id, and sex, age or birth_year.")
    for name in [name for name in ("patient_id", "sex") if name in table.columns] + numbers:
        kind = table[name].dtype
        if not (kind.is_numeric() or kind in (pl.String, pl.Null, pl.Boolean, pl.Categorical, pl.Enum)):
            raise MedstError(f"--patients {path}: the column {name} is of type {kind}; give text or numbers.")
    for name in numbers:
        # A null of pandas is NaN where polars writes the file.
        number = pl.col(name).cast(pl.String).cast(pl.Float64, strict=False)
        odd = table.filter(pl.col(name).is_not_null() & ((number < 0) | number.is_infinite() | number.is_null()))
        if odd.height:
            raise MedstError(f"--patients {path}: '{odd[name][0]}' is not a number of 0 or more, as {name} must be.")
        table = table.with_columns(number.fill_nan(None).alias(name))
    twice = table.filter(~pl.col("patient_id").is_first_distinct())
    if twice.height:
        raise MedstError(f"--patients {path} has patient {twice['patient_id'][0]} in several rows; give one row each.")
    tables = [
        (one, table) for one in cohorts for table in (one.pairs, one.labelled, one.comparisons) if table is not None
    ]
    ids = pl.Series([patient for _, one in tables for patient in one["patient_id"]], dtype=pl.String)
    if not ids.is_in(table["patient_id"].cast(pl.String).to_list()).any():
        raise MedstError(
            f"--patients {path} names no patient of {', '.join(str(one.path) for one, _ in tables) or 'the cohorts'}"
            f"{f', such as {ids[0]}' if len(ids) else ''}; its column patient_id must hold their ids."
        )
    missing = [pl.lit(None).alias(name) for name in ("sex", "age", "birth_year") if name not in table.columns]
    return table.with_columns(missing).select(
        pl.col("patient_id").cast(pl.String),
        pl.col("sex").cast(pl.String),
        pl.col("age", "birth_year").cast(pl.Float64),
    )


def group_scores(
    task: str,
    by: Sequence[str],
    outcome: Outcome,
    beside: Mapping[str, Sequence[Score]],
    leads: Sequence[Lead],
    cohort: Cohort,
    people: pl.DataFrame | None,
    intervals: bool,
) -> tuple[list[GroupScore], list[LeftOut]]:
    """Split the headline numbers of a model, and its leads over the baseline that is best on all rows.

    Args:
        task: name of the benchmark.
        by: what to split by.
        outcome: of the model, with the images of its rows.
        beside: scores of the baselines.
        leads: of the model on all rows.
        cohort: the tested cohort.
        people: see `read_people`.

    Returns:
        The groups' numbers, and what could not be split with the reason.
    """
    best = {(lead.metric, lead.finding, lead.folds): lead.baseline for lead in leads}
    rivals = {(name, score.key): score for name, scores in beside.items() for score in scores}
    found, reasons = list[GroupScore](), dict[str, str]()
    for score in headline(task, outcome.scores, attrgetter("metric", "finding", "folds")):
        images = outcome.images.get((score.finding, score.folds))
        if images is None or score.statistic is None:
            continue
        name = best.get(score.key)
        rival = None if name is None else rivals[name, score.key]
        for what in by:
            labels = _labels(what, cohort, images, score.drawn, people)
            if isinstance(labels, str):
                reasons[what] = labels
                continue
            groups = sorted(set(labels.tolist()), key=lambda one: (ORDER.index(one) if one in ORDER else -1, one))
            found += [_group(what, one, labels == one, score, name, rival, intervals) for one in groups]
    if not outcome.images:
        reasons = dict.fromkeys(by, "its rows name no image")
    return found, [LeftOut(f"by {what}", 0, reason) for what, reason in reasons.items()]


def _group(
    by: str, group: str, among: np.ndarray, score: Score, name: str | None, rival: Score | None, intervals: bool
) -> GroupScore:
    own, n = score.statistic, int(among.sum())
    assert own is not None
    value = own(among.astype(np.float64)) if n >= FEWEST else float("nan")
    if np.isnan(value):
        reason = f"too few rows: {n}, {FEWEST} are needed" if n < FEWEST else "too few rows: a class is missing"
        return GroupScore(by, group, score, n, None, None, None, None, reason)
    interval, lead = None, None
    if intervals:
        interval = bootstrap(lambda weights: own(weights * among), score.drawn)
        if interval is None:
            reason = "too few rows: most draws of patients lack a class"
            return GroupScore(by, group, score, n, None, None, None, None, reason)
    if rival is not None:
        other = rival.statistic or (lambda weights: rival.value)
        difference: Callable[[np.ndarray], float] = lambda weights: own(weights * among) - other(weights * among)  # noqa: E731
        lead = difference(np.ones(len(among))), bootstrap(difference, score.drawn) if intervals else None
    return GroupScore(by, group, score, n, value, interval, name, lead, "")


def _labels(
    by: str, cohort: Cohort, images: np.ndarray, patients: np.ndarray, people: pl.DataFrame | None
) -> np.ndarray | str:
    """The group of each row, text (row,); or why there is none. `images` is (row, 1), or (row, 2): current, prior."""
    table = cohort.image_table
    if by == "view":
        change = lambda now, before: "same view" if now == before else f"{before} to {now}"  # noqa: E731
        return _per_study(table, "view_position", images, str, change)
    if by == "portable":
        if "portable" not in table.columns:
            return "this cohort does not say which images are portable; prepare it again, or the data set does not tell"
        names = {("yes", "yes"): "both studies", ("no", "no"): "neither", ("yes", "no"): "current alone"}
        change = lambda now, before: names.get((now, before), "prior alone")  # noqa: E731
        return _per_study(table, "portable", images, lambda one: "yes" if one else "no", change)
    times = table["time"] if "time" in table.columns and cohort.meta.get("time") != "order" else None
    if by == "gap":
        if images.shape[1] == 1:
            return "one study has no time since another"
        if times is None:
            return "this cohort has no times of its images; prepare it again, or the data set has none"
        current, prior = (times.gather(images[:, side]) for side in (0, 1))
        days = (current - prior).dt.total_seconds().cast(pl.Float64) / 86400
        return np.array([_bin(None if one is None else abs(one), GAPS) for one in days])
    columns = ["sex"] if by == "sex" else ["age", "birth_year"]
    if people is None or all(people[name].null_count() == people.height for name in columns):
        return f"the cohort does not hold it; give --patients FILE with patient_id and {' or '.join(columns)}"
    rows = pl.DataFrame({"patient_id": np.asarray(patients).astype(str)})
    if times is not None:
        rows = rows.with_columns(year=times.gather(images[:, 0]).dt.year().cast(pl.Float64))
    rows = rows.join(people, on="patient_id", how="left", maintain_order="left")
    if by == "sex":
        return rows["sex"].fill_null(UNKNOWN).to_numpy().astype(str)
    age = pl.col("age") if "year" not in rows.columns else pl.coalesce("age", pl.col("year") - pl.col("birth_year"))
    rows = rows.with_columns(age.alias("age"))
    unborn = rows.filter(pl.col("age") < 0)
    if unborn.height:
        return f"--patients says that patient {unborn['patient_id'][0]} was born after the year of a study"
    return np.array([_bin(one, AGES) for one in rows["age"]])


def _per_study(
    table: pl.DataFrame, column: str, images: np.ndarray, name: Callable[[Any], str], change: Callable[[str, str], str]
) -> np.ndarray:
    """The group of one image by its name, or the `change` between those of the current and the prior one."""

    sides = [[UNKNOWN if one is None else name(one) for one in table[column].gather(side)] for side in images.T]
    if len(sides) == 1:
        return np.array(sides[0])
    return np.array([UNKNOWN if UNKNOWN in pair else change(*pair) for pair in zip(*sides, strict=True)])


def _bin(value: float | None, bins: Sequence[tuple[float, str]]) -> str:
    return UNKNOWN if value is None else next(name for below, name in bins if value < below)


def rows_of(scores: Sequence[GroupScore]) -> Iterator[dict[str, object]]:
    """Entries of `groups` in results.json, without task and data set."""
    for one in scores:
        low, high = one.interval or (None, None)
        lead, (lead_low, lead_high) = (
            (None, (None, None)) if one.lead is None else (one.lead[0], one.lead[1] or (None, None))
        )
        yield {
            "metric": one.score.metric,
            "finding": one.score.finding,
            "folds": one.score.folds,
            "by": one.by,
            "group": one.group,
            "n": one.n,
            "value": one.value,
            "low": low,
            "high": high,
            "baseline": one.baseline,
            "lead": lead,
            "lead_low": lead_low,
            "lead_high": lead_high,
            "reason": one.reason,
        }
