"""Images of the same body agree, and show its findings."""

from dataclasses import replace

import numpy as np
import pytest

from medst_phantom.anatomy import Anatomy, sample_anatomy
from medst_phantom.findings import Finding
from medst_phantom.radiograph import Acquisition, render, render_study, sample_acquisition

PLACES = {
    "consolidation": ("right", "lower"),
    "edema": ("bilateral", "mid"),
    "pleural_effusion": ("right", "lower"),
    "pneumonia": ("right", "mid"),
    "pneumothorax": ("right", "upper"),
    "atelectasis": ("left", "lower"),
}


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return sample_anatomy(np.random.default_rng(3))


def plain(view: str, seed: int = 0) -> Acquisition:
    """An image without noise, tilt or a marker that could hide the effect of a finding."""
    drawn = sample_acquisition(view, np.random.default_rng(seed))
    return replace(drawn, noise=0.0, tilt=0.0, rotation=0.0, offset=(0.0, 0.0))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(float) - b.astype(float))


def test_pictures_are_eight_bit_and_vary_in_size(anatomy: Anatomy) -> None:
    rng = np.random.default_rng(0)
    shapes = set()
    for view in ("PA", "AP", "LATERAL", "LL", "PA"):
        picture = render(anatomy, [], sample_acquisition(view, rng))
        assert picture.dtype == np.uint8
        assert picture.ndim == 2
        assert min(picture.shape) > 250
        shapes.add(picture.shape)
    assert len(shapes) > 1


def test_the_same_input_gives_the_same_bytes(anatomy: Anatomy) -> None:
    finding = Finding("edema", "bilateral", "mid", 0.5, 9)
    shots = [
        sample_acquisition("AP", np.random.default_rng(1)),
        sample_acquisition("LATERAL", np.random.default_rng(2)),
    ]
    first, second = (render_study(anatomy, [finding], shots) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


def test_noise_and_exposure_vary_between_pictures(anatomy: Anatomy) -> None:
    shots = [replace(sample_acquisition("AP", np.random.default_rng(1)), seed=seed) for seed in (1, 2)]
    assert difference(*render_study(anatomy, [], shots)).mean() > 0.5
    dark, bright = (replace(plain("PA"), exposure=exposure) for exposure in (1.2, 0.85))
    assert render(anatomy, [], dark).mean() + 5 < render(anatomy, [], bright).mean()


def test_a_study_without_images_is_empty(anatomy: Anatomy) -> None:
    assert render_study(anatomy, [], []) == []


@pytest.mark.parametrize("name", PLACES)
def test_severity_zero_is_the_healthy_picture(anatomy: Anatomy, name: str) -> None:
    healthy = render(anatomy, [], plain("PA"))
    assert np.array_equal(healthy, render(anatomy, [Finding(name, *PLACES[name], 0.0, 5)], plain("PA")))


@pytest.mark.parametrize("view", ["PA", "LATERAL"])
@pytest.mark.parametrize("name", PLACES)
def test_a_finding_shows_more_as_it_gets_worse(anatomy: Anatomy, name: str, view: str) -> None:
    healthy = render(anatomy, [], plain(view))
    change = [
        difference(render(anatomy, [Finding(name, *PLACES[name], severity, 5)], plain(view)), healthy).mean()
        for severity in (0.15, 0.5, 1.0)
    ]
    assert 0 < change[0] < change[1] < change[2]


@pytest.mark.parametrize("name", [name for name in PLACES if name != "edema"])
@pytest.mark.parametrize(("side", "half"), [("right", 0), ("left", 1)])
def test_the_patients_right_is_on_the_left_of_the_picture(anatomy: Anatomy, name: str, side: str, half: int) -> None:
    healthy = render(anatomy, [], plain("PA"))
    change = difference(render(anatomy, [Finding(name, side, PLACES[name][1], 0.6, 5)], plain("PA")), healthy)
    middle = change.shape[1] // 2
    halves = change[:, :middle].mean(), change[:, middle:].mean()
    assert halves[half] > 1.5 * halves[1 - half]


def test_what_hides_behind_the_heart_shows_on_the_lateral(anatomy: Anatomy) -> None:
    behind = [Finding("consolidation", "left", "retrocardiac", 0.6, 5)]
    frontal = difference(render(anatomy, behind, plain("PA")), render(anatomy, [], plain("PA")))
    lateral = difference(render(anatomy, behind, plain("LATERAL")), render(anatomy, [], plain("LATERAL")))
    beside_the_heart = np.s_[:, : frontal.shape[1] // 2]
    towards_the_spine = np.s_[lateral.shape[0] // 2 :, lateral.shape[1] // 2 :]
    assert lateral[towards_the_spine].mean() > 4 * frontal[beside_the_heart].mean()


def test_lung_is_darker_than_heart_and_air_is_black(anatomy: Anatomy) -> None:
    picture = render(anatomy, [], plain("PA")).astype(float)
    height, width = picture.shape
    lung = picture[int(0.35 * height) : int(0.5 * height), int(0.2 * width) : int(0.3 * width)].mean()
    heart = picture[int(0.58 * height) : int(0.66 * height), int(0.5 * width) : int(0.58 * width)].mean()
    corner = picture[4 : height // 20, 20:40].mean()
    assert corner < lung < heart - 60


def test_portable_images_magnify_and_have_less_inspiration() -> None:
    rng = np.random.default_rng(0)
    upright = [sample_acquisition("PA", rng) for _ in range(40)]
    portable = [sample_acquisition("AP", rng) for _ in range(40)]
    assert min(a.magnification for a in portable) > max(a.magnification for a in upright)
    assert np.mean([a.inspiration for a in portable]) < np.mean([a.inspiration for a in upright]) - 0.2
    assert np.mean([a.noise for a in portable]) > np.mean([a.noise for a in upright])
