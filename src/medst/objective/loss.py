"""The interface of a loss."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medst.distributed import Devices


@runtime_checkable
class Embedded(Protocol):
    """Embeddings of a batch's pairs, as the losses use them; see `medst.model.medst.Embeddings`."""

    image: Tensor
    patches: Tensor
    patch_mask: Tensor
    report: Tensor
    words: Tensor
    word_mask: Tensor


@dataclass(frozen=True)
class Sequences:
    """The sequences of a batch that take part in losses over time."""

    steps: Int64[Tensor, "sequence step"]
    """Rows of each sequence's pairs, in time order; any row where the mask is False."""
    mask: Bool[Tensor, "sequence step"]
    """True where a sequence has a study."""
    days: Float[Tensor, "sequence step"] | None = None
    """Days since a sequence's first study; None where nothing depends on them."""


class Loss(nn.Module):
    """A loss of the objective. Subclasses are created from `ObjectiveSettings` and the width of the embeddings."""

    def terms(self, embedded: Embedded, sequences: Sequences, devices: Devices | None) -> dict[str, Tensor]:
        """Compute the loss's terms, unweighted.

        Args:
            embedded: embeddings of this device's pairs.
            sequences: their sequences.
            devices: the devices to compare with; None: this device alone.

        Returns:
            Scalars by their column of metrics.csv, each a mean over this device's rows.
        """
        raise NotImplementedError

    def rows(self, embedded: Embedded, sequences: Sequences) -> Tensor:
        """Count the rows that the terms are means over: pairs, unless a loss overrides this."""
        return sequences.steps.new_tensor(len(embedded.image))
