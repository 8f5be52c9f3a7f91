"""A patient's body: a few numbers, and a 3-D map of X-ray attenuation made from them.

Coordinates are centimetres: x to the patient's left (the right of a frontal image), y to the back, z to the head. The
map is coarse (about 4 mm) because it holds only smooth structures. Bones and vessels, whose edges matter, are curves in the
same coordinates (`skeleton.py`) and are projected with it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# Attenuation in 1/cm at about 70 keV effective energy.
SOFT, LUNG = 0.20, 0.045
HALF_WIDTH, HALF_DEPTH, HALF_HEIGHT = 18.0, 12.5, 20.0
SHAPE = (88, 52, 100)
EDGE = 0.42  # cm over which a border goes from nothing to all


@dataclass(frozen=True)
class Anatomy:
    """One body. Lengths in cm, in the coordinates of this module."""

    width: float
    """Half-width of the rib cage at its base."""
    depth: float
    """Half-depth of the rib cage."""
    apex: float
    """Height of the lungs' tips."""
    dome_right: float
    """Height of the right diaphragm at full inspiration."""
    dome_left: float
    """Height of the left diaphragm at full inspiration."""
    heart: float
    """Size of the heart; 1 is a usual one, 1.25 a large one."""
    heart_tilt: float
    """Angle of the heart's long axis to the vertical, radians."""
    aortic_knob: float
    """Radius of the aortic arch."""
    mediastinum: float
    """Half-width of the upper mediastinum."""
    wall: float
    """Thickness of the chest wall: muscle and fat."""
    breast: float
    """Size of the breasts; 0 is none."""
    shoulder: float
    """Height of the shoulders."""
    rib_slope: float
    """How far a rib's front end lies below its back end."""
    spine_bend: float
    """Sideways curvature of the spine at its middle."""
    gas: float
    """Size of the gastric bubble."""
    seed: int
    """Fixes vessels and texture."""


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a body."""
    size = rng.normal(1.0, 0.05)
    habitus = float(np.clip(rng.normal(0.35, 0.3), 0, 1))
    dome = rng.normal(-7.5, 0.7)
    return Anatomy(
        width=float(13.0 * size * rng.normal(1, 0.03)),
        depth=float(8.6 * size * rng.normal(1, 0.06)),
        apex=float(13.0 * size + rng.normal(0, 0.5)),
        dome_right=float(dome),
        dome_left=float(dome - abs(rng.normal(0.9, 0.4))),
        heart=float(np.clip(rng.normal(1.0, 0.11), 0.8, 1.3)),
        heart_tilt=float(rng.normal(0.75, 0.12)),
        aortic_knob=float(np.clip(rng.normal(1.9, 0.3), 1.2, 2.8)),
        mediastinum=float(np.clip(rng.normal(2.7, 0.3), 2.0, 3.6)),
        wall=float(1.9 + 2.6 * habitus),
        breast=float(max(0.0, rng.normal(0.35, 0.5))),
        shoulder=float(11.0 * size + rng.normal(0, 0.8)),
        rib_slope=float(rng.normal(7.0, 0.8)),
        spine_bend=float(rng.normal(0, 0.5)),
        gas=float(np.clip(rng.normal(1.8, 0.8), 0, 3.2)),
        seed=int(rng.integers(2**31)),
    )


@lru_cache(maxsize=1)
def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the voxels along x, y and z, shaped to broadcast to (x, y, z)."""
    axes = []
    for count, half in zip(SHAPE, (HALF_WIDTH, HALF_DEPTH, HALF_HEIGHT), strict=True):
        step = 2 * half / count
        axes.append(np.arange(count, dtype=np.float32) * np.float32(step) + np.float32(step / 2 - half))
    x, y, z = axes
    return x[:, None, None], y[None, :, None], z[None, None, :]


def soft(inside: np.ndarray) -> np.ndarray:
    """Convert a signed distance to a border (cm, positive inside) to a share from 0 to 1."""
    return np.clip(inside * np.float32(1 / EDGE) + np.float32(0.5), 0, 1)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Signed distance to a ball."""
    x, y, z = grid()
    flat = np.square(x - centre[0]) + np.square(y - centre[1])
    return np.float32(radius) - np.sqrt(flat + np.square(z - centre[2]))


@dataclass
class Chest:
    """The body of one study, before any finding.

    Attributes:
        anatomy: of the patient.
        cavity: share of each voxel inside the ribs and above the diaphragm, float32 `SHAPE`.
        solid: share of heart, great vessels and mediastinum.
        body: share inside the skin.
        airway: share of trachea, main bronchi and gastric bubble.
        floor: height of the diaphragm, float32 (x, y, 1).
        rise: height of the diaphragm above its position at full inspiration, cm.
    """

    anatomy: Anatomy
    cavity: np.ndarray
    solid: np.ndarray
    body: np.ndarray
    airway: np.ndarray
    floor: np.ndarray
    rise: float

    @property
    def lung(self) -> np.ndarray:
        """Share of each voxel that is aerated lung."""
        return self.cavity * (1 - self.solid)


def rib_cage_width(a: Anatomy, z: np.ndarray | float) -> np.ndarray:
    """Inner half-width of the rib cage at a height: wide at the base, rounded at the apex."""
    t = np.clip((np.asarray(z, dtype=np.float32) + 13.0) / (a.apex + 13.0), 0, 0.999)
    return a.width * np.sqrt(1 - t**3.2) * (0.97 + 0.03 * np.cos(t * np.pi))


def build_chest(a: Anatomy, inspiration: float, heart_growth: float = 0.0) -> Chest:
    """Build the chest at a depth of inspiration.

    Args:
        a: the body.
        inspiration: 1 is full; at 0 the diaphragm is 4 cm higher.
        heart_growth: added to the heart's size, for edema.
    """
    x, y, z = grid()
    rise = 4.0 * (1 - inspiration)
    wide = rib_cage_width(a, z)
    deep = wide * np.float32(a.depth / a.width)
    left = x > 0

    dome = np.where(left, np.float32(a.dome_left), np.float32(a.dome_right)) + rise
    floor = (
        dome
        - 0.085 * np.square(np.abs(x) - 6.0)
        - 0.05 * np.square(y + 1.0) * np.where(y > -1, np.float32(1.0), np.float32(0.5))
    )
    # Near the spine the lungs' back edges curve round the vertebrae; the front edges nearly touch.
    radius = np.sqrt(np.square(x / np.maximum(wide, 0.5)) + np.square((y - 0.3) / np.maximum(deep, 0.4)))
    cavity = soft((1 - radius) * np.maximum(wide, 0.5)) * soft(z - floor)
    cavity *= soft(np.maximum(np.abs(x) - 2.1, 4.6 - y))

    # The mediastinum: a curtain, wide at the great vessels, thin in front of the heart.
    half = a.mediastinum * (0.85 + 0.25 * np.exp(-np.square((z - 3) / 4))) - 1.0 / (1 + np.exp(-(z - 8.5) / 0.9))
    curtain = np.clip((half - np.abs(x - 0.3)) / 0.9 + 0.5, 0, 1) * soft(5.5 - np.abs(y - 1.0))
    thin = soft(0.6 - np.abs(x)) * soft(4.0 - np.abs(y + 5))
    s = np.float32(a.heart + heart_growth)
    cx, cy, cz = 2.9, -2.6, float(-5.4 + 0.75 * rise)
    cosine, sine = np.float32(np.cos(a.heart_tilt)), np.float32(np.sin(a.heart_tilt))
    u = (x - cx) * cosine + (z - cz) * sine
    v = -(x - cx) * sine + (z - cz) * cosine
    ventricle = 1 - np.sqrt(np.square(v / (6.6 * s)) + np.square(u / (4.9 * s)) + np.square((y - cy) / (4.9 * s)))
    solid = soft(ventricle * 5)
    for centre, size in (
        ((-1.2, -2.2, cz + 0.6), 3.7 * s),  # right atrium
        ((1.0, 1.2, cz + 2.5), 3.3 * s),  # left atrium
        ((1.9, 1.0, 6.4), a.aortic_knob),
        ((2.4, -1.2, 2.6 + 0.3 * rise), 2.0),  # pulmonary trunk
        ((-1.9, -1.8, 5.0), 1.7),  # ascending aorta and superior vena cava
        ((-3.4, 0.3, 0.4 + 0.4 * rise), 1.25),  # right hilum
        ((3.7, 0.6, 1.4 + 0.4 * rise), 1.25),  # left hilum
    ):
        np.maximum(solid, soft(ball(centre, float(size))), out=solid)
    descending = np.float32(1.25) - np.sqrt(np.square(x - 1.7) + np.square(y - 4.4)) + 0 * z
    for part in (curtain, thin, soft(descending) * (z < 6)):
        np.maximum(solid, part, out=solid)

    body = _body(a)
    trachea = soft(0.85 - np.sqrt(np.square(x + 0.25) + np.square(y - 2.2))) * (z > 3.2)
    carina = np.abs(z - (3.4 - 0.75 * np.abs(x + 0.2)))
    bronchi = soft(0.6 - np.sqrt(np.square(carina) + np.square(y - 2.2))) * (np.abs(x) < 3.5)
    airway = np.maximum(trachea, bronchi)
    if a.gas > 0.5:
        _add_gastric_bubble(airway, a, rise)
    return Chest(a, cavity, solid, body, airway, floor, rise)


def _add_gastric_bubble(airway: np.ndarray, a: Anatomy, rise: float) -> None:
    """Gas under the left dome: wider than high, with a level of fluid as its floor; mixed with content, so never black."""
    top = np.float32(a.dome_left + rise - 2.0)
    x, y, z = grid()
    high = int(np.searchsorted(z[0, 0], top + 4.0))
    x, z = x[len(x) // 2 :], z[..., :high]
    # Radii relative to the gas; half the grid is enough, which saves time.
    flat = np.square((x - 5.6) / np.float32(1.35 * a.gas)) + np.square((y + 2.0) / np.float32(a.gas))
    away = np.sqrt(flat + np.square((z - top - np.float32(0.12) * (x - 5.6)) / np.float32(0.85 * a.gas)))
    share = soft((1 - away) * np.float32(0.6 * a.gas)) * soft(z - top + np.float32(0.3 * a.gas)) * np.float32(0.7)
    part = airway[airway.shape[0] // 2 :, :, :high]
    np.maximum(part, share, out=part)


def without_arms(a: Anatomy) -> np.ndarray:
    """Share of each voxel that a lateral view shows, for which the arms are raised; float32 (x, 1, z)."""
    x, _, z = grid()
    return soft(rib_cage_width(a, z) + np.float32(a.wall + 1.0) - np.abs(x))


def _body(a: Anatomy) -> np.ndarray:
    """Torso, shoulders and neck."""
    x, y, z = grid()
    torso = rib_cage_width(a, np.minimum(z, a.shoulder - 4)) + a.wall
    up = 1 / (1 + np.exp(-(z - (a.shoulder - 5.5)) / 1.3))
    over = np.clip((z - a.shoulder) / 3.6, 0, 1)
    neck = 5.2 + 0.9 * (a.wall - 1.9)
    wide = neck + (torso + 7.0 * up - neck) * np.sqrt(1 - over)
    deep = (a.depth + 0.8 * a.wall) * (1 - 0.28 * over) * (1 - 0.18 * up)
    radius = (np.abs(x / wide) ** 2.6 + np.abs((y - 0.4) / deep) ** 2.2) ** np.float32(1 / 2.4)
    body = soft((1 - radius) * deep)
    if a.breast > 0.1:
        size = np.float32(3.6 + 2.2 * min(a.breast, 1.3))
        for side in (-1, 1):
            flat = np.square((x - side * 6.8) / 1.25) + np.square((z + 6.0) / 1.1) + np.square((y + a.depth) * 0.9)
            np.maximum(body, np.clip((size - np.sqrt(flat)) / 2.2, 0, 0.9), out=body)
    return body
