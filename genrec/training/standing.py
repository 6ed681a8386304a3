"""How a trained model stands: intervals of what it scored, and the same cases answered by models that only count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from genrec.cards import JUDGED
from genrec.data import Split
from genrec.metrics.intervals import bootstrap_interval, paired_difference
from genrec.results.result import Floats
from genrec.training.contract import CountedModel, is_counted
from genrec.training.evaluation import evaluate

SHOWN = ("recall@10", "ndcg@10")


def intervals(values: Mapping[str, Floats]) -> dict[str, list[float]]:
    """The 95% bootstrap interval over users of recall and NDCG at 10; of fewer than two users none.

    Args:
        values: per metric float64 (cases,).
    """
    return {
        name: [float(end) for end in bootstrap_interval(values[name])]
        for name in SHOWN
        if name in values and len(values[name]) > 1
    }


def measure_baselines(
    baselines: Mapping[str, nn.Module],
    split: Split,
    values: Mapping[str, Floats],
    device: torch.device,
    batch_size: int = 256,
) -> dict[str, Any]:
    """Fits counted models to the same training events and scores them on the same test cases.

    Args:
        baselines: by name, not yet fitted.
        split: of the trained model.
        values: that model's values by case.
        device: where they score.
        batch_size: histories scored at once.

    Returns:
        Per name recall@10 and ndcg@10, and ``difference``: the trained model's ndcg@10 minus this one's, the mean over users and
        the ends of its 95% bootstrap interval.

    Raises:
        TypeError: if one of them is not counted.
    """
    found: dict[str, Any] = {}
    for name, model in baselines.items():
        if not is_counted(model):
            raise TypeError(f"baseline {name!r} ({type(model).__name__}) is trained, not counted")
        cast(CountedModel, model).fit_events(split.train_histories())
        scored = evaluate(model.to(device), split, ks=(10,), batch_size=batch_size, full=True)
        gap = paired_difference(values[JUDGED], scored.values[JUDGED])
        found[name] = {key: scored.metrics[key] for key in SHOWN} | {
            "difference": [float(gap.mean), float(gap.low), float(gap.high)]
        }
    return found
