"""Draw bones and vessels: 3-D curves, projected like the attenuation map, at the image's own resolution.

A `View` maps a point of the body to the image, so that ribs and vessels are at consistent places in the frontal and the
lateral image of a study.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from medst_phantom.anatomy import Anatomy, rib_cage_width

SHIFT = 4  # OpenCV draws with this many binary places of a pixel
RIBS = 10


@dataclass(frozen=True)
class View:
    """Projection of points of the body.

    Attributes:
        lateral: seen from the side, with the front on the left of the image.
        height: of the image, pixels.
        width: of the image, pixels.
        scale: pixels per centimetre.
        shear: sideways shift of a point per centimetre of its depth, from rotation about the long axis.
        top: height of the image's upper edge, cm.
        rise: height of the diaphragm above full inspiration, cm; ribs slope less when it is high.
    """

    lateral: bool
    height: int
    width: int
    scale: float
    shear: float
    top: float
    rise: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Project points (n, 3) in cm to pixels (n, 2)."""
        across = points[:, 1] - self.shear * points[:, 0] if self.lateral else points[:, 0] + self.shear * points[:, 1]
        u = across * self.scale + self.width / 2
        return np.stack([u, (self.top - points[:, 2]) * self.scale], axis=1)


class Layer:
    """Path length through thin structures, drawn as tubes. Tubes in one layer do not add up, layers do."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.pixels = np.zeros((view.height, view.width), dtype=np.uint8)

    def tube(self, points: np.ndarray, width: float, value: int) -> None:
        """Draw a curve `width` cm wide with a brightness of 0 to 255."""
        line = np.round(self.view(points) * 2**SHIFT).astype(np.int32)
        thickness = max(1, round(width * self.view.scale))
        cv2.polylines(self.pixels, [line], False, value, thickness, cv2.LINE_AA, SHIFT)

    def area(self, points: np.ndarray, value: int) -> None:
        """Fill a polygon."""
        outline = np.round(self.view(points) * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(self.pixels, [outline], value, cv2.LINE_AA, SHIFT)

    def path(self, most: float, blur: float = 0.0) -> np.ndarray:
        """The layer as float32, 255 standing for `most`."""
        drawn = self.pixels.astype(np.float32) * np.float32(most / 255)
        return cv2.GaussianBlur(drawn, (0, 0), blur * self.view.scale) if blur else drawn


def _rib(a: Anatomy, number: int, side: float, rise: float) -> np.ndarray:
    """Centre line of a rib from the spine to its front end."""
    top = a.apex + 1.6 - number * 2.25 + 0.25 * rise
    reach = np.pi * (0.66 + 0.025 * min(number, 6)) if number < 8 else np.pi * 0.52
    angle = np.linspace(0.12, reach, 28)
    drop = (a.rib_slope - 0.35 * rise) * (0.55 + 0.07 * min(number, 6))
    sweep = angle / np.pi
    z = top + 0.5 * np.sin(np.minimum(sweep * 4, 1) * np.pi) - drop * (0.62 * sweep + 0.75 * sweep**2.2)
    wide = np.maximum(rib_cage_width(a, np.minimum(z, a.apex - 0.6 - 0.5 * (number == 0))), 3.4) + 0.35
    deep = wide * a.depth / a.width
    return np.stack([side * wide * np.sin(angle) ** 0.9, 0.3 + deep * np.cos(angle), z], axis=1)


def ribs(a: Anatomy, view: View) -> np.ndarray:
    """Path length through the ribs in bone-centimetres; their shell is denser than their marrow."""
    total = np.zeros((view.height, view.width), dtype=np.float32)
    # Every other rib is in the other layer, so that the front of one adds up with the back of the next that it crosses.
    for first in (1, 2):
        shell, marrow = Layer(view), Layer(view)
        for number in range(first, RIBS, 2):
            for side in (-1.0, 1.0):
                curve = _rib(a, number, side, view.rise)
                shell.tube(curve, 1.05, 255)
                marrow.tube(curve, 0.65, 255)
        total += shell.path(0.60, 0.05) - marrow.path(0.24, 0.06)
    return total


def spine(a: Anatomy, view: View) -> np.ndarray:
    """Path length through vertebrae without discs, and through their processes."""
    bodies, rims, knobs = Layer(view), Layer(view), Layer(view)
    count = 17
    for i in range(count):
        z = -19.5 + i * 2.35
        bend = a.spine_bend * np.cos(z / 14)
        back = 6.6 - 1.4 * np.cos((z - 1) / 13) + 0.8
        size = 1.75 - 0.025 * i
        half = 0.95
        if view.lateral:
            box = [(bend, back - size, z - half), (bend, back + size, z - half + 0.1)]
            box += [(bend, back + size, z + half + 0.1), (bend, back - size, z + half)]
        else:
            box = [(bend - size, back, z - half), (bend + size, back, z - half)]
            box += [(bend + size, back, z + half), (bend - size, back, z + half)]
        corners = np.array(box)
        bodies.area(corners, 255)
        rims.tube(np.vstack([corners, corners[:1]]), 0.16, 255)
        if view.lateral:
            knobs.tube(np.array([(bend, back + size, z), (bend, back + size + 2.6, z - 1.6)]), 0.8, 150)
        else:
            knobs.tube(np.array([(bend, back + 3, z - 0.3), (bend, back + 3, z - 1.3)]), 0.55, 255)
            for side in (-1, 1):
                eye = np.array([(bend + side * 1.15, back, z + 0.35), (bend + side * 1.15, back, z - 0.2)])
                knobs.tube(eye, 0.5, 170)
    most = 1.0 if view.lateral else 1.15
    return bodies.path(most, 0.12) + rims.path(0.45, 0.05) + knobs.path(0.55, 0.08)


def shoulders(a: Anatomy, view: View, over_lungs: bool) -> np.ndarray:
    """Clavicles, scapulae and humeral heads; the sternum in a lateral view."""
    total = np.zeros((view.height, view.width), dtype=np.float32)
    if view.lateral:
        bone = Layer(view)
        z = np.linspace(a.apex - 3.5, -5.0, 12)
        y = -a.depth * (0.62 + 0.36 * np.linspace(0, 1, 12) ** 0.8) - 0.9
        bone.tube(np.stack([0 * z, y, z], axis=1), 1.1, 255)
        blades = Layer(view)
        for shift in (0.0, 1.3):
            blades.tube(np.array([(0, 6.3 + shift, 11.0), (0, 7.6 + shift, 4.0), (0, 7.2 + shift, -1.0)]), 0.5, 200)
        return bone.path(0.9, 0.1) + blades.path(0.5, 0.1)
    for side in (-1.0, 1.0):
        outer, inner = Layer(view), Layer(view)
        t = np.linspace(0, 1, 16)
        x = side * (1.6 + t * (a.width + 1.2))
        z = a.apex - 2.6 + 2.6 * t + 0.8 * np.sin(t * 2 * np.pi) * 0.6
        clavicle = np.stack([x, -4.5 + 5 * t, z], axis=1)
        outer.tube(clavicle, 1.15, 255)
        inner.tube(clavicle, 0.65, 255)
        total += outer.path(0.85, 0.05) - inner.path(0.35, 0.06)
        blade, edge = Layer(view), Layer(view)
        pull = -3.2 if over_lungs else 0.6
        corners = [(a.width + pull - 1.6, 7, a.apex - 4.0), (a.width + pull + 3.4, 4, a.apex - 1.4)]
        corners += [(a.width + pull + 2.6, 5, a.apex - 5.0), (a.width + pull + 0.6, 7, a.apex - 13.5)]
        outline = np.array([(side * cx, cy, cz) for cx, cy, cz in corners])
        blade.area(outline, 255)
        edge.tube(np.vstack([outline, outline[:1]]), 0.35, 255)
        head = Layer(view)
        around = np.linspace(0, 2 * np.pi, 24)
        shaft = side * (a.width + 4.6)
        ball = np.stack([shaft + 2.1 * np.cos(around), 0 * around, a.apex - 1.2 + 2.3 * np.sin(around)], axis=1)
        head.area(ball, 255)
        head.tube(np.array([(shaft + side * 0.6, 0, a.apex - 2.4), (shaft + side * 2.4, 0, a.apex - 15)]), 2.3, 200)
        total += blade.path(0.28, 0.15) + edge.path(0.32, 0.08) + head.path(1.0, 0.12)
    return total


def vessels(a: Anatomy, view: View, congestion: float) -> np.ndarray:
    """Path length through the lungs' vessels, which branch from the hila and taper; wider with congestion."""
    layer = Layer(view)
    fine = Layer(view)
    rng = np.random.Generator(np.random.PCG64(a.seed))
    for side in (-1.0, 1.0):
        root = np.array([side * 3.6, 0.8, 0.8 + (0.8 if side > 0 else 0.0) + 0.45 * view.rise])
        for _ in range(13):
            direction = rng.normal(0, (0.35, 0.75, 1.0))
            direction[0] = side * abs(rng.normal(0.9, 0.35))
            _branch(root, direction, rng.uniform(0.32, 0.5), 0, rng, _painter(layer, fine, congestion))
    return layer.path(0.85, 0.03) + fine.path(0.4, 0.03)


def _painter(layer: Layer, fine: Layer, congestion: float) -> Callable[[np.ndarray, float], None]:
    def paint(points: np.ndarray, radius: float) -> None:
        radius *= 1 + 0.7 * congestion
        target = layer if radius > 0.13 else fine
        target.tube(points, 2 * radius, int(min(255, 40 + 520 * radius)))

    return paint


def _branch(
    start: np.ndarray,
    direction: np.ndarray,
    radius: float,
    depth: int,
    rng: np.random.Generator,
    paint: Callable[[np.ndarray, float], None],
) -> None:
    direction = direction / np.linalg.norm(direction)
    length = rng.uniform(2.0, 3.7)
    middle = start + direction * length * 0.5 + rng.normal(0, 0.12, 3)
    end = start + direction * length + rng.normal(0, 0.15, 3)
    paint(np.stack([start, middle, end]), radius)
    if depth >= 2:
        return
    for spread, share in ((0.28, 0.82), (0.6, 0.62)):
        _branch(end, direction + rng.normal(0, spread, 3), radius * share, depth + 1, rng, paint)


def smooth(points: np.ndarray) -> np.ndarray:
    """Round a curve by cutting its corners twice."""
    for _ in range(2):
        quarter = np.empty((2 * len(points) - 2, points.shape[1]))
        quarter[0::2] = 0.75 * points[:-1] + 0.25 * points[1:]
        quarter[1::2] = 0.25 * points[:-1] + 0.75 * points[1:]
        points = np.vstack([points[:1], quarter, points[-1:]])
    return points
