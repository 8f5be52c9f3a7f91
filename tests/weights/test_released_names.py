"""The entries of released checkpoints, compared with the recorded list."""

from pathlib import Path

import pytest
import torch
from tests.model import released, small
from tests.weights import checkpoints
from torch import Tensor

from medst.errors import MedstError
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes import RECIPES
from medst.recipes.settings import Recipe
from medst.weights.released import (
    NEVER_USED,
    UNUSED_VALUE,
    ReleasedEntries,
    from_released_names,
    to_released_names,
    zeros_for_unused,
)

SOURCE = Path("some.ckpt")


def empty(recipe: Recipe) -> tuple[MedST, Objective]:
    with torch.device("meta"):
        pieces = 28996 if recipe is RECIPES["paper"] else small.VOCABULARY
        vocabulary = torch.zeros(pieces, dtype=torch.bool)
        return MedST(recipe.model, vocabulary, 3), Objective(recipe.objective, recipe.model.embedding)


def test_names_shapes_and_types_are_those_of_a_released_checkpoint() -> None:
    """At full size, without memory: a model of medst is exported with the published entries."""
    model, objective = empty(RECIPES["paper"])
    with torch.device("meta"):
        unused = zeros_for_unused(model)
    recorded = released.entries()
    entries = ReleasedEntries(
        dict(model.state_dict()), dict(objective.state_dict()), unused, [e.name for e in recorded]
    )
    given = to_released_names(entries)
    for entry in recorded:
        assert tuple(given[entry.name].shape) == entry.shape, entry.name
        assert str(given[entry.name].dtype) == f"torch.{entry.dtype}", entry.name
    ours = {name for name in unused if not name.endswith(UNUSED_VALUE)}
    assert all(NEVER_USED.fullmatch(name) for name in ours)
    assert {e.name for e in recorded if NEVER_USED.fullmatch(e.name)} == ours
    assert sum(e.dtype == "float32" for e in recorded) > 400


@pytest.mark.parametrize("state", [checkpoints.medst_state(), checkpoints.mgca_state()], ids=["medst", "mgca"])
def test_there_and_back_every_bit_and_the_order_are_the_same(state: dict[str, Tensor]) -> None:
    entries = from_released_names(state, *empty(checkpoints.RECIPE), SOURCE)
    back = to_released_names(entries)
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


def test_the_entries_fill_model_and_objective() -> None:
    state = checkpoints.medst_state()
    model, objective = empty(checkpoints.RECIPE)
    entries = from_released_names(state, model, objective, SOURCE)
    assert set(entries.model) == set(model.state_dict())
    assert set(entries.objective) == set(objective.state_dict())
    assert torch.equal(
        entries.model["vision.blocks.1.mlp_l.fc1.weight"], state["img_encoder_q.model.blocks.1.mlp_l.fc1.weight"]
    )
    assert torch.equal(
        entries.model["image_local.head.0.weight"], state["img_encoder_q.local_embed.head.0.weight"].squeeze(-1)
    )
    assert (entries.model["text.bert.embeddings.token_type_embeddings.weight"] == 0).all()
    in_proj = state["word_element_wise_multi_head.in_proj_weight"]
    assert torch.equal(entries.objective["local.word_weights.key.weight"], in_proj[8:16])


def test_nothing_is_copied() -> None:
    state = checkpoints.medst_state()
    entries = from_released_names(state, *empty(checkpoints.RECIPE), SOURCE)
    there = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert {t.untyped_storage().data_ptr() for n, t in entries.model.items() if "token_type" not in n} <= there


def test_missing_lateral_experts_are_the_frontal_ones() -> None:
    entries = from_released_names(checkpoints.mgca_state(), *empty(checkpoints.RECIPE), SOURCE)
    assert not entries.lateral
    assert entries.objective == {}
    for part in ("mlp_l.fc1.weight", "norm2_l.bias"):
        one, other = f"vision.blocks.1.{part}", f"vision.blocks.1.{part.replace('_l.', '.')}"
        assert torch.equal(entries.model[one], entries.model[other])


SOME = "img_encoder_q.model.blocks.0.attn.qkv.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop(SOME), rf"missing: {SOME}\."),
        (lambda s: s.update({SOME: s[SOME][1:]}), rf"of another shape: {SOME} \(47x16, not 48x16\)"),
        (lambda s: s.update({SOME: s[SOME].half()}), rf"of another type: {SOME} \(float16, not float32\)"),
        (lambda s: s.update({SOME: "text"}), rf"of another type: {SOME} \(str\)"),
        (lambda s: s.update({SOME: s[SOME].to_sparse()}), rf"of another type: {SOME} \(Tensor\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"unexpected: extra\."),
        (lambda s: s.update({"text_encoder_q.model.pooler.dense.bias": 3}), r"of another type: .*pooler.dense.bias"),
        (lambda s: s.pop("img_encoder_q.model.blocks.0.mlp_l.fc1.bias"), r"missing: .*blocks.0.mlp_l.fc1.bias\."),
        (lambda s: s.pop("word_element_wise_multi_head.in_proj_bias"), r"missing: word_element_wise.*in_proj_bias\."),
        (
            lambda s: s.update({"img_encoder_q.local_embed.head.0.weight": torch.zeros(20, 16)}),
            r"of another shape: .*local_embed.head.0.weight \(20x16, not 20x16x1\)",
        ),
    ],
)
def test_entries_that_do_not_fit_are_listed(change: object, said: str) -> None:
    state = checkpoints.medst_state()
    change(state)  # type: ignore[operator]
    with pytest.raises(
        MedstError, match=r"some.ckpt: not a released Med-ST or MGCA checkpoint of this size; .*" + said
    ):
        from_released_names(state, *empty(checkpoints.RECIPE), SOURCE)


def test_all_problems_are_listed_at_once_and_long_lists_are_cut() -> None:
    state = checkpoints.medst_state()
    state.pop(SOME)
    state |= {f"extra.{i:02d}": torch.zeros(1) for i in range(15)}
    with pytest.raises(MedstError, match=rf"missing: {SOME}; unexpected: extra.00, .*extra.04 and 10 more\.$"):
        from_released_names(state, *empty(checkpoints.RECIPE), SOURCE)


def test_unused_entries_are_zeros_of_the_right_type() -> None:
    torch.manual_seed(0)
    model = MedST(checkpoints.RECIPE.model, small.CONTINUES, small.SEP)
    blank = zeros_for_unused(model)
    state = checkpoints.medst_state()
    for name, tensor in blank.items():
        if not name.endswith(UNUSED_VALUE):
            assert (tensor.shape, tensor.dtype) == (state[name].shape, state[name].dtype), name
    assert torch.equal(blank.pop("text_encoder_q.model.embeddings.position_ids"), torch.arange(512)[None])
    assert not any(bool(tensor.any()) for tensor in blank.values())
