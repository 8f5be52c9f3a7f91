"""Draw tubes, lines and implants: 3-D curves like the skeleton's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medst_phantom.anatomy import Anatomy
from medst_phantom.findings import BELOW_THE_IMAGE, Device
from medst_phantom.skeleton import Layer, View, smooth

CARINA = 3.4  # height of the carina, cm
_Points = list[tuple[float, float, float]]


@dataclass(frozen=True)
class _Stroke:
    """A curve (n, 3) `width` cm wide, or with width 0 a filled outline; `value` is its brightness, 0 to 255."""

    points: np.ndarray
    width: float
    value: int
    metal: bool = False


def leads(a: Anatomy, view: View, rng: np.random.Generator) -> np.ndarray:
    """ECG leads on the skin of a patient in bed, which are in no report."""
    metal = Layer(view)
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(1, 4))):
            x = rng.uniform(-a.width, a.width)
            points = [(x, -10, rng.uniform(-9, 6))]
            for _ in range(7):
                last = points[-1]
                points.append((last[0] + rng.normal(0, 1.6), -10, last[2] + rng.uniform(1.0, 3.6)))
            metal.tube(smooth(np.array(points)), 0.14, 255)
            spot = np.array([points[0], points[0]])
            metal.tube(spot, 0.75, 255)
    return metal.path(1.0)


def devices(a: Anatomy, view: View, placed: Sequence[Device]) -> np.ndarray:
    """Path length through tubes, lines and implants; those that were removed are not drawn."""
    plastic, metal = Layer(view), Layer(view)
    for device in placed:
        if not device.present:
            continue
        side = -1.0 if device.side == "right" else 1.0
        rng = np.random.Generator(np.random.PCG64(device.seed))
        for stroke in _DRAWN[device.name](a, view.rise, side, device, rng):
            layer = metal if stroke.metal else plastic
            if stroke.width:
                layer.tube(stroke.points, stroke.width, stroke.value)
            else:
                layer.area(stroke.points, stroke.value)
    return plastic.path(0.7) + metal.path(2.4)


def _endotracheal(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    z = np.linspace(20, CARINA + device.tip, 8)
    walls = ((-0.4, 0.13), (0.4, 0.13), (0.25, 0.2))
    return [_Stroke(np.stack([x - 0.25 + 0 * z, 2 + 0 * z, z], axis=1), width, 235) for x, width in walls]


def _enteric(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    floor = a.dome_left + rise
    course = [(0.4, 3.0, 20), (0.4, 3.4, 6), (0.2, 3.2, 0), (1.0, 2.6, floor + 1.5), (2.6, 1.0, floor - 1.5)]
    course += [(6.2 + rng.normal(0, 0.5), -1.5, floor - 3.5)]
    if device.tip < BELOW_THE_IMAGE:
        course += [(6.6, -2.0, -16), (5.0, -2.0, CARINA + device.tip)]
    curve = smooth(np.array(course))
    return [_Stroke(curve, 0.36, 120), _Stroke(curve, 0.15, 255)]


def _vein(entry: _Points, tip: float) -> np.ndarray:
    """From a point of entry through the superior vena cava to the tip."""
    return smooth(np.array([*entry, (-1.7, -1.7, 7.0), (-2.1, -1.8, 4.5), (-2.1, -2.0, min(CARINA + tip, 4.4))]))


def _central(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    top = a.apex
    if device.route == "subclavian":
        entry = [(side * 10.5, -4.5, top - 4.5), (side * 7.5, -3.0, top - 2.2), (side * 3.4, -2.0, top - 3.6)]
    else:
        neck = 4.6 + rng.normal(0, 0.3)
        entry = [(side * neck, -2.5, 19.0), (side * (neck - 0.9), -2.2, top + 1), (side * 3.0, -2.0, top - 3.5)]
    strokes = []
    if device.name == "port":
        entry = [(side * 8.6, -a.depth - 1.2, top - 7.5), (side * 5.6, -a.depth, top - 2.0), *entry[1:]]
        around = np.linspace(0, 2 * np.pi, 20)
        ring = np.stack([1.2 * np.cos(around), 0.25 * np.sin(2 * around), 1.2 * np.sin(around)], axis=1)
        strokes = [_Stroke(ring + np.array(entry[0]), 0.4, 190, metal=True)]
    return [*strokes, _Stroke(_vein(entry, device.tip), 0.22, 240)]


def _picc(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    wide, top = a.width, a.apex
    entry = [(side * (wide + 4.5), 1.0, top - 13), (side * (wide + 2.2), 0.5, top - 6.5)]
    entry += [(side * (wide - 2.0), -1.5, top - 3.2), (side * 6.5, -2.5, top - 2.0), (side * 3.0, -2.0, top - 3.8)]
    return [_Stroke(_vein(entry, device.tip), 0.15, 230)]


def _pacemaker(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    around = np.linspace(0, 2 * np.pi, 28)
    centre = np.array([side * (8.6 + rng.normal(0, 0.5)), -a.depth - 1.2, a.apex - 5.5 + rng.normal(0, 0.6)])
    case = np.stack([2.3 * np.cos(around), 0.35 * np.sin(around), 2.0 * np.sin(around)], axis=1)
    strokes = [_Stroke(case + centre, 0, 235, metal=True)]
    out: _Points = [tuple(centre), (side * 7.2, -a.depth + 1, a.apex - 3.0), (side * 3.4, -2.2, a.apex - 3.6)]
    down: _Points = [(-1.7, -1.7, 7.0), (-2.1, -1.8, 3.0)]
    drop = 0.75 * rise
    atrium: _Points = [(-2.6, -3.2, -4.5 + drop), (-2.2, -4.2, -2.8 + drop)]
    ventricle: _Points = [(-1.6, -3.4, -6.0 + drop), (2.0, -4.0, -7.4 + drop), (5.4, -4.4, CARINA + device.tip + drop)]
    for end in (atrium, ventricle):
        wire = smooth(np.array([*out, *down, *end]))
        strokes += [_Stroke(wire, 0.14, 120, metal=True), _Stroke(wire[-2:], 0.26, 230, metal=True)]
    return strokes


def _chest_tube(a: Anatomy, rise: float, side: float, device: Device, rng: np.random.Generator) -> list[_Stroke]:
    course = [(side * (a.width + 3.6), 0.0, -7.5 + rise), (side * (a.width + 0.4), 1.0, -5.6 + rise)]
    end = CARINA + device.tip
    if device.tip > 0:
        course += [(side * (a.width - 2.2), 2.0, -1.5), (side * 8.0, 2.0, end - 4)]
        course += [(side * (5.8 + rng.normal(0, 0.6)), 1.0, end)]
    else:  # a pigtail coiled at the base
        around = np.linspace(0, 1.8 * np.pi, 12)
        middle = np.array([side * (a.width - 4.0), 4.0, max(-6.0, end) + rise])
        coil = middle + 1.1 * np.stack([side * np.cos(around), 0.3 * np.sin(around), np.sin(around)], axis=1)
        course += [tuple(point) for point in coil]
    tube = smooth(np.array(course))
    return [_Stroke(tube, 0.62, 110), _Stroke(tube, 0.16, 255)]


_DRAWN = {
    "endotracheal_tube": _endotracheal,
    "enteric_tube": _enteric,
    "central_line": _central,
    "port": _central,
    "picc": _picc,
    "pacemaker": _pacemaker,
    "chest_tube": _chest_tube,
}
