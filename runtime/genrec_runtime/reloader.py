"""Following a link such as ``store/current``: the next bundle is loaded beside the one that serves, and takes its place."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from genrec_runtime.bundle import Bundle
from genrec_runtime.device import CUDA
from genrec_runtime.errors import Closed
from genrec_runtime.forks import require_process
from genrec_runtime.memory import shortage
from genrec_runtime.options import DEFAULT, Options
from genrec_runtime.recommender import Recommender

_log = logging.getLogger(__name__)
_Place = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Event:
    """What came of a bundle that was found under the path.

    Attributes:
        kind: "swapped", it serves; "refused", the one before goes on serving.
        version: of the bundle; "" where it could not be read.
        error: why it was refused.
    """

    kind: Literal["swapped", "refused"]
    version: str
    error: Exception | None = None


class Reloader:
    """Serves the recommender bundle that a path points to, and the next one once the path points there.

    Calls within ``borrow`` use one bundle from start to end. At most one bundle is loaded at a time, beside the one that
    serves; a bundle that cannot be served changes nothing but ``last_error``. Calls may come from any thread.

    Args:
        path: a link such as ``store/current``.
        expect_digest: "sha256:..." of the manifest, to accept this bundle and no other wherever the path leads.
        options: as of ``Recommender.load``. Where "auto" took a GPU, the bundles that follow must start there, too.
        rows: every bundle is warmed up for calls of so many rows before it serves.
        on_event: is told what came of each bundle that was found, by the thread that looked; so is this module's logger.

    Attributes:
        last_error: why the bundle that the path points to does not serve; None where it does.

    Raises:
        GenrecError: if the first bundle cannot be served, as of ``Recommender.load``.
        ValueError: if ``rows`` is below 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        options: Options = DEFAULT,
        expect_digest: str | None = None,
        rows: int = 1,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self._path, self._options, self._rows, self._on_event = path, options, rows, on_event
        self._expect_digest = expect_digest
        self._pid = os.getpid()
        self._one_at_a_time = threading.RLock()  # whoever is told of an event may look again
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._loans: list[tuple[int, Recommender]] = []  # by thread
        self._available: list[Any] | None = None
        self._found: _Place | None = self._look()
        self._refused: _Place | None = None
        self._is_final = True  # what was refused, for another reason than the memory of the moment
        self.last_error: Exception | None = None
        self._recommender = self._load(path)
        if self._found[0] != str(self._recommender.path):  # the link moved meanwhile
            self._found = None
        if options.device == "auto" and CUDA in self._recommender.device_report.providers:
            self._options = dataclasses.replace(options, device="cuda")

    @property
    def recommender(self) -> Recommender:
        """What serves now, to be looked at; calls belong within ``borrow``, or it may be closed before they begin."""
        return self._recommender

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Recommender]:
        """The recommender for a call, or for several that belong together; it is not closed before the end of the block.

        Raises:
            Closed: if the reloader was closed.
            ForkedProcessError: if this process was forked since it was made.
        """
        require_process(self._pid)
        with self._changed:
            self._require_open()
            loan = (threading.get_ident(), self._recommender)
            self._loans.append(loan)
        try:
            yield loan[1]
        finally:
            with self._changed:
                self._loans.remove(loan)
                self._changed.notify_all()

    def set_available(self, items: Sequence[Any] | None) -> None:
        """As of the recommender, and for the bundles that follow, whose catalogues may know ids that this one does not.

        Raises:
            InputError: if it is no flat list of ids.
            Closed: if the reloader was closed.
            ForkedProcessError: if this process was forked since it was made.
        """
        require_process(self._pid)
        with self._changed:
            self._require_open()
            self._recommender.set_available(items)
            self._available = None if items is None else list(items)

    def reload(self) -> bool:
        """Serves what the path points to, if that is another bundle than before.

        It is loaded beside the old one if there is memory for both, verified, proved on its golden requests and warmed up;
        what is available is carried over; then it takes over, and the old one is closed once nobody borrows it. What was
        refused is not tried again before the path points elsewhere or another manifest is there; what found no memory is.
        Where several threads call, one loads while the others wait; what the path pointed to meanwhile is passed over.

        Returns:
            Whether another bundle took over; where it was refused, ``last_error`` says why.

        Raises:
            Closed: if the reloader was closed.
            ForkedProcessError: if this process was forked since it was made.
            RuntimeError: if this thread borrows: it would wait for itself.
        """
        self._require_no_loan()
        with self._one_at_a_time:
            self._require_open()
            found = self._look()
            if found == self._found:
                self._refused = self.last_error = None
                return False
            return not (found == self._refused and self._is_final) and self._follow(found)

    def watch(self, interval: float) -> None:
        """Calls ``reload`` every ``interval`` seconds in a thread of its own, until ``close``.

        Raises:
            ValueError: if ``interval`` is not above 0.
            RuntimeError: if it is watched already.
            Closed: if the reloader was closed.
            ForkedProcessError: if this process was forked since it was made.
        """
        require_process(self._pid)
        if not 0 < interval <= threading.TIMEOUT_MAX:
            raise ValueError(f"interval ({interval}) must be seconds above 0")
        with self._changed:
            self._require_open()
            if self._watcher is not None:
                raise RuntimeError("this reloader watches already")
            self._watcher = threading.Thread(target=self._watch, args=(interval,), name="genrec-reloader", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Ends the watching, waits for a load under way and for whoever borrows, then closes the recommender.

        Raises:
            RuntimeError: if this thread borrows: it would wait for itself.
        """
        if os.getpid() != self._pid:  # a fork has neither the threads nor the sessions
            return
        self._require_no_loan()
        with self._changed:
            self._stop.set()
            watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()
        with self._one_at_a_time:
            self._retire(self._recommender)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._stop.is_set():
            raise Closed("this reloader was closed; make another")

    def _require_no_loan(self) -> None:
        require_process(self._pid)
        with self._changed:
            if any(thread == threading.get_ident() for thread, _ in self._loans):
                raise RuntimeError("within borrow() this would wait for itself; call it outside of the block")

    def _watch(self, interval: float) -> None:
        while not self._stop.wait(interval):
            with contextlib.suppress(Closed):
                self.reload()

    def _look(self) -> _Place:
        """Where the path leads, and which file the manifest is there: equal as long as nothing was changed."""
        folder = os.path.realpath(self._path)
        try:
            status = os.stat(os.path.join(folder, "manifest.json"))
        except OSError:
            return folder, ()
        return folder, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _load(self, path: str | os.PathLike[str]) -> Recommender:
        recommender = Recommender._load(path, self._options, self._expect_digest)
        recommender.warmup(self._rows)
        return recommender

    def _follow(self, found: _Place) -> bool:
        """Loads what was found, and lets it take over unless something speaks against it."""
        folder, version, short = found[0], "", None  # not by the link, which may move
        try:
            manifest = Bundle.read_manifest(folder)
            version = manifest.version
            if manifest.bundle_id == self._recommender.manifest.bundle_id:  # elsewhere, but the same
                self._found, self._refused, self.last_error = found, None, None
                return False
            short = shortage(manifest, self._options.variant)
            if short is not None:
                raise short
            old = self._swap(self._load(folder))
        except Exception as error:  # whatever it is, the old one serves on
            if self._look() != found:  # passed over, and perhaps pruned
                _forget_locals(error)
                return self.reload()
            self._refuse(found, Event("refused", version, error), is_final=error is not short)
            return False
        self._found, self._refused, self.last_error = found, None, None
        self._retire(old)
        self._tell(Event("swapped", self._recommender.manifest.version))
        return True

    def _swap(self, new: Recommender) -> Recommender:
        """Lets ``new`` take over; returns the one before."""
        with self._changed:
            old = self._recommender
            new.set_available(old.available if self._available is None else self._available)
            self._recommender = new
        return old

    def _retire(self, old: Recommender) -> None:
        """Closes a recommender once nobody borrows it."""
        with self._changed:
            self._changed.wait_for(lambda: all(recommender is not old for _, recommender in self._loans))
        old.close()

    def _refuse(self, found: _Place, event: Event, *, is_final: bool) -> None:
        is_known = found == self._refused
        self._refused, self._is_final, self.last_error = found, is_final, event.error
        _forget_locals(event.error)
        if not is_known:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if event.error is None:
            _log.info("%s: version %s serves", self._path, event.version)
        else:
            _log.error(
                "%s: version %r was refused, the one before serves on: %s", self._path, event.version, event.error
            )
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            _log.exception("on_event failed")


def _forget_locals(error: BaseException | None) -> None:
    """Lets an error that is kept not keep the half-loaded bundle in the frames that it came through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
