"""Which patients a model was trained on: salted digests of their ids, to find them again in a benchmark.

The salt lies beside the digests, so whoever guesses an id can check it, and the ids of most data sets are easy to guess. The
digests keep ids from being read by accident and from being linked to those of another model; they do not keep a secret. So
the file is written by training and never by `save_pretrained` or `push_to_hub`.
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
"""Bytes of a digest: among 65,000 patients, another one is taken for one of them once in 10^14 times."""
_SHARED = {"mimic-cxr", "ms-cxr-t"}
"""Data sets whose ids are of the same patients."""
_FORM = {"dataset": str, "salt": str, "complete": bool, "train": str, "valid": str}


@dataclass(frozen=True)
class TrainedOn:
    """The patients of a model's training and validation splits.

    Attributes:
        dataset: the one that the model was trained on.
        salt: of this run, 16 bytes.
        complete: False where training began with a checkpoint, whose own patients nobody has noted.
        digests: for `train` and `valid`, a digest per patient.
    """

    dataset: str
    salt: bytes
    complete: bool
    digests: dict[str, frozenset[bytes]]

    def seen(self, dataset: str, patients: Iterable[str], split: str) -> set[str]:
        """Those of a data set's patients who are in a split; none if its ids are of other people."""
        if not (dataset == self.dataset or {dataset, self.dataset} <= _SHARED or "table" in (dataset, self.dataset)):
            return set()
        return {patient for patient in patients if _digest(self.salt, patient) in self.digests[split]}


def note_patients(folder: Path, cohort: Cohort, *, complete: bool) -> Path:
    """Write `trained_on.json` into a run's folder, or keep the one that is there, so that a resumed run has the same salt.

    Args:
        folder: the run's.
        cohort: the one with pairs that it is trained on.
        complete: whether training began with weights that had seen no other patients.

    Returns:
        The file: 11 bytes per patient.
    """
    file = folder / TRAINED_ON
    try:
        if read_trained_on(folder) is not None:
            return file
    except MedstError:  # damaged; nothing in it but the salt is worth keeping
        pass
    assert cohort.pairs is not None
    salt = secrets.token_bytes(16)
    content: dict[str, object] = {"dataset": str(cohort.meta["dataset"]), "salt": salt.hex(), "complete": complete}
    for split in SPLITS:
        patients = cohort.pairs.filter(split=split)["patient_id"].drop_nulls().unique().to_list()
        # Sorted, so that their order says nothing about the ids.
        content[split] = base64.b64encode(b"".join(sorted(_digest(salt, patient) for patient in patients))).decode()
    write_json(file, content)
    return file


def read_trained_on(folder: Path) -> TrainedOn | None:
    """What a folder's `trained_on.json` says; None where there is none.

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
