"""How a finding changed between two studies, from prompts and without training for it.

The presence of a finding in a study is measured as in zero-shot classification (paper, section 4.3): by the difference of
the image's cosines with prompts for and against it. The progression is then read from the difference between two studies,
so that swapping them swaps improving and worsening and leaves stable alone:

    presence(x) = <x, for> - <x, against>
    d           = presence(current) - presence(prior)
    shares      = softmax((-d, MARGIN, d) / TEMPERATURE)             improving, stable, worsening

Prompts that name the change itself ("has worsened") told worsening from improving less well on the phantom demo
(`benchmarks/use.py`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medst.errors import MedstError
from medst.use.outputs import Progression

FOR = ("there is {}", "{} is present", "{}", "findings consistent with {}")
AGAINST = ("there is no {}", "no {}", "no evidence of {}", "{} has resolved")
TEMPERATURE = 0.07
"""That of the global loss, with which the cosines were trained."""
MARGIN = 0.05
"""A change below this counts as none; near the best of a few round numbers on the phantom demo, where it hardly matters."""


def presence_prompts(finding: str) -> list[str]:
    """Prompts for a finding as a radiologist names it, then as many against it; underscores are read as spaces.

    Raises:
        MedstError: the finding is empty or not a string.
    """
    name = " ".join(finding.replace("_", " ").split()) if isinstance(finding, str) else ""
    if not name:
        raise MedstError("name a finding, for instance 'pleural effusion'.")
    return [prompt.format(name) for prompt in (*FOR, *AGAINST)]


def presence_axis(prompts: Float[Tensor, "prompt dim"]) -> Float[Tensor, " dim"]:
    """The direction along which a study shows more of a finding: mean of its `presence_prompts` for it minus against it."""
    return F.normalize(prompts[: len(FOR)].mean(0), dim=0) - F.normalize(prompts[len(FOR) :].mean(0), dim=0)


def progression(
    finding: str, axis: Float[Tensor, " dim"], prior: Float[Tensor, " dim"], current: Float[Tensor, " dim"]
) -> Progression:
    """How a finding changed along its `presence_axis`, from embeddings of unit length."""
    before, after = float(prior @ axis), float(current @ axis)
    change = after - before
    shares = torch.tensor([-change, MARGIN, change], dtype=torch.float64).div(TEMPERATURE).softmax(0).tolist()
    improving, stable, worsening = shares
    return Progression(finding, improving, stable, worsening, before, after)
