"""A store of several versions of one bundle, and a bundle's golden answers recorded anew."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options


def write_versions(source: Path, root: Path, count: int, reseal: Callable[..., None]) -> list[str]:
    """Writes versions of a bundle, a day apart, with other weights each.

    Args:
        source: the bundle.
        root: the store to be made; none of its versions is current.
        count: how many, at most 9.
        reseal: the fixture.

    Returns:
        Their names, the oldest first.
    """
    names = []
    for day in range(1, count + 1):
        folder = Path(shutil.copytree(source, root / "new"))
        weights = np.fromfile(folder / "weights.bin", np.float32)
        np.multiply(weights, 1 + day / 10).tofile(folder / "weights.bin")
        reseal(folder, lambda manifest, day=day: manifest.update(created=f"2026-01-0{day}T00:00:00+00:00"))
        record(folder)
        reseal(folder)
        names.append(Bundle.read_manifest(folder).version)
        folder.rename(root / names[-1])
    return names


def record(folder: Path) -> None:
    """Writes the answers to the golden requests anew."""
    opened = Bundle.open(folder)
    engine = Engine(opened, Options("cpu", 1), trusting=True)
    for graph in opened.manifest.graphs:
        arrays: dict[str, Any] = {}
        for case, (inputs, _) in enumerate(opened.golden(graph)):
            outputs = engine.run(graph, inputs)
            arrays |= {f"{case}.in.{name}": values for name, values in inputs.items()}
            arrays |= {f"{case}.out.{name}": values for name, values in outputs.items()}
        np.savez(folder / "golden" / f"{graph}.npz", **arrays)
