"""A run with any settings trains, with finite losses, or is refused in one sentence that leaves nothing behind."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pretrain.attempts import MEMORY, STEPS, attempt, drawn

from medst.child import GuardedProcess
from medst.recipes.settings import Recipe, to_dict


@pytest.fixture(scope="module")
def base(small_recipe: Recipe) -> dict[str, Any]:
    optimiser = replace(small_recipe.optimiser, stop_after=STEPS, epochs=1)
    return to_dict(replace(small_recipe, optimiser=optimiser, run=replace(small_recipe.run, logger="csv")))


@pytest.fixture(scope="module")
def child() -> Iterator[GuardedProcess]:
    # Its limit is far above that of an attempt, because a child that has grown by half of it is replaced.
    with pytest.MonkeyPatch.context() as patch, GuardedProcess(seconds=60, memory=16 * MEMORY) as process:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield process


def holds(child: GuardedProcess, cohort: Path, run: Path, made: dict[str, Any]) -> None:
    try:
        found = child(attempt, str(cohort), str(run), made)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if "refused" in found:
        assert not found["written"], found["refused"]
        assert found["refused"].endswith(".")
        assert "\n" not in found["refused"]
    else:
        assert 1 <= len(found["losses"]) <= STEPS
        assert all(map(math.isfinite, found["losses"])), found["losses"]


def test_the_unchanged_base_trains(
    child: GuardedProcess, phantom_cohort: Path, base: dict[str, Any], tmp_path: Path
) -> None:
    assert len(child(attempt, str(phantom_cohort), str(tmp_path / "run"), base)["losses"]) == STEPS


def _examples(count: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@_examples(30)
@given(data=st.data())
def test_drawn_settings_train_or_are_refused(
    data: st.DataObject, child: GuardedProcess, phantom_cohort: Path, base: dict[str, Any], tmp_path: Path
) -> None:
    holds(child, phantom_cohort, tmp_path / "run", data.draw(drawn(base)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@_examples(500)
@given(data=st.data())
def test_many_drawn_settings_train_or_are_refused(
    data: st.DataObject, child: GuardedProcess, phantom_cohort: Path, base: dict[str, Any], tmp_path: Path
) -> None:
    holds(child, phantom_cohort, tmp_path / "run", data.draw(drawn(base)))
