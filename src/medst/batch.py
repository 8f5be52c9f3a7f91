"""Batches of pairs from a cohort on disk. Only this file defines what a batch is.

Item i of `Batches` is the i-th batch of an epoch, and everything random about it (order, crops) is a function of seed, epoch
and i alone. So the batches are the same for any number of loader processes, and a run can resume in the middle of an epoch.
Pictures leave the loader as stored, 8-bit and uncropped; they are cropped, scaled and normalised on the device, all pictures
of a batch at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from medst.cohort.sequences import cut_sequences
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.recipes.settings import DataSettings

VIEW_TOKENS = 196
"""Cost of a picture in tokens, each as costly as a word piece; as for the paper's ViT."""


@dataclass
class Batch:
    """Pairs of several patients, and the sequences that they form."""

    pair: Int64[Tensor, " pair"]
    """Row of each pair in the cohort's table."""
    frontal: UInt8[Tensor, "pair side side"]
    """Frontal pictures as stored."""
    lateral: UInt8[Tensor, "lateral side side"]
    """Lateral pictures as stored, for the pairs that have one."""
    lateral_of: Int64[Tensor, " lateral"]
    """Index in the batch of the pair that each lateral belongs to."""
    corners: Int64[Tensor, "picture 2"]
    """Top and left of each picture's crop, frontal pictures before lateral ones."""
    pieces: Int64[Tensor, "pair piece"]
    """Word pieces of the reports, padded to the longest in the batch."""
    attention_mask: Int64[Tensor, "pair piece"]
    """1 where a report has a piece."""
    steps: Int64[Tensor, "sequence step"]
    """For each sequence of the temporal loss, the indices of its pairs in time order; 0 where the mask is False."""
    step_mask: Bool[Tensor, "sequence step"]
    """True where a sequence has a study."""
    days: Float[Tensor, "sequence step"]
    """Days since the sequence's first study; 0 where the mask is False."""

    def to(self, device: torch.device | str) -> "Batch":
        """Copy the batch to a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def pin_memory(self) -> "Batch":
        """Copy the batch to page-locked memory; the loader calls this if there is a GPU."""
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def pictures(self, crop: int, size: int) -> tuple[Float[Tensor, "pair 1 s s"], Float[Tensor, "lateral 1 s s"]]:
        """Crop frontal and lateral pictures to `crop`, scale them to `size` and normalise them to [-1, 1]."""
        pairs = len(self.frontal)
        both = crop_and_scale(torch.cat([self.frontal, self.lateral]), self.corners, crop, size)
        return both[:pairs], both[pairs:]


def crop_and_scale(
    pictures: UInt8[Tensor, "picture side side"], corners: Int64[Tensor, "picture 2"], crop: int, size: int
) -> Float[Tensor, "picture 1 size size"]:
    """Cut a square of side `crop` out of each picture, scale it to `size` by area and map 0..255 to -1..1."""
    cut = (cut_slices if pictures.device.type == "cpu" else cut_gathered)(pictures, corners, crop)[:, None].float()
    if size != crop:
        cut = F.interpolate(cut, size=(size, size), mode="area") if len(cut) else cut.new_zeros(0, 1, size, size)
    return cut.div_(127.5).sub_(1)


def cut_gathered(
    pictures: UInt8[Tensor, "picture side side"], corners: Int64[Tensor, "picture 2"], crop: int
) -> UInt8[Tensor, "picture crop crop"]:
    """Cut all squares by one indexing operation, which is fast on a GPU."""
    reach = torch.arange(crop, device=pictures.device)
    rows = (corners[:, 0, None] + reach)[:, :, None]
    columns = (corners[:, 1, None] + reach)[:, None, :]
    index = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    return pictures[index, rows, columns]


def cut_slices(
    pictures: UInt8[Tensor, "picture side side"], corners: Int64[Tensor, "picture 2"], crop: int
) -> UInt8[Tensor, "picture crop crop"]:
    """Cut one square at a time, which is many times faster than indexing on a CPU."""
    cut = pictures.new_empty(len(pictures), crop, crop)
    for square, picture, (top, left) in zip(cut, pictures, corners.tolist(), strict=True):
        square.copy_(picture[top : top + crop, left : left + crop])
    return cut


def centre(pictures: UInt8[Tensor, "picture side side"], crop: int, size: int) -> Float[Tensor, "picture 1 size size"]:
    """Cut the centre of each picture, scaled and normalised, as in evaluation."""
    corner = (pictures.shape[1] - crop) // 2
    corners = torch.full((len(pictures), 2), corner, dtype=torch.int64, device=pictures.device)
    return crop_and_scale(pictures, corners, crop, size)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], pieces: int
) -> tuple[Int64[Tensor, "text piece"], Int64[Tensor, "text piece"]]:
    """Convert texts to word pieces and an attention mask, cut to `pieces` and padded to the longest."""
    encoded = tokenizer(texts, truncation=True, max_length=pieces, padding="longest", return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


def distribute(costs: np.ndarray, parts: int) -> list[list[int]]:
    """Distribute sequences over parts of equal size and about equal cost.

    The costliest sequence goes first, each to the cheapest part that is not full (longest processing time first). Within a
    part the given order is kept.

    Args:
        costs: of each sequence; their number is a multiple of `parts`.
        parts: number of parts.

    >>> distribute(np.array([9, 1, 1, 1, 5, 5]), 2)
    [[0, 1, 2], [3, 4, 5]]
    """
    size = len(costs) // parts
    filled: list[list[int]] = [[] for _ in range(parts)]
    sums = [0.0] * parts
    for sequence in np.argsort(-costs, kind="stable").tolist():
        part = min((p for p in range(parts) if len(filled[p]) < size), key=lambda p: (sums[p], p))
        filled[part].append(sequence)
        sums[part] += float(costs[sequence])
    return [sorted(part) for part in filled]


class Batches(Dataset[Batch]):
    """The batches of one split, by number."""

    def __init__(
        self,
        cohort: Cohort,
        split: str,
        tokenizer: PreTrainedTokenizerBase,
        data: DataSettings,
        *,
        pieces: int,
        seed: int,
        training: bool,
        parts: int = 1,
    ) -> None:
        """Args:
            cohort: an opened cohort with pairs.
            split: train, valid or test.
            tokenizer: converts the reports to word pieces, once, here.
            data: sequence length, batch size, crop and share of patients.
            pieces: maximum number of word pieces per report.
            seed: draws patients, order and crops.
            training: shuffle, crop at random and drop an incomplete last batch; else keep order and pairs, and crop
                the centre.
            parts: batches of one step, over all devices and parts; batch i is part i % parts of step i // parts.

        Raises:
            MedstError: the cohort has too few pairs in this split.
        """
        self.images, self.data, self.seed, self.training = cohort.images, data, seed, training
        self.parts = parts if training else 1
        pairs = cohort.require("pairs").with_row_index("pair").filter(split=split)
        if data.patients < 1 and training:
            patients = pairs["patient_id"].unique().sort().to_numpy()
            kept = np.random.default_rng([seed, 1]).permutation(patients)[
                : max(1, round(data.patients * len(patients)))
            ]
            pairs = pairs.filter(pairs["patient_id"].is_in(kept.tolist()))
        self.sequences = cut_sequences(pairs, data.sequence_length)
        fewest = data.sequences_per_batch if training else 1
        if len(self.sequences) < fewest:
            raise MedstError(
                f"{cohort.path}: split '{split}' has {len(self.sequences)} sequences, fewer than the {fewest} of one batch; "
                "take a larger cohort or a smaller --data.sequences-per-batch."
            )
        self.pair = pairs["pair"].to_numpy().astype(np.int64)
        self.frontal = pairs["frontal"].to_numpy()
        self.lateral = pairs["lateral"].fill_null(-1).to_numpy()
        if data.laterals == "none":
            self.lateral = np.full_like(self.lateral, -1)
        encoded = tokenizer(pairs["report"].to_list(), truncation=True, max_length=pieces)["input_ids"]
        self.pieces = [np.asarray(ids, dtype=np.int64) for ids in encoded]
        self.pad = int(tokenizer.pad_token_id)
        self.days = pairs["time"].dt.epoch("us").to_numpy() / (86_400 * 1e6)
        views = 1 + (self.lateral >= 0)
        self.cost = VIEW_TOKENS * views + np.array([len(ids) for ids in self.pieces])
        self.epoch = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.sequences), self.data.sequences_per_batch)
        return full if self.training else full + (rest > 0)

    def plan(self) -> np.ndarray:
        """Draw the order of the sequences in this epoch."""
        if not self.training:
            return np.arange(len(self.sequences))
        return np.random.default_rng([self.seed, 2, self.epoch]).permutation(len(self.sequences))

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.collate([self.sequences[s] for s in self.members(number)], number)

    def load(self, numbers: Sequence[int], workers: int, device: torch.device) -> Iterator[Batch]:
        """Load batches in this order and move them to the device.

        Args:
            numbers: of the batches.
            workers: processes that load them; 0 loads here.
            device: where they are needed.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            # A loader draws a seed when it starts; from the global state that would shift dropout after a resume.
            generator=torch.Generator(),
        )
        for batch in loader:
            yield batch.to(device)

    def members(self, number: int) -> list[int]:
        """Find the sequences of a batch."""
        size, parts = self.data.sequences_per_batch, self.parts
        if parts == 1 or not self.data.balance:
            return self.plan()[number * size : (number + 1) * size].tolist()
        step, part = divmod(number, parts)
        together = self.plan()[step * parts * size : (step + 1) * parts * size]
        if len(together) < parts * size:  # the end of an epoch, which no step uses
            return together[part * size : (part + 1) * size].tolist()
        costs = np.array([self.cost[self.sequences[s]].sum() for s in together])
        return together[distribute(costs, parts)[part]].tolist()

    def collate(self, sequences: list[list[int]], number: int) -> Batch:
        """Make the batch of that number from sequences of rows, which are indices in this split's table."""
        length = self.data.sequence_length
        of_lateral = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
        if self.data.laterals == "mixed":
            sequences = sorted(sequences, key=lambda sequence: len(sequence) < length)
        rows = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
        starts = np.cumsum([0, *map(len, sequences)])
        temporal = [
            (start, len(s)) for start, s in zip(starts, sequences, strict=False) if len(s) >= self.data.temporal_from
        ]
        step = np.arange(length)
        mask = step < np.array([n for _, n in temporal], dtype=np.int64).reshape(-1, 1)
        steps = np.where(mask, np.array([start for start, _ in temporal], dtype=np.int64).reshape(-1, 1) + step, 0)
        days = self.days[rows[steps]]
        days = np.where(mask, days - days[:, :1], 0.0).astype(np.float32)
        lateral_of = np.flatnonzero(self.lateral[of_lateral] >= 0)
        room = self.images.shape[1] - self.data.crop
        pictures = len(rows) + len(lateral_of)
        if self.training:
            rng = np.random.default_rng([self.seed, 3, self.epoch, number])
            corners = rng.integers(0, room + 1, size=(pictures, 2))
        else:
            corners = np.full((pictures, 2), room // 2)
        reports = [torch.from_numpy(self.pieces[row]) for row in rows]
        pieces = pad_sequence(reports, batch_first=True, padding_value=self.pad)
        lengths = torch.tensor([len(report) for report in reports])
        return Batch(
            pair=torch.from_numpy(self.pair[rows]),
            frontal=torch.from_numpy(self.images[self.frontal[rows]]),
            lateral=torch.from_numpy(self.images[self.lateral[of_lateral[lateral_of]]]),
            lateral_of=torch.from_numpy(lateral_of),
            corners=torch.from_numpy(corners),
            pieces=pieces,
            attention_mask=(torch.arange(pieces.shape[1]) < lengths[:, None]).long(),
            steps=torch.from_numpy(steps),
            step_mask=torch.from_numpy(mask),
            days=torch.from_numpy(days),
        )
