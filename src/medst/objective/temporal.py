"""Cross-modal bidirectional cycle consistency over a patient's studies (paper, section 3.4, equations 7 to 13).

It teaches which report belongs to which image of a patient, and not the direction of a change: the classification is the
same for every joint order of the studies, the regression when time runs backwards (docs/method.md).

All sequences of a batch, of any length, are computed at once under a mask. The regression term has two forms. The released
one, e^2 / var, has no upper limit: a sequence of four nearly equal reports can make it two million. The bounded one is the
same up to a ratio of `KNEE` and flattens beyond it; docs/method.md derives it.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medst.distributed import Devices
from medst.objective.loss import Embedded, Loss, Sequences
from medst.recipes.objective import ObjectiveSettings

KNEE = 5.0
"""Ratio of squared time error to variance up to which both forms of the regression are equal."""

ROOM = 1.0
"""How far the bounded ratio can rise above `KNEE`."""

EPSILON = 1e-7


def bounded_ratio(ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Bound a ratio: unchanged up to `KNEE`, then it continues with the same slope and stays below `KNEE` + `ROOM`.

    >>> import torch
    >>> bounded_ratio(torch.tensor([0.5, 5.0, 6.0, 3e6])).tolist()
    [0.5, 5.0, 5.5, 5.999999523162842]
    """
    above = (ratio - KNEE).clamp(min=0)
    return torch.where(ratio <= KNEE, ratio, KNEE + ROOM * above / (above + ROOM))


def similarity(
    a: Float[Tensor, "sequence row dim"], b: Float[Tensor, "sequence column dim"], temperature: float
) -> Float[Tensor, "sequence row column"]:
    """Negative squared distance, divided by the temperature."""
    return -(a[:, :, None] - b[:, None]).square().sum(-1) / temperature


def cycle(
    u: Float[Tensor, "sequence step dim"],
    v: Float[Tensor, "sequence step dim"],
    mask: Bool[Tensor, "sequence step"],
    temperature: float = 0.1,
) -> tuple[Float[Tensor, "sequence step step"], Float[Tensor, "sequence step step"]]:
    """Map u to v and back to u.

    Args:
        u: embeddings of one modality, one row per study, in time order.
        v: those of the other modality, of the same studies.
        mask: True where a sequence has a study.
        temperature: divides the squared distances.

    Returns:
        The logits over v's steps for each of u's steps; and beta, the weights over u's steps when the soft nearest neighbour
        in v of each of u's steps is mapped back. Columns outside the mask have no weight.
    """
    absent, lowest = ~mask[:, None], torch.finfo(u.dtype).min
    logits = similarity(u, v, temperature).masked_fill(absent, lowest)
    neighbour = logits.softmax(-1) @ v
    return logits, similarity(neighbour, u, temperature).masked_fill(absent, lowest).softmax(-1)


def time_of_steps(
    mask: Bool[Tensor, "sequence step"], days: Float[Tensor, "sequence step"] | None = None
) -> Float[Tensor, "sequence step"]:
    """Time of each study in its sequence, from 0 to (T - 1) / (T + 1e-7) for T studies.

    Study k is at k / (T + 1e-7) (as released). With `days` since the first study, the studies are spaced in proportion to
    them, between the same two ends; if all are at the same moment, their order counts.

    >>> import torch
    >>> full = torch.ones(1, 4, dtype=torch.bool)
    >>> [round(t, 4) for t in time_of_steps(full)[0].tolist()]
    [0.0, 0.25, 0.5, 0.75]
    >>> [round(t, 4) for t in time_of_steps(full, torch.tensor([[0.0, 1.0, 2.0, 30.0]]))[0].tolist()]
    [0.0, 0.025, 0.05, 0.75]
    """
    count = mask.sum(1, keepdim=True) + EPSILON
    even = torch.arange(mask.shape[1], device=mask.device) / count
    if days is None:
        return even
    span = days.masked_fill(~mask, 0.0).amax(1, keepdim=True)
    last = (count - 1).clamp(min=0) / count
    return torch.where(span > 0, days / span.clamp(min=EPSILON) * last, even)


def mapping_losses(
    u: Float[Tensor, "sequence step dim"],
    v: Float[Tensor, "sequence step dim"],
    mask: Bool[Tensor, "sequence step"],
    time: Float[Tensor, "sequence step"] | None = None,
    *,
    temperature: float = 0.1,
    regression: Literal["released", "bounded"] = "bounded",
    variance_weight: float = 0.001,
    huber_delta: float = 2.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Compute forward mapping classification and reverse mapping regression from u to v, each a mean over all studies.

    `time` is the time of each study (`time_of_steps`), by default evenly spaced. Both losses are 0 if the mask is all False.
    """
    logits, beta = cycle(u, v, mask, temperature)
    count = mask.sum().clamp(min=1)
    # Not logsumexp minus the diagonal: if studies are matched well, that difference is mostly rounding.
    classification = -logits.log_softmax(-1).diagonal(dim1=1, dim2=2)

    time = (time_of_steps(mask) if time is None else time).to(u.dtype)
    mean = torch.einsum("sij,sj->si", beta, time)
    variance = (beta * (time[:, None] - mean[..., None]).square()).sum(-1)
    error = time - mean
    log_variance = torch.log(variance + EPSILON)
    if regression == "released":
        quadratic = torch.exp(-log_variance) * error.square() + variance_weight * log_variance
        linear = huber_delta * (error.abs() - huber_delta / 2)
        per_study = torch.where(error.abs() < huber_delta, quadratic, linear)
    else:
        per_study = bounded_ratio(error.square() / (variance + EPSILON)) + variance_weight * log_variance
    return (
        classification.masked_fill(~mask, 0.0).sum() / count,
        per_study.masked_fill(~mask, 0.0).sum() / count,
    )


class TemporalLoss(Loss):
    """Both mappings, from images to reports and from reports to images."""

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()
        self.settings = settings

    def terms(self, embedded: Embedded, sequences: Sequences, devices: Devices | None) -> dict[str, Tensor]:
        """As `Loss.terms`: classification and regression in both directions; 0 where the batch has no sequence."""
        s, mask = self.settings, sequences.mask
        if s.time_axis == "days" and sequences.days is None:
            raise ValueError("objective.time_axis is 'days', but no days were given")
        time = time_of_steps(mask, sequences.days if s.time_axis == "days" else None)
        image, report = embedded.image[sequences.steps], embedded.report[sequences.steps]
        terms = {}
        for name, u, v in (("image_to_report", image, report), ("report_to_image", report, image)):
            terms[f"{name}_classification"], terms[f"{name}_regression"] = mapping_losses(
                u,
                v,
                mask,
                time,
                temperature=s.temporal_temperature,
                regression=s.regression,
                variance_weight=s.variance_weight,
                huber_delta=s.huber_delta,
            )
        return terms

    def rows(self, embedded: Embedded, sequences: Sequences) -> Tensor:
        """Count the studies."""
        return sequences.mask.sum()
