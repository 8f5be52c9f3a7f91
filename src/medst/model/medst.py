"""Both encoders behind one call: tensors in, `Embeddings` out. Knows no data set and no loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medst.devices import Devices
from medst.model.projection import ProjectionHead, RowNorm
from medst.model.text import TextEncoder
from medst.model.vision import VisionEncoder
from medst.recipes.settings import ModelSettings


@dataclass
class Embeddings:
    """What the model says of a batch of pairs. Embeddings are float32 rows of unit length; masks are True where a token is
    real; features are what the projection heads were given."""

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


class MedST(nn.Module):
    """Image and text encoder with a global and a local projection head each."""

    def __init__(self, settings: ModelSettings, continues: Bool[Tensor, " vocabulary"], sep: int) -> None:
        """Args:
        settings: sizes and switches of everything below.
        continues: for each id of the vocabulary, whether the word piece continues a word.
        sep: id of [SEP].
        """
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
        """Let the heads' batch statistics be those of all devices' rows."""
        for module in self.modules():
            if isinstance(module, RowNorm):
                module.devices = devices

    def checkpoint_activations(self) -> None:
        """Let both encoders compute their activations again in the backward pass instead of keeping them."""
        self.vision.checkpoint = True
        bert = self.text.bert
        # Its name in transformers 5 and, from 6 on, its only one.
        enable = getattr(bert, "activation_checkpointing_enable", None) or bert.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def forward(
        self,
        frontal: Float[Tensor, "pair 1 h w"],
        lateral: Float[Tensor, "lateral 1 h w"],
        lateral_of: Int64[Tensor, " lateral"],
        pieces: Int64[Tensor, "pair piece"],
        attention_mask: Int64[Tensor, "pair piece"],
    ) -> Embeddings:
        """Embed a batch of pairs: pictures and reports, globally and locally."""
        image_features, patch_features, patch_mask = self.vision(frontal, lateral, lateral_of)
        report_features, word_features, word_mask = self.text(pieces, attention_mask)
        every = self.settings.phantom_tokens
        return Embeddings(
            image=self.image_global(image_features),
            patches=self.image_local.tokens(patch_features, None if every else patch_mask),
            patch_mask=patch_mask,
            report=self.text_global(report_features),
            words=self.text_local.tokens(word_features, None if every else word_mask),
            word_mask=word_mask,
            image_features=image_features,
            patch_features=patch_features,
            report_features=report_features,
            word_features=word_features,
        )

    @torch.no_grad()
    def embed_frontal(self, frontal: Float[Tensor, "image 1 h w"]) -> Float[Tensor, "image dim"]:
        """Global embeddings of frontal views alone."""
        return self.image_global(self.vision.encode_view(frontal)[:, 0])

    @torch.no_grad()
    def embed_text(
        self, pieces: Int64[Tensor, "text piece"], attention_mask: Int64[Tensor, "text piece"]
    ) -> Float[Tensor, "text dim"]:
        """Global embeddings of texts alone."""
        return self.text_global(self.text(pieces, attention_mask)[0])
