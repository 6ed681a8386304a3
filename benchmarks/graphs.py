"""Which form of the served graph is fastest: prepacked or not, opset 20 or 23, fp32, fp16 or int8. CPU, random weights.

    python benchmarks/graphs.py [--items 10000 100000 1000000] [--widths 64] [--threads 1]

Every form answers the same requests in turn in one process; a figure is the median time of "fp32, opset 20, prepacked" over
that of the form, in CPU time. Memory is what opening the session and answering once added in a process of its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import catalogue_of, model_of, write

from genrec_runtime.bundle import Bundle
from genrec_runtime.device import processor
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options
from genrec_runtime.sessions import Sessions

LENGTH, K_MAX = 50, 100  # the latter as exports make it


def open_engine(bundle: Bundle, variant: str, threads: int, *, packs: bool) -> Engine:
    """An engine, its weights packed or not."""
    Sessions._packs = lambda self, file: packs  # type: ignore[method-assign]
    return Engine(bundle, Options("cpu", threads, variant), trusting=True)


def memory_of(path: Path, variant: str, *, packs: bool) -> int:
    """Bytes that opening a session and answering once adds, in a fresh process."""
    code = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import fresh, graphs\n"
        "from genrec_runtime.bundle import Bundle\n"
        "bundle = Bundle.open(sys.argv[2], variant=sys.argv[3])\n"
        "import onnxruntime; before = fresh.resident(os.getpid())\n"
        "engine = graphs.open_engine(bundle, sys.argv[3], 1, packs=sys.argv[4] == 'True')\n"
        "engine.run('recommend', graphs.requests(bundle.manifest.semantics.num_items, 1))\n"
        "print(fresh.resident(os.getpid()) - before)"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), str(path), variant, str(packs)]
    return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    print(
        f"{processor()}, {options.threads} threads; Python {platform.python_version()}, torch {torch.__version__}",
        end=", ",
    )
    print(f"onnxruntime {metadata.version('onnxruntime')}, numpy {np.__version__}; L={LENGTH}, k={K_MAX}")
    for items in options.items:
        for width in options.widths:
            measure(items, width, options.batches, options.threads, options.runs)


FORMS = {
    "fp32 opset 20 prepacked": (20, "fp32", True),
    "fp32 opset 20": (20, "fp32", False),
    "fp32 opset 23 prepacked": (23, "fp32", True),
    "fp16 opset 20 prepacked": (20, "fp16", True),
    "int8 opset 20 prepacked": (20, "int8", True),
    "int8 opset 20": (20, "int8", False),
}


def measure(items: int, width: int, batches: list[int], threads: int, runs: int) -> None:
    """One table: forms by batch."""
    with tempfile.TemporaryDirectory() as folder:
        model, catalogue = model_of(items, width, LENGTH), catalogue_of(items)
        paths = {
            opset: write(Path(folder) / str(opset), model, catalogue, opset=opset, variants=("fp16", "int8"))
            for opset in (20, 23)
        }
        memory = {name: memory_of(paths[o], v, packs=p) for name, (o, v, p) in FORMS.items()}
        bundles = {opset: Bundle.open(path) for opset, path in paths.items()}
    opened = {name: open_engine(bundles[o], v, threads, packs=p) for name, (o, v, p) in FORMS.items()}
    print(f"\n{items:,} items, D={width}")
    print(
        f"{'':<26}" + "".join(f"B={batch:<8}" for batch in batches) + f"MiB ({items * width * 4 / 2**20:.0f} the table)"
    )
    speeds: dict[str, list[float]] = {name: [] for name in FORMS}
    for batch in batches:
        times = timed(opened, items, batch, max(5, runs // batch * 3 + 5))
        base = statistics.median(next(iter(times.values())))
        for name, taken in times.items():
            speeds[name].append(base / statistics.median(taken))
    for name in FORMS:
        row = "".join(f"{speed:<10.2f}" for speed in speeds[name])
        print(f"{name:<26}{row}{memory[name] / 2**20:.0f}", flush=True)


def requests(items: int, batch: int) -> dict[str, Any]:
    """Full windows of random items, each excluded."""
    ids = np.random.default_rng(0).integers(1, items + 1, (batch, LENGTH))
    return {"item_ids": ids, "exclude": ids, "available": np.ones(items + 1, np.bool_)}


def timed(forms: dict[str, Engine], items: int, batch: int, runs: int) -> dict[str, list[float]]:
    """CPU seconds of each form, taking turns."""
    inputs = requests(items, batch)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for run in range(runs + 2):
        for name, engine in forms.items():
            begin = time.process_time()
            engine.run("recommend", inputs)
            if run >= 2:
                times[name].append(time.process_time() - begin)
    return times


if __name__ == "__main__":
    sys.exit(main())
