"""Write synthetic patients in the raw layouts of RSNA, COVIDx, CheXpert Plus and Open-i."""

import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from medst.errors import MedstError
from medst.files import write_bytes
from medst_phantom import OTHER_TREES
from medst_phantom.output_folder import claimed, finish_tree, open_tree, record_path, write_all

MOST_PATIENTS = 100_000  # so that five-digit ids suffice


def write_tree(
    name: str,
    out: Path,
    *,
    patients: int = 100,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write synthetic patients in the layout of one data set.

    Args:
        name: one of `OTHER_TREES`.
        out: a new or empty folder, or one that an earlier run with the same options began.
        patients: number of patients, 1 to 100,000.
        seed: the files depend only on this and on `patients`.
        workers: processes; 0 means one per core.
        progress: called with (patients done, all patients).

    Returns:
        Counts of what was written.

    Raises:
        MedstError: an option is out of range, `out` holds something else, or it can't be written.
    """
    out = Path(out)
    if name not in OTHER_TREES:
        raise MedstError(f"'{name}' is not a data set that the phantom writes; choose one of {', '.join(OTHER_TREES)}.")
    if not 1 <= patients <= MOST_PATIENTS or seed < 0 or workers < 0:
        raise MedstError(f"Give 1 to {MOST_PATIENTS} patients, and a seed and a number of workers of 0 or more.")
    options = {"tree": name, "patients": patients, "seed": seed}
    with claimed(out):
        counts = open_tree(out, options)
        if counts and progress:
            progress(patients, patients)
        if counts is None:
            write_all(out, patients, workers, progress, partial(_write_patients, name, out.absolute(), seed))
            records = [json.loads(record_path(out, index).read_bytes()) for index in range(patients)]
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_stream(name), 1)))
            counts = finish_tree(out, options, _module(name).write_tables(out, records, rng))
    return counts


def _module(name: str) -> ModuleType:
    return import_module(f"medst_phantom.{name.replace('-', '_')}")


def _stream(name: str) -> int:
    return 10 + OTHER_TREES.index(name)


def _write_patients(name: str, out: Path, seed: int, indices: list[int]) -> None:
    for index in indices:
        rng = np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=(_stream(name),)))
        record: dict[str, Any] = _module(name).write_patient(out, index, rng)
        write_bytes(record_path(out, index), json.dumps(record, sort_keys=True).encode())
