"""The runtime against torch on the same weights and requests: speed, start-up, memory, size, and length buckets. CPU.

    python benchmarks/runtime.py [--items 10000 100000 1000000] [--batches 1 32 256] [--widths 64] [--lengths 50] [--threads 1 2]
    python benchmarks/runtime.py --startup | --mixed | --install
    python benchmarks/runtime.py --all [--only "Speed" ...] [--openvino PYTHON]   # all of results/runtime.md, or parts of it

Peers take turns in one process, and their answers are compared first. A figure is the ratio of the median times with the
quartiles of the rounds' own ratios; above 1 the runtime is faster. "naive" is the trainer's model in torch eager as it is,
"tuned" computes the newest slot only, with the table transposed and every result's memory kept; both are in peers.py.
``--openvino`` names a Python that has openvino, torch, onnxruntime and genrec; see openvino_peer.py.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import catalogue_of, histories_of, model_of, write
from fresh import installed, startup
from peers import torch_peers
from rounds import Answer, Ratio, machine, ratio, require_equal, table, take_turns, write_section

from genrec.histories import Catalogue
from genrec_models import SASRec
from genrec_runtime import Recommender
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "runtime.md"
K = 10
ASKED = {  # by catalogue and batch: what the project set itself, against the naive pipeline where no other is named
    (10_000, 1): "2.2",
    (10_000, 32): "1.6",
    (10_000, 256): "2.2",
    (1_000_000, 1): "int8 2",
    (1_000_000, 32): "2.5, tuned 1.3, int8 5",
    (1_000_000, 256): "2.5, tuned 1.3, int8 5",
}
OPENVINO = "openvino_peer.py"  # runs in an environment of its own
ALL = {  # title of the section: script and options
    "Speed": "runtime.py --items 10000 100000 1000000 --threads 1 2 --no-compile",
    "Speed against torch.compile": "runtime.py --items 10000 100000 --variants fp32",
    "Speed, wider and longer": "runtime.py --items 10000 100000 --widths 64 256 --lengths 200 --no-compile --rounds 7",
    "Speed, a million wide items": "runtime.py --items 1000000 --widths 256 --batches 1 32 --no-compile --rounds 7",
    "Roofline": "roofline.py --items 10000 1000000 --rounds 7",
    "Start-up and memory": "runtime.py --startup --items 10000 1000000 --rounds 7",
    "Histories of mixed length": "runtime.py --mixed --items 10000 100000 --lengths 200",
    "Size": "runtime.py --install",
    "OpenVINO": f"{OPENVINO} --threads 1 2 --rounds 7",
    "OpenVINO by operator": f"{OPENVINO} --profile --items 10000 1000000 --batches 1 32",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_grid(parser, [10_000, 100_000, 1_000_000])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes long to compile")
    part = parser.add_mutually_exclusive_group()
    for name in ("startup", "mixed", "install", "all"):
        part.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), help="sections that --all makes")
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that --all writes into")
    options = parser.parse_args()
    if options.all:
        run_all(options.only, options.openvino, options.results)
    elif options.install:
        print(installed())
    elif options.startup:
        print(startup(options.items, options.widths[0], options.lengths[0], options.rounds))
    else:
        print(speed(options, mixed if options.mixed else against_torch))


def add_grid(parser: argparse.ArgumentParser, items: list[int]) -> None:
    """The options that say what is measured."""
    parser.add_argument("--items", type=int, nargs="+", default=items)
    parser.add_argument("--widths", type=int, nargs="+", default=[64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")


def run_all(titles: Sequence[str], python: str | None, results: Path) -> None:
    """Runs each section in a process of its own, and writes what it prints into the page."""
    for title in titles:
        script, *rest = ALL[title].split()
        executable = python if script == OPENVINO else sys.executable
        if executable is None:
            say(f"{title}: left out, --openvino names no environment")
            continue
        begin = time.monotonic()
        command = [executable, "-W", "ignore", str(HERE / script), *rest]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        write_section(results, title, f"`python benchmarks/{ALL[title]}`\n\n{text}")
        say(f"{title}: done in {time.monotonic() - begin:.0f} s")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def speed(options: argparse.Namespace, measure: Callable[..., Iterator[dict[str, Any]]], *packages: str) -> str:
    """A table with a row for every cell of the grid."""
    rows = []
    for items, width, length in itertools.product(options.items, options.widths, options.lengths):
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(Path(folder), model_of(items, width, length), catalogue_of(items), options):
                rows.append({"items": f"{items:,}", "D": width, "L": length, **row})
                say(" ".join(f"{name}={value}" for name, value in rows[-1].items()))
    clock = "wall-clock time" if options.clock == "wall" else "CPU time"
    title = f"{machine('torch', 'onnxruntime', 'numpy', *packages)}; {clock}, {options.rounds} rounds, k={K}"
    return f"{title}\n\n{table(list(rows[0]), [list(row.values()) for row in rows])}"


def against_torch(
    folder: Path, model: SASRec, catalogue: Catalogue, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Rows of how many times faster each variant is than each torch pipeline, whole requests."""
    path = write(folder, model, catalogue, variants=[name for name in options.variants if name != "fp32"])
    for threads, batch in itertools.product(options.threads, options.batches):
        torch.set_num_threads(threads)
        histories = histories_of(catalogue, [model.max_seq_length] * batch)
        theirs = torch_peers(model, catalogue.items.all(), K, compiled=not options.no_compile)
        calls = {name: functools.partial(peer.recommend, histories) for name, peer in theirs.items()}
        calls |= ours(path, options.variants, threads, histories)
        ratios = compared(calls, options, reference="naive", ours=options.variants)
        row = {"batch": batch, "threads": threads, "asked": ASKED.get((model.num_items, batch), "")}
        yield row | {f"{own} / {name}": ratios[own, name] for own in options.variants for name in theirs}


def mixed(folder: Path, model: SASRec, catalogue: Catalogue, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of how many times faster histories of mixed length are answered in buckets than padded to the maximum.

    Lengths are log-uniform from 1 to the maximum: as many from 1 to 14 as from 15 to 200.
    """
    bundle = Bundle.open(write(folder, model, catalogue))
    semantics = replace(bundle.manifest.semantics, window="fixed")
    padded = replace(bundle, manifest=replace(bundle.manifest, semantics=semantics))
    for threads, batch in itertools.product(options.threads, options.batches):
        lengths = np.exp(np.random.default_rng(batch).uniform(0, np.log(model.max_seq_length), batch))
        histories = histories_of(catalogue, lengths.round().astype(int))
        calls = {
            name: functools.partial(
                Recommender(opened, Engine(opened, Options("cpu", threads))).recommend, histories, k=K
            )
            for name, opened in {"padded": padded, "buckets": bundle}.items()
        }
        ratios = compared(calls, options, reference="padded", ours=["buckets"])
        mean = f"{lengths.mean():.0f}"
        yield {
            "batch": batch,
            "threads": threads,
            "mean length": mean,
            "buckets / padded": ratios["buckets", "padded"],
        }


def ours(path: Path, variants: Sequence[str], threads: int, histories: list[list[Any]]) -> dict[str, Callable[[], Any]]:
    """Answering a request by the runtime on the CPU, by variant."""
    return {
        name: functools.partial(
            Recommender.load(path, device="cpu", threads=threads, variant=name).recommend, histories, k=K
        )
        for name in variants
    }


def compared(
    calls: dict[str, Callable[[], Any]], options: argparse.Namespace, reference: str, ours: Sequence[str]
) -> dict[tuple[str, str], Ratio]:
    """How many times faster each of ours is than each other call, after their answers were held to the reference's."""
    require_equal(answers_of(calls), reference)
    times = take_turns(calls, options.rounds, clock=options.clock)
    return {(own, name): ratio(times[name], times[own]) for own in ours for name in calls if name not in ours}


def answers_of(calls: dict[str, Callable[[], Any]]) -> dict[str, Answer]:
    """What each call gives, as raw ids and scores."""
    given = {name: call() for name, call in calls.items()}
    return {name: a if isinstance(a, tuple) else (a.items, a.scores) for name, a in given.items()}


if __name__ == "__main__":
    main()
