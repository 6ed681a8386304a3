"""Recommenders whose models read times and users, over bundles written by hand; every expected score is ``timed.scores``'."""

import dataclasses
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import user_index
from genrec_runtime import DeadlineExceeded, InputError, Recommender, Reloader, Unsupported, batches
from genrec_runtime.checks import FURTHER
from timed import ITEMS, LENGTH, USERS, K, scores, write_timed

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: another order of adding up
Write = Callable[..., Recommender]

HISTORIES: list[list[Any]] = [
    ["item 1", "item 4", "item 4"],
    ["?", "item 2", 7, "item 8"],
    ["item 3"],
    ITEMS[:8],  # longer than the window
]
TIMES = [[10, 400, 900], [1, 50, 60, 70], [-5], list(range(100, 900, 100))]
KNOWN = [["item 1", "item 4", "item 4"], ["item 2", "item 8"], ["item 3"], ITEMS[:8]]
KNOWN_TIMES = [[10, 400, 900], [50, 70], [-5], list(range(100, 900, 100))]
USER_IDS = ["ann", None, 5, "bob"]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Loads a bundle that reads what it is told."""

    def write(*reads: str, **options: Any) -> Recommender:
        folder = write_timed(tmp_path_factory.mktemp("timed") / "bundle", reads, **options)
        return Recommender.load(folder, device="cpu", threads=1)

    return write


@pytest.fixture(scope="module")
def reader(write: Write) -> Recommender:
    """It reads all that there is."""
    return write(*FURTHER)


def fed(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """The inputs of every later run."""
    inputs: list[dict[str, np.ndarray]] = []
    run = recommender._search._run

    def spy(graph: str, given: dict[str, np.ndarray], deadline: float | None) -> Any:
        inputs.append(given)
        return run(graph, given, deadline)

    monkeypatch.setattr(recommender._search, "_run", spy)
    return inputs


def best(row: np.ndarray, without: list[Any], k: int) -> list[str]:
    """The ids of the highest scores."""
    order = np.argsort(-row, kind="stable").tolist()
    return [ITEMS[i] for i in order if ITEMS[i] not in without][:k]


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


# --- right answers


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("window", ["bucketed", "fixed"])
@pytest.mark.parametrize("now", [None, [1000, None, 0, 10**9]], ids=["newest", "given"])
def test_answers_follow_times_and_users_in_every_window(write: Write, window: str, side: str, now: Any) -> None:
    recommender = write(*FURTHER, window=window, padding=side)
    further: dict[str, Any] = {"timestamps": TIMES, "users": USER_IDS, "request_time": now}
    rows = zip(KNOWN, KNOWN_TIMES, now or [None] * 4, USER_IDS, strict=True)
    expected = [scores(*row) for row in rows]
    answer = recommender.recommend(HISTORIES, k=K, **further)
    lists = [best(row, seen, K) for row, seen in zip(expected, KNOWN, strict=True)]
    assert answer.items == lists
    assert_close(answer.scores, [[row[ITEMS.index(i)] for i in ids] for row, ids in zip(expected, lists, strict=True)])
    assert answer.unknown_items == 2
    assert_close(recommender.score(HISTORIES, [ITEMS] * 4, **further), expected)
    pools = [ITEMS[2:5], ITEMS, ITEMS[:1], ["?"]]
    ranked = recommender.recommend(HISTORIES, k=3, candidates=pools, exclude_seen=False, **further)
    assert ranked.items == [
        best(row, [item for item in ITEMS if item not in pool], 3) for row, pool in zip(expected, pools, strict=True)
    ]


def test_a_state_is_that_of_the_times_and_the_user(reader: Recommender) -> None:
    from timed import state

    states = reader.encode([["item 2", "?", "item 0"], []], timestamps=[[100, 200, 300], []], users=["ann", "bob"])
    expected = state([[3, 1]], [[100, 300]], [300], [user_index("ann", USERS)])
    np.testing.assert_allclose(states, [expected[0], np.zeros(3)], **CLOSE)


@pytest.mark.parametrize(
    "reads", [FURTHER[:2], FURTHER[:1], FURTHER[2:], ()], ids=["times", "no request", "users", "-"]
)
def test_a_model_is_asked_for_what_it_reads_and_for_no_more(write: Write, reads: tuple[str, ...]) -> None:
    recommender, histories = write(*reads), [["item 2", "item 7"], ["item 5"]]
    all_of_it = {"timestamps": [[5, 99], [3]], "request_time": [100, None], "users": ["ann", None]}
    given: dict[str, Any] = {name: all_of_it[name] for name in reads}
    found = recommender.score(histories, [ITEMS, ITEMS], **given)
    if "timestamps" in reads:  # a model without the request's time reads ages from 1970 on
        now: list[int] = [100, 3] if "request_time" in reads else [0, 0]
        expected = [scores(histories[0], [5, 99], now[0]), scores(histories[1], [3], now[1])]
    else:
        expected = [scores(histories[0], user="ann" if reads else None), scores(histories[1])]
    assert_close(found, expected)
    for name in set(FURTHER) - set(reads):
        calls: list[Callable[..., Any]] = [
            recommender.recommend,
            recommender.encode,
            lambda rows, **given: recommender.score(rows, [ITEMS, ITEMS], **given),
            lambda rows, **given: next(recommender.recommend_iter(rows, **given)),
        ]
        for call in calls:
            with pytest.raises(Unsupported, match=f"this model takes no {name}; it offers recommend"):
                call(histories, **given, **{name: all_of_it[name]})


def test_the_graph_is_fed_the_newest_known_items_and_their_times(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = write(*FURTHER, window="fixed")
    inputs = fed(recommender, monkeypatch)
    recommender.encode(HISTORIES, timestamps=TIMES, users=USER_IDS, request_time=[None, 71, None, 900])
    [given] = inputs
    assert given["item_ids"].tolist() == [[0, 0, 2, 5, 5], [0, 0, 0, 3, 9], [0, 0, 0, 0, 4], [4, 5, 6, 7, 8]]
    assert given["timestamps"].tolist() == [
        [0, 0, 10, 400, 900],
        [0, 0, 0, 50, 70],
        [0] * 4 + [-5],
        [400, 500, 600, 700, 800],
    ]
    assert given["request_time"].tolist() == [900, 71, -5, 900]
    assert given["users"].tolist() == [user_index("ann", USERS), 0, user_index(5, USERS), user_index("bob", USERS)]


def test_the_newest_time_is_that_of_the_newest_known_item(reader: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = fed(reader, monkeypatch)
    reader.encode([["item 1", "item 2", "?"], ["?", "item 3"]], timestamps=[[10, 20, 30], [1, 2]])
    assert inputs[0]["request_time"].tolist() == [20, 2]


# --- rows that the model does not see, and batches


def test_rows_without_a_known_item_are_answered_from_the_most_popular(
    reader: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = fed(reader, monkeypatch)
    answer = reader.recommend([[], ["item 3"], ["?"]], k=2, timestamps=[[], [7], [9]], users=["ann", "bob", "ann"])
    assert answer.status == ["cold_start", "model", "all_unknown"]
    assert answer.items == [ITEMS[:-3:-1], best(scores(["item 3"], [7], None, "bob"), ["item 3"], 2), ITEMS[:-3:-1]]
    assert [given["timestamps"].shape[0] for given in inputs] == [1]
    assert inputs[0]["users"].tolist() == [user_index("bob", USERS)]


def test_no_rows_give_no_rows(reader: Recommender) -> None:
    further: dict[str, Any] = {"timestamps": [], "users": [], "request_time": []}
    assert reader.recommend([], **further).items == []
    assert reader.score([], [], **further) == []
    assert reader.encode([], **further).shape == (0, 3)


@pytest.mark.parametrize("window", ["bucketed", "fixed"])
def test_neighbours_and_parts_change_no_answer(write: Write, monkeypatch: pytest.MonkeyPatch, window: str) -> None:
    recommender, random = write(*FURTHER, window=window), np.random.default_rng(4)
    lengths = random.integers(0, 9, 60)
    rows = [[[*ITEMS, "?"][i] for i in random.integers(0, 10, length)] for length in lengths]
    times = [np.sort(random.integers(-900, 900, length)).tolist() for length in lengths]
    now = [None if i % 3 else 1000 + i for i in range(60)]
    users = [None if i % 4 else i for i in range(60)]
    monkeypatch.setattr(batches, "ROWS", 7)
    inputs = fed(recommender, monkeypatch)
    together = recommender.recommend(rows, k=K, timestamps=times, request_time=now, users=users)
    states = recommender.encode(rows, timestamps=times, request_time=now, users=users)
    assert len(inputs) > 9
    for i in range(60):
        further: dict[str, Any] = {"timestamps": [times[i]], "request_time": [now[i]], "users": [users[i]]}
        alone = recommender.recommend([rows[i]], k=K, **further)
        assert (alone.items[0], alone.status[0]) == (together.items[i], together.status[i])
        np.testing.assert_allclose(alone.scores[0], together.scores[i], **CLOSE)
        np.testing.assert_allclose(recommender.encode([rows[i]], **further)[0], states[i], **CLOSE)


def test_a_deadline_holds(reader: Recommender) -> None:
    with pytest.raises(DeadlineExceeded):
        reader.recommend([["item 1"]], timestamps=[[1]], deadline=time.monotonic() - 1)


# --- what is refused


@pytest.mark.parametrize(
    ("further", "code", "message"),
    [
        ({"users": ["ann"]}, "no_timestamps", "pass timestamps, per history the times of its items in whole seconds"),
        ({"timestamps": [[1, 2], [3]]}, "row_count", "timestamps has 2 rows for 1 histories"),
        ({"timestamps": [[1]]}, "time_count", r"timestamps\[0\] has 1 times for the 2 ids"),
        ({"timestamps": [[2, 1]]}, "time_order", "before the 2"),
        ({"timestamps": [[1, 1_700_000_000_000]]}, "time_range", "pass seconds, not milliseconds"),
        ({"timestamps": [[1, 2]], "request_time": 5}, "shape", "request_time must be a list"),
        ({"timestamps": [[1, 2]], "users": ["ann", "bob"]}, "row_count", "users has 2 rows for 1 histories"),
        ({"timestamps": [[1, 2]], "users": [1.5]}, "user_type", r"users\[0\] is 1.5"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_every_call(
    reader: Recommender, further: dict[str, Any], code: str, message: str
) -> None:
    history = [["item 1", "?"]]
    calls: list[Callable[..., Any]] = [
        reader.recommend,
        reader.encode,
        lambda rows, **given: reader.score(rows, [ITEMS], **given),
    ]
    for call in calls:
        with pytest.raises(InputError, match=message) as caught:
            call(history, **further)
        assert caught.value.code == code


# --- streams


def test_times_and_users_run_along_a_stream_of_histories(reader: Recommender) -> None:
    expected = reader.recommend(HISTORIES, timestamps=TIMES, users=USER_IDS, request_time=[9, None, 3, 4])
    for size in (1, 3, 4, 9):
        found = list(
            reader.recommend_iter(
                iter(HISTORIES),
                timestamps=iter(TIMES),
                users=iter(USER_IDS),
                request_time=iter([9, None, 3, 4]),
                batch_size=size,
            )
        )
        assert [len(part) for part in found] == [size] * (4 // size) + [4 % size] * (4 % size > 0)
        assert [row for part in found for row in part.items] == expected.items


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        (3, "timestamps ends after 3 rows, and histories goes on"),
        (5, "histories ends after 4 rows, and timestamps goes on"),
    ],
)
def test_a_stream_that_ends_before_another_is_an_error_after_what_came_before(
    reader: Recommender, times: int, fault: str
) -> None:
    answers: Iterator[Any] = reader.recommend_iter(HISTORIES, timestamps=[*TIMES, [1]][:times], batch_size=2)
    assert len(next(answers)) == 2
    assert len(next(answers)) == min(4, times) - 2
    with pytest.raises(InputError, match=fault) as caught:
        next(answers)
    assert (caught.value.code, caught.value.field) == ("row_count", fault.split()[0])


def test_a_fault_of_a_stream_says_where_its_batch_begins(reader: Recommender) -> None:
    answers = reader.recommend_iter(HISTORIES, timestamps=[*TIMES[:3], [1]], batch_size=2)
    next(answers)
    with pytest.raises(InputError, match=r"timestamps\[1\] has 1 times for the 8 ids") as caught:
        next(answers)
    assert caught.value.__notes__ == ["rows are counted from row 2 of the stream"]


# --- a recommender's life


def test_a_pickled_copy_and_a_reloaded_bundle_answer_the_same(reader: Recommender, tmp_path: Path) -> None:
    further: dict[str, Any] = {"timestamps": TIMES, "users": USER_IDS}
    expected = reader.recommend(HISTORIES, **further).to_list()
    assert pickle.loads(pickle.dumps(reader)).recommend(HISTORIES, **further).to_list() == expected
    link = tmp_path / "current"
    link.symlink_to(write_timed(tmp_path / "plain", ()))
    with Reloader(link, rows=3) as following:
        with following.borrow() as plain, pytest.raises(Unsupported, match="takes no users"):
            plain.recommend(HISTORIES, **further)
        link.unlink()
        link.symlink_to(reader.path)
        assert following.reload()
        with following.borrow() as now:
            assert now.recommend(HISTORIES, **further).to_list() == expected


def test_warming_up_and_the_selftest_feed_every_input(reader: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = fed(reader, monkeypatch)
    reader.warmup(2)
    assert len(inputs) == len(reader.manifest.graphs) == 3
    for given in inputs:
        assert {name: given[name].shape for name in FURTHER} == {
            "timestamps": (2, LENGTH),
            "request_time": (2,),
            "users": (2,),
        }
    reader.selftest()


def test_a_bundle_without_a_graph_for_states_or_scores_recommends(write: Write, tmp_path: Path) -> None:
    recommender = write("users")
    few = dataclasses.replace(
        recommender._engine.bundle.manifest,
        graphs={"recommend": {"fp32": "recommend.onnx"}},
        signature={"recommend": recommender.manifest.signature["recommend"]},
    )
    (recommender.path / "manifest.json").write_bytes(few.identified().to_json())
    lean = Recommender.load(recommender.path, device="cpu", threads=1)
    assert lean.recommend([["item 3"]], users=["ann"], k=1).items == [
        best(scores(["item 3"], user="ann"), ["item 3"], 1)
    ]
    lean.warmup()
    for call in (lean.encode, lambda rows: lean.score(rows, [ITEMS]), lean.similar, lean.item_vectors):
        with pytest.raises(Unsupported, match="has no graph"):
            call([["item 3"]])
