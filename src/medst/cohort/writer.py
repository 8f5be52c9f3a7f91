"""Write a cohort block by block in a folder beside its final name, and move it there when it is complete.

    <cohort>.part/header.json     data set, options and sources
    <cohort>.part/images-KEY.npy  blocks of rows, in any order; KEY identifies the images and their order
    <cohort>.part/blocks-KEY/     one record per block, written after its pixels, so that its existence means they are there
    <cohort>.part/cohort.json     written last, so that its existence means the rest is complete

images.npy is not written through a memory map: on a full disk a plain write fails with an error that can be reported,
while a memory map kills the process. Because of KEY, a worker that outlives its killed parent can't write into what a
later run writes for other images.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst import __version__
from medst.cohort.images import AS_RELEASED, Reading, read_guarded
from medst.cohort.options import Options
from medst.cohort.rejections import COUNTED, LEFT_OUT, Rejections
from medst.cohort.resize import SIDE
from medst.cohort.store import SCHEMA, Cohort, digest_table, read_meta
from medst.cohort.unreadable import UnreadableImage
from medst.errors import MedstError
from medst.files import (
    atomic,
    is_free,
    is_leftover,
    part_of,
    read_json,
    replace_folder,
    sha256,
    write_bytes,
    write_json,
    write_text,
)
from medst.jobs import Workers

BLOCK = 128
HEADER = {"dataset": str, "options": dict, "source": dict}
RECORD = {"sizes": [list], "reasons": [str], "sha256": str}


@dataclass
class Writer(Rejections):
    """A cohort that is being written.

    Attributes:
        path: final folder.
        header: `dataset`, `dataset_version`, `options` and `source` of cohort.json. A part or a finished cohort with another
            data set, other options or other sources is refused.
        workers: processes that read the images.
        reading: how files become pixels.
        digests: sha256 of each block of images.
        synthetic: whether `medst phantom` drew the patients.
    """

    path: Path
    header: dict[str, Any]
    workers: Workers = field(default_factory=Workers)
    reading: Reading = AS_RELEASED
    digests: list[str] = field(default_factory=list)
    synthetic: bool = False

    @property
    def part(self) -> Path:
        """Folder that the cohort is in until it is complete."""
        return part_of(self.path)

    def start(self) -> dict[str, Any] | None:
        """Begin or resume the cohort, unless it is finished.

        Returns:
            The content of cohort.json if this cohort is finished, else None.

        Raises:
            MedstError: the folder holds something else, or a cohort made with other options or from other sources.
        """
        meta = read_meta(self.path)
        if meta is not None:
            self._compare(meta, self.path, "give the same, or another folder for the new cohort")
            return meta
        if not is_free(self.path):
            raise MedstError(f"{self.path} is not empty and not a cohort; give a new folder.")
        meta, header = read_meta(self.part), self.part / "header.json"
        if meta is not None:
            self._compare(meta, self.part, "give the same, or remove that folder")
            self._move()
            return meta
        if header.is_file():
            begun = read_json(header, f"remove {self.part} and run the same command again", HEADER)
            self._compare(begun, self.part, "give the same, or remove that folder")
        elif not is_free(self.part):
            raise MedstError(f"{self.part} is in the way: it is not empty and not an unfinished cohort.")
        else:
            write_json(header, self.header)
        return None

    def _compare(self, found: dict[str, Any], where: Path, remedy: str) -> None:
        if found.get("dataset") != self.header["dataset"]:
            raise MedstError(
                f"{where} holds a cohort of {found.get('dataset')}, not of {self.header['dataset']}; give another folder."
            )
        for key, what in (("options", "with other options"), ("source", "from other files")):
            usual = Options().to_json() if key == "options" else {}  # a cohort may be older than an option
            old, new = usual | found.get(key, {}), usual | self.header[key]
            changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            if changed:
                raise MedstError(f"{where} was made {what} ({', '.join(changed)}); {remedy}.")

    def remove_if_unused(self) -> None:
        """Remove the part folder if nothing was read yet, so that corrected tables are not taken for another source."""
        if self.part.is_dir() and all(is_leftover(e) or e.name == "header.json" for e in self.part.iterdir()):
            shutil.rmtree(self.part)

    def write_images(self, root: Path, table: pl.DataFrame) -> pl.DataFrame:
        """Read all images of a table into images.npy, block by block; finished blocks are skipped.

        Args:
            root: folder that `path` is relative to.
            table: image_id, path, view, view_position, time and portable if they are known, and rows if images are rows;
                its order is that of images.npy.

        Returns:
            The table with row, height, width and status, without rows. Unreadable images are rejected.
        """
        names = table["path"].to_list()
        target, blocks = self._make_room(names)
        # Workers that are reused, or on other machines, may be in another working directory.
        target, blocks, root = target.absolute(), blocks.absolute(), root.absolute()
        groups = {start: names[start : start + BLOCK] for start in range(0, len(names), BLOCK)}
        records = {start: _read_record(blocks, start, len(group)) for start, group in groups.items()}
        calls = [(target, blocks, start, root, groups[start], self.reading) for start in groups if not records[start]]
        done = sum(len(groups[start]) for start in groups if records[start])
        self.seen["image"] = len(names)
        self.workers.report(done, len(names))
        with self.workers.run(_read_block, calls) as results:
            for start, record in results:
                records[start] = record
                done += len(groups[start])
                self.workers.report(done, len(names))
        self.digests = [record["sha256"] for record in records.values()]
        found = pl.DataFrame(
            [
                (height or None, width or None, reason, "rejected" if reason else "ok")
                for record in records.values()
                for (height, width), reason in zip(record["sizes"], record["reasons"], strict=True)
            ],
            {"height": pl.Int32, "width": pl.Int32, "reason": pl.String, "status": pl.String},
            orient="row",
        )
        images = table.hstack(found).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
        self.reject_where(images, "image", (pl.col("status") == "rejected", pl.col("reason")))
        known = [name for name in ("time", "portable") if name in images.columns]
        return images.select("row", "image_id", "path", "view", "view_position", *known, "height", "width", "status")

    def copy_images(self, source: Cohort, table: pl.DataFrame) -> pl.DataFrame:
        """Copy images from another cohort; arguments and result as for `write_images`, `table` being from its table."""
        rows = table["row"].to_numpy()
        target, _ = self._make_room(table["path"].to_list())
        self.digests, self.seen["image"] = [], len(rows)
        for start in range(0, len(rows), BLOCK):
            self.digests.append(_write_block(target, start, source.images[rows[start : start + BLOCK]]))
            self.workers.report(min(start + BLOCK, len(rows)), len(rows))
        return table.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))

    def _make_room(self, names: list[str]) -> tuple[Path, Path]:
        """Make the array file and the folder of records for these images, and remove those for others."""
        key = sha256(json.dumps([__version__, SIDE, BLOCK, names]).encode())[:16]
        target, blocks = self.part / f"images-{key}.npy", self.part / f"blocks-{key}"
        for stale in {*self.part.glob("images-*"), *self.part.glob("blocks-*")} - {target, blocks}:
            if stale.is_dir():
                shutil.rmtree(stale)
            else:
                stale.unlink()
        if not target.is_file():
            with atomic(target) as fresh:
                np.lib.format.open_memmap(fresh, "w+", np.uint8, (len(names), SIDE, SIDE))
        blocks.mkdir(exist_ok=True)
        return target, blocks

    def finish(
        self, images: pl.DataFrame, tables: dict[str, pl.DataFrame], counts: dict[str, int], kept: pl.Series
    ) -> dict[str, Any]:
        """Write the tables and cohort.json, and move the cohort to its final name.

        Args:
            images: what `write_images` or `copy_images` returned.
            tables: the other tables, by name.
            counts: for cohort.json.
            kept: rows of the raw tables that are in the cohort, see `check_all_rows`.

        Raises:
            MedstError: a row is unaccounted for.
        """
        left_out_rows = self.check_all_rows(kept)
        chunks, written = [json.dumps(self.digests).encode()], {}
        for name, table in {"images": images, **tables}.items():
            parquet = BytesIO()
            table.write_parquet(parquet)
            write_bytes(self.part / f"{name}.parquet", parquet.getbuffer())
            written[f"{name}.parquet"] = sha256(parquet.getbuffer())
            chunks.append(f"{name}\n{digest_table(table)}\n".encode())
        rejected = self.lines()
        write_text(self.part / "rejected.csv", rejected.write_csv())
        left_out = rejected.filter(LEFT_OUT)
        meta = {
            "schema": SCHEMA,
            **self.header,
            "counts": counts | {f"rejected_{kind}s": left_out.filter(kind=kind).height for kind in COUNTED},
            "seen": self.seen,
            "rows": {"read": len(self.rows), "kept": len(self.rows) - left_out_rows, "left_out": left_out_rows},
            "medst_version": __version__,
            "fingerprint": sha256(chunks),
            "files": written,
            **({"synthetic": True} if self.synthetic else {}),
        }
        write_json(self.part / "cohort.json", meta)
        self._move()
        return meta

    def _move(self) -> None:
        for grown in self.part.glob("images-*.npy"):
            grown.replace(self.part / "images.npy")
        for blocks in self.part.glob("blocks-*"):
            shutil.rmtree(blocks)
        for entry in self.part.iterdir():
            if entry.name == "header.json" or is_leftover(entry):
                entry.unlink()
        replace_folder(self.path)  # which may exist, with nothing but leftovers


def _record(blocks: Path, start: int) -> Path:
    return blocks / f"{start:09d}.json"


def _read_record(blocks: Path, start: int, size: int) -> dict[str, Any]:
    """The record of a block; empty if there is none or it is damaged, so that the block is read again."""
    try:
        record: dict[str, Any] = read_json(_record(blocks, start), "", RECORD)
    except MedstError:
        return {}
    return record if len(record["sizes"]) == len(record["reasons"]) == size else {}


def _read_block(
    target: Path, blocks: Path, start: int, root: Path, names: list[str], reading: Reading
) -> tuple[int, dict[str, Any]]:
    """Read a block of images, write it to the rows from `start` on, and record it; return `start` and the record."""
    images = np.zeros((len(names), SIDE, SIDE), dtype=np.uint8)
    sizes, reasons = [(0, 0)] * len(names), [""] * len(names)
    for i, name in enumerate(names):
        try:
            images[i], sizes[i] = read_guarded(root / name, reading)
        except UnreadableImage as reason:
            reasons[i] = str(reason)
    record = {"sizes": sizes, "reasons": reasons, "sha256": _write_block(target, start, images)}
    write_json(_record(blocks, start), record)
    return start, record


def _write_block(target: Path, start: int, images: np.ndarray) -> str:
    """Write rows of an array file from `start` on; return their sha256."""
    with target.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        file.seek(start * SIDE * SIDE, os.SEEK_CUR)
        file.write(images.tobytes())
    return sha256(images.tobytes())
