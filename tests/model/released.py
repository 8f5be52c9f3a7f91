"""The made-up checkpoint and batch that the released code was run on, drawn again from their seeds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data" / "golden"
HAS_LATERAL = [0, 2, 3, 6, 8, 10]
PAIRS = 11
SEP = 102
FIRST_SEED = 1234


@dataclass
class Entry:
    """One entry of a released checkpoint."""

    number: int
    name: str
    shape: tuple[int, ...]
    dtype: str

    def draw(self) -> Tensor:
        """Its made-up value: scales around 1, variances above 1, all else around 0; counters stay 0."""
        if self.dtype == "int64":
            return torch.zeros(self.shape, dtype=torch.int64)
        noise = np.random.Generator(np.random.PCG64(FIRST_SEED + self.number)).standard_normal(self.shape)
        if self.name.endswith("running_var"):
            value = 1.0 + 0.1 * np.abs(noise)
        elif self.name.endswith("weight") and len(self.shape) == 1:
            value = 1.0 + 0.02 * noise
        else:
            value = 0.02 * noise
        return torch.from_numpy(np.asarray(value, dtype=np.float32))


def entries() -> list[Entry]:
    """Every entry of a released Med-ST checkpoint."""
    found = []
    for line in (DATA / "released_entries.tsv").read_text().splitlines()[1:]:
        number, name, shape, dtype, _ = line.split("\t")
        sides = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        found.append(Entry(int(number), name, sides, dtype))
    return found


def pictures(seed: int) -> Tensor:
    """(pair, 1, 224, 224): patches of one grey each, with noise over them, in [-1, 1]."""
    rng = np.random.Generator(np.random.PCG64(seed))
    patches = rng.uniform(-0.9, 0.9, size=(PAIRS, 14, 14)).repeat(16, 1).repeat(16, 2)
    noise = rng.standard_normal((PAIRS, 224, 224)) * 0.1
    return torch.from_numpy(np.clip(patches + noise, -1, 1).astype(np.float32)[:, None])
