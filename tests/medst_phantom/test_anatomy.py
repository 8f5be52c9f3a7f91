"""Bodies differ, and each is anatomically consistent."""

from dataclasses import replace

import numpy as np
import pytest

from medst_phantom.anatomy import SHAPE, Anatomy, build_chest, grid, rib_cage_width, sample_anatomy, without_arms


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return sample_anatomy(np.random.default_rng(3))


def test_the_same_draw_gives_the_same_body_and_another_one_another() -> None:
    assert sample_anatomy(np.random.default_rng(1)) == sample_anatomy(np.random.default_rng(1))
    assert sample_anatomy(np.random.default_rng(1)) != sample_anatomy(np.random.default_rng(2))


def test_shares_are_shares(anatomy: Anatomy) -> None:
    chest = build_chest(anatomy, 0.9)
    for share in (chest.cavity, chest.solid, chest.body, chest.airway, chest.lung):
        assert share.shape == SHAPE
        assert share.min() >= 0
        assert share.max() <= 1


def test_the_lungs_are_inside_the_body_and_clear_of_the_heart(anatomy: Anatomy) -> None:
    chest = build_chest(anatomy, 0.9)
    assert (chest.lung * (1 - chest.body)).sum() < 0.02 * chest.lung.sum()
    assert (chest.lung * chest.solid).sum() < 0.05 * chest.lung.sum()


def test_the_heart_lies_to_the_left(anatomy: Anatomy) -> None:
    x, _, z = grid()
    low = build_chest(anatomy, 0.9).solid * (z < 0)
    assert (low * x).sum() / low.sum() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_deep_breath_makes_larger_lungs(seed: int) -> None:
    body = sample_anatomy(np.random.default_rng(seed))
    shallow, deep = (build_chest(body, inspiration).lung.sum() for inspiration in (0.2, 1.0))
    assert deep > 1.15 * shallow


def test_a_larger_heart_leaves_less_lung(anatomy: Anatomy) -> None:
    assert build_chest(anatomy, 0.9, heart_growth=0.2).lung.sum() < build_chest(anatomy, 0.9).lung.sum()


def test_the_rib_cage_is_wide_below_and_closes_at_the_apex(anatomy: Anatomy) -> None:
    heights = np.linspace(-12, anatomy.apex, 30)
    widths = rib_cage_width(anatomy, heights)
    assert widths[0] > 0.95 * anatomy.width
    assert (np.diff(widths) <= 1e-3).all()
    assert widths[-1] < 0.2 * anatomy.width


def test_a_lateral_view_leaves_out_the_arms_but_nothing_of_the_lungs(anatomy: Anatomy) -> None:
    chest = build_chest(anatomy, 0.9)
    kept = without_arms(anatomy)
    assert (chest.lung * (1 - kept)).sum() < 0.001 * chest.lung.sum()
    x, _, z = grid()
    beside = chest.body * (np.abs(x) > anatomy.width) * (z > anatomy.apex - 5)
    assert (beside * kept).sum() < 0.1 * beside.sum()


def test_gas_in_the_stomach_has_a_level_of_fluid(anatomy: Anatomy) -> None:
    _, _, z = grid()
    gas = build_chest(replace(anatomy, gas=2.5), 1.0).airway - build_chest(replace(anatomy, gas=0.0), 1.0).airway
    rows = gas.sum(axis=(0, 1))
    heights = z[0, 0][rows > 0.02 * rows.max()]
    middle = heights[rows[rows > 0.02 * rows.max()].argmax()]
    assert middle - heights.min() < 0.6 * (heights.max() - middle)  # widest just above its flat floor
    assert heights.max() < anatomy.dome_left + 0.5
