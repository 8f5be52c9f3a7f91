"""What an ablation asks, and how large a difference it can detect: stated before any variant is trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from medst.errors import MedstError
from medst.files import read_json, write_json

REFERENCE = "reference"
LEVEL = 0.05
"""Largest probability that any difference is called one although there is none, over all questions together."""
POWER = 0.8
NO_SPREAD = 1e-12
"""Standard deviations up to this one are rounding errors of equal values."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the differences between runs of one seed, estimated with `freedom` degrees of freedom."""

    deviation: float
    freedom: float

    def range(self) -> tuple[float, float]:
        """95 % interval of the true deviation, if differences are normal: freedom s^2 / sigma^2 is chi-squared."""
        low, high = (np.sqrt(self.freedom / stats.chi2.ppf(q, self.freedom)) for q in (0.975, 0.025))
        return float(self.deviation * low), float(self.deviation * high)


def detectable(seeds: int, questions: int) -> float:
    """Compute the smallest difference that a paired t test finds with 80 % probability.

    In standard deviations of the differences. The test is two-sided at level 5 % / `questions`, the first and strictest step
    of Holm's procedure, so each question has at least this power whatever the others show. With a true difference d,
    mean / (deviation / sqrt(seeds)) has the noncentral t distribution with seeds - 1 degrees of freedom and noncentrality
    d sqrt(seeds) (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2).

    Args:
        seeds: pairs of runs, at least 2.
        questions: differences that are tested together.
    """
    freedom, root = seeds - 1, np.sqrt(seeds)
    limit = stats.t.isf(LEVEL / questions / 2, freedom)

    def lacking(d: float) -> float:  # the other tail, a difference found with the wrong sign, is negligible at 80 %
        return float(stats.nct.sf(limit, freedom, d * root)) - POWER

    return float(optimize.brentq(lacking, 0.0, 10 * limit / root))


def spread_of_reference(values: Sequence[float]) -> Spread | None:
    """Estimate the spread of differences from the reference alone: sqrt(2) times that of its seeds.

    As if a variant varied as much as the reference and independently of it. Runs of one seed share weights, order and
    cohort, so differences mostly vary less. None with fewer than two values, or if all are equal.
    """
    if len(values) < 2 or (deviation := float(np.std(values, ddof=1))) <= NO_SPREAD:
        return None
    return Spread(float(np.sqrt(2)) * deviation, len(values) - 1)


def spread_of_pilot(file: Path) -> dict[str, Spread]:
    """Estimate the spread of each measure from an earlier ablation.json, of this version or an earlier one.

    The variances of the variants' differences from the reference are averaged, weighted by their degrees of freedom. They
    share the reference, so with k variants of v degrees of freedom each the average has 4 v k / (k + 3) of them: two
    differences that share one of two equally varying terms correlate by 1/2, their sample variances by 1/4.

    Raises:
        MedstError: the file can't be read, is no ablation.json, or has no variant with two seeds.
    """
    remedy = "give --pilot the ablation.json of an earlier ablation"
    row = {"variant": str, "measure": str, "values": [(float, int, type(None))]}
    values = {
        (one["measure"], one["variant"]): one["values"] for one in read_json(file, remedy, {"rows": [row]})["rows"]
    }
    kept = []
    for (measure, variant), own in sorted(values.items()):
        both = zip(own, values.get((measure, REFERENCE), []), strict=False)
        paired = [a - b for a, b in both if None not in (a, b)]
        if variant != REFERENCE and len(paired) > 1:
            kept.append((measure, float(np.var(paired, ddof=1)), len(paired) - 1))
    spreads = {}
    for measure, group in groupby(kept, key=lambda one: one[0]):
        _, variances, freedoms = zip(*group, strict=True)
        deviation = float(np.sqrt(np.average(variances, weights=freedoms)))
        if deviation > NO_SPREAD:
            spreads[measure] = Spread(deviation, 4 * sum(freedoms) / (len(freedoms) + 3))
    if not spreads:
        raise MedstError(
            f"{file} has no variant with two seeds, so it doesn't tell how much differences vary; {remedy}."
        )
    return spreads


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979); None counts as 1 and stays None.

    The i-th smallest of m, from 0, becomes the largest of (m - j) p_j over j <= i, at most 1.
    """
    known = np.array([1.0 if value is None else value for value in values])
    order, adjusted = np.argsort(known, kind="stable"), np.empty(len(known))
    adjusted[order] = np.minimum(np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1)), 1.0)
    return [None if value is None else float(new) for value, new in zip(values, adjusted, strict=True)]


@dataclass(frozen=True)
class Design:
    """What is asked, with how many runs, and what that can detect.

    Attributes:
        questions: the main measure of each variant.
        seeds: runs per variant.
        cohorts: fingerprints; seed k uses the one at k modulo their number.
        pilot: where the spreads come from: a file, or the reference's own seeds.
        spreads: the estimated spread of each measure; those that are not known are absent.
        earlier: designs of the same folder that this one replaced.
    """

    questions: dict[str, str]
    seeds: int
    cohorts: list[str]
    pilot: str
    spreads: dict[str, Spread]
    earlier: list[dict[str, Any]]

    def detectable(self, measure: str) -> float | None:
        """The smallest difference in a measure that is found with 80 % probability; None if it can't be known."""
        if self.seeds < 2 or measure not in self.spreads:
            return None
        return detectable(self.seeds, len(self.questions)) * self.spreads[measure].deviation

    def statement(self) -> str:
        """What is asked and what can be detected, in Markdown."""
        count, cohorts = len(self.questions), len(self.cohorts)
        lines = [
            f"Stated before any variant was trained: {count} question{'s'[: count > 1]}, one per variant; {self.seeds} "
            f"seed{'s'[: self.seeds > 1]} on {cohorts} cohort{'s'[: cohorts > 1]}. Two-sided paired t tests at 5 % over all "
            f"questions together (Holm). Spreads from {self.pilot}. A difference is found with 80 % probability if it "
            "is at least:",
            "",
        ]
        for measure in dict.fromkeys(self.questions.values()):
            asked = ", ".join(variant for variant, own in self.questions.items() if own == measure)
            lines.append(f"- {measure} ({asked}): {self._detectable_text(measure)}")
        if self.earlier:
            before = f"{len(self.earlier)} that this folder had before (`earlier` in design.json)"
            lines += ["", f"This design replaces {before}: it was changed after runs had been made."]
        if cohorts < self.seeds:
            shared = "All seeds share one cohort" if cohorts == 1 else "Some seeds share a cohort"
            lines += ["", f"{shared}, so the intervals don't fully include how much the differences would vary with other "
                      "patients; --more-cohorts gives a cohort to each seed."]  # fmt: skip
        return "\n".join(lines)

    def _detectable_text(self, measure: str) -> str:
        value = self.detectable(measure)
        if value is None:
            return "one seed can't tell" if self.seeds < 2 else "not known, the spread has not been measured"
        spread = self.spreads[measure]
        low, high = (value * one / spread.deviation for one in spread.range())
        return (
            f"{100 * value:.1f} points ({100 * low:.1f} to {100 * high:.1f}, because a spread of "
            f"{100 * spread.deviation:.1f} from few runs is uncertain itself)"
        )


def read_design(file: Path) -> Design | None:
    """The design of a folder; None if it has none. Raises MedstError if it is damaged."""
    if not file.exists():
        return None
    spread = {"deviation": float, "freedom": (float, int)}
    form = {
        "questions": {str: str},
        "seeds": int,
        "cohorts": [str],
        "pilot": str,
        "spreads": {str: spread},
        "earlier": [dict],
    }
    found = read_json(file, "give the ablation another folder", form)
    spreads = {measure: Spread(one["deviation"], one["freedom"]) for measure, one in found["spreads"].items()}
    return Design(**({key: found[key] for key in form} | {"spreads": spreads}))


def settle(file: Path, new: Design) -> Design:
    """Write a new design; a folder that has one of the same questions keeps it, so that it stays what was stated first."""
    old = read_design(file)
    if old is not None:
        same = (old.questions, old.seeds, old.cohorts, old.pilot) == (new.questions, new.seeds, new.cohorts, new.pilot)
        if same:
            return old
        before = asdict(old)
        new = replace(new, earlier=[*before.pop("earlier"), before])
    write_json(file, asdict(new))
    return new
