"""A checkpoint restores what was saved; a run's folder refuses to mix two runs, and never shows half a checkpoint."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from medst.errors import MedstError
from medst.pretrain.checkpoint import RunFolder, TrainedTensors, TrainState, sharded_like, unsharded
from medst.pretrain.schedule import Average
from medst.recipes import RECIPES

CPU = torch.device("cpu")
TINY = RECIPES["tiny"]
COHORT = {"dataset": "mimic-cxr", "fingerprint": "abc"}


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
def test_a_resumed_run_takes_the_same_next_step(tmp_path: Path, rank: int) -> None:
    first = made(1, 3)
    for each in {0, rank}:
        TrainedTensors(*first, each, CPU).save(tmp_path / "a" / "state")
    before = everything(*first)
    learn(*first, 4)
    other = made(2, 1)
    assert everything(*other).keys() == before.keys()
    TrainedTensors(*other, rank, CPU).load(tmp_path / "a" / "state")
    for name, value in everything(*other).items():
        assert torch.equal(value, before[name]), name
    learn(*other, 4)
    for name, value in everything(*other).items():
        assert torch.equal(value, everything(*first)[name]), name


def test_only_the_first_process_writes_shared_files(tmp_path: Path) -> None:
    module, optimiser, average = made(1, 1)
    TrainedTensors(module, optimiser, average, 1, CPU).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["random-1.safetensors"]
    TrainedTensors(module, optimiser, None, 0, CPU).save(tmp_path)
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
    TrainedTensors(module, optimiser, None, 0, CPU).save(tmp_path)
    other = made(2, 0)
    TrainedTensors(other[0], other[1], None, 0, CPU).load(tmp_path)
    assert not other[1].state
    assert torch.equal(other[0][0].weight, module[0].weight)  # type: ignore[index]


def test_a_new_process_keeps_its_random_state(tmp_path: Path) -> None:
    module, optimiser, average = made(1, 1)
    TrainedTensors(module, optimiser, average, 0, CPU).save(tmp_path)
    torch.manual_seed(99)
    own = torch.get_rng_state()
    TrainedTensors(module, optimiser, average, 1, CPU).load(tmp_path)
    assert torch.equal(torch.get_rng_state(), own)


def test_an_unsharded_tensor_needs_no_gradient_and_is_contiguous() -> None:
    learnt = torch.arange(6.0).view(2, 3).T.requires_grad_()
    found = unsharded(learnt)
    assert not found.requires_grad
    assert found.is_contiguous()
    assert torch.equal(found, learnt.detach())
    assert sharded_like(found, learnt).device == learnt.device


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="written by an earlier medst"):
        TrainedTensors(*made(1, 1), 0, CPU).load(tmp_path)


def test_a_sharded_tensor_is_unsharded_and_sharded_again() -> None:
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


# ------------------------------------------------------------------------------------------------- the run's folder


def test_a_new_folder_holds_no_run_and_a_second_start_finds_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.start(TINY, COHORT) is False
    assert folder.start(TINY, COHORT) is True


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    other = replace(TINY, optimiser=replace(TINY.optimiser, lr=0.5))
    with pytest.raises(MedstError, match=r"other settings \(optimiser\.lr\)"):
        folder.start(other, COHORT)


def test_settings_that_change_no_result_may_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    again = replace(
        TINY, run=replace(TINY.run, loader_workers=3), optimiser=replace(TINY.optimiser, stop_after=5), name="mine"
    )
    assert folder.start(again, COHORT) is True


def test_the_seed_may_not_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    with pytest.raises(MedstError, match=r"run\.seed"):
        folder.start(replace(TINY, run=replace(TINY.run, seed=7)), COHORT)


def test_another_cohort_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    with pytest.raises(MedstError, match="another cohort"):
        folder.start(TINY, COHORT | {"fingerprint": "def"})


def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MedstError, match="not empty"):
        RunFolder(tmp_path).start(TINY, COHORT)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_complete_checkpoints_are_listed_newest_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (5, 100, 20):
        folder.checkpoint(step).mkdir(parents=True)
    (tmp_path / "state" / "step-000000200.part").mkdir()
    assert [p.name for p in folder.checkpoints()] == ["step-000000100", "step-000000020", "step-000000005"]
    folder.drop_old_checkpoints(2)
    assert [p.name for p in folder.checkpoints()] == ["step-000000100", "step-000000020"]


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(TINY, COHORT)
    (tmp_path / "state").touch()
    with pytest.raises(MedstError, match="state is not a folder; put"):
        folder.start(TINY, COHORT)
    folder.metrics.file.mkdir()
    with pytest.raises(MedstError, match=r"is a folder, not a regular file\. Move it away"):
        folder.metrics.cut(0, 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe": 3}', b'{"medst_version": "0", "recipe": {}}'])
def test_damaged_settings_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(MedstError, match=r"settings\.json is damaged .*give another run folder"):
        RunFolder(tmp_path).start(TINY, COHORT)


@pytest.mark.parametrize("name", ["settings.json.part", "settings.json.12.part", ".run.lock"])
def test_leftovers_of_a_first_write_do_not_block(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert RunFolder(tmp_path).start(TINY, COHORT) is False


def test_a_flipped_bit_in_a_train_state_is_detected(tmp_path: Path) -> None:
    state = TrainState(step=10, best_loss=1.25, validated=2, recent=[1.5, 2.0])
    state.write(tmp_path)
    assert TrainState.read(tmp_path) == state
    whole = (tmp_path / "run.json").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "run.json").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(MedstError):  # a flip in the name of the digest makes it a state of an earlier version
            assert TrainState.read(tmp_path) == state
