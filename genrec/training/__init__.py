"""Fitting any model of the zoo's interface on Lightning, and measuring it over the whole catalogue."""

from genrec.training.config import FitConfig
from genrec.training.evaluate import Evaluation, evaluate, evaluate_lists
from genrec.training.fit import FitResult, fit
from genrec.training.processes import start_fabric
from genrec.training.recipe import DataOptions, Recipe, check_settings, parse_setting, read_recipe

__all__ = [
    "DataOptions",
    "Evaluation",
    "FitConfig",
    "FitResult",
    "Recipe",
    "check_settings",
    "evaluate",
    "evaluate_lists",
    "fit",
    "parse_setting",
    "read_recipe",
    "start_fabric",
]
