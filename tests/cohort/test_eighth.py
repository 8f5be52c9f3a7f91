import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medst.cohort import eighth
from medst.cohort.eighth import compiled, read_eighth

RESTART = cv2.IMWRITE_JPEG_RST_INTERVAL


def grey(height: int, width: int, seed: int = 0, roughness: float = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(float)
    return np.clip(smooth + rng.normal(0, roughness, (height, width)), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int = 90, *options: int) -> bytes:
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1])


def slowly(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)


def test_it_was_compiled_where_this_runs() -> None:
    assert compiled()


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.floats(0, 120), st.integers(0, 7), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_pixels_are_those_of_libjpeg(
    height: int, width: int, quality: int, roughness: float, restart: int, optimise: bool, seed: int
) -> None:
    options = [RESTART, restart, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimise)]
    data = jpeg(grey(height, width, seed, roughness), quality, *options)
    found = read_eighth(data, height, width)
    assert found is not None
    np.testing.assert_array_equal(found, slowly(data))


def test_bytes_before_and_after_the_picture_do_no_harm() -> None:
    data = jpeg(grey(200, 100))
    comment = data[:2] + b"\xff\xfe\x00\x08hello!" + b"\xff" + data[2:] + b"\0" * 50
    np.testing.assert_array_equal(read_eighth(comment, 200, 100), slowly(data))


@pytest.mark.parametrize("kind", ["colour", "progressive", "other size", "no JPEG", "empty"])
def test_other_pictures_are_left_to_others(kind: str) -> None:
    image = grey(160, 120)
    data = {
        "colour": lambda: jpeg(np.dstack([image] * 3)),
        "progressive": lambda: jpeg(image, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "other size": lambda: jpeg(grey(160, 121)),
        "no JPEG": lambda: bytes(cv2.imencode(".png", image)[1]),
        "empty": lambda: b"",
    }[kind]()
    assert read_eighth(data, 160, 120) is None


def test_a_picture_cut_off_is_left_to_others() -> None:
    data = jpeg(grey(160, 120))
    begun = data.index(b"\xff\xda")
    for length in range(0, len(data) - 200, 37):
        assert read_eighth(data[:length], 160, 120) is None, (length, begun)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_no_damage_does_more_than_another_picture(seed: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(jpeg(grey(64, 96, seed), int(rng.integers(5, 100)), RESTART, int(rng.integers(0, 4))))
    for place in rng.integers(2, len(data), places):
        data[place] = rng.integers(0, 256)
    found = read_eighth(bytes(data), 64, 96)
    assert found is None or found.shape == (8, 12)


def test_without_a_compiler_it_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eighth, "LIBRARY", "_not_there.so")
    eighth._library.cache_clear()
    assert not compiled()
    assert read_eighth(jpeg(grey(64, 64)), 64, 64) is None
    monkeypatch.undo()
    eighth._library.cache_clear()
    assert compiled()
