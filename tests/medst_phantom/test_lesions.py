"""Findings are at their side and zone, and grow with severity."""

import numpy as np
import pytest

from medst_phantom.anatomy import Chest, build_chest, grid, sample_anatomy
from medst_phantom.findings import Finding
from medst_phantom.lesions import Changes, apply, heart_growth

PLACES = {
    "consolidation": ("right", "upper"),
    "edema": ("bilateral", "mid"),
    "pleural_effusion": ("left", "lower"),
    "pneumonia": ("left", "mid"),
    "pneumothorax": ("right", "upper"),
    "atelectasis": ("left", "lower"),
}


@pytest.fixture(scope="module")
def chest() -> Chest:
    return build_chest(sample_anatomy(np.random.default_rng(8)), 0.9)


def lost_air(chest: Chest, changes: Changes) -> np.ndarray:
    """Share of lung that each voxel loses to fluid or free air."""
    return chest.lung * np.maximum(changes.density, changes.free_air)


@pytest.mark.parametrize("name", PLACES)
def test_nothing_is_changed_at_severity_zero(chest: Chest, name: str) -> None:
    changes = apply(chest, [Finding(name, *PLACES[name], severity=0.0, seed=1)])
    assert not changes.density.any()
    assert not changes.free_air.any()
    assert (changes.shift, changes.congestion, changes.heart_growth) == (0, 0, 0)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("seed", [1, 2])
def test_more_severe_is_more(chest: Chest, name: str, seed: int) -> None:
    sizes = [
        lost_air(chest, apply(chest, [Finding(name, *PLACES[name], severity=s, seed=seed)])).sum()
        for s in (0.0, 0.15, 0.35, 0.6, 0.8, 1.0)
    ]
    assert (np.diff(sizes) > 0).all()
    assert sizes[-1] > 0.03 * chest.lung.sum()


@pytest.mark.parametrize("name", [name for name in PLACES if name != "edema"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_finding_stays_on_its_side(chest: Chest, name: str, side: str) -> None:
    x, _, _ = grid()
    lost = lost_air(chest, apply(chest, [Finding(name, side, PLACES[name][1], severity=0.7, seed=4)]))
    other = x > 0 if side == "right" else x < 0
    assert (lost * other).sum() == 0


def test_edema_is_on_both_sides_and_enlarges_the_heart(chest: Chest) -> None:
    x, _, _ = grid()
    edema = Finding("edema", "bilateral", "mid", severity=0.7, seed=4)
    lost = lost_air(chest, apply(chest, [edema]))
    right, left = (lost * (x < 0)).sum(), (lost * (x > 0)).sum()
    assert 0.5 < right / left < 2
    assert heart_growth([edema]) > 0


def test_zones_follow_each_other_from_top_to_bottom(chest: Chest) -> None:
    _, _, z = grid()
    heights = []
    for zone in ("upper", "mid", "lower"):
        lost = lost_air(chest, apply(chest, [Finding("consolidation", "right", zone, severity=0.5, seed=4)]))
        heights.append((lost * z).sum() / lost.sum())
    assert heights[0] > heights[1] + 3
    assert heights[1] > heights[2] + 3


def test_a_lesion_is_in_the_same_place_in_the_next_study(chest: Chest) -> None:
    centres = []
    for severity in (0.3, 0.9):
        lost = lost_air(chest, apply(chest, [Finding("consolidation", "left", "mid", severity=severity, seed=11)]))
        centres.append([(lost * axis).sum() / lost.sum() for axis in grid()])
    assert np.linalg.norm(np.subtract(*centres)) < 1.5


def test_a_large_pneumothorax_pushes_the_mediastinum_away(chest: Chest) -> None:
    right = apply(chest, [Finding("pneumothorax", "right", "upper", severity=1.0, seed=4)])
    left = apply(chest, [Finding("pneumothorax", "left", "upper", severity=1.0, seed=4)])
    assert right.shift > 0 > left.shift
