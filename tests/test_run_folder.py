"""A run's folder refuses what would mix two runs up, and never shows half a state."""

from dataclasses import replace
from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.recipes import RECIPES
from medst.run_folder import COLUMNS, RunFolder

TINY = RECIPES["tiny"]
COHORT = {"dataset": "mimic-cxr", "fingerprint": "abc"}


def test_a_new_folder_holds_no_run_and_a_second_start_finds_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.start(TINY, COHORT) is False
    assert folder.start(TINY, COHORT) is True


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    other = replace(TINY, optimiser=replace(TINY.optimiser, lr=0.5))
    with pytest.raises(MedstError, match=r"other settings \(optimiser\.lr\)"):
        folder.start(other, COHORT)


def test_how_a_run_is_carried_out_may_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    again = replace(
        TINY, run=replace(TINY.run, loader_workers=3), optimiser=replace(TINY.optimiser, stop_after=5), name="mine"
    )
    assert folder.start(again, COHORT) is True


def test_the_seed_may_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    with pytest.raises(MedstError, match=r"run\.seed"):
        folder.start(replace(TINY, run=replace(TINY.run, seed=7)), COHORT)


def test_another_cohort_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    with pytest.raises(MedstError, match="another cohort"):
        folder.start(TINY, COHORT | {"fingerprint": "def"})


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MedstError, match="not empty"):
        RunFolder(tmp_path).start(TINY, COHORT)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_states_are_newest_first_and_complete_ones_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (5, 100, 20):
        folder.state_path(step).mkdir(parents=True)
    (tmp_path / "state" / "step-000000200.part").mkdir()
    assert [p.name for p in folder.states()] == ["step-000000100", "step-000000020", "step-000000005"]
    folder.drop_old_states(2)
    assert [p.name for p in folder.states()] == ["step-000000100", "step-000000020"]


def test_metrics_after_the_resumed_step_are_forgotten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.cut_metrics(0)
    for step in range(1, 6):
        folder.log({"step": step, "epoch": 1, "split": "train", "loss": step / 10})
    with folder.metrics.open("a") as file:
        file.write("6,1,tra")  # torn by a kill
    folder.cut_metrics(3)
    rows = folder.read_metrics()
    assert [(row["step"], row["loss"]) for row in rows] == [("1", "0.1"), ("2", "0.2"), ("3", "0.3")]
    assert tuple(rows[0]) == COLUMNS
