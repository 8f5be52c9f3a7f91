"""The findings of a phantom study, from which both its images and its report are made.

This module defines neither how a finding looks nor how it is described. Images and sentences agree because both are made
from the same `Finding`.
"""

from dataclasses import dataclass

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
"""The findings that MS-CXR-T compares, in its order."""
DEVELOPING = (*FINDINGS, "atelectasis")
"""The findings that come and go over a patient's studies: those of MS-CXR-T, and atelectasis."""
DEVICES = ("endotracheal_tube", "enteric_tube", "central_line", "picc", "port", "pacemaker", "chest_tube")
BELOW_THE_IMAGE = -17.0
"""An enteric tube's tip that is lower than this (cm, to the carina) is below the edge of the image."""
CARDIOMEGALY_FROM = 1.08
"""Least size of a heart that is called enlarged, times a usual one."""
SIDES = ("right", "left", "bilateral")  # the patient's own right and left
ZONES = ("upper", "mid", "lower", "retrocardiac")
PROGRESSIONS = ("improving", "stable", "worsening")


@dataclass(frozen=True)
class Finding:
    """One finding in one study.

    Attributes:
        name: one of `DEVELOPING`.
        side: one of `SIDES`; edema is always bilateral, pneumothorax never is.
        zone: one of `ZONES`; where in the lung. `retrocardiac` lies in the left lower lobe behind the heart,
            so a frontal view nearly hides it and a lateral view shows it over the spine.
            Effusion and atelectasis are always `lower`, pneumothorax always `upper`, edema always `mid` (perihilar).
        severity: 0 (absent) to 1 (worst); about 0.15 is just visible to a trained eye.
        seed: fixes the shape of this lesion (outline, texture), so that the next study shows the same lesion, larger or
            smaller.
    """

    name: str
    side: str
    zone: str
    severity: float
    seed: int


@dataclass(frozen=True)
class Device:
    """A tube, line or implant in one study.

    Attributes:
        name: one of `DEVICES`.
        side: 'right' or 'left', where it enters; '' for tubes in the midline.
        tip: height of its tip above the carina, cm; negative is below. Of a pacemaker, of the ventricular lead's.
        seed: fixes its course, so that the next study shows the same device.
        step: 'new', 'stable' or 'removed' since the previous study; None in a patient's first study.
    """

    name: str
    side: str
    tip: float
    seed: int
    step: str | None = None

    @property
    def present(self) -> bool:
        return self.step != "removed"

    @property
    def route(self) -> str:
        """The vein that a central line enters: 'subclavian' or 'internal jugular'; of a port always the latter."""
        return "subclavian" if self.name == "central_line" and self.seed % 3 == 0 else "internal jugular"


def heart_severity(heart: float) -> float:
    """Severity of cardiomegaly: 0 for a heart of usual size, 0.2 to 1 above `CARDIOMEGALY_FROM`.

    Args:
        heart: its size, 1 for a usual one; see `Anatomy.heart`.
    """
    if heart <= CARDIOMEGALY_FROM:
        return 0.0
    return min(1.0, 0.2 + 4.0 * (heart - CARDIOMEGALY_FROM))
