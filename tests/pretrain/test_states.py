"""Random states of every kind of device; what else a state holds is tested by the runs that resume from it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from medst.pretrain.states import draw_apart, random_state, set_random_state


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
        draw_apart(42, rank)
        drawn.append(torch.rand(2).tolist())
    torch.manual_seed(42)
    assert drawn[0] == torch.rand(2).tolist()
    assert len({str(each) for each in drawn}) == 3
