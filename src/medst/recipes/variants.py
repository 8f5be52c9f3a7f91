"""Variants of a recipe that an ablation compares: each changes one thing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medst.errors import MedstError
from medst.recipes.settings import Recipe

MEASURES: dict[str, tuple[str, str, str, int | None]] = {
    "temporal-image, macro accuracy": ("temporal-image", "macro accuracy", "average", 5),
    "temporal-image, swap consistency": ("temporal-image", "swap consistency", "average", 5),
    "temporal-text, AUROC": ("temporal-text", "auroc", "all", None),
    "retrieval, own report R@1": ("retrieval", "image to report R@1", "within a patient", None),
    "retrieval, R@10": ("retrieval", "image to report R@10", "all", None),
}
"""Task, metric, finding and folds of each measure, as in results.json."""
PROGRESSION, _, SENTENCES, OWN_REPORT, REPORTS = MEASURES


@dataclass(frozen=True)
class Variant:
    """A change to a recipe.

    Attributes:
        name: as in `--only` and in the table.
        what: a description.
        main: the one of `MEASURES` that the variant is judged by; chosen before any run, because of what the part does.
        changes: the new settings by their dotted names.
    """

    name: str
    what: str
    main: str
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
    Variant("no-laterals", "frontal views alone (paper)", OWN_REPORT, {"data.laterals": "none"}),
    Variant("no-local", "no local alignment (paper)", REPORTS, {"objective.local_weight": 0.0}),
    Variant("no-forward", "no forward mapping classification (paper)", OWN_REPORT, {"objective.forward_weight": 0.0}),
    Variant("no-reverse", "no reverse mapping regression (paper)", PROGRESSION, {"objective.reverse_weight": 0.0}),
    Variant("no-temporal", "no temporal loss at all", PROGRESSION, {"objective.temporal_weight": 0.0}),
    Variant(
        "length-2", "sequences of 2 studies (paper)", PROGRESSION, {"data.sequence_length": 2, "data.temporal_from": 2}
    ),
    Variant(
        "length-3", "sequences of 3 studies (paper)", PROGRESSION, {"data.sequence_length": 3, "data.temporal_from": 2}
    ),
    Variant(
        "length-4", "sequences of 4 studies (paper)", PROGRESSION, {"data.sequence_length": 4, "data.temporal_from": 2}
    ),
    Variant(
        "full-sequences", "temporal loss on sequences of exactly 4, as released", OWN_REPORT, {"data.temporal_from": 4}
    ),
    Variant("mixed-laterals", "laterals go to the wrong study, as released", OWN_REPORT, {"data.laterals": "mixed"}),
    Variant("no-word-order", "text encoder without positions, as released", SENTENCES, {"model.text.positions": False}),
    Variant(
        "released-regression",
        "the unbounded regression, as released",
        PROGRESSION,
        {"objective.regression": "released"},
    ),
    Variant(
        "phantom-tokens",
        "absent laterals and padding words in the local loss, as released",
        REPORTS,
        {"model.phantom_tokens": True, "objective.masked": False},
    ),
    Variant(
        "random-experts",
        "lateral experts start at random, as released",
        OWN_REPORT,
        {"model.vision.lateral_start": "random"},
    ),
    Variant(
        "no-temporal-warmup",
        "full temporal weight from the first step",
        OWN_REPORT,
        {"objective.temporal_warmup": 0.0},
    ),
    Variant("days", "real days as the time axis of the regression", PROGRESSION, {"objective.time_axis": "days"}),
)
BY_NAME_ALONE = ("length-3", "length-4", "random-experts", "no-temporal-warmup")
"""Variants that are trained only if `--only` names them: each question makes every other harder to answer."""


def choose_variants(base: Recipe, only: Sequence[str]) -> list[Variant]:
    """Choose variants by name, or those that are asked by default; those that change nothing in `base` are left out."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise MedstError(f"There is no variant {', '.join(unknown)}; the variants are {', '.join(known)}.")
    wanted = [known[name] for name in only] or [variant for variant in VARIANTS if variant.name not in BY_NAME_ALONE]
    return [variant for variant in wanted if variant.apply(base) != base]
