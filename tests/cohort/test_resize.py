from pathlib import Path

import cv2
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medst.cohort.images import read_grey
from medst.cohort.resize import SIDE, resize

sides = st.integers(1, 70)


def noise(height: int, width: int, low: int = 1) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(low, 256, (height, width), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """An image like a radiograph: no detail finer than a few pixels."""
    coarse = np.random.default_rng([height, width]).integers(0, 256, (8, 8), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def frame(height: int, width: int) -> tuple[slice, slice]:
    """Place of the image in the square, by the documented rule."""
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(shorter * (256.0 / longer)))
    place = slice((256 - short) // 2, (256 - short) // 2 + short)
    return (slice(0, 256), place) if height >= width else (place, slice(0, 256))


def area_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Average rows by area to `side` rows: each new row covers len / side old ones, those at its ends in part."""
    edges = np.linspace(0, len(image), side + 1)
    starts, ends = edges[:-1, None], edges[1:, None]
    old = np.arange(len(image))
    cover = np.clip(np.minimum(ends, old + 1) - np.maximum(starts, old), 0, None)
    return cover @ image / cover.sum(1, keepdims=True)


def test_resizing_is_pixel_exact_with_the_recorded_one(recorded: Path) -> None:
    expected = cv2.imread(str(recorded / "gray_256.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(resize(read_grey(recorded / "gray.png")), expected)


@given(st.integers(1, 4000), st.integers(1, 6), st.booleans())
@settings(deadline=None)
def test_no_shape_crashes_and_zeros_frame_the_picture(longer: int, shorter: int, tall: bool) -> None:
    shape = (longer, shorter) if tall else (shorter, longer)
    small = resize(np.full(shape, 200, dtype=np.uint8))
    expected = np.zeros((256, 256), dtype=np.uint8)
    expected[frame(*shape)] = 200
    np.testing.assert_array_equal(small, expected)


@given(st.integers(256, 700), st.integers(256, 700))
@settings(deadline=None, max_examples=25)
def test_shrinking_averages_by_area(height: int, width: int) -> None:
    image = noise(height, width)
    place = frame(height, width)
    rows, columns = (s.stop - s.start for s in place)
    expected = area_mean(area_mean(image.astype(float), rows).T, columns).T
    assert np.abs(resize(image)[place] - expected).max() <= 1


@given(sides, sides)
def test_resizing_a_turned_picture_turns_the_result(height: int, width: int) -> None:
    if height != width:
        image = noise(height, width)
        assert np.abs(resize(image.T).astype(int) - resize(image).T).max() <= 1


def test_a_square_of_49_loses_a_column_as_released() -> None:
    small = resize(np.full((49, 49), 9, dtype=np.uint8))
    assert not small[:, 255].any()
    assert small[:, :255].all()


@given(st.integers(260, 900), st.integers(260, 900), st.sampled_from([2, 4, 8]))
@settings(deadline=None, max_examples=20)
def test_shrinking_a_reduced_picture_is_by_the_pixels_that_it_stands_for(height: int, width: int, part: int) -> None:
    # The reader never reduces below what is stored, where OpenCV, which multiples of `part` are left to, would enlarge.
    assume(height % part or width % part or max(height, width) >= part * SIDE)
    image = smooth(height, width).astype(float)
    # Each reduced pixel is the mean of what it stands for, be that less than a whole block.
    rows, columns = (np.add.reduceat(np.ones(n), np.arange(0, n, part)) for n in image.shape)
    blocks = np.add.reduceat(np.add.reduceat(image, np.arange(0, height, part)), np.arange(0, width, part), axis=1)
    reduced = np.rint(blocks / rows[:, None] / columns).astype(np.uint8)
    whole = np.repeat(np.repeat(reduced.astype(float), part, 0)[:height], part, 1)[:, :width]
    place = frame(height, width)
    target = [s.stop - s.start for s in place]
    expected = area_mean(area_mean(whole, target[0]).T, target[1]).T
    assert np.abs(resize(reduced, part, (height, width))[place] - expected).max() <= 1
