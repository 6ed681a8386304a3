"""The servers that serving.py compares, and LitServe's best settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from servers import HERE, Peer

K = 10  # items an answer
GENREC = "from genrec_runtime.cli import main; main(prog_name='genrec-runtime')"
PACKAGES = {"LitServe": "litserve", "Ray Serve": "ray"}
STEPS = [  # of LitServe's settings: each step keeps the best of the one before
    [["--queue", "pipe"], ["--queue", "zmq"]],
    [
        [],
        ["--servers", "2"],
        ["--threads", "1"],
        ["--threads", "1", "--servers", "2"],
        ["--threads", "1", "--workers", "2"],
        ["--threads", "1", "--workers", "2", "--servers", "2"],
    ],
    [*(["--timeout", seconds] for seconds in ("0.001", "0", "0.002", "0.005", "0.01")), ["--batch", "1"]],
]


def genrec(python: str, bundle: Path, *arguments: str, name: str = "genrec") -> Peer:
    """``genrec-runtime serve`` with its own defaults, but for ``arguments``."""
    command = [python, "-c", GENREC, "serve", str(bundle), "--port", "{port}", "--device", "cpu", *arguments]
    return Peer(name, command, "/v1/recommend", has_metrics=True)


def litserve(python: str, bundle: Path, settings: Sequence[str]) -> Peer:
    """LitServe; ``settings`` are options of litserve_peer.py."""
    command = [python, str(HERE / "litserve_peer.py"), str(bundle), "{port}", *settings]
    return Peer("LitServe", command, "/predict")


def best_settings(throughput: Callable[[list[str]], float]) -> list[str]:
    """LitServe's settings with the highest throughput, one step after the other.

    Args:
        throughput: of given settings, in requests a second.
    """
    chosen: list[str] = []
    for step in STEPS:
        found = {json.dumps(tried): throughput([*chosen, *tried]) for tried in step}
        chosen += json.loads(max(found, key=lambda tried: found[tried]))
    return chosen


def ray_serves(python: str, bundle: Path) -> list[Peer]:
    """Ray Serve as genrec deploys it with its own defaults, and with a handler as Ray's pages show it."""
    command = [python, str(HERE / "ray_peer.py"), str(bundle), "{port}"]
    return [
        Peer("genrec on Ray Serve", command, "/v1/recommend", has_metrics=True),
        Peer("Ray Serve, @serve.batch", [*command, "--plain"], "/"),
    ]


def lacks(python: str, package: str) -> bool:
    """Whether a Python has not got a package."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", code, package], timeout=60).returncode != 0


def machine_of(python: str, *packages: str) -> str:
    """``rounds.machine`` as another Python sees it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from rounds import machine; print(machine(*sys.argv[2:]))"
    command = [python, "-W", "ignore", "-c", code, str(HERE), *packages]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout.strip()
