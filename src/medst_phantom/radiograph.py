"""Render a body with findings as a radiograph: line integrals, detector, noise, display.

Frontal and lateral images of a study are projections of one attenuation map, so a lesion behind the heart in one is in
front of the spine in the other. The map is at the inspiration of the study's first image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from medst_phantom import hardware, lesions, skeleton
from medst_phantom.anatomy import (
    HALF_DEPTH,
    HALF_HEIGHT,
    HALF_WIDTH,
    LUNG,
    SHAPE,
    SOFT,
    Anatomy,
    build_chest,
    without_arms,
)
from medst_phantom.findings import Device, Finding
from medst_phantom.skeleton import View

RESOLUTION = 13.0  # pixels a centimetre
BONE = 0.36  # added attenuation of bone over soft tissue, 1/cm
LATERAL_VIEWS = ("LATERAL", "LL")


@dataclass(frozen=True)
class Acquisition:
    """How an image is taken.

    Attributes:
        view: PA, AP, LATERAL or LL.
        exposure: shifts the display's window; 1 is usual, more is darker.
        contrast: slope of the display.
        noise: standard deviation of the quantum noise in well-exposed lung, in log units.
        rotation: of the body about its long axis, degrees.
        tilt: of the image, degrees.
        offset: sideways and up, cm.
        inspiration: depth, 0 to 1.
        magnification: of the heart's shadow relative to a usual PA image.
        field: share of the usual field that is in the image; below 1 is closer.
        seed: of noise, marker and ECG leads.
    """

    view: str
    exposure: float
    contrast: float
    noise: float
    rotation: float
    tilt: float
    offset: tuple[float, float]
    inspiration: float
    magnification: float
    field: float
    seed: int

    @property
    def lateral(self) -> bool:
        """Whether it is a lateral view."""
        return self.view in LATERAL_VIEWS

    @property
    def portable(self) -> bool:
        """Whether it is taken in bed, with the detector behind the back."""
        return self.view == "AP"


def sample_acquisition(view: str, rng: np.random.Generator) -> Acquisition:
    """Draw how an image is taken; portable AP images vary more, are noisier and have less inspiration."""
    portable = view == "AP"
    return Acquisition(
        view=view,
        exposure=float(np.exp(rng.normal(0, 0.10 if portable else 0.06))),
        contrast=float(np.exp(rng.normal(0, 0.08))),
        noise=float(rng.uniform(0.012, 0.022) if portable else rng.uniform(0.006, 0.012)),
        rotation=float(rng.normal(0, 3.5 if portable else 1.5)),
        tilt=float(rng.normal(0, 1.8 if portable else 0.7)),
        offset=(float(rng.normal(0, 0.9 if portable else 0.4)), float(rng.normal(0, 0.9 if portable else 0.5))),
        inspiration=float(np.clip(rng.normal(0.5 if portable else 0.88, 0.17 if portable else 0.08), 0, 1)),
        magnification=1.09 if portable else 1.0,
        field=float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.08)),
        seed=int(rng.integers(2**31)),
    )


def render(
    anatomy: Anatomy, findings: Sequence[Finding], acquisition: Acquisition, devices: Sequence[Device] = ()
) -> np.ndarray:
    """Render one radiograph; see `render_study`."""
    return render_study(anatomy, findings, [acquisition], devices)[0]


def render_study(
    anatomy: Anatomy,
    findings: Sequence[Finding],
    acquisitions: Sequence[Acquisition],
    devices: Sequence[Device] = (),
) -> list[np.ndarray]:
    """Render all images of a study.

    Args:
        anatomy: the patient's body.
        findings: findings of this study; those of severity 0 change nothing.
        acquisitions: how each image is taken.
        devices: tubes, lines and implants of this study.

    Returns:
        uint8 (height, width) each, bone white and air black, the patient's right on the left of frontal pictures.
    """
    if not acquisitions:
        return []
    present = [f for f in findings if f.severity > 0]
    chest = build_chest(anatomy, acquisitions[0].inspiration, lesions.heart_growth(present))
    changes = lesions.apply(chest, present)
    solid = _moved(chest.solid, changes.shift) if changes.shift else chest.solid
    lung = chest.cavity * (1 - solid)
    open_lung = lung * (1 - changes.free_air)
    air = open_lung * (1 - changes.density)
    attenuation = SOFT * chest.body
    attenuation -= (SOFT - LUNG) * air
    attenuation -= SOFT * (lung - open_lung)
    attenuation *= 1 - chest.airway
    np.maximum(attenuation, 0, out=attenuation)
    return [_picture(anatomy, attenuation, air, changes.congestion, chest.rise, a, devices) for a in acquisitions]


def _moved(share: np.ndarray, shift: float) -> np.ndarray:
    """Move a map along x, in cm."""
    step = 2 * HALF_WIDTH / SHAPE[0]
    whole, part = divmod(shift / step, 1.0)
    return (1 - part) * np.roll(share, int(whole), axis=0) + part * np.roll(share, int(whole) + 1, axis=0)


def _integrate(volume: np.ndarray, lateral: bool, shear: float) -> np.ndarray:
    """Line integrals along y (frontal) or x (lateral) as an image: rows from the head down."""
    if lateral:
        total = volume.sum(axis=0) * np.float32(2 * HALF_WIDTH / SHAPE[0])
    else:
        total = np.zeros((SHAPE[0], SHAPE[2]), dtype=np.float32)
        per_slice = shear * (2 * HALF_DEPTH / SHAPE[1]) / (2 * HALF_WIDTH / SHAPE[0])
        for j in range(SHAPE[1]):
            moved = per_slice * (j - (SHAPE[1] - 1) / 2)
            whole = int(np.floor(moved))
            part = np.float32(moved - whole)
            slab = volume[:, j]
            total += (1 - part) * np.roll(slab, whole, axis=0) + part * np.roll(slab, whole + 1, axis=0)
        total *= np.float32(2 * HALF_DEPTH / SHAPE[1])
    return np.ascontiguousarray(total.T[::-1])


def _picture(
    anatomy: Anatomy,
    attenuation: np.ndarray,
    air: np.ndarray,
    congestion: float,
    rise: float,
    acquisition: Acquisition,
    devices: Sequence[Device],
) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(acquisition.seed))
    view = _view(anatomy, acquisition, rise)
    shape = (view.height, view.width)
    if view.lateral:
        attenuation = attenuation * without_arms(anatomy)
    total = _placed(_integrate(attenuation, view.lateral, view.shear), view, acquisition)
    aerated = _placed(_integrate(air, view.lateral, view.shear), view, acquisition)

    seen = np.clip(aerated / (7.0 if not view.lateral else 12.0), 0, 1)
    vessels = skeleton.vessels(anatomy, view, congestion)
    texture = _texture(anatomy.seed, view) * np.float32(0.05 * (1 + 1.2 * congestion))
    total += (vessels * np.float32(0.26 if not view.lateral else 0.16) + texture) * seen
    bones = skeleton.ribs(anatomy, view) * np.float32(1.0 if not view.lateral else 0.55)
    bones += skeleton.spine(anatomy, view) * np.float32(0.42 if not view.lateral else 0.75)
    bones += skeleton.shoulders(anatomy, view, acquisition.portable)
    inside = np.clip(total / 0.8, 0, 1)
    total += bones * np.float32(BONE) * inside
    if acquisition.portable:
        total += hardware.leads(anatomy, view, rng) * np.float32(0.5)
    if devices:
        total += hardware.devices(anatomy, view, devices) * np.float32(0.5)

    total = _tilted(total, acquisition, view)
    grey = _develop(total, acquisition, rng)
    return _finish(grey.reshape(shape), acquisition, view, rng)


def _view(anatomy: Anatomy, acquisition: Acquisition, rise: float) -> View:
    scale = RESOLUTION * acquisition.magnification
    top = anatomy.apex + 3.6 + acquisition.offset[1]
    tall = 32.0 if not acquisition.lateral else 33.0
    wide = 2 * (anatomy.width + 3.4) if not acquisition.lateral else 2 * (anatomy.depth + 3.6)
    shear = float(np.tan(np.deg2rad(acquisition.rotation)))
    return View(
        lateral=acquisition.lateral,
        height=round(tall * acquisition.field * RESOLUTION),
        width=round(wide * acquisition.field * RESOLUTION),
        scale=scale,
        shear=shear if not acquisition.lateral else 0.4 * shear,
        top=top,
        rise=rise,
    )


def _placed(image: np.ndarray, view: View, acquisition: Acquisition) -> np.ndarray:
    """A coarse map (z from the head, then x or y) sampled at the image's pixels."""
    half = HALF_DEPTH if view.lateral else HALF_WIDTH
    coarse_x = image.shape[1] / (2 * half) / view.scale
    coarse_z = image.shape[0] / (2 * HALF_HEIGHT) / view.scale
    # Pixel (u, v) shows across = (u - width / 2) / scale and z = top - v / scale.
    matrix = np.array(
        [
            [coarse_x, 0, (half - view.width / 2 / view.scale) * image.shape[1] / (2 * half) - 0.5],
            [0, coarse_z, (HALF_HEIGHT - view.top) * image.shape[0] / (2 * HALF_HEIGHT) - 0.5],
        ],
        dtype=np.float64,
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    placed = cv2.warpAffine(image, matrix, (view.width, view.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.maximum(placed, 0)


def _texture(seed: int, view: View) -> np.ndarray:
    """Fine texture of the patient's lung."""
    rng = np.random.Generator(np.random.PCG64([seed, int(view.lateral)]))
    total = np.zeros((view.height, view.width), dtype=np.float32)
    for cells, weight in ((56, 0.55), (110, 0.45)):
        grain = rng.standard_normal((cells, cells), dtype=np.float32)
        total += np.float32(weight) * cv2.resize(grain, (view.width, view.height), interpolation=cv2.INTER_CUBIC)
    return total


def _tilted(total: np.ndarray, acquisition: Acquisition, view: View) -> np.ndarray:
    centre = (view.width / 2, view.height / 2)
    matrix = cv2.getRotationMatrix2D(centre, acquisition.tilt, 1.0)
    matrix[0, 2] += acquisition.offset[0] * view.scale
    return cv2.warpAffine(
        total, matrix, (view.width, view.height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _develop(total: np.ndarray, acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Convert path lengths to a detector signal with scatter and noise, then to display values."""
    signal = np.exp(-total)
    small = cv2.resize(signal, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    scatter = cv2.resize(cv2.GaussianBlur(small, (0, 0), 6), signal.shape[::-1], interpolation=cv2.INTER_LINEAR)
    share = 0.10 if acquisition.portable else 0.04
    signal = (1 - share) * signal + share * scatter
    # Quantum noise: relative to the signal it grows as the signal falls. 0.25 is the signal behind well-aerated lung.
    relative = np.float32(acquisition.noise) * np.sqrt(np.float32(0.25) / np.maximum(signal, 1e-3))
    signal = signal * (1 + relative * rng.standard_normal(signal.shape, dtype=np.float32))
    log = -np.log(np.maximum(signal, 1e-4))
    log = cv2.GaussianBlur(log, (0, 0), 0.6)
    centre = cv2.resize(log, None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)
    height, width = centre.shape
    field = centre[height // 8 : -height // 8, width // 10 : -width // 10]
    lung, dense = np.percentile(field, (8.0, 96.0))
    # The window begins a little above air and well below lung, as a technician would set it.
    low = 0.62 * lung - 0.1
    window = (log - low) / (dense - low) / np.float32(acquisition.exposure)
    grey = 0.5 + (window - 0.52) * np.float32(0.86 * acquisition.contrast)
    # Toe and shoulder of the display curve.
    return 1 / (1 + np.exp(-(grey - 0.5) * np.float32(4.6)))


def _finish(grey: np.ndarray, acquisition: Acquisition, view: View, rng: np.random.Generator) -> np.ndarray:
    """Convert to 8 bits, with the collimator's edge and a side marker in some images."""
    pixels = np.round(np.clip(grey * 255 * 1.12 - 22, 0, 255)).astype(np.uint8)
    if rng.random() < 0.35:
        edge = int(rng.integers(3, 16))
        side = int(rng.integers(4))
        region = (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:])[side]
        pixels[region] = 3
    if not view.lateral and rng.random() < 0.6:
        letter, u = ("L", view.width - 46) if rng.random() < 0.5 else ("R", 22)
        place = (u + int(rng.integers(-6, 6)), int(rng.integers(40, 90)))
        cv2.putText(pixels, letter, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 235, 3, cv2.LINE_AA)
    return pixels
