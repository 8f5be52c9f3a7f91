"""Devices come and go with a stay, are drawn where they are, and are described as they are drawn."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import device_statements
from medst_phantom.devices import sample_devices
from medst_phantom.findings import DEVICES, Device
from medst_phantom.radiograph import Acquisition, render, sample_acquisition
from medst_phantom.trajectory import StudyTruth

DAYS = (0, 1, 2, 3, 60, 61, 62)
TIMES = [datetime(2150, 1, 1) + timedelta(days=day) for day in DAYS]
ANATOMY = sample_anatomy(np.random.default_rng(3))


def drawn(seed: int) -> list[tuple[Device, ...]]:
    portable = [True, True, True, False, True, True, False]
    return sample_devices(TIMES, portable, ["", "left", "left", "", "", "", ""], np.random.default_rng(seed))


@pytest.fixture(scope="module")
def many() -> list[list[tuple[Device, ...]]]:
    return [drawn(seed) for seed in range(400)]


def test_steps_follow_from_the_studies(many):
    seen = set()
    for studies in many:
        before: set[int] = set()
        for index, devices in enumerate(studies):
            now = {device.seed for device in devices if device.present}
            for device in devices:
                seen.add((device.name, device.step))
                if index == 0:
                    assert device.step is None
                elif device.present:
                    assert device.step == ("stable" if device.seed in before else "new")
                else:
                    assert device.seed in before
                    assert index != 4  # the next stay says nothing of what was removed long ago
            before = now
    assert seen >= {(name, step) for name in DEVICES[:4] for step in (None, "new", "stable", "removed")}
    assert {name for name, _ in seen} == set(DEVICES)


def test_tubes_are_in_bedside_studies_and_the_first_tube_is_as_often_new_as_removed(many):
    steps = []
    for studies in many:
        for index in (3, 6):
            assert not {"endotracheal_tube", "enteric_tube", "central_line"} & {
                d.name for d in studies[index] if d.present
            }
        steps += [device.step for devices in studies[1:3] for device in devices if device.name == "picc"]
    new, removed = steps.count("new"), steps.count("removed")
    assert abs(new - removed) < 3 * np.sqrt(new + removed)


def test_a_chest_tube_is_on_the_side_that_it_drains(many):
    sides = {
        device.side for studies in many for devices in studies for device in devices if device.name == "chest_tube"
    }
    assert sides == {"left"}


def plain(view: str) -> Acquisition:
    shot = sample_acquisition(view, np.random.default_rng(0))
    return replace(shot, noise=0.0, tilt=0.0, rotation=0.0, offset=(0.0, 0.0))


def device(name: str, side: str = "left", tip: float = 3.0, step: str | None = None) -> Device:
    return Device(name, side, tip, 7, step)


@pytest.mark.parametrize("view", ["PA", "LATERAL"])
@pytest.mark.parametrize("name", DEVICES)
def test_every_device_shows_in_both_views_until_it_is_removed(name: str, view: str) -> None:
    without = render(ANATOMY, [], plain(view)).astype(float)
    placed = render(ANATOMY, [], plain(view), [device(name)]).astype(float)
    assert (placed - without).max() > 15
    assert np.array_equal(without, render(ANATOMY, [], plain(view), [device(name, step="removed")]))


@pytest.mark.parametrize("name", ["chest_tube", "pacemaker", "picc", "port"])
@pytest.mark.parametrize(("side", "half"), [("right", 0), ("left", 1)])
def test_a_device_enters_on_its_side(name: str, side: str, half: int) -> None:
    change = np.abs(
        render(ANATOMY, [], plain("PA"), [device(name, side)]).astype(float) - render(ANATOMY, [], plain("PA"))
    )
    middle, near = change.shape[1] // 2, 80  # pixels: 6 cm
    outer = change[:, : middle - near].sum(), change[:, middle + near :].sum()
    assert outer[half] > 2 * outer[1 - half]  # metal also shifts the display a little everywhere


def test_a_higher_tube_ends_higher() -> None:
    without = render(ANATOMY, [], plain("PA")).astype(float)
    ends = []
    for tip in (1.6, 7.0):
        change = render(ANATOMY, [], plain("PA"), [device("endotracheal_tube", "", tip)]) - without
        ends.append(np.nonzero(change.max(axis=1) > 8)[0].max())
    assert 4 < (ends[0] - ends[1]) / 13 < 7


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("step", [None, "new", "stable", "removed"])
def test_sentences_on_devices(name: str, step: str | None) -> None:
    placed = device(name, "left", 4.0 if name in ("endotracheal_tube", "chest_tube") else -2.0, step)
    study = StudyTruth(TIMES[0], ("AP",), True, (), step is not None, (placed,))
    rng = np.random.default_rng(0)
    said = [statement for _ in range(60) for statement in device_statements(study, rng)]
    assert len({statement.text for statement in said}) >= (2 if step is None else 1)
    for statement in said:
        assert dict(statement.labels) == {"Support Devices": 0.0 if step == "removed" else 1.0}
        assert "{" not in statement.text
        assert "right " not in statement.text.replace("right atri", "").replace("right ventr", "").replace(
            "right heart", ""
        )
        # Nothing is new or removed that was there before; a first study compares with nothing.
        if step in (None, "stable"):
            assert not any(word in statement.text.lower() for word in ("interval", "new ", "removed", "has been"))
        if step is None:
            assert not any(word in statement.text.lower() for word in ("unchanged", "remains"))
    if name == "endotracheal_tube" and step is None:
        assert all("4.0 cm" in statement.text for statement in said)


def test_words_for_the_tip_follow_its_height() -> None:
    rng = np.random.default_rng(0)
    for tip, words in ((-0.5, "mid"), (-2.5, "low"), (-4.0, "cavoatrial"), (0.5, "upper"), (-5.5, "right atrium")):
        study = StudyTruth(TIMES[0], ("AP",), True, (), False, (device("picc", "left", tip),))
        said = " ".join(s.text for _ in range(30) for s in device_statements(study, rng))
        assert words in said
        assert (
            sum(word in said for word in ("mid ", "low ", "upper SVC", "right atrium", "the cavo")) == 1
            or "back" in said
        )
