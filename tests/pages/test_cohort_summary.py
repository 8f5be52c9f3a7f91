import json
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.pairs import labels_schema
from medst.cohort.store import Cohort, open_cohort
from medst.pages.cohort_summary import histogram, quantiles, summarise


def made(tmp_path: Path, **tables: pl.DataFrame | None) -> Cohort:
    """A cohort of three read images and one rejected, with these tables."""
    (tmp_path / "rejected.csv").write_text(
        "kind,id,path,reason\nimage,a,x,no such file\nimage,b,y,4 x 300 pixels: too small\n"
        "image,c,z,5 x 9 pixels: too small\n"
        'study,s1,,"kept; s1, s22 have the same minute"\n'
    )
    images = pl.DataFrame(
        {
            "row": [0, 1, 2, 3],
            "view": ["frontal", "frontal", "lateral", "frontal"],
            "view_position": ["PA", "PA", None, "AP"],
            "height": [100, 200, 300, None],
            "width": [10, 20, 30, None],
            "status": ["ok", "ok", "ok", "rejected"],
        }
    )
    meta = {
        "dataset": "made", "dataset_version": "1", "options": {}, "source": {}, "counts": {"images": 3},
        "medst_version": "0", "fingerprint": "f", "seen": {"image": 6}, "classes": ["well", "ill"],
    }  # fmt: skip
    return Cohort(tmp_path, meta, np.zeros((4, 256, 256), np.uint8), images, **tables)


def pairs() -> pl.DataFrame:
    """Patient a with five studies, of which one has two frontals; b with one."""
    days = [1, 2, 2, 4, 8, 16, 1]
    labels = [{"Edema": 1.0}, {"Edema": 0.0}, {"Edema": 0.0}, {}, {"Edema": -1.0}, None, {"Edema": 1.0}]
    return pl.DataFrame(
        {
            "patient_id": ["a"] * 6 + ["b"],
            "study_id": ["s1", "s2", "s2", "s3", "s4", "s5", "s6"],
            "time": [datetime(2100, 1, day) for day in days],
            "split": ["train"] * 6 + ["test"],
            "report": ["one two three"] * 5 + ["one two three four five", "x y z w"],
            "frontal": range(7),
            "lateral": [2, None, None, 2, None, None, None],
            "labels": pl.Series(labels, dtype=labels_schema()["labels"]),
        }
    )


def test_pairs_by_hand(tmp_path: Path) -> None:
    found = summarise(made(tmp_path, pairs=pairs()))
    assert found["splits"] == [
        {"split": "train", "patients": 1, "studies": 5, "pairs": 6, "laterals": 2},
        {"split": "test", "patients": 1, "studies": 1, "pairs": 1, "laterals": 0},
    ]
    assert found["studies_a_patient"] == {"test": {"1": 1}, "train": {"5": 1}}
    assert found["sequences"]["train"] == {"1": 0, "2": 1, "3": 0, "4": 1}
    assert found["sequences"]["test"] == {"1": 1, "2": 0, "3": 0, "4": 0}
    assert found["report_words"]["quantiles"]["100 %"] == 5
    assert sum(found["report_words"]["histogram"]["rows"]) == 6
    assert found["days_between_studies"]["quantiles"] == quantiles(pl.Series([1.0, 2.0, 4.0, 8.0]))
    assert found["days_between_studies"]["bins"] == {
        "under 1 day": 0, "1 to 7 days": 3, "1 to 4 weeks": 1, "1 to 6 months": 0, "6 to 24 months": 0, "over 2 years": 0
    }  # fmt: skip
    edema = {row["split"]: row for row in found["labels"] if row["label"] == "Edema"}
    assert edema["train"] == {
        "label": "Edema", "split": "train", "present": 1, "absent": 1, "uncertain": 1, "not mentioned": 2
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_images_and_what_was_left_out_by_hand(tmp_path: Path) -> None:
    found = summarise(made(tmp_path))
    assert found["images"]["read"] == 3
    assert found["images"]["views"] == [
        {"view": "frontal", "view_position": "PA", "images": 2},
        {"view": "lateral", "view_position": "not said", "images": 1},
    ]
    assert found["images"]["height"]["50 %"] == 200
    assert [(row["reason"], row["rows"]) for row in found["left_out"]] == [
        ("# x # pixels: too small", 2),
        ("no such file", 1),
    ]
    assert found["left_out"][0]["share"] == pytest.approx(2 / 6)
    assert found["kept"] == [{"kind": "study", "reason": "kept; # have the same minute", "rows": 1, "example": "s1"}]
    assert set(found) == {"data", "images", "left_out", "kept"}


def test_days_between_studies_need_times(tmp_path: Path) -> None:
    cohort = made(tmp_path, pairs=pairs())
    cohort.meta["time"] = "order"
    assert "days_between_studies" not in summarise(cohort)


def test_without_labels_there_is_no_table_of_labels(tmp_path: Path) -> None:
    empty = pairs().with_columns(labels=pl.lit(None, dtype=labels_schema()["labels"]))
    assert "labels" not in summarise(made(tmp_path, pairs=empty))


def test_classes_by_hand(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "patient_id": ["a", "a", "b", "c"], "image_id": list("wxyz"), "image": [0, 1, 2, 3],
            "split": ["test", "train", "train", "valid"], "label": [1, 1, 0, 1],
        }
    )  # fmt: skip
    found = summarise(made(tmp_path, labelled=table))
    assert found["classes"] == {
        "train": {"well": 1, "ill": 1}, "valid": {"well": 0, "ill": 1}, "test": {"well": 0, "ill": 1}
    }  # fmt: skip
    assert list(found["classes"]) == ["train", "valid", "test"]
    assert found["patients_in_several_splits"] == 1
    assert found["images_a_patient"] == {"1": 2, "2": 1}


def test_comparisons_are_counted(phantom_comparisons: Path) -> None:
    cohort = open_cohort(phantom_comparisons)
    found = summarise(cohort)
    assert cohort.comparisons is not None
    assert sum(sum(counts.values()) for counts in found["comparisons"].values()) == cohort.comparisons.height
    assert (
        sum(sum(counts.values()) for counts in found["sentences"].values()) == cohort.meta["counts"]["sentence_pairs"]
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 30))
def test_a_histogram_holds_every_number_once(values: list[float], bins: int) -> None:
    found = histogram(pl.Series(values), bins)
    assert sum(found["rows"]) == len(values)
    assert len(found["from"]) == len(found["rows"]) == bins


def test_quantiles_of_nothing_are_nothing() -> None:
    assert quantiles(pl.Series([None, None], dtype=pl.Int32)) == {}
