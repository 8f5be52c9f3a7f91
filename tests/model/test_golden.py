"""Recipe `paper` against numbers recorded from the released code, at full size, in float32, in evaluation mode.

The recorded weights go through the same door as a real checkpoint's. Prints the largest deviation of each entry (`-rP`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.model import released
from tests.model.small import frontal_embedding
from torch import Tensor

from medst.model.medst import MedST
from medst.objective import Objective
from medst.objective.temporal import cycle
from medst.recipes import RECIPES
from medst.weights.released import NEVER_USED, from_released_names

PAPER = RECIPES["paper"]
GOLDEN = np.load(released.DATA / "released.npz")
NEAR = 1e-4
SEQUENCES = torch.arange(8).view(2, 4)
NOT_OURS = {
    "eval.text_sim.pair_similarity": "the sentences it was recorded on are not known",
}


@pytest.fixture(scope="module")
def model_and_objective() -> tuple[MedST, Objective]:
    bits = np.unpackbits(GOLDEN["input.continues"])[:28996].astype(bool)
    with torch.device("meta"):
        model = MedST(PAPER.model, torch.from_numpy(bits), released.SEP)
        objective = Objective(PAPER.objective, PAPER.model.embedding)
    state = {e.name: e.draw() for e in released.entries() if not NEVER_USED.fullmatch(e.name)}
    taken = from_released_names(state, model, objective, Path("released.ckpt"))
    model.load_state_dict(taken.model, assign=True)
    objective.load_state_dict(taken.objective, assign=True)
    places = model.text.bert.embeddings
    places.register_buffer("token_type_ids", torch.zeros(1, 512, dtype=torch.int64), persistent=False)
    return model.eval(), objective.eval()


@pytest.fixture(scope="module")
@torch.no_grad()
def computed(model_and_objective: tuple[MedST, Objective]) -> dict[str, Tensor]:
    model, objective = model_and_objective
    frontal, every_lateral = released.pictures(777), released.pictures(888)
    lateral_of = torch.tensor(released.HAS_LATERAL)
    pieces = torch.from_numpy(GOLDEN["input.caption_ids"])
    attention = torch.from_numpy(GOLDEN["input.attention_mask"])
    prompts = torch.from_numpy(GOLDEN["input.prompt_ids"])

    e = model(frontal, every_lateral[lateral_of], lateral_of, pieces, attention)
    local = objective.local(e.words, e.word_mask, e.patches, e.patch_mask)
    losses = objective(e, SEQUENCES, torch.ones_like(SEQUENCES, dtype=torch.bool))
    scores = e.image @ e.report.T / PAPER.objective.global_temperature
    target = torch.arange(len(scores))
    found = {
        "img_feat_q": e.image_features,
        "patch_feat_q": e.patch_features,
        "img_emb_q": e.image,
        "patch_emb_q": e.patches,
        "report_feat_q": e.report_features,
        "word_feat_q": e.word_features,
        "report_emb_q": e.report,
        "word_emb_q": e.words,
        "word_attn_q": model.text.word_attention(pieces, attention, shifted=True),
        "scores": scores,
        "mask": ~e.word_mask,
        "a_i": F.normalize(e.words * local["attended_patches"], dim=-1),
        "b_i": F.normalize(e.patches * local["attended_words"], dim=-1),
        "word_atten_output": local["attended_patches"],
        "patch_atten_output": local["attended_words"],
        "word_atten_weights": local["word_weights"],
        "patch_atten_weights": local["patch_weights"],
        "loss0": F.cross_entropy(scores, target),
        "loss1": F.cross_entropy(scores.T, target),
        "loss_ita": losses["global"],
        "loss_word": losses["local_words"],
        "loss_patch": losses["local_patches"],
        "loss_local": losses["local_words"] + losses["local_patches"],
    }
    for side, tokens, attended in (
        ("word", e.words, local["attended_patches"]),
        ("patch", e.patches, local["attended_words"]),
    ):
        similarity = tokens @ attended.mT / PAPER.objective.local_temperature
        diagonal, weights = similarity.diagonal(dim1=1, dim2=2), local[f"{side}_weights"]
        found[f"{side}_sim"] = similarity
        found[f"loss_{side}_1"] = ((similarity.logsumexp(2) - diagonal) * weights).sum() / len(weights)
        found[f"loss_{side}_2"] = ((similarity.logsumexp(1) - diagonal) * weights).sum() / len(weights)
    found |= accuracies(scores)
    found |= temporal(e.image, e.report, losses)
    found |= single_views(model, frontal, every_lateral, e.image_features)
    prompt_features = model.text(prompts, (prompts != 0).long())[0]
    for name, rows in (("pos", slice(4)), ("neg", slice(4, 8))):
        raw = model.text_global.head(prompt_features[rows])
        found[f"zeroshot.prompt_emb_{name}"] = raw
        found[f"zeroshot.score_{name}"] = found["frontal_only.img_emb"] @ F.normalize(raw.mean(0), dim=0)
    return {f"eval.{name}": value for name, value in found.items()}


def accuracies(scores: Tensor) -> dict[str, Tensor]:
    """Percent of rows whose own partner is among the first k."""
    found = {}
    for k in (1, 5):
        for name, rows in (("i2t", scores), ("t2i", scores.T)):
            hits = (rows.topk(k).indices == torch.arange(len(rows))[:, None]).any(1)
            found[f"{name}_acc{k}"] = 100 * hits.float().mean()
        found[f"acc{k}"] = (found[f"i2t_acc{k}"] + found[f"t2i_acc{k}"]) / 2
    return found


def temporal(image: Tensor, report: Tensor, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    mask = torch.ones_like(SEQUENCES, dtype=torch.bool)
    for number, name, ours, u, v in (
        (1, "align_img2txt", "image_to_report", image, report),
        (2, "align_txt2img", "report_to_image", report, image),
    ):
        logits, _ = cycle(u[SEQUENCES], v[SEQUENCES], mask)
        neighbour = logits.softmax(-1) @ v[SEQUENCES]
        distance = (neighbour[:, :, None] - u[SEQUENCES][:, None]).square().sum(-1)
        classification, regression = losses[f"{ours}_classification"], losses[f"{ours}_regression"]
        found |= {
            f"{name}.forward_logits": logits,
            f"{name}.cycle_logits": -distance / PAPER.objective.temporal_temperature,
            f"{name}.classification": classification,
            f"{name}.regression": regression,
            f"{name}.total": classification + regression,
            f"loss_series{number}": classification + regression,
        }
    return found | {"loss_temporal": found["loss_series1"] + found["loss_series2"]}


def single_views(model: MedST, frontal: Tensor, lateral: Tensor, paired: Tensor) -> dict[str, Tensor]:
    blank = lateral.clone()
    blank[[i for i in range(released.PAIRS) if i not in released.HAS_LATERAL]] = 0
    front, side = model.vision.encode_view(frontal), model.vision.encode_view(blank, lateral=True)
    alone = [i for i in range(released.PAIRS) if i not in released.HAS_LATERAL]
    return {
        "frontal_only.img_feat": front[:, 0],
        "frontal_only.patch_feat": front[:, 1:],
        "frontal_only.img_emb": frontal_embedding(model, frontal),
        "lateral_only.img_feat": side[:, 0],
        "lateral_only.patch_feat": side[:, 1:],
        "check.masked_equals_frontal_only": (front[alone, 0] - paired[alone]).abs().max(),
    }


def deviation(name: str, value: Tensor) -> float:
    """Largest difference over the largest recorded value; in plain numbers where what was recorded is a difference."""
    ours: Any = value.detach().numpy()
    if name in GOLDEN:
        theirs = GOLDEN[name]
        assert ours.size == theirs.size
        ours = ours.reshape(theirs.shape)
    else:
        theirs, ours = GOLDEN[f"{name}::val"], ours.reshape(-1)[GOLDEN[f"{name}::idx"]]
    if theirs.dtype == bool:
        return float((ours != theirs).any())
    scale = 1.0 if ".check." in name else max(float(np.abs(theirs).max()), 1e-12)
    return float(np.abs(ours - theirs).max()) / scale


def recorded() -> Iterator[str]:
    for name in sorted({key.split("::")[0] for key in GOLDEN.files if key.startswith("eval.")}):
        if name not in NOT_OURS:
            yield name


def test_every_recorded_entry(computed: dict[str, Tensor]) -> None:
    assert set(computed) == set(recorded())
    deviations = {name: deviation(name, computed[name]) for name in recorded()}
    for name, value in deviations.items():
        print(f"{name:45s} {value:.1e}")
    assert {name: value for name, value in deviations.items() if not value < NEAR} == {}


def test_one_weight_off_is_noticed(computed: dict[str, Tensor]) -> None:
    assert deviation("eval.img_emb_q", computed["eval.img_emb_q"] * (1 + 3 * NEAR)) > NEAR
    assert deviation("eval.mask", ~computed["eval.mask"]) > NEAR
