"""Where the time of a `recommend` call goes: the graph, our checks, the numbering of ids, the rest of our Python. CPU only.

    python benchmarks/overhead.py [--items 10000] [--width 64] [--batches 1 32] [--calls 300]

Functions are timed in place, each without the timed functions that it calls, by the CPU time of the one thread that computes; the
kinds of requests take turns in one process.
A figure is the median share of a call, in percent. A SASRec of random weights with two layers answers histories of 50 items
with k=10; every request is decoded from JSON just before the call, as a server's would be.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from bundles import histories_of, model_of, write
from rounds import machine, table

from genrec.histories import Catalogue, ItemIds
from genrec_runtime import Recommender, requests, signatures

LENGTH, K = 50, 10
SESSION = next(cls for cls in onnxruntime.InferenceSession.__mro__ if "run" in vars(cls))
TIMED = {  # what is timed: the class that has the method, None for functions of ours
    "graph": (SESSION, ["run", "run_with_iobinding"]),
    "checks": (None, [signatures.check_inputs, requests.list_length, requests.flag, requests.refuse]),
    "reading": (None, [requests.number_rows, requests.number_list]),  # shapes and types of rows, joined to one list
    "numbering": (ItemIds, ["index", "raw"]),
}
IDS = {
    "close ints": lambda items: np.arange(items) * 2 + 1,
    "ints far apart": lambda items: np.arange(items) * 7919 + 10**12,
    "strings": lambda items: [f"item {number:07d}" for number in range(items)],
}


class Stopwatch:
    """Seconds spent in each kind of work since the last ``stop``."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []  # per open call, the seconds of the timed calls in it

    def timed(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """The function, its time counted to ``kind`` without that of the timed functions that it calls."""

        def call(*arguments: Any, **options: Any) -> Any:
            self._inside.append(0.0)
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                taken = time.thread_time() - begin
                self._seconds[kind] += taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        return call

    def stop(self) -> dict[str, float]:
        """What was counted, set back to nothing."""
        seconds, self._seconds = self._seconds, defaultdict(float)
        return seconds


def install(watch: Stopwatch) -> None:
    """Puts timed functions in the place of those of ``TIMED``, wherever our modules name them."""
    ours = [module for name, module in sys.modules.items() if name.startswith("genrec_runtime")]
    for kind, (owner, functions) in TIMED.items():
        for function in functions:
            if owner is not None:
                setattr(owner, function, watch.timed(getattr(owner, function), kind))
                continue
            for module in ours:
                if getattr(module, function.__name__, None) is function:
                    setattr(module, function.__name__, watch.timed(function, kind))


def recommenders(folder: Path, items: int, width: int) -> dict[str, Recommender]:
    """By the kind of their ids, opened on one thread."""
    model = model_of(items, width, LENGTH)
    opened = {}
    for name, raw in IDS.items():
        catalogue = Catalogue(ItemIds(raw(items)), np.arange(1, items + 1))
        opened[name] = Recommender.load(write(folder / name, model, catalogue), device="cpu", threads=1)
    return opened


def shares(recommenders: dict[str, Recommender], batch: int, watch: Stopwatch, calls: int) -> list[Sequence[Any]]:
    """Per kind of request the median share of each kind of work, and the median microseconds that are not the graph's."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    texts = {n: json.dumps(histories_of(r.catalogue, [LENGTH] * batch)) for n, r in recommenders.items()}
    for call in range(calls + 5):
        for name, recommender in recommenders.items():
            lists = json.loads(texts[name])
            for kind, rows in (("lists", lists), ("an array", np.array(lists))):
                watch.stop()
                begin = time.thread_time()
                recommender.recommend(rows, k=K)
                total = time.thread_time() - begin
                if call >= 5:
                    seconds = watch.stop()
                    row = found[f"{name}, {kind}"]
                    for part in TIMED:
                        row[part].append(100 * seconds[part] / total)
                    row["rest"].append(100 * (1 - sum(seconds.values()) / total))
                    row["ours, us"].append(1e6 * (total - seconds["graph"]))
    return [[name, *(f"{statistics.median(row[part]):.1f}" for part in COLUMNS)] for name, row in found.items()]


COLUMNS = [*TIMED, "rest", "ours, us"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    print(f"{machine('onnxruntime', 'numpy')}; one thread, {options.items:,} items, D={options.width}")
    watch = Stopwatch()
    install(watch)
    with tempfile.TemporaryDirectory() as folder:
        opened = recommenders(Path(folder), options.items, options.width)
    for batch in options.batches:
        rows = shares(opened, batch, watch, options.calls)
        print(f"\nbatch {batch}\n\n{table(['ids', *COLUMNS], rows)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
