"""A bundle behind Ray Serve, for serving.py, in an environment that has genrec[cpu,serve,ray].

    PEERS/bin/python benchmarks/ray_peer.py BUNDLE PORT            # as genrec deploys it
    PEERS/bin/python benchmarks/ray_peer.py BUNDLE PORT --plain    # a handler with @serve.batch, as Ray's pages show it

A cluster of this machine, which ends with the process.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from genrec_runtime import Recommender
from genrec_runtime.onray.online import deploy
from genrec_runtime.serve.settings import Settings

K = 10
STORE = 100 << 20  # bytes of Ray's shared memory, of which nothing here makes use


class Plain:
    """A history in, the best items and their scores out.

    Args:
        bundle: to be served.
    """

    def __init__(self, bundle: str) -> None:
        self._recommender = Recommender.load(bundle, device="cpu")

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def answer(self, histories: list[Any]) -> list[dict[str, Any]]:
        """Answers of a batch."""
        found = self._recommender.recommend(histories, k=K)
        return [
            {"items": items, "scores": scores.tolist()} for items, scores in zip(found.items, found.scores, strict=True)
        ]

    async def __call__(self, request: Request) -> JSONResponse:
        """One request."""
        return JSONResponse(await self.answer((await request.json())["history"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # also before all is there
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        cores = len(os.sched_getaffinity(0))
        own = {"include_dashboard": False, "_temp_dir": folder, "_node_ip_address": "127.0.0.1"}
        ray.init(num_cpus=cores, object_store_memory=STORE, log_to_driver=False, **own)
        try:
            if options.plain:
                serve.start(http_options={"host": "127.0.0.1", "port": options.port})
                limits = {"max_ongoing_requests": 1024, "ray_actor_options": {"num_cpus": 1}}
                serve.run(serve.deployment(Plain, **limits).bind(str(options.bundle.absolute())))
            else:
                deploy(Settings(options.bundle, port=options.port), "auto")
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_BLOCK, ending)
            signal.sigwait(ending)
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
