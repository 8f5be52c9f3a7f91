"""Modality-weighted local alignment between words and patches (paper, section 3.3, equations 2 to 6).

As in the released code, the two sides are not mirror images of each other: for the patches, the attended words are not
normalised before they are compared, and the token weights are not divided by their sum. With `masked` off, phantom patches
and padding words count like real ones, as released; only the patches' attention never sees padding words.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medst.distributed import Devices
from medst.objective.loss import Embedded, Loss, Sequences
from medst.recipes.objective import ObjectiveSettings


class TokenWeights(nn.Module):
    """Weights of tokens: those of a single-head attention whose query is the tokens' mean.

    The released module is an `nn.MultiheadAttention` of which only the attention weights are used; its values and its output
    projection never get a gradient, so they do not exist here.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        for linear in (self.query, self.key):
            # As in nn.MultiheadAttention, which draws its three projections as one (3 dim, dim) matrix.
            bound = (6 / (4 * dim)) ** 0.5
            nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)

    def forward(
        self, tokens: Float[Tensor, "pair token dim"], mask: Bool[Tensor, "pair token"] | None
    ) -> Float[Tensor, "pair token"]:
        """Weights that sum to one over the tokens of `mask` (all, if None), and are zero elsewhere."""
        if mask is None:
            mean = tokens.mean(1)
        else:
            mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        scores = torch.einsum("pd,ptd->pt", self.query(mean), self.key(tokens)) * tokens.shape[-1] ** -0.5
        return masked_softmax(scores, mask)


def masked_softmax(
    scores: Float[Tensor, "... token"], mask: Bool[Tensor, "... token"] | None
) -> Float[Tensor, "... token"]:
    """Softmax over the last axis; zero where the mask is False, even if it is False everywhere."""
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def aligned_cross_entropy(
    similarity: Float[Tensor, "pair token token"],
    weights: Float[Tensor, "pair token"],
    mask: Bool[Tensor, "pair token"] | None,
) -> Float[Tensor, ""]:
    """Cross entropy of rows and of columns with the diagonal as target, weighted by token, summed, and averaged over pairs.

    Tokens outside the mask are neither targets nor negatives.
    """
    if mask is not None:
        outside = ~(mask[:, :, None] & mask[:, None, :])
        similarity = similarity.masked_fill(outside, torch.finfo(similarity.dtype).min)
    diagonal = similarity.diagonal(dim1=1, dim2=2)
    rows = similarity.logsumexp(2) - diagonal
    columns = similarity.logsumexp(1) - diagonal
    per_token = 0.5 * (rows + columns)
    if mask is not None:
        per_token = per_token.masked_fill(~mask, 0.0)
    return (per_token * weights).sum() / len(similarity)


class LocalAlignment(Loss):
    """The local loss with its two learnt weightings."""

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()
        self.temperature, self.masked = settings.local_temperature, settings.masked
        self.word_weights = TokenWeights(dim)
        self.patch_weights = TokenWeights(dim)

    def forward(
        self,
        words: Float[Tensor, "pair word dim"],
        word_mask: Bool[Tensor, "pair word"],
        patches: Float[Tensor, "pair patch dim"],
        patch_mask: Bool[Tensor, "pair patch"],
    ) -> dict[str, Tensor]:
        """Align words with patches.

        Args:
            words: unit rows.
            word_mask: True where a report has a word.
            patches: unit rows.
            patch_mask: True where a patch belongs to a view that exists.

        Returns:
            `local_words` and `local_patches`, scalars whose sum is the local loss; and, to look at them, `word_weights`,
            `patch_weights`, `attended_patches` (a word's view of the image) and `attended_words`.
        """
        words_count, patches_count = (word_mask, patch_mask) if self.masked else (None, None)

        attention = masked_softmax(
            words @ patches.transpose(1, 2) / self.temperature,
            None if patches_count is None else patches_count[:, None],
        )
        attended_patches = F.normalize(attention @ patches, dim=-1)
        weights = self.word_weights(F.normalize(words * attended_patches, dim=-1), words_count)
        word_weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        similarity = words @ attended_patches.transpose(1, 2) / self.temperature
        local_words = aligned_cross_entropy(similarity, word_weights, words_count)

        attention = masked_softmax(patches @ words.transpose(1, 2) / self.temperature, word_mask[:, None])
        attended_words = attention @ words
        patch_weights = self.patch_weights(F.normalize(patches * attended_words, dim=-1), patches_count)
        similarity = patches @ attended_words.transpose(1, 2) / self.temperature
        local_patches = aligned_cross_entropy(similarity, patch_weights, patches_count)
        return {
            "local_words": local_words,
            "local_patches": local_patches,
            "word_weights": word_weights,
            "patch_weights": patch_weights,
            "attended_patches": attended_patches,
            "attended_words": attended_words,
        }

    def terms(self, embedded: Embedded, sequences: Sequences, devices: Devices | None) -> dict[str, Tensor]:
        """As `Loss.terms`: `local_words` and `local_patches`."""
        found = self(embedded.words, embedded.word_mask, embedded.patches, embedded.patch_mask)
        return {name: found[name] for name in ("local_words", "local_patches")}
