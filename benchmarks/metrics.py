"""The metrics against the reference's definitions, ranx, RecTools and torchmetrics; diversity; memory of a long stream. CPU.

The peers live in an environment of their own, where genrec needs numpy only and is found by PYTHONPATH:

    python -m venv PEERS && PEERS/bin/pip install ranx==0.3.21 rectools==0.19.0 torchmetrics==1.9.0 torch
    PYTHONPATH=.:runtime PEERS/bin/python -W ignore benchmarks/metrics.py --all [--only "At once" ...]   # results/metrics.md

    python benchmarks/metrics.py --at-once | --single | --diversity | --stream   # one part; only the first needs peers

Peers take turns in one process, and their answers are compared first. A figure is the ratio of the median times with the
quartiles of the rounds' own ratios; above 1 ours is faster. Smaller sizes, to try it: --users 2000 --subset 200 --lists 100 1000
--streamed 100000.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from metrics_peers import METRICS, Means, Reference, Workload, peers_of
from numpy.typing import NDArray
from rounds import CLOCKS, machine, ratio, table, take_turns, write_section

from genrec.metrics import MetricAccumulator, RecommendationMetrics, evaluate

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "metrics.md"
KS = (5, 10, 20, 50, 100)
SINGLE = [(10, 10), (20, 20), (50, 50), (100, 100), (100, 10)]  # length of the lists, and k
SINGLE_USERS = 1000
LENGTHS = (10, 100)  # of the lists whose diversity is measured
BATCH = 10_000  # users of a stream that are drawn together
TURN = 0.3  # seconds that a peer's turn lasts at least
EXACT = 1e-12  # float64, sums in another order
MIB = 1 << 20
ASKED = {  # what the project set itself: at least so many times faster, and less memory
    "the reference / arrays": "50",
    "the reference / lists": "20",
    "ranx / arrays": "12",
    "recall": "1",
    "precision": "1",
    "ndcg": "3",
    "hit_rate": "1",
    "diversity": "100",
    "stream": "2,000",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group(required=True)
    for title in PARTS:
        part.add_argument(flag_of(title), dest="part", action="store_const", const=title)
    part.add_argument("--all", action="store_true", help="write every part into the page")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts that --all makes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that --all writes into")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000, help="size of the catalogue")
    parser.add_argument("--subset", type=int, default=2000, help="users for the peers that cannot do with all")
    parser.add_argument("--lists", type=int, nargs=2, default=[1000, 100_000], help="whose diversity is measured")
    parser.add_argument("--streamed", type=int, default=10_000_000, help="users")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    for title in options.only if options.all else [options.part]:
        begin = time.monotonic()
        text = PARTS[title](options)
        if options.all:
            write_section(options.results, title, f"`python benchmarks/metrics.py {flag_of(title)}`\n\n{text}")
            print(f"{title}: done in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        else:
            print(text)


def flag_of(title: str) -> str:
    """The option that prints a part."""
    return "--" + title.lower().replace(" ", "-")


def at_once(options: argparse.Namespace) -> str:
    """Four metrics at five cut-offs, ours in one call of ``evaluate`` (which adds MRR and MAP), by every peer."""
    work = Workload.drawn(options.users, options.items, max(KS))
    ours = {
        "arrays": partial(evaluate, work.predictions, work.targets, KS),
        "lists": partial(evaluate, *work.lists, KS),
    }
    peers = peers_of(work, KS, options.subset)
    require_same("ours from lists", ours["lists"](), ours["arrays"](), EXACT)
    for name, peer in peers.items():
        few = work.first(peer.users)
        require_same(name, peer.call(), evaluate(few.predictions, few.targets, KS), peer.tolerance)
    calls: dict[str, Callable[[], Any]] = {**ours, **{name: peer.call for name, peer in peers.items()}}
    times = take_turns(calls, options.rounds, clock=options.clock, turn=TURN)
    rows = []
    for name, peer in peers.items():
        taken = [seconds * options.users / peer.users for seconds in times[name]]
        cells = [[ratio(taken, times[own]), ASKED.get(f"{name.split(',')[0]} / {own}", "")] for own in ours]
        rows.append([name, *cells[0], *cells[1]])
    title = (
        f"{machine('numpy', 'numba', 'ranx', 'rectools', 'pandas', 'torchmetrics', 'torch')}; {clock_of(options)}; "
        f"{options.users:,} users, {max(KS)} predictions and 1-20 targets each, {options.items:,} items, k of {KS}"
    )
    return f"{title}\n\n{table(['peer', 'peer / ours from arrays', 'asked', 'peer / ours from lists', 'asked'], rows)}"


def require_same(name: str, means: Means, expected: Means, tolerance: float) -> None:
    """Holds the four metrics of a peer to ours.

    Raises:
        SystemExit: naming the peer and the first metric that it has otherwise.
    """
    for key in (f"{metric}@{k}" for metric in METRICS for k in KS):
        if not abs(means[key] - expected[key]) <= tolerance:
            raise SystemExit(f"{name} has {means[key]} for {key}, and ours is {expected[key]}")


def single(options: argparse.Namespace) -> str:
    """Each static method on Python's lists, against the same method of the reference."""
    rows = []
    for length, k in SINGLE:
        predictions, targets = Workload.drawn(SINGLE_USERS, options.items, length).lists
        for most, label in ((1, "1"), (None, "1-20")):
            arguments: dict[str, tuple[Any, ...]] = {
                f"{name}_at_k": (predictions, [row[:most] for row in targets], k) for name in METRICS
            }
            arguments["coverage"] = (predictions, options.items)
            row = [method_ratio(name, given, options) for name, given in arguments.items()]
            rows.append([length, k, label, *row])
    head = [f"{name}, {ASKED[name]} asked" for name in METRICS]
    title = f"{machine('numpy')}; {clock_of(options)}; {SINGLE_USERS:,} users; the reference / ours"
    return f"{title}\n\n{table(['predictions', 'k', 'targets', *head, 'coverage, 1 asked'], rows)}"


def method_ratio(name: str, arguments: tuple[Any, ...], options: argparse.Namespace) -> Any:
    """How many times faster our static method of a name is, once the answers are the same.

    Raises:
        SystemExit: if they are not.
    """
    calls = {
        side: partial(getattr(kind, name), *arguments)
        for side, kind in (("theirs", Reference), ("ours", RecommendationMetrics))
    }
    theirs, ours = calls["theirs"](), calls["ours"]()
    if not abs(theirs - ours) <= EXACT:
        raise SystemExit(f"{name} of the reference is {theirs}, and ours {ours}")
    times = take_turns(calls, options.rounds, clock=options.clock)
    return ratio(times["theirs"], times["ours"])


def diversity(options: argparse.Namespace) -> str:
    """Exact diversity: of few lists against the reference, of many in terms of both."""
    few, many = options.lists
    rows = []
    for drawn, draw in (("alike", even_items), ("log-uniform", popular_items)):
        for length in LENGTHS:
            lists = draw(many, options.items, length).tolist()
            calls: dict[str, Callable[[], float]] = {
                "theirs": partial(Reference.diversity, lists[:few]),
                "ours": partial(RecommendationMetrics.diversity, lists[:few]),
            }
            theirs, ours = calls["theirs"](), calls["ours"]()
            if not abs(theirs - ours) <= EXACT:
                raise SystemExit(f"the diversity of the reference is {theirs}, and ours {ours}")
            times = take_turns(calls, options.rounds, clock=options.clock)
            begin = CLOCKS[options.clock]()
            RecommendationMetrics.diversity(lists)
            taken = CLOCKS[options.clock]() - begin
            shares = [f"{taken / statistics.median(times[side]):.3g}" for side in ("ours", "theirs")]
            rows.append([drawn, length, ratio(times["theirs"], times["ours"]), ASKED["diversity"], *shares])
    title = (
        f"{machine('numpy')}; {clock_of(options)}; {options.items:,} items, drawn all alike or by a log-uniform number; "
        f"{many:,} lists, which are {math.comb(many, 2) / math.comb(few, 2):,.0f} times the pairs of {few:,}, once"
    )
    asked = f"{few:,} lists: the reference / ours"
    head = ["items", "length", asked, "asked", f"{many:,} lists / {few:,}", f"{many:,} lists / the reference's {few:,}"]
    return f"{title}\n\n{table(head, rows)}"


def even_items(lists: int, items: int, length: int) -> NDArray[np.int64]:
    """(lists, length) items 1..items, drawn evenly."""
    return np.random.default_rng(0).integers(1, items + 1, (lists, length))


def popular_items(lists: int, items: int, length: int) -> NDArray[np.int64]:
    """(lists, length) items 1..items whose logarithm is drawn evenly: item i is twice as frequent as item 2 i."""
    logarithms = np.random.default_rng(0).uniform(0, math.log(items + 1), (lists, length))
    return np.exp(logarithms).astype(np.int64)


def stream(options: argparse.Namespace) -> str:
    """The most memory that a fresh process takes for the users of a long stream, and for a tenth of them."""
    rows = []
    for users in (options.streamed // 10, options.streamed):
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import metrics; metrics.stream_here({users}, {options.items})"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout)
        own = (found["peak"] - found["imported"]) / MIB
        rows.append([f"{users:,}", f"{found['peak'] / MIB:.0f}", ASKED["stream"], f"{own:.0f}"])
    title = (
        f"{machine('numpy')}; {max(KS)} predictions and 1-20 targets a user, drawn {BATCH:,} users at a time (which is part "
        f"of the memory), k of {KS}"
    )
    return f"{title}\n\n{table(['users', 'peak, MiB', 'asked, below', 'above the imports, MiB'], rows)}"


def stream_here(users: int, items: int) -> None:
    """Streams users through an accumulator, and prints the memory that this process took at most, in bytes."""
    imported = peak_memory()
    metrics = MetricAccumulator(KS)
    for batch, start in enumerate(range(0, users, BATCH)):
        work = Workload.drawn(min(BATCH, users - start), items, max(KS), seed=batch)
        metrics.update(work.predictions, work.targets)
    if len(metrics) != users:
        raise SystemExit(f"{users} users were streamed and {len(metrics)} counted")
    print(json.dumps({"imported": imported, "peak": peak_memory()}))


def peak_memory() -> int:
    """The most bytes of this process that ever lay in memory; a parent's do not count, as in ``getrusage`` they do."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def clock_of(options: argparse.Namespace) -> str:
    return f"{'wall-clock' if options.clock == 'wall' else 'CPU'} time, {options.rounds} rounds"


PARTS = {"At once": at_once, "Single": single, "Diversity": diversity, "Stream": stream}

if __name__ == "__main__":
    main()
