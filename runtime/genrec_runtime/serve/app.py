"""The web application: which address is answered by what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from genrec import __version__
from genrec_runtime.errors import DeadlineExceeded, GenrecError
from genrec_runtime.serve import friendly, openapi, pages, tensors
from genrec_runtime.serve.bodies import read_json
from genrec_runtime.serve.metrics import CONTENT_TYPE, Metrics
from genrec_runtime.serve.observed import AccessLog, Observed
from genrec_runtime.serve.queries import Answer, Query
from genrec_runtime.serve.refusals import Refusal, headers_of, status_of
from genrec_runtime.serve.service import Service

SPARE = "genrec.spare"  # in the state of a scope: whether its connection is one too many
HEALTH = ("/v2/health/live", "/v2/health/ready", "/metrics")  # answered nevertheless: a full service is not a dead one
PATIENCE = 0.2  # seconds after which a waiting request also looks whether its client is still there
_log = logging.getLogger(__name__)
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # in ASCII: half a surrogate pair has no UTF-8
Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """What each address answers.

    Args:
        service: that answers queries.
        metrics: where requests are counted.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service, self._metrics, self._settings = service, metrics, service.settings
        self._searching = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        """The addresses; those that matter first."""
        routes: list[tuple[str, str, Endpoint]] = [
            ("POST", "/v1/recommend", self.recommend),
            ("POST", "/v2/models/{name}/infer", self.infer),
            ("POST", "/v2/models/{name}/versions/{version}/infer", self.infer),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", self.ready),
            ("GET", "/v2", self.server),
            ("GET", "/v2/models/{name}", self.model),
            ("GET", "/v2/models/{name}/versions/{version}", self.model),
            ("GET", "/v2/models/{name}/ready", self.model_ready),
            ("GET", "/v2/models/{name}/versions/{version}/ready", self.model_ready),
            ("POST", "/v2/repository/index", self.index),
            ("GET", "/metrics", self.metrics),
            ("GET", "/openapi.json", self.openapi),
            ("GET", "/docs", self.docs),
        ]
        if self._settings.page:
            routes += [("GET", "/", self.page), ("GET", "/v1/items", self.items)]
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in routes]

    async def recommend(self, request: Request) -> Response:
        """``POST /v1/recommend``."""
        body = await read_json(request, self._settings.max_body, self._settings.slow)
        kind = self._service.recommender.catalogue.items.kind
        asked = friendly.read(body, kind, self._settings.timeout)
        return _json(friendly.write(asked, await self._answer(request, asked.query, asked.timeout)))

    async def infer(self, request: Request) -> Response:
        """``POST /v2/models/{name}/infer``."""
        self._check_model(request)
        if "inference-header-content-length" in request.headers:
            raise Refusal(400, "tensor", "binary tensors are not taken; send the data as JSON (binary_data=False)")
        body = await read_json(request, self._settings.max_body, self._settings.slow)
        recommender = self._service.recommender
        kind = recommender.catalogue.items.kind
        inference = tensors.read(body, recommender.manifest, kind, self._settings.timeout)
        answer = await self._answer(request, inference.query, inference.timeout)
        return _json(tensors.write(self._service.name, inference, answer, kind))

    async def live(self, request: Request) -> Response:
        """``GET /v2/health/live``: 503 only where a new process is needed."""
        is_live = self._service.state != "failed"
        return _json({"live": is_live}, 200 if is_live else 503)

    async def ready(self, request: Request) -> Response:
        """``GET /v2/health/ready``."""
        state = self._service.state
        return _json({"ready": state == "ready", "state": state}, 200 if state == "ready" else 503)

    async def server(self, request: Request) -> Response:
        """``GET /v2``."""
        return _json({"name": "genrec", "version": __version__, "extensions": ["model_repository"]})

    async def model(self, request: Request) -> Response:
        """``GET /v2/models/{name}``."""
        self._check_model(request)
        recommender = self._service.recommender
        return _json(tensors.metadata(self._service.name, recommender.manifest, recommender.catalogue.items.kind))

    async def model_ready(self, request: Request) -> Response:
        """``GET /v2/models/{name}/ready``."""
        self._check_model(request)
        return await self.ready(request)

    async def index(self, request: Request) -> Response:
        """``POST /v2/repository/index``: the one model that there is."""
        state = "READY" if self._service.state == "ready" else "UNAVAILABLE"
        version = self._service.recommender.manifest.version
        return _json([{"name": self._service.name, "version": version, "state": state, "reason": ""}])

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        text = await asyncio.to_thread(self._metrics.text)
        return Response(text, media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        return _json(openapi.DESCRIPTION)

    async def docs(self, request: Request) -> Response:
        """``GET /docs``."""
        return pages.html(pages.docs(openapi.DESCRIPTION))

    async def page(self, request: Request) -> Response:
        """``GET /``."""
        return pages.html(pages.page())

    async def items(self, request: Request) -> Response:
        """``GET /v1/items?query=``: items whose title or id holds the text; ids as texts."""
        query, catalogue = request.query_params.get("query", "")[:100], self._service.recommender.catalogue
        async with self._searching:  # it looks at every title: one search at a time
            found = await asyncio.to_thread(pages.search, catalogue, query)
        return _json({"items": found})

    async def _answer(self, request: Request, query: Query, timeout: float) -> Answer:
        """Waits for the answer to a query, no longer than anybody wants it."""
        request.scope["genrec.rows"] = len(query.histories)
        end = time.monotonic() + timeout
        answer = self._service.submit(query, end)
        try:
            await _settled(answer, min(PATIENCE, timeout))
            if not answer.done():
                await self._watch_client(request, answer, end)
            if not answer.done():
                raise DeadlineExceeded(f"the answer was not there within {timeout:g} s")
            return answer.result()
        finally:
            answer.cancel()

    async def _watch_client(self, request: Request, answer: Future[Answer], end: float) -> None:
        """Waits until the answer is there or the time is over.

        Raises:
            ClientDisconnect: if the client goes away.
        """
        gone = asyncio.ensure_future(request.receive())
        settled = asyncio.ensure_future(_settled(answer, max(0.0, end - time.monotonic())))
        try:
            await asyncio.wait({settled, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not answer.done():
                raise ClientDisconnect
        finally:
            gone.cancel()
            settled.cancel()

    def _check_model(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != self._service.name:
            raise Refusal(404, "no_such_model", f"there is no model {name[:80]!r}; there is {self._service.name!r}")
        served = self._service.recommender.manifest.version
        if version is not None and version != served:
            raise Refusal(404, "no_such_version", f"version {version[:80]!r} is not served; {served!r} is")


class Addresses:
    """Finds what answers a request; starlette's router would try one address after the other, and wrap each in layers.

    Args:
        routes: no two of one path.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._plain = {route.path: route for route in routes if not route.param_convertors}
        self._named = [route for route in routes if route.param_convertors]

    def find(self, scope: Scope) -> Endpoint:
        """The endpoint of a request, which its scope also tells from then on, with the names in its path.

        Raises:
            HTTPException: 404 if there is no such address, 405 if it takes another method.
        """
        route = self._plain.get(scope["path"]) or self._match(scope)
        if route is None:
            raise HTTPException(404)
        scope["endpoint"] = route.endpoint
        methods = route.methods or set()
        if scope["method"] not in methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        endpoint: Endpoint = route.endpoint
        return endpoint

    def _match(self, scope: Scope) -> Route | None:
        for route in self._named:
            match, found = route.matches(scope)
            if match is not Match.NONE:
                scope.update(found)
                return route
        return None


def build(service: Service, metrics: Metrics, log: AccessLog) -> ASGIApp:
    """The application, which logs and counts whatever it is asked.

    Args:
        service: that answers queries; it is not started here.
        metrics: where requests are counted.
        log: where requests are logged.
    """
    addresses = Addresses(Api(service, metrics).routes())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope.get("state", {}).get(SPARE) and scope["path"] not in HEALTH:
                raise Refusal(503, "too_many_connections", "there are too many connections; try again, or share one")
            endpoint = addresses.find(scope)
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)
        except HTTPException as error:
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
            await _failure(error.status_code, code, error.detail, error.headers)(scope, receive, send)
        except GenrecError as error:
            metrics.refused.labels(error.code).inc()
            if status_of(error) == 500:
                _log.error("%s %s: %s (%s)", scope["method"], scope["path"], error, error.code)
            await _failure(status_of(error), error.code, str(error), headers_of(error))(scope, receive, send)

    return Observed(app, service, metrics, log)


async def _settled(answer: Future[Answer], seconds: float) -> None:
    """Waits until another thread has answered, for so many seconds at most."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def call(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(wake)

    answer.add_done_callback(call)
    timer = loop.call_later(seconds, wake)
    try:
        await waiter
    finally:
        timer.cancel()


def _failure(status: int, code: str, message: str, headers: Mapping[str, str] | None) -> Response:
    return _json({"error": message, "code": code}, status, headers)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_dumps(content).encode(), status, headers, "application/json")
