"""A bundle behind LitServe, for serving.py, in an environment that has litserve beside genrec[cpu].

    PEERS/bin/python benchmarks/litserve_peer.py BUNDLE PORT [--timeout 0.001] [--workers 2] [--servers 2] [--queue zmq]

Its answers are bytes of JSON by the time they leave the worker: LitServe would else have FastAPI walk through each. It writes no
access log. Both make it faster than it is by itself.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import litserve
from starlette.responses import Response

from genrec_runtime import Recommender

K = 10


class Api(litserve.LitAPI):  # type: ignore[misc, name-defined]
    """A history in, the best items and their scores out.

    Args:
        bundle: to be served.
        threads: within an operator; None for all.
        options: of LitServe's own class.
    """

    def __init__(self, bundle: str, threads: int | None, **options: Any) -> None:
        super().__init__(**options)
        self._bundle, self._threads = bundle, threads

    def setup(self, device: str) -> None:
        """In each worker."""
        self._recommender = Recommender.load(self._bundle, device="cpu", threads=self._threads)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads types as FastAPI's, of the request
        """The history."""
        return request["history"]

    def predict(self, x: Any) -> list[dict[str, Any]] | dict[str, Any]:
        """Answers of a batch; or of one history, where batches are not wanted."""
        found = self._recommender.recommend(x if self.max_batch_size > 1 else [x], k=K)
        rows = [
            {"items": items, "scores": scores.tolist()} for items, scores in zip(found.items, found.scores, strict=True)
        ]
        return rows if self.max_batch_size > 1 else rows[0]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They are a list already."""
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """An HTTP answer."""
        return Response(json.dumps(output).encode(), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("port", type=int)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=0.001, help="seconds in which a batch gathers")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--servers", type=int, default=1, help="processes that speak HTTP")
    parser.add_argument("--queue", choices=("pipe", "zmq"), default="pipe")
    parser.add_argument("--threads", type=int, help="within an operator; all that it may use if not given")
    options = parser.parse_args()
    api = Api(options.bundle, options.threads, max_batch_size=options.batch, batch_timeout=options.timeout)
    fast = options.queue == "zmq"
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers, fast_queue=fast)
    where = {"host": "127.0.0.1", "port": options.port, "num_api_servers": options.servers}
    server.run(**where, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
