import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medst.cohort.mimic_cxr import METADATA
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.errors import MedstError

Bytes = Callable[[Path], dict[str, str]]


def test_a_finished_cohort_is_left_as_it_is(raw: Path, tmp_path: Path, bytes_of: Bytes) -> None:
    def untouched(done: int, total: int) -> None:
        raise AssertionError("an image was read again")

    first = prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    before = bytes_of(tmp_path / "cohort")
    assert prepare("mimic-cxr", raw, tmp_path / "cohort", workers=2, progress=untouched) == first
    assert bytes_of(tmp_path / "cohort") == before


def test_another_option_and_another_source_are_refused(tree: Any, raw: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    prepare("mimic-cxr", raw, cohort, workers=1)
    with pytest.raises(MedstError, match=r"was made with other options \(reports\); give the same, or another folder"):
        prepare("mimic-cxr", raw, cohort, Options(reports=raw))
    tree.add_many(3)
    with pytest.raises(MedstError, match=r"was made from other files \(mimic-cxr-2.0.0-chexpert.csv, "):
        prepare("mimic-cxr", tree.write(), cohort)


def test_an_unfinished_cohort_of_another_source_is_refused(tree: Any, raw: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1, progress=stop)
    tree.add_many(3)
    with pytest.raises(
        MedstError, match=r"cohort.part was made from other files .*; give the same, or remove that folder"
    ):
        prepare("mimic-cxr", tree.write(), tmp_path / "cohort")


def test_more_rejected_than_allowed_ends_in_an_error_with_the_cohort_written(tree: Any, tmp_path: Path) -> None:
    tree.add_many(12)
    raw, cohort = tree.write(), tmp_path / "cohort"
    (raw / tree.studies[1].image_path(0)).write_bytes(b"")
    for _ in range(2):  # the second time the cohort is there already
        with pytest.raises(
            MedstError, match=r"cohort is written, but 1 of \d\d images were left out \(see rejected.csv\)"
        ):
            prepare("mimic-cxr", raw, cohort, workers=1)
        assert open_cohort(cohort).meta["counts"]["rejected_images"] == 1
    assert prepare("mimic-cxr", raw, cohort, workers=1, max_rejected=0.1)["counts"]["rejected_images"] == 1


@pytest.mark.parametrize(
    ("dataset", "options", "sentence"),
    [
        (
            "padchest",
            {},
            "'padchest' is not a data set that medst prepares; it prepares mimic-cxr, chexpert-plus, open-i",
        ),
        ("mimic-cxr", {"workers": -1}, "--workers must be 0 or more"),
        ("mimic-cxr", {"max_rejected": 1.5}, "--max-rejected between 0 and 1"),
        (
            "mimic-cxr",
            {"options": Options(images=Path("x"))},
            "--images does nothing for mimic-cxr, which takes --reports",
        ),
        (
            "open-i",
            {"options": Options(date_format="%d")},
            "--date-format does nothing for open-i, which takes --images",
        ),
        ("rsna", {"options": Options(labels=("x",))}, "--labels does nothing for rsna"),
        ("ms-cxr-t", {"options": Options(reports=Path("x"))}, "--reports does nothing for ms-cxr-t"),
        ("ms-cxr-t", {}, "ms-cxr-t holds no pictures: give the MIMIC-CXR-JPG folder, or a mimic-cxr cohort"),
    ],
)
def test_impossible_arguments(raw: Path, tmp_path: Path, dataset: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MedstError, match=sentence):
        prepare(dataset, raw, tmp_path / "cohort", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=f"nowhere: no such folder; give the one that holds {METADATA}"):
        prepare("mimic-cxr", tmp_path / "nowhere", tmp_path / "cohort")
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_was_refused_may_be_corrected(tree: Any, tmp_path: Path) -> None:
    tree.add_many(3)
    raw = tree.write()
    whole = tree.table(METADATA)
    tree.replace(METADATA, whole.drop("ViewPosition"))
    with pytest.raises(MedstError, match="has no column ViewPosition"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    assert not (tmp_path / "cohort.part").exists()
    tree.replace(METADATA, whole)
    assert prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)["counts"]["patients"] == 3


def test_a_cohort_of_an_earlier_version_is_still_the_same(raw: Path, tmp_path: Path) -> None:
    meta = prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    old = {key: value for key, value in meta.items() if key != "seen"} | {"options": {"reports": None}}
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps(old))
    assert prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1) == old
    with pytest.raises(MedstError, match=r"other options \(decode\)"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", Options(decode="fast"), workers=1)


@pytest.mark.filterwarnings("ignore")  # the scheduler's own, on its way down
def test_a_dask_cluster_makes_the_same_cohort(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_of: Bytes
) -> None:
    from distributed import LocalCluster

    from medst.cohort import writer

    monkeypatch.setattr(writer, "BLOCK", 8)
    prepare("mimic-cxr", raw, tmp_path / "here", workers=1)
    seen: list[tuple[int, int]] = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        address = f"dask:{cluster.scheduler_address}"
        prepare(
            "mimic-cxr",
            raw,
            tmp_path / "there",
            cluster=address,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    total = len(open_cohort(tmp_path / "there").images)
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert len(seen) > 3


def test_a_cohort_may_be_the_folder_one_is_in(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    prepare("mimic-cxr", raw, Path(), workers=1)
    assert open_cohort(tmp_path / "here").meta["counts"]["pairs"]
    assert not (tmp_path / "here.part").exists()


def test_a_cohort_inside_the_raw_data_is_refused_before_anything_is_written(
    tree: Any, tmp_path: Path, bytes_of: Bytes
) -> None:
    tree.add_many(1)
    raw = tree.write()
    (tmp_path / "link").symlink_to(raw)
    before = bytes_of(tmp_path)
    for cohort in (raw, raw / "out" / "cohort", tmp_path / "link" / "out"):
        with pytest.raises(MedstError, match="which holds the raw data and is never written to; give another folder"):
            prepare("mimic-cxr", raw, cohort)
    assert bytes_of(tmp_path) == before
