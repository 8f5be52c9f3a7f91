"""The three losses again, one scalar at a time, written from the method's description and from nothing else.

Nothing here is vectorised over pairs, words, patches, studies or classes, and nothing is shared with
`medst.objective`. It is slow and short on purpose, so that a reader can hold each line against a formula. Everything
stays a tensor, so gradients can be compared too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    total = a.new_zeros(())
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total


def unit(a: Tensor) -> Tensor:
    length = torch.sqrt(dot(a, a)) if bool((a != 0).any()) else a.new_zeros(())
    return a / torch.clamp(length, min=1e-12)


def softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    top = max(float(score.detach()) for score in scores)
    powers = [torch.exp(score - top) for score in scores]
    return [power / total(powers) for power in powers]


def total(values: Sequence[Tensor]) -> Tensor:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def mix(weights: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
    return total([weight * vector for weight, vector in zip(weights, vectors, strict=True)])


def cross_entropy(scores: Sequence[Tensor], target: int) -> Tensor:
    top = max(float(score.detach()) for score in scores)
    return top + torch.log(total([torch.exp(score - top) for score in scores])) - scores[target]


# ---------------------------------------------------------------------------------------------------- global


def global_loss(images: Tensor, reports: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE in both directions, the two means summed."""
    number = len(images)
    image_to_report = [
        cross_entropy([dot(images[i], reports[j]) / temperature for j in range(number)], i) for i in range(number)
    ]
    report_to_image = [
        cross_entropy([dot(reports[i], images[j]) / temperature for j in range(number)], i) for i in range(number)
    ]
    return total(image_to_report) / number + total(report_to_image) / number


# ----------------------------------------------------------------------------------------------------- local


def attention_weights(tokens: Sequence[Tensor], query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list:
    """Weights of a single-head attention whose query is the mean token and whose keys are the tokens."""
    mean = total(tokens) / len(tokens)
    asked = torch.stack([dot(row, mean) for row in query[0]]) + query[1]
    scores = []
    for token in tokens:
        offered = torch.stack([dot(row, token) for row in key[0]]) + key[1]
        scores.append(dot(asked, offered) / math.sqrt(len(asked)))
    return softmax(scores)


def attend(token: Tensor, others: Sequence[Tensor], temperature: float, seen: Sequence[bool]) -> Tensor:
    visible = [other for other, is_seen in zip(others, seen, strict=True) if is_seen]
    return mix(softmax([dot(token, other) / temperature for other in visible]), visible)


def one_side(
    tokens: Sequence[Tensor],
    attended: Sequence[Tensor],
    weights: Sequence[Tensor],
    temperature: float,
) -> Tensor:
    number = len(tokens)
    rows = [
        weights[i] * cross_entropy([dot(tokens[i], attended[j]) / temperature for j in range(number)], i)
        for i in range(number)
    ]
    columns = [
        weights[i] * cross_entropy([dot(tokens[j], attended[i]) / temperature for j in range(number)], i)
        for i in range(number)
    ]
    return (total(rows) + total(columns)) / 2


def local_loss(
    words: Tensor,
    word_mask: Tensor,
    patches: Tensor,
    patch_mask: Tensor,
    heads: dict[str, Tensor],
    phantom_tokens: bool,
    temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """(words' side, patches' side), both divided by the number of pairs.

    Without phantom tokens a pair is cut down to the tokens that exist before anything is computed, which is what
    "taking part in no loss" means.

    Args:
        words: (pair, word, D) of unit length.
        word_mask: True where there is a word.
        patches: (pair, patch, D) of unit length.
        patch_mask: True where there is a patch.
        heads: word_query_weight, word_query_bias, word_key_weight, ..., patch_key_bias.
        phantom_tokens: padding words and the patches of absent laterals take part as the released code has it.
        temperature: of the attention and of the scores.
    """
    word_side = []
    patch_side = []
    for b in range(len(words)):
        w = [words[b, i] for i in range(words.shape[1]) if phantom_tokens or bool(word_mask[b, i])]
        p = [patches[b, i] for i in range(patches.shape[1]) if phantom_tokens or bool(patch_mask[b, i])]
        written = [bool(word_mask[b, i]) for i in range(words.shape[1]) if phantom_tokens or bool(word_mask[b, i])]

        found = [unit(attend(word, p, temperature, [True] * len(p))) for word in w]
        gates = [unit(word * answer) for word, answer in zip(w, found, strict=True)]
        raw = attention_weights(
            gates,
            (heads["word_query_weight"], heads["word_query_bias"]),
            (heads["word_key_weight"], heads["word_key_bias"]),
        )
        word_side.append(one_side(w, found, [weight / total(raw) for weight in raw], temperature))

        told = [attend(patch, w, temperature, written) for patch in p]
        gates = [unit(patch * answer) for patch, answer in zip(p, told, strict=True)]
        raw = attention_weights(
            gates,
            (heads["patch_query_weight"], heads["patch_query_bias"]),
            (heads["patch_key_weight"], heads["patch_key_bias"]),
        )
        patch_side.append(one_side(p, told, raw, temperature))
    return total(word_side) / len(words), total(patch_side) / len(words)


# -------------------------------------------------------------------------------------------------- temporal


def similarity(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    return -dot(a - b, a - b) / temperature


def cycle_loss(
    sequences: Sequence[tuple[Tensor, Tensor]], temperature: float = 0.1, delta: float = 2.0, variance: float = 0.001
) -> tuple[Tensor, Tensor]:
    """(forward mapping classification, reverse mapping regression as released), over sequences of any length.

    Args:
        sequences: (u, v) of each sequence, both (study, D).
        temperature: of the similarities.
        delta: where the released Huber branch would begin.
        variance: weight of the log variance.
    """
    classification = []
    regression = []
    for u, v in sequences:
        length = len(u)
        times = [k / (length + 1e-7) for k in range(length)]
        for i in range(length):
            forward = [similarity(u[i], v[j], temperature) for j in range(length)]
            classification.append(cross_entropy(forward, i))
            neighbour = mix(softmax(forward), list(v))
            beta = softmax([similarity(neighbour, u[k], temperature) for k in range(length)])
            mu = total([beta[k] * times[k] for k in range(length)])
            var = total([beta[k] * (times[k] - mu) ** 2 for k in range(length)])
            log_var = torch.log(var + 1e-7)
            error = times[i] - mu
            if abs(float(error.detach())) < delta:
                regression.append(torch.exp(-log_var) * error**2 + variance * log_var)
            else:
                regression.append(delta * (torch.abs(error) - delta / 2))
    if not classification:
        return torch.zeros(()), torch.zeros(())
    return total(classification) / len(classification), total(regression) / len(regression)


def temporal_loss(sequences: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return total(cycle_loss(sequences)) + total(cycle_loss([(v, u) for u, v in sequences]))
