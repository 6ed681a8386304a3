"""Whatever is passed to ``recommend`` and ``load``: an error of ours, or the answer that a slow and plain computation gives."""

import contextlib
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from genrec_runtime import GenrecError, Module, Recommendations, Recommender, load
from timed import write_timed
from tiny import Tiny

FEW = [120, pytest.param(2000, marks=pytest.mark.slow)]  # examples
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32: another batch and another graph add up in another order


def explore(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Runs ``check`` on so many examples."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(max_examples=examples, deadline=None, suppress_health_check=quiet)(given(strategy)(check))()


# --- the slow way


def as_lists(rows: Any) -> list[list[Any]]:
    """Rows of whatever kind as lists of plain values."""

    def plain(values: Any) -> list[Any]:
        listed = np.asarray(values).tolist() if hasattr(values, "__array__") else values
        return [value.item() if isinstance(value, np.generic) else value for value in listed]

    return [plain(row) for row in plain(rows)]


class Slow:
    """A recommender's answers, row by row: every item scored by the graph ``score``, then sorted."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.items = recommender.catalogue.items.all()
        self.popular = recommender.catalogue.cold_start.tolist()

    def number(self, rows: Any) -> list[list[int]]:
        return [[self.items.index(v) + 1 for v in row if v in self.items] for row in as_lists(rows)]

    def scores(self, history: list[int]) -> dict[int, float]:
        semantics = self.recommender.semantics
        newest = history[-semantics.max_seq_length :]
        zeros = [0] * (semantics.max_seq_length - len(newest))
        window = zeros + newest if semantics.padding == "left" else newest + zeros
        everything = list(range(1, len(self.items) + 1))
        inputs = {"item_ids": np.array([window]), "candidates": np.array([everything])}
        scores = self.recommender._engine.run("score", inputs)["scores"][0].tolist()
        return dict(zip(everything, scores, strict=True))

    def check(self, answer: Recommendations, histories: Any, **options: Any) -> None:
        """Holds an answer to what is right; among scores that differ by rounding alone any order is."""
        rows = self.number(histories)
        given = [len(row) for row in as_lists(histories)]
        assert len(answer) == len(rows)
        assert answer.unknown_items == sum(given) - sum(map(len, rows))
        defaults = self.recommender.manifest.defaults
        seen = defaults.exclude_seen if options.get("exclude_seen") is None else options["exclude_seen"]
        k = int(defaults.k if options.get("k") is None else options["k"])
        none = [[] for _ in rows]
        exclude = none if options.get("exclude") is None else self.number(options["exclude"])
        pools = None if options.get("candidates") is None else self.number(options["candidates"])
        available = options.get("available")
        allowed = set(range(1, len(self.items) + 1)) if available is None else set(self.number([available])[0])
        for i, row in enumerate(rows):
            pool = allowed if pools is None else allowed & set(pools[i])
            pool = pool - set(exclude[i]) - (set(row) if seen else set())
            assert answer.status[i] == ("model" if row else "all_unknown" if given[i] else "cold_start")
            self.check_row(row, pool, k, answer.items[i], answer.scores[i])

    def check_row(self, row: list[int], pool: set[int], k: int, items: list[Any], scores: np.ndarray) -> None:
        found = [self.items.index(item) + 1 for item in items]
        if not row:
            assert found == [item for item in self.popular if item in pool][:k]
            np.testing.assert_array_equal(scores, np.float32([1 / place for place in range(1, len(found) + 1)]))
            return
        right = self.scores(row)
        best = sorted(pool, key=lambda item: (-right[item], item))[:k]
        assert len(set(found)) == len(found) == len(best)
        assert set(found) <= pool
        np.testing.assert_allclose(scores, [right[item] for item in found], **CLOSE)
        np.testing.assert_allclose(scores, [right[item] for item in best], **CLOSE)
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)


@pytest.fixture(scope="module", params=["strings", "ints"])
def slow(request: pytest.FixtureRequest, tiny: Tiny, numbers: Path) -> Slow:
    """A catalogue of either kind."""
    path = tiny.path if request.param == "strings" else numbers
    recommender = Recommender.load(path, device="cpu", threads=1)
    recommender._reader._warned = True  # of foreign ids: here they are meant
    return Slow(recommender)


# --- requests that are right


def right_requests(items: list[Any]) -> st.SearchStrategy[tuple[list[Any], dict[str, Any]]]:
    ids = st.one_of(st.sampled_from(items), st.sampled_from(["unknown", 2**70, -1, 17]))

    @st.composite
    def requests(draw: Any) -> tuple[list[Any], dict[str, Any]]:
        def rows(longest: int) -> Any:
            lists = draw(st.lists(st.lists(ids, max_size=longest), min_size=count, max_size=count))
            return [draw(st.sampled_from([list, tuple, as_objects]))(row) for row in lists]

        count = draw(st.integers(0, 5))
        histories = rows(20)
        options: dict[str, Any] = {
            "k": draw(st.one_of(st.none(), st.integers(1, 11), st.integers(1, 11).map(np.int16))),
            "exclude_seen": draw(st.sampled_from([None, True, False, np.True_])),
            "exclude": rows(9) if draw(st.booleans()) else None,
            "candidates": rows(30) if draw(st.booleans()) else None,
            "available": draw(st.none() | st.lists(ids, max_size=30)),
        }
        return histories, {name: value for name, value in options.items() if draw(st.booleans())}

    return requests()


def as_objects(row: list[Any]) -> np.ndarray:
    array = np.empty(len(row), dtype=object)
    array[:] = row
    return array


@pytest.mark.parametrize("examples", FEW)
def test_a_right_request_gets_the_answer_of_the_slow_way(slow: Slow, examples: int) -> None:
    def check(request: tuple[list[Any], dict[str, Any]]) -> None:
        histories, options = request
        slow.check(slow.recommender.recommend(histories, **options), histories, **options)

    explore(examples, right_requests(slow.items), check)


# --- whatever else


class Odd:
    """What gives an array, or claims to."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self.give = give

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.give()


def fail() -> Any:
    raise OSError("the array is gone")


def odds(items: list[Any]) -> st.SearchStrategy[Any]:
    """Objects that are no lists, some of them nearly arrays."""
    made = [
        lambda: Odd(fail),
        lambda: Odd(lambda: None),
        lambda: Odd(lambda: [items[:2]]),
        lambda: Odd(lambda: np.array([items[:2]])),
        lambda: Odd(lambda: np.array(items[:2])),
        lambda: Odd(lambda: np.zeros((2, 2, 2))),
        lambda: Odd(lambda: np.ma.masked_equal([[3, 5]], 3)),
        lambda: Odd(lambda: np.broadcast_to(np.int8(3), (2**30, 2**30))),
        lambda: np.ma.masked_equal([[3, 5]], 3),
        lambda: np.zeros((1, 2), "i4,U3"),
        lambda: np.array([items[:2]], dtype=object),
        lambda: iter([items[:2]]),
        lambda: {"a": items[:2]},
        lambda: set(items[:2]),
        lambda: range(3),
        lambda: memoryview(b"ab"),
        object,
        lambda: 10**5000,
        lambda: items[:2],
        lambda: [items[:2]],
    ]
    return st.sampled_from(made).map(lambda make: make())


@st.composite
def anything(draw: Any, items: list[Any]) -> Any:
    """Values, nested or not, of every kind that a caller may come up with."""
    return draw(values_of(tuple(items)))


@functools.cache
def values_of(items: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    scalars = st.one_of(
        st.sampled_from(items),
        st.integers(),
        st.sampled_from([2**63, -(2**63) - 1, 2**64]),
        st.floats(),
        st.text(max_size=4),
        st.none(),
        st.booleans(),
        st.binary(max_size=3),
        st.complex_numbers(),
        st.dates(),
        arrays.from_dtype(np.dtype(np.float32)),
        st.sampled_from([np.int8(3), np.uint64(2**64 - 1), np.bool_(True), np.str_("item 01"), np.datetime64("NaT")]),
    )
    of_any_dtype = arrays.arrays(
        st.one_of(arrays.scalar_dtypes(), arrays.integer_dtypes(endianness=">"), st.sampled_from(["U8", "S2"])),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
    strided = of_any_dtype.map(lambda array: array[::-1].T if array.ndim else array)
    rows = st.lists(st.lists(st.sampled_from(items) | scalars, max_size=4), max_size=4)
    leaves = st.one_of(scalars, of_any_dtype, strided, odds(list(items)))
    nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner), max_leaves=8)
    return st.one_of(rows, nested)


def any_requests(items: list[Any]) -> st.SearchStrategy[tuple[Any, dict[str, Any]]]:
    some = anything(items)
    fine = st.lists(st.lists(st.sampled_from(items), max_size=4), max_size=3)
    return st.tuples(
        st.one_of(fine, some),
        st.fixed_dictionaries(
            {},
            optional={
                "k": st.one_of(st.integers(1, 30), some),
                "exclude": some,
                "candidates": some,
                "available": some,
                "exclude_seen": st.one_of(st.booleans(), some),
                "on_unknown": st.one_of(st.sampled_from(["drop", "error"]), some),
                "users": some,
                "timestamps": some,
                "deadline": some,
            },
        ),
    )


@pytest.mark.parametrize("examples", FEW)
def test_any_request_is_refused_by_us_or_answered_right(slow: Slow, examples: int) -> None:
    answered = []

    def check(request: tuple[Any, dict[str, Any]]) -> None:
        histories, options = request
        with contextlib.suppress(GenrecError):
            answer = slow.recommender.recommend(histories, **options)
            slow.check(answer, histories, **options)
            answered.append(len(answer))

    explore(examples, any_requests(slow.items), check)
    assert max(answered) > 0


@pytest.mark.parametrize("examples", FEW)
def test_anything_as_score_and_encode_arguments_is_refused_by_us_or_answered(slow: Slow, examples: int) -> None:
    def check(arguments: tuple[Any, Any]) -> None:
        with contextlib.suppress(GenrecError):
            slow.recommender.encode(arguments[0])
        with contextlib.suppress(GenrecError):
            scores = slow.recommender.score(*arguments)
            assert [len(row) for row in scores] == [len(row) for row in as_lists(arguments[1])]

    some = anything(slow.items)
    explore(examples, st.tuples(some, some), check)


@pytest.mark.parametrize("examples", FEW)
def test_anything_as_times_and_users_is_refused_by_us_or_answered(tmp_path: Path, examples: int) -> None:
    reader = Recommender.load(write_timed(tmp_path / "bundle"), device="cpu", threads=1)
    histories, answered = [["item 1", "?"], ["item 2"]], []

    def check(further: dict[str, Any]) -> None:
        with contextlib.suppress(GenrecError):
            answer = reader.recommend(histories, **further)
            assert answer.status == ["model", "model"]
            answered.append(set(further))

    some, time = anything([3, 5]), st.integers(-(10**11) - 2, 10**11 + 2)
    user = st.text(st.characters(codec=None), max_size=3) | st.integers() | st.none()
    strategy = st.fixed_dictionaries(
        {"timestamps": st.tuples(st.lists(time, min_size=2, max_size=2).map(sorted), st.tuples(time)) | some},
        optional={
            "users": st.tuples(user, user) | some,
            "request_time": st.tuples(time, st.none()) | some,
        },
    )
    explore(examples, strategy, check)
    assert answered  # what is drawn changes with the code, so that one with all three need not be among few
    check({"timestamps": [[1, 5], [2]], "users": ["a", 7], "request_time": [9, None]})
    assert answered[-1] == {"timestamps", "users", "request_time"}


@pytest.mark.parametrize("examples", FEW)
def test_anything_as_a_modules_input_is_refused_by_us_or_computed_right(features: Path, examples: int) -> None:
    module = Module.load(features, device="cpu", threads=1)

    def check(item_ids: Any) -> None:
        with contextlib.suppress(GenrecError):
            shape = np.asarray(item_ids).shape
            numbers = np.zeros((shape[0], 3), np.float32)
            kept = module.run(item_ids=item_ids, mask=np.ones(shape, bool), features=numbers)["kept"]
            np.testing.assert_array_equal(kept, np.asarray(item_ids))

    def readable(value: Any) -> bool:
        with contextlib.suppress(Exception):
            return np.asarray(value).ndim > 0 and np.asarray(value).size < 100
        return False

    small = arrays.arrays(
        arrays.integer_dtypes() | arrays.unsigned_integer_dtypes(),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements={"min_value": 0, "max_value": 9},
    )
    explore(examples, st.one_of(small, anything([1, 8]).filter(readable)), check)


# --- loading


@pytest.mark.parametrize("examples", FEW)
def test_any_argument_of_load_is_refused_by_us_or_opens_the_bundle(tiny: Tiny, examples: int) -> None:
    def check(arguments: tuple[Any, dict[str, Any]]) -> None:
        path, options = arguments
        with contextlib.suppress(GenrecError, ValueError, TypeError), load(path, **options) as recommender:
            assert isinstance(recommender, Recommender)
            assert recommender.path == tiny.path.resolve()
            opened.append(recommender.path)

    opened: list[Path] = []
    some = anything(["cpu", "fp32"])
    paths = st.one_of(st.just(tiny.path), st.text(), st.text().map(lambda text: tiny.path / text), some)
    options = {
        "device": st.just("cpu") | some,
        "threads": st.integers(1, 2) | some,
        "variant": some,
        "expect_digest": some,
        "dedicated": some,
    }
    explore(examples, st.tuples(paths, st.fixed_dictionaries({}, optional=options)), check)
    assert opened


@pytest.mark.parametrize("examples", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_any_manifest_is_refused_by_us_or_opens_a_bundle_that_answers(
    tiny: Tiny, tmp_path: Path, reseal: Callable[..., None], examples: int, kind: str
) -> None:
    folder = Path(shutil.copytree(tiny.path, tmp_path / "bundle"))
    whole = (folder / "manifest.json").read_bytes()
    expected = Recommender.load(tiny.path, device="cpu", threads=1).recommend([["item 01"]], k=3).items

    def check(manifest: bytes | tuple[list[str | int], Any]) -> None:
        if isinstance(manifest, bytes):
            (folder / "manifest.json").write_bytes(manifest)
        else:
            (folder / "manifest.json").write_bytes(whole)
            with contextlib.suppress(AttributeError, KeyError, TypeError):  # of reseal: files are no longer listed
                reseal(folder, lambda data: put(data, *manifest))
        with contextlib.suppress(GenrecError), load(folder, device="cpu", threads=1) as recommender:
            assert isinstance(recommender, Recommender)
            with contextlib.suppress(GenrecError):
                assert recommender.recommend([["item 01"]], k=3, exclude_seen=True).items == expected

    cut = st.integers(0, len(whole)).map(lambda place: whole[:place])
    flipped = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)).map(
        lambda change: whole[: change[0]] + bytes([change[1]]) + whole[change[0] + 1 :]
    )
    places = st.sampled_from(places_in(json.loads(whole)))
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    explore(
        examples, st.one_of(st.binary(), cut, flipped) if kind == "bytes" else st.tuples(places, json_values), check
    )


def places_in(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in inside for place in ((*path, key), *places_in(inner, (*path, key)))]


def put(data: Any, place: tuple[str | int, ...], value: Any) -> None:
    for key in place[:-1]:
        data = data[key]
    data[place[-1]] = value
