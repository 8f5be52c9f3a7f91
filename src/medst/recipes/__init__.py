"""Recipes by name: each is one module with a `RECIPE` and a docstring that says what to expect of it."""

from medst.recipes import modern, paper, tiny
from medst.recipes.settings import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (paper.RECIPE, modern.RECIPE, tiny.RECIPE)}

EXPECTED: dict[str, dict[str, tuple[str, str]]] = {"modern": modern.COHORT}
"""For each recipe that cares: option of `medst prepare` -> value that it is meant for, and why."""

__all__ = ["EXPECTED", "RECIPES", "Recipe"]
