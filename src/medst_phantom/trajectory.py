"""Draw when a patient is examined, in which views, and how each finding develops from study to study.

A complete course is drawn (onset, clear steps up and down with plateaus between them, resolution), and the patient's studies
are a random window of it. The distribution of courses is the same forwards and backwards, so improving and worsening are
equally frequent by construction, at any place in a patient's series. Neither the setting of a study (bedside or not), nor
its time, nor its views depend on how severe a finding is.

Most patients have findings about as often as those of MIMIC-CXR. Followed patients have more studies and findings, as the
patients whose studies were chosen for MS-CXR-T: docs/phantom.md has the figures.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from medst_phantom.devices import sample_devices, stays_of
from medst_phantom.findings import DEVELOPING, FINDINGS, SIDES, Device, Finding

MAX_STUDIES = 8
DRAINED = ("pneumothorax", "pleural_effusion")  # findings that a chest tube drains
CLEAR_STEP = 0.12  # least change of severity that is called a change
STABLE_STEP = 0.04  # largest change of severity that is called stable
LEAST_SEVERITY = 0.16  # a finding that is present is never fainter than this

_JITTER = 0.012  # two readings of one plateau differ by at most twice this, hence by less than STABLE_STEP
_STEP = CLEAR_STEP + 2 * _JITTER + 0.002  # least distance of two plateaus
_MORE = 0.03  # mean distance beyond that


@dataclass(frozen=True)
class Kind:
    """A kind of patient.

    Attributes:
        studies: weights of 1 to 8 studies.
        levels: mean number of plateaus of a course.
        hold: mean number of studies on a plateau.
        shares: by finding, how often the patient has a course of it.
    """

    studies: tuple[float, ...]
    levels: float
    hold: float
    shares: dict[str, float]


GENERAL = Kind(
    (0.30, 0.22, 0.17, 0.12, 0.08, 0.05, 0.035, 0.025),
    3.0,
    1.7,
    {
        "consolidation": 0.075,
        "edema": 0.19,
        "pleural_effusion": 0.38,
        "pneumonia": 0.125,
        "pneumothorax": 0.075,
        "atelectasis": 0.33,
    },
)
FOLLOWED = Kind(
    (0.0, 0.0, 0.05, 0.15, 0.20, 0.20, 0.20, 0.20), 8.0, 1.35, {**dict.fromkeys(FINDINGS, 0.55), "atelectasis": 0.2}
)
FOLLOWED_SHARES = {"train": 0.25, "validate": 0.25, "test": 0.95}
"""Share of followed patients by split; all comparisons are those of test patients."""
_STAY_AT_BEDSIDE = {True: 0.70, False: 0.30}  # of stays with several studies, and of single studies
_PORTABLE = {True: 0.93, False: 0.08}  # of the studies in a stay at the bedside, and of others


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


def sample_trajectory(rng: np.random.Generator, kind: Kind = GENERAL) -> tuple[StudyTruth, ...]:
    """Draw one patient: 1 to 8 studies in time order, no two within six hours of each other."""
    count = 1 + int(rng.choice(MAX_STUDIES, p=kind.studies))
    lesions = _sample_lesions(kind, rng)
    courses = [_observed(_sample_course(kind, rng), count, rng) for _ in lesions]
    times = _sample_times(count, rng)
    studies = []
    for index, (time, portable) in enumerate(zip(times, _sample_settings(times, rng), strict=True)):
        states = []
        for lesion, severities in zip(lesions, courses, strict=True):
            before = severities[index - 1] if index else None
            progression = progression_between(before, severities[index])
            if severities[index] > 0 or progression == "resolved":
                finding = Finding(severity=severities[index], **lesion)
                change = 0.0 if before is None else round(severities[index] - before, 4)
                states.append(FindingState(finding, progression, change))
        studies.append(StudyTruth(time, _sample_views(portable, rng), portable, tuple(states), follow_up=index > 0))
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


def _sample_lesions(kind: Kind, rng: np.random.Generator) -> list[dict]:
    """One lesion per finding, with its side, zone and seed: a `Finding` without the severity."""
    names = [name for name in DEVELOPING if rng.random() < kind.shares[name]]
    names = [names[i] for i in rng.permutation(len(names))]
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
    if name == "atelectasis":
        return _free_base(taken, rng), "lower"
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


def _free_base(taken: dict[str, tuple[str, str]], rng: np.random.Generator) -> str:
    """Side of an atelectasis; not where another opacity fills the base, unless both are filled."""
    low = ("lower", "retrocardiac")
    filled = {taken[name][0] for name in ("consolidation", "pneumonia") if name in taken and taken[name][1] in low}
    free = [side for side in SIDES[:2] if side not in filled and "bilateral" not in filled]
    if len(free) != 1 and rng.random() < 0.35:
        return "bilateral"
    return str(rng.choice(free or SIDES[:2]))


def _sample_course(kind: Kind, rng: np.random.Generator) -> list[float]:
    """Severities of one course from onset to the last study before resolution, all present: a walk over plateaus.

    Half of the walks are reversed, because one that turns back at the ends of the scale is not its own mirror image.
    """
    level = float(rng.uniform(LEAST_SEVERITY + _JITTER, 1.0 - _JITTER))
    severities = []
    for _ in range(int(rng.geometric(1 / kind.levels))):
        readings = level + rng.uniform(-_JITTER, _JITTER, int(rng.geometric(1 / kind.hold)))
        severities += [round(float(reading), 4) for reading in readings]
        level = _next_level(level, rng)
    return severities[::-1] if rng.random() < 0.5 else severities


def _next_level(level: float, rng: np.random.Generator) -> float:
    while True:
        step = (_STEP + float(rng.exponential(_MORE))) * (1 if rng.random() < 0.5 else -1)
        if LEAST_SEVERITY + _JITTER <= level + step <= 1.0 - _JITTER:
            return level + step


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


def _sample_settings(times: list[datetime], rng: np.random.Generator) -> list[bool]:
    """Whether each study is taken at the bedside, which is mostly the same throughout a stay in hospital."""
    portable = []
    for stay in stays_of(times):
        bedside = bool(rng.random() < _STAY_AT_BEDSIDE[len(stay) > 1])
        portable += [bool(rng.random() < _PORTABLE[bedside]) for _ in stay]
    return portable


def _sample_views(portable: bool, rng: np.random.Generator) -> tuple[str, ...]:
    frontal = "AP" if portable or rng.random() < 0.07 else "PA"
    views = [frontal]
    if not portable and rng.random() < 0.9:
        views.append("LATERAL" if rng.random() < 0.7 else "LL")
    if rng.random() < 0.08:
        views.append(frontal)
    return tuple(views)
