"""What processes of a pool do in tests; they import it by name."""

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from genrec_runtime import InputError
from genrec_runtime.batch import Counts, Job, Part, recommend_partition


def square(number: int) -> int:
    return number * number


def die_at(folder: Path, number: int) -> int:
    """Squares; the first process that is given 3 dies as if killed."""
    seen = folder / "seen"
    if number == 3 and not seen.exists():
        seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def always_die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise InputError("not this one", code="k", row=number)


def fail(number: int) -> int:
    raise RuntimeError("something else")


def stand_still(folder: Path, number: int) -> int:
    """Leaves its process id and stays."""
    (folder / f"process {os.getpid()}").touch()
    time.sleep(600)
    return number


def dying_partition(folder: Path, job: Job, part: Part) -> Counts:
    """``recommend_partition``, whose process dies once between what it has written of part 2 and the record of it."""
    from genrec_runtime.batch import publish

    appear = publish.appear

    def die(path: Path, content: bytes) -> None:
        if path.parent.name == "done" and part.number == 2 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        appear(path, content)

    publish.appear = die
    return recommend_partition(job, part)


def bound(work: Callable[..., object], *arguments: object) -> Callable[..., object]:
    """``work`` with its first arguments, picklable."""
    return functools.partial(work, *arguments)
