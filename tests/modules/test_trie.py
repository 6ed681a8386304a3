"""The trie of codes: the children of every prefix, which of them lead to something, and what it refuses."""

import pytest
import torch
from torch import Tensor

from genrec.modules.trie import Trie

CODES = torch.tensor([[9, 9, 9], [4, 0, 1], [2, 7, 0], [4, 0, 0], [4, 3, 0], [2, 1, 5]])  # items 1..5 from row 1
NOTHING = torch.zeros(1, 0, dtype=torch.int64)
ALL = torch.ones(6, dtype=torch.bool)


def walked(trie: Trie, offered: Tensor) -> dict[tuple[int, ...], int]:
    """Every code sequence that can be reached by live children, with its item."""
    paths: dict[tuple[int, ...], int] = {(): 0}
    for level in range(trie.levels):
        grown = {}
        for path, node in paths.items():
            nodes, tokens, live = trie.branches(level, torch.tensor([[node]]), offered)
            found = zip(nodes[0, 0].tolist(), tokens[0, 0].tolist(), live[0, 0].tolist(), strict=True)
            grown |= {(*path, token): child for child, token, good in found if good}
        paths = grown
    return {path: int(trie.items_of(torch.tensor(leaf))) for path, leaf in paths.items()}


def codes_of(items: list[int]) -> dict[tuple[int, ...], int]:
    return {tuple(CODES[item].tolist()): item for item in items}


def test_every_item_is_reached_by_its_codes_and_nothing_else_is() -> None:
    trie = Trie(CODES)
    assert walked(trie, trie.offered(NOTHING, ALL)) == codes_of([1, 2, 3, 4, 5])


def test_prefixes_of_what_may_not_be_recommended_are_dead_ends_from_the_root_on() -> None:
    trie = Trie(CODES)
    without_2_and_5 = trie.offered(torch.tensor([[5, 0, 2, 5]]), ALL)
    _, tokens, live = trie.branches(0, torch.tensor([[0]]), without_2_and_5)
    assert dict(zip(tokens[0, 0].tolist(), live[0, 0].tolist(), strict=True)) == {4: True, 2: False}
    assert walked(trie, without_2_and_5) == codes_of([1, 3, 4])
    only_3 = torch.tensor([True, False, False, True, False, True])
    assert walked(trie, trie.offered(torch.tensor([[5]]), only_3)) == codes_of([3])


def test_each_row_leaves_out_its_own() -> None:
    trie = Trie(CODES)
    offered = trie.offered(torch.tensor([[2, 5], [1, 3]]), ALL)
    assert offered[:, -1].tolist() == [3, 3]
    _, tokens, live = trie.branches(0, torch.tensor([[0], [0]]), offered)
    assert tokens[:, 0].tolist() == [[4, 2], [4, 2]]
    assert live[:, 0].tolist() == [[True, False], [True, True]]


def test_siblings_stand_by_their_lowest_item() -> None:
    trie = Trie(CODES)
    offered = trie.offered(NOTHING, ALL)
    for level, nodes in enumerate([1, 2, 4]):
        children, _, live = trie.branches(level, torch.arange(nodes).unsqueeze(0), offered)
        for row, good in zip(trie.lowest(level, children)[0], live[0], strict=True):
            assert row[good].tolist() == sorted(row[good].tolist())
    first, _, _ = trie.branches(0, torch.tensor([[0]]), offered)
    assert trie.lowest(0, first).tolist() == [[[1, 2]]]  # code 4 leads to 1, 3 and 4, code 2 to 2 and 5


def test_widths_are_the_most_children_of_a_depth() -> None:
    assert Trie(CODES).widths == [2, 2, 2]  # 4 and 2; 0 and 3 under 4; 1 and 0 under 4, 0


def test_a_catalogue_of_one_item_is_a_path() -> None:
    trie = Trie(torch.tensor([[0, 0], [3, 1]]))
    offered = trie.offered(NOTHING, torch.ones(2, dtype=torch.bool))
    assert (trie.widths, walked(trie, offered)) == ([1, 1], {(3, 1): 1})


def test_many_random_codes_are_all_found() -> None:
    random = torch.Generator().manual_seed(0)
    codes = torch.unique(torch.randint(0, 5, (200, 4), generator=random), dim=0)
    codes = codes[torch.randperm(len(codes), generator=random)]
    trie = Trie(torch.cat([torch.zeros(1, 4, dtype=torch.int64), codes]))
    offered = trie.offered(NOTHING, torch.ones(len(codes) + 1, dtype=torch.bool))
    assert walked(trie, offered) == {tuple(row): item for item, row in enumerate(codes.tolist(), start=1)}


def test_items_that_share_all_codes_are_refused() -> None:
    codes = CODES.clone()
    codes[5] = codes[2]
    with pytest.raises(
        ValueError, match=r"1 items have the codes of another, first item 5 those of item 2: \[2, 7, 0\]"
    ):
        Trie(codes)


def test_negative_codes_and_empty_catalogues_are_refused() -> None:
    with pytest.raises(ValueError, match=r"none negative"):
        Trie(torch.tensor([[0, 0], [0, -1]]))
    with pytest.raises(ValueError, match=r"codes \(1, 2\) must hold a row for padding and one an item"):
        Trie(torch.tensor([[0, 0]]))
