"""Starting the page: its address, its signals, and what keeps it from starting."""

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.app.page_helpers import opened_page

from medst.app import serve
from medst.app.serve import is_public, last_demo
from medst.cli import main
from medst.errors import MedstError


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGHUP])
def test_the_page_runs_until_a_signal_and_leaves_no_file(small_model: Path, tmp_path: Path, end: int) -> None:
    with opened_page(tmp_path, str(small_model)) as page:
        assert page.address.startswith("http://127.0.0.1:")
        assert "A patient over time" in page.ask("")[2]
        [folder] = page.private
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "left").write_text("behind")
        tab = urllib.request.urlopen(f"{page.address}gradio_api/heartbeat/a?token={page.token}")  # as an open tab's
        page.process.send_signal(end)
        page.process.send_signal(end)  # a second one while it cleans up
        assert page.process.wait(30) in (0, 130)
    tab.close()
    assert page.private == []
    assert (tmp_path / "said.txt").read_text() == ""
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page.address)


def test_the_next_page_removes_the_files_of_a_killed_one(small_model: Path, tmp_path: Path) -> None:
    with opened_page(tmp_path, str(small_model), "--no-token") as page:
        assert page.opened == page.address
        assert page.ask("config")[0] == 200
        assert page.ask("config", Host="evil.example")[0] == 403
        assert page.ask("config", Origin="http://127.0.0.1:1")[0] == 403
        [left] = page.private
        (left / "a.png").write_text("somebody's")
        page.process.kill()
        page.process.wait(30)
        assert left.is_dir()
    with opened_page(tmp_path, str(small_model)) as page, opened_page(tmp_path, str(small_model)) as other:
        assert left not in other.private
        assert len(page.private) == 2  # those of pages that are up stay
    assert list(tmp_path.glob("medst-app-*")) == []


def test_a_port_that_is_taken(small_model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "medst", "app", str(small_model), "--port", str(port)],
            check=False, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"medst: port {port} is in use by other programs; give another --port.\n"
    assert list(tmp_path.glob("medst-app-*")) == []


def test_who_can_reach_it() -> None:
    assert not is_public("127.0.0.1")
    assert not is_public("localhost")
    assert not is_public("::1")
    assert is_public("0.0.0.0")
    assert is_public("192.168.0.7")
    with pytest.raises(MedstError, match="'example' is not an address to listen at"):
        is_public("example")


def test_the_names_that_it_answers_to() -> None:
    own = {"localhost", "127.0.0.1", "::1"}
    assert serve._host_names("127.0.0.1", ["Ward.example"]) == own | {"ward.example"}
    assert serve._host_names("192.168.0.7", []) == {"192.168.0.7"}
    everywhere = serve._host_names("0.0.0.0", [])
    assert own | {socket.gethostname().lower()} <= everywhere
    assert "evil.example" not in everywhere


def test_the_last_demo(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"no finished demo in .*; run `medst demo` first"):
        last_demo(tmp_path)
    (tmp_path / "run" / "last").mkdir(parents=True)
    (tmp_path / "run" / "last" / "model.safetensors").touch()
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "cohort.json").touch()
    assert last_demo(tmp_path) == (tmp_path / "run" / "last", tmp_path / "cohort")


def test_refusals_of_the_command(
    small_model: Path, phantom_comparisons: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["app"], "no finished demo in medst-demo"),
        (["app", "nowhere"], "nowhere: no such"),
        (["app", str(small_model), "nowhere"], "nowhere: no cohort here"),
        (["app", str(small_model), str(phantom_comparisons)], "has no pairs"),
        (["app", str(small_model), "--host", "example"], "not an address to listen at"),
        (["app", str(small_model), "--port", "70000"], "--port 70000 does not exist"),
        (["app", str(small_model), "--upload", "0"], "--upload 0 is not a size"),
        (["app", str(small_model), "--host", "203.0.113.1"], "can't listen at 203.0.113.1:7860"),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 1
        said = capsys.readouterr()
        assert message in said.err
        assert "Traceback" not in said.err
