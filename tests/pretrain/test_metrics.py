"""metrics.csv of a resumed run is that of an undisturbed one, whatever damaged the file."""

from pathlib import Path

import pytest

from medst.errors import MedstError
from medst.pretrain.metrics import Metrics


def row(step: int, split: str = "train") -> dict[str, object]:
    return {"step": step, "epoch": 1 + (step - 1) // 3, "split": split, "seconds": 0.25, "loss": step / 7}


ROWS = [row(1), row(2), row(3), row(3, "valid"), row(4), row(5), row(6), row(6, "valid")]


def test_metrics_cut_anywhere_or_ahead_of_the_checkpoint_end_as_undisturbed(tmp_path: Path) -> None:
    calm = Metrics(tmp_path / "metrics.csv")
    calm.cut(0, 0)
    for each in ROWS:
        calm.log(each)
    whole = calm.file.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        written = sum(end <= length for end in ends[1:])  # rows
        for saved in {written, length % (written + 1)}:  # the checkpoint may be of an earlier row
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
def test_lost_rows_are_restored_from_the_checkpoint(tmp_path: Path, damage: str, kept: bool) -> None:
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
    assert ("are restored from" if kept else "are lost") in note
    if kept:
        assert again.file.read_bytes() == whole
        assert again.cut(6, 2, state, digest) == ""


def test_rows_lost_with_an_early_checkpoint_are_reported(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.cut(0, 0)
    for each in ROWS[:3]:
        metrics.log(each)
    assert "lacked rows up to step 6, which are lost" in metrics.cut(6, 1, tmp_path)
    assert len(metrics.read()) == 3


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe", b"step,epoch\r\n1,2,3\r\n", b"a,b\r\n1,2\r\n", b"step,epoch,split\r\nx,1,train\r\n", b"\0\n"],
)
def test_damaged_metrics_are_refused(tmp_path: Path, damage: bytes) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.file.write_bytes(damage + b"\n")
    with pytest.raises(MedstError, match=r"metrics\.csv is damaged .*move it away"):
        metrics.read()


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv")
    metrics.file.write_bytes(b"step,epoch,split\r\n1,1\r\n")
    with pytest.raises(MedstError, match="line 2 has 2 values, the header has 3"):
        metrics.read()
