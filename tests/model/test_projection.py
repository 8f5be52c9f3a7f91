"""Projection heads, compared with their formula."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model import oracle, small
from torch import Tensor

from medst.distributed import Devices
from medst.model.projection import ProjectionHead, RowNorm


def head() -> tuple[ProjectionHead, oracle.State]:
    torch.manual_seed(0)
    module = ProjectionHead(6, 10, 4)
    small.shake(module, 0)
    return module, {f"p.{name}": tensor for name, tensor in module.state_dict(keep_vars=True).items()}


def test_rows_equal_the_formula_in_both_modes_with_gradients() -> None:
    rows = torch.randn(5, 6)
    for training in (False, True):
        module, state = head()
        expected = oracle.project(state, "p", rows, training)
        found = module.train(training)(rows)
        torch.testing.assert_close(found, expected)
        learn = list(module.parameters())
        weights = torch.randn(5, 4)
        for mine, theirs in zip(
            torch.autograd.grad((found * weights).sum(), learn),
            torch.autograd.grad((expected * weights).sum(), learn),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4), st.booleans())
def test_tokens_outside_of_the_mask_are_zero_and_do_not_count(mask: list[list[bool]], training: bool) -> None:
    module, state = head()
    marked = torch.tensor(mask)
    features = torch.randn(*marked.shape, 6)
    if training and marked.sum() < 2:
        return
    expected = oracle.project(state, "p", features[marked], training)
    found = module.train(training).tokens(features, marked)
    torch.testing.assert_close(found[marked], expected)
    assert (found[~marked] == 0).all()


def test_without_a_mask_every_token_counts() -> None:
    module, state = head()
    features = torch.randn(2, 3, 6)
    found = module.train().tokens(features, None)
    torch.testing.assert_close(found.flatten(0, 1), oracle.project(state, "p", features.flatten(0, 1), True))


def test_embeddings_have_unit_length() -> None:
    length = torch.linalg.vector_norm(head()[0](torch.randn(7, 6)), dim=-1)
    torch.testing.assert_close(length, torch.ones(7))


def test_a_single_row_is_normalised_with_the_running_statistics() -> None:
    """Row 11b of the page on differences: the released code raises an error on a batch of one pair."""
    module, state = head()
    row = torch.randn(1, 6)
    expected = oracle.project(state, "p", row)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = module.train()(row)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_several_rows_move_the_running_statistics() -> None:
    norm = RowNorm(3)
    norm(torch.randn(4, 3) + 5)
    assert (norm.running_mean > 0.3).all()


@dataclass(frozen=True)
class Alike(Devices):
    """Devices that all have the same rows, without another process."""

    def sum(self, value: Tensor) -> Tensor:
        return value * self.world


def test_statistics_over_devices_are_those_of_all_their_rows() -> None:
    many = torch.randn(4, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 5.0]) + 3
    # A row of its own on each device: two alike, which have no variance.
    for rows, affine in ((many, True), (many, False), (many[:1], True)):
        norms = [RowNorm(3, affine=affine).double() for _ in range(2)]
        for norm in norms:
            small.shake(norm, 0)
        norms[0].devices = Alike(0, 2)
        for _ in range(2):
            torch.testing.assert_close(norms[0](rows), norms[1](torch.cat([rows, rows]))[: len(rows)])
        for name, value in norms[1].state_dict().items():
            torch.testing.assert_close(norms[0].state_dict()[name], value, msg=name)
        evaluated = norms[0].eval()(rows)
        torch.testing.assert_close(evaluated, norms[1].eval()(rows))
        assert not torch.allclose(evaluated, norms[0].train()(rows))
