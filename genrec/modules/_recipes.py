"""How to build a module again: its class and its constructor's arguments, as JSON values."""

import importlib
from typing import Any

from torch import nn


def recipe(module: nn.Module, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """The module's class and constructor arguments.

    Args:
        module: keeps its arguments as ``module.arguments``, a dict of JSON values, unless they are given.
        arguments: the constructor's arguments by name; a part that is a module itself is given by its own recipe.

    Raises:
        TypeError: if there are no arguments.
    """
    name = f"{type(module).__module__}:{type(module).__qualname__}"
    known = getattr(module, "arguments", None) if arguments is None else arguments
    if not isinstance(known, dict):
        raise TypeError(
            f"{name} does not tell its constructor's arguments; set self.arguments, a dict of JSON values, in its "
            "__init__, or pass arguments={...} when saving"
        )
    return {"class": name, "arguments": known}


def build(described: dict[str, Any]) -> nn.Module:
    """The inverse of ``recipe``, with fresh weights; arguments that are recipes themselves are built first.

    Raises:
        ValueError: if it is no recipe, or a class cannot be imported.
    """
    if not _is_recipe(described):
        raise ValueError(f"a module is described by its class and arguments, got {described!r}")
    arguments = described["arguments"].items()
    return find_class(described)(**{name: build(value) if _is_recipe(value) else value for name, value in arguments})


def find_class(described: dict[str, Any]) -> type[nn.Module]:
    """The class that a recipe names, once its parts' classes are found too.

    Raises:
        ValueError: if one cannot be imported by its name, or is no nn.Module.
    """
    for value in described["arguments"].values():
        if _is_recipe(value):
            find_class(value)
    module_name, _, path = described["class"].partition(":")
    if module_name == "__main__":
        raise ValueError(f"{described['class']} lives in a script, where nothing else finds it; move it to a module")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{described['class']} cannot be imported by its name: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{described['class']} is no nn.Module")
    return found


def _is_recipe(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"class", "arguments"}
        and isinstance(value["class"], str)
        and isinstance(value["arguments"], dict)
    )
