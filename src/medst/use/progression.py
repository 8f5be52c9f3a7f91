"""Progression of a finding from prompts, without training for it.

How present a finding is in a study is told as in zero-shot classification (paper, section 4.3): by the difference of the
image's cosines with prompts for and against it. Progression is then read off the difference between two studies, so that
swapping them swaps improving and worsening and leaves stable alone:

    presence(x) = <x, for> - <x, against>
    d           = presence(current) - presence(prior)
    shares      = softmax((-d, MARGIN, d) / TEMPERATURE)             improving, stable, worsening

Prompts that name the change itself ("has worsened") told worsening from improving less well on the phantom demo
(`benchmarks/use.py`).
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medst.errors import MedstError
from medst.use.outputs import Progression

if TYPE_CHECKING:
    from medst.use.model import Model

FOR = ("there is {}", "{} is present", "{}", "findings consistent with {}")
AGAINST = ("there is no {}", "no {}", "no evidence of {}", "{} has resolved")
TEMPERATURE = 0.07
"""Of the global loss, which made the cosines what they are."""
MARGIN = 0.05
"""A change below this counts as none; near the best of a few round numbers on the phantom demo, where it hardly matters."""


def presence_axis(model: "Model", finding: str) -> Float[Tensor, " dim"]:
    """The direction along which a study shows more of a finding: mean prompt for it less mean prompt against it.

    Args:
        model: reads the prompts.
        finding: as a radiologist names it; underscores are read as spaces.

    Raises:
        MedstError: the finding is empty or not a string.
    """
    name = " ".join(finding.replace("_", " ").split()) if isinstance(finding, str) else ""
    if not name:
        raise MedstError("name a finding, for instance 'pleural effusion'.")
    texts = model.encode_text([prompt.format(name) for prompt in (*FOR, *AGAINST)]).embedding
    return F.normalize(texts[: len(FOR)].mean(0), dim=0) - F.normalize(texts[len(FOR) :].mean(0), dim=0)


def progression(
    model: "Model", prior: Float[Tensor, " dim"], current: Float[Tensor, " dim"], finding: str
) -> Progression:
    """What became of a finding.

    Args:
        model: reads the prompts.
        prior: embedding of the earlier study, of unit length.
        current: the same of the later one.
        finding: as a radiologist names it.

    Raises:
        MedstError: there is no finding.
    """
    axis = presence_axis(model, finding)
    before, after = float(prior @ axis), float(current @ axis)
    change = after - before
    shares = torch.tensor([-change, MARGIN, change], dtype=torch.float64).div(TEMPERATURE).softmax(0).tolist()
    improving, stable, worsening = shares
    return Progression(finding, improving, stable, worsening, before, after)
