"""Contrast between images and reports (paper, section 3.3, equation 1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medst.distributed import Devices
from medst.objective.loss import Embedded, Loss, Sequences
from medst.recipes.objective import ObjectiveSettings


def global_loss(
    image: Float[Tensor, "pair dim"],
    report: Float[Tensor, "pair dim"],
    temperature: float = 0.07,
    candidates: tuple[Float[Tensor, "candidate dim"], Float[Tensor, "candidate dim"]] | None = None,
    first: int = 0,
) -> Float[Tensor, ""]:
    """Compute InfoNCE in both directions; the sum, not the mean, of the two cross entropies.

    Args:
        image: unit rows.
        report: unit rows; row i belongs to image i, all others are its negatives.
        temperature: divides the cosines.
        candidates: all images and all reports, if there are more than the rows above.
        first: row i above is row `first` + i of the candidates.

    >>> import torch
    >>> one = torch.eye(4)
    >>> round(global_loss(one, one, 0.01).item(), 4)
    0.0
    >>> halves = [global_loss(one[i : i + 2], one[i : i + 2], 1.0, (one, one), i) for i in (0, 2)]
    >>> torch.allclose(sum(halves) / 2, global_loss(one, one, 1.0))
    True
    """
    target = first + torch.arange(len(image), device=image.device)
    if candidates is None:
        scores = image @ report.T / temperature
        return F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)
    images, reports = candidates
    to_reports, to_images = image @ reports.T / temperature, report @ images.T / temperature
    return F.cross_entropy(to_reports, target) + F.cross_entropy(to_images, target)


class GlobalLoss(Loss):
    """The global loss, with the pairs of all devices as candidates where there are several."""

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()
        self.temperature = settings.global_temperature

    def terms(self, embedded: Embedded, sequences: Sequences, devices: Devices | None) -> dict[str, Tensor]:
        """As `Loss.terms`: `global`."""
        image, report = embedded.image, embedded.report
        if devices is None:
            return {"global": global_loss(image, report, self.temperature)}
        first = sum(devices.counts(image)[: devices.rank])
        candidates = devices.gather(image), devices.gather(report)
        return {"global": global_loss(image, report, self.temperature, candidates, first)}
