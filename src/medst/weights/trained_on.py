"""Which patients a model was trained on: salted digests of their ids, to find them again in a benchmark.

The salt is stored with the digests, so an id can be checked by guessing it, and the ids of most data sets are easy to guess.
The digests keep ids from being read by accident and from being linked to those of another model, but do not make them
secret. That is why training writes the file, and `save_pretrained` and `push_to_hub` never do.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import read_json, write_json

TRAINED_ON = "trained_on.json"
SPLITS = ("train", "valid")
DIGEST = 8
"""Bytes of a digest: a patient is mistaken for one of 65,000 others once in 10^14 times."""
_SHARED = {"mimic-cxr", "ms-cxr-t"}
"""Data sets that share patient ids."""
_FORM = {"dataset": str, "salt": str, "complete": bool, "train": str, "valid": str}


@dataclass(frozen=True)
class TrainedOn:
    """The patients of a model's training and validation splits.

    Attributes:
        dataset: the data set that the model was trained on.
        salt: 16 bytes, drawn for this run.
        complete: False if training started from a checkpoint, whose own patients are not known.
        digests: for `train` and `valid`, one digest per patient.
    """

    dataset: str
    salt: bytes
    complete: bool
    digests: dict[str, frozenset[bytes]]

    def seen(self, dataset: str, patients: Iterable[str], split: str) -> set[str]:
        """The patients of a data set who are in a split; none if its ids belong to other people."""
        if not (dataset == self.dataset or {dataset, self.dataset} <= _SHARED or "table" in (dataset, self.dataset)):
            return set()
        return {patient for patient in patients if _digest(self.salt, patient) in self.digests[split]}


def note_patients(folder: Path, cohort: Cohort, *, complete: bool) -> Path:
    """Write `trained_on.json` into a run's folder, or keep an existing one, so that a resumed run has the same salt.

    The file has 11 bytes per patient. It is `complete` if the weights that training started from had seen no others.
    """
    file = folder / TRAINED_ON
    try:
        if read_trained_on(folder) is not None:
            return file
    except MedstError:  # damaged: write a new one
        pass
    salt = secrets.token_bytes(16)
    content: dict[str, object] = {"dataset": cohort.dataset, "salt": salt.hex(), "complete": complete}
    for split in SPLITS:
        patients = cohort.require("pairs").filter(split=split)["patient_id"].drop_nulls().unique().to_list()
        # Sorted, so that their order says nothing about the ids.
        content[split] = base64.b64encode(b"".join(sorted(_digest(salt, patient) for patient in patients))).decode()
    write_json(file, content)
    return file


def read_trained_on(folder: Path) -> TrainedOn | None:
    """Read a folder's `trained_on.json`; None if there is none.

    Raises:
        MedstError: it is damaged.
    """
    file = folder / TRAINED_ON
    if not file.exists():
        return None
    remedy = "remove it, and it is unknown which patients the model was trained on"
    found = read_json(file, remedy, _FORM)
    try:
        packed = {split: base64.b64decode(found[split], validate=True) for split in SPLITS}
        salt = bytes.fromhex(found["salt"])
    except ValueError as error:
        raise MedstError(f"{file} is damaged ({error}); {remedy}.") from None
    if len(salt) != 16 or any(len(digests) % DIGEST for digests in packed.values()):
        raise MedstError(f"{file} is damaged (digests or salt are cut); {remedy}.")
    digests = {
        split: frozenset(one[start : start + DIGEST] for start in range(0, len(one), DIGEST))
        for split, one in packed.items()
    }
    return TrainedOn(found["dataset"], salt, found["complete"], digests)


def _digest(salt: bytes, patient: str) -> bytes:
    return hashlib.blake2b(str(patient).encode(), digest_size=DIGEST, salt=salt).digest()
