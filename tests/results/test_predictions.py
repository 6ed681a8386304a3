"""Predictions of any code base: the same lists whatever the file, and all that is wrong with a file told at once."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genrec.data import DataError, Interactions, SequenceData, Split, leave_one_out, write_split
from genrec.metrics import RecommendationMetrics
from genrec.results.predictions import PredictionsError, read_predictions, score_predictions

LARGE = 2**60  # + 1 and + 2 are one number to a float
HISTORIES = {1: "abcde", LARGE + 1: "bcf", LARGE + 2: "gah", 4: "ab"}  # user 4 only trains
LISTS = {1: "fgh", LARGE + 1: "agh", LARGE + 2: "bhc"}  # best first; targets e, f, h: found is h at rank 2

Row = tuple[Any, Any, Any]


def make_split(users: type = int, items: dict[str, Any] | None = None) -> Split:
    events = [(users(user), item) for user, history in HISTORIES.items() for item in history]
    raw = items or {item: item for item in "abcdefgh"}
    return leave_one_out(
        SequenceData.from_interactions(
            Interactions.from_arrays([user for user, _ in events], [raw[item] for _, item in events])
        )
    )


def ranked(lists: dict[Any, Sequence[Any]] = LISTS) -> list[Row]:  # never changed
    return [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, 1)]


def file(folder: Path, rows: Sequence[Row], order: str = "rank", name: str = "file.csv") -> Path:
    """The worst first, so that the order of the rows cannot help."""
    path = folder / name
    frame = pl.DataFrame(list(rows)[::-1], schema=["user_id", "item_id", order], orient="row", strict=False)
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def lists_of(path: Path, split: Split, k: int = 3, **columns: str) -> list[list[Any]]:
    found = read_predictions(path, split, k, **columns).lists
    return [split.data.items.raw([number for number in row if number]) for row in found.tolist()]


WANTED = [list("fgh"), list("agh"), list("bhc")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("order", ["rank", "score"])
def test_every_kind_of_file_gives_the_same_lists(tmp_path: Path, name: str, order: str) -> None:
    rows = [(user, item, rank if order == "rank" else 9 - rank / 2) for user, item, rank in ranked()]
    assert lists_of(file(tmp_path, rows, order, name), make_split()) == WANTED


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize("as_text", [False, True], ids=["ints in the file", "texts in the file"])
@pytest.mark.parametrize("users", [int, str], ids=["ints in the split", "texts in the split"])
def test_ids_are_the_same_if_they_are_written_the_same(tmp_path: Path, name: str, as_text: bool, users: type) -> None:
    rows = [(str(user) if as_text else user, item, rank) for user, item, rank in ranked()]
    assert sorted(lists_of(file(tmp_path, rows, name=name), make_split(users))) == sorted(WANTED)


def test_ids_with_leading_zeros_stay_texts(tmp_path: Path) -> None:
    raw = {item: f"{number:03}" for number, item in enumerate("abcdefgh")}
    split = make_split(items=raw)
    rows = [(user, raw[item], rank) for user, item, rank in ranked()]
    assert lists_of(file(tmp_path, rows), split) == [[raw[item] for item in row] for row in WANTED]
    stripped = [(user, int(item), rank) for user, item, rank in rows]
    with pytest.raises(PredictionsError, match="items that the split does not know: 6 "):
        read_predictions(file(tmp_path, stripped), split, 3)


def test_numbers_that_a_float_confuses_are_told_apart(tmp_path: Path) -> None:
    as_floats = [(f"{user}.0", item, rank) for user, item, rank in ranked()]
    with pytest.raises(PredictionsError, match=r"users that the split does not know: 3 .*user '1\.0'"):
        read_predictions(file(tmp_path, as_floats), make_split(), 3)


def test_of_equal_scores_the_lower_item_goes_first_and_ties_are_counted(tmp_path: Path) -> None:
    rows = [(user, item, 0.5 if item in "fgb" else 0.25) for user, item, _ in ranked()]  # 1: fg h, 2: g ah, 3: b ch
    found = read_predictions(file(tmp_path, rows, "score"), make_split(), 3)
    assert found.lists.tolist() == [[6, 7, 8], [7, 1, 8], [2, 3, 8]]  # a is 1
    assert found.notes == (f"{2 + 2 + 2} of 9 places share their score; the lower item number went first",)


def test_ranks_are_taken_before_scores_unless_the_scores_are_named(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    rows = [(user, item, rank, rank) for user, item, rank in ranked()]  # as scores they say the opposite
    pl.DataFrame(rows, schema=["user", "item", "rank", "mine"], orient="row").write_csv(path)
    assert lists_of(path, make_split()) == WANTED
    assert lists_of(path, make_split(), score_col="mine") == [row[::-1] for row in WANTED]
    with pytest.raises(ValueError, match=r"rank_col \('rank'\) and score_col \('mine'\)"):
        read_predictions(path, make_split(), 3, rank_col="rank", score_col="mine")


def test_whole_numbers_are_ranks_however_they_are_written(tmp_path: Path) -> None:
    rows = [(user, item, float(rank)) for user, item, rank in ranked()]
    for name in ("a.csv", "a.parquet"):
        assert lists_of(file(tmp_path, rows, name=name), make_split()) == WANTED


def test_more_than_k_places_and_users_without_a_case_are_left_out(tmp_path: Path) -> None:
    path = file(tmp_path, [*ranked(), (4, "h", 1)])
    found = read_predictions(path, make_split(), 2)
    assert found.lists.tolist() == [[6, 7], [1, 7], [2, 8]]
    assert found.notes == ("1 users of the file have no test case and are left out",)


def changed(*rows: Row, drop: Sequence[Any] = ()) -> list[Row]:
    """The right rows, some users' dropped, others' added."""
    return [row for row in ranked() if row[0] not in drop] + list(rows)


@pytest.mark.parametrize(
    ("rows", "problems"),
    [
        (changed(("x", "a", 1), ("x", "b", 2)), ["users that the split does not know: 1 (user 'x')"]),
        (changed((1, "y", 4)), ["items that the split does not know: 1 (item 'y')"]),
        (changed(drop=[1]), ["users of the test without any prediction: 1 (user 1)"]),
        (changed((1, "a", 4)), ["predictions of an item in the user's own history: 1 (user '1', item 'a')"]),
        (changed((1, "f", 4)), ["items that a user's list repeats: 1 (user '1', item 'f')"]),
        (changed((1, "e", 3)), ["ranks that a user's list repeats: 1 (user '1', rank 3.0)"]),
        (changed((1, "e", 5)), ["users whose ranks do not run 1, 2, 3 and so on without a gap: 1 (user '1')"]),
        (changed((1, "e", 0)), ["ranks that are no whole number from 1 on: 1 (user '1', item 'e')"]),
        (changed((1, "e", 3.5)), ["ranks that are no whole number from 1 on: 1 (user '1', item 'e')"]),
        (changed((1, "e", None)), ["ranks that are no whole number from 1 on: 1 (user '1', item 'e')"]),
        (
            changed(("x", "y", 1), drop=[1, LARGE + 1]),
            [
                "users that the split does not know: 1 (user 'x')",
                "items that the split does not know: 1 (item 'y')",
                f"users of the test without any prediction: 2 (user 1; user {LARGE + 1})",
            ],
        ),
    ],
)
def test_what_is_wrong_with_ranks_is_told_with_counts_and_examples(
    tmp_path: Path, rows: list[Row], problems: list[str]
) -> None:
    with pytest.raises(PredictionsError) as caught:
        read_predictions(file(tmp_path, [(str(user), item, rank) for user, item, rank in rows]), make_split(), 3)
    assert [str(problem) for problem in caught.value.problems] == problems


@pytest.mark.parametrize("score", ["nan", "inf", "much", None])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_scores_without_a_place_in_an_order_are_refused(tmp_path: Path, name: str, score: str | None) -> None:
    rows = [(str(user), item, score if rank == 3 else str(9 - rank)) for user, item, rank in ranked()]
    with pytest.raises(PredictionsError) as caught:
        read_predictions(file(tmp_path, rows, "score", name), make_split(), 3)
    assert [problem.count for problem in caught.value.problems] == [3]
    assert "scores that are no finite number: 3 (user" in str(caught.value)


def test_examples_are_the_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    unknown = [(f"x{number}", "a", 1) for number in range(5)]
    with pytest.raises(PredictionsError, match=r"know: 5 \(user 'x4'; user 'x3'; user 'x2'; \.\.\.\)"):  # of the file
        read_predictions(file(tmp_path, changed(*unknown)), make_split(), 3)


def test_a_list_may_end_early_if_others_do_not(tmp_path: Path) -> None:
    path = file(tmp_path, [row for row in ranked() if row != (1, "h", 3)])
    found = read_predictions(path, make_split(), 3)
    assert found.lists[0].tolist() == [6, 7, 0]
    note = "1 of 3 users have fewer than 3 items, the fewest 2; a target beyond the end of a list is a miss"
    assert found.notes == (note,)


def test_a_file_that_was_cut_off_before_k_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PredictionsError, match=r"fewer than 4 items, where no list is longer than 3, the highest k.*: 3$"
    ):
        read_predictions(file(tmp_path, ranked()), make_split(), 4)


def test_lists_of_all_that_is_left_of_the_catalogue_are_whole(tmp_path: Path) -> None:
    left = {1: "efgh", LARGE + 1: "adefgh", LARGE + 2: "bcdefh"}  # 8 items without the 4, 2 and 2 seen before
    found = read_predictions(file(tmp_path, ranked(left)), make_split(), 20)
    assert found.notes == ()
    assert [sum(number > 0 for number in row) for row in found.lists.tolist()] == [4, 6, 6]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["user_id", "item_id", "when"], "no column of ranks or scores found; name it with rank_col or score_col"),
        (["user_id", "item_id", "score", "pred"], "several columns may be the score"),
        (["who", "item_id", "rank"], "no user column found"),
    ],
)
def test_columns_that_cannot_be_told_are_named(tmp_path: Path, columns: list[str], message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{','.join(columns)}\n{','.join('1' * len(columns))}\n")
    with pytest.raises(DataError, match=message):
        read_predictions(path, make_split(), 3)


def test_one_column_is_not_two_things(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one column is named twice"):
        read_predictions(file(tmp_path, ranked()), make_split(), 3, rank_col="user_id")
    with pytest.raises(DataError, match=r"no column 'none' \(rank_col\)"):
        read_predictions(file(tmp_path, ranked()), make_split(), 3, rank_col="none")


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    rows = [(user, item, rank > 1) for user, item, rank in ranked()]
    with pytest.raises(DataError, match="a rank must be a number, not Boolean"):
        read_predictions(file(tmp_path, rows, name="a.parquet"), make_split(), 3)


def test_scores_are_those_of_the_static_methods(tmp_path: Path) -> None:
    split = make_split()
    write_split(split, tmp_path / "split")
    result, notes = score_predictions(file(tmp_path, ranked()), tmp_path / "split", ks=(1, 3))
    lists, targets = [list(row) for row in WANTED], [["e"], ["f"], ["h"]]
    for k in (1, 3):
        for name in ("recall", "precision", "ndcg", "hit_rate"):
            method = getattr(RecommendationMetrics, f"{name}_at_k")
            assert result.metrics[f"{name}@{k}"] == pytest.approx(method(lists, targets, k), abs=1e-12)  # order of sums
        assert result.metrics[f"coverage@{k}"] == RecommendationMetrics.coverage([row[:k] for row in lists], 8)
    assert result.values["mrr@3"].tolist() == [0, 0, 1 / 2]
    assert result.users.tolist() == [1, LARGE + 1, LARGE + 2]
    assert (result.name, notes) == ("file", ())
    assert result.protocol["content_hash"] == split.data.content_hash
    assert result.details["predictions"] == "file.csv"


def test_cut_offs_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ks \(0, 5\) must be cut-offs"):
        score_predictions(tmp_path / "none.csv", tmp_path, ks=(0, 5))
