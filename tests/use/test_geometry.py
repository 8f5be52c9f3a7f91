"""Patches on pixels, compared with a loop over pixels that follows the preprocessing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.resize import SIDE, resize
from medst.use.geometry import Geometry, unfold

SIDES = st.integers(16, 40)


def by_loops(grid: np.ndarray, height: int, width: int, crop: int) -> np.ndarray:
    """The centre of each pixel in the square, in the crop, and between the centres of its nearest patches."""
    geometry = Geometry(height, width)
    (rows, columns), (top, left) = geometry.inner, geometry.corner
    out = np.full((height, width), np.nan)
    margin = (SIDE - crop) / 2
    for y in range(height):
        for x in range(width):
            v = (top + (y + 0.5) * rows / height - margin) / crop
            u = (left + (x + 0.5) * columns / width - margin) / crop
            if not (0 <= v <= 1 and 0 <= u <= 1):
                continue
            total = 0.0
            for i in range(grid.shape[0]):
                for j in range(grid.shape[1]):
                    # A patch at the edge is all there is beyond its centre.
                    near_v = max(0.0, 1 - abs(np.clip(v * grid.shape[0] - 0.5, 0, grid.shape[0] - 1) - i))
                    near_u = max(0.0, 1 - abs(np.clip(u * grid.shape[1] - 0.5, 0, grid.shape[1] - 1) - j))
                    total += near_v * near_u * grid[i, j]
            out[y, x] = total
    return out


@given(SIDES, SIDES, st.sampled_from([200, 224, 256]), st.integers(1, 4), st.integers(0, 2**32))
def test_unfold_equals_the_loop(height: int, width: int, crop: int, patches: int, seed: int) -> None:
    grid = np.random.default_rng(seed).standard_normal((patches, patches)).astype(np.float32)
    found = unfold(grid, Geometry(height, width), crop)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_loops(grid, height, width, crop), rtol=1e-5, atol=1e-6)


@given(SIDES, SIDES, st.integers(0, 3), st.integers(0, 3))
def test_the_best_patch_lies_on_the_pixels_that_the_model_saw(h: int, w: int, row: int, column: int) -> None:
    """A bright patch in the stored square is bright in the same place of a picture of any shape."""
    height, width = 4 * h, 4 * w
    geometry = Geometry(height, width)
    grid = np.zeros((4, 4), dtype=np.float32)
    grid[row, column] = 1
    over = np.nan_to_num(unfold(grid, geometry, SIDE))
    stored = resize(np.rint(over * 255).astype(np.uint8))
    (rows, columns), (top, left) = geometry.inner, geometry.corner
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[top + 2 : top + rows - 2, left + 2 : left + columns - 2] = True
    expected = unfold(grid, Geometry(SIDE, SIDE), SIDE) * 255
    assert (
        np.abs(stored[inside] - expected[inside]).max(initial=0) < 24
    )  # a pixel of a picture is up to 4 of the square


def test_sizes() -> None:
    geometry = Geometry(3056, 2544)
    assert geometry.inner == (256, 213)
    assert geometry.corner == (0, 21)
    assert geometry.at(600) == Geometry(600, 499)
    assert geometry.at(9000) == geometry
    grid = np.ones((14, 14), dtype=np.float32)
    small = unfold(grid, geometry, 224, geometry.at(306))
    assert small.shape == (306, 255)
    assert np.isnan(small[0]).all()
    assert np.isnan(small[18]).all()
    assert small[20] == pytest.approx(np.ones(255))  # 16 of 256 rows are cut off, 19.1 of 306
