import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import RawId
from genrec_runtime import InputError, Recommender, batches
from tiny import ITEMS, Tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


def assert_close(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for row_a, row_b in zip(a, b, strict=True):
        np.testing.assert_allclose(row_a, row_b, **CLOSE)


# --- rows that the model cannot answer


def test_fault_16_rows_without_a_known_item_get_the_most_popular(served: Recommender) -> None:
    popular = served.catalogue.items.raw(served.catalogue.cold_start)
    answer = served.recommend([[], ["item 02"], ["?", 5], np.array([])], k=4, exclude=[[], [], [popular[1]], []])
    assert answer.status == ["cold_start", "model", "all_unknown", "cold_start"]
    assert answer.items[0] == answer.items[3] == popular[:4]
    assert answer.items[2] == [popular[0], *popular[2:5]]
    assert answer.scores[0].tolist() == np.float32([1, 1 / 2, 1 / 3, 1 / 4]).tolist()
    assert answer.scores[0].dtype == np.float32
    assert answer.unknown_items == 2


def test_fault_16_the_cold_start_list_is_the_torch_paths(tiny: Tiny, served: Recommender) -> None:
    histories: list[list[RawId]] = [[], ["?"], ["item 02"]]
    assert served.recommend(histories, k=7).items == [items for items, _ in tiny.torch_path.recommend(histories, 7)]


def test_fault_17_the_model_never_sees_a_row_of_padding_alone(
    served: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_sizes = []
    run = served._search._run

    def spy(graph: str, inputs: dict[str, np.ndarray], deadline: float | None) -> dict[str, np.ndarray]:
        assert inputs["item_ids"].any(axis=1).all()
        batch_sizes.append(len(inputs["item_ids"]))
        return run(graph, inputs, deadline)

    monkeypatch.setattr(served._search, "_run", spy)
    rows = [[], ["item 01"], ["?"]]
    served.recommend(rows)
    served.recommend(rows, candidates=[ITEMS] * 3)
    served.score(rows, [ITEMS] * 3)
    served.encode(rows)
    assert batch_sizes == [1, 1, 1, 1]
    served.recommend([[], ["?"]])
    assert len(batch_sizes) == 4


def test_fault_16_a_bundle_may_refuse_empty_histories(copied: Path, reseal: Callable[..., None]) -> None:
    reseal(copied, lambda data: data["defaults"].update(empty_history="error", on_unknown="error", k=3))
    strict = Recommender.load(copied, device="cpu", threads=1)
    assert strict.recommend([["item 01"]]).lengths.tolist() == [3]
    with pytest.raises(InputError, match=r"histories\[1\] holds no item of the catalogue") as caught:
        strict.recommend([["item 01"], []])
    assert caught.value.code == "empty_history"
    with pytest.raises(InputError, match=r"histories\[0\] holds '\?'"):
        strict.recommend([["?", "item 01"]])
    assert strict.recommend([["?", "item 01"]], on_unknown="drop").unknown_items == 1


def test_unknown_ids_can_be_refused(served: Recommender) -> None:
    with pytest.raises(InputError, match=r"histories\[1\] holds 'item 99'"):
        served.recommend([["item 01"], ["item 01", "item 99"]], on_unknown="error")


def test_a_history_of_foreign_ids_is_warned_of_once(tiny: Tiny) -> None:
    recommender = Recommender.load(tiny.path, device="cpu", threads=1)
    with pytest.warns(UserWarning, match="got int like 0, the bundle has str like 'item 00'") as caught:
        recommender.recommend([list(range(10))])
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recommender.recommend([list(range(10))])


# --- batches


def test_fault_15_no_rows_give_no_rows(served: Recommender) -> None:
    for rows in ([], (), np.zeros((0, 3), "U7")):
        answer = served.recommend(rows)
        assert (len(answer), answer.items, answer.scores, answer.status) == (0, [], [], [])
        assert answer.lengths.dtype == np.int64
    assert served.recommend([], exclude=[], candidates=[], available=ITEMS).items == []
    assert served.score([], []) == []
    assert served.encode([]).shape == (0, 12)
    assert served.encode([]).dtype == np.float32


def test_fault_39_neighbours_and_chunks_never_change_an_answer(tiny: Tiny, served: Recommender) -> None:
    random = np.random.default_rng(2)
    rows = [[ITEMS[i] for i in random.integers(0, 37, row % 15)] for row in range(1100)]  # 1100 > 2 * 512
    exclude = [[ITEMS[i] for i in random.integers(0, 37, row % 4)] for row in range(1100)]
    pools = [[ITEMS[i] for i in random.integers(0, 37, row % 9)] for row in range(1100)]
    together = served.recommend(rows, k=10, exclude=exclude)
    chosen = served.recommend(rows, k=10, exclude=exclude, candidates=pools)
    scores, states = served.score(rows, pools), served.encode(rows)
    for i in (*range(0, 1100, 25), 510, 511, 512, 513, 1023, 1024, 1099):
        alone = served.recommend([rows[i]], k=10, exclude=[exclude[i]])
        assert alone.items[0] == together.items[i]
        assert alone.status[0] == together.status[i]
        np.testing.assert_allclose(alone.scores[0], together.scores[i], **CLOSE)
        assert (
            served.recommend([rows[i]], k=10, exclude=[exclude[i]], candidates=[pools[i]]).items[0] == chosen.items[i]
        )
        np.testing.assert_allclose(served.score([rows[i]], [pools[i]])[0], scores[i], **CLOSE)
        np.testing.assert_allclose(served.encode([rows[i]])[0], states[i], **CLOSE)


def test_fault_39_one_wide_row_does_not_widen_all(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["item 01"], ITEMS[:30], ["item 02"], ["item 03"]]
    expected = served.recommend(rows, k=5).items, served.score(rows, [ITEMS, ITEMS[:1], [], ITEMS[:2]])
    cells: list[int] = []
    run = served._search._run

    def spy(graph: str, inputs: dict[str, np.ndarray], deadline: float | None) -> dict[str, np.ndarray]:
        cells.extend(value.size for name, value in inputs.items() if name in ("exclude", "candidates"))
        return run(graph, inputs, deadline)

    monkeypatch.setattr(served._search, "_run", spy)
    monkeypatch.setattr(batches, "CELLS", 40)
    assert served.recommend(rows, k=5).items == expected[0]
    assert_close(served.score(rows, [ITEMS, ITEMS[:1], [], ITEMS[:2]]), expected[1])
    assert max(cells) <= 40
    assert len(cells) == 4 + 4


def test_fault_49_equal_rows_get_equal_answers(served: Recommender) -> None:
    answer = served.recommend([["item 05", "item 09"]] * 3, k=5)
    assert answer.items[0] == answer.items[1] == answer.items[2]
    assert answer.scores[0].tobytes() == answer.scores[1].tobytes() == answer.scores[2].tobytes()
