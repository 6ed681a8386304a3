"""A module on disk: ``config.json`` says how to build it, ``model.safetensors`` holds its weights."""

import inspect
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn

from genrec.modules._recipes import build, find_class, recipe

FORMAT = "genrec-module"
FORMAT_VERSION = 1


def save(
    module: nn.Module,
    folder: str | Path,
    *,
    arguments: dict[str, Any] | None = None,
    signature: dict[str, Any] | None = None,
) -> None:
    """Writes a module into a folder, which is made where it is missing.

    Args:
        module: any module whose class can be imported by name.
        folder: gets ``config.json`` and ``model.safetensors``.
        arguments: its constructor's arguments, JSON values; needed where the module keeps none as
            ``module.arguments``, as all of ours do.
        signature: JSON values that say what goes in and out, kept for the export of modules of your own.

    Raises:
        TypeError: if the arguments are unknown, or ``module.arguments`` lacks one that the constructor takes.
        ValueError: if the arguments or the signature are no JSON values, or the class cannot be imported by name.
    """
    described = recipe(module, arguments)
    find_class(described)
    if arguments is None:
        _check_complete(module)
    config = {"format": FORMAT, "format_version": FORMAT_VERSION, **described}
    if signature is not None:
        config["signature"] = signature
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arguments and signature must be JSON values: {error}") from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_model(module, str(Path(folder, "model.safetensors")))
    Path(folder, "config.json").write_text(text + "\n", encoding="utf-8")


def _check_complete(module: nn.Module) -> None:
    """Refuses a subclass that takes an argument more than the ``arguments`` that it inherits: it would come back without it."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(type(module)).parameters.values()
    known: Any = module.arguments
    missing = [
        parameter.name for parameter in parameters if parameter.kind not in kinds and parameter.name not in known
    ]
    if missing:
        raise TypeError(
            f"{type(module).__qualname__} takes {', '.join(missing)}, which its arguments do not tell; set self.arguments in "
            "its own __init__, or pass arguments={...} when saving"
        )


def load(folder: str | Path) -> nn.Module:
    """The module that ``save`` wrote, on the CPU, in evaluation mode.

    It imports the class that ``config.json`` names: open only what you trust.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if the folder holds something else, or a class that cannot be imported.
    """
    path = Path(folder, "config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe a {FORMAT}")
    if config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version")
        raise ValueError(f"{path} has format_version {version!r}, this genrec reads {FORMAT_VERSION}")
    module = build({"class": config.get("class"), "arguments": config.get("arguments")})
    load_model(module, Path(folder, "model.safetensors"))
    return module.eval()
