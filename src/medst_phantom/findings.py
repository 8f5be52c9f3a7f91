"""The findings of a phantom study, from which both its images and its report are made.

This module defines neither how a finding looks nor how it is described. Images and sentences agree because both are made
from the same `Finding`.
"""

from dataclasses import dataclass

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
SIDES = ("right", "left", "bilateral")  # the patient's own right and left
ZONES = ("upper", "mid", "lower", "retrocardiac")
PROGRESSIONS = ("improving", "stable", "worsening")


@dataclass(frozen=True)
class Finding:
    """One finding in one study.

    Attributes:
        name: one of `FINDINGS`.
        side: one of `SIDES`; edema is always bilateral, pneumothorax never is.
        zone: one of `ZONES`; where in the lung. `retrocardiac` lies in the left lower lobe behind the heart,
            so a frontal view nearly hides it and a lateral view shows it over the spine.
            Effusion is always `lower`, pneumothorax always `upper`, edema always `mid` (perihilar).
        severity: 0 (absent) to 1 (worst); about 0.15 is just visible to a trained eye.
        seed: fixes the shape of this lesion (outline, texture), so that the next study shows the same lesion, larger or
            smaller.
    """

    name: str
    side: str
    zone: str
    severity: float
    seed: int
