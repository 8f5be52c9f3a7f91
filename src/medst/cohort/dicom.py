"""DICOM files to 8-bit grey pictures, or a reason why not.

Two ways to 8 bits. `maximum` is the released one: 255 over the largest stored value, whatever window or rescaling the file
names. `window` is what a viewer shows: rescaled, then the file's first window or lookup table (DICOM PS3.3 C.11.2.1), or
from the smallest to the largest value where it has neither.

No patient's name, and no other element than those of the pixels, leaves this file, in a message neither.
"""

import logging
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from medst.cohort.images import MOST_PIXELS, SMALLEST_SIDE, UnreadableImage
from medst.errors import MedstError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
PLUGINS = ("pydicom", "pylibjpeg", "pillow", "gdcm")


def read_dicom(data: bytes, intensity: Literal["maximum", "window"] = "maximum") -> np.ndarray:
    """The one picture of a DICOM file; MONOCHROME1 is inverted, so that air is dark.

    Args:
        data: the file's content.
        intensity: how stored values become 8 bits.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: no DICOM, without pixels, of several frames, not grey, too small, too large, without contrast,
            truncated, or of a compression that isn't known.
        MedstError: the packages that read DICOM are missing.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MedstError('DICOM files need a package that is missing: pip install "medst[dicom]".') from error
    # What pydicom logs or warns of may quote elements, a patient's name among them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(BytesIO(data))
            plugin = _check(dataset)
            dataset.pixel_array_options(decoding_plugin=plugin)
            pixels = dataset.pixel_array
        except InvalidDicomError:
            raise UnreadableImage("not a DICOM file") from None
        except UnreadableImage:
            raise
        except Exception as error:  # each decoder raises errors of its own
            raise UnreadableImage(f"its pixels can't be decoded ({type(error).__name__})") from None
        if pixels.ndim != 2:
            raise UnreadableImage(f"pixels of {pixels.ndim} dimensions; a picture has two")
        grey = _by_maximum(pixels) if intensity == "maximum" else _by_window(dataset, pixels)
    return cv2.bitwise_not(grey) if dataset.PhotometricInterpretation == GREY[0] else grey


def _check(dataset: "Dataset") -> str:
    """Refuse what must not or can't be decoded; the plugin of pydicom to decode with, empty where none is needed.

    GDCM, which alone reads lossless JPEG and JPEG-LS, ends the process on some damaged files, so it is the last resort.
    """
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise UnreadableImage("DICOM without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(f"DICOM of {frames} frames; a picture has one")
    photometric = str(dataset.get("PhotometricInterpretation", "none"))
    if photometric not in GREY or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise UnreadableImage(f"photometric interpretation {photometric}, not {' or '.join(GREY)}")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if min(rows, columns) < SMALLEST_SIDE:
        raise UnreadableImage(f"{columns} x {rows} pixels: too small")
    if rows * columns > MOST_PIXELS:
        raise UnreadableImage(f"{columns} x {rows} pixels: too large")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnreadableImage("DICOM that doesn't name its transfer syntax")
    if not syntax.is_transfer_syntax or syntax.is_private:
        raise UnreadableImage(f"compression {syntax} is unknown")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImage(f"compression {syntax.name} is not of pictures that can be read") from None
    if not decoder.is_available:
        needed = "; ".join(decoder.missing_dependencies)
        raise UnreadableImage(f'compression {syntax.name} needs a package ({needed}); pip install "medst[dicom]"')
    if not syntax.is_encapsulated:
        return ""
    # Pillow knows only 8 bits of it.
    order = PLUGINS[::-1] if syntax.name.startswith("JPEG Extended") else PLUGINS
    return next((name for name in order if name in decoder.available_plugins), decoder.available_plugins[0])


def _by_maximum(pixels: np.ndarray) -> np.ndarray:
    largest = float(pixels.max())
    if largest <= 0:
        raise UnreadableImage(f"no pixel is above 0 (the largest is {largest:g})")
    if pixels.dtype.itemsize > 2:
        pixels = pixels.astype(np.float64)  # OpenCV has no 32-bit integers without a sign
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / largest))


def _by_window(dataset: "Dataset", pixels: np.ndarray) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        shown = np.asarray(apply_voi(values.astype(np.int64), dataset, index=0), dtype=np.float64)
        share = shown / (2.0 ** int(table.LUTDescriptor[2]) - 1)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        share = _window(
            values,
            float(_first(dataset.WindowCenter)),
            float(_first(dataset.WindowWidth)),
            str(dataset.get("VOILUTFunction") or "LINEAR"),
        )
    else:
        share = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Share of the display's range, by DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if (width < 1 and function == "LINEAR") or width <= 0:
        raise UnreadableImage(f"a window of width {width:g}")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) or hasattr(value, "__getitem__") else value


def read_element(path: "Path", name: str) -> str:
    """One element of a DICOM header as text, by its keyword; empty where it is missing or the file is no DICOM.

    Raises:
        MedstError: the packages that read DICOM are missing.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MedstError('DICOM files need a package that is missing: pip install "medst[dicom]".') from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[name])
            return str(dataset.get(name) or "")
        except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError):
            return ""
