"""Digests of the patients that a model was trained on: they can be found but not read, and survive a resume."""

import json
from pathlib import Path

import polars as pl
import pytest

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.weights.trained_on import TRAINED_ON, note_patients, read_trained_on


def cohort_of(patients: dict[str, str], dataset: str = "mimic-cxr") -> Cohort:
    pairs = pl.DataFrame({"patient_id": list(patients), "split": list(patients.values())})
    return Cohort(Path("cohort"), {"dataset": dataset}, None, None, pairs=pairs)  # type: ignore[arg-type]


SPLITS = {"p10000032": "train", "p10000033": "valid", "p10000034": "test"}


def test_patients_are_found_by_split_and_not_readable(tmp_path: Path) -> None:
    file = note_patients(tmp_path, cohort_of(SPLITS), complete=True)
    assert not any(patient in file.read_text() for patient in (*SPLITS, "10000032"))
    found = read_trained_on(tmp_path)
    assert found is not None
    assert found.complete
    assert found.seen("ms-cxr-t", [*SPLITS, "p1"], "train") == {"p10000032"}
    assert found.seen("mimic-cxr", SPLITS, "valid") == {"p10000033"}
    assert found.seen("covidx", SPLITS, "train") == set()  # whose ids are of other people
    assert found.seen("table", SPLITS, "train") == {"p10000032"}  # whose ids may be anybody's


def test_a_resumed_run_keeps_its_salt_and_another_run_has_another(tmp_path: Path) -> None:
    cohort = cohort_of(SPLITS)
    first = note_patients(tmp_path, cohort, complete=False).read_bytes()
    assert note_patients(tmp_path, cohort, complete=False).read_bytes() == first
    (tmp_path / "other").mkdir()
    assert note_patients(tmp_path / "other", cohort, complete=False).read_bytes() != first
    for damaged in (b"", first[:-9]):
        (tmp_path / TRAINED_ON).write_bytes(damaged)
        note_patients(tmp_path, cohort, complete=False)
        found = read_trained_on(tmp_path)
        assert found is not None
        assert not found.complete


def test_65_000_patients_take_11_bytes_each(tmp_path: Path) -> None:
    cohort = cohort_of({f"p{number}": "train" for number in range(65_000)})
    assert note_patients(tmp_path, cohort, complete=True).stat().st_size < 11 * 65_000
    found = read_trained_on(tmp_path)
    assert found is not None
    assert len(found.digests["train"]) == 65_000


@pytest.mark.parametrize(
    "changed", [{"train": "AAA"}, {"train": "AAAA"}, {"salt": "00"}, {"salt": "zz" * 16}, {"dataset": None}]
)
def test_a_damaged_file_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    file = note_patients(tmp_path, cohort_of(SPLITS), complete=True)
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(MedstError, match=rf"{TRAINED_ON} is damaged .*; remove it, and it is unknown"):
        read_trained_on(tmp_path)
