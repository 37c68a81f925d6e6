"""Recipes: every setting of an experiment as one value. Importing this package registers them."""

from intarsia.recipes import builtin
from intarsia.recipes.recipe import RECIPES, EvaluateConfig, Recipe, TrainConfig, load_recipe

__all__ = ["RECIPES", "EvaluateConfig", "Recipe", "TrainConfig", "builtin", "load_recipe"]
