"""Released checkpoints in and out."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.model import released, small
from tests.weights import checkpoints
from torch import Tensor

import medst
from medst import use, weights
from medst.errors import MedstError
from medst.model.medst import MedST
from medst.recipes import RECIPES
from medst.tokenizer import load_tokenizer
from medst.weights.model_folder import UNUSED

STATES = {"medst": checkpoints.medst_state, "mgca": checkpoints.mgca_state}


@pytest.fixture(autouse=True)
def small_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make recipe `paper` a small one."""
    monkeypatch.setitem(RECIPES, "paper", checkpoints.RECIPE)


def released_state(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("kind", list(STATES))
def test_conversion_and_export_restore_every_bit(kind: str, tmp_path: Path) -> None:
    state = STATES[kind]()
    ckpt = checkpoints.write_checkpoint(tmp_path / "in" / "a.ckpt", state)
    weights.convert(ckpt, tmp_path / "model")
    weights.export(tmp_path / "model", tmp_path / "out" / "back.ckpt")
    back = released_state(tmp_path / "out" / "back.ckpt")
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name
    assert not list(tmp_path.rglob("*.part"))


def test_exported_files_hold_no_more_than_their_tensors(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    weights.convert(ckpt, tmp_path / "model")
    weights.export(tmp_path / "model", tmp_path / "back.ckpt")
    assert (tmp_path / "back.ckpt").stat().st_size < 1.2 * ckpt.stat().st_size


@pytest.mark.parametrize("kind", list(STATES))
def test_a_checkpoint_loads_the_same_directly_and_converted(kind: str, tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", STATES[kind]())
    weights.convert(ckpt, tmp_path / "model")
    direct, converted = medst.load(ckpt), medst.load(tmp_path / "model")
    pairs = small.make_pairs([True, False], [7, 5])
    with torch.no_grad():
        assert pairs.run(direct.model).image.isfinite().all()
        assert torch.equal(pairs.run(direct.model).image, pairs.run(converted.model).image)
        assert torch.equal(pairs.run(direct.model).words, pairs.run(converted.model).words)
    assert direct.recipe == converted.recipe
    assert not direct.model.training
    assert (direct.objective is None) is (kind == "mgca")
    assert (converted.objective is None) is (kind == "mgca")


def test_a_loaded_checkpoint_equals_a_model_filled_by_hand(tmp_path: Path) -> None:
    """A model filled by hand with the same entries."""
    state = checkpoints.medst_state()
    loaded = medst.load(checkpoints.write_checkpoint(tmp_path / "a.ckpt", state))
    torch.manual_seed(0)
    by_hand = MedST(loaded.model.settings, small.CONTINUES, small.SEP)
    prefixes = {"img_encoder_q.model.": "vision.", "text_encoder_q.model.": "text.bert."}
    prefixes |= {
        f"{side}_encoder_q.{kind}_embed.": f"{name}_{kind}."
        for side, name in (("img", "image"), ("text", "text"))
        for kind in ("global", "local")
    }
    own = by_hand.state_dict()
    for name, tensor in state.items():
        for theirs, ours in prefixes.items():
            if name.startswith(theirs) and name.replace(theirs, ours) in own:
                own[name.replace(theirs, ours)].copy_(tensor.reshape(own[name.replace(theirs, ours)].shape))
    pairs = small.make_pairs([True, False], [7, 5])
    with torch.no_grad():
        one, two = pairs.run(loaded.model), pairs.run(by_hand.eval())
    assert two.image.isfinite().all()
    for field in ("image", "report", "patches", "words"):
        torch.testing.assert_close(getattr(one, field), getattr(two, field))


def test_mgca_s_lateral_experts_are_copies_with_their_own_memory(tmp_path: Path) -> None:
    loaded = medst.load(checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.mgca_state()))
    assert loaded.recipe.model.vision.lateral_start == "copy"
    for block in loaded.model.vision.blocks:
        assert torch.equal(block.mlp.fc1.weight, block.mlp_l.fc1.weight)
        assert block.mlp.fc1.weight.data_ptr() != block.mlp_l.fc1.weight.data_ptr()


def test_training_a_loaded_checkpoint_does_not_change_the_file(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    before = ckpt.read_bytes()
    model = medst.load(ckpt).model.train()
    learn = [p for p in model.parameters() if p.requires_grad]
    small.make_pairs([True, False], [7, 5]).run(model).image[0, 0].backward()
    torch.optim.SGD(learn, lr=1.0).step()
    assert ckpt.read_bytes() == before
    assert not model.text.bert.embeddings.token_type_embeddings.weight.requires_grad


def test_other_entries_of_lightning_are_ignored(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(
        tmp_path / "a.ckpt", checkpoints.medst_state(), hyper_parameters=argparse.Namespace(lr=1e-4)
    )
    assert medst.load(ckpt).model.settings.embedding == 8


def test_a_model_of_medst_is_exported_with_zeros_and_loads_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(checkpoints.write_vocabulary(tmp_path / "bert"))
    model, objective = weights.build(checkpoints.RECIPE, tokenizer)
    small.shake(model, 1)
    weights.save(tmp_path / "model", model, objective, tokenizer, checkpoints.RECIPE)
    weights.export(tmp_path / "model", tmp_path / "a.ckpt")
    back = released_state(tmp_path / "a.ckpt")
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in checkpoints.medst_state().items()}
    again = medst.load(tmp_path / "a.ckpt", tokenizer=tmp_path / "bert")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.objective is not None
    for name, tensor in objective.state_dict().items():
        assert torch.equal(again.objective.state_dict()[name], tensor), name


@pytest.mark.parametrize("switch", ["positions", "token_types"])
def test_a_model_that_the_released_code_cannot_run_is_not_exported(switch: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoints.write_vocabulary(tmp_path / "bert"))
    text = replace(checkpoints.RECIPE.model.text, **{switch: True})
    recipe = replace(checkpoints.RECIPE, model=replace(checkpoints.RECIPE.model, text=text))
    weights.save(tmp_path / "model", *weights.build(recipe, tokenizer), tokenizer, recipe)
    with pytest.raises(MedstError, match="which the released code can't"):
        weights.export(tmp_path / "model", tmp_path / "a.ckpt")
    assert not (tmp_path / "a.ckpt").exists()


# ------------------------------------------------------------------------------------------------------ what is refused


def test_without_a_tokenizer_the_message_says_where_to_get_it(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    (tmp_path / "vocab.txt").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(MedstError, match=r"vocab.txt of emilyalsentzer/Bio_ClinicalBERT.*--tokenizer emilyalsentzer"):
        medst.load(ckpt)
    folder = checkpoints.write_vocabulary(tmp_path / "bert")
    assert medst.load(ckpt, tokenizer=folder).tokenizer.sep_token_id == small.SEP


def test_a_file_of_another_kind_is_not_asked_for_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("patient_id,age\np0,40\n")
    with pytest.raises(MedstError, match=r"p\.csv is not a model folder, and not a checkpoint; give one of them\.$"):
        medst.load(tmp_path / "p.csv")


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    (tmp_path / "vocab.txt").write_text("\n".join([*checkpoints.PIECES, "more"]))
    with pytest.raises(
        MedstError, match=r"a.ckpt has 40 word embeddings, but the tokenizer has 41 pieces; .*--tokenizer"
    ):
        medst.load(ckpt)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "damaged or not a checkpoint"),
        (lambda p: p.write_bytes(b"no weights"), "damaged or not a checkpoint"),
        (lambda p: torch.save({"state_dict": {"other": torch.zeros(1)}}, p), "missing: img_encoder_q.* and .* more"),
        (
            lambda p: torch.save({"state_dict": {n: t.double() for n, t in checkpoints.medst_state().items()}}, p),
            "of another type: .*float64, not float32",
        ),
        (lambda p: p.unlink(), "no such"),
    ],
)
def test_another_checkpoint_is_refused_and_leaves_nothing_behind(damage: object, said: str, tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    damage(ckpt)  # type: ignore[operator]
    with pytest.raises(MedstError, match=said) as refusal:
        weights.convert(ckpt, tmp_path / "model")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "model").exists()
    with pytest.raises(MedstError, match=said):
        medst.load(ckpt)


def test_a_folder_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    ckpt = checkpoints.write_checkpoint(tmp_path / "a.ckpt", checkpoints.medst_state())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(MedstError, match="is not empty and does not hold a model"):
        weights.convert(ckpt, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    weights.convert(ckpt, tmp_path / "model")
    weights.convert(ckpt, tmp_path / "model")


def test_a_model_of_medst_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MedstError, match=r"is a model of medst already; give a released checkpoint\.$"):
        weights.convert(tmp_path / "model.safetensors", tmp_path / "out")


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", "a/b/c"):
        with pytest.raises(MedstError, match="no such file or folder"):
            medst.load(path)


def test_medst_load_is_use_load() -> None:
    assert medst.load is use.load
    assert medst.Model is use.Model
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        medst.lode  # noqa: B018


def test_importing_medst_imports_nothing_heavy() -> None:
    code = (
        "import sys, medst; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_conversion_keeps_the_unused_entries(tmp_path: Path) -> None:
    state = checkpoints.medst_state()
    weights.convert(checkpoints.write_checkpoint(tmp_path / "a.ckpt", state), tmp_path / "model")
    kept = load_file(tmp_path / "model" / UNUSED)
    assert any(".crossattention." in name for name in kept)
    config, recipe = (json.loads((tmp_path / "model" / name).read_text()) for name in ("config.json", "recipe.json"))
    assert config["model"]["text"]["positions"] is False
    assert recipe["name"] == "paper"


@pytest.mark.slow
def test_loading_takes_less_than_twice_the_file(tmp_path: Path) -> None:
    """At full size, 0.9 GB of made-up weights, in a process of its own; a picture is encoded to read them all."""
    ckpt = tmp_path / "full.ckpt"
    pieces = [*checkpoints.PIECES, *(f"[unused{i}]" for i in range(28996 - len(checkpoints.PIECES)))]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    state = {entry.name: torch.ones(entry.shape, dtype=dtypes[entry.dtype]) for entry in released.entries()}
    torch.save({"state_dict": state}, ckpt)
    code = (
        "import resource, sys, medst.use, numpy as np\n"
        "def peak(): return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "loaded = medst.load(sys.argv[1])\n"
        "loaded.encode_image(np.eye(224))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ckpt)], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 2 * ckpt.stat().st_size
