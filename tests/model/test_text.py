"""The text encoder, and word pieces to words, compared with a loop over the pieces."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model import oracle, small
from torch import Tensor

from medst.model.text import TextEncoder, sum_words, word_of_piece
from medst.recipes.settings import TextSettings

LENGTH = 9
ANY_PIECE = st.integers(2, small.VOCABULARY - 1)


@st.composite
def streams(draw: st.DrawFn) -> list[int]:
    """Reports as a tokenizer makes them, and odd ones: ## right after [CLS], [SEP] twice, early or missing."""
    body = draw(st.lists(ANY_PIECE, max_size=LENGTH - 1))
    whole = [small.CLS, *body]
    if draw(st.booleans()):
        whole = [*whole[: LENGTH - 1], small.SEP]
    return whole + [small.PAD] * (LENGTH - len(whole))


def loop(reports: list[list[int]], features: Tensor, unclosed: bool) -> tuple[Tensor, Tensor]:
    """The expected result of `sum_words` with LENGTH words."""
    summed, mask = torch.zeros_like(features), torch.zeros(features.shape[:2], dtype=torch.bool)
    for row, report in enumerate(reports):
        unread = unclosed and small.SEP not in report[:-1] and report[-1] == small.SEP
        for number, places in enumerate(oracle.words_of(report, small.CONTINUES.tolist(), small.SEP, unread)):
            summed[row, number] = torch.stack([features[row, place] for place in places]).sum(0)
            mask[row, number] = True
    return summed, mask


@settings(max_examples=200, deadline=None)
@given(st.lists(streams(), min_size=1, max_size=4), st.booleans())
def test_words_equal_the_loop(reports: list[list[int]], unclosed: bool) -> None:
    features = torch.randn(len(reports), LENGTH, 3, dtype=torch.float64)
    pieces = torch.tensor(reports)
    word = word_of_piece(pieces, small.CONTINUES, small.SEP, LENGTH if unclosed else None)
    summed, mask = sum_words(features, word, LENGTH)
    expected, expected_mask = loop(reports, features, unclosed)
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(summed, expected)


@pytest.mark.parametrize(
    ("pieces", "closed", "unclosed"),
    [
        # 2 is [CLS], 3 is [SEP], 25 and above start with ##
        ([2, 5, 6, 3, 0, 0], [0, 1, 2, 3, -1, -1], [0, 1, 2, 3, -1, -1]),
        ([2, 5, 30, 6, 31, 3], [0, 1, 1, 2, 2, 3], [0, 1, 1, -1, -1, -1]),
        ([2, 5, 6, 7, 8, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, -1, -1]),
        ([2, 30, 5, 3, 0, 0], [0, 0, 1, 2, -1, -1], [0, 0, 1, 2, -1, -1]),
        ([2, 5, 30, 31, 32, 3], [0, 1, 1, 1, 1, 2], [0, -1, -1, -1, -1, -1]),
        ([2, 3, 5, 3, 0, 0], [0, 1, -1, -1, -1, -1], [0, 1, -1, -1, -1, -1]),
    ],
)
def test_words_by_example(pieces: list[int], closed: list[int], unclosed: list[int]) -> None:
    report = torch.tensor([pieces])
    assert word_of_piece(report, small.CONTINUES, small.SEP).tolist() == [closed]
    assert word_of_piece(report, small.CONTINUES, small.SEP, len(pieces)).tolist() == [unclosed]


def test_gradients_reach_the_pieces_of_words_and_no_others() -> None:
    features = torch.ones(1, 6, 2, requires_grad=True)
    word = word_of_piece(torch.tensor([[2, 5, 30, 3, 0, 0]]), small.CONTINUES, small.SEP)
    summed, _ = sum_words(features, word, 4)
    (gradient,) = torch.autograd.grad((summed * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]).sum(), features)
    assert gradient[0, :, 0].tolist() == [1, 2, 2, 3, 0, 0]


# ---------------------------------------------------------------------------------------------------- the encoder


def encoder(text: TextSettings, fill: bool = False) -> tuple[TextEncoder, oracle.State]:
    torch.manual_seed(0)
    module = TextEncoder(text, small.CONTINUES, small.SEP, fill)
    small.shake(module, 0)
    return module.eval(), {f"text.{name}": tensor for name, tensor in module.named_parameters()}


TEXTS = {"modern": small.SETTINGS.text, "paper": small.PAPER.text}


@pytest.mark.parametrize("name", list(TEXTS))
def test_hidden_states_words_and_attention_equal_the_loops(name: str) -> None:
    text = TEXTS[name]
    module, state = encoder(text)
    pairs = small.make_pairs([False] * 3, [10, 4, 7])
    report, words, mask = module(pairs.pieces, pairs.attention_mask)
    looks = module.word_attention(pairs.pieces, pairs.attention_mask)
    shifted = module.word_attention(pairs.pieces, pairs.attention_mask, shifted=True)
    for row, ids in enumerate(pairs.pieces.tolist()):
        pieces = [i for i in ids if i != small.PAD]
        hidden, attention = oracle.report_hidden(
            state, pieces, text.heads, text.layers, text.positions, text.token_types
        )
        cut = not text.close_cut_reports and len(pieces) == text.pieces
        places = oracle.words_of(pieces, small.CONTINUES.tolist(), small.SEP, cut)
        torch.testing.assert_close(report[row], sum(hidden[p] for p in places[0]), rtol=1e-4, atol=1e-5)
        late = torch.cat([attention[1:], attention.new_zeros(1)])
        for number, word in enumerate(places[1:]):
            torch.testing.assert_close(words[row, number], sum(hidden[p] for p in word), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(looks[row, number], sum(attention[p] for p in word))
            torch.testing.assert_close(shifted[row, number], sum(late[p] for p in word))
        assert mask[row].sum() == len(places) - 1
        assert (words[row, len(places) - 1 :] == 0).all()
        assert (looks[row, len(places) - 1 :] == 0).all()


@pytest.mark.parametrize("name", list(TEXTS))
def test_gradients_equal_the_loops(name: str) -> None:
    text = TEXTS[name]
    module, state = encoder(text)
    pairs = small.make_pairs([False], [7])
    learn = [tensor for key, tensor in state.items() if tensor.requires_grad]
    hidden = module.pieces_to_hidden(pairs.pieces, pairs.attention_mask)
    expected, _ = oracle.report_hidden(
        state, pairs.pieces[0].tolist(), text.heads, text.layers, text.positions, text.token_types
    )
    for mine, theirs in zip(
        torch.autograd.grad(hidden.pow(3).sum(), learn), torch.autograd.grad(expected.pow(3).sum(), learn), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-4 * float(theirs.abs().max() + 1))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(3, 8), min_size=1, max_size=4), st.integers(0, 4), st.sampled_from(sorted(TEXTS)))
def test_padding_changes_nothing(lengths: list[int], padding: int, name: str) -> None:
    module, _ = encoder(TEXTS[name])
    short, long = (small.make_pairs([False] * len(lengths), lengths, padding=p) for p in (0, padding))
    one, two = (module(pairs.pieces, pairs.attention_mask) for pairs in (short, long))
    for a, b in zip(one, two, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_words_padded_to_full_length_are_the_same_and_the_rest_is_zero() -> None:
    pairs = small.make_pairs([False] * 2, [6, 8])
    short, long = (encoder(small.SETTINGS.text, fill)[0](pairs.pieces, pairs.attention_mask) for fill in (False, True))
    assert long[1].shape[1] == small.SETTINGS.text.pieces - 1
    count = short[1].shape[1]
    torch.testing.assert_close(long[1][:, :count], short[1])
    assert (long[1][:, count:] == 0).all()
    assert torch.equal(long[2][:, :count], short[2])
    assert not long[2][:, count:].any()


def test_as_released_swapped_findings_are_one_report_and_otherwise_two() -> None:
    """Row 0 of the page on differences: without positions a report is a bag of words."""
    effusion, grew, edema, resolved = 10, 11, 12, 13
    said = torch.tensor([[small.CLS, effusion, grew, edema, resolved, small.SEP]])
    swapped = torch.tensor([[small.CLS, edema, grew, effusion, resolved, small.SEP]])
    mask = torch.ones_like(said)
    blind, _ = encoder(small.PAPER.text)
    torch.testing.assert_close(blind(said, mask)[0], blind(swapped, mask)[0], rtol=1e-5, atol=1e-6)
    seeing, _ = encoder(small.SETTINGS.text)
    assert (seeing(said, mask)[0] - seeing(swapped, mask)[0]).abs().max() > 0.05


def test_as_released_token_types_are_zero_and_not_learnt() -> None:
    module, _ = encoder(small.PAPER.text)
    table = module.bert.embeddings.token_type_embeddings.weight
    assert (table == 0).all()
    assert not table.requires_grad
    assert encoder(replace(small.PAPER.text, token_types=True))[0].bert.embeddings.token_type_embeddings.weight.any()
