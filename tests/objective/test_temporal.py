"""Cycle consistency, compared with a loop over sequences and with numbers recorded from the released code."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objective import oracle
from torch import Tensor

from medst.objective.temporal import KNEE, ROOM, bounded_ratio, cycle, mapping_losses, time_of_steps

RELEASED = Path(__file__).parents[1] / "data" / "golden" / "released.npz"


def unit_rows(*shape: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=rng, dtype=torch.float64), dim=-1)


def full(u: Tensor) -> Tensor:
    return torch.ones(u.shape[:2], dtype=torch.bool)


def regression(u: Tensor, v: Tensor, form: Any = "released") -> Tensor:
    """Both directions."""
    return sum(mapping_losses(a, b, full(u), regression=form)[1] for a, b in ((u, v), (v, u)))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------- the released form


@pytest.mark.parametrize("case", ["random_unit", "identical"])
def test_recorded_losses_and_gradients(case: str) -> None:
    golden = np.load(RELEASED)
    name = f"align_small.{case}.l2.regression_mse_var.huber2.0"
    u, v = (torch.from_numpy(golden[f"align_small.{case}.embs{i}"]).requires_grad_() for i in (1, 2))
    mask = full(u)
    classification, regression = mapping_losses(u, v, mask, regression="released")
    logits, beta = cycle(u, v, mask)
    for key, value in (
        ("forward_logits", logits.flatten(0, 1)),
        ("classification", classification),
        ("regression", regression),
        ("total", classification + regression),
        *zip(("grad1", "grad2"), torch.autograd.grad(classification + regression, (u, v)), strict=True),
    ):
        expected = torch.from_numpy(golden[f"{name}.{key}"])
        torch.testing.assert_close(value.detach(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    recorded = torch.from_numpy(golden[f"{name}.cycle_logits"]).view(beta.shape).softmax(-1)
    torch.testing.assert_close(beta.detach(), recorded, rtol=1e-4, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.floats(0.05, 2.0), st.integers(0, 99))
def test_sequences_of_any_lengths_equal_the_loops(lengths: list[int], temperature: float, seed: int) -> None:
    u, v = (unit_rows(len(lengths), max(lengths), 4, seed=seed + i).requires_grad_() for i in (0, 100))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ours = mapping_losses(u, v, mask, temperature=temperature, regression="released")
    theirs = oracle.cycle_loss([(u[s, :n], v[s, :n]) for s, n in enumerate(lengths)], temperature)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)
        for a, b in zip(
            torch.autograd.grad(mine, (u, v), retain_graph=True),
            torch.autograd.grad(other, (u, v), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_linear_branch_is_reached_under_a_small_threshold() -> None:
    u, v = unit_rows(2, 4, 3, seed=1), unit_rows(2, 4, 3, seed=2)
    found = mapping_losses(u, v, full(u), regression="released", huber_delta=0.2)
    expected = oracle.cycle_loss(list(zip(u, v, strict=True)), delta=0.2)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-8, atol=1e-8)
    assert not torch.isclose(found[1], mapping_losses(u, v, full(u), regression="released")[1])


# ------------------------------------------------------------------------------------------------------ both forms


@pytest.mark.parametrize("form", ["released", "bounded"])
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_masked_equals_one_by_one(form: Any, lengths: list[int], seed: int) -> None:
    u, v = unit_rows(len(lengths), max(lengths), 5, seed=seed), unit_rows(len(lengths), max(lengths), 5, seed=seed + 99)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    together = torch.stack(mapping_losses(u, v, mask, regression=form))
    alone = [
        n * torch.stack(mapping_losses(u[s : s + 1, :n], v[s : s + 1, :n], full(u[s : s + 1, :n]), regression=form))
        for s, n in enumerate(lengths)
    ]
    torch.testing.assert_close(together, torch.stack(alone).sum(0) / sum(lengths))


@pytest.mark.parametrize("form", ["released", "bounded"])
def test_padding_after_a_sequence_does_not_matter(form: Any) -> None:
    u, v = unit_rows(2, 5, 4, seed=0), unit_rows(2, 5, 4, seed=1)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    other_u, other_v = u.clone(), v.clone()
    other_u[1, 3:], other_v[1, 3:] = 1e3, -1e3
    one, two = mapping_losses(u, v, mask, regression=form), mapping_losses(other_u, other_v, mask, regression=form)
    assert torch.equal(torch.stack(one), torch.stack(two))


@pytest.mark.parametrize("form", ["released", "bounded"])
def test_reports_in_reverse_cost_the_classification_and_not_the_regression(form: Any) -> None:
    """Nearest neighbours return from any position: the regression does not even see which report belongs to an image."""
    u = unit_rows(1, 4, 16, seed=0)
    v = F.normalize(u + 0.1 * unit_rows(1, 4, 16, seed=1), dim=-1)
    right = mapping_losses(u, v, full(u), regression=form)
    reversed_ = mapping_losses(u, v.flip(1), full(u), regression=form)
    torch.testing.assert_close(right[1], reversed_[1])
    assert reversed_[0] > right[0] + 5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_classification_is_the_same_for_every_joint_order_of_the_studies(seed: int) -> None:
    """Entry 5 of the page on differences: images and reports in any of 24 orders have one loss, and the same gradients."""
    u, v = (unit_rows(1, 4, 8, seed=seed + i).requires_grad_() for i in (0, 1000))
    loss = mapping_losses(u, v, full(u))[0]
    gradients = torch.autograd.grad(loss, (u, v))
    for order in map(list, permutations(range(4))):
        again = mapping_losses(u[:, order], v[:, order], full(u))[0]
        torch.testing.assert_close(again, loss)
        for one, other in zip(torch.autograd.grad(again, (u, v)), gradients, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", ["released", "bounded"])
@settings(max_examples=10, deadline=None)
@given(count=st.integers(2, 6), by_days=st.booleans(), seed=st.integers(0, 999))
def test_regression_is_the_same_when_time_runs_backwards(form: Any, count: int, by_days: bool, seed: int) -> None:
    """A patient who worsens and one who improves through the same studies have one loss, and the same gradients."""
    u, v = (unit_rows(1, count, 8, seed=seed + i).requires_grad_() for i in (0, 1000))
    gaps = torch.rand(1, count - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    days = F.pad((30 * gaps).cumsum(1), (1, 0))
    forth, back = (time_of_steps(full(u), one if by_days else None) for one in (days, days.amax() - days.flip(1)))
    loss = mapping_losses(u, v, full(u), forth, regression=form)[1]
    again = mapping_losses(u.flip(1), v.flip(1), full(u), back, regression=form)[1]
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-9)
    for one, other in zip(torch.autograd.grad(again, (u, v)), torch.autograd.grad(loss, (u, v)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_regression_tells_some_joint_orders_apart() -> None:
    u, v = unit_rows(1, 4, 8, seed=0), unit_rows(1, 4, 8, seed=1)
    order = [1, 0, 2, 3]
    found = [mapping_losses(a, b, full(u))[1] for a, b in ((u, v), (u[:, order], v[:, order]))]
    assert not torch.isclose(*found, rtol=1e-3)


@pytest.mark.parametrize("form", ["released", "bounded"])
def test_no_sequence_costs_nothing_and_has_a_zero_gradient(form: Any) -> None:
    u, v = torch.ones(3, 4, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    steps = torch.zeros(0, 4, dtype=torch.int64)
    losses = mapping_losses(u[steps], v[steps], steps.bool(), regression=form)
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    for gradient in torch.autograd.grad(sum(losses), (u, v)):  # type: ignore[arg-type]
        assert torch.equal(gradient, torch.zeros(3, 4))


@pytest.mark.parametrize("form", ["released", "bounded"])
def test_a_mask_without_a_study_costs_nothing(form: Any) -> None:
    u = unit_rows(2, 4, 3, seed=0).requires_grad_()
    losses = mapping_losses(u, unit_rows(2, 4, 3, seed=1), torch.zeros(2, 4, dtype=torch.bool), regression=form)
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    assert torch.equal(torch.autograd.grad(sum(losses), u)[0], torch.zeros_like(u))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ the bounded form


def test_equal_to_the_released_form_where_that_is_well_behaved() -> None:
    golden = np.load(RELEASED)
    image, report = (torch.from_numpy(golden[f"eval.{side}_emb_q"][:8]).view(2, 4, -1) for side in ("img", "report"))
    torch.testing.assert_close(regression(image, report, "bounded"), regression(image, report), rtol=1e-3, atol=1e-3)
    for case in ("random_unit", "identical"):
        u, v = (torch.from_numpy(golden[f"align_small.{case}.embs{i}"]) for i in (1, 2))
        torch.testing.assert_close(regression(u, v, "bounded"), regression(u, v), rtol=1e-3, atol=1e-3)


def awkward() -> dict[str, tuple[Tensor, Tensor]]:
    u, one = unit_rows(1, 4, 128, seed=3), unit_rows(1, 1, 128, seed=4)
    two = unit_rows(1, 2, 128, seed=5)
    lean = torch.tensor([2.0, 1.5, 1.0, 0.0])[None, :, None]
    cases = {
        "like reports, far from every image": (u, one.expand(1, 4, 128)),
        # As a trained model embeds "no change" four times: all reports are at one of the images.
        "like reports": (u, F.normalize(u[:, :1] + 0.02 * one, dim=-1).expand(1, 4, 128)),
        "near-like reports": (u, F.normalize(u[:, :1] + 1e-3 * unit_rows(1, 4, 128, seed=7), dim=-1)),
        "like images": (one.expand(1, 4, 128), u),
        "constant": (one.expand(1, 4, 128), one.expand(1, 4, 128)),
        "reversed": (u, u.flip(1)),
        "reversed and like": (torch.cat([u[:, :3], u[:, 2:3]], 1), u.flip(1)),
        "two of one study": (two.repeat_interleave(2, 1), u),
        "opposite": (u, -u),
        # Images on a line towards the report: all return to the last one, with hardly any variance.
        "far from all but one": (F.normalize(one + lean * u, dim=-1), one.expand(1, 4, 128)),
    }
    for noise in (1e-1, 1e-2, 1e-3, 1e-5):
        near = F.normalize(one + noise * unit_rows(1, 4, 128, seed=6), dim=-1)
        cases[f"near-identical reports, {noise}"] = (u, near)
        cases[f"near-identical images, {noise}"] = (near, u)
        cases[f"near-identical both, {noise}"] = (near, near.flip(1))
    return cases


def value_and_slope(u: Tensor, v: Tensor, form: Any) -> tuple[float, float]:
    u, v = (x.detach().float().clone().requires_grad_() for x in (u, v))
    loss = regression(u, v, form)
    slopes = torch.autograd.grad(loss, (u, v))
    return loss.item(), torch.linalg.vector_norm(torch.cat(slopes)).item()


@pytest.mark.parametrize("name", list(awkward()))
def test_bounded_stays_small_with_a_small_gradient(name: str) -> None:
    value, slope = value_and_slope(*awkward()[name], "bounded")
    assert value < 10
    assert slope < 100


def test_released_blows_up_on_like_reports() -> None:
    """Entry 4 of the page on differences; shows that the test above is meaningful."""
    found = {name: value_and_slope(*case, "released") for name, case in awkward().items()}
    for name in ("like reports", "near-like reports"):
        value, slope = found[name]
        assert value > 1e6
        assert slope > 1e5


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(2, 6),
    dim=st.sampled_from([2, 8, 128]),
    image_spread=st.sampled_from([1e-4, 1e-2, 0.3, 1.0, 3.0]),
    report_spread=st.sampled_from([0.0, 1e-4, 1e-2, 0.3, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_bounded_on_any_sequences(length: int, dim: int, image_spread: float, report_spread: float, seed: int) -> None:
    centre = unit_rows(1, 1, dim, seed=seed)
    u = F.normalize(centre + image_spread * unit_rows(1, length, dim, seed=seed + 1), dim=-1)
    v = F.normalize(centre + report_spread * unit_rows(1, length, dim, seed=seed + 2), dim=-1)
    value, slope = value_and_slope(u, v, "bounded")
    assert value < 2 * (KNEE + ROOM)
    assert slope < 400  # the steepest arrangement that gradient ascent finds has 330


def test_the_bounded_ratio_is_smooth_rising_and_bounded() -> None:
    ratio = torch.linspace(0, 30, 3001, dtype=torch.float64).requires_grad_()
    out = bounded_ratio(ratio)
    (slope,) = torch.autograd.grad(out.sum(), ratio)
    assert torch.equal(out[ratio <= KNEE], ratio[ratio <= KNEE])
    assert (slope > 0).all()
    assert (slope.diff().abs() < 0.03).all()
    assert out.max() < KNEE + ROOM


def test_bounded_gradients_are_right() -> None:
    u, v = (unit_rows(2, 3, 4, seed=seed).requires_grad_() for seed in (0, 1))
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert torch.autograd.gradcheck(lambda a, b: mapping_losses(a, b, mask, regression="bounded"), (u, v))


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    gap=st.floats(0.01, 4000),
    seed=st.integers(0, 99),
)
def test_evenly_spaced_days_equal_steps(lengths: list[int], gap: float, seed: int) -> None:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    days = torch.where(mask, gap * torch.arange(max(lengths)), 0.0).float()
    torch.testing.assert_close(time_of_steps(mask, days)[mask], time_of_steps(mask)[mask], rtol=1e-5, atol=1e-6)
    u, v = unit_rows(*mask.shape, 8, seed=seed), unit_rows(*mask.shape, 8, seed=seed + 1)
    for even, dated in zip(
        mapping_losses(u, v, mask), mapping_losses(u, v, mask, time_of_steps(mask, days)), strict=True
    ):
        assert dated.item() == pytest.approx(even.item(), rel=1e-3, abs=1e-4)


def test_simultaneous_studies_are_spaced_by_their_order() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert torch.equal(time_of_steps(mask, torch.zeros(2, 3)), time_of_steps(mask))


def test_a_long_gap_weighs_more_than_a_short_one() -> None:
    u = torch.eye(4)[None]
    v = u[:, [0, 2, 1, 3]]  # the reports of the second and the third study exchanged
    mask = full(u)
    near = torch.tensor([[0.0, 10.0, 11.0, 100.0]])
    far = torch.tensor([[0.0, 10.0, 90.0, 100.0]])
    _, swapped_near = mapping_losses(u, v, mask, time_of_steps(mask, near), temperature=1.0)
    _, swapped_far = mapping_losses(u, v, mask, time_of_steps(mask, far), temperature=1.0)
    assert swapped_near.item() != pytest.approx(swapped_far.item(), rel=1e-2)
