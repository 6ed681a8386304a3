"""What ranx and RecTools answer: runs in an environment that has them, where nothing of genrec is needed.

Reads questions from standard input, a line of JSON each, and answers with a line: by metric the peer's mean, and its value
of each user, NaN where it gives none. A question names its "peer" and holds what that peer's function below is called with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

RANX = ("recall", "precision", "ndcg", "ndcg_burges", "hit_rate", "mrr", "map")
Lists = list[list[Any]]
Answers = dict[str, dict[str, Any]]


def main() -> None:
    peers: dict[str, Callable[..., Answers]] = {
        "ranx": ranx_on_arrays,
        "ranx by name": ranx_by_name,
        "RecTools": rectools,
        "RecTools on items": rectools_on_items,
    }
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(peers[question.pop("peer")](**question)), flush=True)


def ranx_on_arrays(predictions: Lists, targets: Lists, ks: list[int]) -> Answers:
    """Rows of an id and a relevance or score, in float64, which is how ranx keeps ids of any kind."""
    import numpy as np
    from numba.typed import List

    def table(ids: list[int], scores: Iterable[int]) -> Any:
        return np.array([*zip(ids, scores, strict=True)], dtype=np.float64).reshape(-1, 2)

    qrels = List([table(row, [1] * len(row)) for row in targets])
    run = List([table(row, range(len(row), 0, -1)) for row in predictions])
    return _ranx(qrels, run, ks)


def ranx_by_name(predictions: Lists, targets: Lists, ks: list[int]) -> Answers:
    """Its own containers, which hold each id of a user once."""
    from ranx import Qrels, Run

    users = [f"{user:06}" for user in range(len(targets))]  # ranx sorts by these
    qrels = Qrels({user: {str(one): 1 for one in row} for user, row in zip(users, targets, strict=True)})
    run = Run(
        {
            user: {str(one): len(row) - place for place, one in enumerate(row)}
            for user, row in zip(users, predictions, strict=True)
        }
    )
    return _ranx(qrels, run, ks)


def _ranx(qrels: Any, run: Any, ks: list[int]) -> Answers:
    from ranx import evaluate

    names = [f"{metric}@{k}" for metric in RANX for k in ks]
    users = evaluate(qrels, run, names, return_mean=False, threads=1)
    means = evaluate(qrels, run, names, threads=1)
    return {name: {"mean": float(means[name]), "users": users[name].tolist()} for name in names}


def rectools(predictions: Lists, targets: Lists, ks: list[int]) -> Answers:
    """Tables of users, items and ranks."""
    from rectools import Columns
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Precision, Recall, calc_metrics

    kinds: dict[str, Callable[[int], Any]] = {
        "recall": lambda k: Recall(k=k),
        "precision": lambda k: Precision(k=k),
        "r_precision": lambda k: Precision(k=k, r_precision=True),
        "ndcg": lambda k: NDCG(k=k, divide_by_achievable=True),
        "ndcg_by_k": lambda k: NDCG(k=k),
        "hit_rate": lambda k: HitRate(k=k),
        "mrr": lambda k: MRR(k=k),
        "map": lambda k: MAP(k=k),
        "map_by_k": lambda k: MAP(k=k, divide_by_k=True),
    }
    metrics = {f"{name}@{k}": make(k) for name, make in kinds.items() for k in ks}
    reco, interactions = _ranked(predictions), _ranked(targets).drop(columns=Columns.Rank)
    means = calc_metrics(metrics, reco, interactions)
    every = range(len(targets))
    return {
        name: {"mean": means[name], "users": metric.calc_per_user(reco, interactions).reindex(every).tolist()}
        for name, metric in metrics.items()
    }


def rectools_on_items(predictions: Lists, ks: list[int], popularity: list[int], vectors: list[list[float]]) -> Answers:
    """Coverage, popularity, novelty and intra-list diversity of lists of item numbers, means alone.

    Args:
        predictions: item numbers from 1.
        ks: cut-offs.
        popularity: V + 1 counts of the users that met each item; entry 0 is not used.
        vectors: V + 1 rows, for the cosine between items.
    """
    import numpy as np
    import pandas as pd
    from rectools import Columns
    from rectools.metrics import AvgRecPopularity, CatalogCoverage, IntraListDiversity, MeanInvUserFreq
    from rectools.metrics.distances import PairwiseDistanceCalculator

    table = np.array(vectors)

    class Cosine(PairwiseDistanceCalculator):
        """RecTools has no cosine; this is how one is given."""

        def _get_distances_for_item_pairs(self, items_0: Any, items_1: Any) -> Any:
            one, other = table[items_0.astype(int)], table[items_1.astype(int)]
            lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            return 1 - (one * other).sum(axis=1) / lengths

    reco = _ranked(predictions)
    met = [(user, item) for item, count in enumerate(popularity) if item for user in range(count)]
    before = pd.DataFrame(met, columns=[Columns.User, Columns.Item])
    found: Answers = {}
    for k in ks:
        means = {
            "coverage": CatalogCoverage(k=k, normalize=True).calc(reco, range(1, len(popularity))),
            "items": CatalogCoverage(k=k).calc(reco, range(1, len(popularity))),
            "average_popularity": AvgRecPopularity(k=k).calc(reco, before),
            "novelty": MeanInvUserFreq(k=k).calc(reco, before),
            "intra_list_diversity": IntraListDiversity(k=k, distance_calculator=Cosine()).calc(reco),
        }
        found |= {f"{name}@{k}": {"mean": float(mean)} for name, mean in means.items()}
    return found


def _ranked(lists: Lists) -> Any:
    """A row for each entry of each user's list, with its rank from 1."""
    import pandas as pd
    from rectools import Columns

    rows = [(user, item, rank) for user, row in enumerate(lists) for rank, item in enumerate(row, start=1)]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])


if __name__ == "__main__":
    main()
