"""Between a caller's raw ids and the item numbers that the graphs take and give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.histories import Catalogue, Ints, Ragged
from genrec_runtime.answers import Floats, Recommendations, Status
from genrec_runtime.errors import InferenceError, InputError
from genrec_runtime.histories import Histories, read_histories
from genrec_runtime.manifest import Manifest
from genrec_runtime.requests import Numbered, OnUnknown, number_list, number_rows, refuse, warn_if_foreign


class Reader:
    """Reads the arguments of a recommender's calls, and writes their answers.

    Args:
        catalogue: the bundle's items.
        manifest: of the bundle.
    """

    def __init__(self, catalogue: Catalogue, manifest: Manifest) -> None:
        self._items, self._manifest = catalogue.items, manifest
        self._warned = False  # of foreign ids: once is enough

    def histories(
        self, rows: Any, on_unknown: OnUnknown | None, further: Mapping[str, Any]
    ) -> tuple[Numbered, Histories]:
        """The histories of a call, numbered, and what the model reads of them.

        Args:
            rows: raw ids.
            on_unknown: what becomes of ids that the catalogue lacks; the bundle's default if None.
            further: ``timestamps``, ``request_time`` and ``users`` as they were passed, None where not.

        Raises:
            InputError: if one of them is not usable, or a row holds no known item and the bundle refuses such.
            Unsupported: if the model has no use for one of ``further``.
        """
        defaults = self._manifest.defaults
        refuse(self._manifest.capabilities, further)
        numbered = number_rows(
            self._items, rows, "histories", defaults.on_unknown if on_unknown is None else on_unknown
        )
        if not self._warned:
            self._warned = warn_if_foreign(self._items, numbered, stacklevel=3)
        if defaults.empty_history == "error" and not numbered.known.lengths.all():
            row = int(np.argmin(numbered.known.lengths))
            message = f"histories[{row}] holds no item of the catalogue"
            raise InputError(message, code="empty_history", row=row, field="histories")
        return numbered, read_histories(numbered, self._manifest.signature["recommend"], further)

    def rows(self, rows: Any, field: str, count: int, on_unknown: OnUnknown = "drop") -> Ragged:
        """The item numbers of an argument with one row for each of ``count`` histories."""
        numbered = number_rows(self._items, rows, field, on_unknown)
        if len(numbered.given) != count:
            message = f"{field} has {len(numbered.given)} rows for {count} histories"
            raise InputError(message, code="row_count", field=field, value=len(numbered.given))
        return numbered.known

    def items(self, items: Any) -> Ints:
        """The numbers of a flat list of known items."""
        return number_list(self._items, items, "items", "error")

    def mask(self, items: Any) -> NDArray[np.bool_]:
        """bool (V + 1,): true at the known ones of the items that are available; sealed."""
        mask = np.zeros(len(self._items) + 1, np.bool_)
        mask[number_list(self._items, items, "available")] = True
        return sealed(mask)

    def answer(self, lists: Sequence[tuple[Ints, Floats]], numbered: Numbered) -> Recommendations:
        """Lists of item numbers and scores as raw ids, beside what became of the rows that they answer."""
        try:
            raw = self._items.raw(np.concatenate([np.zeros(0, np.int64), *(items for items, _ in lists)]))
        except IndexError as error:
            raise InferenceError(f"the model gave items that do not exist: {error}", code="no_such_item") from error
        bounds = itertools.accumulate((len(items) for items, _ in lists), initial=0)
        items = [raw[start:end] for start, end in itertools.pairwise(bounds)]
        pairs = zip(numbered.known.lengths.tolist(), numbered.given.tolist(), strict=True)
        status: list[Status] = [
            "model" if known else "all_unknown" if given else "cold_start" for known, given in pairs
        ]
        return Recommendations(items, [scores for _, scores in lists], status, numbered.unknown)


def sealed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask that nobody can change, so that a device may keep its copy."""
    mask.setflags(write=False)
    return mask
