"""Small released checkpoints: the recorded entries with every side reduced."""

import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tests.model import released, small
from torch import Tensor
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from medst.recipes import RECIPES

SIDES = {
    768: 16,
    2304: 48,
    3072: 24,
    2048: 20,
    128: 8,
    384: 24,
    197: 10,
    28996: small.VOCABULARY,
    16: 4,
}
RECIPE = replace(
    RECIPES["paper"],
    model=replace(
        small.PAPER,
        vision=replace(small.PAPER.vision, mlp_ratio=1.5),
        text=replace(small.PAPER.text, pieces=112),
    ),
)
"""`paper` with two blocks and two layers of the sizes above."""

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrst", *(f"##{c}" for c in "abcdefghijklmno")]
MGCA_LACKS = ("mlp_l.", "norm2_l.", "_embed_la.", "_element_wise_multi_head.", "pooler.")


def _kept(name: str) -> bool:
    depth = {"blocks.": small.PAPER.vision.depth, "encoder.layer.": small.PAPER.text.layers}
    return all(
        marker not in name or int(name.split(marker)[1].split(".")[0]) < count for marker, count in depth.items()
    )


def medst_state(seed: int = 0) -> "OrderedDict[str, Tensor]":
    """Every entry of a released Med-ST checkpoint, filled with noise, not in alphabetical order."""
    rng = torch.Generator().manual_seed(seed)
    found: OrderedDict[str, Tensor] = OrderedDict()
    for entry in reversed(released.entries()):
        if not _kept(entry.name):
            continue
        shape = tuple(SIDES.get(side, side) for side in entry.shape)
        if entry.dtype == "int64":
            found[entry.name] = torch.randint(0, 500, shape, generator=rng)
        else:
            noise = torch.randn(shape, generator=rng)
            found[entry.name] = noise.abs() if entry.name.endswith("running_var") else noise
    return found


def mgca_state(seed: int = 0) -> "OrderedDict[str, Tensor]":
    """An MGCA checkpoint: no lateral experts, no weightings, but prototypes."""
    found = OrderedDict(
        (name, tensor) for name, tensor in medst_state(seed).items() if not any(part in name for part in MGCA_LACKS)
    )
    found["prototype_layer.weight"] = torch.randn(50, 8, generator=torch.Generator().manual_seed(seed))
    return found


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


def write_checkpoint(path: Path, state: "OrderedDict[str, Tensor]", **more: object) -> Path:
    """Write a Lightning checkpoint with its vocabulary."""
    write_vocabulary(path.parent)
    torch.save({"epoch": 7, "global_step": 100, "state_dict": state, **more}, path)
    return path


def bert(folder: Path) -> Path:
    """Write a BERT as Bio_ClinicalBERT is published: a pickle, a configuration and a list of pieces."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(1)
    model = BertModel(BertConfig(vocab_size=len(PIECES), **sizes))
    write_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    torch.save({f"bert.{name}": tensor for name, tensor in model.state_dict().items()}, folder / "pytorch_model.bin")
    return folder


def deit(folder: Path) -> Path:
    """Write a ViT of one block as transformers saves it."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    ViTModel(ViTConfig(image_size=32, patch_size=16, **sizes)).save_pretrained(folder)
    return folder


def offline_hub(home: Path, patch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """An offline cache of the Hugging Face hub; the function returned adds a folder's files under an id."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}.items():
        patch.setenv(name, value)  # for child processes
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))

    def add(hub_id: str, files: Path) -> None:
        model = home / "hub" / f"models--{hub_id.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(commit)
        shutil.copytree(files, model / "snapshots" / commit)

    return add


def dinov2(folder: Path) -> Path:
    """A small `Dinov2Model` with random weights and its image processor, of the classes of RAD-DINO."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    side = {"height": 28, "width": 28}
    BitImageProcessor(size={"shortest_edge": 28}, crop_size=side).save_pretrained(folder)
    return folder
