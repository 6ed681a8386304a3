"""What load.py asks, and how it judges answers. The standard library alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ATOL = RTOL = 1e-5  # of scores: float32, sums in another order, as in rounds.py
RIGHT = ("right", "tied")  # as expected; or but for items whose scores are equal within the tolerance


@dataclass(frozen=True)
class Work:
    """Requests and their answers.

    Attributes:
        bodies: requests, as JSON.
        items: the raw ids of each request's answer, best first; no two answers are the same.
        scores: their scores.
        bad: bodies of requests that must be answered with 400.
    """

    bodies: list[str]
    items: list[list[Any]]
    scores: list[list[float]]
    bad: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Work:
        """What ``write`` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> Path:
        """Writes it as JSON."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], int]:
        return {tuple(items): place for place, items in enumerate(self.items)}

    def judge(self, place: int, body: bytes) -> tuple[str, str]:
        """What an answer with status 200 is: "right", "tied", "mixed up" (another request's) or "wrong"; and why, in words.

        Args:
            place: of the request.
            body: of the answer.
        """
        try:
            answer = json.loads(body)
            items, scores = answer["items"], answer["scores"]
            if items == self.items[place] and is_close(scores, self.scores[place]):
                return "right", ""
            if is_tied(items, scores, self.items[place], self.scores[place]):
                return "tied", ""
            kind = "wrong" if self._places.get(tuple(items), place) == place else "mixed up"
        except (ValueError, LookupError, TypeError) as error:
            return "wrong", f"request {place}: {error!r} in {body[:200]!r}"
        return kind, f"request {place} got {body[:200]!r}, right are {self.items[place]} with {self.scores[place]}"


def is_close(scores: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether scores are the expected ones within the tolerance, place by place."""
    return len(scores) == len(expected) and all(
        abs(a - b) <= ATOL + RTOL * abs(b) for a, b in zip(scores, expected, strict=True)
    )


def is_tied(items: Sequence[Any], scores: Sequence[float], expected: Sequence[Any], right: Sequence[float]) -> bool:
    """Whether two lists differ by float32's last digits alone: in the order, or the last, of items that score the same.

    >>> is_tied([7, 5, 3], [0.9, 0.8, 0.8], [7, 3, 5], [0.9, 0.8, 0.8])
    True
    >>> is_tied([5, 7, 3], [0.9, 0.8, 0.8], [7, 3, 5], [0.9, 0.8, 0.8])
    False
    """
    if len(set(items)) != len(expected) or not is_close(scores, right):
        return False
    places = dict(zip(expected, right, strict=True))
    return is_close(scores, [places.get(item, right[-1]) for item in items])


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of sorted values that this share of them does not exceed; NaN of none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan
