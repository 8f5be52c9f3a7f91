"""environment.json of a run."""

import json
from pathlib import Path

from medst.pretrain.environment import add_environment


def test_a_damaged_environment_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "environment.json"
    assert add_environment(file, 1) == ""
    file.write_text("{")
    assert "was damaged; it is now environment.json.damaged" in add_environment(file, 1)
    assert len(json.loads(file.read_text())) == 1
