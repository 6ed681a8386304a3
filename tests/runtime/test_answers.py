from typing import Any

import numpy as np
import pytest

from genrec_runtime import Recommendations


def answer(*rows: list[Any]) -> Recommendations:
    scores = [np.linspace(1, 0, len(row), dtype=np.float32) for row in rows]
    return Recommendations([list(row) for row in rows], scores, ["model"] * len(rows), 0)


def test_pairs_are_plain_values() -> None:
    assert answer([7, 3], []).to_list() == [[(7, 1.0), (3, 0.0)], []]


def test_lengths_are_those_of_the_rows() -> None:
    assert answer([7, 3], [], [5]).lengths.tolist() == [2, 0, 1]
    assert len(answer([7, 3], [], [5])) == 3


def test_shorter_rows_are_filled_up() -> None:
    items, scores = answer([7, 3], [], [5]).to_padded(-1)
    assert items.tolist() == [[7, 3], [-1, -1], [5, -1]]
    assert items.dtype == np.int64
    assert scores.tolist() == [[1, 0], [-np.inf, -np.inf], [1, -np.inf]]
    assert scores.dtype == np.float32


def test_padded_strings_are_not_cut() -> None:
    items, _ = answer(["a", "longer"], ["b"]).to_padded("nothing at all")
    assert items.tolist() == [["a", "longer"], ["b", "nothing at all"]]


@pytest.mark.parametrize(("fill", "kind"), [(-1, "i"), ("", "U")])
def test_empty_answers_keep_shape_and_kind(fill: Any, kind: str) -> None:
    for rows, shape in (((), (0, 0)), (([], []), (2, 0))):
        items, scores = answer(*rows).to_padded(fill)
        assert (items.shape, items.dtype.kind) == (shape, kind)
        assert (scores.shape, scores.dtype) == (shape, np.float32)


def test_a_filling_of_another_kind_is_refused_since_numpy_would_turn_all_ids_into_text() -> None:
    with pytest.raises(TypeError, match=r"fill \(''\) must be int, as the item ids are"):
        answer([7, 3], [5]).to_padded("")
    with pytest.raises(TypeError, match=r"fill \(0\) must be str"):
        answer(["a"]).to_padded(0)
    with pytest.raises(TypeError, match=r"fill \(True\)"):
        answer([7]).to_padded(True)
