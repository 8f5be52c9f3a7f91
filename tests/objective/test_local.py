"""The local alignment, compared with a loop over pairs, words and patches."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objective import oracle
from torch import Tensor

from medst.objective.local import LocalAlignment
from medst.recipes.objective import ObjectiveSettings

DIM = 6


@dataclass
class Case:
    words: Tensor
    word_mask: Tensor
    patches: Tensor
    patch_mask: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.words, self.word_mask, self.patches, self.patch_mask


def make_case(lengths: list[int], laterals: list[bool], seed: int = 0, views: int = 2, padding: int = 0) -> Case:
    """Reports of these lengths, with `views` patches per view; padding and absent views contain numbers, as in the paper."""
    rng = torch.Generator().manual_seed(seed)
    pairs, words = len(lengths), max(lengths) + padding

    def rows(count: int) -> Tensor:
        return F.normalize(torch.randn(pairs, count, DIM, generator=rng, dtype=torch.float64), dim=-1)

    word_mask = torch.arange(words) < torch.tensor(lengths)[:, None]
    patch_mask = torch.tensor([[True] * views + [lateral] * views for lateral in laterals])
    return Case(rows(words).requires_grad_(), word_mask, rows(2 * views).requires_grad_(), patch_mask)


def alignment(masked: bool, seed: int = 7) -> LocalAlignment:
    torch.manual_seed(seed)
    module = LocalAlignment(ObjectiveSettings(masked=masked), DIM).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=2.0)  # far from uniform, so that every weight matters
    return module


def heads(module: LocalAlignment) -> dict[str, Tensor]:
    named = {}
    for side, weights in (("word", module.word_weights), ("patch", module.patch_weights)):
        for part in ("query", "key"):
            linear = getattr(weights, part)
            named |= {f"{side}_{part}_weight": linear.weight, f"{side}_{part}_bias": linear.bias}
    return named


def both(module: LocalAlignment, case: Case) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    return module(*case.tensors()), oracle.local_loss(
        *case.tensors(), heads=heads(module), phantom_tokens=not module.masked
    )


@pytest.mark.parametrize("masked", [True, False])
def test_losses_and_gradients_equal_the_loops(masked: bool) -> None:
    module, case = alignment(masked), make_case([3, 1, 5], [True, False, False], padding=1)
    ours, (word_side, patch_side) = both(module, case)
    torch.testing.assert_close(ours["local_words"], word_side)
    torch.testing.assert_close(ours["local_patches"], patch_side)
    leaves = [case.words, case.patches, *module.parameters()]
    # A report's padding words have no gradient under the mask; the oracle never touches them.
    for mine, theirs in zip(
        torch.autograd.grad(ours["local_words"] + ours["local_patches"], leaves),
        torch.autograd.grad(word_side + patch_side, leaves, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=3), st.booleans(), st.integers(0, 99))
def test_any_lengths_and_laterals(pairs: list[tuple[int, bool]], masked: bool, seed: int) -> None:
    lengths, laterals = map(list, zip(*pairs, strict=True))
    module, case = alignment(masked), make_case(lengths, laterals, seed, views=1)
    ours, (word_side, patch_side) = both(module, case)
    torch.testing.assert_close(ours["local_words"], word_side)
    torch.testing.assert_close(ours["local_patches"], patch_side)


def test_both_forms_are_equal_if_every_token_is_real() -> None:
    case = make_case([4, 4], [True, True])
    masked, exact = alignment(True)(*case.tensors()), alignment(False)(*case.tensors())
    for name in masked:
        torch.testing.assert_close(masked[name], exact[name])


def test_under_the_mask_nothing_depends_on_what_is_not_there() -> None:
    case = make_case([2, 4], [False, True])
    other = make_case([2, 4], [False, True], seed=1)
    mixed = Case(
        torch.where(case.word_mask[..., None], case.words, other.words),
        case.word_mask,
        torch.where(case.patch_mask[..., None], case.patches, other.patches),
        case.patch_mask,
    )
    one, two = alignment(True)(*case.tensors()), alignment(True)(*mixed.tensors())
    for name in ("local_words", "local_patches", "word_weights", "patch_weights"):
        assert torch.equal(one[name], two[name])


def test_as_released_padding_words_and_absent_laterals_take_part() -> None:
    """Errors 2 and 3 of the released code, kept by recipe paper only."""
    case = make_case([2, 4], [False, True])
    weights = alignment(False)(*case.tensors())
    assert (weights["word_weights"][~case.word_mask] > 0).all()
    assert (weights["patch_weights"][~case.patch_mask] > 0).all()
    masked = alignment(True)(*case.tensors())
    assert (masked["word_weights"][~case.word_mask] == 0).all()
    assert (masked["patch_weights"][~case.patch_mask] == 0).all()
    assert not torch.isclose(weights["local_words"], masked["local_words"])


def test_as_released_the_same_reports_padded_further_give_another_loss_and_masked_they_do_not() -> None:
    short, long = make_case([2, 4], [True, True]), make_case([2, 4], [True, True], padding=3)
    long.words = torch.cat([short.words, long.words[:, 4:]], dim=1)
    long.patches = short.patches
    exact = [alignment(False)(*case.tensors())["local_words"] for case in (short, long)]
    masked = [alignment(True)(*case.tensors())["local_words"] for case in (short, long)]
    assert not torch.isclose(*exact, rtol=1e-2)
    torch.testing.assert_close(*masked)


@pytest.mark.parametrize("masked", [True, False])
def test_weights_of_words_sum_to_one(masked: bool) -> None:
    weights = alignment(masked)(*make_case([3, 1], [False, True]).tensors())
    torch.testing.assert_close(weights["word_weights"].sum(1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(weights["patch_weights"].sum(1), torch.ones(2, dtype=torch.float64))


def test_attended_words_keep_their_length_and_attended_patches_do_not() -> None:
    """The asymmetry that shaped the published numbers."""
    out = alignment(False)(*make_case([3, 2], [True, False]).tensors())
    length = torch.linalg.vector_norm(out["attended_patches"], dim=-1)
    torch.testing.assert_close(length, torch.ones_like(length))
    assert (torch.linalg.vector_norm(out["attended_words"], dim=-1) < 0.99).any()


def test_pairs_do_not_affect_each_other() -> None:
    case = make_case([3, 2], [True, False])
    words = case.words.detach().clone()
    words[1] = words[1].flip(0)
    one, two = alignment(True)(*case.tensors()), alignment(True)(words, case.word_mask, case.patches, case.patch_mask)
    assert torch.equal(one["word_weights"][0], two["word_weights"][0])
    assert torch.equal(one["attended_words"][0], two["attended_words"][0])
