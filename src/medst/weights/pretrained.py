"""Start weights: DeiT's image encoder, a BERT's text encoder, then everything that a checkpoint holds.

Only entries that no file has keep their fresh weights. The released code draws weights anew after it has loaded them, which
overwrites most of what it was given.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medst.errors import MedstError
from medst.files import read_json
from medst.hub import WEIGHTS, find, find_weights
from medst.model.medst import MedST
from medst.tokenizer import CONFIG, FILES
from medst.weights.released import (
    RELEASED_TOKENIZER,
    TOKEN_TYPES,
    is_convolution,
    is_lateral,
    released_name,
)
from medst.weights.safe_unpickle import read_state_dict
from medst.weights.state_dict import WORD_EMBEDDINGS, check_entries, check_finite, check_vocabulary

TRANSFORMERS_VIT = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.distillation_token": "dist_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.attn.proj.",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blocks.\1.mlp.fc1.",
    r"encoder\.layer\.(\d+)\.output\.dense\.": r"blocks.\1.mlp.fc2.",
    r"encoder\.layer\.(\d+)\.layernorm_before\.": r"blocks.\1.norm1.",
    r"encoder\.layer\.(\d+)\.layernorm_after\.": r"blocks.\1.norm2.",
    r"layernorm\.": "norm.",
}
"""Names of a ViT's or DeiT's entries in transformers and in timm. Query, key and value are joined separately."""


def load_pretrained(
    model: MedST, *, deit: Path | str = "", bert: Path | str = "", checkpoint: Path | str = ""
) -> list[str]:
    """Fill a fresh model with pretrained weights, in the order of the arguments; later ones win.

    Lateral experts that no file has become copies of the frontal ones, unless the model's `lateral_start` is random.

    Args:
        model: its sizes must be those of the files.
        deit: a DeiT or ViT in timm's or transformers' naming: a file, a folder, or a hub id (patch embedding, positions,
            blocks and last norm are used; its classifier and a distillation token are not).
        bert: folder or hub id of a BERT such as Bio_ClinicalBERT; as many of its first layers as the model has are used.
        checkpoint: a released Med-ST or MGCA checkpoint, of which all entries that the model has are used; or the folder or
            hub id of a model that medst wrote, which must have all entries.

    Returns:
        The names of the model's entries that were filled, sorted.

    Raises:
        MedstError: a file is missing, damaged, carries code, has another vocabulary than the model, lacks entries or
            has them in other shapes.
    """
    found: dict[str, Tensor] = {}
    if deit:
        found |= _deit_entries(model, deit)
    if bert:
        found |= _bert_entries(model, bert)
    if checkpoint:
        found |= _checkpoint_entries(model, checkpoint)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in found.items():
            own[name].copy_(tensor)
    if model.settings.vision.lateral_start == "copy" and not any(is_lateral(name) for name in found):
        model.vision.copy_frontal_experts()
    return sorted(found)


def _deit_entries(model: MedST, name: Path | str) -> dict[str, Tensor]:
    path = find_weights(name, "--start.deit", ["config.json"])
    _check_config(path, "--start.deit", "--model.vision.heads", model.settings.vision.heads)
    state = _timm_names(read_state_dict(path, "model"))
    names = {f"vision.{name}": name for name in model.vision.state_dict() if not is_lateral(f".{name}")}
    return _fitting(model, names, state, path)


def _bert_entries(model: MedST, name: Path | str) -> dict[str, Tensor]:
    path = find_weights(name, "--start.bert", ["config.json", CONFIG, *FILES])
    _check_config(path, "--start.bert", "--model.text.heads", model.settings.text.heads)
    state = read_state_dict(path)
    prefix = "bert." if any(name.startswith("bert.") for name in state) else ""
    # Files from before 2019 call the norms' entries gamma and beta.
    state = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in state.items()
    }
    names = {f"text.bert.{name}": prefix + name for name in model.text.bert.state_dict()}
    if not model.settings.text.token_types:
        del names[TOKEN_TYPES]
    remedy = f"leave --data.tokenizer out, or give {name} there too"
    check_vocabulary(state.get(names[WORD_EMBEDDINGS]), len(model.text.continues), path, remedy)
    return _fitting(model, names, state, path)


def _checkpoint_entries(model: MedST, name: Path | str) -> dict[str, Tensor]:
    path, pieces = find(name, "--start.checkpoint", [WEIGHTS[0], *FILES]), len(model.text.continues)
    if path.is_dir():
        path = path / WEIGHTS[0]
        state = read_state_dict(path)
        check_vocabulary(state.get(WORD_EMBEDDINGS), pieces, path, "leave --data.tokenizer out")
        return _fitting(model, {entry: entry for entry in model.state_dict()}, state, path)
    state = read_state_dict(path, "state_dict")
    words = state.get(released_name(WORD_EMBEDDINGS))
    check_vocabulary(words, pieces, path, f"give --data.tokenizer {RELEASED_TOKENIZER}")
    names = {name: released_name(name) for name in model.state_dict() if name != TOKEN_TYPES}
    found = _fitting(model, {ours: theirs for ours, theirs in names.items() if theirs in state}, state, path)
    if not found:
        raise MedstError(f"{path}: has none of this model's entries; give a released Med-ST or MGCA checkpoint.")
    return found


def _timm_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a ViT or DeiT in timm's naming, without the position of a distillation token."""
    renamed: dict[str, Any] = {}
    joined: dict[str, dict[str, Any]] = {}
    for name, tensor in state.items():
        bare = re.sub(r"^(vit|deit)\.", "", name)
        part = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", bare)
        if part:
            joined.setdefault(f"blocks.{part[1]}.attn.qkv.{part[3]}", {})[part[2]] = tensor
            continue
        for theirs, ours in TRANSFORMERS_VIT.items():
            if re.match(theirs, bare):
                bare = re.sub("^" + theirs, ours, bare)
                break
        renamed[bare] = tensor
    for name, parts in joined.items():
        three = [parts.get(each) for each in ("query", "key", "value")]
        tensors = [each for each in three if isinstance(each, Tensor) and each.ndim]
        if len(tensors) == 3 and len({each.shape for each in tensors}) == 1:
            renamed[name] = torch.cat(tensors)
    places = renamed.get("pos_embed")
    if "dist_token" in renamed and isinstance(places, Tensor) and places.ndim == 3:
        renamed["pos_embed"] = torch.cat([places[:, :1], places[:, 2:]], dim=1)
    return renamed


def _fitting(model: MedST, names: dict[str, str], state: Mapping[str, Any], source: Path) -> dict[str, Tensor]:
    """The tensors of `state` by our names, where `names` maps our names to theirs."""
    own, found = model.state_dict(), dict(state)
    for ours, theirs in names.items():
        tensor = state.get(theirs)
        if isinstance(tensor, Tensor) and is_convolution(ours, own[ours]) and tensor.shape[2:] == (1,):
            found[theirs] = tensor[..., 0]
    wanted = {theirs: own[ours] for ours, theirs in names.items()}
    check_entries(found, wanted, f"{source} does not fit this model", unexpected=(), cast=True)
    fitting = {ours: found[theirs] for ours, theirs in names.items()}
    check_finite(fitting, source)
    return fitting


def _check_config(path: Path, flag: str, field: str, heads: int) -> None:
    """Refuse medst's own models, and weights for another number of heads, which no shape shows."""
    file = path.with_name("config.json")
    if not file.is_file():
        return
    config = read_json(file, "get it again from where the weights were published")
    if path.name == WEIGHTS[0] and "medst_version" in config:
        raise MedstError(f"{flag}: {path.parent} is a model of medst; give it as --start.checkpoint instead.")
    theirs = config.get("num_attention_heads", heads)
    if theirs != heads:
        raise MedstError(f"{file}: the weights are for {theirs} attention heads, not {heads}; give {field} {theirs}.")
