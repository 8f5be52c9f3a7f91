"""Pictures from files, PIL images, arrays and tensors, through the guarded reader of `medst prepare`."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from medst.cohort.images import read_grey
from medst.cohort.resize import resize
from medst.cohort.unreadable import UnreadableImage, check_contrast, check_size
from medst.errors import MedstError
from medst.use.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in its original size and as the model sees it.

    Attributes:
        square: uint8 (256, 256), as a cohort stores it.
        original: uint8 (height, width), grey, upright; for a cohort's picture the stored square without its padding.
    """

    square: UInt8[np.ndarray, "256 256"] = field(repr=False)
    original: UInt8[np.ndarray, "height width"] = field(repr=False)

    @property
    def geometry(self) -> Geometry:
        """Where pixels of `original` lie in `square`."""
        return Geometry(*self.original.shape)


Source: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Picture
"""A path (JPEG, PNG, DICOM or another format of OpenCV, recognised by content), a PIL image, an array (h, w) or (h, w, 3)
or a tensor (h, w), (1, h, w) or (3, h, w), both uint8 or floats from 0 to 1; or a `Picture`."""


def read_picture(source: Source) -> Picture:
    """Read one picture; colours are converted to grey with OpenCV's weights.

    Raises:
        MedstError: it can't be read or used; the message says why.
    """
    if isinstance(source, Picture):
        return source
    try:
        grey = _grey(source)
    except UnreadableImage as error:
        name = f"{os.fspath(source)}: " if isinstance(source, (str, os.PathLike)) else ""
        raise UnreadableImage(f"{name}{error}.") from None
    return Picture(resize(grey), grey)


def _grey(source: Source) -> np.ndarray:
    if isinstance(source, (str, os.PathLike)):
        try:
            return read_grey(Path(source))
        except OSError as error:
            raise MedstError(f"{os.fspath(source)}: {error.strerror or error}.") from error
    if isinstance(source, Image.Image):
        return _checked(_pil_pixels(source))
    if isinstance(source, Tensor):
        return _checked(_tensor_pixels(source))
    if isinstance(source, np.ndarray):
        return _checked(source)
    raise MedstError(f"a picture is a path, a PIL image, an array or a tensor, not {type(source).__name__}.")


def stored_picture(square: UInt8[np.ndarray, "256 256"], height: int, width: int) -> Picture:
    """A picture stored in a cohort, from a file of `height` x `width` pixels; its original is the square without padding."""
    stored = Geometry(height, width)
    rows, columns = stored.inner
    top, left = stored.corner
    inner = np.ascontiguousarray(square[top : top + rows, left : left + columns])
    return Picture(np.array(square), inner)


def _pil_pixels(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "LA", "P", "RGBA", "YCbCr", "L", "RGB"):
        try:  # PIL reads the file here
            return np.asarray(image.convert("L" if image.mode in ("1", "LA", "L") else "RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"a PIL image that can't be read ({error})") from None
    raise UnreadableImage(f"a PIL image of mode {image.mode}; convert it to L or RGB, with 8 bits, first")


def _tensor_pixels(tensor: Tensor) -> np.ndarray:
    try:
        if tensor.ndim == 3 and tensor.shape[0] in (1, 3):
            tensor = tensor.permute(1, 2, 0)
        if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.float()  # numpy has no bfloat16
        return tensor.detach().cpu().numpy(force=True)
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantized, nested, or without data
        kind = "quantized" if tensor.is_quantized else tensor.device.type if tensor.is_meta else tensor.layout
        raise UnreadableImage(f"a tensor that is not a plain array of numbers ({kind}); give a dense one") from None


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Convert an array to an 8-bit grey picture."""
    if isinstance(pixels, np.ma.MaskedArray):
        raise UnreadableImage("a masked array; fill in its masked pixels with .filled(0) first")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UnreadableImage(f"an array of shape {pixels.shape}; a picture is (height, width) or (height, width, 3)")
    check_size(pixels.shape[1], pixels.shape[0])
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise UnreadableImage("floats outside 0 to 1; scale them, or give uint8")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise UnreadableImage(
            f"pixels of type {pixels.dtype}, of unknown range; scale them to uint8 or to floats 0 to 1"
        )
    grey = np.ascontiguousarray(pixels)
    return check_contrast(grey if grey.ndim == 2 else np.asarray(cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY)))
