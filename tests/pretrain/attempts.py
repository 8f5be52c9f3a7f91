"""One attempt at a run, in a guarded child process, and strategies to draw its settings."""

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from medst.errors import MedstError
from medst.recipes.ranges import Range
from medst.recipes.settings import Recipe, from_dict

STEPS = 2
MEMORY = 4 * 2**30
"""Data of the child, all that it has imported included."""
SLOW = {"run.compile": ["off"], "run.loader_workers": [-1, 0, 1, 257]}
"""Choices that leave out what takes a compiler's minutes or more processes than the test has cores."""
PLACES = ("start.deit", "start.bert", "start.checkpoint", "data.tokenizer")


def attempt(cohort: str, run: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train for two steps with at most `MEMORY`.

    Returns:
        `losses` of the steps, or how the run was `refused`, and whether its folder was `written`.
    """
    import resource

    from medst.pretrain import pretrain

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        pretrain(Path(cohort), Path(run), from_dict(Recipe, settings))
    except MedstError as error:
        return {"refused": str(error), "written": Path(run).exists()}
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return {"losses": [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]}


def paths(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and declared type of every setting."""
    for each in dataclasses.fields(settings):
        if dataclasses.is_dataclass(each.type):
            yield from paths(getattr(settings, each.name), f"{prefix}{each.name}.")
        else:
            yield prefix + each.name, each.type


def values(path: str, kind: Any) -> st.SearchStrategy[Any]:
    """Values within a setting's range, at its ends, outside, and of other types."""
    if path in SLOW:
        return st.sampled_from(SLOW[path])
    if path in PLACES:
        return st.sampled_from(["", "/nowhere", "no\0file"])
    if get_origin(kind) is Literal:
        return st.sampled_from([*get_args(kind), "none such"])
    if kind is bool:
        return st.booleans()
    if kind is str or path == "name":
        return st.text(max_size=5)
    kind, ends = get_args(kind)
    return _numbers(kind, ends)


def _numbers(kind: type, ends: Range) -> st.SearchStrategy[Any]:
    edges = [ends.low, ends.high, ends.low - 1, ends.high * 2, 0, 1, 2, 3, math.nan, math.inf]
    if kind is int:
        near = st.integers(int(ends.low), min(int(ends.high), int(ends.low) + 40))
        powers = st.integers(0, int(math.log2(ends.high))).map(lambda power: 2**power)
        return st.one_of(near, near, powers, st.sampled_from(edges))
    inside = st.floats(ends.low, ends.high, exclude_min=ends.open == "low", exclude_max=ends.open == "high")
    scales = st.floats(-12, math.log10(ends.high)).map(lambda power: 10**power)
    return st.one_of(inside, scales, scales, st.sampled_from(edges))


def drawn(base: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The recipe `base` with up to six other settings, stopped after two steps."""
    kinds = dict(paths(Recipe()))
    kinds.pop("optimiser.stop_after")

    @st.composite
    def settings(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=6, unique=True))
        made = _copy(base)
        for path in chosen:
            *parts, last = path.split(".")
            place = made
            for part in parts:
                place = place[part]
            place[last] = draw(values(path, kinds[path]), label=path)
        return made

    return settings()


def _copy(tree: Any) -> Any:
    return {name: _copy(value) for name, value in tree.items()} if isinstance(tree, dict) else tree
