"""The three losses together."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from tests.objective import oracle
from torch import Tensor

from medst.distributed import Devices
from medst.objective import Embedded, Loss, Objective, Sequences
from medst.objective.global_ import global_loss
from medst.recipes import RECIPES
from medst.recipes.objective import LOSSES, LossEntry, ObjectiveSettings, Term

DIM = 6
PARTS = {
    "global",
    "local_words",
    "local_patches",
    "image_to_report_classification",
    "image_to_report_regression",
    "report_to_image_classification",
    "report_to_image_regression",
}


@dataclass
class Made:
    image: Tensor
    patches: Tensor
    patch_mask: Tensor
    report: Tensor
    words: Tensor
    word_mask: Tensor


def make(pairs: int, seed: int = 0) -> Made:
    rng = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, DIM, generator=rng, dtype=torch.float64), dim=-1).requires_grad_()

    words = torch.arange(4) < torch.randint(1, 5, (pairs, 1), generator=rng)
    side = torch.rand(pairs, 1, generator=rng) < 0.5
    seen = torch.cat([torch.ones(pairs, 3, dtype=torch.bool), side.expand(-1, 3)], 1)
    return Made(rows(pairs), rows(pairs, 6), seen, rows(pairs), rows(pairs, 4), words)


STEPS = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 0]])
MASK = torch.tensor([[True] * 4, [True, True, False, False]])


def make_objective(settings: ObjectiveSettings) -> Objective:
    torch.manual_seed(1)
    return Objective(settings, DIM).double()


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_all_losses_equal_the_loops(recipe: str) -> None:
    made = make(7)
    module = make_objective(replace(RECIPES[recipe].objective, regression="released"))
    losses = module(made, STEPS, MASK)
    heads = {
        f"{side}_{part}_{kind}": getattr(getattr(getattr(module.local, f"{side}_weights"), part), kind)
        for side in ("word", "patch")
        for part in ("query", "key")
        for kind in ("weight", "bias")
    }
    sequences = [(made.image[:4], made.report[:4]), (made.image[4:6], made.report[4:6])]
    words, patches = oracle.local_loss(
        made.words, made.word_mask, made.patches, made.patch_mask, heads, phantom_tokens=recipe == "paper"
    )
    expected = {
        "global": oracle.global_loss(made.image, made.report),
        "local_words": words,
        "local_patches": patches,
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    whole = oracle.total(list(expected.values())) + oracle.temporal_loss(sequences)
    torch.testing.assert_close(losses["loss"], whole)
    leaves = [made.image, made.report, made.words, made.patches, *module.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(losses["loss"], leaves),
        torch.autograd.grad(whole, leaves, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    settings = ObjectiveSettings(global_weight=2.0, local_weight=0.5, temporal_weight=3.0)
    losses = make_objective(settings)(make(6), STEPS, MASK, shares={"temporal": 0.25})
    assert set(losses) == {"loss"} | PARTS
    expected = 2 * losses["global"] + 0.5 * (losses["local_words"] + losses["local_patches"])
    expected = expected + 0.75 * torch.stack([losses[n] for n in PARTS if n.endswith(("ication", "gression"))]).sum()
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize(
    ("weight", "left_out"),
    [("global_weight", ("global",)), ("local_weight", ("local_",)), ("temporal_weight", ("image_to", "report_to"))],
)
def test_a_part_without_weight_is_left_out(weight: str, left_out: tuple[str, ...]) -> None:
    losses = make_objective(replace(ObjectiveSettings(), **{weight: 0.0}))(make(6), STEPS, MASK)
    assert set(losses) == {"loss"} | {name for name in PARTS if not name.startswith(left_out)}


def test_either_mapping_of_the_temporal_loss_can_be_weighted_or_left_out() -> None:
    whole = make_objective(ObjectiveSettings())(make(6), STEPS, MASK)
    rest = whole["global"] + whole["local_words"] + whole["local_patches"]
    for weight, left_out, kept in (
        ("forward_weight", "classification", "regression"),
        ("reverse_weight", "regression", "classification"),
    ):
        half = make_objective(replace(ObjectiveSettings(), **{weight: 0.0}))(make(6), STEPS, MASK)
        assert not any(name.endswith(left_out) for name in half)
        expected = rest + whole[f"image_to_report_{kept}"] + whole[f"report_to_image_{kept}"]
        torch.testing.assert_close(half["loss"], expected)
    twice = make_objective(replace(ObjectiveSettings(), forward_weight=2.0, reverse_weight=0.5))(make(6), STEPS, MASK)
    forward = whole["image_to_report_classification"] + whole["report_to_image_classification"]
    reverse = whole["image_to_report_regression"] + whole["report_to_image_regression"]
    torch.testing.assert_close(twice["loss"], rest + 2 * forward + 0.5 * reverse)


def test_a_batch_without_a_sequence_has_no_temporal_loss() -> None:
    made = make(6)
    losses = make_objective(ObjectiveSettings())(made, STEPS[:0], MASK[:0])
    temporal = [losses[name] for name in PARTS if name.startswith(("image_to", "report_to"))]
    assert [value.item() for value in temporal] == [0.0] * 4
    with_local = losses["global"] + losses["local_words"] + losses["local_patches"]
    torch.testing.assert_close(losses["loss"], with_local)
    gradient = torch.autograd.grad(sum(temporal), made.image)[0]  # type: ignore[arg-type]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_one_pair_has_a_finite_loss_and_gradient(recipe: str) -> None:
    made = make(1)
    module = make_objective(RECIPES[recipe].objective)
    loss = module(made, STEPS[:0], MASK[:0])["loss"]
    leaves = [made.image, made.report, made.words, made.patches, *module.parameters()]
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, leaves))


def test_the_order_of_pairs_and_sequences_does_not_matter() -> None:
    made = make(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    place = order.argsort()
    moved = Made(**{name: value[order] for name, value in vars(made).items()})
    module = make_objective(ObjectiveSettings())
    one, two = module(made, STEPS, MASK), module(moved, place[STEPS].flip(0), MASK.flip(0))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


@dataclass(frozen=True)
class Second(Devices):
    """The second of two devices, in a single process; all rows of the first are zero."""

    def sum(self, value: Tensor) -> Tensor:
        return value * 3  # the first device has twice as many pairs and studies

    def counts(self, rows: Tensor) -> list[int]:
        return [2 * len(rows), len(rows)]

    def gather(self, rows: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(rows), torch.zeros_like(rows), rows])


def test_each_loss_is_weighted_by_the_share_of_the_devices_rows() -> None:
    made, module = make(6), make_objective(ObjectiveSettings())
    alone = module(made, STEPS, MASK)
    module.devices = Second(1, 2)
    shared = module(made, STEPS, MASK)
    others = torch.zeros(12, DIM, dtype=torch.float64)
    every = torch.cat([others, made.image]), torch.cat([others, made.report])
    alone["global"] = global_loss(made.image, made.report, ObjectiveSettings().global_temperature, every, 12)
    assert set(shared) == set(alone)
    for name in PARTS:
        torch.testing.assert_close(shared[name], alone[name] * 2 / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(shared["loss"], sum(shared[name] for name in PARTS), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        module.eval()(made, STEPS, MASK)["global"], make_objective(ObjectiveSettings())(made, STEPS, MASK)["global"]
    )


class Length(Loss):
    """Mean squared length of the images' embeddings, which is 1."""

    def __init__(self, settings: ObjectiveSettings, dim: int) -> None:
        super().__init__()

    def terms(self, embedded: Embedded, sequences: Sequences, devices: Devices | None) -> dict[str, Tensor]:
        return {"length": embedded.image.square().sum(1).mean()}


@dataclass(frozen=True)
class MoreSettings(ObjectiveSettings):
    length_weight: float = 0.5


def test_a_new_loss_takes_its_class_and_a_registry_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_objective(ObjectiveSettings())(make(6), STEPS, MASK)
    entry = LossEntry("length", f"{__name__}:Length", "global", {"length": Term("Squared length")})
    monkeypatch.setattr("medst.objective.LOSSES", (*LOSSES, entry))
    losses = make_objective(MoreSettings())(make(6), STEPS, MASK)
    assert losses["length"].item() == pytest.approx(1)
    torch.testing.assert_close(losses["loss"], before["loss"] + 0.5 * losses["length"])
    assert set(losses) == {"loss", "length"} | PARTS
    assert "length" not in make_objective(MoreSettings(length_weight=0.0))(make(6), STEPS, MASK)
