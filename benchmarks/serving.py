"""genrec's service against LitServe and Ray Serve around the same bundle, by HTTP on loopback: throughput, latency, memory. CPU.

    python -m venv PEERS && PEERS/bin/pip install -c constraints.txt litserve --editable '.[cpu,serve,ray]'
    python benchmarks/serving.py --closed | --open | --sweep | --soak [SECONDS] [--peers PEERS/bin/python] [--bundle PATH]
    python benchmarks/serving.py --all [--only "Soak" ...] --peers PEERS/bin/python    # results/serving.md, or parts of it

Every server runs by the Python that --peers names (by this one if it is left out), one at a time, in fresh processes each turn;
one whose package that Python lacks is left out, and the page says so. The load is a process of its own and checks every answer
(load.py). A figure is the ratio of the medians with the quartiles of the rounds' own ratios; above 1 genrec is better. What each
run saw goes to standard error. To try it: --seconds 2 --rounds 2.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from bundles import catalogue_of, model_of, write
from rounds import table, write_section
from servers import Peer, Run, served
from serving_bench import FULL, Bench, say
from serving_peers import genrec
from serving_tables import BAD, batch, checks, cpu, faults_of, latency, memory, said, throughput

from genrec_runtime.serve.settings import Settings

RESULTS = Path(__file__).parent / "results" / "serving.md"
ITEMS, WIDTH, LENGTH = 4000, 64, 50  # of the bundle that is made
AT_ONCE = 256  # requests of an open loop that are under way at once, at most
BEHIND = 0.95  # of what is due: who answers less in time falls behind ever more, and has no latency to speak of
DEFAULT = (str(Settings.max_wait), str(Settings.threads), "all")  # --max-wait, --batches, --threads
SOAK = 60.0  # seconds
COSTS = ["CPU an answer, peer / genrec", "memory, peer / genrec"]
LATENCY = ["p50, peer / genrec", "p99, peer / genrec"]
BESIDE = ["rows a batch", "load's share of a core", "faults"]
Runs = dict[Any, list[Run]]
Part = tuple[str, Callable[[Bench], tuple[str, bool]]]  # its option; what makes its text, and says whether all is well


def closed(bench: Bench) -> tuple[str, bool]:
    """Clients that each ask again when their answer has come: a row for every number of them and every server."""
    own, others = genrec(bench.python, bench.bundle), bench.others()
    runs = _closed_runs(bench, [own, *others])
    rows = []
    for clients, peer in product(bench.options.clients, [own, *others]):
        ours, these = runs[own.name, clients], runs[peer.name, clients]
        speeds = [throughput(ours, these), *latency(ours, these), cpu(ours, these), memory(ours, these)]
        rows.append([clients, peer.name, *speeds, *_beside(these)])
    head = ["clients", "peer", "throughput, genrec / peer", *LATENCY, *COSTS, *BESIDE]
    return section(bench, head, rows), not any(faults_of(runs[own.name, clients]) for clients in bench.options.clients)


def open_loop(bench: Bench) -> tuple[str, bool]:
    """Requests that are due at random instants: a row for every rate and every server."""
    own, others, rates = genrec(bench.python, bench.bundle), bench.others(), bench.options.rates
    with served(own, bench.work) as server:
        most = bench.load(server, FULL).report.throughput
    runs: Runs = defaultdict(list)
    for turn, server in bench.turns([own, *others]):
        for share in rates:
            runs[server.peer.name, share].append(bench.load(server, AT_ONCE, rate=share * most, seed=turn))
    rows = []
    for share, peer in product(rates, [own, *others]):
        ours, these = runs[own.name, share], runs[peer.name, share]
        kept_up = statistics.median(run.report.kept_up for run in these)
        latencies = latency(ours, these) if kept_up >= BEHIND else ["falls behind"] * 2
        overloaded = sum(run.report.outcomes.get("overloaded", 0) for run in these)
        rows.append([share, peer.name, f"{kept_up:.2f}", *latencies, *_beside(these), overloaded])
    head = ["rate", "peer", "kept up", *LATENCY, *BESIDE, "429"]
    note = (
        f"rate: requests that are due, in shares of genrec's throughput with {FULL} clients; {AT_ONCE} at once at most. "
        f"kept up: share of them that were answered within the run."
    )
    return section(bench, head, rows, note), not any(faults_of(runs[own.name, share]) for share in rates)


def sweep(bench: Bench) -> tuple[str, bool]:
    """genrec's own options, closed loop: a row for every number of clients and every combination."""
    options = bench.options
    wanted = product(map(str, options.wait), map(str, options.batches), options.threads)
    names = {cell: " ".join(cell) for cell in (DEFAULT, *wanted)}
    peers = [genrec(bench.python, bench.bundle, *_arguments(*cell), name=name) for cell, name in names.items()]
    runs = _closed_runs(bench, peers)
    rows = []
    for clients, (cell, name) in product(options.clients, names.items()):
        default, these = runs[names[DEFAULT], clients], runs[name, clients]
        rows.append(
            [clients, *cell, throughput(these, default), *latency(these, default), cpu(these, default), batch(these)]
        )
    head = ["clients", "--max-wait", "--batches", "--threads", "throughput", "p50", "p99", "CPU", "rows a batch"]
    note = "Against the defaults, the first row of each number of clients; above 1 is better than they."
    return section(bench, head, rows, note), not any(map(faults_of, runs.values()))


def soak(bench: Bench) -> tuple[str, bool]:
    """A full load for long; LitServe before and after it, for half as long each; then bad requests among the good."""
    own, seconds = genrec(bench.python, bench.bundle), bench.options.soak or SOAK
    clean, mixed = (own, seconds, 0.0), (own, seconds, BAD)
    legs = [clean, mixed]
    if "LitServe" not in bench.left_out:
        half = (bench.litserve(), seconds / 2, 0.0)
        legs = [half, clean, half, mixed]
    runs: Runs = defaultdict(list)
    for peer, long, bad in legs:
        with served(peer, bench.work) as server:
            runs[peer.name, bad].append(bench.load(server, FULL, long, bad=bad))
    found = checks(runs[own.name, 0.0][0], runs[own.name, BAD][0], runs["LitServe", 0.0])
    rows = [[check.what, check.asked, check.found, "yes" if check.holds else "NO"] for check in found]
    about = f"{bench.about}; {seconds:g} s, {FULL} clients\n\n{bench.notes()}".strip()
    return f"{about}\n\n{table(['', 'asked', 'found', 'holds'], rows)}", all(check.holds for check in found)


def _arguments(wait: str, batches: str, threads: str) -> list[str]:
    return ["--max-wait", wait, "--batches", batches, *(["--threads", threads] if threads != "all" else [])]


def _closed_runs(bench: Bench, peers: list[Peer]) -> Runs:
    """Runs of a closed loop by name and clients."""
    runs: Runs = defaultdict(list)
    for turn, server in bench.turns(peers):
        for clients in bench.options.clients:
            runs[server.peer.name, clients].append(bench.load(server, clients, seed=turn))
    return runs


def _beside(runs: list[Run]) -> list[str]:
    """What a row has beside its ratios, as ``BESIDE`` calls it."""
    share = statistics.median(run.report.cpu for run in runs)
    return [batch(runs), f"{share:.2f}", said(faults_of(runs))]


def section(bench: Bench, head: list[str], rows: list[list[Any]], *notes: str) -> str:
    """Machine, notes and a table."""
    about = f"{bench.about}; {bench.options.seconds:g} s a run, {bench.options.rounds} rounds"
    return "\n\n".join(filter(None, (about, " ".join(filter(None, (*notes, bench.notes()))), table(head, rows))))


PARTS: dict[str, Part] = {
    "Closed loop": ("--closed", closed),
    "Open loop": ("--open", open_loop),
    "Waiting, batches and threads": ("--sweep", sweep),
    "Soak": ("--soak", soak),
}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group(required=True)
    part.add_argument("--all", action="store_true", help="write every part into the page")
    for title, (flag, _) in PARTS.items():
        if flag == "--soak":
            part.add_argument(flag, type=float, nargs="?", const=SOAK, metavar="SECONDS", help="exit 1 if it fails")
        else:
            part.add_argument(flag, action="store_const", dest="part", const=title)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts that --all makes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that --all writes into")
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable, help="runs every server")
    parser.add_argument("--bundle", type=Path, help=f"instead of a SASRec of {ITEMS:,} items with random weights")
    parser.add_argument("--litserve", metavar="OPTIONS", help="of litserve_peer.py, instead of looking for the best")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run, after one of warming up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, FULL])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 0.6, 0.9], help="of --open")
    parser.add_argument("--wait", type=float, nargs="+", default=[0.0, 0.001, 0.002, 0.005], help="of --sweep")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2], help="of --sweep")
    parser.add_argument("--threads", nargs="+", default=["all"], help="of --sweep")
    options = parser.parse_args()
    if options.soak is not None:
        options.part = "Soak"
    return options


def main() -> None:
    options, is_done = parsed(), True
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or write(Path(folder) / "store", model_of(ITEMS, WIDTH, LENGTH), catalogue_of(ITEMS))
        bench = Bench(options, bundle.absolute(), Path(folder))
        for title in options.only if options.all else [options.part]:
            begin = time.monotonic()
            flag, make = PARTS[title]
            text, holds = make(bench)
            is_done &= holds
            if options.all:
                write_section(options.results, title, f"`python benchmarks/serving.py {flag}`\n\n{text}")
                say(f"{title}: done in {time.monotonic() - begin:.0f} s")
            else:
                print(text)
    sys.exit(not is_done)


if __name__ == "__main__":
    main()
