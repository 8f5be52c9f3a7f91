"""What a run would take, before it takes it: measured on a few sequences of the cohort itself, then scaled up."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medst import weights
from medst.batch import Batches
from medst.devices import default_device
from medst.pretrain.engine import Step, computes_in_bf16
from medst.pretrain.run import make_tokenizer, open_fit
from medst.recipes.settings import Recipe

SAMPLE = 2


@dataclass(frozen=True)
class Estimate:
    """What one run would be. A device's numbers are those of one of `processes`."""

    parameters: int
    """That learn."""
    processes: int
    steps: int
    """Of the whole run."""
    pairs_a_step: float
    """Over all devices and parts, on average."""
    flops_a_step: float
    """Forward and backward, of a device, counted by torch."""
    fixed_bytes: int
    """Weights, gradients, moments and averages, on a device."""
    activation_bytes: float
    """Kept for the backward pass of one part, on a device, for a batch of average tokens."""
    read_bytes: float
    """Stored pixels that an epoch reads."""
    checkpoint_bytes: int
    """Of one resumable state."""
    disk_bytes: int
    """All states that stay, the next one, and two models."""
    pieces: float
    """Word pieces of an average report."""
    laterals: float
    """Share of pairs with a lateral."""

    def __str__(self) -> str:
        memory = self.fixed_bytes + self.activation_bytes
        every = f" on each of {self.processes} devices" if self.processes > 1 else ""
        rows = [
            ("parameters", f"{self.parameters / 1e6:.1f} million that learn"),
            (
                "steps",
                f"{self.steps} of {self.pairs_a_step:.1f} pairs ({self.laterals:.0%} with a lateral, {self.pieces:.0f} "
                "word pieces a report)",
            ),
            (
                "arithmetic",
                f"{self.flops_a_step / 1e12:.4g} TFLOPs a step{every}, {self.flops_a_step * self.steps / 1e15:.4g} PFLOPs "
                "in all, without what is computed a second time to save memory",
            ),
            (
                "memory",
                f"about {memory / 2**30:.2f} GiB{every}: {self.fixed_bytes / 2**30:.2f} for weights, gradients and moments, "
                f"{self.activation_bytes / 2**30:.2f} for activations of an average batch; "
                f"the largest ones take more",
            ),
            ("data", f"{self.read_bytes / 1e9:.3g} GB of stored pixels an epoch"),
            ("disk", f"{self.checkpoint_bytes / 1e9:.3g} GB a checkpoint, {self.disk_bytes / 1e9:.3g} GB in all"),
        ]
        return "\n".join(f"{name + ':':<12}{text}" for name, text in rows)


def estimate(cohort: Path, recipe: Recipe, processes: int | None = None) -> Estimate:
    """Say what `pretrain` with the same arguments would take; nothing is written.

    Args:
        cohort: folder of a prepared cohort with pairs.
        recipe: all settings.
        processes: how many there would be; those of torchrun if not given.

    Raises:
        MedstError: what `pretrain` would refuse.
    """
    recipe.check()
    data = open_fit(cohort, recipe)
    processes = processes or int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = make_tokenizer(data, recipe)
    make = partial(
        Batches, data, "train", tokenizer, pieces=recipe.model.text.pieces, seed=recipe.run.seed, training=True
    )
    batches = make(recipe.data)
    parts = processes * recipe.optimiser.accumulate
    per_epoch = len(batches) // parts
    sample = make(replace(recipe.data, sequences_per_batch=SAMPLE))

    with torch.random.fork_rng():
        torch.manual_seed(recipe.run.seed)
        model, objective = weights.build(recipe, tokenizer)
        if recipe.run.checkpoint_activations:
            model.checkpoint_activations()
        step = Step(model, objective, recipe.data)
        flops, kept = _measure(step, sample, recipe)
    learn = sum(p.numel() for p in step.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in step.parameters() if not p.requires_grad)
    views = 1 + (batches.lateral >= 0)
    tokens = sum(batches.cost) / len(batches.sequences)
    scale = recipe.data.sequences_per_batch * tokens / sum(sample.cost[row] for row in _rows(sample))
    averaged = bool(recipe.optimiser.ema)
    on_device = 4 * (learn * (4 + averaged) + fixed)
    state = 4 * (learn * (3 + averaged) + fixed)
    size = data.images.shape[1] ** 2
    return Estimate(
        parameters=learn,
        processes=processes,
        steps=per_epoch * recipe.optimiser.epochs,
        pairs_a_step=len(batches.pair) / len(batches.sequences) * recipe.data.sequences_per_batch * parts,
        flops_a_step=flops * scale * recipe.optimiser.accumulate,
        fixed_bytes=on_device // processes if recipe.run.engine == "fsdp" else on_device,
        activation_bytes=kept * scale,
        read_bytes=float(views.sum() * size),
        checkpoint_bytes=state,
        disk_bytes=(recipe.run.keep_states + 1) * state + 2 * 4 * (learn + fixed),
        pieces=float(np.mean([len(ids) for ids in batches.pieces])),
        laterals=float((batches.lateral >= 0).mean()),
    )


def _rows(sample: Batches) -> list[int]:
    return [row for sequence in sample.members(0) for row in sample.sequences[sequence]]


def _measure(step: Step, sample: Batches, recipe: Recipe) -> tuple[float, float]:
    """FLOPs of forward and backward over the sample's first batch, and the bytes that are kept in between."""
    own = {p.untyped_storage().data_ptr() for p in step.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = default_device()
    step = step.to(device).train()
    bf16 = computes_in_bf16(recipe, device)
    with FlopCounterMode(display=False) as counter:
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            losses = step(sample[0].to(device), 1.0)
        bytes_kept = float(sum(kept.values()))
        losses["loss"].backward()
    return float(counter.get_total_flops()), bytes_kept
