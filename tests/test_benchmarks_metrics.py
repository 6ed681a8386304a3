"""The benchmark of the metrics at tiny sizes: that what is timed answers alike and tables are made, never how fast."""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genrec.metrics import evaluate

FOLDER = Path(__file__).parents[1] / "benchmarks"
USERS, ITEMS, LENGTH = 53, 2503, 17


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The scripts as modules: they import one another as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("metrics", "metrics_peers")})


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        users=USERS,
        items=ITEMS,
        subset=7,
        lists=[5, 11],
        streamed=230,
        rounds=3,
        clock="cpu",
        results=tmp_path / "a.md",
    )


def cells(line: str) -> list[str]:
    """What stands between the bars."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_workload_has_distinct_items_and_targets_of_which_some_are_found(scripts: SimpleNamespace) -> None:
    work = scripts.metrics_peers.Workload.drawn(USERS, ITEMS, LENGTH, seed=3)
    predictions, targets = work.lists
    assert work.predictions.shape == (USERS, LENGTH)
    assert {len(row) for row in targets} <= set(range(1, 21))
    for row in predictions + targets:
        assert len(set(row)) == len(row)
        assert set(row) <= set(range(1, ITEMS + 1))
    found = evaluate(predictions, targets, [LENGTH])[f"recall@{LENGTH}"]
    assert 0.1 < found < 0.5  # a fifth, and those met by chance
    again = scripts.metrics_peers.Workload.drawn(USERS, ITEMS, LENGTH, seed=3)
    assert again.lists == work.lists
    assert scripts.metrics_peers.Workload.drawn(USERS, ITEMS, LENGTH, seed=4).lists != work.lists


def test_a_catalogue_too_small_to_draw_from_is_refused(scripts: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"items \(424\) must be at least 25 times the length of lists \(17\)"):
        scripts.metrics_peers.Workload.drawn(USERS, 25 * LENGTH - 1, LENGTH)


def test_the_first_users_of_a_workload_are_those_of_the_whole(scripts: SimpleNamespace) -> None:
    work = scripts.metrics_peers.Workload.drawn(USERS, ITEMS, LENGTH)
    assert work.first(7).lists == tuple(part[:7] for part in work.lists)
    assert len(work.first(7).targets.values) == sum(map(len, work.lists[1][:7]))


def test_the_reference_answers_as_ours_on_a_workload(scripts: SimpleNamespace) -> None:
    work = scripts.metrics_peers.Workload.drawn(USERS, ITEMS, 100)
    means = scripts.metrics_peers.reference(*work.lists, scripts.metrics.KS)
    assert len(means) == 4 * 5
    scripts.metrics.require_same(
        "theirs", means, evaluate(work.predictions, work.targets, scripts.metrics.KS), scripts.metrics.EXACT
    )


def test_the_reference_is_as_its_page_defines_it_where_ours_is_not(scripts: SimpleNamespace) -> None:
    reference = scripts.metrics_peers.Reference
    assert reference.ndcg_at_k([[7, 7]], [[7]], 2) == 1 + 1 / np.log2(3)  # a repeated hit gains again
    assert reference.precision_at_k([[7], [7]], [[7], []], 2) == (1 / 2 + 0) / 2
    assert reference.recall_at_k([[7], [7]], [[7, 8], []], 2) == 1 / 2
    assert reference.hit_rate_at_k([[7], [7]], [[7], []], 2) == 1


def test_tensors_hold_every_target_once_and_missed_ones_behind_the_list(scripts: SimpleNamespace) -> None:
    work = scripts.metrics_peers.Workload.drawn(USERS, ITEMS, LENGTH)
    scores, hits, whose = (part.numpy() for part in scripts.metrics_peers.torchmetrics_tensors(work))
    assert hits.sum() == len(work.targets.values)
    assert np.bincount(whose[hits]).tolist() == work.targets.lengths.tolist()
    recall = np.bincount(whose[hits & (scores > 0)], minlength=USERS) / work.targets.lengths
    expected = evaluate(work.predictions, work.targets, [LENGTH], per_user=True)[f"recall@{LENGTH}"]
    np.testing.assert_array_equal(recall, expected)


@pytest.mark.parametrize("other", [0.5 + 1e-8, float("nan")])
def test_a_peer_that_answers_otherwise_is_refused(scripts: SimpleNamespace, other: float) -> None:
    expected = {f"{name}@{k}": 0.5 for name in scripts.metrics_peers.METRICS for k in scripts.metrics.KS}
    scripts.metrics.require_same("theirs", expected, expected, 1e-9)
    with pytest.raises(SystemExit, match=r"theirs has .* for ndcg@20, and ours is 0.5"):
        scripts.metrics.require_same("theirs", expected | {"ndcg@20": other}, expected, 1e-9)


def test_a_method_that_answers_otherwise_is_refused(
    scripts: SimpleNamespace, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.metrics.Reference, "coverage", lambda *_: 0.25)
    with pytest.raises(SystemExit, match=r"coverage of the reference is 0.25, and ours 0.5"):
        scripts.metrics.method_ratio("coverage", ([[1], [2]], 4), options)


def test_peers_given_fewer_users_are_scaled_to_all(
    scripts: SimpleNamespace, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(work, ks, subset):
        few = work.first(subset)
        whole = scripts.metrics_peers.Peer(lambda: evaluate(work.predictions, work.targets, ks), USERS)
        part = scripts.metrics_peers.Peer(lambda: evaluate(few.predictions, few.targets, ks), subset)
        return {"the reference, whole": whole, "another, part": part}

    def one_second_each(calls, rounds, clock, turn):
        return {name: [1.0] * rounds for name in calls}

    monkeypatch.setattr(scripts.metrics, "peers_of", some)
    monkeypatch.setattr(scripts.metrics, "machine", lambda *packages: "a machine")
    monkeypatch.setattr(scripts.metrics, "take_turns", one_second_each)
    title, _, _, _, *rows = scripts.metrics.at_once(options).splitlines()
    assert f"{USERS} users" in title
    assert cells(rows[0]) == ["the reference, whole", "1.00 (1.00-1.00)", "50", "1.00 (1.00-1.00)", "20"]
    scaled = f"{USERS / 7:.2f}"
    assert cells(rows[1]) == ["another, part", f"{scaled} ({scaled}-{scaled})", "", f"{scaled} ({scaled}-{scaled})", ""]


@pytest.mark.parametrize(("part", "rows", "columns"), [("single", 4, 8), ("diversity", 2, 6), ("stream", 2, 4)])
def test_a_part_is_a_table_with_a_row_for_every_size(
    scripts: SimpleNamespace,
    options: argparse.Namespace,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    rows: int,
    columns: int,
) -> None:
    monkeypatch.setattr(scripts.metrics, "SINGLE", [(3, 3), (5, 2)])
    monkeypatch.setattr(scripts.metrics, "SINGLE_USERS", 29)
    monkeypatch.setattr(scripts.metrics, "LENGTHS", (3,))
    monkeypatch.setattr(scripts.metrics, "take_turns", partial(scripts.metrics.take_turns, turn=0.0))
    title, _, head, _, *lines = getattr(scripts.metrics, part)(options).splitlines()
    assert "numpy" in title
    assert len(lines) == rows
    assert {len(cells(line)) for line in (head, *lines)} == {columns}


def test_a_stream_of_any_number_of_users_is_counted_whole_and_its_memory_told(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scripts.metrics, "BATCH", 100)
    scripts.metrics.stream_here(230, ITEMS)
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["imported"] <= found["peak"]


def test_the_peak_of_memory_stays_when_the_memory_is_given_back(scripts: SimpleNamespace) -> None:
    before = scripts.metrics.peak_memory()
    np.ones(before >> 3)  # as much again as ever was in use, 8 bytes each
    assert scripts.metrics.peak_memory() > before


def test_items_of_log_uniform_number_lie_in_the_catalogue_and_favour_the_first(scripts: SimpleNamespace) -> None:
    items = scripts.metrics.popular_items(500, ITEMS, 10)
    assert items.min() == 1
    assert items.max() <= ITEMS
    times = np.bincount(items.ravel())
    assert times[1] > 1.5 * times[2] > 2 * times[4] > 0


def test_all_parts_are_written_into_the_page_under_the_command_that_prints_each(
    scripts: SimpleNamespace, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {title: lambda _, title=title: f"figures of {title}" for title in scripts.metrics.PARTS}
    monkeypatch.setattr(scripts.metrics, "PARTS", parts)
    options.results.write_text("# By hand\n")
    monkeypatch.setattr(sys, "argv", ["metrics.py", "--all", "--results", str(options.results)])
    scripts.metrics.main()
    head, *sections = options.results.read_text().split("\n## ")
    assert head == "# By hand\n"
    assert sections[0] == "At once\n\n`python benchmarks/metrics.py --at-once`\n\nfigures of At once\n"
    assert [section.partition("\n")[0] for section in sections] == list(parts)


def test_one_part_is_printed(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(scripts.metrics.PARTS, "Single", lambda options: f"{options.rounds} rounds")
    monkeypatch.setattr(sys, "argv", ["metrics.py", "--single", "--rounds", "4"])
    scripts.metrics.main()
    assert capsys.readouterr().out == "4 rounds\n"
