"""Recommenders over the grid: what is served against the torch path, for raw histories of every length and kind.

SASRec in several shapes, and the three models of other makes. Histories go from none to twice the window, in calls of 1, 2, 5
and 32 and all at once, so that short ones stand beside long, empty and unknown ones.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import my_models
from genrec.histories import Catalogue, ItemIds
from genrec_export import export_recommender
from genrec_models import HSTU, BERT4Rec, GRU4Rec, SASRec, TorchRecommender
from genrec_runtime import Recommender
from genrec_runtime.bundle import Bundle
from genrec_runtime.engine import Engine
from genrec_runtime.options import Options
from grid import BATCHES, assert_same, padded_ids
from recent import large
from tiny import ITEMS, MAX_SEQ_LENGTH, make_histories

K = 20
History = list[str]
Answers = list[tuple[list[str], list[float]]]
UNKNOWN = "gone"


@dataclass(frozen=True)
class Subject:
    """A recommender in torch, to be exported and served.

    Attributes:
        encode: numbers (B, L), 1.. in the order of ``items`` and 0 for padding, to states (B, D).
        score: states to (B, V), in the order of ``items``.
        torch_path: the owner's own path: histories of known items, none empty, to lists of ``K``.
        items: raw ids, in the model's order.
        longest: its window.
        padding: the side of the padding.
        popular: raw ids, the most popular first.
        window: "bucketed" where padding does not move its scores, else "fixed".
        export: to a store; gives the bundle's folder.
    """

    encode: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor]
    torch_path: Callable[[list[History]], Answers]
    items: list[str]
    longest: int
    padding: str
    popular: list[str]
    window: str
    export: Callable[[Path], Path]

    def numbers(self, history: History) -> list[int]:
        """The newest of a history, padded to the window."""
        newest = [1 + self.items.index(item) for item in history][-self.longest :]
        zeros = [0] * (self.longest - len(newest))
        return zeros + newest if self.padding == "left" else newest + zeros


def sasrec(width: int, heads: int, layers: int) -> Subject:
    sizes = {"embedding_dim": width, "num_heads": heads, "num_layers": layers, "max_seq_length": MAX_SEQ_LENGTH}
    return zoo(large(SASRec(len(ITEMS), **sizes)))


def gru4rec() -> Subject:
    return zoo(large(GRU4Rec(len(ITEMS), embedding_dim=9, hidden_dim=7, num_layers=2, max_seq_length=MAX_SEQ_LENGTH)))


def bert4rec() -> Subject:
    return zoo(large(BERT4Rec(len(ITEMS), embedding_dim=12, num_heads=3, max_seq_length=MAX_SEQ_LENGTH)))


def hstu() -> Subject:
    """Its weights stay small: its norms enlarge what is next to nothing, and every rounding error with it."""
    torch.manual_seed(3)
    sizes = {"embedding_dim": 10, "num_heads": 2, "head_dim": 7, "max_seq_length": MAX_SEQ_LENGTH}
    model = HSTU(len(ITEMS), use_time=False, **sizes)
    with torch.no_grad():
        model.encoder.embedding.weight.mul_(20)
    return zoo(model)


def zoo(model: Any) -> Subject:
    """A model of the zoo, over the tiny catalogue."""
    model.eval()
    catalogue = Catalogue(ItemIds(ITEMS), np.arange(len(ITEMS), 0, -1))
    path = TorchRecommender(model, catalogue)

    def torch_path(rows: list[History]) -> Any:
        return path.recommend(rows, K)

    def export(out: Path) -> Path:
        return export_recommender(
            encode=model.user_state,
            item_vectors=model.item_vectors(),
            item_ids=ITEMS,
            max_seq_length=MAX_SEQ_LENGTH,
            reference=torch_path,
            histories=make_histories(ITEMS, 40, 14),
            k_max=K,
            cold_start=ITEMS[::-1],
            out=out,
        ).path

    return Subject(
        encode=model.user_state,
        score=lambda states: states @ model.item_vectors()[1:].T,
        torch_path=torch_path,
        items=ITEMS,
        longest=MAX_SEQ_LENGTH,
        padding="left",
        popular=ITEMS[::-1],
        window="bucketed",
        export=export,
    )


def foreign(net: Any, encode: Any, predict: Any, padding: Any, window: str, **head: Any) -> Subject:
    """One of ``my_models``; ``head`` is its ``score`` or ``item_vectors``."""
    counts = Counter(item for history in my_models.histories for item in history)

    def export(out: Path) -> Path:
        return export_recommender(
            encode=encode,
            item_ids=my_models.item_ids,
            max_seq_length=my_models.LENGTH,
            padding=padding,
            reference=predict,
            histories=my_models.histories,
            k_max=K,
            out=out,
            **head,
        ).path

    return Subject(
        encode=encode,
        score=head.get("score") or (lambda states: states @ net.items.weight[1:].T),
        torch_path=predict,
        items=my_models.item_ids,
        longest=my_models.LENGTH,
        padding=padding,
        popular=sorted(my_models.item_ids, key=lambda item: (-counts[item], item)),
        window=window,
        export=export,
    )


def window_net() -> Subject:
    net = large(my_models.WindowNet()).eval()
    return foreign(net, net, my_models.predict_window(net), "left", "fixed", item_vectors=net.items.weight)


def right_net() -> Subject:
    net = large(my_models.RightNet()).eval()
    return foreign(
        net, net.user_vector, my_models.predict_right(net), "right", "bucketed", item_vectors=net.items.weight
    )


def gru_net() -> Subject:
    net = large(my_models.GRUNet()).eval()
    return foreign(net, net.last_state, my_models.predict_gru(net), "left", "fixed", score=net.head)


MAKERS = [
    pytest.param(lambda: sasrec(15, 5, 1), id="sasrec, odd width, 5 heads, 1 layer"),
    pytest.param(lambda: sasrec(12, 1, 2), id="sasrec, 1 head, 2 layers", marks=pytest.mark.slow),
    pytest.param(lambda: sasrec(14, 2, 1), id="sasrec, 2 heads, 1 layer", marks=pytest.mark.slow),
    pytest.param(lambda: sasrec(21, 7, 2), id="sasrec, odd width, 7 heads, 2 layers", marks=pytest.mark.slow),
    pytest.param(gru4rec, id="gru4rec, 2 layers"),
    pytest.param(bert4rec, id="bert4rec, 3 heads"),
    pytest.param(hstu, id="hstu without times, 2 heads"),
    pytest.param(window_net, id="left-padded, positions from the window's start"),
    pytest.param(right_net, id="right-padded encoder of torch"),
    pytest.param(gru_net, id="gru with a biased head"),
]


@pytest.fixture(scope="module", params=MAKERS)
def subject(request: pytest.FixtureRequest) -> Any:
    """Each of the recommenders."""
    return request.param()


@pytest.fixture(scope="module")
def bundle(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle."""
    return subject.export(tmp_path_factory.mktemp("grid") / "store")


def histories_of(subject: Subject) -> list[History]:
    """Every length up to twice the window, none among them; one item repeated; unknown ids among known ones, and alone."""
    random = np.random.default_rng(3)
    known = [
        [subject.items[i] for i in random.integers(0, len(subject.items), length)]
        for length in range(2 * subject.longest + 1)
    ]
    mixed = [[UNKNOWN, *row, UNKNOWN] for row in known[1::3]]
    repeated = [[subject.items[3]] * (subject.longest + 2)]
    return [*known, *repeated, *mixed, [UNKNOWN], [UNKNOWN] * (2 * subject.longest), []]


def test_the_window_is_the_one_that_the_model_needs(subject: Subject, bundle: Path) -> None:
    semantics = Bundle.open(bundle).manifest.semantics
    assert semantics is not None
    assert (semantics.window, semantics.padding) == (subject.window, subject.padding)


@pytest.mark.filterwarnings("ignore:.*item ids are unknown to the bundle:UserWarning")
def test_lists_are_those_of_the_torch_path(subject: Subject, bundle: Path) -> None:
    served = Recommender.load(bundle, device="cpu", threads=1)
    rows = histories_of(subject)
    for batch in (*BATCHES, len(rows)):
        for begin in range(0, len(rows), batch):
            part = rows[begin : begin + batch]
            answer = served.recommend(part, k=K)
            for row, items, scores, status in zip(part, answer.items, answer.scores, answer.status, strict=True):
                known = [item for item in row if item != UNKNOWN]
                if known:
                    assert status == "model"
                    assert_best(subject, known, items, scores)
                else:
                    assert status == ("all_unknown" if row else "cold_start")
                    assert items == subject.popular[:K]
                    np.testing.assert_allclose(scores, [1 / place for place in range(1, K + 1)], rtol=1e-6)


def assert_best(subject: Subject, known: History, items: list[Any], scores: Any) -> None:
    """The items have these scores in torch, and the torch path finds none that are better."""
    [(_, best)] = subject.torch_path([known])
    assert len(items) == len(best)
    assert not set(items) & set(known)
    with torch.no_grad():
        everything = subject.score(subject.encode(torch.tensor([subject.numbers(known)])))[0]
    own = everything[[subject.items.index(item) for item in items]]
    assert_same(np.stack([scores, scores]), torch.stack([own, torch.tensor(best)]), str(known))


def test_scores_and_states_are_those_of_torch(subject: Subject, bundle: Path) -> None:
    served = Recommender.load(bundle, device="cpu", threads=1)
    rows = [row for row in histories_of(subject) if row and UNKNOWN not in row]
    with torch.no_grad():
        states = subject.encode(torch.tensor([subject.numbers(row) for row in rows]))
        scores = subject.score(states)
    for batch in (*BATCHES, len(rows)):
        for begin in range(0, len(rows), batch):
            part = slice(begin, begin + batch)
            asked = [*rows[part], [], [UNKNOWN]]
            found = served.encode(asked)
            assert_same(found[:-2], states[part], f"states of {rows[part]}")
            assert not found[-2:].any()
            *scored, empty, unknown = served.score(asked, [subject.items] * len(asked))
            assert_same(np.stack(scored), scores[part], f"scores of {rows[part]}")
            rank = [1 + subject.popular.index(item) for item in subject.items]
            for cold in (empty, unknown):
                np.testing.assert_allclose(cold, 1 / np.array(rank), rtol=1e-6)


def test_states_of_tensors_are_those_of_torch_beside_dead_rows(subject: Subject, bundle: Path) -> None:
    engine = Engine(Bundle.open(bundle), Options("cpu", 1))
    number = np.array([0, *(1 + subject.items.index(item) for item in sorted(subject.items))])  # ours to the model's
    kinds = ("full", f"ragged {subject.padding}", "one dead row", "all dead")
    for case, ids, real in padded_ids(len(subject.items), subject.longest):
        if not case.endswith(kinds) or (subject.window == "fixed" and ids.shape[1] < subject.longest):
            continue
        item_ids = ids * real
        alive = real.any(axis=1)
        states = engine.run("encode", {"item_ids": item_ids})["states"]
        assert np.isfinite(states).all(), case
        assert not states[~alive].any(), case
        if alive.any():
            with torch.no_grad():
                assert_same(states[alive], subject.encode(torch.from_numpy(number[item_ids[alive]])), case)
