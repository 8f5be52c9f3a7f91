"""DICOM files made for tests."""

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def dataset_of(pixels: np.ndarray, bits: int = 12, **elements: Any) -> FileDataset:
    """A grey image; `elements` replace the usual ones, or remove them if None."""
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


def by_gdcm(data: bytes, syntax: str) -> bytes:
    """Recompress a file with GDCM, by the name in `gdcm.TransferSyntax`."""
    import gdcm

    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source.dcm", Path(name) / "target.dcm"
        source.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target))
        assert writer.Write()
        return target.read_bytes()


DEADLY = (21, 23, 47, 125, 147, 153, 313)
"""Seeds with which `fuzzed` of a JPEG-LS ramp ends the process in GDCM 3.2.6."""


def fuzzed(data: bytes, seed: int) -> bytes:
    """Replace up to eight bytes of the compressed image, for odd seeds within its header."""
    rng = np.random.default_rng(seed)
    found, start = bytearray(data), data.index(b"\xff\xd8\xff")
    first = start + int(rng.choice([0, 0, 0, 40]))
    end = min(len(found), first + 60) if seed % 2 else len(found)
    for _ in range(int(rng.integers(1, 9))):
        found[int(rng.integers(first, end))] = int(rng.integers(256))
    return bytes(found)
