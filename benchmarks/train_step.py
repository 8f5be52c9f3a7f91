"""One full training step (forward, backward, optimiser) of the paper's model in three ways, against the matmul peak.

    python benchmarks/train_step.py                     # 11 pairs, 6 laterals, 306 word pieces, on the CPU
    python benchmarks/train_step.py --device cuda --pairs 256 --laterals 0.55

Made-up batches with a given share of laterals and lengths of reports. `exact` is recipe paper with its phantom tokens, in
float32; `fast` is recipe modern, in float32 and in bf16, each also with activations computed again. Each way runs in a
process of its own, so that its peak memory is its own, all ways one after the other and that twice, for the machine is
not equally fast at all times; the best of a way's rounds counts. Model FLOPs are those of the fast way, counted by torch,
whatever a way does besides: what exact does for phantom tokens counts for nothing. The peak is that of float32 (CPU) or
bf16 (GPU) products of square matrices, measured in the same run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from machine import keep
from medst.batch import Batch
from medst.model.medst import MedST
from medst.objective import Objective
from medst.pretrain import Step, make_optimiser
from medst.recipes import RECIPES

# Recipe, bf16, activations computed again.
WAYS = {
    "exact fp32": ("paper", False, False),
    "fast fp32": ("modern", False, False),
    "fast bf16": ("modern", True, False),
    "fast fp32, activations again": ("modern", False, True),
    "fast bf16, activations again": ("modern", True, True),
}
VOCABULARY, SEP = 28_996, 102  # Bio_ClinicalBERT's


def make_batch(pairs: int, laterals: int, pieces: int, side: int = 256) -> Batch:
    """A batch of sequences of four and single studies, reports of as even lengths as may be."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((pairs,), pieces // pairs)
    lengths[: pieces % pairs] += 1
    lengths = (lengths.float() * torch.linspace(0.6, 1.4, pairs)).round().long().clamp(min=3)
    lengths[-1] += pieces - int(lengths.sum())
    longest = int(lengths.max())
    place = torch.arange(longest)
    mask = (place < lengths[:, None]).long()
    ids = torch.randint(1000, VOCABULARY, (pairs, longest), generator=generator) * mask
    ids[:, 0] = 2
    ids[torch.arange(pairs), lengths - 1] = SEP
    sequences = pairs // 4
    steps = torch.arange(sequences * 4).view(sequences, 4)
    return Batch(
        pair=torch.arange(pairs),
        frontal=torch.randint(0, 256, (pairs, side, side), generator=generator, dtype=torch.uint8),
        lateral=torch.randint(0, 256, (laterals, side, side), generator=generator, dtype=torch.uint8),
        lateral_of=torch.arange(laterals),
        corners=torch.randint(0, side - 224 + 1, (pairs + laterals, 2), generator=generator),
        pieces=ids,
        attention_mask=mask,
        steps=steps,
        step_mask=torch.ones_like(steps, dtype=torch.bool),
        days=30.0 * torch.arange(4).expand(sequences, 4).contiguous(),
    )


def build(way: str, device: str) -> tuple[Step, torch.optim.Optimizer]:
    """Model, objective and optimiser of one way."""
    recipe = RECIPES[WAYS[way][0]]
    continues = torch.arange(VOCABULARY) % 4 == 0
    torch.manual_seed(0)
    model = MedST(recipe.model, continues, SEP)
    if WAYS[way][2]:
        model.checkpoint_activations()
    step = Step(model, Objective(recipe.objective, recipe.model.embedding), recipe.data).to(device)
    step.train()
    return step, make_optimiser(step, recipe.optimiser)


def take(step: Step, optimiser: torch.optim.Optimizer, batch: Batch, bf16: bool) -> float:
    """One step; its loss, which also waits for the device."""
    with torch.autocast(batch.frontal.device.type, dtype=torch.bfloat16, enabled=bf16):
        losses = step(batch)
    losses["loss"].backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return losses["loss"].item()


def measure(way: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Best seconds of a step and peak memory, in this process."""
    device = arguments.device
    step, optimiser = build(way, device)
    batch = make_batch(arguments.pairs, arguments.laterals, arguments.pieces).to(device)
    best, bf16 = float("inf"), WAYS[way][1]
    take(step, optimiser, batch, bf16)
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        take(step, optimiser, batch, bf16)
        best = min(best, time.perf_counter() - start)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": best, "gib": peak}


def count_flops(arguments: argparse.Namespace) -> float:
    """FLOPs of the matrix products of one fast step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    step, _ = build("fast fp32", "cpu")
    batch = make_batch(arguments.pairs, arguments.laterals, arguments.pieces)
    with FlopCounterMode(display=False) as counter:
        step(batch)["loss"].backward()
    return float(counter.get_total_flops())


def matmul_peak(device: str, size: int = 4096) -> float:
    """FLOPs a second of a product of square matrices, the best of some."""
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--laterals", type=int, default=6)
    parser.add_argument("--pieces", type=int, default=306, help="of all reports together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="one way, in this process; prints JSON")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    flops, peak = count_flops(arguments), matmul_peak(arguments.device)
    found: dict[str, dict[str, float]] = {}
    for way in [*WAYS, *WAYS]:
        done = subprocess.run([sys.executable, *sys.argv, "--only", way], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        found[way] = {name: min(value, found.get(way, row)[name]) for name, value in row.items()}
    peak = max(peak, matmul_peak(arguments.device))
    exact = found["exact fp32"]
    ways = {
        way: {
            "seconds a step": round(row["seconds"], 3),
            "pairs a second": round(arguments.pairs / row["seconds"], 3),
            "times exact": round(exact["seconds"] / row["seconds"], 2),
            "model FLOPs over the peak": round(flops / row["seconds"] / peak, 3),
            "peak memory, GiB": round(row["gib"], 2),
            "memory over exact": round(row["gib"] / exact["gib"], 2),
        }
        for way, row in found.items()
    }
    figures: dict[str, Any] = {
        "batch": {"pairs": arguments.pairs, "laterals": arguments.laterals, "word pieces": arguments.pieces},
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "model TFLOPs a step": round(flops / 1e12, 3),
        "matmul peak, GFLOP/s": round(peak / 1e9, 1),
        "ways": ways,
    }
    print(json.dumps(figures, indent=1))
    keep(f"train_step_{arguments.device}", figures)


if __name__ == "__main__":
    main()
