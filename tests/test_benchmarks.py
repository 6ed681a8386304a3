"""The benchmarks' pieces on a tiny catalogue: that peers answer alike and tables are made, never how fast."""

import argparse
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genrec_runtime import Recommender

FOLDER = Path(__file__).parents[1] / "benchmarks"
ITEMS, WIDTH, LENGTH = 301, 12, 7
OPTIONS = {"items": [ITEMS], "widths": [WIDTH], "lengths": [LENGTH], "batches": [1, 3], "threads": [1]}


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts as modules: they import one another as they do when run."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = ("bundles", "fresh", "peers", "rounds", "runtime")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(scripts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model, its catalogue, and the folder of its bundle."""
    model, catalogue = scripts.bundles.model_of(ITEMS, WIDTH, LENGTH), scripts.bundles.catalogue_of(ITEMS)
    path = scripts.bundles.write(tmp_path_factory.mktemp("bundle"), model, catalogue, variants=("int8",))
    return SimpleNamespace(model=model, catalogue=catalogue, path=path)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_every_torch_peer_answers_as_the_runtime(scripts: SimpleNamespace, made: Any, variant: str) -> None:
    histories = scripts.bundles.histories_of(made.catalogue, [1, 4, LENGTH])
    peers = scripts.peers.torch_peers(made.model, made.catalogue.items.all(), 10, compiled=False)
    answers = {name: peer.recommend(histories) for name, peer in peers.items()}
    served = Recommender.load(made.path, device="cpu", threads=1, variant=variant).recommend(histories, k=10)
    assert set(answers) == {"naive", "tuned"}
    scripts.rounds.require_equal(answers | {variant: (served.items, served.scores)}, "naive")
    for history, items in zip(histories, answers["naive"][0], strict=True):
        assert not set(history) & set(items)


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # torch's compiler, itself
def test_compiled_peers_answer_as_the_eager_ones(scripts: SimpleNamespace, made: Any) -> None:
    histories = scripts.bundles.histories_of(made.catalogue, [LENGTH] * 3)
    peers = scripts.peers.torch_peers(made.model, made.catalogue.items.all(), 10)
    answers = {name: peer.recommend(histories) for name, peer in peers.items()}
    assert set(answers) == {"naive", "tuned", "naive compiled", "tuned compiled"}
    scripts.rounds.require_equal(answers, "naive")


def test_a_pipeline_started_from_files_answers_as_the_one_that_was_saved(
    scripts: SimpleNamespace, made: Any, tmp_path: Path
) -> None:
    (history,) = scripts.bundles.histories_of(made.catalogue, [4])
    scripts.peers.save(tmp_path / "torch", made.model, made.catalogue.items.all(), history)
    before = scripts.peers.torch_peers(made.model, made.catalogue.items.all(), 10, compiled=False)["naive"]
    after = scripts.peers.load(str(tmp_path / "torch"))
    assert after.recommend([history])[0] == before.recommend([history])[0]


@pytest.mark.parametrize(
    ("name", "items", "scores", "complaint"),
    [
        ("other", [[7, 5, 3]], [[0.9, 0.8, 0.71]], "other answers row 0 otherwise than ours: scores are 1.00e-02"),
        ("other", [[7, 3, 5]], [[0.9, 0.8, 0.7]], "other answers row 0 otherwise"),
        ("int8", [[7, 5, 4]], [[0.9, 0.8, 0.7]], "int8 shares 0.6667 of its items with ours"),
    ],
    ids=["a score", "an order", "an item of int8"],
)
def test_peers_that_answer_otherwise_are_refused(
    scripts: SimpleNamespace, name: str, items: Any, scores: Any, complaint: str
) -> None:
    ours = ([[7, 5, 3]], np.array([[0.9, 0.8, 0.7]], np.float32))
    with pytest.raises(SystemExit, match=complaint):
        scripts.rounds.require_equal({"ours": ours, name: (items, np.array(scores, np.float32))}, "ours")


@pytest.mark.parametrize(
    ("measure", "columns"),
    [
        ("against_torch", ["fp32 / naive", "fp32 / tuned", "int8 / naive", "int8 / tuned"]),
        ("mixed", ["buckets / padded"]),
    ],
)
def test_a_table_has_a_row_for_every_cell_and_a_ratio_for_every_pair(
    scripts: SimpleNamespace, measure: str, columns: list[str]
) -> None:
    options = argparse.Namespace(**OPTIONS, variants=["fp32", "int8"], rounds=3, clock="cpu", no_compile=True)
    title, _, *lines = scripts.runtime.speed(options, getattr(scripts.runtime, measure)).splitlines()
    assert "torch 2." in title
    assert "3 rounds" in title
    head, rows = cells(lines[0]), [cells(line) for line in lines[2:]]
    assert [row[:4] for row in rows] == [[str(ITEMS), str(WIDTH), str(LENGTH), batch] for batch in ("1", "3")]
    assert head[-len(columns) :] == columns
    for row in rows:
        for cell in row[-len(columns) :]:
            middle, _, spread = cell.partition(" ")
            low, high = map(float, spread.strip("()").split("-"))
            assert float(middle) > 0
            assert 0 < low <= high


def test_peers_take_turns_and_each_is_timed_in_every_round(scripts: SimpleNamespace) -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    times = scripts.rounds.take_turns(calls, 3, turn=0.0)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
    assert called == [*"aabb", *"ab", *"ba", *"ab"]  # twice each to begin with, then a round a pair


def test_the_shared_pieces_keep_their_examples(scripts: SimpleNamespace) -> None:
    module: ModuleType = scripts.rounds
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_a_section_is_replaced_where_it_stands_and_added_where_it_is_new(
    scripts: SimpleNamespace, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBy hand.\n\n## One\n\nold\n\n## Two\n\nkept\n")
    scripts.rounds.write_section(page, "One", "new")
    scripts.rounds.write_section(page, "Three", "added")
    assert page.read_text() == "# Title\n\nBy hand.\n\n## One\n\nnew\n\n## Two\n\nkept\n\n## Three\n\nadded\n"


def test_a_fresh_process_is_measured_once_it_has_answered(scripts: SimpleNamespace) -> None:
    small = scripts.fresh.start("import sys" + scripts.fresh.WAIT)
    large = scripts.fresh.start("import sys; kept = bytes(range(256)) * 2**18" + scripts.fresh.WAIT)
    assert large.resident - small.resident >= 0.9 * 2**26  # what it kept, less what differs between two processes
    with pytest.raises(SystemExit, match="a fresh process gave no answer: 1 / 0"):
        scripts.fresh.start("1 / 0")


def cells(line: str) -> list[str]:
    """What stands between the bars."""
    return [cell.strip() for cell in line.strip("|").split("|")]
