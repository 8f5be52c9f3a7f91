"""Refuse a run that can't fit into memory before it starts: a lower bound of a step's memory, from sizes alone.

The dry run measures. This has to be fast, must take no memory itself, and must never refuse a run that fits. So it counts
only what autograd is known to keep, and no temporary copies.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from medst import weights
from medst.cohort.sequences import cut_sequences
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.pretrain.step import computes_in_bf16
from medst.recipes.settings import Recipe

GIB = 2**30
FLOAT = 4
SAMPLE = 500
"""Reports whose length is measured."""


@dataclass(frozen=True)
class Part:
    """One device's part of a step, on average."""

    sequences: float
    """Sequences that take part in the temporal loss."""
    pairs: float
    laterals: float
    pieces: float
    """Word pieces of a report."""

    @staticmethod
    def of(cohort: Cohort, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> "Part":
        """Average over the cohort; empty if there is nothing to train on."""
        pairs, data = cohort.require("pairs").filter(split="train"), recipe.data
        if pairs.is_empty():
            return Part(0, 0, 0, 0)
        sequences = cut_sequences(pairs, data.sequence_length)
        each = len(pairs) / len(sequences)
        temporal = sum(len(rows) >= data.temporal_from for rows in sequences) / len(sequences)
        seen = 0.0 if data.laterals == "none" else 1 - pairs["lateral"].null_count() / len(pairs)
        reports = pairs["report"].head(SAMPLE).to_list()
        pieces = tokenizer(reports, truncation=True, max_length=recipe.model.text.pieces)["input_ids"]
        size = data.sequences_per_batch
        return Part(size * temporal, size * each, size * each * seen, sum(map(len, pieces)) / len(pieces))


def activation_bytes(recipe: Recipe, part: Part, bf16: bool) -> float:
    """Lower bound of the bytes that a device keeps for the backward pass.

    Args:
        recipe: all settings.
        part: the device's part of a step.
        bf16: whether the encoders compute in bf16.
    """
    vision, text, parts = recipe.model.vision, recipe.model.text, recipe.optimiser.accumulate
    phantom, again = recipe.model.phantom_tokens, recipe.run.checkpoint_activations
    number = 2 if bf16 else FLOAT
    patches = (vision.image_size // vision.patch_size) ** 2
    laterals = part.pairs if phantom else part.laterals
    seen = (part.pairs + laterals) * patches
    words = part.pairs * (text.pieces if phantom else 0.5 * part.pieces)

    def layers(count: int, width: int, hidden: float, tokens: float, scores: float) -> tuple[float, float]:
        # Two norms, q, k, v, the output of attention twice, the residual; the hidden layer before and after its GELU.
        inside = tokens * (9 * width + 2 * hidden) * number + scores
        return (count * tokens * width * number, inside) if again else (count * inside, 0.0)

    scores = part.pairs * part.pieces**2 * text.heads * number if text.dropout else 0.0
    encoders = [
        layers(vision.depth, vision.width, int(vision.width * vision.mlp_ratio), part.pairs + seen, 0.0),
        layers(text.layers, text.width, text.intermediate, part.pairs * part.pieces, scores),
    ]
    encoded = sum(kept for kept, _ in encoders) + max(passing for _, passing in encoders)
    features = FLOAT * (seen * vision.width + words * text.width)
    losses = FLOAT * (seen + words) * (2 * recipe.model.projection_hidden + 3 * recipe.model.embedding)
    objective = recipe.objective
    if objective.local_weight:
        both, each = 2 * patches, words / part.pairs if part.pairs else 0
        losses += FLOAT * part.pairs * (both**2 + 2 * both * each + 7 * (both + each) * recipe.model.embedding)
    if objective.temporal_weight and (objective.forward_weight or objective.reverse_weight):
        # Each direction compares all steps of a sequence with one another twice.
        losses += FLOAT * 4 * part.sequences * recipe.data.sequence_length**2 * recipe.model.embedding
    if parts == 1:
        return encoded + features + losses
    return parts * features + max(encoded, parts * losses)


def available_bytes(device: torch.device) -> int | None:
    """Memory of a GPU, however much of it is in use, or what limits allow this process on a CPU; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type != "cpu":
        return None
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += _cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    with suppress(ImportError, OSError, ValueError):  # systems without such limits
        import resource

        pages = [int(pages) for pages in Path("/proc/self/statm").read_text().split()]
        for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            soft = resource.getrlimit(limit)[0]
            if soft != resource.RLIM_INFINITY:
                found.append(max(0, soft - taken * resource.getpagesize()))
    return min(found, default=None)


def _cgroup_limits(groups: Path, root: Path) -> list[int]:
    """Memory limits of this process's control groups, of version 1 or 2, as batch systems and containers set them."""
    limits = []
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
            group = base / place.lstrip("/")
            for folder in (group, *group.parents[: len(Path(place).parts) - 1]):
                with suppress(OSError, ValueError):  # no such file, or "max"
                    limits.append(int((folder / name).read_text()))
    return limits


def check_memory(
    recipe: Recipe, cohort: Cohort, tokenizer: PreTrainedTokenizerBase, processes: int, device: torch.device
) -> None:
    """Refuse a run whose average step can't fit.

    Args:
        recipe: all settings.
        cohort: to train on.
        tokenizer: sets the size of the vocabulary.
        processes: of the run; on a CPU, those of this machine share its memory.
        device: where it runs.

    Raises:
        MedstError: a step takes more memory than there is.
    """
    room = available_bytes(device)
    if room is None:
        return
    if device.type == "cpu":
        room //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    parameters = sum(p.numel() for module in weights.build(recipe, tokenizer, "meta") for p in module.parameters())
    copies = 4 + bool(recipe.optimiser.ema)  # weights, gradients, both moments, and the average
    fixed = FLOAT * copies * parameters / (processes if recipe.run.engine == "fsdp" else 1)
    activations = activation_bytes(recipe, Part.of(cohort, recipe, tokenizer), computes_in_bf16(recipe, device))
    if fixed + activations <= room:
        return
    remedy = (
        "take smaller encoders"
        if fixed > room
        else "lower --data.sequences-per-batch, raise --optimiser.accumulate or set --run.checkpoint-activations"
    )
    raise MedstError(
        f"settings of recipe '{recipe.name}': a step takes at least {(fixed + activations) / GIB:.1f} GiB "
        f"({fixed / GIB:.1f} for weights, gradients and moments, {activations / GIB:.1f} for activations), and a process "
        f"has {room / GIB:.1f} here; {remedy}."
    )
