"""The service on Ray Serve: the application of one node in each replica, behind Ray's proxies."""

from __future__ import annotations

import dataclasses
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrec_runtime.bundle import Bundle
from genrec_runtime.errors import GenrecError
from genrec_runtime.onray.cluster import LOCAL, Share, connected, share_of
from genrec_runtime.serve.app import build
from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.observed import AccessLog
from genrec_runtime.serve.service import Service
from genrec_runtime.serve.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

APPLICATION = "genrec"
TRIES = 3  # of a replica that cannot start
SURGE = 25  # percent of the replicas that a rolling update may have above their number, at least one


@dataclass(frozen=True)
class Scale:
    """How many replicas.

    Args:
        replicas: at least so many.
        max_replicas: at most so many, as load wants; None for a fixed number.
        load: requests under way in each that are wanted: half of a batch by default, so that batches fill.

    Raises:
        ValueError: if a number is out of its range.
    """

    replicas: int = 1
    max_replicas: int | None = None
    load: float = 32.0

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.load <= 0:
            raise ValueError(f"replicas ({self.replicas}) must be at least 1, load ({self.load}) above 0")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least replicas ({self.replicas})")


def deploy(settings: Settings, address: str, scale: Scale | None = None) -> None:
    """Has a cluster serve a bundle, and returns when it does; the cluster serves on when this process ends.

    Called again with other settings, such as another bundle, it replaces the replicas one after the other: each new one
    serves before an old one is asked to end, and an old one answers what it took. If the new ones cannot start, the old ones
    serve on. A bundle that is a link is also followed by every replica by itself, as on one node.

    Args:
        settings: how each replica serves; its paths must lead to the same files on every machine. ``host`` and ``port`` are
            of Ray's proxies, one a machine, and what they were when the cluster began to serve.
        address: of the cluster, as of ``connected``.
        scale: how many replicas; one if None.

    Raises:
        GenrecError: if the bundle cannot be served.
        ConnectionError: if there is no cluster.
        ValueError: if the address is "local", or the cluster has no room for one replica.
        ImportError: if Ray is not installed.
    """
    if address == LOCAL:
        message = "a cluster of this process alone would end with it; start one with: ray start --head, then give auto"
        raise ValueError(f"address ({LOCAL!r}): {message}")
    Bundle.open(settings.bundle, variant=settings.options.variant, expect_digest=settings.expect_digest)
    with connected(address) as ray:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        share = share_of(ray.cluster_resources(), settings.options.device, settings.options.threads)
        serve.start(proxy_location="EveryNode", http_options={"host": settings.host, "port": settings.port})
        application = _deployment(serve, share, settings, scale or Scale()).bind(_on_cluster(settings, share))
        try:
            serve.run(application, name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise GenrecError(f"the bundle could not be served: {error}", code="not_ready") from error


def end(address: str) -> None:
    """Has a cluster no longer serve: what was taken is answered first.

    Args:
        address: of the cluster, as of ``connected``.
    """
    with connected(address):
        from ray import serve

        serve.delete(APPLICATION)


class Replica:
    """One copy of the service; Ray calls its methods.

    Args:
        settings: how to serve.
    """

    def __init__(self, settings: Settings) -> None:
        metrics = Metrics()
        self._service = Service(settings, metrics)
        log = AccessLog(sys.stdout if settings.access_log else None, most=1)
        self._app = _with_lifespan(build(self._service, metrics, log))
        self._service.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application that Ray hands requests to."""
        return self._app

    def check_health(self) -> None:
        """Called from time to time.

        Raises:
            RuntimeError: if only a new replica helps.
        """
        if self._service.state == "failed":
            raise RuntimeError("the device was lost")

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close(timeout=1.0)  # its requests were answered before


def _with_lifespan(app: ASGIApp) -> ASGIApp:
    """An application that also says when it has started and ended: Ray insists on it, and there is nothing to do then."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for _ in range(2):
            asked = (await receive())["type"]  # lifespan.startup, then lifespan.shutdown
            await send({"type": f"{asked}.complete"})

    return answered


def _deployment(serve: Any, share: Share, settings: Settings, scale: Scale) -> Any:
    """What Ray is to know about the replicas."""
    if scale.max_replicas is None:
        number: dict[str, Any] = {"num_replicas": scale.replicas}
    else:
        limits = {"min_replicas": scale.replicas, "max_replicas": scale.max_replicas}
        number = {"autoscaling_config": {**limits, "target_ongoing_requests": scale.load}}
    return serve.deployment(
        serve.ingress()(Replica),
        name="recommender",
        **number,
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
        max_ongoing_requests=settings.max_connections,
        max_queued_requests=settings.max_connections,
        graceful_shutdown_timeout_s=settings.drain,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5.0,
        max_constructor_retry_count=TRIES,
        max_surge_percent=SURGE,
        logging_config={"enable_access_log": False},
    )


def _on_cluster(settings: Settings, share: Share) -> Settings:
    """The settings of a replica: its paths from the root, its threads those that it takes of the cluster."""
    available = settings.availability
    return dataclasses.replace(
        settings,
        bundle=settings.bundle.absolute(),
        availability=None if available is None else available.absolute(),
        options=dataclasses.replace(settings.options, threads=share.cpus),
    )
