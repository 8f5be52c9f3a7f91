"""One number of every run of a page, as people read it: values, intervals, leads, and runs of one recipe together."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from medst.evaluate.intervals import OverRuns, over_runs, too_wide
from medst.evaluate.task import is_summary
from medst.pages.wording import difference_format, metric_format, metric_name


@dataclass
class Line:
    """One number of every run; None for a run that lacks it.

    Attributes:
        trained: rows of results.json, one per run.
        baselines: for each run, the rows of its baselines by name.
        leads: for each run, its entry of `leads`.
    """

    metric: str
    finding: str
    folds: int | None
    trained: list[dict[str, Any] | None]
    baselines: list[dict[str, dict[str, Any]]]
    leads: list[dict[str, Any] | None]

    @property
    def chance(self) -> float:
        """The value that guessing reaches."""
        return next(row["chance"] for row in self.trained if row is not None)

    @property
    def chance_written(self) -> str:
        """Chance as text; for the calibration error, what a perfect model has on these rows (0 in earlier files)."""
        if self.metric == "calibration error":
            return f"{self.written(self.chance)} if perfect" if self.chance else "–"
        return self.written(self.chance)

    @property
    def is_summary(self) -> bool:
        """Whether it covers all findings."""
        return is_summary(self.finding)

    @property
    def name(self) -> str:
        """The metric and its number of folds, as people read it."""
        return metric_name(self.metric, self.folds)

    @property
    def n(self) -> str:
        """The number of rows that it was measured on; several if the runs differ."""
        return ", ".join(dict.fromkeys(f"{row['n']:,}" for row in self.trained if row is not None))

    def written(self, value: float) -> str:
        """A value of the metric as text."""
        return metric_format(self.metric)(value)

    def spread(self, row: dict[str, Any]) -> str:
        """The interval of a row, or its standard deviation; empty if it has neither."""
        if row["low"] is not None:
            return self.interval_written((row["low"], row["high"]))
        return f"± {self.written(row['std'])}" if row["std"] else ""

    def interval_written(self, interval: tuple[float, float], of: str = "rows") -> str:
        """An interval as text, and that there are too few `of` if it spans more than half of the metric's range."""
        low, high = interval
        return f"{self.written(low)} to {self.written(high)}" + (f", too few {of}" if too_wide(low, high) else "")

    def over_seeds(self, seeds: "Seeds") -> tuple[OverRuns | None, OverRuns | None]:
        """The number and its lead over the runs of one recipe; None where a run lacks them."""
        trained, leads = ([rows[place] for place in seeds.places] for rows in (self.trained, self.leads))
        return _over_runs(trained), _over_runs(leads)

    def seeds_written(self, seeds: "Seeds") -> list[str]:
        """The number over the runs of one recipe: the mean with its standard deviation, each interval with what it allows
        for, and the lead over the best baseline; empty if a run lacks the number."""
        found, lead = self.over_seeds(seeds)
        if found is None:
            return []
        named = [
            ("seeds and test data", found.both, "rows or seeds"),
            ("seeds alone", found.runs, "seeds"),
            ("test data alone", found.patients, "rows"),
        ]
        written = [f"{self.written(found.mean)} ± {self.written(found.std)}"]
        written += [f"{name} {self.interval_written(one, of)}" for name, one, of in named if one is not None]
        return [*written, self.lead_over_seeds(lead)] if lead is not None else written

    def lead_over_seeds(self, lead: OverRuns) -> str:
        """The lead over the best baseline of the runs of one recipe, as text."""
        by, (low, high) = difference_format(self.metric), lead.both or lead.runs
        allows = "seeds and test data" if lead.both else "seeds alone"
        ends = f"{by(low).removesuffix(' points')} to {by(high)}"
        return f"lead over the best baseline {by(lead.mean)}, {allows} {ends}"

    def best_baseline(self, run: int) -> tuple[str, float] | None:
        """Name and value of a run's best baseline; None if it has none."""
        values = {name: row["value"] for name, row in self.baselines[run].items()}
        return max(values.items(), key=itemgetter(1), default=None)

    def runs(self) -> list[tuple[dict[str, Any] | None, dict[str, dict[str, Any]], dict[str, Any] | None]]:
        """The row of the trained model of every run, those of its baselines by name, and its lead over the best."""
        return list(zip(self.trained, self.baselines, self.leads, strict=True))

    def lead_written(self, lead: dict[str, Any]) -> str:
        """A lead over the best baseline as text."""
        by = difference_format(self.metric)
        written = f"{by(lead['value'])} over {lead['baseline']}"
        if lead["low"] is not None:
            low, high = (by(lead[end]).removesuffix(" points") for end in ("low", "high"))
            written += f", 95 % interval {low} to {high}"
            written += ", too few rows" if too_wide(lead["low"], lead["high"]) else ""
        return written


def _over_runs(rows: Sequence[dict[str, Any] | None]) -> OverRuns | None:
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    intervals = [None if row["low"] is None else (row["low"], row["high"]) for row in known]
    return over_runs([row["value"] for row in known], intervals)


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed alone.

    Attributes:
        name: their number and recipe.
        places: of the runs among those of the page.
    """

    name: str
    places: tuple[int, ...]
