"""Write phantom images as DICOM files with the variety of real ones: syntaxes, bits, windows, inversion.

The files hold no clock time and no random identifier, so that the same seed writes the same bytes. They hold a made-up
patient's name, so that tests can check that it is never copied.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from medst.errors import MedstError
from medst.files import write_bytes

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
RLE, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
JPEG, JPEG_LOSSLESS, JPEG_LS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
SYNTAXES = (EXPLICIT, JPEG, JPEG_LOSSLESS, JPEG_2000, RLE, JPEG_LS, IMPLICIT, DEFLATED)
CR_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
ROOT = "1.2.826.0.1.3680043.10.511"  # any prefix will do: these files never leave a phantom


@dataclass(frozen=True)
class Style:
    """How an image is stored.

    Attributes:
        syntax: one of `SYNTAXES`; JPEG, the only lossy one, stores 8 bits.
        bits: 8, 10, 12 or 16.
        inverted: stored as MONOCHROME1, bone dark.
        windows: 0, 1 or 2 VOI windows.
        rescaled: whether the file has a rescale slope and intercept.
    """

    syntax: str = EXPLICIT
    bits: int = 12
    inverted: bool = False
    windows: int = 1
    rescaled: bool = False


def style_of(number: int) -> Style:
    """Style of the n-th file: syntaxes and other attributes alternate at different rates, so that all combinations occur."""
    syntax = SYNTAXES[number % len(SYNTAXES)]
    turn = number // len(SYNTAXES)
    bits = 8 if syntax == JPEG else (12, 16, 10, 8)[turn % 4]
    return Style(syntax, bits, (number % len(SYNTAXES) + turn) % 3 == 1, turn // 2 % 3, turn % 2 == 1)


def deepen(picture: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Extend an 8-bit image to `bits` bits; the additional bits are random.

    Returns:
        uint8 if `bits` is 8, else uint16, of the same shape.
    """
    if bits == 8:
        return picture
    spare = 1 << (bits - 8)
    return picture.astype(np.uint16) * spare + rng.integers(0, spare, picture.shape, dtype=np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, style: Style, *, number: int, view: str) -> None:
    """Write one file.

    Args:
        path: the file.
        pixels: uint8 or uint16 (height, width), bone bright; inverted here if the style says so. Their number must be
            even, because GDCM reports the padding byte of an odd number as an error.
        style: how to store them.
        number: the file's number, for its identifiers.
        view: ViewPosition.

    Raises:
        MedstError: the packages for DICOM are missing.
        OSError: the file can't be written.
    """
    try:
        import gdcm  # noqa: F401
        import pydicom  # noqa: F401
    except ImportError as error:
        raise MedstError('Writing DICOM needs packages that are missing: pip install "medst[dicom]".') from error
    stored = (2**style.bits - 1 - pixels).astype(pixels.dtype) if style.inverted else pixels
    dataset = _dataset(stored, style, number, view)
    if style.syntax in (JPEG_LOSSLESS, JPEG_LS):
        write_bytes(path, _by_gdcm(_to_bytes(dataset), style.syntax))
        return
    _encode(dataset, stored, style.syntax)
    write_bytes(path, _to_bytes(dataset))


def _dataset(pixels: np.ndarray, style: Style, number: int, view: str) -> "FileDataset":
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(CR_STORAGE)
    meta.MediaStorageSOPInstanceUID = UID(f"{ROOT}.{number}.3")
    meta.TransferSyntaxUID = UID(EXPLICIT)
    meta.ImplementationClassUID = UID(f"{ROOT}.1")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    height, width = pixels.shape
    elements = {
        "SOPClassUID": UID(CR_STORAGE),
        "SOPInstanceUID": UID(f"{ROOT}.{number}.3"),
        "StudyInstanceUID": UID(f"{ROOT}.{number}.1"),
        "SeriesInstanceUID": UID(f"{ROOT}.{number}.2"),
        "StudyDate": "21000101",
        "StudyTime": "000000",
        "Modality": "CR",
        "PatientName": f"PHANTOM^{number}",
        "PatientID": f"PHANTOM-{number}",
        "BodyPartExamined": "CHEST",
        "ViewPosition": view,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1" if style.inverted else "MONOCHROME2",
        "Rows": height,
        "Columns": width,
        "BitsAllocated": 8 if style.bits == 8 else 16,
        "BitsStored": style.bits,
        "HighBit": style.bits - 1,
        "PixelRepresentation": 0,
    }
    for name, value in elements.items():
        setattr(dataset, name, value)
    slope, intercept = (2.0, -100.0) if style.rescaled else (1.0, 0.0)
    if style.rescaled:
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
    low, high = (float(value) * slope + intercept for value in np.percentile(pixels, (1, 99)))
    centre, spread = round((low + high) / 2), max(2, round(high - low))
    if style.windows == 1:
        dataset.WindowCenter, dataset.WindowWidth = centre, spread
    elif style.windows == 2:
        dataset.WindowCenter, dataset.WindowWidth = [centre, centre], [spread, 2 * spread]
        dataset.WindowCenterWidthExplanation = ["NORMAL", "SOFTER"]
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return dataset


def _encode(dataset: "FileDataset", pixels: np.ndarray, syntax: str) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    if syntax in (RLE, JPEG_2000):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plugin = "pydicom" if syntax == RLE else "pylibjpeg"  # GDCM's aborts the process on some sizes
            dataset.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False)
        return
    if syntax == JPEG:
        _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
        dataset.PixelData = encapsulate([jpeg.tobytes()])
        dataset["PixelData"].is_undefined_length = True
        dataset.LossyImageCompression = "01"
    dataset.file_meta.TransferSyntaxUID = UID(syntax)


def _to_bytes(dataset: "FileDataset") -> bytes:
    from io import BytesIO

    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _by_gdcm(data: bytes, syntax: str) -> bytes:
    """Compress a file with lossless JPEG, which pydicom can't write."""
    import gdcm

    kind = {JPEG_LOSSLESS: "JPEGLosslessProcess14_1", JPEG_LS: "JPEGLSLossless"}[syntax]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        source.write_bytes(data)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(source))
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
        writer.SetFileName(str(target))
        done = reader.Read()
        if done:
            change.SetInput(reader.GetImage())
            done = change.Change()
        if done:
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            done = writer.Write()
        if not done:
            raise MedstError(f"GDCM can't write {kind}; the versions in constraints.txt can.")
        return target.read_bytes()
