"""Files of others: honest ones are read, hostile and damaged ones refused; nothing in them is executed."""

import argparse
import builtins
import collections
import importlib
import io
import os
import pathlib
import pickle
import runpy
import subprocess
import sys
import tarfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from medst.errors import MedstError
from medst.weights.safe_unpickle import Placeholder, read_checkpoint, read_state_dict

REFUSED = r"is refused: it carries pickled code \(.*\), and medst executes none"


class Calls:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def attacks(marker: Path) -> dict[str, Calls]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "exec": Calls(builtins.exec, code),
        "open": Calls(builtins.open, str(marker), "w"),
        "subprocess": Calls(subprocess.check_call, ["touch", str(marker)]),
        "import": Calls(importlib.import_module, "antigravity"),
        "runpy": Calls(runpy.run_path, str(marker)),
        "getattr": Calls(builtins.getattr, "text", "join"),
        "torch.load": Calls(torch.load, str(marker)),
        "torch.save": Calls(torch.save, {}, str(marker)),
        "numpy.load": Calls(np.load, str(marker), None, True),
        "numpy.save": Calls(np.save, str(marker), np.zeros(1)),
        "unlink": Calls(os.unlink, str(marker)),
    }


ATTACKS = list(attacks(Path("m")))


def places(attack: Calls) -> dict[str, Any]:
    state = {"a.weight": torch.zeros(2), "b.weight": torch.ones(3)}
    return {
        "alone": attack,
        "in the state dict": {"state_dict": {**state, "c.weight": attack}},
        "in the hyper-parameters": {"state_dict": state, "hyper_parameters": {"lr": 1e-4, "callbacks": [attack]}},
        "deep": {"state_dict": state, "loops": {"fit_loop": [{"state": ({"x": attack},)}]}},
        "as a key": {"state_dict": state, "callbacks": {attack: 1}},
    }


@pytest.mark.parametrize("format_", ["zip", "legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_files_are_refused_and_do_nothing(name: str, format_: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for where, content in places(attacks(marker)[name]).items():
        path = tmp_path / "hostile.ckpt"
        if format_.startswith("pickle"):
            path.write_bytes(pickle.dumps(content, protocol=int(format_[-1])))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip")
        with pytest.raises(MedstError) as refusal:
            read_checkpoint(path)
        assert not marker.exists(), where
        sentence = str(refusal.value)
        assert sentence.startswith(f"{path} is ")
        assert "\n" not in sentence
        if format_ in ("zip", "legacy"):
            assert "carries pickled code" in sentence, (where, sentence)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_newer_pickle_protocols_hide_nothing(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = {"state_dict": {"a": torch.zeros(1)}, "x": Calls(os.system, f"touch {marker}")}
    torch.save(content, tmp_path / "hostile.ckpt", pickle_protocol=protocol)
    with pytest.raises(MedstError, match=r"refused|damaged"):
        read_checkpoint(tmp_path / "hostile.ckpt")
    assert not marker.exists()


def test_the_refusal_names_what_would_have_been_called(tmp_path: Path) -> None:
    for legacy in (False, True):
        torch.save(Calls(os.system, "true"), tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(MedstError, match=rf"a.ckpt {REFUSED}") as refusal:
            read_checkpoint(tmp_path / "a.ckpt")
        assert "posix.system" in str(refusal.value) or "nt.system" in str(refusal.value)


def test_the_oldest_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'marker'}"), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(MedstError, match="is refused: torch's oldest format, a tar file"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    """A TorchScript archive is code."""
    path = tmp_path / "script.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    with pytest.raises(MedstError, match="damaged or not a checkpoint"):
        read_checkpoint(path)


# -------------------------------------------------------------------------------------------------------- honest files


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module with Lightning's name and the classes in its checkpoints; exists only while one is written."""
    names = ["pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.utilities.parsing"]
    names += ["pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    parsing, callbacks = sys.modules[names[2]], sys.modules[names[4]]
    made = {
        "AttributeDict": (dict, parsing),
        "ModelCheckpoint": (object, callbacks),
    }
    for name, (base, module) in made.items():
        kind = type(name, (base,), {"__module__": module.__name__, "__qualname__": name})
        setattr(module, name, kind)
    return sys.modules["pytorch_lightning"]


def honest(lightning: types.ModuleType) -> dict[str, Any]:
    parsing = sys.modules["pytorch_lightning.utilities.parsing"]
    callbacks = sys.modules["pytorch_lightning.callbacks.model_checkpoint"]
    hyper = parsing.AttributeDict(lr=4e-5, gpus=2, ckpt=pathlib.PurePosixPath("a/b"), seed=np.int64(42))
    return {
        "epoch": 7,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": collections.OrderedDict(a=torch.arange(5.0), b=torch.tensor(3)),
        "hyper_parameters": hyper,
        "hparams": argparse.Namespace(lr=1.0, extra=[1, 2]),
        "callbacks": {callbacks.ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "best_k_models": {}}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-8}]}],
        "counts": collections.defaultdict(int, a=1),
    }


def test_an_honest_lightning_checkpoint_is_read_without_lightning(
    lightning: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(honest(lightning), tmp_path / "honest.ckpt")
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    content = read_checkpoint(tmp_path / "honest.ckpt")
    assert torch.equal(content["state_dict"]["a"], torch.arange(5.0))
    assert content["hyper_parameters"]["lr"] == 4e-5
    assert isinstance(content["hyper_parameters"]["ckpt"], Placeholder)
    assert isinstance(content["hparams"], Placeholder)
    assert content["callbacks"][Placeholder]["best_model_score"] == 0.5
    assert content["counts"] == {"a": 1}
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


def test_placeholders_are_removed_afterwards(lightning: types.ModuleType, tmp_path: Path) -> None:
    torch.save(honest(lightning), tmp_path / "honest.ckpt")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "honest.ckpt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_tensors_are_mapped_and_not_written_back(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    before = path.read_bytes()
    found = read_checkpoint(path)["state_dict"]["a"]
    found += 1
    assert path.read_bytes() == before
    assert torch.equal(read_checkpoint(path)["state_dict"]["a"], torch.zeros(1000))


def test_the_legacy_format_is_read(tmp_path: Path) -> None:
    """Bio_ClinicalBERT's pytorch_model.bin has it."""
    state = collections.OrderedDict(a=torch.arange(4.0), b=torch.arange(4.0).view(2, 2).T)
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    found = read_checkpoint(tmp_path / "a.bin")
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "a.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "a.safetensors")["a"], torch.arange(3.0))


# ------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("suffix", ["ckpt", "bin", "safetensors"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    state = {"a": torch.arange(300.0), "b": torch.ones(7)}
    if suffix == "safetensors":
        save_file(state, whole)
    else:
        torch.save({"state_dict": state}, whole, _use_new_zipfile_serialization=suffix == "ckpt")
    data = whole.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MedstError, match=r"cut\..* is damaged or no"):
        read_checkpoint(path)


STARTS = [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x02}q\x00", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"]


def sentence_or_content(path: Path) -> Any:
    """The error message, or the state dict."""
    try:
        return read_state_dict(path, "state_dict")
    except MedstError as error:
        return str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), start=st.sampled_from(STARTS))
def test_random_bytes_are_refused(data: bytes, start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(start + data)
    sentence = sentence_or_content(tmp_path / "a.ckpt")
    assert isinstance(sentence, str)
    assert "\n" not in sentence


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.999), value=st.integers(0, 255), legacy=st.booleans())
def test_a_changed_byte_is_refused_or_harmless(place: float, value: int, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"a": torch.arange(9.0)}}, path, _use_new_zipfile_serialization=not legacy)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    path.write_bytes(data)
    found = sentence_or_content(path)
    assert "\n" not in found if isinstance(found, str) else len(found) == 1


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"state_dict": {"a": 1}}, 3, torch.zeros(2), None])
def test_a_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(MedstError, match="holds no state dict under 'state_dict'; not a checkpoint"):
        read_state_dict(tmp_path / "a.ckpt", "state_dict")


def test_a_state_dict_with_keys_that_are_not_names_is_refused(tmp_path: Path) -> None:
    torch.save({3: torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(MedstError, match="keys that are not names: 3"):
        read_state_dict(tmp_path / "a.ckpt")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no such file"):
        read_checkpoint(tmp_path / "none.ckpt")
