"""Models that read times and users: what is served is what the owner's path answers, and what it would get wrong is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.histories import ItemIds, Ragged, RawId, user_index
from genrec_export import Exported, ExportError
from genrec_export.cases import histories_of_every_length, recommender_cases
from genrec_export.histories import Reads, Requests, numbered, raw_histories
from genrec_export.triton import write_repository
from genrec_runtime import Recommender
from genrec_runtime.manifest import TensorSpec
from recent import failed_levels, refused
from tests.export.further import (
    HISTORIES,
    ITEM_IDS,
    LENGTH,
    LIMITS,
    TIMES,
    USER_IDS,
    USERS,
    Ageing,
    V,
    export_ageing,
    read_right,
    reference_of,
)

ALL = Reads(("timestamps", "request_time", "users"), USERS)
PRODUCT = r"parity failed at product level: recommend, histories 0\.\.\d+"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An ``Ageing``, over the whole grid."""
    return export_ageing(tmp_path_factory.mktemp("ageing") / "store")


def test_the_bundle_says_what_its_graphs_read_in_the_order_of_the_format(exported: Exported) -> None:
    manifest = exported.manifest
    second = 10**11
    history = (
        TensorSpec("item_ids", "int64", ("batch", "length"), 0, V),
        TensorSpec("timestamps", "int64", ("batch", "length"), -second, second),
        TensorSpec("request_time", "int64", ("batch",), -second, second),
        TensorSpec("users", "int64", ("batch",), 0, USERS),
    )
    inputs = {name: signature.inputs for name, signature in manifest.signature.items()}
    assert inputs["encode"] == history
    assert inputs["recommend"][:4] == inputs["score"][:4] == history
    assert [spec.name for spec in inputs["recommend"][4:]] == ["exclude", "available"]
    assert [spec.name for spec in inputs["score"][4:]] == ["candidates"]
    assert [spec.name for spec in inputs["similar"]] == ["item", "available"]
    assert {"timestamps", "request_time", "users"} <= set(manifest.capabilities)
    assert manifest.semantics is not None
    assert (manifest.semantics.time_unit, manifest.semantics.window) == ("s", "bucketed")


def test_what_is_served_is_what_the_owner_answers(exported: Exported) -> None:
    served = Recommender.load(exported.path, device="cpu", threads=1)
    reference = reference_of(Ageing().eval())
    for wait in (0, 70, 10**9):
        newest = [read_right(*row, 0, None)[1][-1] for row in zip(HISTORIES, TIMES, strict=True)]
        asked = [time + wait for time in newest]
        answer = served.recommend(
            HISTORIES, timestamps=TIMES, request_time=asked if wait else None, users=USER_IDS, k=V
        )
        expected = reference(HISTORIES, TIMES, asked, USER_IDS)
        for row, (items, scores) in enumerate(expected):
            assert answer.items[row] == items
            np.testing.assert_allclose(answer.scores[row], scores, atol=1e-5)  # float32 sums in another order


def test_times_and_users_move_the_answers(exported: Exported) -> None:
    served = Recommender.load(exported.path, device="cpu", threads=1)
    history, times = [ITEM_IDS[:2]] * 3, [[5, 9]] * 3
    first, later, known = served.score(
        history, [ITEM_IDS] * 3, timestamps=times, request_time=[9, 10**9, 9], users=[None, None, "somebody"]
    )
    assert np.abs(first - later).max() > 0.1
    assert np.abs(first - known).max() > 0.1


def oldest_times(history: Any, times: Any, now: int, user: Any) -> Any:
    numbers, _, *rest = read_right(history, times, now, user)
    return numbers, times[: len(numbers)], *rest


def times_of_unknown_ids_kept(history: Any, times: Any, now: int, user: Any) -> Any:
    numbers, _, *rest = read_right(history, times, now, user)
    return numbers, times[-len(numbers) :], *rest


def always_now(history: Any, times: Any, now: int, user: Any) -> Any:
    numbers, seconds, _, token = read_right(history, times, now, user)
    return numbers, seconds, seconds[-1], token


def milliseconds(history: Any, times: Any, now: int, user: Any) -> Any:
    numbers, seconds, _, token = read_right(history, times, now, user)
    return numbers, [1000 * second for second in seconds], 1000 * now, token


def nobody(history: Any, times: Any, now: int, user: Any) -> Any:
    return *read_right(history, times, now, user)[:3], 0


def another_hash(history: Any, times: Any, now: int, user: Any) -> Any:
    *rest, token = read_right(history, times, now, user)
    return *rest, token % USERS + 1 if token else 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "read", [oldest_times, times_of_unknown_ids_kept, always_now, milliseconds, nobody, another_hash]
)
def test_an_owner_who_reads_otherwise_is_refused(tmp_path: Path, read: Callable[..., Any]) -> None:
    report = refused(tmp_path, PRODUCT, export_ageing, reference=reference_of(Ageing().eval(), read))
    assert failed_levels(report) == {"product"}
    with np.load(tmp_path / "store.failed" / "failing_input.npz") as kept:
        assert set(kept) >= {"history", "timestamps", "request_time"}
        assert kept["timestamps"].shape == kept["history"].shape


@pytest.mark.usefixtures("quick")
def test_padding_whose_time_counts_needs_a_fixed_window(tmp_path: Path) -> None:
    class Spread(Ageing):
        def forward(self, items: Tensor, timestamps: Tensor, request_time: Tensor, users: Tensor) -> Tensor:
            oldest = timestamps.amin(dim=1)  # 0, where there is padding
            return super().forward(items, timestamps, request_time, users) * torch.where(
                oldest == 0, 0.5, 1.0
            ).unsqueeze(1)

    net = Spread().eval()
    with pytest.raises(ExportError, match="parity failed at padding level"):
        export_ageing(tmp_path / "store", net=net, window="bucketed")
    with np.load(tmp_path / "store.failed" / "failing_input.npz") as failing:
        assert {name: len(values) for name, values in failing.items()} == dict.fromkeys(("item_ids", *ALL.names), 1)


@pytest.mark.usefixtures("quick")
def test_a_model_without_a_parameter_for_the_time_of_requests_is_served_without(tmp_path: Path) -> None:
    net = Ageing().eval()
    right = reference_of(net, lambda *row: (*read_right(*row)[:2], read_right(*row)[1][-1], 0))

    def reference(histories: Any, timestamps: Any) -> Any:
        return right(histories, timestamps, [0] * len(histories), [None] * len(histories))

    exported = export_ageing(
        tmp_path / "store", encode=net.without_requests, users=None, num_users=None, reference=reference
    )
    names = [spec.name for spec in exported.manifest.signature["encode"].inputs]
    assert names == ["item_ids", "timestamps"]
    assert not {"request_time", "users"} & set(exported.manifest.capabilities)
    served = Recommender.load(exported.path, device="cpu", threads=1)
    assert served.recommend([ITEM_IDS[:2]], timestamps=[[5, 9]]).status == ["model"]


@pytest.mark.usefixtures("small_grid")
def test_variants_read_the_same_whole_numbers(tmp_path: Path) -> None:
    exported = export_ageing(tmp_path / "store", variants=("fp16", "int8"))
    for variant in ("fp16", "int8"):
        served = Recommender.load(exported.path, device="cpu", variant=variant, threads=1)
        sessions = served.manifest.graphs["recommend"][variant]
        assert sessions == f"recommend.{variant}.onnx"
        answer = served.recommend(HISTORIES, timestamps=TIMES, users=USER_IDS, k=10)
        whole = Recommender.load(exported.path, device="cpu", threads=1)
        exact = whole.recommend(HISTORIES, timestamps=TIMES, users=USER_IDS, k=10)
        assert [set(row) for row in answer.items] == [set(row) for row in exact.items]


def test_the_repository_for_triton_states_the_inputs(exported: Exported, tmp_path: Path) -> None:
    write_repository(exported.path, tmp_path / "repository")
    text = (tmp_path / "repository" / "custom_encode" / "config.pbtxt").read_text()
    stated = [line.split('"')[1] for line in text.splitlines() if line.startswith("  name:")]
    assert stated == ["item_ids", "timestamps", "request_time", "users", "states"]
    assert text.count("data_type: TYPE_INT64") == 4
    assert 'dims: [-1]  # ["batch"]' in text


class Blind(nn.Module):
    """It takes times and does not look at them."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(V + 1, 3)

    def forward(self, items: Tensor, timestamps: Tensor) -> Tensor:
        return self.items(items).sum(dim=1) + 0 * timestamps.shape[1]


@pytest.mark.usefixtures("small_grid")
def test_a_model_that_ignores_what_it_takes_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "does not use its input 'timestamps': the model ignores it",
        export_ageing,
        net=Blind().eval(),
        users=None,
        num_users=None,
        window="fixed",
    )


def changed(place: int, times: Any) -> list[Any]:
    return [times if row == place else given for row, given in enumerate(TIMES)]


NET = Ageing().eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamps": TIMES[1:]}, "timestamps has 29 rows for 30 histories"),
        ({"timestamps": changed(2, [1, 2])}, r"timestamps\[2\] has 2 times for the 3 ids of histories\[2\]"),
        ({"timestamps": changed(1, [5, 4])}, r"timestamps\[1\]\[1\] is 4, before the 5 of the item before it"),
        ({"timestamps": changed(0, [10**12])}, "1000000000000, beyond .* seconds, not milliseconds"),
        ({"timestamps": changed(0, [1.5])}, "1.5"),
        ({"timestamps": changed(0, [True])}, "True"),
        ({"users": USER_IDS[1:]}, "users has 29 rows for 30 histories"),
        ({"users": [1.5, *USER_IDS[1:]]}, r"users\[0\] is 1.5"),
        ({"num_users": None}, r"users and num_users \(None\) go together"),
        ({"users": None}, r"users and num_users \(5\) go together"),
        ({"num_users": 0}, r"num_users \(0\) must be at least 1"),
        (
            {"encode": NET.without_requests},
            "encode has no parameter users: it is called with users=.*; it has items, timestamps",
        ),
    ],
)
def test_times_and_users_that_are_none_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_ageing(tmp_path / "store", net=NET, **options)
    assert not (tmp_path / "store").exists()


def test_the_grid_draws_times_that_never_fall_and_users_known_or_not() -> None:
    real = Requests(
        Ragged.from_rows([[1, 2, 3], [4]]),
        Ragged.from_rows([[7, 7, 9], [2]]),
        np.array([11, 2]),
        np.array([0, 3]),
    )
    cases = dict(recommender_cases("score", V, [1, 2, 5], "left", real, ALL))
    gaps, waits, users = set(), set(), set()
    for case, inputs in cases.items():
        assert list(inputs) == ["item_ids", "timestamps", "request_time", "users", "candidates"]
        items, times = inputs["item_ids"], inputs["timestamps"]
        assert times.shape == items.shape
        assert not times[items == 0].any()
        steps = np.diff(times, axis=1)[(items != 0)[:, :-1]]
        alive = items.any(axis=1)
        wait = (inputs["request_time"] - times[:, -1])[alive]
        assert (steps >= 0).all(), case
        assert (wait >= 0).all(), case
        assert np.abs(times).max() < 10**11
        gaps, waits, users = (
            gaps | set(steps.tolist()),
            waits | set(wait.tolist()),
            users | set(inputs["users"].tolist()),
        )
    times = np.concatenate([inputs["timestamps"].ravel() for inputs in cases.values()])
    assert times.min() < 0 < 10**9 < times.max()  # before 1970, and of these days
    year = 365 * 86_400
    for found in (gaps, waits):
        assert 0 in found
        assert max(found) >= year
        assert any(0 < seconds < year for seconds in found)
    assert users == set(range(USERS + 1))
    own = cases["B=2 L=2 real"]
    assert own["timestamps"].tolist() == [[7, 9], [0, 2]]
    assert (own["request_time"].tolist(), own["users"].tolist()) == ([11, 2], [0, 3])


def test_tried_histories_keep_the_times_of_their_events() -> None:
    items = ItemIds(["a", "b", "c"])
    given: list[list[RawId]] = [["a", "?", "b"], ["c", "a", "?"]]
    raw = raw_histories(given, [[10, 20, 30], [1, 2, 3]], ["ann", 7])
    tried = histories_of_every_length(items, raw, 4, ALL)
    assert [(history.items, history.times, history.user) for history in tried[:2]] == [
        (["a", "?", "b"], [10, 20, 30], "ann"),
        (["c", "a", "?"], [1, 2, 3], 7),
    ]
    assert (tried[0].request_time, tried[0].implied) == (30, True)
    assert tried[1].request_time == 2  # of the newest known event, not of the unknown one; a gap of 0 later
    cut = {"b": 30, "a": 2}
    assert tried[2].times == [cut[str(tried[2].items[0])]]
    assert (tried[3].items, tried[3].times) in [(["a", "b"], [10, 30]), (["c", "a"], [1, 2])]
    assert [len(history.times) for history in tried[2:]] == [1, 2, 3, 4]
    assert all(history.times == sorted(history.times) for history in tried)
    assert tried[5].user is None  # every fourth of those made
    assert {history.user for history in tried[2:5]} <= {"ann", 7}
    waits = [history.request_time - history.known(items).times[-1] for history in tried]
    assert [wait == 0 for wait in waits] == [history.implied for history in tried]
    assert max(waits) > 0


def test_numbers_are_those_of_what_the_catalogue_has() -> None:
    items = ItemIds(["a", "b"])
    raw = raw_histories([["b", "?", "a"], ["a"]], [[10, 20, 30], [4]], ["ann", None])
    found = numbered(items, raw, ALL)
    assert found.items.values.tolist() == [2, 1, 1]
    assert found.timestamps is not None
    assert found.timestamps.values.tolist() == [10, 30, 4]
    assert found.users is not None
    assert found.users.tolist() == [user_index("ann", USERS), 0]
    assert list(numbered(items, raw, Reads()).inputs(2, "left")) == ["item_ids"]


def test_a_history_is_asked_about_as_a_list_unless_more_is_read() -> None:
    raw = raw_histories([["b", "a"]], [[10, 30]], ["ann"])[0]
    assert raw.line(Reads()) == '["b", "a"]'
    assert raw.line(ALL) == '{"history": ["b", "a"], "timestamps": [10, 30], "user": "ann"}'
    assert raw.line(Reads(("users",), 3)) == '{"history": ["b", "a"], "user": "ann"}'


def test_limits_of_the_example_are_met() -> None:
    gaps = np.concatenate([np.array(times)[-1] - np.array(times) for times in TIMES])
    assert set(np.searchsorted(LIMITS, gaps, side="right")) == set(range(len(LIMITS) + 1))
    assert max(map(len, HISTORIES)) > 2 * LENGTH
