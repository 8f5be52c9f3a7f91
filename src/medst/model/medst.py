"""Both encoders behind one call: tensors in, `Embeddings` out. Independent of data sets and losses."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medst.distributed import Devices
from medst.model.projection import ProjectionHead, RowNorm
from medst.model.text import TextEncoder
from medst.model.vision import VisionEncoder
from medst.recipes.settings import ModelSettings


@dataclass
class Embeddings:
    """Outputs for a batch of pairs. Embeddings are float32 rows of unit length; masks are True where a token is real;
    features are the inputs of the projection heads."""

    image: Float[Tensor, "pair dim"]
    patches: Float[Tensor, "pair patch dim"]
    patch_mask: Bool[Tensor, "pair patch"]
    report: Float[Tensor, "pair dim"]
    words: Float[Tensor, "pair word dim"]
    word_mask: Bool[Tensor, "pair word"]
    image_features: Float[Tensor, "pair vision_width"]
    patch_features: Float[Tensor, "pair patch vision_width"]
    report_features: Float[Tensor, "pair text_width"]
    word_features: Float[Tensor, "pair word text_width"]


@dataclass
class Features:
    """Outputs of the encoders for a batch of pairs, before the heads; zero where a mask is False."""

    image: Float[Tensor, "pair vision_width"]
    patches: Float[Tensor, "pair patch vision_width"]
    patch_mask: Bool[Tensor, "pair patch"]
    report: Float[Tensor, "pair text_width"]
    words: Float[Tensor, "pair word text_width"]
    word_mask: Bool[Tensor, "pair word"]

    def as_leaves(self) -> "Features":
        """Detached copies that collect gradients, so that the backward pass stops here."""
        return Features(**{n: t.detach().requires_grad_(t.is_floating_point()) for n, t in vars(self).items()})

    @staticmethod
    def join(parts: "list[Features]") -> "Features":
        """Concatenate batches, padded to the report with the most words."""
        words = max(part.words.shape[1] for part in parts)
        filled = [
            vars(part)
            | {
                "words": F.pad(part.words, (0, 0, 0, words - part.words.shape[1])),
                "word_mask": F.pad(part.word_mask, (0, words - part.word_mask.shape[1])),
            }
            for part in parts
        ]
        return Features(**{f.name: torch.cat([part[f.name] for part in filled]) for f in fields(Features)})


class MedST(nn.Module):
    """Image and text encoder with a global and a local projection head each."""

    def __init__(self, settings: ModelSettings, continues: Bool[Tensor, " vocabulary"], sep: int) -> None:
        """`continues` says for each id of the vocabulary whether its piece continues a word; `sep` is the id of [SEP]."""
        super().__init__()
        self.settings = settings
        hidden, dim = settings.projection_hidden, settings.embedding
        self.vision = VisionEncoder(settings.vision, settings.phantom_tokens)
        self.text = TextEncoder(settings.text, continues, sep, fill=settings.phantom_tokens)
        self.image_global = ProjectionHead(settings.vision.width, hidden, dim)
        self.image_local = ProjectionHead(settings.vision.width, hidden, dim)
        self.text_global = ProjectionHead(settings.text.width, hidden, dim)
        self.text_local = ProjectionHead(settings.text.width, hidden, dim)

    def normalise_over(self, devices: Devices) -> None:
        """Make the heads normalise over the rows of all devices."""
        for module in self.modules():
            if isinstance(module, RowNorm):
                module.devices = devices

    def checkpoint_activations(self) -> None:
        """Make both encoders recompute their activations in the backward pass instead of keeping them."""
        self.vision.checkpoint = True
        bert = self.text.bert
        # The first name is the only one from transformers 6 on; the second is that of earlier versions.
        enable = getattr(bert, "activation_checkpointing_enable", None) or bert.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def forward(self, *pairs: Tensor) -> Embeddings:
        """Embed a batch of pairs, globally and locally; arguments as of `encode`."""
        return self.project(self.encode(*pairs))

    def encode(
        self,
        frontal: Float[Tensor, "pair 1 h w"],
        lateral: Float[Tensor, "lateral 1 h w"],
        lateral_of: Int64[Tensor, " lateral"],
        pieces: Int64[Tensor, "pair piece"],
        attention_mask: Int64[Tensor, "pair piece"],
    ) -> Features:
        """Run both encoders without the heads. The features of a pair don't depend on the rest of its batch."""
        return Features(*self.vision(frontal, lateral, lateral_of), *self.text(pieces, attention_mask))

    def project(self, features: Features) -> Embeddings:
        """Apply the heads, which in training normalise over all pairs given."""
        every = self.settings.phantom_tokens
        return Embeddings(
            image=self.image_global(features.image),
            patches=self.image_local.tokens(features.patches, None if every else features.patch_mask),
            patch_mask=features.patch_mask,
            report=self.text_global(features.report),
            words=self.text_local.tokens(features.words, None if every else features.word_mask),
            word_mask=features.word_mask,
            image_features=features.image,
            patch_features=features.patches,
            report_features=features.report,
            word_features=features.words,
        )
