"""The objective: embeddings in, scalars out. It depends on no model and no data set. Each loss has a file of its own."""

from collections.abc import Mapping
from pkgutil import resolve_name

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medst.distributed import Devices
from medst.objective.loss import Embedded, Loss, Sequences
from medst.recipes.objective import LOSSES, ObjectiveSettings

__all__ = ["Embedded", "Loss", "Objective", "Sequences"]


class Objective(nn.Module):
    """L = l1 L_global + l2 L_local + l3 L_temporal (paper, equation 14); the losses are those of the registry.

    Attributes:
        devices: in training, all devices of the run to contrast with; None: this one alone.
    """

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.devices: Devices | None = None
        for loss in LOSSES:
            self.add_module(loss.name, resolve_name(loss.code)(settings, dim))

    def forward(
        self,
        embedded: Embedded,
        steps: Int64[Tensor, "sequence step"],
        step_mask: Bool[Tensor, "sequence step"],
        days: Float[Tensor, "sequence step"] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute all losses of a batch.

        Args:
            embedded: embeddings of the batch's pairs.
            steps: rows of each sequence's pairs in time order; any row where `step_mask` is False.
            step_mask: True where a sequence has a study.
            days: days since a sequence's first study; needed where the time axis is `days`.
            shares: factors on the losses' weights by name, for their warm-up; 1 for those that are not named.

        Returns:
            `loss`, the weighted sum, and the unweighted terms under their names in the registry. Terms without a weight are
            left out. In training with `devices`, the mean of a value over the devices is what one device with all their
            pairs would return.
        """
        devices, sequences = self.devices if self.training else None, Sequences(steps, step_mask, days)
        found: dict[str, Tensor] = {}
        total = embedded.image.new_zeros(())
        for entry in LOSSES:
            weights = entry.weights(self.settings)
            if not weights:
                continue
            loss = getattr(self, entry.name)
            computed = loss.terms(embedded, sequences, devices)
            terms = {name: computed[name] for name in weights}
            if devices is not None:
                share = devices.share(loss.rows(embedded, sequences))
                terms = {name: value * share for name, value in terms.items()}
            weight = getattr(self.settings, f"{entry.name}_weight") * (shares or {}).get(entry.name, 1.0)
            total = total + weight * torch.stack([weights[name] * value for name, value in terms.items()]).sum()
            found |= terms
        return {"loss": total, **found}
