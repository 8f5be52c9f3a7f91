"""Draw when a patient is examined, in which views, and how each finding develops from study to study.

A complete course is drawn (onset, rise, plateau, fall, resolution), and the patient's studies are a random window of it.
The distribution of courses is the same forwards and backwards, so improving and worsening are equally frequent by
construction for any number of studies, and no label has to be discarded.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from medst_phantom.devices import sample_devices
from medst_phantom.findings import FINDINGS, SIDES, Device, Finding

MAX_STUDIES = 8
DRAINED = ("pneumothorax", "pleural_effusion")  # findings that a chest tube drains
CLEAR_STEP = 0.18  # least change of severity that is called a change
STABLE_STEP = 0.04  # largest change of severity that is called stable
LEAST_SEVERITY = 0.2  # a finding that is present is never fainter than this

_JITTER = 0.019  # two readings of one plateau differ by at most twice this, hence by less than STABLE_STEP
_RISE = CLEAR_STEP + 2 * _JITTER + 0.002
_FIRST_RISE = LEAST_SEVERITY + _JITTER + 0.002
_HOLD_PEAK, _HOLD_SLOPE = 1.35, 0.55  # mean number of stable studies on a course's peak and on its other levels
_STUDY_COUNT_WEIGHTS = (0.14, 0.19, 0.22, 0.17, 0.12, 0.08, 0.05, 0.03)
_COURSE_COUNT_WEIGHTS = (0.06, 0.37, 0.37, 0.20)


@dataclass(frozen=True)
class FindingState:
    """A finding in one study, with its change since the previous study.

    Attributes:
        finding: its present state; severity 0 if it has just resolved.
        progression: 'new', 'improving', 'stable', 'worsening' or 'resolved'; None in a patient's first study,
            which has no comparison.
        change: severity now minus severity in the previous study, -1 to 1; 0 in a first study.
    """

    finding: Finding
    progression: str | None
    change: float

    @property
    def present(self) -> bool:
        return self.finding.severity > 0


@dataclass(frozen=True)
class StudyTruth:
    """Time, views and findings of one study.

    Attributes:
        time: when it was taken, to the millisecond.
        views: view positions in the order they were taken, of 'PA', 'AP', 'LATERAL', 'LL'; at least one frontal.
        portable: taken at the bedside (always AP, never with a lateral).
        findings: present and just-resolved findings, in the order of the patient's courses.
        follow_up: whether the patient has an earlier study.
        devices: in place, or removed since the previous study.
    """

    time: datetime
    views: tuple[str, ...]
    portable: bool
    findings: tuple[FindingState, ...]
    follow_up: bool
    devices: tuple[Device, ...] = ()

    @property
    def present(self) -> tuple[Finding, ...]:
        return tuple(state.finding for state in self.findings if state.present)


def sample_trajectory(rng: np.random.Generator) -> tuple[StudyTruth, ...]:
    """Draw one patient: 1 to 8 studies in time order, no two within six hours of each other."""
    count = 1 + int(rng.choice(MAX_STUDIES, p=_STUDY_COUNT_WEIGHTS))
    lesions = _sample_lesions(rng)
    courses = [_observed(_sample_course(rng), count, rng) for _ in lesions]
    studies = []
    for index, time in enumerate(_sample_times(count, rng)):
        states = []
        for lesion, severities in zip(lesions, courses, strict=True):
            before = severities[index - 1] if index else None
            progression = progression_between(before, severities[index])
            if severities[index] > 0 or progression == "resolved":
                finding = Finding(severity=severities[index], **lesion)
                change = 0.0 if before is None else round(severities[index] - before, 4)
                states.append(FindingState(finding, progression, change))
        worst = max((state.finding.severity for state in states), default=0.0)
        portable, views = _sample_views(worst, rng)
        studies.append(StudyTruth(time, views, portable, tuple(states), follow_up=index > 0))
    return _with_devices(studies, rng)


def _with_devices(studies: list[StudyTruth], rng: np.random.Generator) -> tuple[StudyTruth, ...]:
    drained = [
        next((f.side for f in study.present if f.name in DRAINED and f.side in SIDES[:2]), "") for study in studies
    ]
    devices = sample_devices([study.time for study in studies], [study.portable for study in studies], drained, rng)
    return tuple(replace(study, devices=placed) for study, placed in zip(studies, devices, strict=True))


def progression_between(before: float | None, now: float) -> str | None:
    """Name the change from one severity to the next; None without an earlier study or with nothing to see.

    >>> progression_between(0.5, 0.3), progression_between(0.0, 0.4), progression_between(0.4, 0.42)
    ('improving', 'new', 'stable')
    """
    if before is None or before == now == 0:
        return None
    if before == 0:
        return "new"
    if now == 0:
        return "resolved"
    if abs(now - before) <= STABLE_STEP:
        return "stable"
    return "improving" if now < before else "worsening"


def _sample_lesions(rng: np.random.Generator) -> list[dict]:
    """One lesion per finding, with its side, zone and seed: a `Finding` without the severity."""
    count = int(rng.choice(len(_COURSE_COUNT_WEIGHTS), p=_COURSE_COUNT_WEIGHTS))
    names = [FINDINGS[i] for i in rng.permutation(len(FINDINGS))[:count]]
    # In a fixed order, so that a lesion that shares a pleural space or a lobe can avoid earlier ones.
    places: dict[str, tuple[str, str]] = {}
    for name in sorted(names, reverse=True):
        places[name] = _sample_place(name, places, rng)
    return [
        {"name": name, "side": places[name][0], "zone": places[name][1], "seed": int(rng.integers(2**31))}
        for name in names
    ]


def _sample_place(name: str, taken: dict[str, tuple[str, str]], rng: np.random.Generator) -> tuple[str, str]:
    one_side = "right" if rng.random() < 0.5 else "left"
    if name == "edema":
        return "bilateral", "mid"
    if name == "pneumothorax":
        return one_side, "upper"
    if name == "pleural_effusion":
        if "pneumothorax" in taken:
            return ("left" if taken["pneumothorax"][0] == "right" else "right"), "lower"
        return ("bilateral" if rng.random() < 0.3 else one_side), "lower"
    # Consolidation and pneumonia look alike: in one patient they never lie in the same lobe.
    other = taken.get("pneumonia")
    while True:
        zone = str(rng.choice(["upper", "mid", "lower", "retrocardiac"], p=[0.25, 0.2, 0.38, 0.17]))
        side = "right" if rng.random() < 0.5 else "left"
        if zone == "retrocardiac":
            side = "left"
        elif rng.random() < 0.12:
            side = "bilateral"
        lower = ("lower", "retrocardiac")
        same_zone = other is not None and (zone == other[1] or (zone in lower and other[1] in lower))
        if not (other is not None and same_zone and (side == other[0] or "bilateral" in (side, other[0]))):
            return side, zone


def _sample_course(rng: np.random.Generator) -> list[float]:
    """Severities of one course from onset to the last study before resolution, all present."""
    peak = 0.28 + (1.0 - _JITTER - 0.28) * float(rng.beta(1.7, 1.1))
    up, down = _sample_slope(peak, rng), _sample_slope(peak, rng)
    levels = [*up, *down[-2::-1]]
    severities = []
    for level in levels:
        mean = _HOLD_PEAK if level == peak else _HOLD_SLOPE
        readings = level + rng.uniform(-_JITTER, _JITTER, int(rng.geometric(1 / (1 + mean))))
        severities += [round(float(reading), 4) for reading in readings]
    return severities


def _sample_slope(peak: float, rng: np.random.Generator) -> list[float]:
    """Levels that rise from absence to `peak` in one to four clear steps; the last one is `peak`."""
    most = min(4, 1 + int((peak - _FIRST_RISE) / _RISE))
    weights = np.array([1.0, 2.0, 3.0, 3.0])[:most]
    steps = 1 + int(rng.choice(most, p=weights / weights.sum()))
    spare = peak - _FIRST_RISE - (steps - 1) * _RISE
    shares = rng.dirichlet(np.ones(steps)) * spare
    rises = shares + np.array([_FIRST_RISE] + [_RISE] * (steps - 1))
    return [float(level) for level in np.cumsum(rises)[:-1]] + [peak]


def _observed(course: list[float], count: int, rng: np.random.Generator) -> list[float]:
    """Severities in `count` consecutive studies, at least one of them within the course."""
    padded = [0.0] * (count - 1) + course + [0.0] * (count - 1)
    start = int(rng.integers(len(padded) - count + 1))
    return padded[start : start + count]


def _sample_times(count: int, rng: np.random.Generator) -> list[datetime]:
    """Dates shifted into 2100 to 2200 as in MIMIC; gaps from six hours (in hospital) to months (clinic)."""
    start = datetime(2110, 1, 1) + timedelta(days=int(rng.integers(80 * 365)))
    time = start + timedelta(milliseconds=int(rng.integers(24 * 3600 * 1000)))
    times = [time]
    inpatient = rng.random() < 0.6
    for _ in range(count - 1):
        if rng.random() < (0.75 if inpatient else 0.2):
            hours = float(rng.choice([6, 9, 12, 24, 24, 24, 48])) + float(rng.uniform(0, 3))
        else:
            hours = 24 * float(np.exp(rng.uniform(np.log(3), np.log(200))))
        time = time + timedelta(milliseconds=round(hours * 3600 * 1000))
        times.append(time)
    return times


def _sample_views(worst: float, rng: np.random.Generator) -> tuple[bool, tuple[str, ...]]:
    """Whether the study is portable, and its views; the sicker the patient, the more likely a bedside study."""
    portable = bool(rng.random() < 0.28 + 0.3 * worst)
    frontal = "AP" if portable or rng.random() < 0.07 else "PA"
    views = [frontal]
    if not portable and rng.random() < 0.84:
        views.append("LATERAL" if rng.random() < 0.7 else "LL")
    if rng.random() < 0.08:
        views.append(frontal)
    return portable, tuple(views)
