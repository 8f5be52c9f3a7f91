import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort, part_path
from medst.errors import MedstError


@pytest.fixture(scope="module")
def finished(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "cohort"
    prepare("mimic-cxr", raw, path, workers=1)
    return path


@pytest.fixture
def cohort(finished: Path, tmp_path: Path) -> Path:
    """A cohort that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "cohort")


def test_an_opened_cohort_is_what_the_schema_says(cohort: Path) -> None:
    opened = open_cohort(cohort)
    assert opened.pairs is not None
    labels = opened.pairs.schema["labels"]
    assert isinstance(labels, pl.Struct)
    assert len(labels.fields) == 14
    assert {field.dtype for field in labels.fields} == {pl.Float32()}
    assert opened.pairs.drop("labels").schema == {
        "patient_id": pl.String, "study_id": pl.String, "time": pl.Datetime("us"), "split": pl.String,
        "report": pl.String, "frontal": pl.Int64, "lateral": pl.Int64,
    }  # fmt: skip
    assert opened.image_table.schema == {
        "row": pl.Int64, "image_id": pl.String, "path": pl.String, "view": pl.String, "view_position": pl.String,
        "height": pl.Int32, "width": pl.Int32, "status": pl.String,
    }  # fmt: skip
    assert opened.image_table["row"].to_list() == list(range(opened.image_table.height))
    assert opened.images.shape == (opened.image_table.height, 256, 256)
    assert opened.images.dtype == np.uint8
    assert isinstance(opened.images, np.memmap)
    assert opened.comparisons is None
    assert opened.sentences is None
    assert opened.fingerprint == opened.meta["fingerprint"]
    assert opened.meta["schema"] == 1


def test_the_pixels_of_an_opened_cohort_can_t_be_changed(cohort: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_cohort(cohort).images[0] = 1


def test_where_no_cohort_is_and_where_an_unfinished_one_is(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"no cohort here \(there is no cohort.json\); make one with `medst prepare`"):
        open_cohort(tmp_path / "cohort")
    part_path(tmp_path / "cohort").mkdir()
    with pytest.raises(MedstError, match="not finished; run the same `medst prepare` again"):
        open_cohort(tmp_path / "cohort")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"schema": 2}', "has cohort schema 2, this medst reads 1; prepare it again"),
        (b"[]", "has cohort schema None"),
        (b"{", "cohort.json is damaged"),
        (b"\xff\xfe", "cohort.json is damaged"),
    ],
)
def test_another_schema_and_a_damaged_cohort_json_are_refused(cohort: Path, content: bytes, sentence: str) -> None:
    (cohort / "cohort.json").write_bytes(content)
    with pytest.raises(MedstError, match=sentence):
        open_cohort(cohort)


@pytest.mark.parametrize("name", ["images.npy", "images.parquet", "pairs.parquet"])
def test_a_file_cut_off_or_empty_is_refused(cohort: Path, name: str) -> None:
    content = (cohort / name).read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (cohort / name).write_bytes(content[:length])
        with pytest.raises(MedstError, match="this cohort is damaged"):
            open_cohort(cohort)


@pytest.mark.parametrize("name", ["images.npy", "images.parquet"])
def test_a_missing_file_is_refused(cohort: Path, name: str) -> None:
    (cohort / name).unlink()
    with pytest.raises(MedstError, match="this cohort is damaged"):
        open_cohort(cohort)


def test_images_and_their_table_must_agree(cohort: Path) -> None:
    table = pl.read_parquet(cohort / "images.parquet")
    table.head(3).write_parquet(cohort / "images.parquet")
    with pytest.raises(MedstError, match=f"images.npy has {table.height} images, images.parquet 3"):
        open_cohort(cohort)


def test_nothing_in_a_cohort_names_a_place_or_a_moment(cohort: Path, raw: Path) -> None:
    meta = json.loads((cohort / "cohort.json").read_text())
    assert list(meta) == [
        "schema", "dataset", "dataset_version", "options", "source", "counts", "seen", "medst_version", "fingerprint"
    ]  # fmt: skip
    for path in cohort.iterdir():
        assert str(raw.parent).encode() not in path.read_bytes()


def test_the_part_folder_of_here_is_beside_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert part_path(Path(".")) == tmp_path.with_name(tmp_path.name + ".part")
