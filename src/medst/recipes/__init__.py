"""Recipes by name: each is one module with a `RECIPE` and a docstring that says what to expect of it."""

from medst.recipes import modern, paper, tiny
from medst.recipes.settings import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (paper.RECIPE, modern.RECIPE, tiny.RECIPE)}

__all__ = ["RECIPES", "Recipe"]
