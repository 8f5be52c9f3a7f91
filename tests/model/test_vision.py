"""The image encoder, compared with a loop over images, heads and tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model import oracle, small
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medst.model.vision import Block, VisionEncoder
from medst.recipes.settings import VisionSettings

HEADS, DEPTH = small.SETTINGS.vision.heads, small.SETTINGS.vision.depth
PATCHES = 9


def encoder(
    phantom: bool = False, vision: VisionSettings = small.SETTINGS.vision
) -> tuple[VisionEncoder, oracle.State]:
    torch.manual_seed(0)
    module = VisionEncoder(vision, phantom)
    small.shake(module, 0)
    module = module.double().eval()
    return module, {f"vision.{name}": tensor for name, tensor in module.named_parameters()}


def pictures(count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, small.SIDE, small.SIDE, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("phantom", [True, False])
@pytest.mark.parametrize("of", [[0, 2], [], [0, 1, 2], [2, 0]])
def test_pairs_equal_the_loops_with_their_gradients(phantom: bool, of: list[int]) -> None:
    module, state = encoder(phantom)
    frontal, lateral = pictures(3, 1), pictures(len(of), 2)
    lateral_of = torch.tensor(of, dtype=torch.int64)
    whole, patches, mask = module(frontal, lateral, lateral_of)

    beside = dict(zip(of, lateral[:, 0], strict=True))
    rows = [oracle.image_tokens(state, frontal[i, 0], beside.get(i), HEADS, DEPTH, phantom) for i in range(3)]
    for i, row in enumerate(rows):
        torch.testing.assert_close(whole[i], row[0])
        torch.testing.assert_close(patches[i, : len(row) - 1], row[1:])
        assert (patches[i, len(row) - 1 :] == 0).all()
        assert mask[i].tolist() == [True] * PATCHES + [i in beside] * PATCHES

    ours = torch.autograd.grad(whole.square().sum() + patches.pow(3).sum(), list(state.values()))
    theirs = torch.autograd.grad(
        torch.stack([row[0].square().sum() + row[1:].pow(3).sum() for row in rows]).sum(),
        list(state.values()),
        materialize_grads=True,
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lateral", [False, True])
def test_one_view_alone_equals_the_loops(lateral: bool) -> None:
    module, state = encoder()
    images = pictures(2, 3)
    tokens = module.encode_view(images, lateral=lateral)
    for image, row in zip(images, tokens, strict=True):
        torch.testing.assert_close(row, oracle.view_tokens(state, image[0], "_l" if lateral else "", HEADS, DEPTH))


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_is_copied_to_all_channels(channels: int) -> None:
    module, state = encoder(vision=replace(small.SETTINGS.vision, channels=channels))
    images = pictures(2, 3)
    for image, row in zip(images, module.patch_embed(images), strict=True):
        torch.testing.assert_close(row, oracle.patches(state, image[0]))


@pytest.mark.parametrize("phantom", [True, False])
def test_without_a_lateral_frontal_tokens_are_those_of_a_frontal_pass(phantom: bool) -> None:
    module, _ = encoder(phantom)
    frontal = pictures(3, 1)
    whole, patches, _ = module(frontal, pictures(1, 2), torch.tensor([1]))
    alone = module.encode_view(frontal)
    for i in (0, 2):
        torch.testing.assert_close(whole[i], alone[i, 0])
        torch.testing.assert_close(patches[i, :PATCHES], alone[i, 1:])
    assert not torch.isclose(whole[1], alone[1, 0]).any()


@settings(max_examples=25, deadline=None)
@given(laterals=st.lists(st.booleans(), min_size=1, max_size=5), data=st.data())
def test_fast_and_released_encoding_agree_on_real_tokens(laterals: list[bool], data: st.DataObject) -> None:
    frontal = pictures(len(laterals), 1)
    of = data.draw(st.permutations([i for i, there in enumerate(laterals) if there]))
    lateral, lateral_of = pictures(len(of), 2), torch.tensor(of, dtype=torch.int64)
    fast, exact = encoder(False)[0](frontal, lateral, lateral_of), encoder(True)[0](frontal, lateral, lateral_of)
    assert torch.equal(fast[2], exact[2])
    torch.testing.assert_close(fast[0], exact[0])
    torch.testing.assert_close(fast[1][fast[2]], exact[1][exact[2]])


@settings(max_examples=15, deadline=None)
@given(phantom=st.booleans(), pairs=st.permutations(range(4)), laterals=st.permutations(range(2)))
def test_the_order_of_pairs_and_of_laterals_does_not_matter(
    phantom: bool, pairs: list[int], laterals: list[int]
) -> None:
    module, _ = encoder(phantom)
    frontal, lateral, lateral_of = pictures(4, 1), pictures(2, 2), torch.tensor([1, 3])
    place = torch.tensor(pairs).argsort()
    one = module(frontal, lateral, lateral_of)
    two = module(frontal[pairs], lateral[laterals], place[lateral_of[laterals]])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a[pairs], b)


@pytest.mark.parametrize("phantom", [True, False])
def test_a_lateral_changes_only_its_own_pair(phantom: bool) -> None:
    module, _ = encoder(phantom)
    frontal, lateral = pictures(3, 1), pictures(2, 2)
    one = module(frontal, lateral, torch.tensor([0, 2]))
    two = module(frontal, torch.stack([lateral[0], -lateral[1]]), torch.tensor([0, 2]))
    for a, b in zip(one[:2], two[:2], strict=True):
        torch.testing.assert_close(a[:2], b[:2])
        assert not torch.isclose(a[2], b[2]).all()


def test_a_batch_without_a_lateral_gives_every_parameter_a_gradient() -> None:
    module, _ = encoder()
    whole, patches, mask = module(pictures(2, 1), pictures(0, 2), torch.zeros(0, dtype=torch.int64))
    assert not mask[:, PATCHES:].any()
    (whole.sum() + patches.sum()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "_l." in name:
            assert (parameter.grad == 0).all(), name


def test_lateral_experts_start_as_copies_or_at_random() -> None:
    torch.manual_seed(0)
    for start, alike in (("copy", True), ("random", False)):
        module = VisionEncoder(replace(small.SETTINGS.vision, lateral_start=start))
        for block in module.blocks:
            assert torch.equal(block.mlp.fc1.weight, block.mlp_l.fc1.weight) is alike
            assert block.mlp.fc1.weight.data_ptr() != block.mlp_l.fc1.weight.data_ptr()


def test_activations_are_recomputed_only_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    module, state = encoder()
    inputs = pictures(3, 1), pictures(2, 2), torch.tensor([0, 2])
    asked: list[Block] = []

    def noted(block: Block, *args: Any, use_reentrant: bool) -> Tensor:
        asked.append(block)
        return checkpoint(block, *args, use_reentrant=use_reentrant)

    monkeypatch.setattr("medst.model.vision.checkpoint", noted)

    def gradients() -> list[Tensor]:
        whole, patches, _ = module(*inputs)
        return list(torch.autograd.grad(whole.square().sum() + patches.pow(3).sum(), list(state.values())))

    kept = gradients()
    assert not asked
    module.checkpoint = True
    again = gradients()
    assert asked == [*module.blocks] * 2  # pairs without a lateral, then pairs with one
    for one, two in zip(kept, again, strict=True):
        torch.testing.assert_close(one, two)
    asked.clear()
    with torch.no_grad():
        module(*inputs)
    assert not asked
