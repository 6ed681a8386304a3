"""How one node is to serve."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

from genrec_runtime.options import DEFAULT, Options


@dataclass(frozen=True)
class Settings:
    """The choices of who runs the service.

    Args:
        bundle: a bundle, or a link to one such as ``store/current``, which is followed.
        options: how the bundle runs.
        expect_digest: "sha256:..." of the manifest, to serve this bundle and no other, now and later.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        name: what the model is called in addresses; the bundle's own name if None.
        availability: a file of raw ids, one a line; only these are recommended.
        max_batch: rows that are answered together.
        max_wait: seconds that a request waits for others while nothing is computed.
        max_queue: rows that may wait; more are refused with 429.
        max_rows: rows that one request may have.
        max_body: bytes of a request.
        max_connections: connections at a time; what comes on more is refused with 503, but for health and metrics.
        threads: batches at a time.
        timeout: seconds after which nobody waits for an answer; a request may ask for less.
        slow: seconds that a client may take to send a request, or to read its answer.
        interval: seconds between looks at the bundle's path and the availability file.
        linger: seconds after SIGTERM in which requests are still taken, for balancers to notice.
        drain: seconds after that to answer what was taken.
        access_log: whether each request is logged.
        page: whether ``/`` serves the page to try it.

    Raises:
        ValueError: if a number is out of its range, or ``expect_digest`` is no digest.
    """

    bundle: Path
    options: Options = field(default=DEFAULT)
    expect_digest: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    availability: Path | None = None
    max_batch: int = 64
    max_wait: float = 0.0
    max_queue: int = 1024
    max_rows: int = 256
    max_body: int = 1 << 20
    max_connections: int = 1024
    threads: int = 1
    timeout: float = 10.0
    slow: float = 10.0
    interval: float = 2.0
    linger: float = 0.5
    drain: float = 20.0
    access_log: bool = True
    page: bool = True

    def __post_init__(self) -> None:
        least: dict[str, float] = {"port": 0, "linger": 0, "drain": 0, "max_wait": 0}
        least |= dict.fromkeys(("max_batch", "max_queue", "max_rows", "max_body", "max_connections", "threads"), 1)
        least |= dict.fromkeys(("timeout", "slow", "interval"), 0.01)
        most = dict.fromkeys(least, 1 << 40) | {"port": 65535}
        most |= dict.fromkeys(("timeout", "slow", "interval", "linger", "drain", "max_wait"), 86400)
        for name, value in dataclasses.asdict(self).items():
            if name in least and not least[name] <= value <= most[name]:
                raise ValueError(f"{name} ({value}) must lie in {least[name]}..{most[name]}")
        if self.expect_digest is not None and re.fullmatch("sha256:[0-9a-f]{64}", self.expect_digest) is None:
            message = "must be sha256: and 64 digits of 0-9, a-f; genrec-runtime verify prints a bundle's"
            raise ValueError(f"expect_digest ({self.expect_digest!r}) {message}")
        if self.max_rows > self.max_queue:
            raise ValueError(f"max_rows ({self.max_rows}) must be at most max_queue ({self.max_queue})")
