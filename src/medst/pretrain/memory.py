"""What a step takes at least, from sizes alone, and what the machine has: a run that can't fit is refused before it begins.

The dry run measures; this must answer for any settings, at once and without memory of its own, and must never refuse a run
that fits. So it counts only what autograd is known to keep, and temporary copies not at all.
"""

import os
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


@dataclass(frozen=True)
class Part:
    """What one device takes at a time, on average."""

    sequences: float
    """Those that take part in the temporal loss."""
    pairs: float
    laterals: float
    pieces: float
    """Of a report."""

    @staticmethod
    def of(cohort: Cohort, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> "Part":
        """The average part of this cohort; empty where there is nothing to train on."""
        assert cohort.pairs is not None
        pairs, data = cohort.pairs.filter(split="train"), recipe.data
        if pairs.is_empty():
            return Part(0, 0, 0, 0)
        sequences = cut_sequences(pairs, data.sequence_length)
        each = len(pairs) / len(sequences)
        temporal = sum(len(rows) >= data.temporal_from for rows in sequences) / len(sequences)
        seen = 0.0 if data.laterals == "none" else 1 - pairs["lateral"].null_count() / len(pairs)
        said = pairs["report"].head(SAMPLE).to_list()
        pieces = tokenizer(said, truncation=True, max_length=recipe.model.text.pieces)["input_ids"]
        size = data.sequences_per_batch
        return Part(size * temporal, size * each, size * each * seen, sum(map(len, pieces)) / len(pieces))


def fixed_bytes(recipe: Recipe, parameters: int, processes: int) -> float:
    """Weights, gradients, both moments and the average, on a device."""
    copies = 4 + bool(recipe.optimiser.ema)
    return FLOAT * copies * parameters / (processes if recipe.run.engine == "fsdp" else 1)


def activation_bytes(recipe: Recipe, part: Part, bf16: bool) -> float:
    """What forward keeps for backward on a device, at least.

    Args:
        recipe: all settings.
        part: what a device takes at a time.
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
        # Two norms, q, k, v, what attention gives twice, the residual; the hidden part before and after its GELU.
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
        both, said = 2 * patches, words / part.pairs if part.pairs else 0
        losses += FLOAT * part.pairs * (both**2 + 2 * both * said + 8 * (both + said) * recipe.model.embedding)
    if objective.temporal_weight and (objective.forward_weight or objective.reverse_weight):
        # Each direction compares all steps with all twice.
        losses += FLOAT * 4 * part.sequences * recipe.data.sequence_length**2 * recipe.model.embedding
    if parts == 1:
        return encoded + features + losses
    return parts * features + max(encoded, parts * losses)


def available_bytes(device: torch.device) -> int | None:
    """Memory of a device: the whole of it, whoever uses it now; for a CPU what the process may have. None where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type != "cpu":
        return None
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += _of_group(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    try:
        import resource

        pages = [int(pages) for pages in Path("/proc/self/statm").read_text().split()]
        for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            soft = resource.getrlimit(limit)[0]
            if soft != resource.RLIM_INFINITY:
                found.append(max(0, soft - taken * resource.getpagesize()))
    except (ImportError, OSError, ValueError):  # no such limits on this system
        pass
    return min(found, default=None)


def _of_group(groups: Path, root: Path) -> list[int]:
    """Limits of the control groups that this process is in, as batch systems and containers set them."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return []
    places = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            places += [(root / folder / "memory.max") for folder in _upwards(place)]
        elif "memory" in controllers.split(","):
            places += [(root / "memory" / folder / "memory.limit_in_bytes") for folder in _upwards(place)]
    limits = []
    for file in places:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return limits


def _upwards(place: str) -> list[Path]:
    path = Path(place.lstrip("/"))
    return [path, *path.parents]


def check_memory(
    recipe: Recipe, cohort: Cohort, tokenizer: PreTrainedTokenizerBase, processes: int, device: torch.device
) -> None:
    """Refuse a run whose average step can't fit.

    Args:
        recipe: all settings.
        cohort: to train on.
        tokenizer: whose vocabulary the text encoder has.
        processes: of the whole run; on a CPU, those of this machine share its memory.
        device: where it runs.

    Raises:
        MedstError: a step takes more memory than there is.
    """
    room = available_bytes(device)
    if room is None:
        return
    if device.type == "cpu":
        room //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    parameters = sum(p.numel() for module in weights.build_empty(recipe, tokenizer) for p in module.parameters())
    fixed = fixed_bytes(recipe, parameters, processes)
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
