"""Settings of the objective, and the registry of its losses. Nothing here imports torch, so `medst --help` stays quick.

To add a loss `x`, write one file in `medst/objective` with a subclass of `Loss`, and register it here: one entry in
`LOSSES`, and its settings in `ObjectiveSettings`, at least `x_weight`. A setting `x_warmup` makes its weight rise. The
objective, the columns of metrics.csv and the learning curves are read from the registry.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from medst.recipes.ranges import Range

Weight = Annotated[float, Range(0, 1000)]
Temperature = Annotated[float, Range(0.001, 100)]


@dataclass(frozen=True)
class ObjectiveSettings:
    """The three losses and their weights (paper, sections 3.3 and 3.4)."""

    global_weight: Weight = 1.0
    """Weight of the contrast between images and reports."""
    local_weight: Weight = 1.0
    """Weight of the modality-weighted local alignment."""
    temporal_weight: Weight = 1.0
    """Weight of the bidirectional cycle consistency."""
    forward_weight: Weight = 1.0
    """Weight of the forward mapping classification within the temporal loss; 0 leaves it out."""
    reverse_weight: Weight = 1.0
    """Weight of the reverse mapping regression within the temporal loss; 0 leaves it out."""
    temporal_warmup: Annotated[float, Range(0, 1, why="a share of the steps")] = 0.0
    """Share of all steps over which the temporal weight rises from 0 to its full value."""
    global_temperature: Temperature = 0.07
    """Temperature of the global contrast."""
    local_temperature: Temperature = 0.1
    """Temperature of the local attention and of the local contrast."""
    temporal_temperature: Temperature = 0.1
    """Temperature of the squared distances between the studies of a sequence."""
    regression: Literal["released", "bounded"] = "bounded"
    """Form of the reverse mapping regression; the released one has no upper limit."""
    variance_weight: Weight = 0.001
    """Weight of the log variance in the regression."""
    huber_delta: Annotated[float, Range(0, 1000, open="low")] = 2.0
    """Time error above which the released regression is linear; a sequence lasts from 0 to below 1, so 2 is never
    reached."""
    masked: bool = True
    """Whether padding words and missing laterals are kept out of the local loss."""
    time_axis: Literal["steps", "days"] = "steps"
    """Time of a sequence's studies in the regression: evenly spaced in their order, or spaced as their dates are."""
    across_devices: bool = True
    """Contrast images with the reports of all devices, and normalise the heads' rows over all of them, so that two devices
    learn what one device with both batches would. Off: each device on its own, as released."""


@dataclass(frozen=True)
class Term:
    """One term of a loss."""

    curve: str
    """Title of its learning curve."""
    weight: str = ""
    """Setting that weights it within its loss; 1 without."""


@dataclass(frozen=True)
class LossEntry:
    """One loss of the objective. Its weight is the setting NAME_weight."""

    name: str
    code: str
    """`module:class`, a subclass of `medst.objective.loss.Loss`."""
    heads: Literal["global", "local"]
    """The projection heads whose embeddings it compares; heads that no active loss uses are frozen."""
    terms: dict[str, Term] = field(default_factory=dict)
    """Its terms by their column of metrics.csv."""

    def weights(self, settings: ObjectiveSettings) -> dict[str, float]:
        """Weights of the terms within the loss. Terms with a weight of 0 are left out, all of them if the loss has none."""
        if not getattr(settings, f"{self.name}_weight"):
            return {}
        found = {c: float(getattr(settings, t.weight)) if t.weight else 1.0 for c, t in self.terms.items()}
        return {column: weight for column, weight in found.items() if weight}


LOSSES = (
    LossEntry("global", "medst.objective.global_:GlobalLoss", "global", {"global": Term("Global contrast")}),
    LossEntry(
        "local",
        "medst.objective.local:LocalAlignment",
        "local",
        {"local_words": Term("Local, from the words"), "local_patches": Term("Local, from the patches")},
    ),
    LossEntry(
        "temporal",
        "medst.objective.temporal:TemporalLoss",
        "global",
        {
            "image_to_report_classification": Term("Image to report: which study?", "forward_weight"),
            "image_to_report_regression": Term("Image to report and back: when?", "reverse_weight"),
            "report_to_image_classification": Term("Report to image: which study?", "forward_weight"),
            "report_to_image_regression": Term("Report to image and back: when?", "reverse_weight"),
        },
    ),
)
"""All losses, in the order in which they are summed."""
TERMS = {column: term for loss in LOSSES for column, term in loss.terms.items()}
"""The terms of all losses by column of metrics.csv."""
