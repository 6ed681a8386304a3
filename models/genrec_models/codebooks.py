"""How good semantic ids are: how evenly each level's codes are used, and how many items share theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from genrec.histories import Ints
from genrec.metrics.items import entropy

LEAST_USE = 0.8  # of a level's codes
MOST_COLLISIONS = 0.1


@dataclass(frozen=True)
class LevelReport:
    """One level over the whole catalogue.

    Args:
        used: codes that at least one item has.
        use: their share of all codes.
        perplexity: e to the entropy (in nats) of the codes' shares: so many codes, evenly used, would carry as much.
        residual_norm: mean length of what is left of the encoded vectors after this level, their own mean length being 1;
            None where the codes alone are known.
    """

    used: int
    use: float
    perplexity: float
    residual_norm: float | None


@dataclass(frozen=True)
class CodeReport:
    """All levels over the whole catalogue, before the code that resolves collisions.

    Args:
        items: how many there are.
        num_codes: codes of a level.
        levels: one a level.
        collision_rate: 1 - distinct ids / items.
        largest_group: most items that share an id.
    """

    items: int
    num_codes: int
    levels: tuple[LevelReport, ...]
    collision_rate: float
    largest_group: int

    @property
    def warnings(self) -> list[str]:
        """What falls short of the gates: a use of 80% on every level, and a collision rate of 10%."""
        found = [
            f"level {number} uses {level.used} of {self.num_codes} codes ({level.use:.0%}; at least {LEAST_USE:.0%} is good): "
            "fewer codes a level may serve as well"
            for number, level in enumerate(self.levels, start=1)
            if level.use < LEAST_USE
        ]
        if self.collision_rate > MOST_COLLISIONS:
            found.append(
                f"{self.collision_rate:.1%} of the items collide (at most {MOST_COLLISIONS:.0%} is good): they are told "
                "apart by a number that says nothing of them; better vectors, more levels or more codes help"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The fields, and the warnings, as JSON values."""
        return asdict(self) | {"levels": [asdict(level) for level in self.levels], "warnings": self.warnings}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CodeReport:
        """The inverse of ``to_json``.

        Raises:
            ValueError: if it is no such thing.
        """
        try:
            levels = tuple(LevelReport(**level) for level in content["levels"])
            rest = {f.name: content[f.name] for f in fields(cls) if f.name != "levels"}
        except (KeyError, TypeError) as error:
            raise ValueError(f"a report of codes lacks something or holds too much: {error!r}") from error
        return cls(levels=levels, **rest)

    def table(self) -> str:
        """For people: one line a level, then the collisions."""
        lines = [f"{'level':<6}{'used':>12}{'perplexity':>12}{'residual':>10}"]
        for number, level in enumerate(self.levels, start=1):
            used = f"{level.used} / {self.num_codes}"
            left = "" if level.residual_norm is None else f"{level.residual_norm:.3f}"
            lines.append(f"{number:<6}{used:>12}{level.perplexity:>12.1f}{left:>10}")
        return "\n".join([*lines, f"collisions {self.collision_rate:.2%}, largest group {self.largest_group} items"])


def report_codes(codes: Ints, num_codes: int, residual_norms: Sequence[float] | None = None) -> CodeReport:
    """Measures the codes of a catalogue.

    Args:
        codes: int64 (V, levels), each in 0..``num_codes`` - 1, without the code that resolves collisions.
        num_codes: codes of a level.
        residual_norms: mean relative length of what each level leaves over; None where it is not known.

    >>> report = report_codes(np.array([[0, 1], [0, 1], [1, 1], [0, 0]]), 2, [0.5, 0.25])
    >>> report.collision_rate, report.largest_group, report.levels[0].used
    (0.25, 2, 2)
    """
    sizes = np.unique(codes, axis=0, return_counts=True)[1]
    levels = []
    norms = [None] * codes.shape[1] if residual_norms is None else residual_norms
    for column, norm in zip(codes.T, norms, strict=True):
        counts = np.bincount(column, minlength=num_codes)
        used = int(np.count_nonzero(counts))
        levels.append(LevelReport(used, used / num_codes, 2 ** entropy(counts), norm))
    return CodeReport(len(codes), num_codes, tuple(levels), 1 - len(sizes) / len(codes), int(sizes.max()))


def collision_codes(codes: Ints, num_codes: int, before: Ints | None = None) -> Ints:
    """A last code that tells apart the items that share all others: 0, 1, ... inside each group, in the items' order.

    Args:
        codes: int64 (N, levels).
        num_codes: how many last codes there are.
        before: int64 (M, levels + 1), ids that stay as they are, their last code included; a group goes on after its highest.

    Returns:
        int64 (N,).

    Raises:
        ValueError: if a group is larger than ``num_codes``.

    >>> collision_codes(np.array([[5, 1], [5, 2], [5, 1]]), 4).tolist()
    [0, 0, 1]
    """
    before = np.zeros((0, codes.shape[1] + 1), dtype=np.int64) if before is None else before
    distinct, group = np.unique(np.concatenate([before[:, :-1], codes]), axis=0, return_inverse=True)
    old, new = np.split(group.reshape(-1), [len(before)])
    first = np.zeros(len(distinct), dtype=np.int64)  # the next free last code of each group
    np.maximum.at(first, old, before[:, -1] + 1)
    order = np.argsort(new, kind="stable")
    sizes = np.bincount(new, minlength=len(distinct))
    last = np.empty(len(codes), dtype=np.int64)
    last[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    last += first[new]
    if len(last) and last.max() >= num_codes:
        shared = codes[int(last.argmax())].tolist()
        raise ValueError(
            f"{int(last.max()) + 1} items share the codes {shared}, more than the {num_codes} last codes that tell them "
            "apart; take more levels or codes, or vectors that differ more"
        )
    return last
