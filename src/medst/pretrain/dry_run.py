"""Estimate what a run costs before it starts: measured on a few sequences of the cohort, then scaled up."""

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medst import weights
from medst.batch import Batch, Batches
from medst.distributed import default_device
from medst.pretrain.setup import make_tokenizer, notes_on_start, open_training_cohort
from medst.pretrain.step import Step, computes_in_bf16
from medst.recipes.settings import Recipe

SAMPLE = 2
"""Sequences that are measured."""
GPUS = (16, 24, 40, 80)
"""Sizes of GPU memory to compare with, in GiB, which makers call GB."""
SPARE = 0.1
"""Share of the memory that is lost to fragmentation; a cautious guess, not measured."""
CONTEXT = 2**30
"""Bytes that CUDA and its kernels take; likewise."""
PEAKS = {"A100": 312e12, "H100": 989e12}
"""FLOPs per second of the dense bf16 peak, as the maker states it."""
REACHED = 0.4
"""Share of the peak that training reaches; usual for transformers, not measured here."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a run. Numbers of a device are those of one of `processes`.

    Attributes:
        parameters: those that learn.
        processes: of the run.
        steps: of the entire run.
        pairs_a_step: average over all devices and parts.
        flops_a_step: forward and backward, of a device, counted by torch.
        fixed_bytes: weights, gradients, moments and averages on a device.
        activation_bytes: kept on a device for the backward pass of one part, for a batch with the average number of tokens.
        read_bytes: stored pixels that an epoch reads.
        checkpoint_bytes: of one checkpoint.
        disk_bytes: all checkpoints that are kept, the next one, and two models.
        pieces: word pieces of an average report.
        laterals: share of pairs with a lateral.
        seconds_a_step: on this device, from batches of `SAMPLE` sequences.
        device: type of this device.
        sequence_bytes: activations of one sequence in the largest batch, in the precision of a GPU.
        sequences: of a batch on a device.
        notes: those that the run would show when it starts.
    """

    parameters: int
    processes: int
    steps: int
    pairs_a_step: float
    flops_a_step: float
    fixed_bytes: int
    activation_bytes: float
    read_bytes: float
    checkpoint_bytes: int
    disk_bytes: int
    pieces: float
    laterals: float
    seconds_a_step: float
    device: str
    sequence_bytes: float
    sequences: int
    notes: tuple[str, ...]

    def room_for(self, gibibytes: int) -> int:
        """Sequences per batch that fit on a GPU of this memory, beside weights and moments."""
        left = gibibytes * 2**30 * (1 - SPARE) - CONTEXT - self.fixed_bytes
        return max(0, int(left / self.sequence_bytes))

    def hours(self) -> str:
        """Describe how long all steps take, and how that is known."""
        flops = self.flops_a_step * self.steps
        here = self.seconds_a_step * self.steps / 3600
        rate = self.flops_a_step / self.seconds_a_step / 1e12
        calculated = ", ".join(f"{_hours(flops / REACHED / peak / 3600)} on an {name}" for name, peak in PEAKS.items())
        return (
            f"{_hours(here)} on this {self.device} ({rate:.3g} TFLOPs per second, measured on {SAMPLE} sequences); "
            f"{calculated}, calculated at {REACHED:.0%} of the bf16 peak; without validation, saving and communication"
        )

    def gpus(self) -> str:
        """Describe on which GPUs the batch fits."""
        verdicts = []
        for size in GPUS:
            most = self.room_for(size)
            refused = f"no (up to {most})" if most >= 2 else "no"
            verdicts.append(f"{size} GB {'yes' if most >= self.sequences else refused}")
        remedy = "" if self.room_for(GPUS[0]) >= self.sequences else "; for less memory: --run.checkpoint-activations"
        return f"batch of {self.sequences} sequences on a GPU of " + ", ".join(verdicts) + remedy

    def __str__(self) -> str:
        memory = self.fixed_bytes + self.activation_bytes
        every = f" on each of {self.processes} devices" if self.processes > 1 else ""
        rows = [
            ("parameters", f"{self.parameters / 1e6:.1f} million that learn"),
            (
                "steps",
                f"{self.steps} of {self.pairs_a_step:.1f} pairs ({self.laterals:.0%} with a lateral, {self.pieces:.0f} "
                "word pieces per report)",
            ),
            (
                "arithmetic",
                f"{self.flops_a_step / 1e12:.4g} TFLOPs per step{every}, {self.flops_a_step * self.steps / 1e15:.4g} PFLOPs "
                "in total, without what is recomputed to save memory",
            ),
            (
                "memory",
                f"about {memory / 2**30:.2f} GiB{every}: {self.fixed_bytes / 2**30:.2f} for weights, gradients and moments, "
                f"{self.activation_bytes / 2**30:.2f} for activations of an average batch; the largest ones take more",
            ),
            ("fits", self.gpus()),
            ("time", self.hours()),
            ("data", f"{self.read_bytes / 1e9:.3g} GB of stored pixels per epoch"),
            ("disk", f"{self.checkpoint_bytes / 1e9:.3g} GB per checkpoint, {self.disk_bytes / 1e9:.3g} GB in total"),
        ]
        rows += [("note", note) for note in self.notes]
        return "\n".join(f"{name + ':':<12}{text}" for name, text in rows)


def estimate(cohort: Path, recipe: Recipe, processes: int | None = None) -> Estimate:
    """Estimate the cost of `pretrain` with the same arguments; writes nothing.

    Args:
        cohort: folder of a prepared cohort with pairs.
        recipe: all settings.
        processes: number of processes; by default, that of torchrun.

    Raises:
        MedstError: as `pretrain`.
    """
    recipe.check()
    data = open_training_cohort(cohort, recipe)
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
        weights.load_pretrained(model, **vars(recipe.start))
        if recipe.run.checkpoint_activations:
            model.checkpoint_activations()
        step = Step(model, objective, recipe.data)
        flops, seconds, kept, kept_on_gpu = _measure(step, sample, recipe)
    learn = sum(p.numel() for p in step.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in step.parameters() if not p.requires_grad)
    views = 1 + (batches.lateral >= 0)
    # With phantom tokens, every pair has the same number of tokens and so the same cost.
    costs = np.ones_like(batches.cost) if recipe.model.phantom_tokens else batches.cost
    sequences = np.array([costs[rows].sum() for rows in batches.sequences])
    size = recipe.data.sequences_per_batch
    measured = sum(costs[sample.sequences[sequence]].sum() for sequence in sample.members(0))
    scale = size * sequences.mean() / measured
    plan = sequences[batches.plan()][: len(sequences) // size * size]
    largest = plan.reshape(-1, size).sum(1).max() / measured
    again = 4 / 3 if recipe.optimiser.accumulate > 1 else 1  # each part is encoded once more
    averaged = bool(recipe.optimiser.ema)
    on_device = 4 * (learn * (4 + averaged) + fixed)
    state = 4 * (learn * (3 + averaged) + fixed)
    pixels = data.images.shape[1] ** 2
    return Estimate(
        parameters=learn,
        processes=processes,
        steps=per_epoch * recipe.optimiser.epochs,
        pairs_a_step=len(batches.pair) / len(batches.sequences) * recipe.data.sequences_per_batch * parts,
        flops_a_step=flops * scale * recipe.optimiser.accumulate,
        fixed_bytes=on_device // processes if recipe.run.engine == "fsdp" else on_device,
        activation_bytes=kept * scale,
        read_bytes=float(views.sum() * pixels),
        checkpoint_bytes=state,
        disk_bytes=(recipe.run.keep_states + 1) * state + 2 * 4 * (learn + fixed),
        pieces=float(np.mean([len(ids) for ids in batches.pieces])),
        laterals=float((batches.lateral >= 0).mean()),
        seconds_a_step=seconds * scale * recipe.optimiser.accumulate * again,
        device=default_device().type,
        sequence_bytes=kept_on_gpu * largest / size,
        sequences=size,
        notes=tuple(notes_on_start(data, recipe, tokenizer)),
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.1 else "less than 0.1 h"


def _measure(step: Step, sample: Batches, recipe: Recipe) -> tuple[float, float, float, float]:
    """Measure the first batch: FLOPs, seconds, bytes kept for the backward pass here, and in the precision of a GPU."""
    device = default_device()
    step, batch = step.to(device).train(), sample[0].to(device)
    bf16 = computes_in_bf16(recipe, device)
    loss, kept = _forward(step, batch, bf16)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    backward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        _, kept_on_gpu = _forward(step, batch, recipe.run.precision != "fp32")
    seconds = []
    for _ in range(2):  # the first time is slower
        began = time.perf_counter()
        loss, _ = _forward(step, batch, bf16)
        loss.backward()
        loss.item()
        seconds.append(time.perf_counter() - began)
    return float(backward + counter.get_total_flops()), min(seconds), kept, kept_on_gpu


def _forward(step: Step, batch: Batch, bf16: bool) -> tuple[Tensor, float]:
    """Compute the loss of a batch; returns it, and the bytes that are kept for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in step.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast(batch.frontal.device.type, dtype=torch.bfloat16, enabled=bf16):
        losses = step(batch)
    return losses["loss"], float(sum(kept.values()))
