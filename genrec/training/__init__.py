"""Fitting any model of the zoo's interface on Lightning, and measuring it over the whole catalogue.

Names are imported when first used, so that settings and data can be looked at without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.training.config import FitConfig
    from genrec.training.evaluation import Evaluation, evaluate, evaluate_lists, raw_requests
    from genrec.training.fitting import FitResult, fit
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
    "raw_requests",
    "read_recipe",
    "start_fabric",
]

_FILES = {
    "config": ["FitConfig"],
    "evaluation": ["Evaluation", "evaluate", "evaluate_lists", "raw_requests"],
    "fitting": ["FitResult", "fit"],
    "processes": ["start_fabric"],
    "recipe": ["DataOptions", "Recipe", "check_settings", "parse_setting", "read_recipe"],
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
