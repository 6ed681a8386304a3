from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import RawId
from genrec_runtime import InferenceError, InputError, Module, Recommender, Unsupported, batches
from tiny import ITEMS, MAX_SEQ_LENGTH, Tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: other batch sizes add up in another order


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


def test_fault_18_of_a_long_history_the_newest_count_and_all_are_left_out(tiny: Tiny, served: Recommender) -> None:
    history = ITEMS[: 4 * MAX_SEQ_LENGTH]
    long, short = served.recommend([history, history[-MAX_SEQ_LENGTH:]], k=20, exclude_seen=False).items
    assert long == short
    answer = served.recommend([history], k=20)
    assert answer.items == [[item for item in served_order(served, history) if item not in history]]
    assert answer.lengths.tolist() == [len(ITEMS) - len(history)]


def served_order(served: Recommender, history: list[Any]) -> list[Any]:
    """Every item, best first."""
    items = served.catalogue.items.all()
    return [items[i] for i in np.argsort(-served.score([history], [items])[0], kind="stable")]


def test_fault_19_a_history_of_a_million_items_is_answered(served: Recommender) -> None:
    history = ITEMS[:30] * 40_000
    assert served.recommend([history, ["item 31"]], k=20).items == [
        served.recommend([ITEMS[:30]], k=20).items[0],  # the newest six are the same, and so is all that was seen
        served.recommend([["item 31"]], k=20).items[0],
    ]


def test_fault_22_an_item_may_come_again_and_again(tiny: Tiny, served: Recommender) -> None:
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


def test_fault_11_strings_to_a_catalogue_of_numbers_are_unknown(numbers: Path) -> None:
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
    assert together.items == [[i for i in served_order(recommender, row) if i not in row] for row in rows]


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(
            {"exclude": [["item 01"]]}, "row_count", "exclude has 1 rows for 2 histories", id="fault_43 exclude"
        ),
        pytest.param({"candidates": [["item 01"]] * 3}, "row_count", "candidates has 3 rows for 2", id="43 candidates"),
        pytest.param({"exclude": ["item 01", "item 02"]}, "shape", r"exclude\[0\]", id="fault_20 exclude is flat"),
        pytest.param({"candidates": ["item 01"]}, "shape", r"candidates\[0\]", id="fault_20 candidates are flat"),
        pytest.param(
            {"available": [["item 01"]]}, "id_type", "available: .* got \\['item 01'\\]", id="fault_20 available"
        ),
        pytest.param({"exclude": [[1.5], []]}, "id_type", r"exclude\[0\]: .* got 1.5", id="fault_08 exclude"),
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
def test_fault_42_what_the_model_does_not_take_is_refused_by_name(served: Recommender, name: str) -> None:
    with pytest.raises(Unsupported, match=rf"this model takes no {name}; it offers recommend, .*exclude"):
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
    np.testing.assert_allclose(scores[0][0], scores[0][2], **CLOSE)  # one item twice: its place may decide the last bit
    assert scores[2].tolist() == np.float32([1 / 1, 1 / 2]).tolist()  # the tiny catalogue's most popular two
    assert all(row.dtype == np.float32 for row in scores)
    everything = dict(served.recommend([["item 02"]], k=20, exclude_seen=False).to_list()[0])
    for item, score in zip(candidates[0], scores[0].tolist(), strict=True):
        if item in everything:
            np.testing.assert_allclose(score, everything[item], **CLOSE)


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
    for history in (["item 01"], []):  # also where the model is not asked at all
        with pytest.raises(Unsupported, match=r"has no graph 'score'; it has .*recommend"):
            recommender.score([history], [["item 02"]])
        with pytest.raises(Unsupported, match="has no graph 'score'"):
            recommender.recommend([history], candidates=[["item 02"]])
        with pytest.raises(Unsupported, match="has no graph 'encode'"):
            recommender.encode([history])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fault_40_scores_that_are_no_numbers_are_never_answered(
    served: Recommender, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    def broken(graph: str, inputs: dict[str, np.ndarray], deadline: float | None) -> dict[str, np.ndarray]:
        rows = len(inputs["item_ids"])
        return {"items": np.ones((rows, 20), np.int64), "scores": np.full((rows, 20), bad, np.float32)}

    monkeypatch.setattr(served._engine, "run", broken)
    with pytest.raises(InferenceError, match="graph 'recommend' gave scores that are no numbers") as caught:
        served.recommend([["item 01"]])
    assert caught.value.code == "non_finite_scores"


def test_items_that_do_not_exist_are_never_answered(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: str, inputs: dict[str, np.ndarray], deadline: float | None) -> dict[str, np.ndarray]:
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
def test_fault_57_fault_58_files_may_change_under_a_loaded_bundle(copied: Path, damage: str) -> None:
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


def test_warming_up_opens_every_graph_and_runs_no_more_rows_than_a_call_does(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender, sizes = Recommender.load(tiny.path, device="cpu", threads=1), []
    execute = recommender._engine._execute

    def spy(graph: str, session: Any, inputs: dict[str, np.ndarray], options: Any) -> dict[str, np.ndarray]:
        sizes.append(len(inputs["item" if "item" in inputs else "item_ids"]))
        return execute(graph, session, inputs, options)

    monkeypatch.setattr(batches, "SCORES", 5 * len(ITEMS))
    recommender.warmup()  # the golden requests are of any size
    monkeypatch.setattr(recommender._engine, "_execute", spy)
    recommender.warmup(3)
    recommender.warmup(100_000)
    graphs = len(recommender.manifest.graphs)
    assert sizes == [3] * graphs + [5] * graphs
    assert len(recommender._engine._sessions) == graphs
    with pytest.raises(ValueError, match=r"rows \(0\) must be at least 1"):
        recommender.warmup(0)
