"""Put findings into a chest: they fill lung with fluid or replace it with air.

Every lesion is a field of added density (0: aerated like lung, 1: dense like water). Its outline is fixed by the finding's
seed, and it grows with severity. At severity 0 nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom.anatomy import Chest, grid, rib_cage_width, soft
from medst_phantom.findings import Finding

SIGN = {"right": -1.0, "left": 1.0}


@dataclass
class Changes:
    """Combined effect of all findings of a study.

    Attributes:
        density: share of each lung voxel that is filled, float32 (x, y, z).
        free_air: share of the cavity that is air outside the lung (pneumothorax).
        shift: displacement of the mediastinum, in cm to the left.
        congestion: widening of the vessels, 0 to 1.
        heart_growth: added to the size of the heart.
    """

    density: np.ndarray
    free_air: np.ndarray
    shift: float
    congestion: float
    heart_growth: float


def heart_growth(findings: Sequence[Finding]) -> float:
    """Enlargement of the heart by these findings; edema comes with a larger heart."""
    return 0.10 * max((f.severity for f in findings if f.name == "edema"), default=0.0)


def apply(chest: Chest, findings: Sequence[Finding]) -> Changes:
    """Put findings into a chest."""
    clear = np.ones_like(chest.cavity)  # remaining air after each lesion
    free_air = np.zeros_like(chest.cavity)
    shift = congestion = 0.0
    for finding in findings:
        if finding.severity <= 0:
            continue
        sides = ("right", "left") if finding.side == "bilateral" else (finding.side,)
        rng = np.random.Generator(np.random.PCG64(finding.seed))
        for side in sides:
            sign = SIGN[side]
            if finding.name == "pneumothorax":
                np.maximum(free_air, _pneumothorax(chest, sign, finding.severity, rng), out=free_air)
                clear *= 1 - np.float32(0.30 * finding.severity) * _half(sign)  # the lung that is left is squeezed
                shift -= sign * 2.2 * max(0.0, finding.severity - 0.55)
            elif finding.name == "pleural_effusion":
                clear *= 1 - _effusion(chest, sign, finding.severity, rng)
                shift -= sign * 1.2 * max(0.0, finding.severity - 0.7)
            elif finding.name == "edema":
                clear *= 1 - _edema(chest, sign, finding.severity, rng)
                congestion = max(congestion, finding.severity)
            elif finding.name == "atelectasis":
                _collapse(clear, chest, sign, finding.severity, rng)
                shift += sign * 1.6 * max(0.0, finding.severity - 0.6)  # towards the lung that lost volume
            else:
                clear *= 1 - _airspace(chest, finding, sign, rng)
    return Changes(1 - clear, free_air, shift, congestion, heart_growth(findings))


def _ripple(rng: np.random.Generator, waves: int, shortest: float, longest: float) -> np.ndarray:
    """A smooth random field between about -1 and 1; wavelengths in cm."""
    total = np.zeros((1, 1, 1), dtype=np.float32)
    for _ in range(waves):
        product = np.ones((1, 1, 1), dtype=np.float32)
        for axis in grid():
            wave = 2 * np.pi / rng.uniform(shortest, longest)
            product = product * np.cos(axis * np.float32(wave) + np.float32(rng.uniform(0, 2 * np.pi)))
        total = total + product
    return total * np.float32(1.6 / waves)


def _half(sign: float) -> np.ndarray:
    return (grid()[0] * np.float32(sign) > 0).astype(np.float32)


def _zone_centre(chest: Chest, finding: Finding, sign: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre of a lesion in the lung."""
    rise, apex = chest.rise, chest.anatomy.apex
    height = {
        "upper": apex - 5.5,
        "mid": 1.0 + 0.4 * rise,
        "lower": -5.0 + 0.8 * rise,
        "retrocardiac": -6.0 + 0.8 * rise,
    }
    z = height[finding.zone] + rng.uniform(-1, 1)
    if finding.zone == "retrocardiac":
        return sign * (4.6 + rng.uniform(-0.5, 0.5)), 5.6, z
    out = 0.60 * float(rib_cage_width(chest.anatomy, z)) + rng.uniform(-0.8, 0.8)
    back = {"upper": -1.0, "mid": -1.5, "lower": 2.5}[finding.zone] + rng.uniform(-1, 1)
    return sign * out, back, z


def _airspace(chest: Chest, finding: Finding, sign: float, rng: np.random.Generator) -> np.ndarray:
    """Consolidation: one dense, confluent, fluffy region. Pneumonia: several fainter patches in the same lobe."""
    x, y, z = grid()
    centre = _zone_centre(chest, finding, sign, rng)
    severity = finding.severity
    patchy = finding.name == "pneumonia"
    spots = [(0.0, 0.0, 0.0, 1.0)]
    if patchy:
        spots = [(*rng.normal(0, (2.3, 2.0, 2.6)), rng.uniform(0.55, 1.0)) for _ in range(7)]
    outline = _ripple(rng, 4, 2.2, 6.0)
    # The first patches are there from the start, more come as it gets worse; each one grows.
    total = np.zeros_like(chest.cavity)
    stretch = 0.75 if finding.zone == "retrocardiac" else 1.0
    for number, (dx, dy, dz, size) in enumerate(spots):
        here = severity if not patchy else float(np.clip(1.8 * severity - 0.12 * number, 0, 1))
        if here <= 0:
            continue
        radius = (1.3 + 2.0 * here) * size if patchy else (1.9 + 3.9 * severity) * stretch
        away = np.sqrt(
            np.square(x - centre[0] - dx)
            + np.square((y - centre[1] - dy) * 0.85)
            + np.square((z - centre[2] - dz) * 0.9)
        )
        fluffy = np.clip((radius - away) / np.float32(0.45 * radius) + 0.35 * outline + 0.35, 0, 1)
        dense = (0.42 + 0.36 * here) if patchy else (0.55 + 0.42 * severity)
        total = np.maximum(total, fluffy * np.float32(dense))
    fade = np.float32(min(1.0, severity / 0.12))
    return total * _half(sign) * fade


def _edema(chest: Chest, sign: float, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Bat wings: streaky haze around the hila that spreads outwards and down to the bases."""
    x, y, z = grid()
    away = np.sqrt(
        np.square((x - sign * 4.5) / 1.15) + np.square(y * 0.7) + np.square((z + 0.5 - 0.4 * chest.rise) / 1.25)
    )
    reach = np.float32(3.0 + 5.5 * severity)
    wing = np.exp(-np.square(away / reach))
    haze = wing * np.float32(0.62 * severity) + np.float32(0.10 * severity)
    streaks = 1 + 0.35 * _ripple(rng, 4, 1.4, 3.5)
    return np.clip(haze * streaks, 0, 0.9) * _half(sign)


def _effusion(chest: Chest, sign: float, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Fluid on the diaphragm, first in the posterior angle, rising along the wall as a meniscus."""
    x, y, z = grid()
    wall = np.clip(
        np.square(x / np.float32(chest.anatomy.width)) + 0.55 * np.clip(y / chest.anatomy.depth, 0, 1), 0, 1.3
    )
    lowest = np.float32(chest.anatomy.dome_right + chest.rise - 5.2)
    level = lowest + np.float32(1.2 + 12.5 * severity) * (0.62 + 0.45 * wall) + np.float32(rng.uniform(-0.3, 0.3))
    return soft((level - z) * 0.8) * _half(sign) * np.float32(min(1.0, severity / 0.06))


def _pneumothorax(chest: Chest, sign: float, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Air between wall and lung, widest at the apex; the lung retracts towards its hilum."""
    x, y, z = grid()
    a = chest.anatomy
    wide = np.maximum(rib_cage_width(a, z), 0.5)
    up = np.clip((z + 10) / (a.apex + 10), 0, 1)
    gap = np.float32(severity) * (1.4 + (5.2 + rng.uniform(-0.3, 0.3)) * up**1.5) * (0.35 + 0.65 * up)
    centre = sign * 0.30 * wide
    radius = np.sqrt(
        np.square((x - centre) / (wide - np.abs(centre))) + np.square((y - 0.3) / (wide * (a.depth / a.width)))
    )
    outside = soft((radius - 1) * wide + gap)
    top = soft(z - (a.apex - 0.8 - (5.5 * severity + 0.6)))
    return np.maximum(outside, top) * _half(sign) * np.float32(min(1.0, severity / 0.05))


def _collapse(clear: np.ndarray, chest: Chest, sign: float, severity: float, rng: np.random.Generator) -> None:
    """Atelectasis, multiplied into `clear`: plates above the diaphragm, and with severity a base without air."""
    x, y, z = grid()
    half = np.s_[: len(x) // 2] if sign < 0 else np.s_[len(x) // 2 :]
    # Everything lies below the hila; the rest of the grid is left out to save time.
    low = int(np.searchsorted(z[0, 0], chest.floor.max() + 6.5))
    x, z, floor = x[half], z[..., :low], chest.floor[half]
    above = z - floor
    # The lobe folds down towards the spine: most is lost at the back and near the middle.
    back = 1 / (1 + np.exp(-(y + 1.0 + 1.5 * (sign * x - 5.0) / 5.0) / 2.5))
    total = soft((np.float32(5.5 * severity) * back - above) * 0.7) * np.float32(0.25 + 0.6 * severity)
    for number in range(3):
        here = float(np.clip(2.2 * severity - 0.45 * number, 0, 1))
        centre, depth, height = sign * rng.uniform(5.0, 8.5), rng.uniform(-2.5, 3.0), rng.uniform(1.6, 4.6)
        slope, roll = rng.uniform(-0.22, 0.22), rng.uniform(-0.1, 0.1)
        if here <= 0:
            continue
        lift = height + chest.rise * 0.1 + np.float32(slope) * (x - centre) + np.float32(roll) * (y - depth)
        radius = np.sqrt(np.square((x - centre) / (1.6 + 2.4 * here)) + np.square((y - depth) / (2.0 + 3.2 * here)))
        plate = np.clip(0.75 - np.abs(z - (chest.anatomy.dome_right + chest.rise - 1.0) - lift) * 1.5, 0, 1)
        np.maximum(total, plate * soft((1 - radius) * 1.5) * np.float32(min(1.0, 0.5 + 0.5 * here)), out=total)
    clear[half][..., :low] *= 1 - np.clip(total, 0, 0.97) * np.float32(min(1.0, severity / 0.12))
