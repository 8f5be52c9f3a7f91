"""Projection heads: features to embeddings of unit length (paper, section 3.1).

The released code has two kinds, Linear for global features and 1 x 1 Conv1d for local ones. Both are matrix products over
rows, so there is one kind here, with a mask that marks the rows that exist.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medst.distributed import Devices


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation over rows, in training over those of all `devices` if these are set.

    A single row, whose variance is zero, is normalised with the running statistics.
    """

    devices: Devices | None = None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
        if self.training and self.devices is not None:
            return self._over(self.devices, x)
        if self.training and len(x) < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)

    def _over(self, devices: Devices, x: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
        count = devices.sum(x.new_tensor(float(len(x))))
        mean = devices.sum(x.sum(0)) / count
        variance = devices.sum((x - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked.add_(1)
        normal = (x - mean) * torch.rsqrt(variance + self.eps)
        return normal if self.weight is None else normal * self.weight + self.bias


class ProjectionHead(nn.Module):
    """Linear, batch norm, ReLU, Linear, batch norm without affine parameters; then L2 normalisation."""

    def __init__(self, width: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(width, hidden),
            RowNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, embedding),
            RowNorm(embedding, affine=False),
        )

    def forward(self, features: Float[Tensor, "row width"]) -> Float[Tensor, "row dim"]:
        """Project rows of features to rows of unit length, in the dtype of the head's weights (float32).

        Never in bf16: batch normalisation amplifies small differences between rows, and so the rounding of bf16.
        """
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.head(features.to(next(self.head.parameters()).dtype)), dim=-1)

    def tokens(
        self, features: Float[Tensor, "pair token width"], mask: Bool[Tensor, "pair token"] | None
    ) -> Float[Tensor, "pair token dim"]:
        """Project the tokens that `mask` marks (all if None); the others become zero and don't count in the statistics."""
        if mask is None:
            return self(features.flatten(0, 1)).view(*features.shape[:2], -1)
        rows = self(features[mask])
        out = rows.new_zeros(*features.shape[:2], rows.shape[-1])
        return out.masked_scatter(mask[..., None], rows)
