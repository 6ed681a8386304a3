import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import RawId
from genrec_runtime import InferenceError, InputError, Module, Recommender, Unsupported, batches
from tiny import ITEMS, MAX_SEQ_LENGTH, Tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


def brute_force(
    served: Recommender, histories: list[list[Any]], k: int, hidden: list[set[Any]], pools: list[list[Any]]
) -> list[list[Any]]:
    """The best of each pool by score(), highest first and the lower id among equals, without what is hidden."""
    lists = []
    for history, without, pool in zip(histories, hidden, pools, strict=True):
        items = sorted(set(pool) - without)
        scores = served.score([history], [items])[0]
        lists.append([items[i] for i in np.lexsort((np.arange(len(items)), -scores))[:k]])
    return lists


def seen(histories: list[list[Any]]) -> list[set[Any]]:
    return [set(history) for history in histories]


def assert_close(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for row_a, row_b in zip(a, b, strict=True):
        np.testing.assert_allclose(row_a, row_b, **CLOSE)


# --- equal to torch


@pytest.mark.parametrize("k", [1, 10, 20])
def test_lists_are_those_of_the_torch_path(tiny: Tiny, served: Recommender, k: int) -> None:
    expected = tiny.torch_path.recommend(tiny.histories, k)
    answer = served.recommend(tiny.histories, k=k)
    assert answer.items == [items for items, _ in expected]
    assert_close(answer.scores, [scores for _, scores in expected])
    assert {len(history) for history in tiny.histories} >= {1, MAX_SEQ_LENGTH, MAX_SEQ_LENGTH + 1, 14}


def test_histories_with_unknown_ids_are_answered_as_the_torch_path_does(tiny: Tiny, served: Recommender) -> None:
    histories: list[list[RawId]] = [["unknown", *history, 17] for history in tiny.histories]
    expected = tiny.torch_path.recommend(histories, 10)
    answer = served.recommend(histories, k=10)
    assert answer.items == [items for items, _ in expected]
    assert answer.unknown_items == 2 * len(histories)
    assert answer.items == served.recommend(tiny.histories, k=10).items


def test_18_of_a_long_history_the_newest_count_and_all_are_left_out(tiny: Tiny, served: Recommender) -> None:
    history = ITEMS[: 4 * MAX_SEQ_LENGTH]
    long, short = served.recommend([history, history[-MAX_SEQ_LENGTH:]], k=20, exclude_seen=False).items
    assert long == short
    answer = served.recommend([history], k=20)
    assert answer.items == [[item for item in served_order(served, history) if item not in history]]
    assert answer.lengths.tolist() == [len(ITEMS) - len(history)]


def served_order(served: Recommender, history: list[str]) -> list[Any]:
    """Every item, best first."""
    scores = served.score([history], [ITEMS])[0]
    return [ITEMS[i] for i in np.argsort(-scores, kind="stable")]


def test_19_a_history_of_a_million_items_is_answered(served: Recommender) -> None:
    history = ITEMS[:30] * 40_000
    assert served.recommend([history, ["item 31"]], k=20).items == [
        served.recommend([ITEMS[:30]], k=20).items[0],  # the newest six are the same, and so is all that was seen
        served.recommend([["item 31"]], k=20).items[0],
    ]


def test_22_an_item_may_come_again_and_again(tiny: Tiny, served: Recommender) -> None:
    histories: list[list[RawId]] = [["item 03"] * 4, ["item 03", "item 07", "item 03"]]
    assert served.recommend(histories).items == [items for items, _ in tiny.torch_path.recommend(histories, 10)]


# --- raw ids of a catalogue of numbers


def test_ids_of_zero_below_and_beyond_32_bits_are_ids_like_others(numbers: Path) -> None:
    recommender = Recommender.load(numbers, device="cpu", threads=1)
    history = [0, -7, 2**62]
    answer = recommender.recommend([history], k=11)
    assert sorted(answer.items[0]) == sorted(set(recommender.catalogue.items.all()) - set(history))
    assert all(type(item) is int for item in answer.items[0])
    assert answer.unknown_items == 0
    recommender.selftest()


def test_11_strings_to_a_catalogue_of_numbers_are_unknown(numbers: Path) -> None:
    recommender = Recommender.load(numbers, device="cpu", threads=1)
    answer = recommender.recommend([["3", 3], ["3"]], k=2)
    assert answer.status == ["model", "all_unknown"]
    assert answer.items[0] == recommender.recommend([[3]], k=2).items[0]


def test_a_fixed_window_padded_on_the_right_gives_one_answer_alone_and_in_a_batch(numbers: Path) -> None:
    recommender = Recommender.load(numbers, device="cpu", threads=1)
    rows = [[3], [3, 5, 8, 11, 100], [41, 41]]
    together = recommender.recommend(rows, k=11)
    alone = [recommender.recommend([row], k=11) for row in rows]
    assert together.items == [one.items[0] for one in alone]
    assert_close(together.scores, [one.scores[0] for one in alone])
    assert together.items == brute_force(recommender, rows, 11, seen(rows), [recommender.catalogue.items.all()] * 3)


# --- what is left out, and what may be chosen from


def test_35_what_was_seen_is_left_out_unless_it_is_asked_for(tiny: Tiny, served: Recommender) -> None:
    histories = tiny.histories[:9]
    every = [list(ITEMS)] * 9
    assert served.recommend(histories, k=20).items == brute_force(served, histories, 20, seen(histories), every)
    again = served.recommend(histories, k=20, exclude_seen=False)
    assert again.items == brute_force(served, histories, 20, [set()] * 9, every)
    assert again.items != served.recommend(histories, k=20).items


def test_exclude_leaves_out_further_items(tiny: Tiny, served: Recommender) -> None:
    histories = tiny.histories[:3]
    exclude: list[list[Any]] = [ITEMS[:20], [], ["item 30", "unknown", "item 30", 8]]
    hidden = [a | set(b) for a, b in zip(seen(histories), exclude, strict=True)]
    every = [list(ITEMS)] * 3
    assert served.recommend(histories, k=15, exclude=exclude).items == brute_force(served, histories, 15, hidden, every)
    hidden = [set(row) for row in exclude]
    assert served.recommend(histories, k=15, exclude=exclude, exclude_seen=False).items == brute_force(
        served, histories, 15, hidden, every
    )


def test_36_with_everything_excluded_nothing_is_recommended(served: Recommender) -> None:
    answer = served.recommend([["item 01"], [], ["?"]], exclude=[ITEMS, ITEMS, ITEMS])
    assert answer.items == [[], [], []]
    assert [scores.tolist() for scores in answer.scores] == [[], [], []]


def test_available_is_all_that_anybody_gets(tiny: Tiny, served: Recommender) -> None:
    histories = [*tiny.histories[:5], [], ["?"]]
    available = ["item 04", "item 30", "item 11", "unknown", "item 36", "item 04"]
    answer = served.recommend(histories, k=20, available=available)
    known = [*available[:3], available[4]]
    assert answer.items[:5] == brute_force(served, histories[:5], 20, seen(histories[:5]), [known] * 5)
    assert answer.items[5:] == [["item 36", "item 30", "item 11", "item 04"]] * 2  # the tiny catalogue's cold start
    assert served.recommend(histories, available=[]).lengths.tolist() == [0] * 7
    assert (
        served.recommend(histories, available=np.array(known)).items
        == served.recommend(histories, available=known).items
    )


def test_37_candidates_are_ranked_each_once_and_unknown_ones_dropped(tiny: Tiny, served: Recommender) -> None:
    random = np.random.default_rng(8)
    histories = tiny.histories[:14]
    candidates: list[list[Any]] = [[ITEMS[i] for i in random.integers(0, 37, n)] for n in range(14)]
    candidates[5] += ["unknown", candidates[5][0], 7]
    answer = served.recommend(histories, k=10, candidates=candidates)
    known = [[item for item in row if item in ITEMS] for row in candidates]
    assert answer.items == brute_force(served, histories, 10, seen(histories), known)
    for history, items, scores in zip(histories, answer.items, answer.scores, strict=True):
        np.testing.assert_allclose(served.score([history], [items])[0], scores, **CLOSE)
    assert answer.items[0] == []  # no candidate, no recommendation


def test_all_items_as_candidates_give_what_no_candidates_give(tiny: Tiny, served: Recommender) -> None:
    whole = served.recommend(tiny.histories, k=20)
    ranked = served.recommend(tiny.histories, k=20, candidates=[ITEMS] * len(tiny.histories))
    assert ranked.items == whole.items
    assert_close(ranked.scores, whole.scores)


def test_candidates_exclude_and_available_hold_together(tiny: Tiny, served: Recommender) -> None:
    histories = [*tiny.histories[:3], []]
    answer = served.recommend(
        histories,
        k=30,
        candidates=[ITEMS[:30]] * 4,
        exclude=[ITEMS[:10]] * 4,
        available=ITEMS[5:25],
        exclude_seen=False,
    )
    assert answer.items[:3] == brute_force(served, histories[:3], 30, [set(ITEMS[:10])] * 3, [ITEMS[10:25]] * 3)
    assert answer.items[3] == ITEMS[10:25][::-1]


def test_candidates_may_be_asked_for_more_than_k_max(served: Recommender) -> None:
    answer = served.recommend([["item 01"], []], k=30, candidates=[ITEMS, ITEMS])
    assert answer.lengths.tolist() == [30, 30]
    with pytest.raises(InputError, match=r"k \(30\) is above this bundle's 20; export with --k-max 30"):
        served.recommend([["item 01"]], k=30)


def test_equal_scores_go_to_the_lower_id(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.load(numbers, device="cpu", threads=1)

    def all_equal(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"scores": np.zeros(inputs["candidates"].shape, np.float32)}

    monkeypatch.setattr(recommender, "_run", all_equal)
    pool = [100, 5, -7, 77, 0]
    assert recommender.recommend([[3]], k=4, candidates=[pool]).items == [[-7, 0, 5, 77]]


# --- rows that the model cannot answer


def test_16_rows_without_a_known_item_get_the_most_popular(served: Recommender) -> None:
    popular = served.catalogue.items.raw(served.catalogue.cold_start)
    answer = served.recommend([[], ["item 02"], ["?", 5], np.array([])], k=4, exclude=[[], [], [popular[1]], []])
    assert answer.status == ["cold_start", "model", "all_unknown", "cold_start"]
    assert answer.items[0] == answer.items[3] == popular[:4]
    assert answer.items[2] == [popular[0], *popular[2:5]]
    assert answer.scores[0].tolist() == np.float32([1, 1 / 2, 1 / 3, 1 / 4]).tolist()
    assert answer.scores[0].dtype == np.float32
    assert answer.unknown_items == 2


def test_16_the_cold_start_list_is_the_torch_paths(tiny: Tiny, served: Recommender) -> None:
    histories: list[list[RawId]] = [[], ["?"], ["item 02"]]
    assert served.recommend(histories, k=7).items == [items for items, _ in tiny.torch_path.recommend(histories, 7)]


def test_17_the_model_never_sees_a_row_of_padding_alone(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_sizes = []
    run = served._run

    def spy(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert inputs["item_ids"].any(axis=1).all()
        batch_sizes.append(len(inputs["item_ids"]))
        return run(graph, inputs)

    monkeypatch.setattr(served, "_run", spy)
    rows = [[], ["item 01"], ["?"]]
    served.recommend(rows)
    served.recommend(rows, candidates=[ITEMS] * 3)
    served.score(rows, [ITEMS] * 3)
    served.encode(rows)
    assert batch_sizes == [1, 1, 1, 1]
    served.recommend([[], ["?"]])
    assert len(batch_sizes) == 4


def test_16_a_bundle_may_refuse_empty_histories(copied: Path, reseal: Callable[..., None]) -> None:
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


def test_15_no_rows_give_no_rows(served: Recommender) -> None:
    for rows in ([], (), np.zeros((0, 3), "U7")):
        answer = served.recommend(rows)
        assert (len(answer), answer.items, answer.scores, answer.status) == (0, [], [], [])
        assert answer.lengths.dtype == np.int64
    assert served.recommend([], exclude=[], candidates=[], available=ITEMS).items == []
    assert served.score([], []) == []
    assert served.encode([]).shape == (0, 12)
    assert served.encode([]).dtype == np.float32


def test_39_neighbours_and_chunks_never_change_an_answer(tiny: Tiny, served: Recommender) -> None:
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


def test_39_one_wide_row_does_not_widen_all(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["item 01"], ITEMS[:30], ["item 02"], ["item 03"]]
    expected = served.recommend(rows, k=5).items, served.score(rows, [ITEMS, ITEMS[:1], [], ITEMS[:2]])
    cells: list[int] = []
    run = served._run

    def spy(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        cells.extend(value.size for name, value in inputs.items() if name in ("exclude", "candidates"))
        return run(graph, inputs)

    monkeypatch.setattr(served, "_run", spy)
    monkeypatch.setattr(batches, "CELLS", 40)
    assert served.recommend(rows, k=5).items == expected[0]
    assert_close(served.score(rows, [ITEMS, ITEMS[:1], [], ITEMS[:2]]), expected[1])
    assert max(cells) <= 40
    assert len(cells) == 4 + 4


def test_49_equal_rows_get_equal_answers(served: Recommender) -> None:
    answer = served.recommend([["item 05", "item 09"]] * 3, k=5)
    assert answer.items[0] == answer.items[1] == answer.items[2]
    assert answer.scores[0].tobytes() == answer.scores[1].tobytes() == answer.scores[2].tobytes()


def test_90_threads_share_one_recommender(tiny: Tiny) -> None:
    recommender = Recommender.load(tiny.path, device="cpu", threads=1)  # its other graphs are not open yet
    expected = recommender.recommend(tiny.histories, k=5).items
    wrong: list[Any] = []

    def work() -> None:
        for i, history in enumerate(tiny.histories):
            found = recommender.recommend([history], k=5).items[0]
            recommender.score([history], [ITEMS[:3]])
            if found != expected[i]:
                wrong.append((i, found))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param({"exclude": [["item 01"]]}, "row_count", "exclude has 1 rows for 2 histories", id="43 exclude"),
        pytest.param({"candidates": [["item 01"]] * 3}, "row_count", "candidates has 3 rows for 2", id="43 candidates"),
        pytest.param({"exclude": ["item 01", "item 02"]}, "shape", r"exclude\[0\]", id="20 exclude is flat"),
        pytest.param({"candidates": ["item 01"]}, "shape", r"candidates\[0\]", id="20 candidates are flat"),
        pytest.param({"available": [["item 01"]]}, "id_type", "available: .* got \\['item 01'\\]", id="20 available"),
        pytest.param({"exclude": [[1.5], []]}, "id_type", r"exclude\[0\]: .* got 1.5", id="08 exclude"),
        pytest.param({"exclude_seen": "no"}, "flag", r"exclude_seen \('no'\) must be True or False", id="33 a flag"),
        pytest.param({"on_unknown": "keep"}, "on_unknown", "must be 'drop' or 'error'", id="33 a word"),
        pytest.param({"k": 0}, "k", "must be a whole number of at least 1", id="28 k"),
        pytest.param({"k": 2**32 + 3}, "k", "is above this bundle's 20", id="31 k"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    served: Recommender, arguments: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        served.recommend([["item 01"], ["item 02"]], **arguments)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["users", "timestamps", "request_time"])
def test_42_what_the_model_does_not_take_is_refused_by_name(served: Recommender, name: str) -> None:
    with pytest.raises(Unsupported, match=f"this model takes no {name}; it offers recommend, exclude"):
        served.recommend([["item 01"]], **{name: [[5]]})


def test_score_wants_candidates_that_exist(served: Recommender) -> None:
    with pytest.raises(InputError, match=r"candidates\[0\] holds 'item 99'"):
        served.score([["item 01"]], [["item 99"]])
    with pytest.raises(InputError, match="candidates has 2 rows for 1 histories"):
        served.score([["item 01"]], [[], []])


def test_score_gives_one_number_a_candidate_in_their_order(tiny: Tiny, served: Recommender) -> None:
    candidates = [["item 07", "item 01", "item 07"], [], ["item 36", "item 35"]]
    scores = served.score([["item 02"], ["item 03"], []], candidates)
    assert [len(row) for row in scores] == [3, 0, 2]
    assert scores[0][0] == scores[0][2]
    assert scores[2].tolist() == np.float32([1 / 1, 1 / 2]).tolist()  # the tiny catalogue's most popular two
    assert all(row.dtype == np.float32 for row in scores)
    everything = dict(served.recommend([["item 02"]], k=20, exclude_seen=False).to_list()[0])
    for item, score in zip(candidates[0], scores[0].tolist(), strict=True):
        if item in everything:
            assert score == pytest.approx(everything[item], rel=1e-5)


def test_encode_gives_the_models_state_of_each_user(tiny: Tiny, served: Recommender) -> None:
    torch = pytest.importorskip("torch")
    rows = [["item 02", "item 03"], [], ITEMS[:9]]
    states = served.encode(rows)
    windows = [served.catalogue.items.index(row[-MAX_SEQ_LENGTH:]) for row in rows]
    with torch.inference_mode():
        expected = [tiny.model.user_state(torch.from_numpy(window[None]))[0] for window in (windows[0], windows[2])]
    np.testing.assert_allclose(states[[0, 2]], torch.stack(expected), **CLOSE)
    assert states[1].tolist() == [0.0] * 12


def test_a_bundle_without_a_graph_says_what_it_lacks(copied: Path, reseal: Callable[..., None]) -> None:
    def drop(data: dict[str, Any]) -> None:
        for name in ("score", "encode"):
            del data["graphs"][name], data["signature"][name]

    reseal(copied, drop)
    recommender = Recommender.load(copied, device="cpu", threads=1)
    assert recommender.recommend([["item 01"]]).lengths.tolist() == [10]
    with pytest.raises(Unsupported, match="has no graph 'score'; it has recommend"):
        recommender.score([["item 01"]], [["item 02"]])
    with pytest.raises(Unsupported, match="has no graph 'score'"):
        recommender.recommend([["item 01"]], candidates=[["item 02"]])
    with pytest.raises(Unsupported, match="no graph 'encode'"):
        recommender.encode([["item 01"]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_40_scores_that_are_no_numbers_are_never_answered(
    served: Recommender, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    def broken(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(inputs["item_ids"])
        return {"items": np.ones((rows, 20), np.int64), "scores": np.full((rows, 20), bad, np.float32)}

    monkeypatch.setattr(served._engine, "run", broken)
    with pytest.raises(InferenceError, match="graph 'recommend' gave scores that are no numbers") as caught:
        served.recommend([["item 01"]])
    assert caught.value.code == "non_finite_scores"


def test_items_that_do_not_exist_are_never_answered(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"items": np.zeros((1, 20), np.int64), "scores": np.zeros((1, 20), np.float32)}

    monkeypatch.setattr(served._engine, "run", broken)
    with pytest.raises(InferenceError, match=r"item numbers must lie in 1\.\.37, got 0"):
        served.recommend([["item 01"]])


# --- loading


def test_a_bundle_opens_through_a_link(tiny: Tiny, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(tiny.path)
    assert Recommender.load(link, device="cpu", threads=1).recommend([["item 01"]]).lengths.tolist() == [10]


@pytest.mark.parametrize("damage", ["overwrite", "truncate", "delete"])
def test_57_58_files_may_change_under_a_loaded_bundle(copied: Path, damage: str) -> None:
    recommender = Recommender.load(copied, device="cpu", threads=1)
    expected = recommender.recommend([["item 01"]]).to_list()
    for path in (copied / "weights.bin", copied / "score.onnx"):  # the score graph is opened only after this
        if damage == "overwrite":
            with open(path, "r+b") as file:
                file.write(b"\xff" * path.stat().st_size)
        elif damage == "truncate":
            path.write_bytes(b"")
        else:
            path.unlink()
    assert recommender.recommend([["item 01"]]).to_list() == expected
    items = [item for item, _ in expected[0]]
    np.testing.assert_allclose(recommender.score([["item 01"]], [items])[0], [s for _, s in expected[0]], **CLOSE)


def test_a_module_is_not_opened_as_a_recommender(features: Path, tiny: Tiny) -> None:
    with pytest.raises(Unsupported, match=r"kind 'module'; open it with Module\.load"):
        Recommender.load(features, device="cpu")
    with pytest.raises(Unsupported, match=r"kind 'recommender'; open it with Recommender\.load"):
        Module.load(tiny.path, device="cpu")
