"""Two processes (gloo, on the CPU) compared with one that has both batches; random states of devices and processes."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from medst import weights
from medst.batch import Batch, Batches
from medst.cohort.store import open_cohort
from medst.distributed import Devices, random_state, seed_process, set_random_state
from medst.pretrain import Step
from medst.recipes.settings import Recipe
from medst.tokenizer import learn_tokenizer

WORLD, STEPS = 2, 3
TOLERANCE = 1e-6


class ExactBatch(Batch):
    """A batch with float64 pictures, for models whose weights are float64."""

    def pictures(self, crop: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        frontal, lateral = super().pictures(crop, size)
        return frontal.double(), lateral.double()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _enter(rank: int, port: int, work: Callable[..., Any], out: str, *args: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    try:
        torch.save(work(rank, *args), f"{out}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_two_processes(work: Callable[..., Any], tmp_path: Path, *args: Any) -> list[Any]:
    """Results of `work(rank, *args)` in two processes."""
    mp.spawn(_enter, args=(free_port(), work, str(tmp_path), *args), nprocs=WORLD)
    return [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]


def _gathered(rank: int) -> dict[str, torch.Tensor]:
    rows = torch.arange(6.0).view(3, 2)[: 3 - rank].clone().requires_grad_()
    devices = Devices(rank, WORLD)
    weight = torch.arange(1.0, 6.0)[:, None] * (rank + 1)
    gathered = devices.gather(rows)
    (gathered * weight).sum().backward()
    total = devices.sum(torch.tensor([1.0 + rank, 2.0]))
    share = devices.share(torch.tensor(3 - rank))
    return {"gathered": gathered.detach(), "gradient": rows.grad, "total": total, "share": share}  # type: ignore[dict-item]


def test_rows_of_all_devices_are_gathered_with_their_gradients(tmp_path: Path) -> None:
    first, second = in_two_processes(_gathered, tmp_path)
    expected = torch.cat([torch.arange(6.0).view(3, 2), torch.arange(4.0).view(2, 2)])
    for found in (first, second):
        assert torch.equal(found["gathered"], expected)
        assert found["total"].tolist() == [3.0, 4.0]
    # Row i is weighted i + 1 by the first device and twice that by the second.
    assert first["gradient"][:, 0].tolist() == [3.0, 6.0, 9.0]
    assert second["gradient"][:, 0].tolist() == [12.0, 15.0]
    assert [found["share"].item() for found in (first, second)] == pytest.approx([2 * 3 / 5, 2 * 2 / 5])


def split(batch: Batch) -> list[Batch]:
    """Split a batch in two, between sequences."""
    ends = [int(row[mask][-1]) + 1 for row, mask in zip(batch.steps, batch.step_mask, strict=True)]
    cut = ends[len(ends) // 2 - 1]
    pairs, pieces = len(batch.pair), batch.pieces
    halves = []
    for start, stop in ((0, cut), (cut, pairs)):
        lateral = (batch.lateral_of >= start) & (batch.lateral_of < stop)
        rows = (batch.steps.amin(1) >= start) & (batch.steps[:, 0] >= start) & (batch.steps[:, 0] < stop)
        halves.append(
            ExactBatch(
                pair=batch.pair[start:stop],
                frontal=batch.frontal[start:stop],
                lateral=batch.lateral[lateral],
                lateral_of=batch.lateral_of[lateral] - start,
                corners=torch.cat([batch.corners[start:stop], batch.corners[pairs:][lateral]]),
                pieces=pieces[start:stop],
                attention_mask=batch.attention_mask[start:stop],
                steps=batch.steps[rows] - start,
                step_mask=batch.step_mask[rows],
                days=batch.days[rows],
            )
        )
    return halves


@pytest.fixture(scope="module")
def setting(phantom_cohort: Path, small_recipe: Recipe) -> tuple[Recipe, str, list[list[Batch]]]:
    """A recipe without dropout, its cohort, and for each step a joint batch and its two halves."""
    text = replace(small_recipe.model.text, dropout=0.0)
    data = replace(small_recipe.data, sequences_per_batch=8)
    recipe = replace(small_recipe, model=replace(small_recipe.model, text=text), data=data)
    cohort = open_cohort(phantom_cohort)
    assert cohort.pairs is not None
    tokenizer = learn_tokenizer(cohort.pairs["report"], 300)
    batches = Batches(cohort, "train", tokenizer, data, pieces=48, seed=1, training=True)
    found = []
    for number in range(len(batches)):
        rows = batches.plan()[number * 8 : (number + 1) * 8]
        # Sequences of one study are in no row of `steps`, so the halves would not contain them.
        sequences = [batches.sequences[row] for row in rows if len(batches.sequences[row]) > 1]
        joint = ExactBatch(**vars(batches.collate(sequences, number)))
        joint.steps[~joint.step_mask] = joint.steps[:, :1].expand_as(joint.steps)[~joint.step_mask]
        found.append([joint, *split(joint)])
        if len(found) == STEPS:
            break
    return recipe, str(phantom_cohort), found


def train(recipe: Recipe, cohort: str, batches: list[Batch], devices: Devices | None) -> dict[str, Any]:
    """Losses, first gradient and weights after one step per batch.

    In float64: untrained heads normalise rows that are nearly equal, which amplifies rounding a hundred thousand times.
    """
    pairs = open_cohort(Path(cohort)).pairs
    assert pairs is not None
    torch.manual_seed(0)
    model, objective = weights.build(recipe, learn_tokenizer(pairs["report"], 300))
    step: torch.nn.Module = Step(model, objective, recipe.data).train().double()
    if devices is not None:
        if recipe.objective.across_devices:
            objective.devices = devices
            model.normalise_over(devices)
        step = DistributedDataParallel(step)
    # Not AdamW, whose first steps amplify rounding wherever a gradient is almost zero.
    optimiser = torch.optim.SGD(step.parameters(), lr=1e-3)
    losses: list[dict[str, float]] = []
    gradient: dict[str, torch.Tensor] = {}
    for batch in batches:
        found = step(batch)
        found["loss"].backward()
        if not gradient:
            gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimiser.step()
        optimiser.zero_grad()
        losses.append({name: value.item() for name, value in found.items()})
    return {
        "losses": losses,
        "gradient": gradient,
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
    }


def _train(rank: int, recipe: Recipe, cohort: str, batches: list[list[Batch]]) -> dict[str, Any]:
    return train(recipe, cohort, [step[1 + rank] for step in batches], Devices(rank, WORLD))


def test_two_devices_learn_what_one_with_both_batches_does(
    setting: tuple[Recipe, str, list[list[Batch]]], tmp_path: Path
) -> None:
    recipe, cohort, batches = setting
    alone = train(recipe, cohort, [step[0] for step in batches], None)
    both = in_two_processes(_train, tmp_path, recipe, cohort, batches)
    assert any(len(step[1].pair) != len(step[2].pair) for step in batches)
    for name in alone["weights"]:
        assert torch.equal(both[0]["weights"][name], both[1]["weights"][name]), name
    for name, expected in alone["gradient"].items():
        torch.testing.assert_close(both[0]["gradient"][name], expected, rtol=TOLERANCE, atol=TOLERANCE)
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(both[0]["weights"][name], expected, rtol=TOLERANCE, atol=TOLERANCE)
    for number, losses in enumerate(alone["losses"]):
        for name, value in losses.items():
            mean = sum(found["losses"][number][name] for found in both) / WORLD
            assert mean == pytest.approx(value, rel=TOLERANCE), (number, name)


def test_as_released_each_device_contrasts_on_its_own(
    setting: tuple[Recipe, str, list[list[Batch]]], tmp_path: Path
) -> None:
    recipe, cohort, batches = setting
    recipe = replace(recipe, objective=replace(recipe.objective, across_devices=False))
    both = in_two_processes(_train, tmp_path, recipe, cohort, batches)
    for rank, found in enumerate(both):
        alone = train(recipe, cohort, [batches[0][1 + rank]], None)
        assert found["losses"][0] == pytest.approx(alone["losses"][0], rel=TOLERANCE)
    assert both[0]["losses"][0]["global"] != pytest.approx(both[1]["losses"][0]["global"], rel=1e-3)
    learnt = {name for name, _ in weights.build(recipe, learn_tokenizer(["x y z"], 300))[0].named_parameters()}
    for name in learnt & set(both[0]["weights"]):
        assert torch.equal(both[0]["weights"][name], both[1]["weights"][name]), name


@pytest.mark.parametrize(("kind", "takes"), [("cuda", 1), ("xpu", 1), ("mps", 0)])
def test_an_accelerators_random_state_is_kept(kind: str, takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fakes of torch's functions that take as many arguments, since there is no such device here."""
    device, state = torch.device(kind), [torch.tensor([7])]

    def get(*which: torch.device) -> torch.Tensor:
        assert which == (device,) * takes
        return state[0]

    def put(new: torch.Tensor, *which: torch.device) -> None:
        assert which == (device,) * takes
        state[0] = new

    monkeypatch.setattr(torch, "get_device_module", lambda asked: SimpleNamespace(get_rng_state=get, set_rng_state=put))
    kept = random_state(device)
    assert set(kept) == {"cpu", kind}
    state[0] = torch.tensor([8])
    torch.rand(3)
    set_random_state(kept, device)
    assert state[0].item() == 7
    assert torch.equal(torch.get_rng_state(), kept["cpu"])


def test_every_process_draws_its_own_numbers_and_the_first_as_if_alone() -> None:
    drawn = []
    for rank in (0, 1, 2):
        torch.manual_seed(42)
        seed_process(42, rank)
        drawn.append(torch.rand(2).tolist())
    torch.manual_seed(42)
    assert drawn[0] == torch.rand(2).tolist()
    assert len({str(each) for each in drawn}) == 3
