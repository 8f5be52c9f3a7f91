"""Recipes by name. Each is a module with a `RECIPE` and a docstring on what to expect from it."""

from medst.recipes import modern, paper, tiny
from medst.recipes.settings import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (paper.RECIPE, modern.RECIPE, tiny.RECIPE)}

EXPECTED: dict[str, dict[str, tuple[str, str]]] = {"modern": modern.COHORT}
"""Options of `medst prepare` that a recipe expects: by recipe and option, the value and the reason."""

__all__ = ["EXPECTED", "RECIPES", "Recipe"]
