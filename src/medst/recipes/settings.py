"""Every setting of a run as frozen dataclasses; nothing here imports torch, so `medst --help` stays quick.

A recipe is an instance of `Recipe`. Its fields are the flags of `medst pretrain`, and its JSON form is saved with every run
and every model. Each number declares its range beside its type; `check` refuses what lies outside, and combinations that
can't work, before anything is read or computed.
"""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import tyro

from medst.errors import MedstError
from medst.recipes.objective import LOSSES, ObjectiveSettings
from medst.recipes.ranges import Range, outside

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
    """Input channels of the patch embedding; grey is repeated to this many."""
    width: Width = 768
    """Width of a token."""
    depth: Annotated[int, Range(1, 256)] = 12
    """Number of blocks."""
    heads: Width = 12
    """Attention heads a block."""
    mlp_ratio: Annotated[float, Range(0, 64, open="low")] = 4.0
    """Hidden width of an expert over the token width."""
    lateral_start: Literal["copy", "random"] = "copy"
    """How lateral experts start: as a copy of the frontal ones, or at random as released."""


@dataclass(frozen=True)
class TextSettings:
    """The text encoder: a BERT whose word pieces are summed into words."""

    width: Width = 768
    """Width of a token."""
    layers: Annotated[int, Range(1, 256)] = 6
    """Number of BERT layers."""
    heads: Width = 12
    """Attention heads a layer."""
    intermediate: Annotated[int, Range(1, 65536)] = 3072
    """Hidden width of a layer's feed-forward part."""
    pieces: Annotated[int, Range(3, BERT_POSITIONS, why="[CLS], a piece and [SEP]; BERT's positions")] = 112
    """Most word pieces of a report, [CLS] and [SEP] included; longer reports are cut."""
    positions: bool = True
    """Whether the encoder sees word order. The released one does not: every token sits at position 0."""
    token_types: bool = True
    """Whether BERT's token-type embedding is added. The released encoder has none."""
    close_cut_reports: bool = True
    """Whether a cut report keeps its last word and [SEP]; the released aggregation loses both."""
    dropout: Annotated[float, Range(0, 0.9)] = 0.1
    """Dropout in the BERT layers while training."""


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
    """Whether a missing lateral is encoded as 196 tokens of a blank picture and every report is filled to `pieces` words,
    both taking part in the local loss, as released."""


@dataclass(frozen=True)
class StartSettings:
    """Weights to start from, taken in this order, later ones winning; all empty starts from random weights."""

    deit: str = ""
    """A DeiT or ViT for the image encoder: a checkpoint, a folder, or a hub id such as facebook/deit-base-patch16-224."""
    bert: str = ""
    """A BERT for the text encoder, and its tokenizer: a folder, or a hub id such as emilyalsentzer/Bio_ClinicalBERT."""
    checkpoint: str = ""
    """Released Med-ST or MGCA checkpoint for everything that it holds; or a model folder of medst, or its hub id."""


@dataclass(frozen=True)
class DataSettings:
    """What a batch is made of."""

    sequence_length: Annotated[int, Range(2, 256)] = 4
    """Most studies a sequence; a patient's studies are cut into consecutive sequences of this length, the last one
    shorter."""
    temporal_from: Annotated[int, Range(2, 256)] = 2
    """Shortest sequence that takes part in the temporal loss; the released code takes full sequences only."""
    laterals: Literal["own", "none", "mixed"] = "own"
    """A study's own lateral view; none; or, to measure what it costs, as the released code hands them out: full sequences
    come first, but laterals stay in the order from before."""
    sequences_per_batch: Annotated[int, Range(2, 65536, why="contrast needs a negative")] = 10
    """Sequences a batch and device, shorter ones included; with optimiser.accumulate, of each part of it."""
    balance: bool = True
    """Whether a step's sequences are dealt out so that all devices and parts have as much to compute; else by chance."""
    crop: Annotated[int, Range(1, 256, why="the side of a stored picture")] = 224
    """Side of the random crop from the stored 256 pixels, before it is scaled to the image size."""
    patients: Annotated[float, Range(0, 1, open="low", why="a share")] = 1.0
    """Share of the training patients to use, drawn by seed before sequences are built."""
    tokenizer: str = ""
    """Folder or hub id of a BERT's tokenizer; its vocabulary is the model's. Empty: that of start.bert or start.checkpoint,
    and without these one learnt from the training reports."""
    vocabulary: Annotated[int, Range(1, 10**6)] = 1200
    """Most word pieces of a vocabulary that is learnt."""


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW and its schedule: linear warm-up, then cosine."""

    lr: Annotated[float, Range(0, 1, open="low")] = 4e-5
    """Highest learning rate."""
    lr_min: Annotated[float, Range(0, 1)] = 1e-8
    """Learning rate at the first and the last step."""
    beta1: Annotated[float, Range(0, 1, open="high")] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Range(0, 1, open="high")] = 0.999
    """Decay of the second moment."""
    weight_decay: Annotated[float, Range(0, 10)] = 0.05
    """Weight decay, on everything unless `decay_matrices_only`."""
    decay_matrices_only: bool = False
    """Spare biases, norms and embeddings of positions from weight decay."""
    warmup: Annotated[float, Range(0, 1, open="high", why="a share of the steps")] = 0.4
    """Share of all steps over which the learning rate rises."""
    accumulate: Annotated[int, Range(1, 65536)] = 1
    """Parts in which a device takes its batch where it does not fit; contrast and statistics are those of all parts."""
    ema: Annotated[float, Range(0, 1, open="high", why="a decay")] = 0.0
    """Decay of an exponential moving average of the weights, which is then what is validated and kept in best and
    last; 0 has none. 0.999 remembers about the last thousand steps."""
    clip: Annotated[float, Range(0, 1e6)] = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    skip_above: Annotated[float, Range(0, 1e9)] = 0.0
    """Skip and count a step whose gradient norm is above this; 0 skips only what is no number."""
    explode_above: Annotated[float, Range(0, 1e9)] = 100.0
    """Stop where the loss is so many times its median over the last 50 steps; 0 stops only where it is no number."""
    epochs: Annotated[int, Range(1, 10**6)] = 8
    """Passes over the training sequences."""
    patience: Count = 5
    """Stop after so many epochs without a better validation loss; 0 never stops early."""
    stop_after: Count = 0
    """Stop (resumably) after so many optimiser steps; 0 runs to the end. The schedule does not change."""


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out; none of it changes what is computed, but for rounding and the seed's draw."""

    seed: Annotated[int, Range(0, 2**32 - 1)] = 42
    """Seed of weights, order, crops and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoders; auto takes bf16 where the hardware multiplies it natively."""
    loader_workers: Annotated[int, Range(0, 256)] = 0
    """Processes that read batches; 0 reads in the main process."""
    save_every: Count = 0
    """Optimiser steps between resumable checkpoints; 0 saves once an epoch."""
    save_minutes: Annotated[float, Range(0, 1e6)] = 0.0
    """Minutes after which a resumable checkpoint is saved in any case; 0 looks at steps and epochs only."""
    keep_states: Annotated[int, Range(1, 10**6)] = 2
    """Resumable checkpoints that stay; with two, a damaged last one costs the steps since the one before."""
    engine: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: every device holds all weights, or weights, gradients and moments are sharded over them."""
    compile: Literal["off", "auto", "on"] = "off"
    """torch.compile of the image encoder's blocks; auto times one block both ways and takes the faster."""
    checkpoint_activations: bool = False
    """Compute the encoders' activations again in the backward pass instead of keeping them: less memory, more time."""
    logger: Literal["tensorboard", "wandb", "csv"] = "tensorboard"
    """Where metrics go besides metrics.csv."""
    project: str = "medst"
    """Project at Weights & Biases."""
    name: str = ""
    """Name of the run at Weights & Biases; the run folder's if empty. A run that resumes stays one run there."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run."""

    name: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = "custom"
    """Name of the recipe this started from."""
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
        """Refuse what can't work.

        Args:
            source: what the settings were read from; the recipe's name if not given.

        Raises:
            MedstError: a field has another type or is out of its range, or two fields contradict each other.
        """
        source = source or f"settings of recipe '{self.name}'"
        for sentence in outside(self):
            raise MedstError(f"{source}: {sentence}.")
        vision, text, objective, optimiser = self.model.vision, self.model.text, self.objective, self.optimiser
        rules = [
            (
                vision.image_size % vision.patch_size == 0,
                f"--model.vision.image-size {vision.image_size} must be a multiple of --model.vision.patch-size "
                f"{vision.patch_size}",
            ),
            (
                vision.width % vision.heads == 0,
                f"--model.vision.width {vision.width} must be a multiple of --model.vision.heads {vision.heads}",
            ),
            (
                int(vision.width * vision.mlp_ratio) >= 1,
                f"--model.vision.mlp-ratio {vision.mlp_ratio} times --model.vision.width {vision.width} leaves an expert "
                "no hidden unit",
            ),
            (
                text.width % text.heads == 0,
                f"--model.text.width {text.width} must be a multiple of --model.text.heads {text.heads}",
            ),
            (
                self.data.temporal_from <= self.data.sequence_length,
                f"--data.temporal-from {self.data.temporal_from} must be at most --data.sequence-length "
                f"{self.data.sequence_length}",
            ),
            (
                optimiser.lr_min <= optimiser.lr,
                f"--optimiser.lr-min {optimiser.lr_min} must be at most --optimiser.lr {optimiser.lr}",
            ),
            (
                optimiser.lr * optimiser.weight_decay < 1,
                f"--optimiser.lr {optimiser.lr} times --optimiser.weight-decay {optimiser.weight_decay} must be below "
                "1: a step would decay more than the whole weight",
            ),
            (
                optimiser.explode_above == 0 or optimiser.explode_above > 1,
                f"--optimiser.explode-above {optimiser.explode_above} must be 0 or above 1",
            ),
            (
                any(loss.weights(objective) for loss in LOSSES),
                "every loss has a weight of 0; set --objective.global-weight, --objective.local-weight, or "
                "--objective.temporal-weight with --objective.forward-weight or --objective.reverse-weight above 0",
            ),
            (
                objective.masked or self.model.phantom_tokens,
                "--objective.masked false needs --model.phantom-tokens true: there is nothing in the place of masked tokens",
            ),
        ]
        for holds, sentence in rules:
            if not holds:
                raise MedstError(f"{source}: {sentence}.")


RETIRED = {"TextSettings": {"vocabulary"}}
"""Fields that earlier versions wrote and that say nothing of their own: the vocabulary is the tokenizer's."""


def to_dict(settings: Any) -> dict[str, Any]:
    """A recipe, or a part of one, as plain JSON values."""
    return dataclasses.asdict(settings)


def from_dict(kind: type[T], values: Any) -> T:
    """Settings of type `kind` from what `to_dict` gave.

    Values are taken as they are; `Recipe.check` says what is wrong with them.

    Raises:
        MedstError: `values` holds a field that `kind` does not have, or one value where several settings belong.
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
    parts = {name for name, each in fields.items() if dataclasses.is_dataclass(each.type)}
    built = {
        name: from_dict(fields[name].type, value) if name in parts else value  # type: ignore[arg-type]
        for name, value in values.items()
    }
    return kind(**built)


def changed_settings(saved: dict[str, Any], recipe: Recipe, ignored: Container[str]) -> list[str]:
    """Dotted names of the settings in which a recipe differs from a saved one, which `to_dict` may have written long ago.

    Settings that are newer than the saved recipe count as saved with their defaults.

    Raises:
        MedstError: `saved` is not a recipe, see `from_dict`.
    """

    def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in dataclasses.fields(settings):
            value, name = getattr(settings, each.name), prefix + each.name
            found |= flat(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
        return found

    before, now = flat(from_dict(Recipe, saved)), flat(recipe)
    return [name for name in sorted(now) if before[name] != now[name] and name not in ignored]
