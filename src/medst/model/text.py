"""The text encoder: BERT, then word pieces summed into words (paper, section 3.1).

Two switches make it the released encoder, which treats a report as a bag of words: with `positions` off, every token is
embedded at position 0; with `token_types` off, no token-type embedding is added.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from medst.recipes.settings import BERT_POSITIONS, TextSettings


def word_of_piece(
    pieces: Int64[Tensor, "report piece"],
    continues: Bool[Tensor, " vocabulary"],
    sep: int,
    unclosed_at: int | None = None,
) -> Int64[Tensor, "report piece"]:
    """The word that each piece belongs to: 0 for [CLS], then 1, 2, ... up to [SEP]; -1 for pieces of no word.

    A piece that continues a word (starts with ##) shares its word's number; pieces after [SEP] belong to no word.

    Args:
        pieces: token ids, padded after `sep`, the id of [SEP].
        continues: for each id of the vocabulary, whether it continues a word.
        unclosed_at: repeat an error of the released code on reports of this many pieces, [SEP] included: they lose [SEP]
            and their last word, because the last position is never read and a word is only closed by the next one. None:
            no report loses anything.
    """
    is_sep = pieces == sep
    word = (~continues[pieces]).cumsum(1) - 1
    dropped = is_sep.cumsum(1) - is_sep.long() > 0
    if unclosed_at is not None and pieces.shape[1] == unclosed_at:
        full = is_sep[:, -1] & ~is_sep[:, :-1].any(1)
        dropped = dropped | (full[:, None] & (word >= word[:, -2:-1]))
    return word.masked_fill(dropped, -1)


def sum_words(
    features: Float[Tensor, "report piece dim"], word: Int64[Tensor, "report piece"], words: int
) -> tuple[Float[Tensor, "report word dim"], Bool[Tensor, "report word"]]:
    """Sum the pieces of each word; words that a report does not have are zero, and False in the mask."""
    slot = torch.where(word >= 0, word, words)  # one extra row for dropped pieces
    summed = features.new_zeros(len(features), words + 1, features.shape[-1])
    summed = summed.scatter_add(1, slot[..., None].expand_as(features), features)
    count = word.amax(1) + 1
    return summed[:, :words], torch.arange(words, device=word.device) < count[:, None]


class TextEncoder(nn.Module):
    """A BERT of any size over word pieces, summed into words."""

    continues: Tensor

    def __init__(
        self, settings: TextSettings, continues: Bool[Tensor, " vocabulary"], sep: int, fill: bool = False
    ) -> None:
        """`continues` says for each id of the vocabulary whether its piece continues a word; `sep` is the id of [SEP].

        With `fill`, every report is padded with zero words up to `settings.pieces`, as released.
        """
        super().__init__()
        self.settings, self.sep, self.fill = settings, sep, fill
        self.register_buffer("continues", continues, persistent=False)
        config = BertConfig(
            vocab_size=len(continues),
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.intermediate,
            max_position_embeddings=BERT_POSITIONS,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.dropout,
            attn_implementation="sdpa",
            use_cache=False,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        if not settings.token_types:
            table = self.bert.embeddings.token_type_embeddings.weight
            nn.init.zeros_(table)
            table.requires_grad_(False)

    def pieces_to_hidden(
        self, pieces: Int64[Tensor, "report piece"], attention_mask: Int64[Tensor, "report piece"]
    ) -> Float[Tensor, "report piece width"]:
        """The last layer's hidden states."""
        positions = None if self.settings.positions else torch.zeros_like(pieces)
        return self.bert(input_ids=pieces, attention_mask=attention_mask, position_ids=positions).last_hidden_state

    def _words(self, pieces: Int64[Tensor, "report piece"]) -> tuple[Int64[Tensor, "report piece"], int]:
        unclosed_at = None if self.settings.close_cut_reports else self.settings.pieces
        word = word_of_piece(pieces, self.continues, self.sep, unclosed_at)
        return word, self.settings.pieces if self.fill else int(word.max()) + 1

    def forward(
        self, pieces: Int64[Tensor, "report piece"], attention_mask: Int64[Tensor, "report piece"]
    ) -> tuple[Float[Tensor, "report width"], Float[Tensor, "report word width"], Bool[Tensor, "report word"]]:
        """Encode reports.

        Returns:
            The report feature ([CLS]); the word features without [CLS], zero after a report's last word; and a mask that
            is True where a report has a word ([SEP] counts as one).
        """
        hidden = self.pieces_to_hidden(pieces, attention_mask)
        word, words = self._words(pieces)
        features, mask = sum_words(hidden, word, words)
        return features[:, 0], features[:, 1:], mask[:, 1:]

    @torch.no_grad()
    def word_attention(
        self,
        pieces: Int64[Tensor, "report piece"],
        attention_mask: Int64[Tensor, "report piece"],
        shifted: bool = False,
    ) -> Float[Tensor, "report word"]:
        """Attention of [CLS] to each word in the last layer: mean over heads, summed over the word's pieces.

        The words are those of `forward`. No loss uses this; call it in evaluation mode. `shifted` repeats an error of the
        released code, which gives each piece the attention of the next one.
        """
        settings = self.settings
        positions = None if settings.positions else torch.zeros_like(pieces)
        states = self.bert(
            input_ids=pieces, attention_mask=attention_mask, position_ids=positions, output_hidden_states=True
        ).hidden_states
        last = self.bert.encoder.layer[-1].attention.self
        split = (settings.heads, settings.width // settings.heads)
        query = last.query(states[-2][:, 0]).unflatten(-1, split)
        key = last.key(states[-2]).unflatten(-1, split)
        scores = torch.einsum("rhd,rphd->rhp", query, key) * split[1] ** -0.5
        scores = scores.masked_fill(attention_mask[:, None] == 0, torch.finfo(scores.dtype).min)
        word, words = self._words(pieces)
        attention = scores.softmax(-1).mean(1)
        if shifted:
            attention = F.pad(attention[:, 1:], (0, 1))
        looks, _ = sum_words(attention[..., None], word, words)
        return looks[:, 1:, 0]
