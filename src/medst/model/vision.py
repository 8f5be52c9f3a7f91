"""The image encoder: one ViT for both views, with one expert per view in every block (paper, section 3.2).

Pairs are encoded in two groups, those with a lateral view and those without, so that a missing lateral costs nothing. With
`phantom_tokens`, as released, every pair is as long as one with a lateral, and missing ones are masked out of attention.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medst.recipes.settings import VisionSettings


class Expert(nn.Module):
    """The feed-forward part of a view: Linear, exact GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Self-attention over the tokens of both views together."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "image token width"], keys: Bool[Tensor, "image 1 1 token"] | None
    ) -> Float[Tensor, "image token width"]:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        return self.proj(out.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    """A transformer block with shared attention and a mixture of view experts."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        width, hidden = settings.width, int(settings.width * settings.mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, settings.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Expert(width, hidden)
        self.norm2_l = nn.LayerNorm(width, eps=1e-6)
        self.mlp_l = Expert(width, hidden)

    def forward(
        self,
        x: Float[Tensor, "image token width"],
        frontal: int,
        keys: Bool[Tensor, "image 1 1 token"] | None = None,
    ) -> Float[Tensor, "image token width"]:
        """The first `frontal` tokens go through the frontal expert, the others through the lateral one."""
        x = x + self.attn(self.norm1(x), keys)
        # Not two slices: the gradient of each would be padded with zeros before they are added.
        front, side = x.split([frontal, x.shape[1] - frontal], dim=1)
        if side.shape[1] == 0:
            return front + self.mlp(self.norm2(front))
        if frontal == 0:
            return side + self.mlp_l(self.norm2_l(side))
        return torch.cat([front + self.mlp(self.norm2(front)), side + self.mlp_l(self.norm2_l(side))], dim=1)


class PatchEmbedding(nn.Module):
    """Patches to tokens, by a convolution with a stride of its own size."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        size = settings.patch_size
        self.proj = nn.Conv2d(settings.channels, settings.width, kernel_size=size, stride=size)

    def forward(self, images: Float[Tensor, "image 1 height width"]) -> Float[Tensor, "image patch dim"]:
        # Convolving grey in three channels is convolving it with the summed kernel; with a stride of the kernel's size that
        # is a matrix product over patches, the faster form on every device.
        kernel = self.proj.weight.sum(dim=1)
        n, _, height, width = images.shape
        size = kernel.shape[-1]
        patches = images.view(n, height // size, size, width // size, size).transpose(2, 3)
        patches = patches.reshape(n, (height // size) * (width // size), size * size)
        return F.linear(patches, kernel.flatten(1), self.proj.bias)


class VisionEncoder(nn.Module):
    """DeiT-like ViT with a lateral expert beside the frontal one in every block.

    Parameter names below `blocks` are those of the released checkpoint.
    """

    def __init__(self, settings: VisionSettings, phantom_tokens: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.phantom_tokens = phantom_tokens
        self.checkpoint = False
        self.patches = (settings.image_size // settings.patch_size) ** 2
        self.patch_embed = PatchEmbedding(settings)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, settings.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patches, settings.width))
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # The usual standard deviation of 0.02 suits width 768; in a narrow model [CLS] would hardly see the picture.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.settings.lateral_start == "copy":
            self.copy_frontal_experts()

    def copy_frontal_experts(self) -> None:
        """Make every lateral expert a copy of the frontal expert in its block."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.mlp_l.load_state_dict(block.mlp.state_dict())
            block.norm2_l.load_state_dict(block.norm2.state_dict())

    def _frontal_tokens(self, images: Float[Tensor, "image 1 h w"]) -> Float[Tensor, "image token width"]:
        patches = self.patch_embed(images)
        cls = self.cls_token.to(patches.dtype).expand(len(images), -1, -1)
        return torch.cat([cls, patches], dim=1) + self.pos_embed

    def _lateral_tokens(self, images: Float[Tensor, "image 1 h w"]) -> Float[Tensor, "image token width"]:
        return self.patch_embed(images) + self.pos_embed[:, 1:]

    def _run(
        self,
        tokens: Float[Tensor, "image token width"],
        frontal: int,
        keys: Bool[Tensor, "image 1 1 token"] | None = None,
    ) -> Float[Tensor, "image token width"]:
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, frontal, keys, use_reentrant=False)
            else:
                tokens = block(tokens, frontal, keys)
        return self.norm(tokens)

    def encode_view(
        self, images: Float[Tensor, "image 1 h w"], lateral: bool = False
    ) -> Float[Tensor, "image token width"]:
        """Encode images of one view, each alone: [CLS] and patches, all through the expert of that view."""
        tokens = self._frontal_tokens(images)
        return self._run(tokens, frontal=0 if lateral else tokens.shape[1])

    def forward(
        self,
        frontal: Float[Tensor, "pair 1 h w"],
        lateral: Float[Tensor, "lateral 1 h w"],
        lateral_of: Int64[Tensor, " lateral"],
    ) -> tuple[Float[Tensor, "pair width"], Float[Tensor, "pair patch width"], Bool[Tensor, "pair patch"]]:
        """Encode pairs whose lateral view may be missing.

        Args:
            frontal: float32 pictures of side `image_size`, normalised.
            lateral: the laterals that exist.
            lateral_of: the pair that each lateral belongs to; each at most once.

        Returns:
            The global feature of each pair; its patch features, frontal ones before lateral ones, zero where there is no
            lateral; and a mask that is True for patches of pictures that exist. With `phantom_tokens`, missing laterals
            have the features of a blank picture, and are still False in the mask.
        """
        pairs, seen = len(frontal), self.patches
        has_lateral = torch.zeros(pairs, dtype=torch.bool, device=frontal.device).index_fill_(0, lateral_of, True)
        mask = torch.cat(
            [torch.ones_like(has_lateral)[:, None].expand(-1, seen), has_lateral[:, None].expand(-1, seen)], 1
        )
        if self.phantom_tokens:
            blank = torch.zeros_like(frontal).index_copy(0, lateral_of, lateral)
            tokens = torch.cat([self._frontal_tokens(frontal), self._lateral_tokens(blank)], dim=1)
            keys = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[:, None, None]
            tokens = self._run(tokens, 1 + seen, keys)
            return tokens[:, 0], tokens[:, 1:], mask

        front = self._frontal_tokens(frontal)
        alone = (~has_lateral).nonzero()[:, 0]
        # Both groups run even when one is empty, so that every parameter has a gradient on every device.
        single = self._run(front[alone], 1 + seen)
        both = self._run(torch.cat([front[lateral_of], self._lateral_tokens(lateral)], dim=1), 1 + seen)
        single = F.pad(single, (0, 0, 0, seen))
        order = torch.empty_like(torch.cat([alone, lateral_of]))
        order[torch.cat([alone, lateral_of])] = torch.arange(pairs, device=order.device)
        tokens = torch.cat([single, both])[order]
        return tokens[:, 0], tokens[:, 1:], mask
