"""Contrast between whole images and whole reports (paper, section 3.3, equation 1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def global_loss(
    image: Float[Tensor, "pair dim"], report: Float[Tensor, "pair dim"], temperature: float = 0.07
) -> Float[Tensor, ""]:
    """InfoNCE in both directions; the sum, not the mean, of the two cross entropies.

    Args:
        image: unit rows.
        report: unit rows; row i belongs to image i, all others are its negatives.
        temperature: divides the cosines.

    >>> import torch
    >>> one = torch.eye(4)
    >>> round(global_loss(one, one).item(), 4)
    0.0
    """
    scores = image @ report.T / temperature
    target = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)
