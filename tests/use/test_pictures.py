"""Every kind of source gives the same pixels; bad ones are refused with a reason."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medst.cohort.images import read_square
from medst.cohort.resize import resize
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.use import Picture, read_picture, stored_picture

GREY = np.random.default_rng(0).integers(0, 256, (60, 48), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (60, 48, 3), dtype=np.uint8)


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), GREY)
    ways = {
        "path": tmp_path / "a.png",
        "string": str(tmp_path / "a.png"),
        "array": GREY,
        "array of one channel": GREY[..., None],
        "floats": GREY / 255,
        "PIL": Image.fromarray(GREY),
        "tensor": torch.from_numpy(GREY),
        "channel first": torch.from_numpy(GREY)[None] / 255,
        "three channels": torch.from_numpy(GREY)[None].expand(3, -1, -1),
        "palette": Image.fromarray(GREY).convert("P"),
        "alpha": Image.fromarray(GREY).convert("RGBA"),
        "again": read_picture(GREY),
    }
    for name, source in ways.items():
        picture = read_picture(source)
        assert np.array_equal(picture.original, GREY), name
        assert np.array_equal(picture.square, resize(GREY)), name
        assert (picture.geometry.height, picture.geometry.width) == (60, 48), name


def test_colours_become_grey_as_opencv_reads_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), COLOUR[..., ::-1])
    of_file = read_picture(tmp_path / "a.png").original
    assert np.abs(of_file.astype(int) - read_picture(COLOUR).original).max() <= 1
    assert np.array_equal(read_picture(COLOUR).original, read_picture(Image.fromarray(COLOUR)).original)


def test_a_file_is_what_prepare_stores(phantom_tree: Path) -> None:
    file = next((phantom_tree / "mimic-cxr-jpg" / "files").rglob("*.jpg"))
    assert np.array_equal(read_picture(file).square, read_square(file)[0])


def test_a_stored_picture_has_no_padding(phantom_cohort: Path) -> None:
    cohort = open_cohort(phantom_cohort)
    for row in range(4):
        height, width = cohort.image_table["height"][row], cohort.image_table["width"][row]
        picture = stored_picture(cohort.images[row], height, width)
        assert picture.original.shape == (picture.geometry.height, picture.geometry.width)
        assert max(picture.original.shape) == 256
        assert picture.original.shape[0] / picture.original.shape[1] == pytest.approx(height / width, rel=0.01)
        assert np.array_equal(resize(picture.original), picture.square)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "a picture is a path, a PIL image, an array or a tensor, not int"),
        (np.zeros((60, 48), dtype=np.uint8), r"all pixels have the same value \(0\)"),
        (np.zeros((4, 60, 48), dtype=np.uint8), r"an array of shape \(4, 60, 48\)"),
        (np.zeros((8, 48), dtype=np.uint8), "48 x 8 pixels: too small"),
        (GREY.astype(np.uint16), "pixels of type uint16, of unknown range"),
        (GREY.astype(np.float32), "floats outside 0 to 1"),
        (np.full((60, 48), np.nan), "floats outside 0 to 1"),
        (Image.fromarray(GREY.astype(np.int32)), "a PIL image of mode I"),
        (torch.zeros(40, 40).to_sparse(), "not a plain array of numbers .*give a dense one"),
        (torch.zeros(3, 40, 40, device="meta"), r"not a plain array of numbers \(meta\)"),
        (np.ma.masked_array(GREY), "a masked array"),
        ("nowhere.jpg", r"nowhere\.jpg: no such file"),
    ],
)
def test_refusals(source: object, message: str) -> None:
    with pytest.raises(MedstError, match=message):
        read_picture(source)  # type: ignore[arg-type]


def test_a_tensor_in_bfloat16_is_a_picture() -> None:
    tensor = torch.from_numpy(GREY / 255.0).bfloat16()
    assert np.array_equal(read_picture(tensor).original, read_picture(tensor.float()).original)


def test_a_large_array_is_refused_without_a_copy() -> None:
    with pytest.raises(MedstError, match="20000 x 20000 pixels: too large"):
        read_picture(np.broadcast_to(np.uint8(1), (20_000, 20_000)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"garbage")
    with pytest.raises(MedstError, match=r"a\.jpg: not a picture\."):
        read_picture(tmp_path / "a.jpg")
    assert isinstance(read_picture(GREY), Picture)
