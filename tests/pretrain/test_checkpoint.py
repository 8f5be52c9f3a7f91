"""A run's state on disk: what comes back is what was there, in a process of the same rank or of another."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from medst.distributed import random_state, seed_process, set_random_state
from medst.errors import MedstError
from medst.pretrain.checkpoint import load_state, save_state, sharded_like, unsharded
from medst.pretrain.schedule import Average

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kind", "takes"), [("cuda", 1), ("xpu", 1), ("mps", 0)])
def test_an_accelerators_random_state_is_kept(kind: str, takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such device is here; torch's functions of that name stand in, with as many arguments as theirs take."""
    device, state = torch.device(kind), [torch.tensor([7])]

    def get(*which: torch.device) -> Tensor:
        assert which == (device,) * takes
        return state[0]

    def put(new: Tensor, *which: torch.device) -> None:
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


def test_every_process_draws_numbers_of_its_own_and_the_first_as_if_alone() -> None:
    drawn = []
    for rank in (0, 1, 2):
        torch.manual_seed(42)
        seed_process(42, rank)
        drawn.append(torch.rand(2).tolist())
    torch.manual_seed(42)
    assert drawn[0] == torch.rand(2).tolist()
    assert len({str(each) for each in drawn}) == 3


def made(seed: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer, Average]:
    """A module with a buffer and a frozen parameter, its optimiser and its average, after some steps."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[2].bias.requires_grad_(False)
    optimiser = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=0.1)
    average = Average(module, 0.5)
    for step in range(1, steps + 1):
        learn(module, optimiser, average, step)
    return module, optimiser, average


def learn(module: nn.Module, optimiser: torch.optim.Optimizer, average: Average, step: int) -> None:
    optimiser.zero_grad()
    module(torch.randn(5, 3)).square().sum().backward()
    optimiser.step()
    average.update(step)


def everything(module: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> dict[str, Tensor]:
    found = dict(module.state_dict())
    found |= {f"average/{name}": value for name, value in average.values.items()}
    for name, parameter in module.named_parameters():
        found |= {f"{name}/{moment}": value for moment, value in optimiser.state[parameter].items()}
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_takes_a_state_up_makes_the_same_next_step(tmp_path: Path, rank: int) -> None:
    first = made(1, 3)
    for each in {0, rank}:
        save_state(tmp_path / "a" / "state", *first, rank=each, device=CPU)
    before = everything(*first)
    learn(*first, 4)
    other = made(2, 1)
    assert everything(*other).keys() == before.keys()
    load_state(tmp_path / "a" / "state", *other, rank=rank, device=CPU)
    for name, value in everything(*other).items():
        assert torch.equal(value, before[name]), name
    learn(*other, 4)
    for name, value in everything(*other).items():
        assert torch.equal(value, everything(*first)[name]), name


def test_only_the_first_process_writes_what_all_share(tmp_path: Path) -> None:
    module, optimiser, average = made(1, 1)
    save_state(tmp_path, module, optimiser, average, rank=1, device=CPU)
    assert [file.name for file in tmp_path.iterdir()] == ["random-1.safetensors"]
    save_state(tmp_path, module, optimiser, None, rank=0, device=CPU)
    assert {file.name for file in tmp_path.iterdir()} == {
        "weights.safetensors",
        "optimiser.safetensors",
        "random-0.safetensors",
        "random-1.safetensors",
    }
    assert set(load_file(tmp_path / "optimiser.safetensors")) == {
        f"{name}/{moment}"
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        for moment in ("step", "exp_avg", "exp_avg_sq")
    }


def test_before_the_first_step_there_are_no_moments(tmp_path: Path) -> None:
    module, optimiser, _ = made(1, 0)
    save_state(tmp_path, module, optimiser, None, rank=0, device=CPU)
    other = made(2, 0)
    load_state(tmp_path, other[0], other[1], None, rank=0, device=CPU)
    assert not other[1].state
    assert torch.equal(other[0][0].weight, module[0].weight)  # type: ignore[index]


def test_a_process_that_is_new_keeps_its_random_state(tmp_path: Path) -> None:
    module, optimiser, average = made(1, 1)
    save_state(tmp_path, module, optimiser, average, rank=0, device=CPU)
    torch.manual_seed(99)
    own = torch.get_rng_state()
    load_state(tmp_path, module, optimiser, average, rank=1, device=CPU)
    assert torch.equal(torch.get_rng_state(), own)


def test_a_whole_tensor_needs_no_gradient_and_lies_in_one_piece() -> None:
    learnt = torch.arange(6.0).view(2, 3).T.requires_grad_()
    found = unsharded(learnt)
    assert not found.requires_grad
    assert found.is_contiguous()
    assert torch.equal(found, learnt.detach())
    assert sharded_like(found, learnt).device == learnt.device


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="written by an earlier medst"):
        load_state(tmp_path, *made(1, 1), rank=0, device=CPU)


def test_a_sharded_tensor_is_put_in_one_piece_and_back() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        rows = torch.arange(6.0).view(3, 2)
        sharded = distribute_tensor(rows, init_device_mesh("cpu", (1,)), [Shard(0)])
        found = unsharded(sharded)
        assert type(found) is Tensor
        assert torch.equal(found, rows)
        again = sharded_like(found + 1, sharded)
        assert isinstance(again, DTensor)
        assert again.placements == sharded.placements
        assert torch.equal(again.full_tensor(), rows + 1)
    finally:
        dist.destroy_process_group()
