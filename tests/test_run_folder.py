"""A run's folder refuses what would mix two runs up, and never shows half a state."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.recipes import RECIPES
from medst.run_folder import RunFolder, read_place, write_place

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


def row(step: int, split: str = "train") -> dict[str, object]:
    return {"step": step, "epoch": 1 + (step - 1) // 3, "split": split, "seconds": 0.25, "loss": step / 7}


ROWS = [row(1), row(2), row(3), row(3, "valid"), row(4), row(5), row(6), row(6, "valid")]


def test_metrics_cut_off_anywhere_or_ahead_of_the_state_end_as_undisturbed(tmp_path: Path) -> None:
    calm = RunFolder(tmp_path)
    calm.cut_metrics(0, 0)
    for each in ROWS:
        calm.log(each)
    whole = calm.metrics.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        written = sum(end <= length for end in ends[1:])  # rows
        for saved in {written, length % (written + 1)}:  # the state may be of an earlier row
            done = ROWS[:saved]
            calm.metrics.write_bytes(whole[:length])
            calm.cut_metrics(
                max((int(str(r["step"])) for r in done if r["split"] == "train"), default=0),
                sum(r["split"] == "valid" for r in done),
            )
            for each in ROWS[saved:]:
                calm.log(each)
            assert calm.metrics.read_bytes() == whole, (length, saved)


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"step,epoch\r\n1,2,3\r\n", b"a,b\r\n1,2\r\n", b"step,epoch,split\r\nx,1,train\r\n", b"\0\n"],
)
def test_damaged_metrics_are_refused_in_a_sentence(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(damage + b"\n")
    with pytest.raises(MedstError, match=r"metrics\.csv is damaged .*move it away"):
        folder.read_metrics()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe": 3}', b'{"medst_version": "0", "recipe": {}}'])
def test_damaged_settings_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(MedstError, match=r"settings\.json is damaged .*give another run folder"):
        RunFolder(tmp_path).start(TINY, COHORT)


@pytest.mark.parametrize("name", ["settings.json.part", "settings.json.12.part", ".run.lock"])
def test_leftovers_of_a_first_write_are_not_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert RunFolder(tmp_path).start(TINY, COHORT) is False


def test_a_flipped_bit_in_the_place_of_a_state_is_found(tmp_path: Path) -> None:
    at = {"step": 10, "best_loss": 1.25, "validated": 2, "recent": [1.5, 2.0]}
    write_place(tmp_path, at)
    assert read_place(tmp_path) == at
    whole = (tmp_path / "run.json").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "run.json").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(MedstError):  # in the digest's own name it is a state of an earlier version
            assert {key: read_place(tmp_path)[key] for key in at} == at
