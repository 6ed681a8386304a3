"""Models that search: lists from one graph, held to the rules of lists, to the scores of their items, and to the owner's path."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_export import Exported, export_recommender
from genrec_export.histories import Reads
from genrec_export.report import Report
from genrec_export.searching import broken_rules, check_search, search_of
from genrec_runtime import Recommender, Unsupported
from genrec_runtime.manifest import Tolerance
from recent import failed_levels, refused
from tests.export.finder import HISTORIES, ITEM_IDS, LENGTH, USER_IDS, USERS, Finder, K, V, reference_of

TOLERANCE = Tolerance(1e-5, 1e-5)


def export_finder(out: Path, **options: Any) -> Exported:
    """Exports a ``Finder``, right in all but what ``options`` change."""
    net = options.pop("net", None) or Finder().eval()
    arguments: dict[str, Any] = {
        "search": net,
        "score_candidates": net.score,
        "item_ids": ITEM_IDS,
        "max_seq_length": LENGTH,
        "reference": reference_of(net),
        "histories": HISTORIES,
        "users": USER_IDS,
        "num_users": USERS,
        "k_max": K,
        "out": out,
    }
    return export_recommender(**(arguments | options))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A ``Finder``, over the whole grid."""
    return export_finder(tmp_path_factory.mktemp("finder") / "store")


def test_a_search_is_served_by_two_graphs(exported: Exported) -> None:
    manifest = exported.manifest
    assert list(manifest.graphs) == ["recommend", "score"]
    assert [spec.name for spec in manifest.signature["recommend"].inputs] == [
        "item_ids",
        "users",
        "exclude",
        "available",
    ]
    assert [spec.name for spec in manifest.signature["score"].inputs] == ["item_ids", "users", "candidates"]
    assert manifest.capabilities == ("recommend", "score", "exclude", "available", "candidates", "users")
    assert manifest.semantics is not None
    assert (manifest.semantics.score, manifest.semantics.time_unit) == ("log_probability", None)
    assert {cell.level for cell in exported.report.cells} == {"padding", "graph", "search", "product"}


def test_what_is_served_is_what_the_owner_answers(exported: Exported) -> None:
    served = Recommender.load(exported.path, device="cpu", threads=1)
    answer = served.recommend(HISTORIES, users=USER_IDS, k=K)
    for row, (items, scores) in enumerate(reference_of(Finder().eval())(HISTORIES, USER_IDS)):
        assert answer.items[row] == items
        np.testing.assert_allclose(answer.scores[row], scores, atol=1e-5)  # float32 sums in another order
    again = served.score(HISTORIES, answer.items, users=USER_IDS)
    np.testing.assert_allclose(np.stack(again), np.stack(answer.scores), atol=1e-5)
    few = served.recommend(HISTORIES[:1], users=USER_IDS[:1], available=ITEM_IDS[2:4], k=K)
    assert set(few.items[0]) <= set(ITEM_IDS[2:4])
    for ask in (served.encode, served.similar):
        with pytest.raises(Unsupported, match="has no graph"):
            ask(HISTORIES)


class Deaf(Finder):
    """It recommends what it was told to leave out."""

    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(item_ids, exclude * 0, available | (exclude.sum() > 0), users)


class Closed(Finder):
    """It recommends what is not available."""

    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(item_ids, exclude, available | True, users)


class Short(Finder):
    """Its lists end early."""

    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
        items, scores = super().forward(item_ids, exclude, available, users)
        kept = torch.arange(K) < K - 1
        return items * kept, scores.masked_fill(~kept, -torch.inf)


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Deaf, "excluded, not available, or none"),
        (Closed, "excluded, not available, or none"),
        (Short, "8 items, and .* may be recommended"),
    ],
)
def test_a_search_that_breaks_the_rules_of_lists_is_refused(tmp_path: Path, net: type[Finder], message: str) -> None:
    report = refused(
        tmp_path, rf"parity failed at search level: recommend, .*{message}", export_finder, net=net().eval()
    )
    assert "search" in failed_levels(report)
    assert "graph" not in failed_levels(report)


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize(
    ("level", "options"),
    [
        ("search", {"score_candidates": Finder().eval().score_twice}),
        ("product", {"reference": reference_of(Finder().eval(), "right")}),
        ("product", {"reference": reference_of(Finder().eval(), seen=True)}),
    ],
    ids=["other scores of the same items", "the oldest kept", "items of the history"],
)
def test_what_differs_is_refused(tmp_path: Path, level: str, options: dict[str, Any]) -> None:
    report = refused(tmp_path, f"parity failed at {level} level", export_finder, **options)
    assert failed_levels(report) == {level}


GIVE = "give encode with item_vectors or score, or search with score_candidates; got "


class Wide(Finder):
    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> Any:
        items, scores = super().forward(item_ids, exclude, available, users)
        return items[:, :-1], scores


class Alone(Finder):
    def forward(self, item_ids: Tensor, exclude: Tensor, available: Tensor, users: Tensor) -> Any:
        return super().forward(item_ids, exclude, available, users)[0]


NET = Finder().eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": None}, GIVE + "score_candidates"),
        ({"score_candidates": None}, GIVE + "search"),
        ({"encode": NET}, GIVE + "encode, search, score_candidates"),
        ({"item_vectors": NET.items.weight}, GIVE + "search, score_candidates, item_vectors"),
        ({"search": None, "score_candidates": None}, GIVE + "none of them"),
        ({"first_item": 0, "pad_index": V}, "must number items from 1, and padding 0; got first_item 0, pad_index 21"),
        (
            {"item_ids": ITEM_IDS[::-1]},
            "in the order of their sorted raw ids: item_ids has 140 at place 0, where 0 stands",
        ),
        ({"score_candidates": NET.nobodys}, "score_candidates has no parameter users"),
        ({"variants": ("fp16",)}, r"variants \(fp16\) of a model that searches are not offered: .* a whole prefix"),
        ({"variants": ("int8",)}, r"variants \(int8\) of a model that searches are not offered"),
        ({"net": Wide().eval()}, r"search must give .*int64 \(2, 9\), .*; got torch.int64 \(2, 8\)"),
        ({"net": Alone().eval()}, r"search must give items and scores, .*; got torch.int64 \(2, 9\)$"),
        ({"search": lambda *_: None}, "search must be a torch module or a method of one"),
        ({"k_max": 8}, r"search must give items and scores, torch.int64 \(2, 8\), .*; got torch.int64 \(2, 9\)"),
    ],
)
def test_arguments_that_do_not_fit_a_search_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_finder(tmp_path / "store", **({"net": NET} | options))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("items", "scores", "rule"),
    [
        ([3, 1, 0], [-1.0, -2.0, -np.inf], "2 items, and 3 may be recommended"),
        ([3, 1, 4], [-1.0, -0.5, -2.0], "the scores rise"),
        ([3, 1, 4], [-1.0, np.nan, -2.0], "the scores rise, or are no numbers"),
        ([3, 0, 4], [-1.0, -np.inf, -2.0], "the scores rise"),
        ([3, 3, 4], [-1.0, -1.0, -2.0], "occurs twice"),
        ([3, 2, 4], [-1.0, -1.0, -2.0], "excluded"),
        ([3, 5, 4], [-1.0, -1.0, -2.0], "not available"),
        ([3, 0, 4], [-1.0, -1.0, -2.0], "or none"),
        ([3, 6, 4], [-1.0, -1.0, -2.0], "or none"),
        ([3, 1, 4], [-1.0, -1.0, -2.0], ""),
    ],
)
def test_every_rule_of_lists_is_looked_at(items: list[int], scores: list[float], rule: str) -> None:
    available = np.array([True, True, True, True, True, False])  # of 1..5; 2 is excluded
    found = broken_rules(np.array([items]), np.array([scores]), np.array([[2, 2]]), available)
    assert rule in found
    assert bool(found) == bool(rule)


def test_rows_of_padding_are_not_held_to_rules() -> None:
    report = Report(TOLERANCE)
    serving = search_of(NET, NET.score, V, max_seq_length=LENGTH, k_max=K, reads=Reads(("users",), USERS))
    inputs = {
        "item_ids": np.zeros((2, LENGTH), np.int64),
        "users": np.zeros(2, np.int64),
        "exclude": np.zeros((2, 0), np.int64),
        "available": np.ones(V + 1, np.bool_),
    }
    check_search(report, serving, [("padding", inputs)], TOLERANCE)
    assert not report.cells
    check_search(report, serving, [("one", inputs | {"item_ids": np.array([[0, 0, 0, 0], [0, 0, 3, 1]])})], TOLERANCE)
    assert [(cell.level, cell.passed) for cell in report.cells] == [("search", True)]
