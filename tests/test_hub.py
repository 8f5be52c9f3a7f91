"""Weights by name: a local path, or a model of the hub, which is asked only once."""

from collections.abc import Callable
from pathlib import Path

import pytest

import medst
from medst.errors import MedstError
from medst.hub import find, find_weights


def test_a_path_takes_precedence_and_a_folder_means_its_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"old")
    assert find_weights(tmp_path, "--x") == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"new")
    assert find_weights(tmp_path, "--x") == tmp_path / "model.safetensors"
    assert find_weights(tmp_path / "pytorch_model.bin", "--x") == tmp_path / "pytorch_model.bin"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedstError, match=r"--x .*empty: this folder has no weights; it needs model.safetensors or"):
        find_weights(tmp_path / "empty", "--x")


def test_the_offline_cache_is_used(tmp_path: Path, hub: Callable[[str, Path], None]) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "pytorch_model.bin").write_bytes(b"weights")
    hub("someone/a-model", tmp_path / "files")
    found = find_weights("someone/a-model", "--x")
    assert found.name == "pytorch_model.bin"
    assert found.read_bytes() == b"weights"
    with pytest.raises(MedstError, match=r"--x someone/none: .*HF_HUB_OFFLINE is set, .*give a local folder"):
        find("someone/none", "--x", ["*"])


def test_a_mistyped_name_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network every attempt to connect fails; Hugging Face's mixin would make six, with pauses."""
    import socket
    import time

    asked: list[object] = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def wait(seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s to try again")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(MedstError, match=r"someone/mistyped: .*the hub can't be reached, and its local cache"):
        medst.load("someone/mistyped")
    assert len(asked) == 1


def test_a_long_name_is_shortened_and_a_device_is_refused() -> None:
    for name in ("a" * 6000, "a/" * 3000, "a\0b"):
        with pytest.raises(MedstError, match=r"^--start.deit ") as refused:
            find(name, "--start.deit", ["*"])
        assert len(str(refused.value)) < 300
    with pytest.raises(MedstError, match=r"--start\.deit /dev/zero: not a regular file"):
        find("/dev/zero", "--start.deit", ["*"])


def test_a_name_that_cannot_be_a_hub_id_is_a_missing_file(tmp_path: Path) -> None:
    for name in (tmp_path / "none", "none", "./none", "a/b/c"):
        with pytest.raises(MedstError, match="no such file or folder"):
            find(name, "--x", ["*"])
