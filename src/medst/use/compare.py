"""How a finding changed between two studies, from prompts and without training for it.

The presence of a finding in a study is measured as in zero-shot classification (paper, section 4.3): by the difference of
the image's cosines with prompts for and against it. The progression is then read from the difference between two studies,
so that swapping them swaps improving and worsening and leaves stable alone:

    presence(x) = <x, for> - <x, against>
    d           = presence(current) - presence(prior)
    shares      = softmax((-d, margin, d) / TEMPERATURE)             improving, stable, worsening

So the answer is stable where |d| is below the margin. `choose_margin` takes the margin from the validation patients of a
run, without labels: `compare` then calls as large a share of the changes stable as the patients' reports do. The temperature
changes the shares, never the answer.

Prompts that name the change itself ("has worsened") told worsening from improving less well on the phantom demo
(`benchmarks/use.py`).
"""

import re
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medst.cohort.store import Cohort
from medst.encode import Encoder, embed_texts, image_features
from medst.errors import MedstError
from medst.use.outputs import Direction, Progression
from medst.weights.model_folder import Margin

FOR = ("there is {}", "{} is present", "{}", "findings consistent with {}")
AGAINST = ("there is no {}", "no {}", "no evidence of {}", "{} has resolved")
TEMPERATURE = 0.07
"""That of the global loss, with which the cosines were trained."""
DEFAULT_MARGIN = 0.05
"""For models without a margin of their own: near the best of a few round numbers on an early phantom demo."""
LEAST_STATEMENTS = 50
"""Fewer statements of a change choose no margin."""
MOST_STATEMENTS = 1000
"""More are sampled, to bound the time: each needs two studies encoded."""
NAMES = {
    "pleural effusion": "effusions?",
    "consolidation": "consolidations?",
    "edema": "edema",
    "pneumonia": "pneumonias?",
    "pneumothorax": "pneumothora(?:x|ces)",
    "atelectasis": "atelectas[ei]s",
    "cardiomegaly": "cardiomegaly",
}
"""Findings by the name for prompts, and the words for them in a report."""
CHANGES: dict[Direction, str] = {
    "improving": "improv(?:ed|ing|ement)|decreas(?:ed|ing|e)|smaller|less|lessen(?:ed|ing)|better|shrunk(?:en)?"
    "|reced(?:ed|ing)|resolv(?:ed|ing)|resolution|clear(?:ed|ing)|disappear(?:ed|ance)|diminish(?:ed|ing)|reduced"
    "|reduction|abated|regress(?:ed|ion)",
    "stable": "stable|unchanged|unaltered|constant|static|persist(?:s|ed|ent)|similar",
    "worsening": "wors(?:e|ened|ening)|increas(?:ed|ing|e)|larger|more|grown|enlarged|enlargement|expan(?:ded|sion)"
    "|progress(?:ed|ing|ion)|advanced|deteriorat(?:ed|ing|ion)|new|developed|development|appeared|onset|emergence",
}
"""Words that state a change."""
WINDOW = 5
"""A change is stated by the nearest word of change within so many words of the finding."""
PHRASES = {
    r"(?:no|not|without|little) (?:(?:significant|significantly|interval|substantial|relevant|appreciable) )*"
    "(?:changed?|alteration)": "unchanged",
    "no longer": "resolved",
}
"""Phrases that state a change, and the word for each."""
NEGATED = {"no", "not", "without", "free", "clear", "neither"}
"""One of these shortly before a finding or a word of change: no change is stated."""
BEFORE_FINDING, BEFORE_CHANGE = 5, 3
"""How many words before them: "no radiographic signs of a pneumothorax", "not significantly increased"."""


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
    finding: str,
    axis: Float[Tensor, " dim"],
    prior: Float[Tensor, " dim"],
    current: Float[Tensor, " dim"],
    margin: Margin | None = None,
) -> Progression:
    """How a finding changed along its `presence_axis`, from embeddings of unit length.

    Args:
        margin: the model's own; `DEFAULT_MARGIN` if it has none.
    """
    before, after = float(prior @ axis), float(current @ axis)
    change, width = after - before, DEFAULT_MARGIN if margin is None else margin.value
    shares = torch.tensor([-change, width, change], dtype=torch.float64).div(TEMPERATURE).softmax(0).tolist()
    improving, stable, worsening = shares
    return Progression(finding, improving, stable, worsening, before, after, width, margin is not None)


def stated_changes(report: str) -> Iterator[tuple[str, Direction]]:
    """The findings whose change a cleaned report states, with the direction. It is made for English reports.

    A finding counts once, by the first of its mentions near a word of change. A negated mention, and one as near to words of
    two directions, states nothing.

    >>> dict(stated_changes("edema is stable no pneumothorax is seen the left effusion is larger"))
    {'pleural effusion': 'worsening', 'edema': 'stable'}
    """
    for phrase, word in PHRASES.items():
        report = re.sub(rf"\b{phrase}\b", word, report)
    words = report.split()
    change_of = {
        place: direction
        for place, word in enumerate(words)
        for direction, pattern in CHANGES.items()
        if re.fullmatch(pattern, word) and not NEGATED & set(words[max(0, place - BEFORE_CHANGE) : place])
    }
    for finding, pattern in NAMES.items():
        for place, word in enumerate(words):
            before = set(words[max(0, place - BEFORE_FINDING) : place])
            if not re.fullmatch(pattern, word) or NEGATED & before:
                continue
            near = {other: abs(other - place) for other in change_of if abs(other - place) <= WINDOW}
            directions = {change_of[other] for other, far in near.items() if far == min(near.values())}
            if len(directions) == 1:
                yield finding, directions.pop()
                break


def stated_between(cohort: Cohort, split: str) -> pl.DataFrame:
    """The changes that the reports of a split state: prior and current (rows of the pairs), finding and direction.

    A report speaks of the study before it; the first report of a patient speaks of none that is known.
    """
    pairs = cohort.require("pairs").with_row_index("current").filter(split=split)
    studies = pairs.sort("patient_id", "time", "current").unique(
        ["patient_id", "study_id"], keep="first", maintain_order=True
    )
    studies = studies.with_columns(prior=pl.col("current").shift().over("patient_id")).drop_nulls("prior")
    rows = [
        (prior, current, finding, direction)
        for prior, current, report in studies.select("prior", "current", "report").iter_rows()
        for finding, direction in stated_changes(report)
    ]
    return pl.DataFrame(rows, schema=["prior", "current", "finding", "direction"], orient="row")


def choose_margin(encoder: Encoder, cohort: Cohort, stated: pl.DataFrame) -> Margin | None:
    """The margin for which `compare` calls as large a share of the stated changes stable as the reports do.

    Args:
        stated: `stated_between` of the validation split; of more than `MOST_STATEMENTS`, a sample of so many is taken.

    Returns:
        None for fewer than `LEAST_STATEMENTS`.
    """
    if stated.height < LEAST_STATEMENTS:
        return None
    stated = stated.sample(MOST_STATEMENTS, seed=0) if stated.height > MOST_STATEMENTS else stated
    pairs = cohort.require("pairs").with_columns(pl.col("lateral").cast(pl.Int64).fill_null(-1))
    sides = [pairs[stated[name].to_list()] for name in ("prior", "current")]
    before, after = (image_features(encoder, cohort, of["frontal"], laterals=of["lateral"]).embedding for of in sides)
    axes = {
        name: presence_axis(torch.from_numpy(embed_texts(encoder, presence_prompts(name)))).numpy()
        for name in stated["finding"].unique().to_list()
    }
    axis = np.stack([axes[name] for name in stated["finding"]])
    share = float((stated["direction"] == "stable").mean())  # type: ignore[arg-type]
    change = np.abs(((after - before) * axis).sum(1))
    return Margin(round(float(np.quantile(change, share)), 6), stated.height, round(share, 6))
