"""Forks: a child has the memory of the process that loaded a bundle, and none of its threads."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref

from genrec_runtime.errors import ForkedProcessError

_KEPT: weakref.WeakSet[object] = weakref.WeakSet()


def require_process(pid: int) -> None:
    """Refuses to go on in a fork; to be asked before any lock, which a thread that is not here may hold.

    Args:
        pid: of the process that loaded the bundle.

    Raises:
        ForkedProcessError: if this is another.
    """
    if os.getpid() != pid:
        raise ForkedProcessError("this was loaded before the process was forked; load it in each process, or spawn")


def keep_in_forks(owner: object) -> None:
    """Lets no forked child take down what ``owner`` holds: a session waits there for ever for threads that it does not have."""
    _watch_forks()
    _KEPT.add(owner)


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_make_immortal)


def _make_immortal() -> None:
    for owner in _KEPT:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
