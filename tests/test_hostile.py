"""Thousands of damaged and hostile inputs: each is used or refused by name, in time, and none takes others along.

Seeded mutations of whole files of every kind, and what is not a file at all, go through what reads them in `medst prepare`
and `medst evaluate`. 60 of them in every run of the tests, 2,000 with `-m slow`.
"""

import gzip
import json
import os
import signal
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.cohort import test_rejections as trees
from tests.cohort.conftest import jpeg, picture
from tests.cohort.test_bad_inputs import prepared, special

from medst.child import GuardedProcess
from medst.cohort import images
from medst.cohort.images import Reading
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.cohort.unreadable import UnreadableImage
from medst.errors import MedstError
from medst.evaluate.prompts import read_prompts
from medst.evaluate.results import SCHEMA, read_results
from medst_phantom.dicom import deepen, style_of, write_dicom

SECONDS = 10
SEED = 13


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three kinds of damage."""
    for _ in range(int(rng.integers(1, 4))):
        size = max(len(data), 1)
        start, length = int(rng.integers(size)), int(rng.integers(1, 1 + max(1, size // 4)))
        found = bytearray(data)
        kind = rng.integers(8)
        if kind < 3:  # some bytes; by turns anywhere, at the start and at the end, where headers and directories are
            places = rng.integers(0, min(size, 10**9 if kind == 0 else 96), int(rng.integers(1, 9)))
            for place in places:
                if found:
                    found[int(place) if kind < 2 else -1 - int(place)] = int(rng.integers(256))
        elif kind == 3:
            del found[start:]
        elif kind == 4:
            del found[start : start + length]
        elif kind == 5:
            found[start:start] = data[-length:]
        elif kind == 6:
            found[start:start] = rng.bytes(int(rng.integers(1, 40)))
        else:
            run = [0, 255, 0x30, 0x39, 0x2C, 0x22][int(rng.integers(6))]
            found[start : start + 8] = bytes([run]) * 8
        data = bytes(found)
    return data


@contextmanager
def in_time() -> Iterator[None]:
    """Fail where the block takes too long."""

    def late(_: int, frame: FrameType | None) -> None:
        raise AssertionError(f"a hang in {frame}")

    usual = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


def outcome(call: Callable[[], Any]) -> str:
    """What became of an input; anything but a result and one sentence fails the test."""
    with in_time():
        try:
            call()
        except MedstError as error:
            sentence = str(error)
            assert "\n" not in sentence, sentence
            assert "please report" not in sentence, sentence
            return "refused"
        except OSError as error:  # of the path itself; the command line says it and names the path
            if not (error.strerror and error.filename):
                raise
            return "refused"
    return "used"


def encoded(kind: str, mode: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture(7)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def whole_pictures(folder: Path) -> dict[str, bytes]:
    """A picture of each kind, by its suffix and number."""
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        ("jpg", "JPEG", "L", {}), ("jpg", "JPEG", "RGB", {"progressive": True}), ("png", "PNG", "L", {}),
        ("png", "PNG", "P", {}), ("png", "PNG", "RGBA", {}), ("bmp", "BMP", "L", {}), ("gif", "GIF", "L", {}),
        ("webp", "WEBP", "RGB", {}), ("ppm", "PPM", "RGB", {}), ("tif", "TIFF", "L", {}),
        ("tif", "TIFF", "L", {"compression": "tiff_lzw"}), ("tif", "TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("jp2", "JPEG2000", "L", {}),
    ]  # fmt: skip
    found = {f"{i}.{suffix}": encoded(kind, mode, **options) for i, (suffix, kind, mode, options) in enumerate(kinds)}
    for number in range(16):
        rng, style = np.random.default_rng(number), style_of(number)
        path = folder / "whole.dcm"
        write_dicom(path, deepen(picture(number), style.bits, rng), style, number=number, view="PA")
        found[f"{number}.dcm"] = path.read_bytes()
    return found


def hostile_pictures(folder: Path, count: int) -> Counter[str]:
    """All in one preparation for each way to read, beside whole ones, which stay."""
    folder.mkdir()
    whole = whole_pictures(folder)
    names = list(whole)
    for name, data in whole.items():
        (folder / name).write_bytes(data)
    odd = list(special(folder))
    bad = []
    for number in range(count - len(odd)):
        rng = np.random.default_rng([SEED, number])
        source = names[number % len(names)]
        bad.append(f"bad{number}-{source}")
        (folder / bad[-1]).write_bytes(mutated(whole[source], rng))
    seen: Counter[str] = Counter()
    kept, rejected = prepared(folder, [*names, *odd, *bad])
    assert {str(i) for i in range(len(names))} <= set(kept)
    assert len(kept) + len(rejected) == len(names) + count
    assert not [reason for reason in rejected.values() if "takes longer" in reason or not reason.strip()]
    assert set(odd) <= set(rejected)
    seen.update(used=len(kept) - len(names), refused=len(rejected))
    seen["of these a decoder crashed"] = sum("crashed" in reason for reason in rejected.values())
    for reading in (Reading("fast", "window"), Reading("exact", "window")):
        for name in bad[:: 1 if reading.decode == "fast" else 7]:
            outcome(partial(images.read_guarded, folder / name, reading))
    return seen


CELLS = (
    None, "", " ", "0", "-1", "9" * 400, "1e999", "nan", "2150-13-45", "2150-01-01", "05:05:71", "\0", "\ufeff",
    "\u202e\U0001f480", "a,b;c\td|e", "\n\n", '"', "=1+1", "../../etc/passwd", "/dev/zero", "f1.jpg", "l1.jpg",
    "folder.csv", "<b>x</b>", "p0", "s1", "train", "FINDINGS: x", "IMPRESSION:", "The lungs are clear. " * 2000, "{}",
    "\\", "%s%n", "n" * 300,
)  # fmt: skip


def odd_cells(rng: np.random.Generator) -> pl.DataFrame:
    """A user's table with some cells replaced and some rows repeated, in another order."""
    table = a_table()
    rows = [list(row) for row in table.rows()]
    for _ in range(int(rng.integers(1, 12))):
        rows[int(rng.integers(len(rows)))][int(rng.integers(table.width))] = CELLS[int(rng.integers(len(CELLS)))]
    rows = [rows[int(i)] for i in rng.integers(0, len(rows), int(rng.integers(1, 12)))]
    return pl.DataFrame(rows, schema=table.schema, orient="row")


def a_table() -> pl.DataFrame:
    """A user's table, nothing wrong with it."""
    numbers = range(8)
    return pl.DataFrame(
        {
            "patient": [f"p{i // 2}" for i in numbers],
            "study": [f"s{i}" for i in numbers],
            "time": [f"2150-01-0{1 + i}" for i in numbers],
            "frontal": [f"f{i}.jpg" for i in numbers],
            "lateral": [f"l{i}.jpg" if i % 3 else None for i in numbers],
            "report": [f'FINDINGS: The heart is of size {i}.\n"IMPRESSION": No change, is seen.' for i in numbers],
            "split": ["train", "train", "valid", "valid", "test", "test", "train", "train"],
            "Edema": ["1", "0", "-1", None] * 2,
        }
    )


def forms(table: pl.DataFrame) -> dict[str, bytes]:
    """The files that a table may be in."""
    parquet = BytesIO()
    table.write_parquet(parquet)
    text = table.write_csv().encode()
    return {
        "a.csv": text,
        "b.csv": table.write_csv(separator=";").encode("utf-16"),
        "c.csv.gz": gzip.compress(text, mtime=0),
        "d.parquet": parquet.getvalue(),
    }


def nested(path: Path, number: int) -> None:
    """A Parquet table one of whose columns isn't plain."""
    table = a_table()
    name = table.columns[number % len(table.columns)]
    odd: list[pl.Expr] = [
        pl.concat_list(name, name), pl.struct(name, again=pl.col(name)), pl.lit(b"\xff\0").alias(name),
        pl.lit(float("nan")), pl.lit(None, dtype=pl.Null), pl.struct(pl.concat_list(pl.struct(name))),
    ]  # fmt: skip
    table.with_columns(odd[number // len(table.columns) % len(odd)].alias(name)).write_parquet(path)


def hostile_tables(folder: Path, count: int) -> Counter[str]:
    """Each a preparation of its own, which says what became of its rows."""
    folder.mkdir()
    whole = forms(a_table())
    for number in range(8):
        for view in "fl":
            (folder / f"{view}{number}.jpg").write_bytes(jpeg(picture(number)))
    os.mkfifo(folder / "fifo.csv")
    os.mkfifo(folder / "fifo.parquet")
    (folder / "folder.csv").mkdir()
    (folder / "zeros.csv").symlink_to("/dev/zero")
    (folder / "zeros.parquet").symlink_to("/dev/zero")
    (folder / "loop.csv").symlink_to("loop.csv")
    with gzip.open(folder / "bomb.csv.gz", "wb", 9) as file:
        for _ in range(80):
            file.write(b"," * 2**20)
    odd = [
        folder / name for name in ("fifo.csv", "fifo.parquet", "folder.csv", "zeros.csv", "zeros.parquet", "loop.csv")
    ]
    odd += [folder / "bomb.csv.gz", Path("/dev/zero"), folder / "nul\0.csv", folder / f"{'n' * 300}.csv"]
    seen: Counter[str] = Counter()
    for name, data in whole.items():
        (folder / name).write_bytes(data)
        prepare_all("table", folder / name, folder / f"whole-{name}")
    for number in range(count):
        rng = np.random.default_rng([SEED, 1, number])
        name = list(whole)[number % len(whole)]
        path = folder / f"bad{number}-{name}"
        rows = None
        if number % 8 in (1, 2, 6):
            table = odd_cells(rng)
            rows = table.height
            path.write_bytes(forms(table)[name])
        elif number % 8 == 7:
            path = folder / f"bad{number}.parquet"
            nested(path, number // 8)
        elif number % 16 == 3 and number // 16 < len(odd):
            path = odd[number // 16]
        else:
            path.write_bytes(mutated(whole[name], rng))
        seen[
            outcome(lambda path=path, number=number, rows=rows: prepare_all("table", path, folder / f"{number}", rows))
        ] += 1  # type: ignore[misc]
    return seen


def prepare_all(dataset: str, raw: Path, cohort: Path, read: int | None = None) -> None:
    """Prepare, open, and account for every row, of which there are `read`."""
    meta = prepare(dataset, raw, cohort, workers=1, max_rejected=1)
    rows = meta["rows"]
    left_out = trees.left_out(open_cohort(cohort))
    assert read in (None, rows["read"])
    assert rows["read"] == rows["kept"] + rows["left_out"]
    assert rows["left_out"] == len(left_out) == len(set(left_out))


def hostile_trees(folder: Path, count: int) -> Counter[str]:
    """The other data sets, by turns with one damaged file."""
    folder.mkdir()
    builds = [trees.mimic_cxr, trees.chexpert_plus, trees.open_i, trees.rsna, trees.covidx]
    found: list[tuple[str, Path, Path]] = []
    for build in builds:
        raw = folder / build.__name__
        build(lambda strategy: hypothesis.find(strategy, lambda _: True), raw)
        if build is trees.mimic_cxr:
            reports = sorted(raw.rglob("s*.txt"))
            with zipfile.ZipFile(raw / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in reports:
                    archive.write(path, path.relative_to(raw))
                    path.unlink()
        prepare_all(build.__name__.replace("_", "-"), raw, folder / f"whole-{raw.name}")
        found += [(build.__name__.replace("_", "-"), raw, path) for path in sorted(raw.rglob("*")) if path.is_file()]
    seen: Counter[str] = Counter()
    for number in range(count):
        dataset, raw, path = found[number % len(found)]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, np.random.default_rng([SEED, 2, number])))
        cohort = folder / f"{number}"
        seen[outcome(partial(prepare_all, dataset, raw, cohort))] += 1
        path.write_bytes(whole)
    return seen


def hostile_json(folder: Path, count: int) -> Counter[str]:
    """What says what a cohort, prompts or results are."""
    folder.mkdir()
    prepared(
        folder, [f"{number}.jpg" for number in range(3) if (folder / f"{number}.jpg").write_bytes(jpeg(picture(1)))]
    )
    meta = folder / "cohort" / "cohort.json"
    prompts = {"normal": ["Normal."], "COVID-19": {"positive": ["It is."], "negative": ["It is not."]}}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    results = {
        "schema": SCHEMA,
        "medst_version": "0",
        "protocol": "strict",
        "switches": {},
        "model": {"fingerprint": "f", "recipe": "tiny"},
    }
    results |= {"cohorts": {"rsna": "f"}, "results": [], "left_out": [], "warnings": [], "details": {}}
    (folder / "results.json").write_text(json.dumps(results))
    readers: list[tuple[Path, Callable[[], Any]]] = [
        (meta, lambda: open_cohort(folder / "cohort")),
        (folder / "prompts.json", lambda: read_prompts(folder / "prompts.json")),
        (folder / "results.json", lambda: read_results(folder / "results.json")),
    ]
    seen: Counter[str] = Counter()
    for _, read in readers:
        read()
    for number in range(count):
        path, read = readers[number % len(readers)]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, np.random.default_rng([SEED, 3, number])))
        seen[outcome(read)] += 1
        path.write_bytes(whole)
    return seen


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_hostile_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    seen = {}
    with GuardedProcess(seconds=SECONDS, refused=(UnreadableImage, OSError)) as guard:
        monkeypatch.setattr(images, "_child", lambda: guard)
        for name, make, share in (
            ("pictures", hostile_pictures, 0.55),
            ("tables", hostile_tables, 0.2),
            ("trees", hostile_trees, 0.15),
            ("json", hostile_json, 0.1),
        ):
            seen[name] = make(tmp_path / name, round(count * share))
            print(name, dict(seen[name]))
    assert sum(kinds["used"] + kinds["refused"] for kinds in seen.values()) == count
    assert all(kinds["refused"] for kinds in seen.values())
