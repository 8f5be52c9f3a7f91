"""All settings of a run as frozen dataclasses. Nothing here imports torch, so `medst --help` stays quick.

A recipe is an instance of `Recipe`. Its fields are the flags of `medst pretrain`, and its JSON form is saved with every run.
Each number declares its range beside its type. `check` refuses values out of range, and combinations that can't work,
before anything is read or computed. The losses and their settings are in `medst.recipes.objective`.
"""

import dataclasses
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeVar

import tyro

from medst.errors import MedstError
from medst.recipes.objective import LOSSES, ObjectiveSettings
from medst.recipes.ranges import Range, outside, settings_of

T = TypeVar("T")


Width = Annotated[int, Range(1, 16384)]
BERT_POSITIONS = 512
"""Rows of BERT's table of positions."""
Count = Annotated[int, Range(0, 10**9)]


@dataclass(frozen=True)
class VisionSettings:
    """The image encoder: a ViT in which frontal and lateral tokens share attention (paper, section 3.2)."""

    image_size: Annotated[int, Range(1, 1024)] = 224
    """Side of the square picture that the encoder sees, in pixels."""
    patch_size: Annotated[int, Range(1, 1024)] = 16
    """Side of a patch, in pixels."""
    channels: Annotated[int, Range(1, 64)] = 3
    """Input channels of the patch embedding; the grey channel is repeated this many times."""
    width: Width = 768
    """Width of a token."""
    depth: Annotated[int, Range(1, 256)] = 12
    """Number of blocks."""
    heads: Width = 12
    """Attention heads per block."""
    mlp_ratio: Annotated[float, Range(0, 64, open="low")] = 4.0
    """Hidden width of an expert, divided by the token width."""
    lateral_start: Literal["copy", "random"] = "copy"
    """Initial weights of the lateral experts: a copy of the frontal ones, or random ones as released."""


@dataclass(frozen=True)
class TextSettings:
    """The text encoder: a BERT whose word-piece embeddings are summed into words."""

    width: Width = 768
    """Width of a token."""
    layers: Annotated[int, Range(1, 256)] = 6
    """Number of BERT layers."""
    heads: Width = 12
    """Attention heads per layer."""
    intermediate: Annotated[int, Range(1, 65536)] = 3072
    """Hidden width of a layer's feed-forward part."""
    pieces: Annotated[int, Range(3, BERT_POSITIONS, why="[CLS], a piece and [SEP]; BERT's positions")] = 112
    """Maximum number of word pieces per report, including [CLS] and [SEP]; longer reports are cut."""
    positions: bool = True
    """Whether the encoder sees the order of words. The released one does not: every token is at position 0."""
    token_types: bool = True
    """Whether BERT's token-type embedding is added. The released encoder has none."""
    close_cut_reports: bool = True
    """Whether a cut report keeps its last word and [SEP]; the released code loses both."""
    dropout: Annotated[float, Range(0, 0.9)] = 0.1
    """Dropout of the BERT layers in training."""


@dataclass(frozen=True)
class ModelSettings:
    """Both encoders and their projection heads."""

    vision: VisionSettings = field(default_factory=VisionSettings)
    """The image encoder."""
    text: TextSettings = field(default_factory=TextSettings)
    """The text encoder."""
    projection_hidden: Annotated[int, Range(1, 65536)] = 2048
    """Hidden width of the four projection heads."""
    embedding: Annotated[int, Range(1, 16384)] = 128
    """Width of every embedding."""
    phantom_tokens: bool = False
    """Whether a missing lateral is encoded as the patches of a blank picture, and every report is padded to `pieces`
    words, as released."""


@dataclass(frozen=True)
class StartSettings:
    """Weights to start from. They are loaded in this order, so later ones win; without any, weights are random."""

    deit: str = ""
    """A DeiT or ViT for the image encoder: a checkpoint, a folder, or a hub id such as facebook/deit-base-patch16-224."""
    bert: str = ""
    """A BERT for the text encoder, and its tokenizer: a folder, or a hub id such as emilyalsentzer/Bio_ClinicalBERT."""
    checkpoint: str = ""
    """A released Med-ST or MGCA checkpoint, or a model folder of medst or its hub id, for all that it contains."""


@dataclass(frozen=True)
class DataSettings:
    """The batches: sequences, pictures and vocabulary."""

    sequence_length: Annotated[int, Range(2, 256)] = 4
    """Maximum number of studies per sequence; a patient's studies are cut into consecutive sequences of this length, and the
    last one may be shorter."""
    temporal_from: Annotated[int, Range(2, 256)] = 2
    """Minimum number of studies of a sequence for the temporal loss; the released code uses full sequences only."""
    laterals: Literal["own", "none", "mixed"] = "own"
    """The study's own lateral view; none; or mixed, to measure the effect of a bug in the released code, which moves full
    sequences to the front of a batch but not their laterals, so that laterals end up with other studies."""
    sequences_per_batch: Annotated[int, Range(2, 65536, why="contrast needs a negative")] = 10
    """Sequences per device and batch, shorter ones included; with optimiser.accumulate, per part of a batch."""
    balance: bool = True
    """Whether a step's sequences are distributed so that all devices and parts get the same amount of work."""
    crop: Annotated[int, Range(1, 256, why="the side of a stored picture")] = 224
    """Side of the square that is cut from the stored 256 x 256 pixels and scaled to the image size: at random in training,
    from the centre in validation, evaluation and use."""
    patients: Annotated[float, Range(0, 1, open="low", why="a share")] = 1.0
    """Share of the training patients to use, drawn with the seed."""
    tokenizer: str = ""
    """Folder or hub id of a BERT's tokenizer. Empty: that of start.bert or start.checkpoint, or, without these, one that is
    learnt from the training reports."""
    vocabulary: Annotated[int, Range(1, 10**6)] = 1200
    """Maximum size of a learnt vocabulary, in word pieces."""


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW and its schedule: linear warm-up, then cosine."""

    lr: Annotated[float, Range(0, 1, open="low")] = 4e-5
    """Highest learning rate, at the end of the warm-up."""
    lr_min: Annotated[float, Range(0, 1)] = 1e-8
    """Learning rate at which the warm-up starts, and towards which the cosine falls after it."""
    beta1: Annotated[float, Range(0, 1, open="high")] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Range(0, 1, open="high")] = 0.999
    """Decay of the second moment."""
    weight_decay: Annotated[float, Range(0, 10)] = 0.05
    """Weight decay, of all parameters unless `decay_matrices_only`."""
    decay_matrices_only: bool = False
    """Whether biases, norms, and embeddings of positions and token types are exempt from weight decay."""
    warmup: Annotated[float, Range(0, 1, open="high", why="a share of the steps")] = 0.4
    """Share of all steps over which the learning rate rises."""
    accumulate: Annotated[int, Range(1, 65536)] = 1
    """Number of parts in which a device computes its batch, if it does not fit at once; the result is that of one batch."""
    ema: Annotated[float, Range(0, 1, open="high", why="a decay")] = 0.0
    """Decay of an exponential moving average of the weights, which is then validated, and saved in best and last. 0: no
    average; 0.999 averages about the last thousand steps."""
    clip: Annotated[float, Range(0, 1e6)] = 1.0
    """Norm to which a larger gradient is scaled down; 0 switches clipping off."""
    skip_above: Annotated[float, Range(0, 1e9)] = 0.0
    """Gradient norm above which a step is skipped, and counted; 0 skips only steps whose norm is not finite."""
    explode_above: Annotated[float, Range(0, 1e9)] = 100.0
    """Factor on the median loss of the last 50 steps above which a run stops; 0 stops only if the loss is not finite."""
    epochs: Annotated[int, Range(1, 10**6)] = 8
    """Passes over the training sequences."""
    patience: Count = 5
    """Epochs without a better validation loss after which a run stops; 0 never stops early."""
    stop_after: Count = 0
    """Optimiser steps after which to stop, so that the run can be resumed; 0 runs to the end. The schedule is the same."""


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out. Apart from the seed, this changes results by rounding only."""

    seed: Annotated[int, Range(0, 2**32 - 1)] = 42
    """Seed of weights, order, crops and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoders; auto uses bf16 if the hardware multiplies it natively."""
    loader_workers: Annotated[int, Range(0, 256)] = 0
    """Processes that load batches; 0 loads them in the main process."""
    save_every: Count = 0
    """Optimiser steps between checkpoints; 0 saves one after each epoch."""
    save_minutes: Annotated[float, Range(0, 1e6)] = 0.0
    """Minutes since the last checkpoint after which another one is saved; 0 counts steps and epochs only."""
    keep_states: Annotated[int, Range(1, 10**6)] = 2
    """Number of checkpoints to keep; with two, a run whose last one is damaged resumes from the one before."""
    engine: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: ddp copies the weights to every device, fsdp shards weights, gradients and moments."""
    compile: Literal["off", "auto", "on"] = "off"
    """Whether torch.compile compiles the image encoder's blocks; auto times one block both ways and uses the faster."""
    checkpoint_activations: bool = False
    """Whether the backward pass recomputes the encoders' activations instead of keeping them: less memory, more time."""
    logger: Literal["tensorboard", "wandb", "csv"] = "tensorboard"
    """Where metrics are written besides metrics.csv."""
    project: str = "medst"
    """Project at Weights & Biases."""
    name: str = ""
    """Name of the run at Weights & Biases; empty: the run folder's name. A resumed run stays one run there."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run."""

    name: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = "custom"
    """Name of the recipe that these settings started from."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """Encoders and projections."""
    start: StartSettings = field(default_factory=StartSettings)
    """Start weights."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """Losses."""
    data: DataSettings = field(default_factory=DataSettings)
    """Batches."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Optimiser and schedule."""
    run: RunSettings = field(default_factory=RunSettings)
    """Engine, logging and saving."""

    def check(self, source: str = "") -> None:
        """Refuse settings that can't work.

        Args:
            source: where the settings are from; by default, the recipe's name.

        Raises:
            MedstError: a setting has the wrong type or is out of range, or two settings contradict each other.
        """
        source = source or f"settings of recipe '{self.name}'"
        for sentence in outside(self):
            raise MedstError(f"{source}: {sentence}.")
        for sentence in self._contradictions():
            raise MedstError(f"{source}: {sentence}.")

    def _contradictions(self) -> Iterator[str]:
        vision, objective, optimiser = self.model.vision, self.objective, self.optimiser

        def flag(path: str) -> str:
            return f"--{path.replace('_', '-')} {attrgetter(path)(self)}"

        for a, relation, b in (
            ("model.vision.image_size", "a multiple of", "model.vision.patch_size"),
            ("model.vision.width", "a multiple of", "model.vision.heads"),
            ("model.text.width", "a multiple of", "model.text.heads"),
            ("data.temporal_from", "at most", "data.sequence_length"),
            ("optimiser.lr_min", "at most", "optimiser.lr"),
        ):
            left, right = attrgetter(a, b)(self)
            if left > right if relation == "at most" else left % right:
                yield f"{flag(a)} must be {relation} {flag(b)}"
        if int(vision.width * vision.mlp_ratio) < 1:
            yield f"{flag('model.vision.mlp_ratio')} times {flag('model.vision.width')} leaves an expert no hidden unit"
        if optimiser.lr * optimiser.weight_decay >= 1:
            product = f"{flag('optimiser.lr')} times {flag('optimiser.weight_decay')}"
            yield f"{product} must be below 1: a step would decay more than the entire weight"
        if 0 < optimiser.explode_above <= 1:
            yield f"{flag('optimiser.explode_above')} must be 0 or above 1"
        if not any(loss.weights(objective) for loss in LOSSES):
            yield (
                "every loss has a weight of 0; set --objective.global-weight, --objective.local-weight, or "
                "--objective.temporal-weight with --objective.forward-weight or --objective.reverse-weight above 0"
            )
        if not objective.masked and not self.model.phantom_tokens:
            yield "--objective.masked false needs --model.phantom-tokens true: otherwise there are no tokens to include"


RETIRED = {"TextSettings": {"vocabulary"}}
"""Fields of earlier versions that are ignored; the size of the vocabulary is the tokenizer's."""


def to_dict(settings: Any) -> dict[str, Any]:
    """Convert a recipe, or a part of one, to plain JSON values."""
    return dataclasses.asdict(settings)


def from_dict(kind: type[T], values: Any) -> T:
    """Make settings of type `kind` from the result of `to_dict`. Their values are not checked, see `Recipe.check`.

    Raises:
        MedstError: `values` has a field that `kind` does not have, or a single value in place of several settings.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise MedstError(f"settings: {kind.__name__} is {values!r}; it must hold {', '.join(fields)}.")
    values = {name: value for name, value in values.items() if name not in RETIRED.get(kind.__name__, ())}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise MedstError(
            f"settings: {kind.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(fields))}."
        )
    for name, value in values.items():
        if dataclasses.is_dataclass(part := fields[name].type):
            values[name] = from_dict(part, value)  # type: ignore[arg-type]
    return kind(**values)


def changed_settings(saved: dict[str, Any], recipe: Recipe, ignored: Container[str]) -> list[str]:
    """Dotted names of the settings in which a recipe differs from a saved one, possibly written by an older version.

    Settings that are newer than the saved recipe count as saved with their defaults.

    Raises:
        MedstError: `saved` is not a recipe, see `from_dict`.
    """
    before, now = ({name: value for name, _, value in settings_of(each)} for each in (from_dict(Recipe, saved), recipe))
    return [name for name in sorted(now) if before[name] != now[name] and name not in ignored]
