import json
import os
import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medst.cohort.prepare import prepare
from medst.cohort.store import digest_table, open_cohort
from medst.errors import MedstError
from medst.files import part_of


@pytest.fixture(scope="module")
def finished(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "cohort"
    prepare("mimic-cxr", raw, path, workers=1)
    return path


@pytest.fixture
def cohort(finished: Path, tmp_path: Path) -> Path:
    """A cohort that a test may damage."""
    return shutil.copytree(finished, tmp_path / "cohort")


def rewrite(cohort: Path, name: str, table: pl.DataFrame) -> None:
    """Rewrite a table as an earlier version may have written it, without digests."""
    table.write_parquet(cohort / f"{name}.parquet")
    meta = json.loads((cohort / "cohort.json").read_text())
    meta.pop("files", None)
    (cohort / "cohort.json").write_text(json.dumps(meta))


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
        "time": pl.Datetime("us"), "portable": pl.Boolean, "height": pl.Int32, "width": pl.Int32, "status": pl.String,
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


def test_a_missing_and_an_unfinished_cohort_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"no cohort here \(there is no cohort.json\); make one with `medst prepare`"):
        open_cohort(tmp_path / "cohort")
    part_of(tmp_path / "cohort").mkdir()
    with pytest.raises(MedstError, match="not finished; run the same `medst prepare` again"):
        open_cohort(tmp_path / "cohort")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"schema": 2}', "has cohort schema 2, this medst reads 1; remove .* and prepare the cohort again"),
        (b"{}", "has cohort schema None"),
        (b"[]", "cohort.json is damaged"),
        (b'{"schema": 1}', r"cohort.json is damaged \(it has no 'dataset'\)"),
        (b"{", "cohort.json is damaged"),
        (b"\xff\xfe", "cohort.json is damaged"),
    ],
)
def test_another_schema_and_a_damaged_cohort_json_are_refused(cohort: Path, content: bytes, sentence: str) -> None:
    (cohort / "cohort.json").write_bytes(content)
    with pytest.raises(MedstError, match=sentence):
        open_cohort(cohort)


@pytest.mark.parametrize("name", ["images.npy", "images.parquet", "pairs.parquet"])
def test_a_truncated_or_empty_file_is_refused(cohort: Path, name: str) -> None:
    content = (cohort / name).read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (cohort / name).write_bytes(content[:length])
        with pytest.raises(MedstError, match="this cohort is damaged"):
            open_cohort(cohort)


@pytest.mark.parametrize("name", ["images.npy", "images.parquet", "pairs.parquet"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_file_is_refused(cohort: Path, name: str, listed: bool) -> None:
    if not listed:
        rewrite(cohort, "pairs", pl.read_parquet(cohort / "pairs.parquet"))
    (cohort / name).unlink()
    with pytest.raises(MedstError, match=rf"this cohort is damaged \({name} is missing\)"):
        open_cohort(cohort)


@pytest.mark.parametrize(
    ("dataset", "name"), [("ms-cxr-t", "comparisons"), ("rsna", "labelled"), ("covidx", "labelled")]
)
def test_a_benchmark_of_an_earlier_version_misses_its_table(cohort: Path, dataset: str, name: str) -> None:
    rewrite(cohort, "pairs", pl.read_parquet(cohort / "pairs.parquet"))
    meta = json.loads((cohort / "cohort.json").read_text())
    (cohort / "cohort.json").write_text(json.dumps(meta | {"dataset": dataset}))
    with pytest.raises(MedstError, match=f"{name}.parquet is missing"):
        open_cohort(cohort)


@pytest.mark.parametrize("name", ["cohort.json", "images.npy", "images.parquet", "pairs.parquet"])
def test_a_folder_or_pipe_in_place_of_a_file_is_refused_at_once(cohort: Path, name: str) -> None:
    (cohort / name).unlink()
    (cohort / name).mkdir()
    with pytest.raises(MedstError, match=rf"{name}'? is a folder, not a regular file"):
        open_cohort(cohort)
    (cohort / name).rmdir()
    os.mkfifo(cohort / name)
    with pytest.raises(MedstError, match=rf"{name}'? is not a regular file"):
        open_cohort(cohort)


def test_images_and_their_table_must_agree(cohort: Path) -> None:
    table = pl.read_parquet(cohort / "images.parquet")
    rewrite(cohort, "images", table.head(3))
    with pytest.raises(MedstError, match=f"images.npy has {table.height} images, images.parquet 3"):
        open_cohort(cohort)


@pytest.mark.parametrize("with_digests", [True, False])
def test_a_table_damaged_anywhere_is_refused(cohort: Path, with_digests: bool) -> None:
    """Without digests, damage inside a value can't be detected; then the cohort opens."""
    pairs = pl.read_parquet(cohort / "pairs.parquet")
    if not with_digests:
        rewrite(cohort, "pairs", pairs)
    whole, draw = (cohort / "pairs.parquet").read_bytes(), random.Random(7)
    for _ in range(60):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        (cohort / "pairs.parquet").write_bytes(content)
        try:
            opened = open_cohort(cohort)
        except MedstError as error:
            said = str(error)
        else:
            assert not with_digests
            assert opened.pairs is not None
            continue
        assert "this cohort is damaged (pairs.parquet" in said
        assert said.endswith("; remove the folder and prepare it again.")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (pl.lit(-1, pl.Int64).alias("frontal"), "column frontal holds -1, where 0 to"),
        (pl.lit(10**6, pl.Int64).alias("lateral"), "column lateral holds 1000000, where 0 to"),
        (pl.lit(None, pl.Int64).alias("frontal"), "column frontal has rows without a number"),
        (pl.col("frontal").cast(pl.Float64), "column frontal is Float64, not Int64"),
        (pl.col("report").str.len_bytes(), "column report is UInt32, not String"),
        (pl.col("time").cast(pl.String), "column time is String, not Datetime"),
    ],
)
def test_pairs_that_point_at_no_image_or_are_of_another_type_are_refused(
    cohort: Path, change: pl.Expr, sentence: str
) -> None:
    rewrite(cohort, "pairs", pl.read_parquet(cohort / "pairs.parquet").with_columns(change))
    with pytest.raises(MedstError, match=f"this cohort is damaged .*{sentence}"):
        open_cohort(cohort)


def test_a_table_without_a_column_is_refused(cohort: Path) -> None:
    rewrite(cohort, "pairs", pl.read_parquet(cohort / "pairs.parquet").drop("report"))
    with pytest.raises(MedstError, match=r"pairs\.parquet has no column report"):
        open_cohort(cohort)


@pytest.mark.parametrize(
    "odd",
    [
        lambda images: images.astype(np.float32),
        lambda images: images[:, :128],
        lambda images: images[0],
        lambda images: np.asfortranarray(images),
        lambda images: np.array([{"a": 1}] * len(images), dtype=object),
    ],
)
def test_pictures_of_another_type_or_size_are_refused(cohort: Path, odd: Callable[[np.ndarray], np.ndarray]) -> None:
    images = odd(np.load(cohort / "images.npy"))
    np.save(cohort / "images.npy", images)
    with pytest.raises(MedstError, match=r"this cohort is damaged \(images\.npy"):
        open_cohort(cohort)


def test_a_damaged_head_of_the_pictures_is_refused(cohort: Path) -> None:
    whole, draw = (cohort / "images.npy").read_bytes(), random.Random(3)
    for place in range(0, 128, 2):
        content = bytearray(whole)
        content[place] = draw.choice(b"\0(){}[]'\"9-,x\xff")
        (cohort / "images.npy").write_bytes(content)
        try:
            images = open_cohort(cohort).images
        except MedstError as error:
            said = str(error)
            assert "this cohort is damaged (images.npy" in said
        else:
            assert images.shape[1:] == (256, 256)
    (cohort / "images.npy").write_bytes(b"PK\x03\x04" + whole[4:])
    with pytest.raises(MedstError, match=r"images\.npy"):
        open_cohort(cohort)


def test_nothing_in_a_cohort_names_a_place_or_a_moment(cohort: Path, raw: Path) -> None:
    meta = json.loads((cohort / "cohort.json").read_text())
    assert list(meta) == [
        "schema", "dataset", "dataset_version", "options", "source", "counts", "seen", "rows", "medst_version",
        "fingerprint", "files",
    ]  # fmt: skip
    for path in cohort.iterdir():
        assert str(raw.parent).encode() not in path.read_bytes()


def test_the_part_folder_of_here_is_beside_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert part_of(Path(".")) == tmp_path.with_name(tmp_path.name + ".part")


def table_to_digest() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "text": ["a", None, "", "bc"],
            "number": [1, None, 0, -5],
            "time": pl.Series([datetime(2150, 3, 1, 5, 6, 7, 8), None, None, None], dtype=pl.Datetime("us")),
            "labels": [{"Edema": 1.0}, None, {"Edema": None}, {"Edema": 0.5}],
            "boxes": [[[1.0, 2.0]], [], None, [[3.0, 4.0], [5.0, 6.0]]],
        }
    )


def test_the_digest_of_a_table_does_not_depend_on_how_polars_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of polars, or another name of its types, must give the recorded digest."""
    recorded = "9e5f116a4bc6266bed73d01970d1610bc8e3b7fdfe50343237140949bc89f667"
    assert digest_table(table_to_digest()) == recorded
    monkeypatch.setattr(pl.Schema, "__str__", lambda self: "another")
    monkeypatch.setattr(pl.DataFrame, "write_ndjson", None)
    assert digest_table(table_to_digest()) == recorded
    chunks = pl.concat([table_to_digest()[:1], table_to_digest()[1:]], rechunk=False)
    assert digest_table(chunks) == recorded


def test_the_digest_of_a_table_is_of_every_name_type_and_value() -> None:
    table = table_to_digest()
    others = [
        table.rename({"text": "texts"}),
        table.reverse(),
        table.head(3),
        table.with_columns(text=pl.Series([None, "a", "", "bc"])),
        table.with_columns(text=pl.Series(["a", None, "b", "c"])),
        table.with_columns(text=pl.Series(["a", "", None, "bc"])),
        table.with_columns(pl.col("number").cast(pl.Float64)),
        table.with_columns(pl.col("number").fill_null(0)),
        table.with_columns(time=pl.col("time") + pl.duration(microseconds=1)),
        table.with_columns(labels=pl.struct(Edema=pl.col("labels").struct.field("Edema").fill_null(0.0))),
        table.with_columns(boxes=pl.Series([[[1.0], [2.0]], [], None, [[3.0, 4.0], [5.0, 6.0]]])),
        table.with_columns(boxes=pl.Series([[[1.0, 2.0]], None, [], [[3.0, 4.0], [5.0, 6.0]]])),
        table.select(reversed(table.columns)),
    ]
    digests = [digest_table(other) for other in [table, *others]]
    assert len(set(digests)) == len(digests)
    with pytest.raises(TypeError, match="column odd has the type Duration"):
        digest_table(table.select(odd=pl.duration(days=1)))
