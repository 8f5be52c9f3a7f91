"""The folder of visitors' files."""

import os
from pathlib import Path

import pytest

from medst.app.private_files import LOCK, PREFIX, private_folder


def test_a_left_folder_is_removed_even_if_its_process_number_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, every page has the same number."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{PREFIX}{os.getpid()}-left"
    left.mkdir()
    (left / LOCK).touch()
    (left / "a.png").write_text("somebody's")
    with private_folder() as mine, private_folder() as other:
        assert sorted(tmp_path.iterdir()) == sorted([mine, other])
    assert list(tmp_path.iterdir()) == []
