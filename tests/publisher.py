"""Publishing step by step: what comes before each step on the disk is chosen by a test, death included.

Run as a program, this file is processes that are killed while they publish, or that publish at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from genrec_export import writer
from genrec_export.writer import Published, publish, staging, write_files, write_manifest
from genrec_runtime.bundle import Bundle

LATE = ("report.json", "README.md")  # written after the proof
STEPS = ("mkdir", "chmod", "fchmod", "fsync", "rename", "replace", "symlink", "unlink")  # of os


def put(bundle: Path, store: Path, name: str = "new", *, promote: bool = True) -> Published:
    """Publishes graphs, weights and goldens of a bundle in the exporter's own steps; ``name`` makes it a version of its own."""
    source = Bundle.open(bundle)
    roles = {file: entry.role for file, entry in source.manifest.files.items()}
    early = {file: source.bytes(file) for file, role in roles.items() if file not in LATE and role != "items"}
    late = {file: source.bytes(file) for file in LATE}
    manifest = replace(source.manifest, model={"name": name, "config": {}})
    with staging(store) as folder:
        entries = write_files(folder, early)
        write_manifest(folder, replace(manifest, files=entries))
        manifest = write_manifest(folder, replace(manifest, files=entries | write_files(folder, late)))
        return publish(folder, store, manifest, promote=promote)


class Halves(io.FileIO):
    """A file that writes everything in two halves, with a step between."""

    act: Callable[[str], None]

    def write(self, content: Any) -> int:
        done = super().write(content[: len(content) // 2]) or 0
        self.act("write")
        return done + (super().write(content[done:]) or 0)


@contextlib.contextmanager
def before_every_step(act: Callable[[str], None]) -> Iterator[None]:
    """Calls ``act`` with a step's name before everything that changes the disk, and in the middle of every file."""

    def step(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        paths = [os.path.basename(path) for path in arguments if not isinstance(path, int)]
        act(" ".join([name, *paths[-1:]]))
        return function(*arguments, **options)

    def halves(path: Path, mode: str) -> Halves:
        act(f"open {path.name}")
        file = Halves(path, mode)
        file.act = act
        return file

    with contextlib.ExitStack() as patches:
        for name in STEPS:
            patches.enter_context(patch.object(os, name, functools.partial(step, name, getattr(os, name))))
        patches.enter_context(patch.object(writer, "open", halves, create=True))
        yield


def at(number: int, action: Callable[[], None]) -> Callable[[str], None]:
    """Takes ``action`` at the step with this number, from 0."""
    seen: list[str] = []

    def act(step: str) -> None:
        seen.append(step)
        if len(seen) == number + 1:
            action()

    return act


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(work: Callable[[Path], object], folder: Path, every: int) -> None:
    """Kills one process after another before a step of ``work``, each in a store of its own; prints steps and exit codes."""
    steps_file = folder / "steps.json"

    def count() -> None:
        steps: list[str] = []
        store = copy_store(folder, "counted")
        with before_every_step(steps.append):
            work(store)
        steps_file.write_text(json.dumps(steps))

    def killed(number: int, store: Path) -> None:
        with before_every_step(at(number, kill_me)):
            work(store)

    assert forked(count) == 0
    steps = json.loads(steps_file.read_text())
    for number in range(0, len(steps), every):
        store = copy_store(folder, f"store {number // every}")
        print(json.dumps([steps[number], forked(functools.partial(killed, number, store))]), flush=True)


def forked(work: Callable[[], object]) -> int:
    """The exit code of a process that does ``work``, negative for a signal."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def copy_store(folder: Path, name: str) -> Path:
    if (folder / "before").exists():
        shutil.copytree(folder / "before", folder / name, symlinks=True)
    return folder / name


def race(bundle: Path, store: Path, meet: str, *models: str) -> None:
    """Publishes from several processes that wait for one another before the step ``meet``; prints version and ``is_new``."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(models))

    def act(step: str) -> None:
        if step.startswith(meet):
            barrier.wait(60)

    def one(model: str) -> None:
        with before_every_step(act):
            published = put(bundle, store, model, promote=False)
        os.write(1, json.dumps([published.path.name, published.is_new]).encode() + b"\n")  # in one piece

    processes = [context.Process(target=one, args=(model,)) for model in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


def run(what: str, bundle: str, folder: str, *more: str) -> None:
    if what == "race":
        race(Path(bundle), Path(folder), *more)
    elif what == "kill":
        promote = (Path(folder) / "before").exists()
        kill(functools.partial(put, Path(bundle), promote=promote), Path(folder), 1)
    else:
        from genrec_export import cases
        from recent import export_recent

        cases.BATCHES = (2,)
        forked(functools.partial(export_recent, Path(folder) / "warm"))  # torch makes folders of its own, once
        kill(functools.partial(export_recent, promote=True), Path(folder), 4)


if __name__ == "__main__":
    run(*sys.argv[1:])
