"""What the runtime makes of bundles damaged at random.

As a program, for a process that may die,

    python mutants.py FIRST COUNT

prints a line of JSON before each mutant is opened (its seed, and what was done) and one after (what came of it).
"""

import dataclasses
import faulthandler
import json
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from format_page import FROZEN
from frozen.replay import plain
from genrec_runtime import GenrecError, load
from genrec_runtime.bundle import Bundle
from genrec_runtime.compare import compare_outputs
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options
from mutations import Mutant, mutate

SECONDS = 120  # for one mutant; it takes a tenth of one
MEMORY = 8 << 30  # address space of the process: what asks for more fails, and the machine lives


def judge(
    original: Path, folder: Path, variant: str, mutant: Mutant, before: Any, calls: list[Mapping[str, Any]]
) -> str:
    """What the runtime makes of a mutant: "refused CODE", "as before", "another bundle"; "WRONG ..." is a fault of ours."""
    try:
        answers = ask(folder, variant, calls)
        if mutant.sealed and mutant.computes:
            return recorded(original, folder, variant)
    except GenrecError as error:
        return f"refused {error.code}"
    except Exception as error:
        return f"WRONG {type(error).__name__}: {error}"
    if answers == before:
        return "as before"
    return "another bundle" if mutant.sealed else "WRONG answers"


def ask(folder: Path, variant: str, calls: list[Mapping[str, Any]]) -> Any:
    """The answers to calls; where a bundle became one of the other kind, that it did."""
    served = load(folder, device="cpu", threads=1, variant=variant)
    asked = [(getattr(served, call["method"], None), call["arguments"]) for call in calls]
    return [plain(method(**arguments)) if method else "of another kind" for method, arguments in asked]


def recorded(original: Path, folder: Path, variant: str) -> str:
    """Whether the requests recorded in the original are answered as recorded there."""
    sound = Bundle.open(original)
    engine = Engine(Bundle.open(folder, variant=variant), Options("cpu", 1, variant))
    for graph in sound.manifest.graphs:
        for inputs, outputs in sound.golden(graph):
            found = engine.run(graph, inputs)
            if not compare_outputs(graph, found, outputs, sound.manifest.tolerance_of(variant)).same:
                return f"WRONG answers of {graph!r} to recorded requests"
    return "as before"


def main(first: int, count: int) -> None:
    """Makes and judges the mutants of the seeds ``first`` to ``first + count - 1``."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    calls = json.loads((FROZEN / "answers.json").read_bytes())
    known: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(first, first + count):
            kind, variant = random.Random(f"which {seed}").choice(
                [("recommender", "fp32")] * 4 + [("recommender", "int8"), ("recommender", "fp16"), ("module", "fp32")]
            )
            original, folder = FROZEN / kind, Path(place) / str(seed)
            if (kind, variant) not in known:
                known[kind, variant] = ask(original, variant, calls[kind])
            shutil.copytree(original, folder, copy_function=shutil.copyfile)
            mutant = mutate(folder, variant, seed)
            print(
                json.dumps({"seed": seed, "bundle": kind, "variant": variant, **dataclasses.asdict(mutant)}), flush=True
            )
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            verdict = judge(original, folder, variant, mutant, known[kind, variant], calls[kind])
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"seed": seed, "verdict": verdict}), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
