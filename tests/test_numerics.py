"""`medst.NUMERICS` is tied to numbers: of an embedding, of the losses and of the benchmarks' classifiers.

Weights, pictures and features are formulas here, so that no random generator has a say.
"""

import numpy as np
import torch

from medst import NUMERICS, weights
from medst.batch import Batch, tokenize
from medst.cohort.store import Cohort
from medst.encode import embed_texts, image_features
from medst.evaluate.progression_svm import cross_validate, cross_validate_strictly
from medst.pretrain import Step
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer
from medst.use import Model

TEXTS = ["the left effusion is larger", "no pneumothorax", "the effusion has resolved", "clear lungs"]
RECORDED = {
    2: {
        "image": [
            -0.26061, -0.25622, -0.2714, -0.00959, 0.0379, -0.24667, 0.05848, 0.125, 0.13371, -0.29859,
            -0.02548, 0.2002
        ],
        "patches": [
            0.23415, -0.05498, 0.12904, -0.58932, 0.04737, -0.10507, 0.22135, -0.39833, 0.03072, -0.00992,
            0.30636, -0.35143
        ],
        "text": [
            0.23131, 0.10271, -0.06199, 0.00203, 0.21944, 0.09404, -0.06165, 0.02207, 0.237, 0.07743, -0.0604,
            0.01936, 0.23543, 0.08083, -0.05299, 0.01076
        ],
        "losses": [2.85069, 0.70939, 1.02484, 1.85256, 1.33663, 9.56778, 0.69053, 1.10315],
        "paper": [0.58333, 0.53333, 0.46667],
        "strict": [0.5],
    },
}  # fmt: skip


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Values from -0.5 to 0.5: a hash of their places (splitmix64), the same with every release of NumPy and torch."""
    z = (np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(1 + 1_000_003 * seed)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (((z ^ (z >> np.uint64(31))) >> np.uint64(40)) / 2**24 - 0.5).reshape(shape).astype(np.float32)


def small_model(recipe: Recipe) -> Model:
    tokenizer = learn_tokenizer(TEXTS, 60)
    model, objective = weights.build(recipe, tokenizer)
    with torch.no_grad():
        for number, parameter in enumerate([*model.parameters(), *objective.parameters()]):
            own = torch.from_numpy(0.5 * noise(*parameter.shape, seed=number))
            parameter.copy_(own + 1 if parameter.ndim == 1 and (parameter == 1).all() else own)
    return Model(model.eval(), objective.eval(), tokenizer, recipe, "formula")


def computed(recipe: Recipe, cohort: Cohort) -> dict[str, list[float]]:
    loaded = small_model(recipe)
    images = image_features(loaded, cohort, [0, 1, 2], laterals=[-1, 3, -1])
    pieces, attention = tokenize(loaded.tokenizer, TEXTS, recipe.model.text.pieces)
    pictures = torch.from_numpy(np.asarray(cohort.images[:6]))
    batch = Batch(
        pair=torch.arange(4), frontal=pictures[:4], lateral=pictures[4:], lateral_of=torch.tensor([0, 2]),
        corners=torch.tensor([[16, 16], [0, 3], [5, 0], [32, 32], [1, 2], [16, 16]]), pieces=pieces,
        attention_mask=attention, steps=torch.arange(4).view(2, 2), step_mask=torch.full((2, 2), True),
        days=torch.tensor([[0.0, 3.0], [0.0, 90.0]]),
    )  # fmt: skip
    with torch.no_grad():
        losses = Step(loaded.model, loaded.objective, recipe.data)(batch)
    classes, patients = np.arange(60) % 3, np.arange(60) // 2
    features = 2 * noise(60, 5) + 0.7 * np.eye(3, 5, dtype=np.float32)[classes]
    return {
        "image": images.embedding[:, :4].ravel().tolist(),
        "patches": images.patches[:, :4].ravel().tolist(),
        "text": embed_texts(loaded, TEXTS)[:, :4].ravel().tolist(),
        "losses": [losses[name].item() for name in sorted(losses)],
        "paper": cross_validate(features, classes, 5).accuracy.tolist(),
        "strict": cross_validate_strictly(features, features[::-1], classes, patients, 5, (42,)).accuracy.tolist(),
    }


def test_what_is_computed_is_what_this_numerics_version_computed_before(small_recipe: Recipe) -> None:
    images = np.repeat(np.repeat((127.5 + 255 * noise(6, 32, 32)).astype(np.uint8), 8, 1), 8, 2)
    cohort = Cohort(path=None, meta={"fingerprint": "formula"}, images=images, image_table=None)  # type: ignore[arg-type]
    found = computed(small_recipe, cohort)
    for name, values in RECORDED[NUMERICS].items():
        tolerance = 0.05 if name in ("paper", "strict") else 2e-4  # one row of 60 may fall to the other side of a plane
        np.testing.assert_allclose(
            found[name], values, atol=tolerance, rtol=0, err_msg=f"{name} changed: raise medst.NUMERICS and record anew"
        )
