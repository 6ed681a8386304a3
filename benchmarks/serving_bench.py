"""The bundle, the servers and the work that serving.py measures with."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundles import histories_of
from load_work import Work
from servers import Peer, Run, Server, served
from serving_peers import PACKAGES, K, best_settings, genrec, lacks, litserve, machine_of, ray_serves

from genrec_runtime import Recommender

REQUESTS = 1024  # different ones
FULL = 64  # clients that are a full load: as many as a batch has rows


class Bench:
    """What all parts measure with.

    Args:
        options: of the command line.
        bundle: that all servers serve.
        folder: for what they are asked.
    """

    def __init__(self, options: argparse.Namespace, bundle: Path, folder: Path) -> None:
        self.options, self.bundle, self.python = options, bundle, options.peers
        recommender = Recommender.load(bundle, device="cpu")
        work = work_of(recommender, REQUESTS)
        self.work = work.write(folder / "work.json")
        self.left_out = {name: package for name, package in PACKAGES.items() if lacks(self.python, package)}
        packages = [package for name, package in PACKAGES.items() if name not in self.left_out]
        semantics = recommender.semantics
        self.about = (
            f"{machine_of(self.python, 'onnxruntime', 'uvicorn', *packages)}; {semantics.num_items:,} items, histories of 1-"
            f"{semantics.max_seq_length}, {len(work.bodies):,} different requests, k={K}"
        )
        self._settings: list[str] | None = None if options.litserve is None else options.litserve.split()

    def others(self) -> list[Peer]:
        """Everything that genrec's defaults are compared with, as far as it is installed."""
        peers = [genrec(self.python, self.bundle, "--max-batch", "1", name="genrec --max-batch 1")]
        for name, package in self.left_out.items():
            say(f"{name}: left out, {self.python} has no {package}; --peers names a Python that has")
        if "LitServe" not in self.left_out:
            peers.append(self.litserve())
        if "Ray Serve" not in self.left_out:
            peers += ray_serves(self.python, self.bundle)
        return peers

    def litserve(self) -> Peer:
        """LitServe by its best settings, which are looked for once."""
        if self._settings is None:
            self._settings = best_settings(self._throughput)
        return litserve(self.python, self.bundle, self._settings)

    def _throughput(self, settings: list[str]) -> float:
        with served(litserve(self.python, self.bundle, settings), self.work) as server:
            run = self.load(server, FULL)
        say(f"  that was {' '.join(settings)}")
        return 0.0 if run.report.faults else run.report.throughput

    def turns(self, peers: Sequence[Peer]) -> Iterator[tuple[int, Server]]:
        """Starts every peer once a round, with another one first each time, and ends it when the next is asked for."""
        for turn in range(self.options.rounds):
            first = turn % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                with served(peer, self.work) as server:
                    yield turn, server

    def load(self, server: Server, clients: int, seconds: float | None = None, **how: Any) -> Run:
        """Loads a server, and says what came of it; ``how`` as of ``Server.load``."""
        run = server.load(clients, seconds or self.options.seconds, **how)
        report = run.report
        say(
            f"{server.peer.name}, {clients} clients {how or ''}: {report.throughput:.1f}/s, p50 {report.p50 * 1e3:.2f} ms, p99 "
            f"{report.p99 * 1e3:.2f} ms, late {report.late * 1e3:.2f} ms, batch {run.batch:.1f}, {run.resident / 2**20:.0f} MiB, "
            f"CPU {run.cpu * 1e6:.0f} us an answer, the load's {report.cpu:.2f} cores, {report.outcomes} {report.examples or ''}"
        )
        return run

    def notes(self) -> str:
        """What is left out, and how LitServe is set."""
        lines = [f"{name} was not installed, and is left out." for name in self.left_out]
        if self._settings is not None and "LitServe" not in self.left_out:
            lines.append(f"LitServe with `{' '.join(self._settings)}`.")
        return " ".join(lines)


def work_of(recommender: Recommender, count: int) -> Work:
    """Requests with histories of log-uniform length, no two with the same answer, what is right, and what is bad."""
    longest = recommender.semantics.max_seq_length
    lengths = np.exp(np.random.default_rng(0).uniform(0, np.log(longest), count)).round().astype(int)
    histories = histories_of(recommender.catalogue, lengths)
    found: dict[tuple[Any, ...], tuple[Any, list[float]]] = {}
    for history in histories:
        answer = recommender.recommend([history], k=K)
        found.setdefault(tuple(answer.items[0]), (history, answer.scores[0].tolist()))
    bodies = [json.dumps({"history": history, "k": K}) for history, _ in found.values()]
    good = json.loads(bodies[0])
    bad = [
        {**good, "histroy": []},
        {"history": [*good["history"], None]},
        {"history": [[]]},
        {"history": [1.5]},
        {"k": K},
        {**good, "k": 0},
        {**good, "k": math.nan},
        [],
    ]
    broken = [bodies[0][:-1], ""]
    scores = [scores for _, scores in found.values()]
    return Work(bodies, list(map(list, found)), scores, [*map(json.dumps, bad), *broken])


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
