"""Items by their vectors, and which items a recommender may answer with: ``similar``, ``item_vectors``, ``set_available``."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec_runtime import Closed, InputError, Module, Recommendations, Recommender, Unsupported, search
from tiny import ITEMS, Tiny

ROUNDING = 1e-6  # of a cosine: a few float32 products and sums of at most 1


@pytest.fixture
def recommender(tiny: Tiny) -> Recommender:
    """The tiny bundle, loaded for one test."""
    return Recommender.load(tiny.path, device="cpu", threads=1)


@pytest.fixture(scope="module", params=["tiny", "numbers"])
def either(request: pytest.FixtureRequest) -> Recommender:
    """Recommenders of string ids and of int ids, the latter in another order than the model's."""
    found = request.getfixturevalue(request.param)
    return Recommender.load(found.path if request.param == "tiny" else found, device="cpu", threads=1)


def cosines(recommender: Recommender) -> NDArray[np.float64]:
    """(V, V) in the order of ``catalogue.items``, in double precision; an item has -inf with itself."""
    vectors = recommender.item_vectors().astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float64] = units @ units.T
    np.fill_diagonal(found, -np.inf)
    return found


def same(found: Recommendations, expected: Recommendations) -> None:
    assert found.items == expected.items
    for ours, theirs in zip(found.scores, expected.scores, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING)


# --- vectors


def test_the_vectors_of_items_are_the_models_in_the_order_of_their_numbers(tiny: Tiny, served: Recommender) -> None:
    table = tiny.model.item_vectors().detach().numpy()[1:]  # row 0 is padding's
    np.testing.assert_array_equal(served.item_vectors(), table)
    asked = ["item 30", "item 00", "item 30"]
    np.testing.assert_array_equal(served.item_vectors(asked), table[[ITEMS.index(item) for item in asked]])


def test_a_score_is_the_product_of_a_state_and_a_vector(either: Recommender) -> None:
    items = either.catalogue.items.all()
    history = [items[2], items[0], items[5]]
    product = either.encode([history])[0] @ either.item_vectors(items[::-1]).T
    np.testing.assert_allclose(either.score([history], [items[::-1]])[0], product, rtol=1e-5, atol=1e-5)


def test_no_items_have_no_vectors(served: Recommender) -> None:
    found = served.item_vectors([])
    assert (found.shape, found.dtype) == ((0, 12), np.float32)


# --- similar


def test_similar_items_are_those_of_the_highest_cosine_the_item_left_out(either: Recommender) -> None:
    items, expected = either.catalogue.items.all(), cosines(either)
    k = min(20, len(items) - 1)
    answer = either.similar(items, k=k)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    assert answer.items == [[items[i] for i in row] for row in order]
    np.testing.assert_allclose(answer.scores, np.take_along_axis(expected, order, axis=1), rtol=0, atol=ROUNDING)
    assert answer.status == ["model"] * len(items)
    assert answer.unknown_items == 0


def test_no_cosine_is_above_one_but_for_rounding(either: Recommender) -> None:
    scores = np.concatenate(either.similar(either.catalogue.items.all(), k=10).scores)
    assert np.abs(scores).max() <= 1 + ROUNDING
    assert scores.dtype == np.float32


def test_an_item_asked_for_twice_is_answered_twice_the_same(served: Recommender) -> None:
    one, other, again = served.similar(["item 05", "item 36", "item 05"]).to_list()
    assert one == again != other


@pytest.mark.parametrize("items", [("item 05", "item 36"), np.array(["item 05", "item 36"])], ids=["tuple", "array"])
def test_items_may_be_any_flat_row(served: Recommender, items: Any) -> None:
    same(served.similar(items), served.similar(["item 05", "item 36"]))


def test_k_is_the_bundles_own_or_the_callers_and_never_more_than_there_are(tiny: Tiny, numbers: Path) -> None:
    served = Recommender.load(tiny.path, device="cpu", threads=1)
    assert served.similar(["item 01"]).lengths.tolist() == [served.manifest.defaults.k]
    assert served.similar(["item 01"], k=3).items[0] == served.similar(["item 01"]).items[0][:3]
    with pytest.raises(InputError, match=r"k \(21\) is above this bundle's 20"):
        served.similar(["item 01"], k=21)
    with pytest.raises(InputError, match=r"k \(0\) must be a whole number"):
        served.similar(["item 01"], k=0)
    whole = Recommender.load(numbers, device="cpu", threads=1)  # k_max is the catalogue's size
    assert whole.similar([5], k=1000).lengths.tolist() == [len(whole.catalogue.items) - 1]


def test_no_items_are_like_none(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        served._search, "_run", None
    )  # a batch without rows ends the process on onnxruntime 1.29 and older
    assert len(served.item_vectors([])) == 0
    answer = served.similar([])
    assert (len(answer), answer.items, answer.scores, answer.status) == (0, [], [], [])


@pytest.mark.parametrize("method", ["similar", "item_vectors"])
@pytest.mark.parametrize(
    ("items", "code", "value", "message"),
    [
        (["item 01", "item 99"], "unknown_item", "item 99", "holds 'item 99', which the catalogue does not have"),
        ([1], "unknown_item", 1, "holds 1, which the catalogue does not have"),
        (["item 01", 1.5], "id_type", 1.5, r"an item id must be an int or a string, got 1\.5"),
        ([None], "id_type", None, "an item id must be an int or a string, got None"),
        ("item 01", "shape", "item 01", "must be a list of item ids, got 'item 01'"),
        ([["item 01"]], "id_type", "['item 01']", r"an item id must be an int or a string, got \['item 01'\]"),
        (np.array([["item 01"]]), "shape", None, "must be a list of item ids, got an array of 2 axes"),
    ],
)
def test_what_is_no_list_of_known_ids_is_refused(
    served: Recommender, method: str, items: Any, code: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError, match=rf"^items.*{message}") as caught:
        getattr(served, method)(items)
    assert (caught.value.code, caught.value.field) == (code, "items")
    assert value is None or caught.value.value == value


def test_many_items_are_answered_in_runs_of_bounded_memory(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [ITEMS[i * 7 % 37] for i in range(50)]
    answer, vectors = recommender.similar(asked), recommender.item_vectors(asked)
    rows: list[tuple[str, int]] = []
    run = recommender._engine.run

    def count(graph: str, inputs: Any, deadline: float | None = None) -> Any:
        rows.append((graph, len(inputs["item"])))
        return run(graph, inputs, deadline)

    monkeypatch.setattr(recommender._engine, "run", count)
    monkeypatch.setattr(search, "rows_a_run", lambda items: 8 if items == 37 else 0)
    monkeypatch.setattr(search, "CELLS", 20)
    same(recommender.similar(asked), answer)
    np.testing.assert_array_equal(recommender.item_vectors(asked), vectors)
    assert rows == [*[("similar", 8)] * 6, ("similar", 2), *[("item_vectors", 20)] * 2, ("item_vectors", 10)]


def test_a_module_and_a_closed_recommender_have_no_similar_items(recommender: Recommender, features: Path) -> None:
    with pytest.raises(Unsupported, match="is a bundle of kind 'module'"):
        Recommender.load(features, device="cpu")
    assert not hasattr(Module, "similar")
    recommender.close()
    for call in (lambda: recommender.similar(["item 01"]), recommender.item_vectors):
        with pytest.raises(Closed, match="this was closed"):
            call()


# --- what may be recommended

SOME = ITEMS[3:30:4]  # 7 of 37


def test_similar_items_are_among_the_available_only(served: Recommender) -> None:
    expected = cosines(served)
    barred = [i for i, item in enumerate(ITEMS) if item not in SOME]
    expected[:, barred] = -np.inf
    answer = served.similar(ITEMS, k=20, available=SOME)
    for row, items in enumerate(answer.items):
        order = np.argsort(-expected[row], kind="stable")[: len(SOME) - (ITEMS[row] in SOME)]
        assert items == [ITEMS[i] for i in order]
    assert served.similar(["item 01"], available=[]).items == [[]]
    assert served.similar(["item 03"], available=["item 03"]).items == [[]]


def every_way(recommender: Recommender, **options: Any) -> list[Recommendations]:
    """Lists of each kind: the model's, the most popular, those of candidates, and similar items; as long as can be."""
    rows: list[list[Any]] = [["item 01", "item 02"], [], ["?"]]
    return [
        recommender.recommend(rows, k=20, exclude_seen=False, **options),
        recommender.recommend(rows, k=20, exclude_seen=False, candidates=[ITEMS] * 3, **options),
        recommender.similar(["item 01", "item 02"], k=20, **options),
    ]


def check_same(found: list[Recommendations], expected: list[Recommendations]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.items == theirs.items
        assert [scores.tolist() for scores in ours.scores] == [scores.tolist() for scores in theirs.scores]


def test_set_available_is_as_if_every_call_said_so_until_none_resets_it(recommender: Recommender) -> None:
    before = every_way(recommender)
    expected = every_way(recommender, available=SOME)
    assert recommender.available is None
    assert expected[0].lengths.tolist() == [7, 7, 7]
    recommender.set_available(SOME[::-1])  # in any order
    assert recommender.available == SOME
    check_same(every_way(recommender), expected)
    recommender.set_available(None)
    assert recommender.available is None
    check_same(every_way(recommender), before)


def test_ids_that_the_catalogue_lacks_are_left_out_of_what_is_available(recommender: Recommender) -> None:
    recommender.set_available([*SOME, "gone", 5, *SOME])
    assert recommender.available == SOME
    recommender.set_available(["gone"])
    assert recommender.available == []
    assert every_way(recommender)[0].items == [[], [], []]


def test_a_calls_own_available_narrows_and_never_widens(recommender: Recommender) -> None:
    expected = every_way(recommender, available=SOME[:3])
    recommender.set_available(SOME)
    check_same(every_way(recommender, available=[*SOME[:3], *ITEMS[:3]]), expected)
    assert recommender.available == SOME
    assert every_way(recommender, available=ITEMS[:3])[2].items == [[], []]


def test_the_callers_list_is_its_own_again(recommender: Recommender) -> None:
    given = np.array(SOME)
    recommender.set_available(given)
    given[:] = "item 00"
    assert recommender.available == SOME


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("item 01", "available must be a list of item ids, got 'item 01'"),
        ([["item 01"]], r"available: an item id must be an int or a string, got \['item 01'\]"),
        (["item 01", 2.5], r"available: an item id must be an int or a string, got 2\.5"),
        (iter(["item 01"]), "available must be a list of item ids"),
    ],
)
def test_what_is_no_list_of_ids_is_refused_and_changes_nothing(
    recommender: Recommender, items: Any, message: str
) -> None:
    recommender.set_available(SOME)
    with pytest.raises(InputError, match=rf"^{message}"):
        recommender.set_available(items)
    assert recommender.available == SOME


@pytest.mark.parametrize("available", [None, SOME, []], ids=["all", "some", "none"])
def test_a_pickled_copy_may_answer_with_the_same_items(recommender: Recommender, available: list[str] | None) -> None:
    recommender.set_available(available)
    copy = pickle.loads(pickle.dumps(recommender))
    assert copy.available == available
    check_same(every_way(copy), every_way(recommender))


# --- warming up


def test_warming_up_opens_every_graph_whatever_is_available(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender.set_available([])
    recommender.warmup(3)
    assert recommender.available == []
    monkeypatch.setattr(recommender._engine._opener, "open", lambda *_: pytest.fail("a graph is opened"))
    recommender.set_available(None)
    every_way(recommender)
    recommender.encode([["item 01"]])
    recommender.score([["item 01"]], [["item 02"]])
    recommender.item_vectors()
