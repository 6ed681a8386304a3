"""Losses of the next item against plain formulas in float64, one case at a time, and against expectations written out."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from genrec.histories import Ragged
from genrec.modules import NextItemLoss, catalogue_losses, gbce, next_item_cross_entropy, sampled_softmax

N, V, D = 3, 5, 4
CLOSE = {"atol": 1e-9, "rtol": 0.0}
CLOSE_32 = {"atol": 1e-6, "rtol": 0.0}  # logarithms and shares of counts are float32
COUNTS = [3, 0, 8, 1, 15]  # events of the items 1..V


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_share(chosen: float, others: list[float]) -> float:
    """log of the share that exp(chosen) has of exp of all."""
    return chosen - math.log(sum(map(math.exp, [chosen, *others])))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def histories() -> Ragged:
    """A user an item, of as many events as COUNTS say."""
    return Ragged.from_rows([[item] * count for item, count in enumerate(COUNTS, start=1)])


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two positions over V items, where there are more than two."""
    monkeypatch.setattr(catalogue_losses, "LOGITS_AT_ONCE", 2 * V + 1)
    monkeypatch.setattr(catalogue_losses, "_LEAST_ROWS", 1)


def test_next_item_cross_entropy_is_over_all_items_but_padding() -> None:
    states, table, targets = rand(N, D), rand(V + 1, D, seed=1), torch.tensor([1, V, 2])
    expected = 0.0
    for state, target in zip(states, targets.tolist(), strict=True):
        logits = [float(state @ table[item]) for item in range(1, V + 1)]
        expected -= log_share(logits[target - 1], [x for i, x in enumerate(logits, start=1) if i != target]) / 3
    torch.testing.assert_close(next_item_cross_entropy(states, table, targets).item(), expected, **CLOSE)


@pytest.mark.usefixtures("in_chunks")
@pytest.mark.parametrize("positions", [2, 3, 7, 8], ids=["one matrix", "a rest of 1", "many and a rest", "many"])
def test_chunks_have_the_loss_and_the_gradients_of_one_matrix(positions: int) -> None:
    states, table = rand(positions, D).requires_grad_(), rand(V + 1, D, seed=1).requires_grad_()
    targets = torch.arange(positions) % 3 + 1  # items that are targets of several positions, and items of none
    whole = 3 * F.cross_entropy(states @ table[1:].T, targets - 1)
    expected = torch.autograd.grad(whole, [states, table])
    loss = 3 * next_item_cross_entropy(states, table, targets)
    torch.testing.assert_close(loss, whole, **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(loss, [states, table]), expected, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(3 * next_item_cross_entropy(states, table, targets), whole.detach(), **CLOSE)


def test_a_large_catalogue_has_the_loss_and_the_gradients_of_one_matrix() -> None:
    items, positions = 60_000, 300
    assert 64 < catalogue_losses.LOGITS_AT_ONCE // items < positions  # so that there are several chunks
    states, table = rand(positions, 16).requires_grad_(), rand(items + 1, 16, seed=1).requires_grad_()
    targets = torch.arange(positions) * 199 + 1
    whole = F.cross_entropy(states @ table[1:].T, targets - 1)
    expected = torch.autograd.grad(whole, [states, table])
    loss = next_item_cross_entropy(states.float(), table.float(), targets)
    torch.testing.assert_close(loss.double(), whole, rtol=1e-5, atol=0)  # float32 sums of 60,000 terms
    for got, wanted in zip(torch.autograd.grad(loss, [states, table]), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else (result,)
        self.size = max([self.size, *(x.numel() for x in results if isinstance(x, Tensor))])
        return result


@pytest.mark.usefixtures("in_chunks")
def test_no_tensor_is_larger_than_the_table_or_a_chunk() -> None:
    states, table = rand(9, D).requires_grad_(), rand(V + 1, D, seed=1).requires_grad_()
    with LargestTensor() as largest:
        next_item_cross_entropy(states, table, torch.arange(9) % V + 1).backward()
    assert largest.size == max((V + 1) * D, 9 * D, 2 * V)
    assert largest.size < 9 * V


def test_chunks_of_a_catalogue_beyond_all_bounds_still_hold_some_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_losses, "LOGITS_AT_ONCE", V - 1)
    monkeypatch.setattr(catalogue_losses, "_LEAST_ROWS", 3)
    states, table, targets = rand(8, 1), rand(V + 1, 1, seed=1), torch.arange(8) % V + 1
    with LargestTensor() as largest:
        loss = next_item_cross_entropy(states, table, targets)
    torch.testing.assert_close(loss, F.cross_entropy(states @ table[1:].T, targets - 1), **CLOSE)
    assert largest.size == 3 * V


@pytest.mark.usefixtures("in_chunks")
def test_chunks_bear_logits_of_any_size() -> None:
    states = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    table = torch.tensor([[9.0], [1.0], [2.0], [3.0], [4.0], [5.0]], requires_grad=True)
    loss = next_item_cross_entropy(states, table, torch.tensor([5, 5, 5]))
    loss.backward()
    torch.testing.assert_close(loss.item(), (0 + 4e4 + math.log(V)) / 3)
    mean = (1 + 2 + 3 + 4 + 5) / V
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.tensor([[0.0], [1 - 5], [mean - 5]]) / 3)


@pytest.mark.usefixtures("in_chunks")
def test_chunks_keep_the_tables_precision_under_autocast() -> None:
    states = rand(7, D).bfloat16().requires_grad_()
    table, targets = rand(V + 1, D, seed=1).float().requires_grad_(), torch.arange(7) % V + 1
    whole = F.cross_entropy(states.float() @ table[1:].T, targets - 1)
    expected = torch.autograd.grad(whole, [states, table])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = next_item_cross_entropy(states, table, targets)
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)  # bfloat16 would be off by 1e-2
    torch.testing.assert_close(torch.autograd.grad(loss, [states, table]), expected, rtol=1e-5, atol=1e-7)


def test_sampled_softmax_follows_the_formula() -> None:
    states, table, targets = rand(2, D), rand(V + 1, D, seed=1), torch.tensor([1, 4])
    negatives = torch.tensor([2, 4, 2, 0, 5])  # 2 drawn twice, 4 a hit of the second, padding
    expected = 0.0
    for state, target, kept in ((states[0], 1, [2, 4, 2, 5]), (states[1], 4, [2, 2, 5])):
        correction = math.log((V - 1) / len(kept))
        logits = [float(state @ table[item]) + correction for item in kept]
        expected -= log_share(float(state @ table[target]), logits) / 2
    torch.testing.assert_close(sampled_softmax(states, table, targets, negatives).item(), expected, **CLOSE_32)


def test_sampled_softmax_corrects_by_the_log_of_what_each_negative_was_drawn_by() -> None:
    states, table, targets = rand(2, D), rand(V + 1, D, seed=1), torch.tensor([1, 4])
    negatives = torch.tensor([2, 4, 2, 0, 5])
    shares = [0.0, 0.1, 0.2, 0.05, 0.25, 0.4]
    expected = 0.0
    for state, target, kept in ((states[0], 1, [2, 4, 2, 5]), (states[1], 4, [2, 2, 5])):
        others = 1 - shares[target]  # of which a draw that is no hit takes item j with shares[j] / others
        logits = [float(state @ table[j]) - math.log(len(kept) * shares[j] / others) for j in kept]
        expected -= log_share(float(state @ table[target]), logits) / 2
    loss = sampled_softmax(states, table, targets, negatives, torch.tensor(shares, dtype=torch.float64))
    torch.testing.assert_close(loss.item(), expected, **CLOSE_32)


def test_equal_shares_are_those_of_uniform_negatives() -> None:
    states, table, targets = rand(2, D), rand(V + 1, D, seed=1), torch.tensor([1, 4])
    negatives, shares = torch.tensor([2, 4, 2, 0, 5]), torch.tensor([0.0] + [1 / V] * V, dtype=torch.float64)
    uniform = sampled_softmax(states, table, targets, negatives)
    torch.testing.assert_close(sampled_softmax(states, table, targets, negatives, shares), uniform, **CLOSE_32)


@pytest.mark.parametrize("drawn", [[1, 1, 1, 1, 1], [1, 3, 2, 5, 4]], ids=["each once", "some more often"])
def test_a_sample_of_every_item_as_often_as_its_share_says_is_the_whole_cross_entropy(drawn: list[int]) -> None:
    states, table = rand(N, D).requires_grad_(), rand(V + 1, D, seed=1).requires_grad_()
    targets = torch.tensor([3, 1, 5])
    negatives = torch.repeat_interleave(torch.arange(V + 1), torch.tensor([1, *drawn]))
    shares = None if len(set(drawn)) == 1 else torch.tensor([0, *drawn], dtype=torch.float64) / sum(drawn)
    whole = next_item_cross_entropy(states, table, targets)
    sampled = sampled_softmax(states, table, targets, negatives, shares)
    torch.testing.assert_close(sampled, whole, **CLOSE_32)
    expected = torch.autograd.grad(whole, [states, table])
    torch.testing.assert_close(torch.autograd.grad(sampled, [states, table]), expected, **CLOSE_32)


def test_the_sum_in_the_softmax_and_its_gradient_are_unbiased() -> None:
    """The mean over all pairs of draws that are no hits, each weighed by its probability."""
    state, table, target = rand(1, D).requires_grad_(), rand(V + 1, D, seed=1), torch.tensor([4])
    shares = torch.tensor([0.0, 0.1, 0.2, 0.05, 0.25, 0.4], dtype=torch.float64)
    expected = (state @ table[1:].T).exp().sum()
    mean = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product([1, 2, 3, 5], repeat=2):
        probability = math.prod(float(shares[item]) / (1 - 0.25) for item in pair)
        loss = sampled_softmax(state, table, target, torch.tensor(pair), shares)
        mean = mean + probability * (loss + state @ table[4]).exp().squeeze()  # loss = log(sum) - score
    torch.testing.assert_close(mean, expected, rtol=1e-7, atol=0)  # logarithms of counts are float32
    gradients = torch.autograd.grad(mean, state), torch.autograd.grad(expected, state)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=0)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_the_gradient_of_a_large_sample_is_the_whole_one(negatives: Any) -> None:
    torch.manual_seed(0)
    states, table = rand(N, D).requires_grad_(), rand(V + 1, D, seed=1).requires_grad_()
    targets = torch.tensor([3, 1, 5])
    sampling = NextItemLoss(V, "sampled_softmax", num_negatives=100_000, negatives=negatives)
    sampling.prepare(histories())
    sampled = torch.autograd.grad(sampling(states, table, targets), [states, table])
    whole = torch.autograd.grad(next_item_cross_entropy(states, table, targets), [states, table])
    torch.testing.assert_close(sampled, whole, rtol=0, atol=0.01)  # 100,000 draws, the rarest item in 4% of them
    torch.manual_seed(0)
    uncorrected = sampled_softmax(
        states, table, targets, torch.arange(1, V + 1).repeat_interleave(torch.tensor(COUNTS))
    )
    off = torch.autograd.grad(uncorrected, states)[0] - whole[0]
    assert off.abs().max() > 0.05  # what popular negatives do without their shares


def test_negatives_may_be_the_targets_of_the_batch() -> None:
    states, table, targets = rand(4, D), rand(V + 1, D, seed=1), torch.tensor([2, 5, 2, 3])
    shares = torch.tensor([0.0, 0.2, 0.3, 0.1, 0.1, 0.3], dtype=torch.float64)
    expected = 0.0
    for state, target, others in zip(states, [2, 5, 2, 3], [[5, 3], [2, 2, 3], [5, 3], [2, 5, 2]], strict=True):
        logits = [
            float(state @ table[j]) + math.log((1 - float(shares[target])) / (len(others) * float(shares[j])))
            for j in others
        ]
        expected -= log_share(float(state @ table[target]), logits) / 4
    torch.testing.assert_close(sampled_softmax(states, table, targets, targets, shares).item(), expected, **CLOSE_32)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_gbce_follows_the_formula(t: float) -> None:
    states, table, targets = rand(2, D), rand(V + 1, D, seed=1), torch.tensor([1, 4])
    negatives = torch.tensor([2, 4, 0, 5])  # 4 a hit of the second, padding
    expected = 0.0
    for state, target, kept in ((states[0], 1, [2, 4, 5]), (states[1], 4, [2, 5])):
        alpha = len(kept) / (V - 1)
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        logs = [math.log(1 - sigmoid(float(state @ table[item]))) for item in kept]
        positive = math.log(sigmoid(float(state @ table[target])) ** beta)
        expected -= (positive + sum(logs)) / (len(kept) + 1) / 2
    torch.testing.assert_close(gbce(states, table, targets, negatives, t).item(), expected, **CLOSE_32)


def test_gbce_of_all_items_is_binary_cross_entropy_whatever_its_calibration() -> None:
    states, table, targets = rand(N, D), rand(V + 1, D, seed=1), torch.tensor([3, 1, 5])
    wanted = F.one_hot(targets - 1, V).double()
    expected = F.binary_cross_entropy_with_logits(states @ table[1:].T, wanted)
    for t in (0.0, 0.75, 1.0):
        torch.testing.assert_close(gbce(states, table, targets, torch.arange(V + 1), t), expected, **CLOSE_32)


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_the_best_scores_by_gbce_are_as_far_off_as_its_calibration_says(t: float) -> None:
    """Where item i comes next with probability p_i, and two negatives are drawn of the four others, the mean gradient is 0."""
    p = torch.tensor([0.1, 0.2, 0.05, 0.25, 0.4], dtype=torch.float64)
    alpha = 2 / (V - 1)
    beta = 1 if t == 0 else alpha if t == 1 else 1 - 0.75 * (1 - alpha)
    best = beta * p / (beta * p + alpha * (1 - p))
    table = F.pad(best.logit(), (1, 0)).unsqueeze(1).requires_grad_()  # (V + 1, 1)
    mean = torch.zeros((), dtype=torch.float64)
    for target in range(1, V + 1):
        others = [item for item in range(1, V + 1) if item != target]
        for pair in itertools.product(others, repeat=2):
            loss = gbce(torch.ones(1, 1).double(), table, torch.tensor([target]), torch.tensor(pair), t)
            mean = mean + p[target - 1] / (V - 1) ** 2 * loss
    (gradient,) = torch.autograd.grad(mean, table)
    torch.testing.assert_close(gradient, torch.zeros(V + 1, 1).double(), **CLOSE)
    assert (t == 1) == bool(torch.allclose(best, p))


def test_gbce_bears_scores_of_any_size() -> None:
    states = torch.tensor([[1e5], [-1e5]], requires_grad=True)
    table = torch.tensor([[9.0], [1.0], [-1.0], [0.5]])
    loss = gbce(states, table, torch.tensor([1, 1]), torch.tensor([2, 3]), t=0.5)
    loss.backward()
    beta = 1  # both other items are negatives
    torch.testing.assert_close(loss.item(), ((0 + 0.5e5) / 3 + (beta * 1e5 + 1e5) / 3) / 2)
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.tensor([[0.5 / 3], [(-beta - 1) / 3]]) / 2)


def test_item_losses_of_nothing_are_zero_and_of_hits_alone_too() -> None:
    states, table = rand(2, D).requires_grad_(), rand(V + 1, D, seed=1)
    none, shares = torch.zeros(0, dtype=torch.int64), torch.tensor([0.0, 0.1, 0.2, 0.05, 0.25, 0.4])
    assert next_item_cross_entropy(states[:0], table, none) == 0
    assert sampled_softmax(states[:0], table, none, torch.tensor([1])) == 0
    assert gbce(states[:0], table, none, torch.tensor([1])) == 0
    for loss in (
        sampled_softmax(states, table, torch.tensor([2, 2]), torch.tensor([2, 0])),
        sampled_softmax(states, table, torch.tensor([2, 2]), torch.tensor([2, 0]), shares),
        gbce(states, table, torch.tensor([2, 2]), torch.tensor([2, 0]), t=1.0),  # none left: alpha and beta are 0
    ):
        states.grad = None
        loss.backward()
        assert loss == 0
        assert states.grad is not None
        assert states.grad.eq(0).all()


def test_popular_items_are_drawn_by_their_smoothed_counts_to_a_power() -> None:
    torch.manual_seed(0)
    loss = NextItemLoss(V, "sampled_softmax", num_negatives=50_000, negatives="popularity", popularity_power=0.5)
    loss.prepare(histories())
    weights = [math.sqrt(count + 1) for count in COUNTS]  # 2, 1, 3, sqrt(2), 4
    expected = torch.tensor([0, *weights]) / sum(weights)
    torch.testing.assert_close(loss.shares, expected)
    drawn = torch.bincount(loss._draw(torch.device("cpu")), minlength=V + 1) / 50_000
    assert drawn[0] == 0
    torch.testing.assert_close(drawn, expected, rtol=0, atol=0.01)  # a share's standard deviation is .0022 at most


@pytest.mark.parametrize(("place", "item"), [(0.0, 1), (1 - 2**-53, V)], ids=["lowest", "highest"])
def test_the_ends_of_the_range_are_drawn_as_items(place: float, item: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = NextItemLoss(V, "sampled_softmax", num_negatives=2, negatives="popularity")
    loss.prepare(histories())
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.full((size,), place, dtype=torch.float64))
    assert loss._draw(torch.device("cpu")).tolist() == [item, item]


def test_a_power_of_zero_draws_uniformly() -> None:
    loss = NextItemLoss(V, "sampled_softmax", negatives="popularity", popularity_power=0)
    loss.prepare(histories())
    torch.testing.assert_close(loss.shares, torch.tensor([0.0] + [1 / V] * V))


def test_each_name_stands_for_its_loss() -> None:
    states, table, targets = rand(N, D), rand(V + 1, D, seed=1), torch.tensor([3, 1, 5])

    def of(name: Any, **settings: Any) -> float:
        loss = NextItemLoss(V, name, num_negatives=7, **settings)
        loss.prepare(histories())
        torch.manual_seed(0)
        return float(loss(states, table, targets))

    torch.manual_seed(0)
    drawn = torch.randint(1, V + 1, (7,))
    assert of("cross_entropy") == next_item_cross_entropy(states, table, targets)
    assert of("sampled_softmax") == sampled_softmax(states, table, targets, drawn)
    assert of("gbce", gbce_t=0.4) == gbce(states, table, targets, drawn, 0.4)
    torch.manual_seed(0)
    popular = NextItemLoss(V, "sampled_softmax", num_negatives=7, negatives="popularity")
    popular.prepare(histories())
    drawn = popular._draw(torch.device("cpu"))
    assert of("sampled_softmax", negatives="popularity") == sampled_softmax(
        states, table, targets, drawn, popular.shares
    )


def test_counts_are_no_weights_and_must_be_there() -> None:
    loss = NextItemLoss(V, "sampled_softmax", negatives="popularity")
    with pytest.raises(RuntimeError, match=r"call prepare\(histories\) first"):
        loss(rand(N, D), rand(V + 1, D), torch.tensor([1, 2, 3]))
    loss.prepare(histories())
    assert loss.state_dict() == {}


def test_loss_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss \('bce'\) must be 'cross_entropy', 'sampled_softmax' or 'gbce'"):
        NextItemLoss(V, "bce")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"negatives \('popular'\) must be 'uniform' or 'popularity'"):
        NextItemLoss(V, negatives="popular")  # type: ignore[arg-type]  # wrong on purpose
    for name in ("cross_entropy", "gbce"):
        with pytest.raises(ValueError, match=f"'popularity' belongs to loss 'sampled_softmax', not to '{name}'"):
            NextItemLoss(V, name, negatives="popularity")  # type: ignore[arg-type]  # a plain string
    with pytest.raises(ValueError, match=r"num_items \(0\) must be at least 1"):
        NextItemLoss(0)
    with pytest.raises(ValueError, match=r"num_negatives \(0\) must be at least 1"):
        NextItemLoss(V, num_negatives=0)
    for power in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"popularity_power \(.*\) must be at least 0"):
            NextItemLoss(V, popularity_power=power)
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"gbce_t \(.*\) in \[0, 1\]"):
            NextItemLoss(V, gbce_t=t)
