"""The contrast between images and reports, compared with two loops."""

import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objective import oracle

from medst.objective.global_ import global_loss


def unit_rows(rows: int, dim: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=rng, dtype=torch.float64), dim=-1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 8), st.floats(0.05, 1.0), st.integers(0, 99))
def test_loss_and_gradients_equal_the_loops(pairs: int, dim: int, temperature: float, seed: int) -> None:
    image, report = unit_rows(pairs, dim, seed).requires_grad_(), unit_rows(pairs, dim, seed + 100).requires_grad_()
    ours, theirs = global_loss(image, report, temperature), oracle.global_loss(image, report, temperature)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (image, report)), torch.autograd.grad(theirs, (image, report)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_it_is_the_sum_of_both_directions() -> None:
    like = F.normalize(torch.ones(4, 3), dim=-1)
    assert math.isclose(global_loss(like, like).item(), 2 * math.log(4), rel_tol=1e-6)


def test_images_and_reports_can_be_exchanged() -> None:
    image, report = unit_rows(5, 4, 0), unit_rows(5, 4, 1)
    torch.testing.assert_close(global_loss(image, report), global_loss(report, image))


def test_one_pair_has_no_negatives_and_no_gradient() -> None:
    image = unit_rows(1, 4, 0).requires_grad_()
    loss = global_loss(image, unit_rows(1, 4, 1))
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, image)[0].abs().max() < 1e-12


def test_parts_with_all_candidates_have_the_loss_of_the_full_batch() -> None:
    image, report = unit_rows(6, 4, 0).requires_grad_(), unit_rows(6, 4, 1).requires_grad_()
    parts = [
        global_loss(image[own], report[own], 0.2, (image, report), own.start) * (own.stop - own.start)
        for own in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    ours, theirs = torch.stack(parts).sum() / 6, oracle.global_loss(image, report, 0.2)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (image, report)), torch.autograd.grad(theirs, (image, report)), strict=True
    ):
        torch.testing.assert_close(a, b)
