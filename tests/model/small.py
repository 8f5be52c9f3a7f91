"""A model of a few thousand parameters, none of them at a special value, and batches for it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medst.model.medst import Embeddings, MedST
from medst.recipes.settings import ModelSettings, TextSettings, VisionSettings

PAD, UNK, CLS, SEP = 0, 1, 2, 3
VOCABULARY = 40
CONTINUES = torch.arange(VOCABULARY) >= 25
SIDE = 12

SETTINGS = ModelSettings(
    vision=VisionSettings(image_size=SIDE, patch_size=4, channels=3, width=16, depth=2, heads=4, mlp_ratio=2.0),
    text=TextSettings(width=16, layers=2, heads=4, intermediate=24, pieces=10, dropout=0.0),
    projection_hidden=20,
    embedding=8,
)
PAPER = replace(
    SETTINGS,
    vision=replace(SETTINGS.vision, lateral_start="random"),
    text=replace(SETTINGS.text, positions=False, token_types=False, close_cut_reports=False),
    phantom_tokens=True,
)


def shake(module: nn.Module, seed: int) -> None:
    """Move every entry away from where it started, so that no norm, bias or running statistic is trivial."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point() or "token_type" in name:
                continue
            noise = torch.randn(tensor.shape, generator=rng)
            if name.endswith("running_var"):
                tensor.copy_(1 + noise.abs())
            else:
                tensor.add_(0.3 * noise)


def make_model(settings: ModelSettings = SETTINGS, seed: int = 0) -> MedST:
    """In evaluation mode. Models of settings that differ in switches alone share their weights."""
    torch.manual_seed(seed)
    model = MedST(settings, CONTINUES, SEP)
    shake(model, seed)
    return model.eval()


@torch.no_grad()
def frontal_embedding(model: MedST, frontal: Tensor) -> Tensor:
    """Global embeddings of frontal views alone."""
    return model.image_global(model.vision.encode_view(frontal)[:, 0])


@torch.no_grad()
def text_embedding(model: MedST, pieces: Tensor, attention_mask: Tensor) -> Tensor:
    """Global embeddings of texts alone."""
    return model.text_global(model.text(pieces, attention_mask)[0])


@dataclass
class Pairs:
    """A batch as the model takes it."""

    frontal: Tensor
    lateral: Tensor
    lateral_of: Tensor
    pieces: Tensor
    attention_mask: Tensor

    def run(self, model: MedST) -> Embeddings:
        return model(self.frontal, self.lateral, self.lateral_of, self.pieces, self.attention_mask)


def make_pairs(laterals: list[bool], lengths: list[int], seed: int = 0, padding: int = 0) -> Pairs:
    """Pictures of noise, and reports of so many pieces, [CLS] and [SEP] included."""
    rng = torch.Generator().manual_seed(seed)
    frontal = torch.randn(len(laterals), 1, SIDE, SIDE, generator=rng)
    lateral = torch.randn(len(laterals), 1, SIDE, SIDE, generator=rng)
    lateral_of = torch.tensor([i for i, there in enumerate(laterals) if there], dtype=torch.int64)
    pieces = torch.full((len(lengths), max(lengths) + padding), PAD)
    for row, length in zip(pieces, lengths, strict=True):
        row[0], row[length - 1] = CLS, SEP
        row[1 : length - 1] = torch.randint(4, VOCABULARY, (length - 2,), generator=rng)
    return Pairs(frontal, lateral[lateral_of], lateral_of, pieces, (pieces != PAD).long())
