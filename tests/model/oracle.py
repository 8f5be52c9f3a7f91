"""Both encoders again, one image and one report at a time, from a state dict and the method's description.

Unusual: attention matrices are built head by head, grey is copied to three channels and convolved, words are gathered
in a loop with an open word that the next one closes. Nothing is shared with `medst.model` but the parameters' names.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """(tokens, width) each; returns the mixed values and the attention matrices (head, token, token)."""
    size = q.shape[1] // heads
    outs, matrices = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)
        scores = torch.where(torch.tensor(seen)[None], scores, torch.full_like(scores, -math.inf))
        matrix = torch.exp(scores - scores.max(1, keepdim=True).values)
        matrix = matrix / matrix.sum(1, keepdim=True)
        outs.append(matrix @ v[:, part])
        matrices.append(matrix)
    return torch.cat(outs, 1), torch.stack(matrices)


# ---------------------------------------------------------------------------------------------------- vision


def patches(state: State, picture: Tensor) -> Tensor:
    """A grey picture (h, w) to (patch, width) by a three-channel convolution."""
    weight = state["vision.patch_embed.proj.weight"]
    colour = torch.stack([picture] * weight.shape[1])
    mapped = F.conv2d(colour[None], weight, state["vision.patch_embed.proj.bias"], stride=weight.shape[-1])[0]
    return torch.stack([mapped[:, y, x] for y in range(mapped.shape[1]) for x in range(mapped.shape[2])])


def blocks(
    state: State, tokens: Tensor, experts: Sequence[str], seen: Sequence[bool], heads: int, depth: int
) -> Tensor:
    """All blocks and the last norm; `experts` says for each token which view's expert it takes: '' or '_l'."""
    for number in range(depth):
        name = f"vision.blocks.{number}"
        q, k, v = linear(layer_norm(tokens, state, f"{name}.norm1", 1e-6), state, f"{name}.attn.qkv").chunk(3, -1)
        tokens = tokens + linear(attention(q, k, v, heads, seen)[0], state, f"{name}.attn.proj")
        rows = []
        for token, view in zip(tokens, experts, strict=True):
            inner = layer_norm(token, state, f"{name}.norm2{view}", 1e-6)
            inner = gelu(linear(inner, state, f"{name}.mlp{view}.fc1"))
            rows.append(token + linear(inner, state, f"{name}.mlp{view}.fc2"))
        tokens = torch.stack(rows)
    return layer_norm(tokens, state, "vision.norm", 1e-6)


def image_tokens(
    state: State, frontal: Tensor, lateral: Tensor | None, heads: int, depth: int, phantom: bool = False
) -> Tensor:
    """A pair's tokens: [CLS], the frontal patches, then the lateral ones (with `phantom`, masked ones if there are none)."""
    position = state["vision.pos_embed"][0]
    front = torch.cat([state["vision.cls_token"][0], patches(state, frontal)]) + position
    if lateral is None and not phantom:
        return blocks(state, front, [""] * len(front), [True] * len(front), heads, depth)
    side = patches(state, torch.zeros_like(frontal) if lateral is None else lateral) + position[1:]
    return blocks(
        state,
        torch.cat([front, side]),
        [""] * len(front) + ["_l"] * len(side),
        [True] * len(front) + [lateral is not None] * len(side),
        heads,
        depth,
    )


def view_tokens(state: State, picture: Tensor, view: str, heads: int, depth: int) -> Tensor:
    """One picture alone through one view's expert."""
    tokens = torch.cat([state["vision.cls_token"][0], patches(state, picture)]) + state["vision.pos_embed"][0]
    return blocks(state, tokens, [view] * len(tokens), [True] * len(tokens), heads, depth)


# ------------------------------------------------------------------------------------------------------ text


def report_hidden(
    state: State, ids: Sequence[int], heads: int, layers: int, positions: bool, token_types: bool
) -> tuple[Tensor, Tensor]:
    """The unpadded pieces of one report to their hidden states and to [CLS]'s last attention, a mean over heads."""
    bert = "text.bert"
    x = torch.stack([state[f"{bert}.embeddings.word_embeddings.weight"][i] for i in ids])
    place = state[f"{bert}.embeddings.position_embeddings.weight"]
    x = x + torch.stack([place[i if positions else 0] for i in range(len(ids))])
    if token_types:
        x = x + state[f"{bert}.embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x, state, f"{bert}.embeddings.LayerNorm", 1e-12)
    looks = x.new_zeros(len(ids))
    for number in range(layers):
        name = f"{bert}.encoder.layer.{number}"
        q, k, v = (linear(x, state, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed, matrices = attention(q, k, v, heads, [True] * len(ids))
        looks = matrices[:, 0].mean(0)
        out = linear(mixed, state, f"{name}.attention.output.dense")
        x = layer_norm(x + out, state, f"{name}.attention.output.LayerNorm", 1e-12)
        inner = linear(gelu(linear(x, state, f"{name}.intermediate.dense")), state, f"{name}.output.dense")
        x = layer_norm(x + inner, state, f"{name}.output.LayerNorm", 1e-12)
    return x, looks


def words_of(ids: Sequence[int], continues: Sequence[bool], sep: int, unread: bool = False) -> list[list[int]]:
    """The places of the pieces of each word. An open word is closed by the next one or by [SEP], which ends the report.

    Args:
        ids: the pieces.
        continues: for each id, whether it goes on with a word.
        sep: id of [SEP].
        unread: the last piece is never read and a word that is open at the end is lost, as in a report cut to full
            length by the released code.
    """
    words: list[list[int]] = []
    open_word: list[int] = []
    for place, piece in enumerate(ids[:-1] if unread else ids):
        if piece == sep:
            if open_word:
                words.append(open_word)
            words.append([place])
            return words
        if continues[piece]:
            open_word.append(place)
            continue
        if open_word:
            words.append(open_word)
        open_word = [place]
    if open_word and not unread:
        words.append(open_word)
    return words


# ------------------------------------------------------------------------------------------------ projection


def project(state: State, name: str, rows: Tensor, training: bool = False) -> Tensor:
    """A projection head over rows, then L2 normalisation."""

    def batch_norm(x: Tensor, number: int) -> Tensor:
        if training:
            mean, var = x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
        else:
            mean, var = state[f"{name}.head.{number}.running_mean"], state[f"{name}.head.{number}.running_var"]
        x = (x - mean) / torch.sqrt(var + 1e-5)
        if f"{name}.head.{number}.weight" in state:
            x = x * state[f"{name}.head.{number}.weight"] + state[f"{name}.head.{number}.bias"]
        return x

    hidden = torch.relu(batch_norm(linear(rows, state, f"{name}.head.0"), 1))
    out = batch_norm(linear(hidden, state, f"{name}.head.3"), 4)
    return out / torch.linalg.vector_norm(out, dim=1, keepdim=True).clamp(min=1e-12)
