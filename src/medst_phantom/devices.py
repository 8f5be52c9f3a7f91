"""Draw which tubes, lines and implants a patient has in each study.

Tubes and lines are in place for a random window of a hospital stay, implants for good. Neither depends on how findings
change, so that a device does not tell whether a finding got better or worse.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np

from medst_phantom.findings import Device

STAY_GAP = timedelta(days=5)  # a longer time between two studies separates two stays in hospital
_INTENSIVE_SHARE = 0.6  # of stays with a bedside study
# In an intensive stay, how often a patient has each; the first three only show in bedside studies.
_IN_STAY = {"endotracheal_tube": 0.45, "enteric_tube": 0.5, "central_line": 0.5, "picc": 0.2}
_BEDSIDE = ("endotracheal_tube", "enteric_tube", "central_line")
_PICC_ELSEWHERE, _CHEST_TUBE = 0.04, 0.3
_IMPLANTS = {"pacemaker": 0.07, "port": 0.03}
_LEAST_TIP = {  # lowest and highest place of the tip, cm above the carina
    "endotracheal_tube": (1.6, 7.0),
    "enteric_tube": (-22.0, -12.0),
    "central_line": (-6.0, 0.8),
    "picc": (-6.0, 0.8),
    "port": (-5.5, -1.0),
    "pacemaker": (-11.5, -10.5),
    "chest_tube": (-9.0, 8.0),
}


def sample_devices(
    times: Sequence[datetime], portable: Sequence[bool], drained: Sequence[str], rng: np.random.Generator
) -> list[tuple[Device, ...]]:
    """Draw one patient's devices.

    Args:
        times: of the patient's studies, ascending.
        portable: whether each study is taken at the bedside.
        drained: per study, the side of a finding that a chest tube would drain, or ''.
        rng: source of chance.

    Returns:
        Devices of each study: those in place, and those that were removed in this stay since the previous study.
    """
    stays = stays_of(times)
    placed: list[tuple[Device, set[int]]] = []
    for name, share in _IMPLANTS.items():
        if rng.random() < share:
            first = int(rng.integers(len(times))) if rng.random() < 0.15 else 0
            placed.append((_draw(name, rng), set(range(first, len(times)))))
    for stay in stays:
        bedside = {index for index in stay if portable[index]}
        intensive = bool(bedside) and rng.random() < _INTENSIVE_SHARE
        for name, share in _IN_STAY.items():
            if rng.random() < (share if intensive else _PICC_ELSEWHERE * (name == "picc")):
                placed.append((_draw(name, rng), _window(stay, rng) & (bedside if name in _BEDSIDE else set(stay))))
        sides = [drained[index] for index in stay if drained[index]]
        if sides and rng.random() < _CHEST_TUBE:
            placed.append((replace(_draw("chest_tube", rng), side=sides[0]), _window(stay, rng)))
    return [_at(index, placed, stays) for index in range(len(times))]


def stays_of(times: Sequence[datetime]) -> list[list[int]]:
    """Indices of the studies of each stay in hospital, in time order."""
    stay = 0
    numbers = []
    for index, time in enumerate(times):
        stay += index > 0 and time - times[index - 1] > STAY_GAP
        numbers.append(stay)
    return [list(indices) for _, indices in groupby(range(len(times)), key=numbers.__getitem__)]


def _window(stay: list[int], rng: np.random.Generator) -> set[int]:
    """Consecutive studies of a stay; the same distribution forwards and backwards in time."""
    first, last = sorted(int(index) for index in rng.integers(stay[0], stay[-1] + 1, 2))
    return set(range(first, last + 1))


def _draw(name: str, rng: np.random.Generator) -> Device:
    side = "left" if rng.random() < {"pacemaker": 0.85, "central_line": 0.25, "picc": 0.35}.get(name, 0.2) else "right"
    if name in ("endotracheal_tube", "enteric_tube"):
        side = ""
    return Device(name, side, round(float(rng.uniform(*_LEAST_TIP[name])), 1), int(rng.integers(2**31)))


def _at(index: int, placed: list[tuple[Device, set[int]]], stays: list[list[int]]) -> tuple[Device, ...]:
    same_stay = any({index - 1, index} <= set(stay) for stay in stays)
    devices = []
    for device, studies in placed:
        now, before = index in studies, index - 1 in studies
        if now:
            devices.append(replace(device, step=("stable" if before else "new") if index else None))
        elif before and same_stay:
            devices.append(replace(device, step="removed"))
    return tuple(devices)
