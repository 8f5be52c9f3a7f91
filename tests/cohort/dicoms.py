"""DICOM files made for tests."""

from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def dataset_of(pixels: np.ndarray, bits: int = 12, **elements: Any) -> FileDataset:
    """A grey picture; `elements` replace or, where None, remove what is usual."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    usual = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": UID("1.2.3.4"),
        "PatientName": "SECRET^NAME",
        "PatientID": "SECRET-ID",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    for name, value in (usual | elements).items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def bytes_of(dataset: FileDataset) -> bytes:
    """The file."""
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def dicom(pixels: np.ndarray, bits: int = 12, **elements: Any) -> bytes:
    """The file of a grey picture."""
    return bytes_of(dataset_of(pixels, bits, **elements))


def ramp(bits: int = 12, side: int = 64) -> np.ndarray:
    """All values from 1 to the largest, uint16 (side, side)."""
    return np.linspace(1, 2**bits - 1, side * side).astype(np.uint16).reshape(side, side)
