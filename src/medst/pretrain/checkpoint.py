"""What a run needs to resume, on disk: the same files whichever engine wrote them, and no pickle.

weights.safetensors      the model and the objective, whole even where devices hold shards
optimiser.safetensors    both moments and the count of each parameter, as `name/moment`
average.safetensors      the averaged weights, where a run has them
random-R.safetensors     the random states of process R
run.json                 where the run stands
metrics.csv              the rows logged so far
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from medst.errors import MedstError
from medst.files import disk_errors
from medst.pretrain.schedule import Average
from medst.weights.safe_unpickle import read_safetensors, write_safetensors


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece on the CPU; every process must ask for it where it is sharded."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu().contiguous()


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor where and as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Random states of torch: of the CPU, and of the device where it is another."""
    found = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found[device.type] = torch.get_device_module(device).get_rng_state(*_which(device))
    return found


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on with random numbers where `random_state` was asked."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """There is one device of type MPS, so its functions take none."""
    return () if device.type == "mps" else (device,)


def draw_apart(seed: int, rank: int) -> None:
    """Give each process but the first its own random numbers: weights were drawn alike on all, dropout must not be."""
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]))


def save_state(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average | None,
    *,
    rank: int,
    device: torch.device,
) -> None:
    """Write all but run.json. Every process calls this; the first one writes what they share."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = {
        f"{name}/{moment}": whole(value)
        for name, parameter in module.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }
    weights = {name: whole(value) for name, value in module.state_dict().items()}
    averages = {name: whole(value) for name, value in average.values.items()} if average else {}
    with disk_errors(folder):
        if rank == 0:
            write_safetensors(folder / "weights.safetensors", weights)
            write_safetensors(folder / "optimiser.safetensors", moments)
            if average:
                write_safetensors(folder / "average.safetensors", averages)
        write_safetensors(folder / f"random-{rank}.safetensors", random_state(device))


def load_state(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average | None,
    *,
    rank: int,
    device: torch.device,
) -> None:
    """Take up what `save_state` wrote, with this engine or another.

    A process that there was none of when the state was written keeps the random state that it has.

    Raises:
        MedstError: the state was written by a medst whose states were other files.
    """
    if not (folder / "weights.safetensors").is_file():
        raise MedstError(
            f"{folder} was written by an earlier medst, in files that this one does not read; begin again."
        )
    own, read = module.state_dict(), read_safetensors(folder / "weights.safetensors")
    try:
        module.load_state_dict({name: placed(value, own[name]) for name, value in read.items()})
    except (RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise MedstError(
            f"{folder} does not fit this run's model ({said}); put back the tokenizer and settings that the run had."
        ) from None
    moments = read_safetensors(folder / "optimiser.safetensors")
    for name, parameter in module.named_parameters():
        found = {m: moments[f"{name}/{m}"] for m in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{m}" in moments}
        if found:
            optimiser.state[parameter] = {
                m: placed(value, parameter) if value.ndim else value.to(device) for m, value in found.items()
            }
    if average is not None:
        averaged = read_safetensors(folder / "average.safetensors")
        for name, value in average.values.items():
            # States from before statistics were averaged lack them; there the model's own are the average.
            value.copy_(placed(averaged[name], value) if name in averaged else average.live[name])
    states = folder / f"random-{rank}.safetensors"
    if states.is_file():
        set_random_state(read_safetensors(states), device)
