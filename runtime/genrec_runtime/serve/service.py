"""A bundle that is followed, behind a queue: what the web application calls. Knows nothing of HTTP."""

from __future__ import annotations

import functools
import gc
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from genrec_runtime.errors import Closed, GenrecError, InferenceError, InputError
from genrec_runtime.recommender import Recommender
from genrec_runtime.reloader import Event, Reloader
from genrec_runtime.serve.availability import AvailabilityFile
from genrec_runtime.serve.batcher import Batcher
from genrec_runtime.serve.metrics import Metrics
from genrec_runtime.serve.queries import Answer, Checked, Query, answer, check, weight
from genrec_runtime.serve.settings import Settings

State = Literal["starting", "ready", "ending", "failed"]
_log = logging.getLogger(__name__)


class NotReady(GenrecError):
    """The bundle is not loaded yet, the service ends, or its device was lost."""

    code = "not_ready"


class Service:
    """Loads a bundle, follows its path, and answers queries in batches. Calls may come from any thread.

    Args:
        settings: how to serve.
        metrics: where it is counted.

    Attributes:
        state: "starting" until the bundle has answered its golden requests and was warmed up; "ready"; "ending"; "failed"
            once the device was lost: then only a new process helps.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.state: State = "starting"
        self._reloader: Reloader | None = None
        self._is_settled = False
        self._availability = None if settings.availability is None else AvailabilityFile(settings.availability)
        self._wake, self._end = threading.Event(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="genrec-watch", daemon=True)
        self._batcher: Batcher[Checked, Answer] = Batcher(
            self._answer,
            max_rows=settings.max_batch,
            max_wait=settings.max_wait,
            max_queue=settings.max_queue,
            threads=settings.threads,
            is_fatal=self._is_fatal,
            on_batch=metrics.on_batch,
        )
        metrics.queue.set_function(lambda: self._batcher.queued)
        metrics.max_queue.set(settings.max_queue)
        metrics.ready.set_function(lambda: self.state == "ready")
        metrics.reload_refused.set_function(
            lambda: self._reloader is not None and self._reloader.last_error is not None
        )
        availability = self._availability
        metrics.availability_refused.set_function(
            lambda: availability is not None and availability.last_error is not None
        )

    def start(self) -> None:
        """Loads the bundle, verifies it, replays its golden requests and warms it up; then it is ready.

        Raises:
            GenrecError: if the bundle cannot be served.
            OSError: if the availability file cannot be read.
        """
        settings = self.settings
        reloader = Reloader(
            settings.bundle,
            expect_digest=settings.expect_digest,
            options=settings.options,
            rows=settings.max_batch,
            on_event=self._on_event,
        )
        self._reloader = reloader
        self.metrics.on_bundle(reloader.recommender)
        self._count_available(reloader.recommender)
        if self._availability is not None:
            self._read_availability(self._availability, reloader)
        self._watcher.start()
        if self.state == "starting":
            self.state = "ready"

    @property
    def recommender(self) -> Recommender:
        """What serves now, to be looked at.

        Raises:
            NotReady: if nothing does.
        """
        if self._reloader is None:
            raise NotReady("the bundle is being loaded; try again")
        return self._reloader.recommender

    @property
    def name(self) -> str:
        """What the model is called.

        Raises:
            NotReady: if that is not known yet.
        """
        return self.settings.name or str(self.recommender.manifest.model.get("name") or "model")

    def submit(self, query: Query, deadline: float) -> Future[Answer]:
        """Checks a query, then puts it in the queue.

        Args:
            query: of at most ``max_rows`` rows.
            deadline: an instant of ``time.monotonic()``.

        Raises:
            NotReady: if no bundle can answer now.
            InputError: if the query is not usable.
            Unsupported: if the bundle has no use for an argument.
            Overloaded: if the queue is full.
            Closed: if the service ended.
        """
        if self.state == "failed":
            raise NotReady("the device was lost; this process has to be started anew")
        checked = check(self.recommender, query)
        rows, most = weight(query), self.settings.max_rows
        if rows > most:
            message = f"the request counts {rows} rows, {most} are taken at most; send several requests"
            raise InputError(message, code="too_large", field="histories", value=rows)
        return self._batcher.submit(checked, rows=rows, key=checked.key, deadline=deadline)

    def look(self) -> None:
        """Looks at the bundle's path and the availability file now instead of at the next interval."""
        self._wake.set()

    def refuse_new(self) -> None:
        """Is no longer ready; requests that come nevertheless are answered."""
        if self.state != "failed":
            self.state = "ending"

    def give_up(self) -> None:
        """What is unanswered gets ``Closed`` now."""
        self._batcher.close(0.0)

    def close(self, timeout: float) -> bool:
        """Answers what waits, and ends; what cannot be answered in time gets ``Closed``.

        Returns:
            Whether nothing was left, and nothing runs any more: another bundle may still be loading.
        """
        end = time.monotonic() + timeout
        self.refuse_new()
        self._end.set()
        self._wake.set()
        if not self._batcher.close(timeout):
            return False
        if self._reloader is None:
            return True
        closing = threading.Thread(target=self._reloader.close, name="genrec-close", daemon=True)
        closing.start()
        closing.join(max(0.1, end - time.monotonic()))
        return not closing.is_alive()

    def _answer(self, queries: list[Checked]) -> list[Answer | Exception]:
        assert self._reloader is not None
        with self._reloader.borrow() as recommender:
            found = answer(recommender, queries)
            self.metrics.on_answers(recommender, [one for one in found if isinstance(one, Answer)])
        return found

    def _is_fatal(self, error: Exception) -> bool:
        is_fatal = isinstance(error, InferenceError) and error.code == "device_lost"
        if is_fatal and self.state != "failed":
            self.state = "failed"
            _log.critical("the device was lost, start this process anew: %s", error)
        return is_fatal

    def _watch(self) -> None:
        assert self._reloader is not None
        looks: list[Callable[[], object]] = [self._settle, self._reloader.reload]
        if self._availability is not None:
            looks.append(functools.partial(self._follow_availability, self._availability, self._reloader))
        while not self._end.is_set():
            self._wake.wait(self.settings.interval)
            self._wake.clear()
            for look in looks if not self._end.is_set() else []:
                try:
                    look()
                except Closed:
                    return
                except Exception:
                    _log.exception("looking for changes failed")

    def _settle(self) -> None:
        """Spares the garbage collector what lives as long as the bundle: all threads wait while it looks through that.

        It comes an interval after the bundle, when calls on the one before have ended and that can be collected.
        """
        if not self._is_settled:
            self._is_settled = True
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    def _on_event(self, event: Event) -> None:
        self.metrics.reloads.labels(event.kind).inc()
        if event.kind == "swapped":
            self._is_settled = False
            self.metrics.on_bundle(self.recommender)
            self._count_available(self.recommender)
            if self._availability is not None:
                self._availability.again()

    def _follow_availability(self, file: AvailabilityFile, reloader: Reloader) -> None:
        try:
            self._read_availability(file, reloader)
        except (OSError, InputError) as error:
            self.metrics.availability.labels("refused").inc()
            _log.error("%s was refused, what was available stays so: %s", file.path, error)

    def _read_availability(self, file: AvailabilityFile, reloader: Reloader) -> None:
        found = file.changed(reloader.recommender.catalogue.items)
        if found is None:
            return
        reloader.set_available(found)
        self.metrics.availability.labels("swapped").inc()
        self._count_available(reloader.recommender)
        _log.info("%s: %d ids", file.path, len(found))

    def _count_available(self, recommender: Recommender) -> None:
        available = recommender.available
        self.metrics.available.set(recommender.semantics.num_items if available is None else len(available))
