"""Variants of a recipe that an ablation compares: each changes one thing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medst.errors import MedstError
from medst.recipes.settings import Recipe


@dataclass(frozen=True)
class Variant:
    """A change to a recipe: its name, a description, and the new settings by their dotted names."""

    name: str
    what: str
    changes: dict[str, Any]

    def apply(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the changes."""

        def changed(settings: Any, path: str, value: Any) -> Any:
            head, _, rest = path.partition(".")
            return replace(settings, **{head: changed(getattr(settings, head), rest, value) if rest else value})

        for path, value in self.changes.items():
            recipe = changed(recipe, path, value)
        return recipe


VARIANTS = (
    Variant("no-laterals", "frontal views alone (paper)", {"data.laterals": "none"}),
    Variant("no-local", "no local alignment (paper)", {"objective.local_weight": 0.0}),
    Variant("no-forward", "no forward mapping classification (paper)", {"objective.forward_weight": 0.0}),
    Variant("no-reverse", "no reverse mapping regression (paper)", {"objective.reverse_weight": 0.0}),
    Variant("no-temporal", "no temporal loss at all", {"objective.temporal_weight": 0.0}),
    Variant("length-2", "sequences of 2 studies (paper)", {"data.sequence_length": 2, "data.temporal_from": 2}),
    Variant("length-3", "sequences of 3 studies (paper)", {"data.sequence_length": 3, "data.temporal_from": 2}),
    Variant("length-4", "sequences of 4 studies (paper)", {"data.sequence_length": 4, "data.temporal_from": 2}),
    Variant("full-sequences", "temporal loss on sequences of exactly 4, as released", {"data.temporal_from": 4}),
    Variant("mixed-laterals", "laterals go to the wrong study, as released", {"data.laterals": "mixed"}),
    Variant("no-word-order", "text encoder without positions, as released", {"model.text.positions": False}),
    Variant("released-regression", "the unbounded regression, as released", {"objective.regression": "released"}),
    Variant(
        "phantom-tokens",
        "absent laterals and padding words in the local loss, as released",
        {"model.phantom_tokens": True, "objective.masked": False},
    ),
    Variant("random-experts", "lateral experts start at random, as released", {"model.vision.lateral_start": "random"}),
    Variant("no-temporal-warmup", "full temporal weight from the first step", {"objective.temporal_warmup": 0.0}),
    Variant("days", "real days as the time axis of the regression", {"objective.time_axis": "days"}),
)


def choose_variants(base: Recipe, only: Sequence[str]) -> list[Variant]:
    """Choose variants by name, or all; those that change nothing in `base` are left out."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise MedstError(f"There is no variant {', '.join(unknown)}; the variants are {', '.join(known)}.")
    wanted = [known[name] for name in only] or list(VARIANTS)
    return [variant for variant in wanted if variant.apply(base) != base]
