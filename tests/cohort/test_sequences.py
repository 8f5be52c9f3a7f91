import json
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.mimic_clock import study_time
from medst.cohort.sequences import cut_sequences

rows = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["train", "valid"]), st.integers(0, 5), st.integers(0, 3)))


def pairs_of(values: list[tuple[int, str, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "patient_id": [f"p{patient}" for patient, *_ in values],
            "split": [split for _, split, *_ in values],
            "time": [datetime(2150, 1, 1) + timedelta(days=day) for *_, day, _ in values],
            "study_id": [f"s{study}" for *_, study in values],
            "frontal": range(len(values)),
        },
        schema_overrides={"patient_id": pl.String, "split": pl.String, "time": pl.Datetime, "study_id": pl.String},
    )


def test_sequences_are_the_recorded_ones(recorded: Path) -> None:
    table = pl.read_csv(recorded / "study_times.csv", infer_schema=False).select(
        "split",
        patient_id="subject_id",
        time=study_time(pl.col("StudyDate"), pl.col("StudyTime")),
        study_id=pl.lit(""),  # the released order knows no study: what is left equal stays in the table's order
        frontal=pl.int_range(pl.len()),
    )
    expected = json.loads((recorded / "sequences.json").read_text())
    assert len(expected) == 6
    for name, groups in expected.items():
        split, _, length = name.partition("_len")
        part = table.filter(split=split)
        assert [part["frontal"].gather(group).to_list() for group in cut_sequences(part, int(length))] == groups, name


@given(rows, st.integers(1, 5))
def test_sequences_are_those_of_a_loop_over_patients(values: list[tuple[int, str, int, int]], length: int) -> None:
    patients = defaultdict(list)
    for row, (patient, split, day, study) in enumerate(values):
        patients[patient, split].append((day, study, row))
    expected = []
    for key in sorted(patients):
        order = [row for *_, row in sorted(patients[key])]
        expected += [order[start : start + length] for start in range(0, len(order), length)]
    assert cut_sequences(pairs_of(values), length) == expected


def test_no_pairs_are_no_sequences() -> None:
    assert cut_sequences(pairs_of([]), 4) == []
