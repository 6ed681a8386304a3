"""Asking a frozen bundle what was asked when it was frozen. As a program it does so under whatever runtime it finds:

    python replay.py BUNDLE < CALLS

``CALLS`` is JSON, a list of ``{"method": ..., "arguments": {...}}``; what ``look`` gives is printed, as JSON too.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import genrec
import genrec_runtime

Calls = Sequence[Mapping[str, Any]]


def look(bundle: Path, calls: Calls) -> dict[str, Any]:
    """What the runtime that is imported makes of a bundle.

    Returns:
        ``genrec``: its version; ``excess``: by file the worst answer to a golden request, over its tolerance; ``answers``: by
        variant those to ``calls``.
    """
    seen = genrec_runtime.verify(bundle)
    variants = ["fp32", *genrec_runtime.load(bundle, device="cpu").manifest.variants]
    return {
        "genrec": genrec.__version__,
        "excess": {name: difference.excess for name, difference in seen.differences.items()},
        "answers": {variant: replay(bundle, variant, calls) for variant in variants},
    }


def replay(bundle: Path, variant: str, calls: Calls) -> list[Any]:
    """The answers to calls of a bundle's public methods, as JSON values, in one variant of its graphs."""
    served = genrec_runtime.load(bundle, device="cpu", threads=1, variant=variant)
    return [plain(getattr(served, call["method"])(**call["arguments"])) for call in calls]


def plain(answer: Any) -> Any:
    """What a method of the runtime gives, as JSON has it."""
    if isinstance(answer, np.ndarray):
        return answer.tolist()
    if isinstance(answer, genrec_runtime.Recommendations):
        return {field.name: plain(getattr(answer, field.name)) for field in dataclasses.fields(answer)}
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    return [plain(value) for value in answer] if isinstance(answer, list) else answer


if __name__ == "__main__":
    json.dump(look(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)
