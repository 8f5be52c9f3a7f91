"""Both encoders together: fast and released encoding agree unless phantom or padding tokens count."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model import oracle, small
from tests.model.small import frontal_embedding, text_embedding

from medst.model.medst import Embeddings, Features, MedST
from medst.objective import Objective
from medst.recipes.settings import ObjectiveSettings

NEAR = {"rtol": 1e-5, "atol": 1e-5}
FAST = replace(small.PAPER, phantom_tokens=False)
SETTINGS = {"fast": small.SETTINGS, "paper": small.PAPER}


def expected(model: MedST, pairs: small.Pairs, training: bool = False) -> dict[str, torch.Tensor]:
    """Embeddings of a batch by the naive encoders: global ones, and real local ones concatenated over the pairs."""
    s, state = model.settings, model.state_dict()
    beside = dict(zip(pairs.lateral_of.tolist(), pairs.lateral[:, 0], strict=True))
    every_patch, every_word, real_patch, real_word, images, reports = [], [], [], [], [], []
    for i, ids in enumerate(pairs.pieces.tolist()):
        tokens = oracle.image_tokens(
            state, pairs.frontal[i, 0], beside.get(i), s.vision.heads, s.vision.depth, s.phantom_tokens
        )
        images.append(tokens[0])
        every_patch.append(tokens[1:])
        real_patch += [j < 9 or i in beside for j in range(len(tokens) - 1)]
        pieces = [p for p in ids if p != small.PAD]
        hidden, _ = oracle.report_hidden(
            state, pieces, s.text.heads, s.text.layers, s.text.positions, s.text.token_types
        )
        cut = not s.text.close_cut_reports and len(pieces) == s.text.pieces
        words = [hidden[p].sum(0) for p in oracle.words_of(pieces, small.CONTINUES.tolist(), small.SEP, cut)]
        reports.append(words[0])
        missing = s.text.pieces - len(words) if s.phantom_tokens else 0
        real_word += [True] * (len(words) - 1) + [False] * missing
        words += [torch.zeros_like(words[0])] * missing
        every_word.append(torch.stack(words[1:]))
    return {
        "image": oracle.project(state, "image_global", torch.stack(images), training),
        "report": oracle.project(state, "text_global", torch.stack(reports), training),
        "patches": oracle.project(state, "image_local", torch.cat(every_patch), training)[torch.tensor(real_patch)],
        "words": oracle.project(state, "text_local", torch.cat(every_word), training)[torch.tensor(real_word)],
    }


def real(embeddings: Embeddings) -> dict[str, torch.Tensor]:
    return {
        "image": embeddings.image,
        "report": embeddings.report,
        "patches": embeddings.patches[embeddings.patch_mask],
        "words": embeddings.words[embeddings.word_mask],
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", list(SETTINGS))
@torch.no_grad()
def test_embeddings_equal_the_naive_encoders(name: str, training: bool) -> None:
    model = small.make_model(SETTINGS[name])
    pairs = small.make_pairs([True, False, True, False], [10, 4, 7, 5])
    naive = expected(model, pairs, training)
    found = real(pairs.run(model.train(training)))
    for part, value in naive.items():
        torch.testing.assert_close(found[part], value, rtol=1e-4, atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(3, 9)), min_size=1, max_size=4), st.integers(0, 99))
@torch.no_grad()
def test_fast_and_exact_embeddings_are_the_same(rows: list[tuple[bool, int]], seed: int) -> None:
    pairs = small.make_pairs([row[0] for row in rows], [row[1] for row in rows], seed)
    fast, exact = (real(pairs.run(small.make_model(s))) for s in (FAST, small.PAPER))
    for part, value in exact.items():
        torch.testing.assert_close(fast[part], value, **NEAR)


def losses(model: MedST, pairs: small.Pairs, objective: ObjectiveSettings) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    module = Objective(objective, small.SETTINGS.embedding)
    steps = torch.tensor([[0, 1, 2]])
    return module(pairs.run(model), steps, torch.ones_like(steps, dtype=torch.bool))


@pytest.mark.parametrize("training", [False, True])
def test_fast_and_exact_losses_are_the_same_where_every_token_is_real(training: bool) -> None:
    """Every pair has a lateral, and every report has all pieces except those that are cut."""
    pairs = small.make_pairs([True] * 3, [10] * 3)
    pairs.pieces[:, 1:-1] = torch.randint(4, 25, (3, 8), generator=torch.Generator().manual_seed(0))
    closed = {"text": replace(small.PAPER.text, close_cut_reports=True)}
    found = [
        losses(small.make_model(replace(s, **closed)).train(training), pairs, ObjectiveSettings(masked=masked))
        for s, masked in ((FAST, True), (small.PAPER, False))
    ]
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5)


def test_with_phantom_tokens_the_local_losses_differ_and_the_others_do_not() -> None:
    """Rows 2 and 3 of the page on differences."""
    pairs = small.make_pairs([True, False, False], [9, 4, 5])
    fast = losses(small.make_model(FAST), pairs, ObjectiveSettings(masked=True))
    exact = losses(small.make_model(small.PAPER), pairs, ObjectiveSettings(masked=False))
    for name, value in exact.items():
        alike = torch.isclose(fast[name], value, rtol=1e-3)
        assert bool(alike) is (not name.startswith("lo")), name


def test_blank_laterals_shift_the_batch_statistics_of_real_patches_as_released_only() -> None:
    """Row 2 of the page on differences, in the projection head."""
    pairs = small.make_pairs([True, True, False], [5] * 3)
    for settings_of, shifted in ((small.PAPER, True), (FAST, False)):
        model = small.make_model(settings_of).train()
        _, features, mask = model.vision(pairs.frontal, pairs.lateral, pairs.lateral_of)
        real_only = model.image_local(features[mask])
        assert torch.allclose(pairs.run(model).patches[mask], real_only, atol=1e-4) is (not shifted)


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(SETTINGS)), order=st.permutations(range(4)), padding=st.integers(0, 1))
@torch.no_grad()
def test_the_order_of_pairs_and_padding_do_not_matter(name: str, order: list[int], padding: int) -> None:
    model = small.make_model(SETTINGS[name])
    laterals, lengths = [True, False, True, False], [9, 4, 7, 5]
    one, more = small.make_pairs(laterals, lengths), small.make_pairs(laterals, lengths, padding=padding)
    there = [i for i in order if laterals[i]]
    moved = small.Pairs(
        more.frontal[order],
        torch.stack([more.lateral[more.lateral_of.tolist().index(i)] for i in there]),
        torch.tensor([order.index(i) for i in there]),
        more.pieces[order],
        more.attention_mask[order],
    )
    a, b = one.run(model), moved.run(model)
    for field in dataclasses.fields(a):
        torch.testing.assert_close(getattr(a, field.name)[order], getattr(b, field.name), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_pair_has_the_same_embedding_alone_and_in_a_batch() -> None:
    for s in SETTINGS.values():
        model = small.make_model(s)
        pairs = small.make_pairs([True, False], [7, 5])
        whole = pairs.run(model)
        first = small.Pairs(
            pairs.frontal[:1], pairs.lateral, pairs.lateral_of, pairs.pieces[:1], pairs.attention_mask[:1]
        ).run(model)
        torch.testing.assert_close(first.image, whole.image[:1], **NEAR)
        torch.testing.assert_close(first.report, whole.report[:1], **NEAR)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_batch_of_one_pair_trains(name: str) -> None:
    """Row 11b of the page on differences: the released code raises an error here."""
    model = small.make_model(SETTINGS[name]).train()
    module = Objective(ObjectiveSettings(masked=name == "fast"), small.SETTINGS.embedding)
    pairs = small.make_pairs([True], [6])
    none = torch.zeros(0, 4, dtype=torch.int64)
    optimiser = torch.optim.SGD([*model.parameters(), *module.parameters()], lr=0.1)
    for _ in range(2):
        loss = module(pairs.run(model), none, none.bool())["loss"]
        assert loss.isfinite()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("laterals", [[False] * 3, [True, False, False], [True] * 3])
def test_every_parameter_that_learns_gets_a_gradient_from_every_batch(name: str, laterals: list[bool]) -> None:
    """Row 8 of the page on differences; engines for several devices require it."""
    model = small.make_model(SETTINGS[name]).train()
    module = Objective(ObjectiveSettings(masked=name == "fast"), small.SETTINGS.embedding)
    steps = torch.tensor([[0, 1, 2]])
    module(small.make_pairs(laterals, [6, 5, 9]).run(model), steps, steps >= 0)["loss"].backward()
    for whole in (model, module):
        for key, parameter in whole.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key


@torch.no_grad()
def test_frontal_views_and_texts_alone() -> None:
    model = small.make_model()
    pairs = small.make_pairs([False] * 3, [7, 5, 4])
    whole = pairs.run(model)
    torch.testing.assert_close(frontal_embedding(model, pairs.frontal), whole.image, **NEAR)
    torch.testing.assert_close(text_embedding(model, pairs.pieces, pairs.attention_mask), whole.report, **NEAR)


def test_a_batch_of_three_pictures_is_three_pictures() -> None:
    """Row 11c of the page on differences: the released encoder reads a batch of three as (frontal, lateral, mask)."""
    model = small.make_model()
    pairs = small.make_pairs([False] * 3, [4] * 3)
    assert frontal_embedding(model, pairs.frontal).shape == (3, small.SETTINGS.embedding)


@pytest.mark.parametrize("name", list(SETTINGS))
@torch.no_grad()
def test_joined_features_equal_those_of_the_full_batch(name: str) -> None:
    model = small.make_model(SETTINGS[name])
    whole = small.make_pairs([True, False, True], [5, 4, 9])
    parts = [
        small.Pairs(
            whole.frontal[:2], whole.lateral[:1], torch.tensor([0]), whole.pieces[:2, :5], whole.attention_mask[:2, :5]
        ),
        small.Pairs(
            whole.frontal[2:], whole.lateral[1:], torch.tensor([0]), whole.pieces[2:], whole.attention_mask[2:]
        ),
    ]
    features = [model.encode(*vars(pairs).values()) for pairs in (whole, *parts)]
    joint = Features.join(features[1:])
    for field, value in vars(features[0]).items():
        torch.testing.assert_close(getattr(joint, field), value, **NEAR)


def test_leaves_have_the_same_values_and_collect_gradients() -> None:
    model, pairs = small.make_model(), small.make_pairs([True, False], [5, 4])
    features = model.encode(*vars(pairs).values())
    leaves = features.as_leaves()
    model.project(leaves).image.sum().backward()
    assert leaves.image.grad is not None
    assert all(parameter.grad is None for parameter in model.vision.parameters())
    for field, value in vars(features).items():
        leaf = getattr(leaves, field)
        assert torch.equal(leaf, value)
        assert leaf.is_leaf
        assert leaf.requires_grad is value.is_floating_point()


def test_recomputed_activations_give_the_same_gradients() -> None:
    pairs, found = small.make_pairs([True, False], [9, 4]), []
    for again in (False, True):
        model = small.make_model().train()
        if again:
            model.checkpoint_activations()
        of_text = [module for module in model.text.modules() if getattr(module, "gradient_checkpointing", False)]
        assert model.vision.checkpoint is bool(of_text) is again
        embedded = pairs.run(model)
        loss = (embedded.image * embedded.report).sum() + embedded.words.pow(3).sum()
        found.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
