"""Read DICOM files as 8-bit grey images, or say why they are rejected.

There are two ways to 8 bits. `maximum`, the released one, scales by 255 over the largest stored value, whatever window or
rescaling the file has. `window` shows what a viewer shows: rescaled values through the file's first window or lookup table
(DICOM PS3.3 C.11.2.1), or from the smallest to the largest value if it has neither.

No element other than those of the pixels leaves this module, so no message can hold a patient's name.
"""

import logging
import math
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from medst.cohort.unreadable import MOST_BYTES, UnreadableImage, check_size, read_or_reason
from medst.errors import MedstError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
PIECE = 2**20
BAND = 256
LARGEST = 1e15
"""Larger windows and rescaling are damage, and could exceed the range of floats."""
PLUGINS = ("pydicom", "pylibjpeg", "pillow", "gdcm")


def read_dicom(data: bytes, intensity: Literal["maximum", "window"] = "maximum") -> np.ndarray:
    """Decode the only image of a DICOM file, given its content; MONOCHROME1 is inverted, so that air is dark.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: not DICOM, without pixels, with several frames, not grey, too small, too large, without contrast,
            truncated, with an unknown compression, or with a broken window or lookup table.
        MedstError: the packages that read DICOM are missing.
    """
    pydicom = _import_pydicom()
    with _silent():
        try:
            dataset = pydicom.dcmread(_Limited(data))
            dataset.pixel_array_options(decoding_plugin=_check(dataset))
            pixels = dataset.pixel_array
        except pydicom.errors.InvalidDicomError:
            raise UnreadableImage("not a DICOM file") from None
        except (MemoryError, UnreadableImage):
            raise
        except Exception as error:  # each decoder raises errors of its own
            raise UnreadableImage(f"its pixels can't be decoded ({type(error).__name__})") from None
        if pixels.ndim != 2:
            raise UnreadableImage(f"pixels in {pixels.ndim} dimensions instead of 2")
        check_size(pixels.shape[1], pixels.shape[0])
        try:
            grey = _by_maximum(pixels) if intensity == "maximum" else _by_window(dataset, pixels)
        except (MemoryError, UnreadableImage):
            raise
        except Exception as error:
            raise UnreadableImage(f"its window or lookup table is broken ({type(error).__name__})") from None
    return cv2.bitwise_not(grey) if dataset.PhotometricInterpretation == GREY[0] else grey


def _import_pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise MedstError('DICOM files need a package that is missing: pip install "medst[dicom]".') from error
    return pydicom


_lock = threading.RLock()


@contextmanager
def _silent() -> Iterator[None]:
    """Silence pydicom, whose logs and warnings may quote elements such as a patient's name."""
    logger = logging.getLogger("pydicom")
    with _lock, warnings.catch_warnings():  # one thread at a time, or it would restore another thread's level
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


class _Limited(BytesIO):
    """A file whose rest, read at once, may inflate to `MOST_BYTES` at most; that is how pydicom reads a deflated one."""

    def read(self, size: int | None = -1, /) -> bytes:
        rest = super().read(size)
        if size is None or size < 0:
            inflater, inflated, piece = zlib.decompressobj(-zlib.MAX_WBITS), 0, rest
            while piece and not inflater.eof:
                inflated += len(inflater.decompress(piece, PIECE))
                piece = inflater.unconsumed_tail
                if inflated > MOST_BYTES:
                    raise UnreadableImage(f"it inflates to more than the {MOST_BYTES / 1e6:.0f} MB that are read")
        return rest


def _check(dataset: "Dataset") -> str:
    """Reject files that must not or can't be decoded; return pydicom's plugin to decode with, empty if none is needed.

    GDCM, the only one for lossless JPEG and JPEG-LS, ends the process on some damaged files, so it is the last resort.
    """
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise UnreadableImage("DICOM without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(f"DICOM with {frames} frames instead of one")
    photometric = str(dataset.get("PhotometricInterpretation", "none"))
    if photometric not in GREY or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise UnreadableImage(f"photometric interpretation {photometric}, not {' or '.join(GREY)}")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    check_size(columns, rows)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnreadableImage("DICOM that doesn't name its transfer syntax")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImage(f"compression {syntax.name} is unknown or not supported") from None
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
    for name in ("RescaleSlope", "RescaleIntercept"):
        if dataset.get(name) is not None:
            _finite(dataset[name].value, name)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        if not 1 <= bits <= 16:
            raise UnreadableImage(f"a lookup table with {bits} bits")
        return _in_bands(pixels, lambda band: _by_table(dataset, _rescaled(dataset, band), bits))
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        centre = _finite(np.ravel(dataset.WindowCenter)[0], "WindowCenter")
        width = _finite(np.ravel(dataset.WindowWidth)[0], "WindowWidth")
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        return _in_bands(pixels, lambda band: _window(_rescaled(dataset, band), centre, width, function))
    bands = (_rescaled(dataset, pixels[start : start + BAND]) for start in range(0, len(pixels), BAND))
    extremes = np.array([(band.min(), band.max()) for band in bands])
    least, most = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    return _in_bands(pixels, lambda band: (_rescaled(dataset, band) - least) / max(most - least, 1e-12))


def _in_bands(pixels: np.ndarray, share: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert each pixel's share of the range to 8 bits, in bands of rows: as floats, a large image takes gigabytes."""
    grey = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), BAND):
        band = slice(start, start + BAND)
        grey[band] = np.rint(np.clip(share(pixels[band]), 0, 1) * 255)
    return grey


def _rescaled(dataset: "Dataset", pixels: np.ndarray) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    return np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)


def _by_table(dataset: "Dataset", values: np.ndarray, bits: int) -> np.ndarray:
    from pydicom.pixels import apply_voi

    return np.asarray(apply_voi(values.astype(np.int64), dataset, index=0), dtype=np.float64) / (2.0**bits - 1)


def _finite(value: Any, name: str) -> float:
    if not (math.isfinite(number := float(value)) and abs(number) < LARGEST):
        raise UnreadableImage(f"{name} is {number:g}")
    return number


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


def read_element(path: "Path", name: str) -> str:
    """Read one element of a DICOM header as text, by its keyword; empty if it is missing or the file is not DICOM.

    For untrusted files call `medst.cohort.images.guarded(read_element, path, name)`.

    Raises:
        MedstError: the packages that read DICOM are missing.
        OSError: the disk fails.
    """
    pydicom = _import_pydicom()
    data = read_or_reason(path, MOST_BYTES)
    if isinstance(data, str):
        return ""
    with _silent():
        try:
            dataset = pydicom.dcmread(_Limited(data), stop_before_pixels=True, specific_tags=[name])
            return str(dataset.get(name) or "")
        except MemoryError:
            raise
        except Exception:  # a damaged header can raise anything
            return ""
