"""No verb executes anything in a model folder or a cohort, whatever is typed at a question."""

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medst
from medst.app.serve import _backend
from medst.cli import main
from medst.cohort.store import open_cohort
from medst.errors import MedstError


class Call:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Exists if something was executed."""
    return tmp_path / "executed"


@pytest.fixture
def hostile(small_model: Path, tmp_path: Path, marker: Path) -> Path:
    """A model folder that works, with everything in it that some library would execute."""
    folder = tmp_path / "hostile"
    shutil.copytree(small_model, folder)
    code = f"import os\nos.makedirs({str(marker)!r}, exist_ok=True)\n\nclass Evil:\n    pass\n"
    for name in ("evil.py", "__init__.py", "sitecustomize.py", "tokenization_evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    jinja = "{{ cycler.__init__.__globals__.os.mkdir('" + str(marker) + "') }}"
    (folder / "chat_template.jinja").write_text(jinja)
    remote = {
        "auto_map": {
            "AutoTokenizer": ["evil.Evil", "evil.Evil"],
            "AutoConfig": "evil.Evil",
            "AutoModel": "evil.Evil",
            "AutoProcessor": "evil.Evil",
        },
        "trust_remote_code": True,
        "chat_template": jinja,
    }
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= remote | {"tokenizer_class": "Evil", "processor_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "config.json").read_text()) | remote | {"model_type": "evil", "_name_or_path": "evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(remote))
    yaml = f"---\nlicense: !!python/object/apply:os.mkdir [{str(marker)!r}]\n---\n"
    (folder / "README.md").write_text(yaml)
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl", "vocab.txt", "special_tokens_map.json"):
        (folder / name).write_bytes(pickle.dumps(Call(marker)))
    return folder


def test_the_attacks_of_the_fixture_work(hostile: Path, marker: Path) -> None:
    pickle.loads((hostile / "training_args.bin").read_bytes())
    assert marker.is_dir()
    marker.rmdir()
    exec(compile((hostile / "evil.py").read_text(), "evil", "exec"), {})
    assert marker.is_dir()


def test_embed_runs_no_python_of_the_folder_even_if_yes_is_typed(
    hostile: Path, marker: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medst", "embed", str(hostile), str(phantom_cohort), str(tmp_path / "out")],
        check=False, input="y\n" * 20, capture_output=True, text=True, cwd=hostile,
        env={**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not marker.exists()


def test_the_other_verbs_run_nothing(
    hostile: Path, marker: Path, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    model = medst.load(hostile)
    assert model.encode_text("no pneumonia").embedding.shape[0] == 1
    assert _backend(hostile, phantom_cohort, None).patients
    main(["evaluate", "retrieval", str(hostile), str(phantom_cohort), "--out", str(tmp_path / "results.json")])
    assert (tmp_path / "results.json").is_file()
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "objective.safetensors", "tokenizer.json", "config.json"])
def test_a_pickle_under_another_name_is_refused(hostile: Path, marker: Path, name: str) -> None:
    shutil.copy(hostile / "training_args.bin", hostile / name)
    with pytest.raises(MedstError, match=name):
        medst.load(hostile)
    assert not marker.exists()


def test_objects_in_a_cohorts_arrays_are_refused(phantom_cohort: Path, marker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(phantom_cohort, folder)
    np.save(folder / "images.npy", np.array([Call(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(MedstError, match=r"images\.npy"):
        open_cohort(folder)
    assert not marker.exists()


def test_no_reader_of_the_package_can_execute_what_it_reads() -> None:
    """Finds new calls that could; `jobs` and `child` pickle only what the package itself sends between processes."""
    package = Path(medst.__file__).parent
    forbidden = (
        "eval",
        "exec",
        "pickle.load",
        "pickle.loads",
        "yaml.load",
        "yaml.unsafe_load",
        "joblib.load",
        "torch.hub.load",
    )
    seen = []
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            suspect = called in forbidden or called.startswith("Auto") or "trust_remote_code" in given
            suspect |= called == "torch.load" and given.get("weights_only") != "True"
            suspect |= given.get("allow_pickle", "False") != "False"
            if suspect and file.name not in ("jobs.py", "child.py"):
                seen.append(f"{file.relative_to(package)}:{node.lineno}: {called}")
    assert seen == []
