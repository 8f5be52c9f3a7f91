"""A cohort on disk: written in a folder beside its final name, moved there when whole, opened read-only.

    cohort.json       data set, options, counts, fingerprint
    pairs.parquet     a row a pair; an ms-cxr-t cohort has comparisons.parquet and sentences.parquet instead
    images.npy        uint8 (N, 256, 256), memory-mapped
    images.parquet    a row an image
    rejected.csv      all that was left out, and why

What is here has no clock time and no absolute path in it: the same input gives the same bytes.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import polars as pl

from medst import __version__
from medst.cohort.images import SIDE, UnreadableImage, read_grey, resize
from medst.errors import MedstError

SCHEMA = 1
BLOCK = 128
TABLES = ("pairs", "comparisons", "sentences")
REJECTED = {"kind": pl.String, "id": pl.String, "path": pl.String, "reason": pl.String}

Progress = Callable[[int, int], None]


@dataclass
class Cohort:
    """An opened cohort.

    Attributes:
        path: its folder.
        meta: the content of cohort.json.
        images: uint8 (N, 256, 256), memory-mapped.
        image_table: a row an image, in the order of `images`.
        pairs: patient_id, study_id, time, split, report, frontal, lateral, labels; None in a benchmark cohort.
        comparisons: finding, patient_id, study_id, current, previous, progression; None elsewhere.
        sentences: sentence_1, sentence_2, category, subset; None elsewhere.
    """

    path: Path
    meta: dict[str, Any]
    images: np.ndarray
    image_table: pl.DataFrame
    pairs: pl.DataFrame | None = None
    comparisons: pl.DataFrame | None = None
    sentences: pl.DataFrame | None = None

    @property
    def fingerprint(self) -> str:
        """sha256, hexadecimal, over all tables and pixels."""
        return str(self.meta["fingerprint"])


def open_cohort(path: Path) -> Cohort:
    """Open a finished cohort.

    Raises:
        MedstError: there is none, it is unfinished, damaged or of another schema.
    """
    path = Path(path)
    meta = read_meta(path)
    if meta is None:
        if part_path(path).exists():
            raise MedstError(f"{path}: this cohort is not finished; run the same `medst prepare` again to go on.")
        raise MedstError(f"{path}: no cohort here (there is no cohort.json); make one with `medst prepare`.")
    try:
        tables = {
            name: pl.read_parquet(path / f"{name}.parquet") for name in TABLES if (path / f"{name}.parquet").exists()
        }
        image_table = pl.read_parquet(path / "images.parquet")
        images = np.load(path / "images.npy", mmap_mode="r")
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise MedstError(f"{path}: this cohort is damaged ({error}); prepare it again.") from error
    return Cohort(path, meta, images, image_table, **tables)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The content of cohort.json, or None where there is none.

    Raises:
        MedstError: it is damaged or of another schema.
    """
    file = path / "cohort.json"
    if not file.is_file():
        return None
    try:
        meta = json.loads(file.read_text())
    except ValueError as error:
        raise MedstError(f"{file} is damaged ({error}); prepare the cohort again.") from error
    if meta.get("schema") != SCHEMA:
        raise MedstError(f"{path} has cohort schema {meta.get('schema')}, this medst reads {SCHEMA}; prepare it again.")
    return meta


def part_path(path: Path) -> Path:
    """Where a cohort grows until it is whole."""
    return path.with_name(path.name + ".part")


@dataclass
class Writer:
    """A cohort that grows in its part folder.

    Attributes:
        path: final folder.
        header: `dataset`, `dataset_version` and `options` of cohort.json; a part with another header is refused.
    """

    path: Path
    header: dict[str, Any]
    rejected: list[dict[str, str]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def start(self) -> dict[str, Any] | None:
        """Begin, go on, or find that all is done.

        Returns:
            The content of cohort.json if this cohort is finished, else None.

        Raises:
            MedstError: the folder holds something else, or a cohort made with other options.
        """
        meta = read_meta(self.path)
        if meta is not None:
            self._compare(meta, self.path)
            return meta
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise MedstError(f"{self.path} is not empty and holds no cohort; give a new folder.")
        part = part_path(self.path)
        header = part / "header.json"
        if header.is_file():
            self._compare(json.loads(header.read_text()), part)
        elif part.exists() and any(part.iterdir()):
            raise MedstError(f"{part} is in the way: it is not empty and holds no unfinished cohort.")
        else:
            part.mkdir(parents=True, exist_ok=True)
            _write_json(header, self.header)
        (part / "blocks").mkdir(exist_ok=True)
        return None

    def _compare(self, found: dict[str, Any], where: Path) -> None:
        if found.get("dataset") != self.header["dataset"]:
            raise MedstError(
                f"{where} holds a cohort of {found.get('dataset')}, not of {self.header['dataset']}; give another folder."
            )
        old, new = found.get("options", {}), self.header["options"]
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            raise MedstError(
                f"{where} was made with other options ({', '.join(changed)}); give the same ones, or another folder."
            )

    def reject(self, kind: str, ids: pl.Series, paths: pl.Series | None, reason: str | pl.Series) -> None:
        """Note rows that are left out."""
        reasons = [reason] * len(ids) if isinstance(reason, str) else reason.to_list()
        where = [""] * len(ids) if paths is None else paths.to_list()
        self.rejected += [
            {"kind": kind, "id": str(i), "path": p, "reason": r} for i, p, r in zip(ids, where, reasons, strict=True)
        ]

    def reject_where(self, table: pl.DataFrame, where: pl.Expr, kind: str, reason: str) -> None:
        """Note the images of a table for which `where` holds."""
        bad = table.filter(where)
        self.reject(kind, bad["image_id"], bad["path"], reason)

    def write_images(self, root: Path, table: pl.DataFrame, workers: int, progress: Progress | None) -> pl.DataFrame:
        """Read all images of a table into images.npy, block by block, finished blocks not again.

        Args:
            root: what the column `path` is relative to.
            table: columns image_id, path, view, view_position; its order is that of images.npy.
            workers: processes; 0: one a core.
            progress: called with (images done, all images).

        Returns:
            The table with row, height, width and status; what could not be read is noted as rejected.
        """
        part = part_path(self.path)
        target = part / "images.npy"
        shape = (table.height, SIDE, SIDE)
        if not target.is_file():
            fresh = target.with_suffix(".new")
            np.lib.format.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=shape).flush()
            fresh.rename(target)
        paths = [str(root / path) for path in table["path"]]
        starts = range(0, len(paths), BLOCK)
        todo = [start for start in starts if not _block_file(part, start).is_file()]
        done = sum(min(BLOCK, len(paths) - start) for start in starts if start not in set(todo))
        jobs = (joblib.delayed(_read_block)(part, start, paths[start : start + BLOCK]) for start in todo)
        for count in joblib.Parallel(n_jobs=workers or -1, return_as="generator_unordered")(jobs):
            done += count
            if progress is not None:
                progress(done, len(paths))
        found = [json.loads(_block_file(part, start).read_text()) for start in starts]
        self.digests = [block["sha256"] for block in found]
        sizes = [size for block in found for size in block["sizes"]]
        reasons = pl.Series("reason", [reason for block in found for reason in block["reasons"]], dtype=pl.String)
        whole = table.with_row_index("row").with_columns(
            pl.col("row").cast(pl.Int64),
            pl.Series("height", [height or None for height, _ in sizes], dtype=pl.Int32),
            pl.Series("width", [width or None for _, width in sizes], dtype=pl.Int32),
            pl.Series("status", ["rejected" if reason else "ok" for reason in reasons], dtype=pl.String),
        )
        bad = whole.with_columns(reasons).filter(pl.col("status") == "rejected")
        self.reject("image", bad["image_id"], bad["path"], bad["reason"])
        return whole.select("row", "image_id", "path", "view", "view_position", "height", "width", "status")

    def copy_images(self, source: Cohort, table: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        """Take images over from another cohort; arguments and result as `write_images`, `table` holding its rows."""
        images = np.lib.format.open_memmap(
            part_path(self.path) / "images.npy", mode="w+", dtype=np.uint8, shape=(table.height, SIDE, SIDE)
        )
        self.digests = []
        rows = table["row"].to_numpy()
        for start in range(0, len(rows), BLOCK):
            block = source.images[rows[start : start + BLOCK]]
            images[start : start + len(block)] = block
            self.digests.append(hashlib.sha256(block.tobytes()).hexdigest())
            if progress is not None:
                progress(start + len(block), len(rows))
        images.flush()
        return table.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))

    def finish(self, images: pl.DataFrame, tables: dict[str, pl.DataFrame], counts: dict[str, int]) -> dict[str, Any]:
        """Write the tables and cohort.json, and move the cohort to its final name."""
        part = part_path(self.path)
        digest = hashlib.sha256(json.dumps(self.digests).encode())
        for name, table in {"images": images, **tables}.items():
            _write_parquet(table, part / f"{name}.parquet")
            digest.update(f"{name}\n{table.schema}\n".encode())
            digest.update(table.write_ndjson().encode())
        rejected = pl.DataFrame(self.rejected, schema=REJECTED)
        rejected.write_csv(part / "rejected.csv")
        by_kind = {
            f"rejected_{kind}s": rejected.filter(kind=kind).height for kind in ("image", "report", "study", "row")
        }
        meta = {
            "schema": SCHEMA,
            **self.header,
            "counts": counts | by_kind,
            "medst_version": __version__,
            "fingerprint": digest.hexdigest(),
        }
        _write_json(part / "cohort.json", meta)
        shutil.rmtree(part / "blocks")
        (part / "header.json").unlink()
        if self.path.exists():
            self.path.rmdir()
        part.rename(self.path)
        return meta


def _block_file(part: Path, start: int) -> Path:
    return part / "blocks" / f"{start:09d}.json"


def _read_block(part: Path, start: int, paths: list[str]) -> int:
    """Read one block of images into images.npy; its record is written last, so that its existence means it is whole."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    images = np.lib.format.open_memmap(part / "images.npy", mode="r+")
    sizes, reasons = [], []
    for row, path in enumerate(paths, start):
        try:
            picture = read_grey(Path(path))
            images[row] = resize(picture)
            sizes.append(picture.shape)
            reasons.append("")
        except UnreadableImage as reason:
            images[row] = 0
            sizes.append((0, 0))
            reasons.append(str(reason))
    images.flush()
    digest = hashlib.sha256(images[start : start + len(paths)].tobytes()).hexdigest()
    _write_json(_block_file(part, start), {"sizes": sizes, "reasons": reasons, "sha256": digest})
    return len(paths)


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".new")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def _write_parquet(table: pl.DataFrame, path: Path) -> None:
    part = path.with_name(path.name + ".new")
    table.write_parquet(part)
    part.replace(path)
