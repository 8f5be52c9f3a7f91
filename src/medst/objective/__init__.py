"""The objective: embeddings in, scalars out. Knows no model and no data set; one file a loss."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medst.distributed import Devices
from medst.objective.global_ import global_loss
from medst.objective.local import LocalAlignment
from medst.objective.temporal import mapping_losses, time_of_steps
from medst.recipes.settings import ObjectiveSettings


@runtime_checkable
class Embedded(Protocol):
    """What the objective needs of a batch's embeddings; the model's `Embeddings` has it."""

    image: Tensor
    patches: Tensor
    patch_mask: Tensor
    report: Tensor
    words: Tensor
    word_mask: Tensor


class Objective(nn.Module):
    """L = l1 L_global + l2 L_local + l3 L_temporal (paper, equation 14), with the local loss's learnt weightings."""

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.devices: Devices | None = None
        self.local = LocalAlignment(dim, settings.local_temperature, settings.masked)

    def forward(
        self,
        embedded: Embedded,
        steps: Int64[Tensor, "sequence step"],
        step_mask: Bool[Tensor, "sequence step"],
        temporal_share: float = 1.0,
        days: Float[Tensor, "sequence step"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """All losses of a batch.

        Args:
            embedded: embeddings of the batch's pairs.
            steps: for each sequence that takes part in the temporal loss, its pairs' rows in time order.
            step_mask: True where a sequence has a study; `steps` may hold any row where it is False.
            temporal_share: factor on the temporal weight, for its warm-up.
            days: since a sequence's first study; looked at where the time axis is that of days.

        Returns:
            `loss`, the weighted sum, and under their own names its unweighted parts: `global`, `local_words`,
            `local_patches`, `image_to_report_classification`, `image_to_report_regression` and the same two from report to
            image. Parts without a weight are left out. In training with `devices`, the mean of a value over the devices is
            what one device with all their pairs would return.
        """
        s, devices = self.settings, self.devices if self.training else None
        parts: dict[str, Tensor] = {}
        total = embedded.image.new_zeros(())
        if s.global_weight:
            parts["global"] = self.contrast(embedded.image, embedded.report, devices)
            total = total + s.global_weight * parts["global"]
        if s.local_weight:
            local = self.local(embedded.words, embedded.word_mask, embedded.patches, embedded.patch_mask)
            share = 1.0 if devices is None else devices.share(steps.new_tensor(len(embedded.image)))
            parts |= {name: local[name] * share for name in ("local_words", "local_patches")}
            total = total + s.local_weight * (parts["local_words"] + parts["local_patches"])
        if s.temporal_weight and (s.forward_weight or s.reverse_weight):
            temporal = self.temporal(embedded.image[steps], embedded.report[steps], step_mask, days)
            if devices is not None:
                share = devices.share(step_mask.sum())
                temporal = {name: value * share for name, value in temporal.items()}
            parts |= temporal
            weights = {"classification": s.forward_weight, "regression": s.reverse_weight}
            weighted = [weights[name.rsplit("_", 1)[1]] * value for name, value in temporal.items()]
            total = total + s.temporal_weight * temporal_share * torch.stack(weighted).sum()
        return {"loss": total, **parts}

    def contrast(
        self, image: Float[Tensor, "pair dim"], report: Float[Tensor, "pair dim"], devices: Devices | None
    ) -> Float[Tensor, ""]:
        """The global loss, with the pairs of all devices to pick from where there are several."""
        if devices is None:
            return global_loss(image, report, self.settings.global_temperature)
        first = sum(devices.counts(image)[: devices.rank])
        every = devices.gather(image), devices.gather(report)
        own = global_loss(image, report, self.settings.global_temperature, every, first)
        return own * devices.share(image.new_tensor(len(image)))

    def temporal(
        self,
        image: Float[Tensor, "sequence step dim"],
        report: Float[Tensor, "sequence step dim"],
        mask: Bool[Tensor, "sequence step"],
        days: Float[Tensor, "sequence step"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of the temporal loss that have a weight, in full four; 0 where there is no sequence."""
        if self.settings.time_axis == "days" and days is None:
            raise ValueError("objective.time_axis is 'days', but no days were given")
        time = time_of_steps(mask, days if self.settings.time_axis == "days" else None)
        terms = {}
        for name, u, v in (("image_to_report", image, report), ("report_to_image", report, image)):
            forward, reverse = mapping_losses(
                u,
                v,
                mask,
                time,
                temperature=self.settings.temporal_temperature,
                regression=self.settings.regression,
                variance_weight=self.settings.variance_weight,
                huber_delta=self.settings.huber_delta,
            )
            if self.settings.forward_weight:
                terms[f"{name}_classification"] = forward
            if self.settings.reverse_weight:
                terms[f"{name}_regression"] = reverse
        return terms
