"""The counted models against the formulas written out as loops, and against figures measured on real data."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genrec.data import leave_one_out, load_data
from genrec.histories import Ragged
from genrec.training import fit
from genrec_models import ItemKNN, Markov, Popularity, SequentialRules, build, model_class

V = 23
RULES = [ItemKNN, Markov, SequentialRules]
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def histories() -> Ragged:
    """Rows of 0 to 14 events over 20 of 23 items; some repeat an item."""
    random = np.random.default_rng(4)
    return Ragged.from_rows([random.integers(1, 21, size=size % 15) for size in range(40)])


def knn_rules(histories: Ragged) -> dict[tuple[int, int], float]:
    owners: dict[int, set[int]] = defaultdict(set)
    for user, row in enumerate(histories.rows()):
        for item in row.tolist():
            owners[item].add(user)
    return {
        (i, j): len(owners[i] & owners[j]) / (len(owners[i]) * len(owners[j])) ** 0.5
        for i in owners
        for j in owners
        if i != j
    }


def follower_rules(histories: Ragged, longest: int) -> dict[tuple[int, int], float]:
    rules: dict[tuple[int, int], float] = Counter()
    for row in histories.rows():
        for place, i in enumerate(row.tolist()):
            for distance, j in enumerate(row[place + 1 : place + 1 + longest].tolist(), start=1):
                rules[i, j] += 1 / distance
    return rules


def expected_scores(rules: dict[tuple[int, int], float], history: list[int], depth: int, decay: float) -> list[float]:
    newest_first = history[::-1][:depth]
    return [sum(decay**k * rules.get((h, j), 0.0) for k, h in enumerate(newest_first)) for j in range(1, V + 1)]


@pytest.mark.parametrize(
    ("model", "longest", "depth", "decay"),
    [(ItemKNN(V), None, 50, 0.8), (SequentialRules(V), 10, 5, 0.8), (Markov(V), 1, 1, 1.0)],
    ids=["item-knn", "sequential-rules", "markov"],
)
def test_scores_follow_the_formula(
    histories: Ragged, model: ItemKNN | SequentialRules | Markov, longest: int | None, depth: int, decay: float
) -> None:
    model.fit_events(histories)
    rules = knn_rules(histories) if longest is None else follower_rules(histories, longest)
    rows = [row.tolist() for row in histories.rows() if len(row)]
    scores = model.scores(torch.from_numpy(Ragged.from_rows(rows).pad()))[:, 1:].numpy()
    for row, found in zip(rows, scores, strict=True):
        expected = np.array(expected_scores(rules, row, depth, decay))
        if isinstance(model, Markov):
            found = np.floor(found)  # the popularity of equals is a fraction below 1/2
        np.testing.assert_allclose(found[expected > 0], expected[expected > 0], rtol=1e-6)  # float32 sums
        assert np.all(found[expected == 0] < 0)


@pytest.mark.parametrize("kind", RULES)
def test_items_that_no_rule_names_follow_by_popularity(kind: type[nn.Module], histories: Ragged) -> None:
    model = build(kind, V, {})
    model.fit_events(histories)
    scores = model.scores(torch.tensor([[0, V]]))[0]  # nobody ever chose item V
    counts = np.bincount(histories.values, minlength=V + 1)
    by_score = np.lexsort((np.arange(1, V + 1), -scores[1:].numpy()))
    by_popularity = np.lexsort((np.arange(1, V + 1), -counts[1:]))
    np.testing.assert_array_equal(by_score, by_popularity)


def test_equal_markov_counts_go_by_popularity() -> None:
    model = Markov(4)
    model.fit_events(Ragged.from_rows([[1, 3], [1, 2], [3], [1, 4], [1, 4]]))
    scores = model.scores(torch.tensor([[1]]))[0, 1:]
    assert (scores.argsort(descending=True) + 1).tolist() == [4, 3, 2, 1]  # twice; once and seen twice; once; never


@pytest.mark.parametrize("kind", [Popularity, *RULES])
def test_padding_changes_nothing(kind: type[nn.Module], histories: Ragged) -> None:
    model = build(kind, V, {})
    model.fit_events(histories)
    short = torch.tensor([[3, 5, 2]])
    torch.testing.assert_close(model.scores(short), model.scores(nn.functional.pad(short, (9, 0))), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Popularity, *RULES])
def test_rules_survive_saving_into_a_model_that_holds_others(kind: type[nn.Module], histories: Ragged) -> None:
    model, empty, other = (build(kind, V, {}) for _ in range(3))
    model.fit_events(histories)
    other.fit_events(Ragged.from_rows([[1, 2], [2, 3]]))
    history = torch.tensor([[4, 9]])
    for restored in (empty, other):
        restored.load_state_dict(model.state_dict())
        torch.testing.assert_close(restored.scores(history), model.scores(history), rtol=0, atol=0)


def test_rows_are_scored_alike_however_they_are_cut(histories: Ragged, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ItemKNN(V)
    model.fit_events(histories)
    item_ids = torch.from_numpy(histories.pad())
    whole = model.scores(item_ids)
    monkeypatch.setattr("genrec_models.baselines._SLOTS_AT_ONCE", 1)
    torch.testing.assert_close(model.scores(item_ids), whole, rtol=0, atol=0)


def test_a_decay_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay \(0\) must be above 0 and at most 1"):
        ItemKNN(V, decay=0)
    with pytest.raises(ValueError, match=r"max_distance \(0\) must be at least 1"):
        SequentialRules(V, max_distance=0)
    with pytest.raises(ValueError, match=r"num_items \(0\)"):
        Markov(0)


MEASURED = [  # file, model, Recall@5, NDCG@5, Recall@10, NDCG@10, of an implementation by other hands
    ("movielens_small.events.csv.gz", "popularity", 0.0253, 0.0143, 0.0447, 0.0204),
    ("movielens_small.events.csv.gz", "item-knn", 0.0686, 0.0476, 0.1088, 0.0604),
    ("movielens_small.events.csv.gz", "sequential-rules", 0.0864, 0.0621, 0.1371, 0.0785),
    ("online_retail.events.parquet", "popularity", 0.0201, 0.0130, 0.0363, 0.0182),
    ("online_retail.events.parquet", "item-knn", 0.2025, 0.1535, 0.2499, 0.1688),
    ("online_retail.events.parquet", "markov", 0.2251, 0.1794, 0.2587, 0.1902),
    ("online_retail.events.parquet", "sequential-rules", 0.2131, 0.1569, 0.2703, 0.1753),
    ("amazon_beauty.events.csv.gz", "popularity", 0.0075, 0.0041, 0.0114, 0.0054),
    ("amazon_beauty.events.csv.gz", "item-knn", 0.0457, 0.0327, 0.0644, 0.0387),
    ("amazon_beauty.events.csv.gz", "markov", 0.0505, 0.0386, 0.0648, 0.0432),
    ("amazon_beauty.events.csv.gz", "sequential-rules", 0.0591, 0.0418, 0.0817, 0.0491),
]  # Markov on movielens_small is left out: its 671 cases hang on how ties are broken, which those figures did at random


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name", "recall5", "ndcg5", "recall10", "ndcg10"), MEASURED)
def test_real_data_give_the_figures_measured_elsewhere(
    file: str, name: str, recall5: float, ndcg5: float, recall10: float, ndcg10: float
) -> None:
    if not (SHARED / file).exists():
        pytest.skip(f"no {file} beside the repository")
    split = leave_one_out(load_data(SHARED / file, k_core=5))
    test = fit(build(model_class(name), len(split.data.items), {}), split).metrics["test"]
    found = [test[metric] for metric in ("recall@5", "ndcg@5", "recall@10", "ndcg@10")]
    np.testing.assert_allclose(found, [recall5, ndcg5, recall10, ndcg10], atol=0.003)  # those broke ties at random
