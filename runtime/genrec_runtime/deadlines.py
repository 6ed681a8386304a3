"""Deadlines: instants of ``time.monotonic()`` after which nobody waits for an answer any more."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from numbers import Real
from typing import Any

from genrec_runtime.errors import DeadlineExceeded, InputError, short


def seconds_left(deadline: float) -> float:
    """What is left until a deadline, in seconds.

    Raises:
        InputError: if it is no instant.
        DeadlineExceeded: if it has passed.
    """
    try:
        instant = float(deadline) if isinstance(deadline, Real) and not isinstance(deadline, bool) else math.nan
    except OverflowError:  # an int beyond all floats
        instant = math.nan
    if not math.isfinite(instant):
        message = f"deadline ({short(deadline)}) must be an instant of time.monotonic()"
        raise InputError(message, code="deadline", field="deadline", value=deadline)
    late = time.monotonic() - instant
    if late >= 0:
        raise DeadlineExceeded(f"the deadline passed {late:.3f} s ago; a deadline is time.monotonic() + seconds")
    return -late


@contextlib.contextmanager
def stopping_at(onnxruntime: Any, deadline: float) -> Iterator[Any]:
    """Run options that make onnxruntime stop, between two operators, when the deadline passes.

    Raises:
        InputError: if ``deadline`` is no instant.
        DeadlineExceeded: if it has passed, or passes before the run inside ends.
    """
    left = seconds_left(deadline)
    options = onnxruntime.RunOptions()
    timer = threading.Timer(min(left, threading.TIMEOUT_MAX), setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception as error:
        if options.terminate:
            raise DeadlineExceeded(f"the deadline passed during the run, {left:.3f} s after its start") from error
        raise
    finally:
        timer.cancel()
