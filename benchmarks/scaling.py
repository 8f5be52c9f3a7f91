"""Weak scaling on paper: what devices exchange in a step, how long that takes at best, what batch each would hold.

    python benchmarks/scaling.py COHORT        # measures a pair's activations on a few sequences of the cohort
    python benchmarks/scaling.py               # only prints the tables again, from the figures kept

Nothing of this was run on many GPUs: it is arithmetic over the sizes of recipe `modern`. docs/scaling.md has its output.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from machine import RESULTS, keep
from medst.recipes import RECIPES

GPUS = (8, 64, 512)
MEMORY = 80e9 * 0.9
"""Bytes of a GPU that may be filled."""
LINKS = {"inside a node": 450e9, "between nodes": 50e9}
"""Bytes a second that a GPU sends: NVLink of the fourth generation, 400 Gb/s of network a GPU."""
FLOPS = 0.45 * 989e12
"""That a GPU does a second: 45 % of an H100's dense bf16 peak."""
PIECES = 28996
"""Of Bio_ClinicalBERT's vocabulary."""
HEADS = 4 * (2048 + 128)
"""Columns whose mean and variance the four heads take."""


def measure(cohort: Path) -> dict[str, float]:
    """A pair's activations and FLOPs, and the parameters, of recipe modern in bf16 with and without keeping activations."""
    from medst.pretrain.dry_run import estimate

    recipe = RECIPES["modern"]
    found: dict[str, float] = {}
    for name, again in (("kept", False), ("again", True)):
        run = replace(recipe.run, precision="bf16", checkpoint_activations=again)
        said = estimate(cohort, replace(recipe, run=run), processes=1)
        found[f"activation bytes a pair, {name}"] = said.activation_bytes / said.pairs_a_step
    found["FLOPs a pair"] = said.flops_a_step / said.pairs_a_step
    missing = PIECES - estimate_vocabulary(cohort)
    found["parameters"] = said.parameters + missing * recipe.model.text.width
    return found


def estimate_vocabulary(cohort: Path) -> int:
    """Word pieces that a run on the cohort would learn."""
    from medst.cohort.store import open_cohort
    from medst.pretrain.setup import make_tokenizer

    return len(make_tokenizer(open_cohort(cohort), RECIPES["modern"]))


def tables(found: dict[str, float]) -> str:
    """Two tables in Markdown."""
    weights = 4 * found["parameters"]
    kept, again = (found[f"activation bytes a pair, {name}"] for name in ("kept", "again"))
    volume = [
        "| GPUs | pairs per GPU | DDP sends | FSDP sends | contrast and statistics send | time of DDP / FSDP at best | "
        "arithmetic | not hidden, at worst |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    batch = [
        "| GPUs | DDP | DDP, recomputed activations | FSDP | FSDP, recomputed activations |",
        "| --- | --- | --- | --- | --- |",
    ]
    for gpus in GPUS:
        ring = (gpus - 1) / gpus
        speed = LINKS["inside a node" if gpus <= 8 else "between nodes"]
        ddp, fsdp = 2 * weights * ring, 3 * weights * ring
        pairs = (MEMORY - 4 * weights) / kept
        # Embeddings of images and reports and their gradients are all-reduced; sums of the heads' columns, twice each way.
        small = 4 * (gpus - 1) * pairs * 2 * 128 * 4 + 2 * 2 * 2 * HEADS * 4 * ring
        compute = pairs * found["FLOPs a pair"] / FLOPS
        worst = max(ddp, fsdp) / speed / (compute + max(ddp, fsdp) / speed)
        volume.append(
            f"| {gpus} | {pairs:.0f} | {ddp / 1e9:.2f} GB | {fsdp / 1e9:.2f} GB | {small / 1e6:.1f} MB | "
            f"{1e3 * ddp / speed:.0f} / {1e3 * fsdp / speed:.0f} ms | {1e3 * compute:.0f} ms | {worst:.0%} |"
        )
        cells = []
        for shards in (1, gpus):
            for each in (kept, again):
                room = MEMORY - 4 * weights / shards
                cells.append(f"{room / each:.0f} ({room / each * gpus:,.0f})")
        batch.append(f"| {gpus} | {' | '.join(cells)} |")
    return "\n".join([*volume, "", *batch])


def main() -> None:
    """Measure if there is a cohort, and print."""
    if len(sys.argv) > 1:
        keep("scaling", measure(Path(sys.argv[1])))
    print(tables(json.loads((RESULTS / "scaling.json").read_text())))


if __name__ == "__main__":
    main()
