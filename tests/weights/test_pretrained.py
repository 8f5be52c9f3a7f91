"""Start weights: which entries are filled from which file."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.model import small
from tests.weights import checkpoints
from torch import Tensor
from transformers import (
    BertConfig,
    BertForPreTraining,
    DeiTConfig,
    DeiTForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from medst.errors import MedstError
from medst.model.medst import MedST
from medst.recipes.settings import Recipe
from medst.tokenizer import load_tokenizer
from medst.weights import build, load_pretrained, save

SETTINGS = replace(small.SETTINGS, vision=replace(small.SETTINGS.vision, mlp_ratio=1.5))


def make(**changes: object) -> MedST:
    torch.manual_seed(0)
    return MedST(replace(SETTINGS, **changes), small.CONTINUES, small.SEP)  # type: ignore[arg-type]


def noise(like: dict[str, Tensor], seed: int = 5) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=rng) for name, tensor in like.items()}


def deit(path: Path) -> dict[str, Tensor]:
    state = noise({n: t for n, t in make().vision.state_dict().items() if "_l." not in n})
    torch.save({"model": state | {"head.weight": torch.zeros(10, 16), "head.bias": torch.zeros(10)}}, path)
    return state


def bert(folder: Path, form: str) -> dict[str, Tensor]:
    """Four layers on disk for a model with two, and the heads of its pre-training."""
    folder.mkdir()
    config = BertConfig(
        vocab_size=small.VOCABULARY, hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=24
    )
    torch.manual_seed(9)
    whole = BertForPreTraining(config)
    small.shake(whole, 9)
    state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    if form == "safetensors":
        save_file(state, folder / "model.safetensors")
    elif form == "bin":
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif form == "gamma":
        greek = {re.sub(r"Norm\.weight", "Norm.gamma", name): tensor for name, tensor in state.items()}
        greek = {re.sub(r"Norm\.bias", "Norm.beta", name): tensor for name, tensor in greek.items()}
        torch.save(greek, folder / "pytorch_model.bin")
    else:
        bare = {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}
        save_file(bare, folder / "model.safetensors")
    return {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}


def vit(folder: Path, kind: str) -> torch.nn.Module:
    """A ViT or DeiT as transformers saves it, with a classifier."""
    config, make = {"vit": (ViTConfig, ViTForImageClassification), "deit": (DeiTConfig, DeiTForImageClassification)}[
        kind
    ]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    torch.manual_seed(4)
    whole = make(config(image_size=12, patch_size=4, layer_norm_eps=1e-6, **sizes)).eval()
    small.shake(whole, 4)
    whole.save_pretrained(folder)
    return whole


def untouched(model: MedST, filled: list[str]) -> bool:
    fresh = make().state_dict()
    return all(torch.equal(fresh[name], tensor) for name, tensor in model.state_dict().items() if name not in filled)


def test_deit_fills_the_image_encoder_and_the_lateral_experts_are_copies(tmp_path: Path) -> None:
    state, model = deit(tmp_path / "deit.pth"), make()
    filled = load_pretrained(model, deit=tmp_path / "deit.pth")
    for name, tensor in state.items():
        assert torch.equal(model.vision.state_dict()[name], tensor), name
    assert filled == sorted(f"vision.{name}" for name in state)
    for block in model.vision.blocks:
        assert torch.equal(block.mlp_l.fc2.weight, block.mlp.fc2.weight)
        assert torch.equal(block.norm2_l.bias, block.norm2.bias)
    lateral = [name for name in model.state_dict() if "_l." in name]
    assert untouched(model, filled + lateral)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_in_timm_s_naming_is_read_too(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "deit"
    folder.mkdir()
    state = deit(tmp_path / "deit.pth") | {"head.weight": torch.zeros(10, 16)}
    if form == "model.safetensors":
        save_file(state, folder / form)
    else:
        torch.save(state, folder / form)
    from_file, from_folder = make(), make()
    assert load_pretrained(from_file, deit=tmp_path / "deit.pth") == load_pretrained(from_folder, deit=folder)
    assert all(torch.equal(a, b) for a, b in zip(from_file.parameters(), from_folder.parameters(), strict=True))


def test_a_vit_of_transformers_gives_the_same_outputs(tmp_path: Path, hub: Callable[[str, Path], None]) -> None:
    """By its hub id, from the offline cache."""
    theirs = vit(tmp_path / "vit", "vit")
    hub("facebook/deit-small", tmp_path / "vit")
    model = make().eval()
    filled = load_pretrained(model, deit="facebook/deit-small")
    assert filled == sorted(f"vision.{name}" for name in model.vision.state_dict() if "_l." not in name)
    pictures = torch.randn(2, 1, 12, 12)
    with torch.no_grad():
        expected = theirs.vit(pictures.expand(-1, 3, -1, -1)).last_hidden_state
        torch.testing.assert_close(model.vision.encode_view(pictures), expected, rtol=1e-4, atol=1e-5)


def test_a_deit_of_transformers_is_read_without_its_distillation_token(tmp_path: Path) -> None:
    theirs, model = vit(tmp_path / "deit", "deit").state_dict(), make()
    load_pretrained(model, deit=tmp_path / "deit")
    found = model.vision.state_dict()
    places = theirs["deit.embeddings.position_embeddings"]
    assert places.shape == (1, 11, 16)
    assert torch.equal(found["pos_embed"], places[:, [0, *range(2, 11)]])
    assert torch.equal(found["cls_token"], theirs["deit.embeddings.cls_token"])
    queries = [theirs[f"deit.layers.1.attention.{each}_proj.weight"] for each in "qkv"]
    assert torch.equal(found["blocks.1.attn.qkv.weight"], torch.cat(queries))


def test_lateral_experts_stay_random_if_the_recipe_says_so(tmp_path: Path) -> None:
    deit(tmp_path / "deit.pth")
    model = make(vision=replace(SETTINGS.vision, lateral_start="random"))
    before = model.vision.blocks[0].mlp_l.fc1.weight.clone()
    load_pretrained(model, deit=tmp_path / "deit.pth")
    assert torch.equal(model.vision.blocks[0].mlp_l.fc1.weight, before)


@pytest.mark.parametrize("form", ["bin", "safetensors", "gamma", "bare"])
def test_the_first_layers_of_a_bert_fill_the_text_encoder(form: str, tmp_path: Path) -> None:
    state, model = bert(tmp_path / "bert", form), make()
    filled = load_pretrained(model, bert=tmp_path / "bert")
    for name, tensor in model.text.bert.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert filled == sorted(f"text.bert.{name}" for name in model.text.bert.state_dict())
    assert untouched(model, filled)


def test_a_bert_on_the_hub_may_have_only_an_old_pickle(tmp_path: Path, hub: Callable[[str, Path], None]) -> None:
    """The three files that emilyalsentzer/Bio_ClinicalBERT has."""
    state = bert(tmp_path / "bert", "bin")
    checkpoints.write_vocabulary(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    hub("someone/a-bert", tmp_path / "bert")
    model = make()
    load_pretrained(model, bert="someone/a-bert")
    layer = "encoder.layer.1.output.dense.bias"
    assert torch.equal(model.text.bert.state_dict()[layer], state[layer])
    assert len(load_tokenizer("someone/a-bert")) == small.VOCABULARY


def test_a_bert_with_another_vocabulary_or_other_heads_is_refused(tmp_path: Path) -> None:
    bert(tmp_path / "bert", "bin")
    torch.manual_seed(0)
    more = MedST(SETTINGS, torch.zeros(41, dtype=torch.bool), small.SEP)
    with pytest.raises(MedstError, match=r"has 40 word embeddings, but the tokenizer has 41 pieces; leave --data.tok"):
        load_pretrained(more, bert=tmp_path / "bert")
    torch.save({"state_dict": checkpoints.medst_state()}, tmp_path / "medst.ckpt")
    with pytest.raises(MedstError, match=r"has 40 word .*41 pieces; give --data.tokenizer emilyalsentzer/Bio_Clinical"):
        load_pretrained(more, checkpoint=tmp_path / "medst.ckpt")
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    with pytest.raises(MedstError, match=r"weights are for 2 attention heads, not 4; give --model.text.heads 2"):
        load_pretrained(make(), bert=tmp_path / "bert")


def test_a_bert_that_carries_code_is_refused_and_not_run(tmp_path: Path) -> None:
    bert(tmp_path / "bert", "bin")

    class Evil:
        def __reduce__(self) -> tuple:
            return open, (str(tmp_path / "executed"), "w")

    torch.save({"bert.encoder": Evil()}, tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(MedstError, match="it carries pickled code"):
        load_pretrained(make(), bert=tmp_path / "bert")
    assert not (tmp_path / "executed").exists()


def test_without_token_types_their_table_stays_zero(tmp_path: Path) -> None:
    bert(tmp_path / "bert", "bin")
    model = make(text=small.PAPER.text)
    filled = load_pretrained(model, bert=tmp_path / "bert")
    assert "text.bert.embeddings.token_type_embeddings.weight" not in filled
    assert not model.text.bert.embeddings.token_type_embeddings.weight.any()


def test_later_files_win_and_entries_in_no_file_stay_fresh(tmp_path: Path) -> None:
    """Row 7 of the page on differences: the released code draws weights anew after it has loaded these."""
    vision, text = deit(tmp_path / "deit.pth"), bert(tmp_path / "bert", "bin")
    mgca = checkpoints.mgca_state()
    for name in ("img_encoder_q.model.norm.weight", "text_encoder_q.model.encoder.layer.1.output.dense.bias"):
        del mgca[name]
    torch.save({"state_dict": mgca}, tmp_path / "mgca.ckpt")
    model = make()
    filled = load_pretrained(
        model, deit=tmp_path / "deit.pth", bert=tmp_path / "bert", checkpoint=tmp_path / "mgca.ckpt"
    )
    found = model.state_dict()
    assert torch.equal(found["vision.blocks.0.attn.qkv.weight"], mgca["img_encoder_q.model.blocks.0.attn.qkv.weight"])
    assert torch.equal(found["text_local.head.3.weight"], mgca["text_encoder_q.local_embed.head.3.weight"][..., 0])
    assert torch.equal(found["vision.norm.weight"], vision["norm.weight"])
    layer = "encoder.layer.1.output.dense.bias"
    assert torch.equal(found[f"text.bert.{layer}"], text[layer])
    assert not any(name.startswith("text.bert.") for name in set(found) - set(filled))
    for block in model.vision.blocks:
        assert torch.equal(block.mlp_l.fc1.weight, block.mlp.fc1.weight)


def test_a_med_st_checkpoint_brings_its_own_lateral_experts(tmp_path: Path) -> None:
    state = checkpoints.medst_state()
    torch.save({"state_dict": state}, tmp_path / "medst.ckpt")
    model = make()
    load_pretrained(model, checkpoint=tmp_path / "medst.ckpt")
    name = "blocks.1.mlp_l.fc1.weight"
    assert torch.equal(model.vision.state_dict()[name], state[f"img_encoder_q.model.{name}"])


def test_training_can_start_from_a_model_folder(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoints.write_vocabulary(tmp_path / "bert"))
    recipe = Recipe(model=SETTINGS)
    torch.manual_seed(6)
    theirs, objective = build(recipe, tokenizer)
    small.shake(theirs, 6)
    save(tmp_path / "model", theirs, objective, tokenizer, recipe)
    for flag in ("deit", "bert"):
        with pytest.raises(
            MedstError, match=rf"--start\.{flag}: .*is a model of medst; give it as --start\.checkpoint"
        ):
            load_pretrained(make(), **{flag: tmp_path / "model"})
    model = make()
    assert load_pretrained(model, checkpoint=tmp_path / "model") == sorted(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), theirs.parameters(), strict=True))
    torch.manual_seed(0)
    more = MedST(SETTINGS, torch.zeros(41, dtype=torch.bool), small.SEP)
    with pytest.raises(MedstError, match=r"has 40 word embeddings, .* 41 pieces; leave --data.tokenizer out"):
        load_pretrained(more, checkpoint=tmp_path / "model")


def test_without_files_nothing_is_filled() -> None:
    model = make()
    assert load_pretrained(model) == []
    assert untouched(model, [])


def test_entries_that_do_not_fit_are_listed_and_nothing_is_filled(tmp_path: Path) -> None:
    state = deit(tmp_path / "deit.pth")
    del state["cls_token"]
    state["norm.weight"] = torch.zeros(5)
    torch.save({"model": state}, tmp_path / "deit.pth")
    model = make()
    said = r"deit.pth does not fit this model; missing: cls_token; of another shape: norm.weight \(5, not 16\)"
    with pytest.raises(MedstError, match=said):
        load_pretrained(model, deit=tmp_path / "deit.pth")
    assert untouched(model, [])


def test_a_folder_without_weights_and_another_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MedstError, match=r"this folder has no weights; it needs model.safetensors or pytorch_model.bin"
    ):
        load_pretrained(make(), bert=tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(MedstError, match="has none of this model's entries"):
        load_pretrained(make(), checkpoint=tmp_path / "other.ckpt")
