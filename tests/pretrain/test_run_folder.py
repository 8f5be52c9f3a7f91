"""A run's folder refuses what would mix two runs up, and never shows half a state."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.pretrain.checkpoint import RunFolder, TrainState
from medst.pretrain.environment import add_environment
from medst.pretrain.metrics import Metrics
from medst.recipes import RECIPES

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
        folder.checkpoint(step).mkdir(parents=True)
    (tmp_path / "state" / "step-000000200.part").mkdir()
    assert [p.name for p in folder.checkpoints()] == ["step-000000100", "step-000000020", "step-000000005"]
    folder.drop_old_checkpoints(2)
    assert [p.name for p in folder.checkpoints()] == ["step-000000100", "step-000000020"]


def row(step: int, split: str = "train") -> dict[str, object]:
    return {"step": step, "epoch": 1 + (step - 1) // 3, "split": split, "seconds": 0.25, "loss": step / 7}


ROWS = [row(1), row(2), row(3), row(3, "valid"), row(4), row(5), row(6), row(6, "valid")]


def test_metrics_cut_off_anywhere_or_ahead_of_the_state_end_as_undisturbed(tmp_path: Path) -> None:
    calm = Metrics(tmp_path / "metrics.csv")
    calm.cut(0, 0)
    for each in ROWS:
        calm.log(each)
    whole = calm.file.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        written = sum(end <= length for end in ends[1:])  # rows
        for saved in {written, length % (written + 1)}:  # the state may be of an earlier row
            done = ROWS[:saved]
            calm.file.write_bytes(whole[:length])
            calm.cut(
                max((int(str(r["step"])) for r in done if r["split"] == "train"), default=0),
                sum(r["split"] == "valid" for r in done),
            )
            for each in ROWS[saved:]:
                calm.log(each)
            assert calm.file.read_bytes() == whole, (length, saved)


@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted", "of another run", "garbage"])
@pytest.mark.parametrize("kept", [True, False])
def test_rows_that_metrics_lost_come_back_from_the_state(tmp_path: Path, damage: str, kept: bool) -> None:
    metrics, state = Metrics(tmp_path / "metrics.csv"), tmp_path / "state" / "step-000000006"
    metrics.cut(0, 0)
    for each in ROWS:
        metrics.log(each)
    digest = metrics.copy_to(state)
    whole = metrics.file.read_bytes()
    metrics.log(row(7))  # is computed again
    if damage == "deleted":
        metrics.file.unlink()
    else:
        damaged = {"cut": whole[:-150], "emptied": b"", "of another run": whole.replace(b"0.25", b"0.75")}
        metrics.file.write_bytes(damaged.get(damage, b"\xff\n"))
    if not kept:
        (state / "metrics.csv").write_bytes(whole.replace(b"0.25", b"0.35"))
    again = Metrics(tmp_path / "metrics.csv")
    note = again.cut(6, 2, state, digest)
    assert (tmp_path / "metrics.csv.damaged").is_file() is (damage != "deleted")
    assert ("restored from" if kept else "can't be restored") in note
    if kept:
        assert again.file.read_bytes() == whole
        assert again.cut(6, 2, state, digest) == ""


def test_rows_that_a_state_of_an_earlier_version_cannot_give_back_are_named(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.cut(0, 0)
    for each in ROWS[:3]:
        metrics.log(each)
    assert "lacked 3 train rows (steps 4 to 6)" in metrics.cut(6, 1, tmp_path)
    assert len(metrics.read()) == 3


def test_what_is_not_a_file_or_not_a_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    (tmp_path / "state").touch()
    with pytest.raises(MedstError, match="state is not a folder; put"):
        folder.start(TINY, COHORT)
    folder.metrics.file.mkdir()
    with pytest.raises(MedstError, match=r"is a folder, not a regular file\. Move it away"):
        folder.metrics.cut(0, 0)


def test_a_damaged_note_of_the_environment_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "environment.json"
    assert add_environment(file, 1) == ""
    file.write_text("{")
    assert "was damaged; it is now environment.json.damaged" in add_environment(file, 1)
    assert len(json.loads(file.read_text())) == 1


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"step,epoch\r\n1,2,3\r\n", b"a,b\r\n1,2\r\n", b"step,epoch,split\r\nx,1,train\r\n", b"\0\n"],
)
def test_damaged_metrics_are_refused_in_a_sentence(tmp_path: Path, damage: bytes) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.file.write_bytes(damage + b"\n")
    with pytest.raises(MedstError, match=r"metrics\.csv is damaged .*move it away"):
        metrics.read()


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.file.write_bytes(b"step,epoch,split\r\n1,1\r\n")
    with pytest.raises(MedstError, match="line 2 has 2 values, the header has 3"):
        metrics.read()


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
    state = TrainState(step=10, best_loss=1.25, validated=2, recent=[1.5, 2.0])
    state.write(tmp_path)
    assert TrainState.read(tmp_path) == state
    whole = (tmp_path / "run.json").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "run.json").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(MedstError):  # in the digest's own name it is a state of an earlier version
            assert TrainState.read(tmp_path) == state
