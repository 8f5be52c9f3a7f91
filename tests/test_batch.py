"""Batches, compared with a loop over pairs."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medst.batch import Batch, Batches, centre, crop_and_scale, cut_gathered, cut_slices, distribute, tokenize
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.recipes.settings import DataSettings
from medst.tokenizer import learn_tokenizer

DATA = DataSettings(sequences_per_batch=4)


@pytest.fixture(scope="module")
def cohort(phantom_cohort: Path) -> Cohort:
    return open_cohort(phantom_cohort)


def batches(cohort: Cohort, data: DataSettings = DATA, training: bool = True, split: str = "train") -> Batches:
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    return Batches(cohort, split, tokenizer, data, pieces=64, seed=3, training=training)


def test_every_pair_is_where_it_belongs(cohort: Cohort) -> None:
    found = batches(cohort)
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    for number in range(len(found)):
        batch = found[number]
        lateral = dict(zip(batch.lateral_of.tolist(), batch.lateral, strict=True))
        for place, row in enumerate(batch.pair.tolist()):
            pair = cohort.pairs.row(row, named=True)
            assert pair["split"] == "train"
            assert torch.equal(batch.frontal[place], torch.from_numpy(np.array(cohort.images[pair["frontal"]])))
            assert (place in lateral) == (pair["lateral"] is not None)
            if pair["lateral"] is not None:
                assert torch.equal(lateral[place], torch.from_numpy(np.array(cohort.images[pair["lateral"]])))
            pieces = batch.pieces[place][batch.attention_mask[place] == 1].tolist()
            assert pieces == tokenizer(pair["report"], truncation=True, max_length=64)["input_ids"]


def test_sequences_are_one_patient_in_time_order(cohort: Cohort) -> None:
    found = batches(cohort)
    seen = 0
    for number in range(len(found)):
        batch = found[number]
        for steps, mask in zip(batch.steps, batch.step_mask, strict=True):
            rows = cohort.pairs[batch.pair[steps[mask]].tolist()]
            assert rows["patient_id"].n_unique() == 1
            assert rows["time"].is_sorted()
            assert len(rows) >= 2
            seen += 1
    assert seen > 0


def test_only_full_sequences_if_the_recipe_says_so(cohort: Cohort) -> None:
    found = batches(cohort, replace(DATA, temporal_from=4))
    for number in range(len(found)):
        assert found[number].step_mask.all()
    assert sum(len(found[number].steps) for number in range(len(found))) > 0


def test_an_epoch_sees_every_sequence_at_most_once_and_epochs_differ(cohort: Cohort) -> None:
    found = batches(cohort)
    orders = []
    for epoch in range(2):
        found.epoch = epoch
        orders.append([row for number in range(len(found)) for row in found[number].pair.tolist()])
        assert len(set(orders[-1])) == len(orders[-1])
    assert orders[0] != orders[1]


def test_a_batch_is_a_function_of_seed_epoch_and_number(cohort: Cohort) -> None:
    one, other = batches(cohort), batches(cohort)
    one[1]
    for a, b in zip(vars(one[0]).values(), vars(other[0]).values(), strict=True):
        assert torch.equal(a, b)


def test_validation_keeps_every_pair_and_crops_the_centre(cohort: Cohort) -> None:
    found = batches(cohort, training=False)
    rows = [row for number in range(len(found)) for row in found[number].pair.tolist()]
    assert sorted(rows) == cohort.pairs.with_row_index("row").filter(split="train")["row"].to_list()
    assert (found[0].corners == 16).all()


def test_a_share_of_patients_is_drawn_by_whole_patients(cohort: Cohort) -> None:
    every, some = batches(cohort, training=False), batches(cohort, replace(DATA, patients=0.5))
    all_patients = set(cohort.pairs[every.pair.tolist()]["patient_id"])
    patients = set(cohort.pairs[some.pair.tolist()]["patient_id"])
    assert len(patients) == round(len(all_patients) / 2)
    for patient in patients:
        whole = cohort.pairs.filter(split="train", patient_id=patient).height
        assert cohort.pairs[some.pair.tolist()].filter(patient_id=patient).height == whole


def test_too_few_sequences_for_a_batch_are_refused(cohort: Cohort) -> None:
    with pytest.raises(MedstError, match="fewer than the 4000"):
        batches(cohort, replace(DATA, sequences_per_batch=4000))


def test_numbers_outside_an_epoch_end_it(cohort: Cohort) -> None:
    found = batches(cohort)
    with pytest.raises(IndexError):
        found[len(found)]
    assert len(list(itertools.islice(found, 10_000))) == len(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(0, 12), st.integers(0, 12), st.integers(0, 3))
def test_crops_are_slices(crop: int, top: int, left: int, count: int) -> None:
    pictures = torch.randint(0, 256, (count, 32, 32), dtype=torch.uint8)
    corners = torch.tensor([[top, left]] * count, dtype=torch.int64).reshape(count, 2)
    cut = crop_and_scale(pictures, corners, crop, crop)
    expected = pictures[:, top : top + crop, left : left + crop].float() / 127.5 - 1
    assert torch.equal(cut[:, 0], expected)


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_gathered_and_sliced_crops_are_the_same(pictures: int, crop: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(0, 256, (pictures, 9, 9), generator=generator, dtype=torch.uint8)
    corners = torch.randint(0, 10 - crop, (pictures, 2), generator=generator)
    assert torch.equal(cut_gathered(whole, corners, crop), cut_slices(whole, corners, crop))


def test_scaling_is_by_area_and_keeps_the_mean() -> None:
    pictures = torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8)
    small = centre(pictures, 32, 8)
    blocks = pictures.view(2, 8, 4, 8, 4).float().mean((2, 4)) / 127.5 - 1
    torch.testing.assert_close(small[:, 0], blocks)


def test_pictures_are_cropped_at_their_own_corners_frontal_before_lateral(cohort: Cohort) -> None:
    batch = batches(cohort)[0]
    assert len(batch.lateral) not in (0, len(batch.frontal))
    frontal, lateral = batch.pictures(224, 112)
    for found, stored, corners in (
        (frontal, batch.frontal, batch.corners[: len(batch.frontal)]),
        (lateral, batch.lateral, batch.corners[len(batch.frontal) :]),
    ):
        assert len(found) == len(stored) == len(corners)
        for picture, whole, (top, left) in zip(found, stored, corners.tolist(), strict=True):
            cut = whole[top : top + 224, left : left + 224].float().view(112, 2, 112, 2).mean((1, 3)) / 127.5 - 1
            torch.testing.assert_close(picture[0], cut)


def test_moving_a_batch_keeps_its_content(cohort: Cohort) -> None:
    batch = batches(cohort)[0]
    moved = batch.to("cpu")
    assert isinstance(moved, Batch)
    assert torch.equal(moved.pieces, batch.pieces)


def test_every_tensor_of_a_batch_is_pinned(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page-locked memory needs a GPU, so a copy stands in for it."""
    batch = batches(cohort)[0]
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    pinned = batch.pin_memory()
    for name, value in vars(batch).items():
        assert torch.equal(getattr(pinned, name), value)
        assert getattr(pinned, name).data_ptr() != value.data_ptr() or not len(value)


def test_texts_are_cut_and_padded() -> None:
    tokenizer = learn_tokenizer(["clear lungs", "the effusion has resolved"], 60)
    pieces, mask = tokenize(tokenizer, ["clear lungs", "the effusion has resolved " * 30], 16)
    assert pieces.shape == (2, 16)
    assert mask[1].all()
    assert (pieces[0][mask[0] == 0] == tokenizer.pad_token_id).all()


@settings(max_examples=200, deadline=None)
@given(
    parts=st.integers(1, 6),
    costs=st.lists(st.integers(1, 1000), min_size=6, max_size=60),
)
def test_every_sequence_is_distributed_once_to_parts_of_equal_size(parts: int, costs: list[int]) -> None:
    size = len(costs) // parts
    given_costs = np.array(costs[: size * parts])
    dealt = distribute(given_costs, parts)
    assert sorted(itertools.chain(*dealt)) == list(range(size * parts))
    assert {len(part) for part in dealt} == {size}
    assert all(part == sorted(part) for part in dealt)
    sums = [given_costs[part].sum() for part in dealt]
    # The last sequence of the fullest part went to it when it was the cheapest part with room.
    assert max(sums) - min(sums) <= size * given_costs.max()


def test_distribution_balances_the_cost_of_devices(cohort: Cohort) -> None:
    data = replace(DATA, sequences_per_batch=3)
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)

    def imbalance(balance: bool) -> float:
        found = Batches(
            cohort, "train", tokenizer, replace(data, balance=balance), pieces=64, seed=3, training=True, parts=2
        )
        shares = []
        for step in range(len(found) // 2):
            costs = [
                sum(found.cost[row] for s in found.members(2 * step + part) for row in found.sequences[s])
                for part in range(2)
            ]
            shares.append(max(costs) / np.mean(costs))
        return float(np.mean(shares))

    assert imbalance(True) < 1.1 < imbalance(False)


def test_balanced_parts_hold_the_sequences_of_the_plan(cohort: Cohort) -> None:
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    found = Batches(cohort, "train", tokenizer, DATA, pieces=64, seed=3, training=True, parts=2)
    assert len(found) >= 2
    for step in range(len(found) // 2):
        together = sorted(found.members(2 * step) + found.members(2 * step + 1))
        assert together == sorted(found.plan()[step * 8 : (step + 1) * 8].tolist())


def test_days_are_those_between_the_studies(cohort: Cohort) -> None:
    found = batches(cohort)
    spans = 0
    for number in range(len(found)):
        batch = found[number]
        for steps, mask, days in zip(batch.steps, batch.step_mask, batch.days, strict=True):
            times = cohort.pairs[batch.pair[steps[mask]].tolist()]["time"].to_list()
            expected = [(time - times[0]).total_seconds() / 86_400 for time in times]
            assert days[mask].tolist() == pytest.approx(expected, rel=1e-6)
            assert days[~mask].eq(0).all()
            spans += expected[-1] > 0
    assert spans > 0


def test_laterals_can_be_left_out(cohort: Cohort) -> None:
    own, none = batches(cohort)[0], batches(cohort, replace(DATA, laterals="none"))[0]
    assert len(own.lateral) > 0
    assert len(none.lateral) == len(none.lateral_of) == 0
    assert torch.equal(own.frontal, none.frontal)


def test_mixed_laterals_keep_the_order_from_before_sorting(cohort: Cohort) -> None:
    own, mixed = (batches(cohort, replace(DATA, laterals=kind)) for kind in ("own", "mixed"))
    moved = 0
    for number in range(len(own)):
        before, after = own[number], mixed[number]
        assert torch.equal(before.lateral, after.lateral)
        assert torch.equal(before.lateral_of, after.lateral_of)
        sequences = [own.sequences[s] for s in own.members(number)]
        first = [s for s in sequences if len(s) == DATA.sequence_length]
        rows = np.concatenate([*first, *(s for s in sequences if len(s) < DATA.sequence_length)])
        assert torch.equal(after.pair, torch.from_numpy(own.pair[rows]))
        moved += int((before.pair[before.lateral_of] != after.pair[after.lateral_of]).sum())
    assert moved > 0
