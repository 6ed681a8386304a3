"""Opening a run folder: the model with its best weights, its items, and what was measured."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from genrec.histories import Catalogue
from genrec_models import model_class

CATALOGUE_SUFFIXES = (".npy", ".utf8")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model as it lies in a folder.

    Args:
        model: with the weights of the best epoch, in eval mode, on the CPU.
        catalogue: its items.
        config: the contents of ``config.json``.
        metrics: the contents of ``metrics.json``; empty where training has not ended.
        folder: where it lies.
    """

    model: nn.Module
    catalogue: Catalogue
    config: dict[str, Any]
    metrics: dict[str, Any]
    folder: Path


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens the folder that ``genrec train`` or ``genrec.training.fit`` wrote.

    Raises:
        ValueError: if it is no run folder, of a format not readable here, or damaged.
        FileNotFoundError: if a file is missing.
    """
    folder = Path(path)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} is no run folder: it has no config.json")
    config = _read_json(folder / "config.json")
    if config.get("format") != "genrec-run" or config.get("format_version") != 1:
        raise ValueError(
            f"{folder / 'config.json'} is of format {config.get('format')!r}, version {config.get('format_version')!r}; "
            "readable here is 'genrec-run', version 1"
        )
    try:
        model = model_class(config["model"])(**config["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model that can be built: {error!r}") from error
    weights = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{weights} does not fit the model of config.json: {error}") from error
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in CATALOGUE_SUFFIXES}
    metrics = folder / "metrics.json"
    return Run(
        model.eval(), Catalogue.from_files(files), config, _read_json(metrics) if metrics.exists() else {}, folder
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content
