"""HSTU's units against their equations, slot by slot in plain loops; times and their buckets; the newest slot alone."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.modules.hstu import BUCKET_STEP, HSTUEncoder, bucket_boundaries

V, D, H, HEAD, N = 9, 6, 2, 3, 5
DAY = 86_400


def make(*, timed: bool, layers: int = 2) -> HSTUEncoder:
    """An encoder in double precision, with weights of some size, so that the loops below may be held to nine digits."""
    torch.manual_seed(0)
    encoder = HSTUEncoder(V, D, H, layers, HEAD, max_seq_length=N, timed=timed).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.5)
    return encoder


def silu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / (1 + np.exp(-x))


def norm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def by_hand(encoder: HSTUEncoder, items: list[int], times: list[int], asked: int) -> NDArray[np.float64]:
    """The newest slot of a history without padding, by the equations of the paper."""
    weights = {name: value.detach().numpy() for name, value in encoder.state_dict().items()}
    length = len(items)
    places = weights["positions.embedding.weight"][N - length :]
    x = [weights["embedding.weight"][item] * math.sqrt(D) + place for item, place in zip(items, places, strict=True)]
    own = [*times[:-1], asked]  # when each slot's answer is wanted
    for number in range(len(encoder.layers)):
        part = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"layers.{number}.")}
        gate_query = [silu(part["gate_and_query.weight"] @ norm(slot)) for slot in x]
        value_key = [silu(part["value_and_key.weight"] @ norm(slot)) for slot in x]
        new = []
        for i in range(length):
            gathered = np.zeros(H * HEAD)
            for head in range(H):
                mine = slice(head * HEAD, (head + 1) * HEAD)
                for j in range(i + 1):
                    score = (
                        gate_query[i][H * HEAD :][mine] @ value_key[j][H * HEAD :][mine] + part["by_distance"][i - j]
                    )
                    if encoder.timed:
                        gap = max(1, own[i] - times[j])
                        score += part["by_time"][math.floor(math.log(gap) / BUCKET_STEP)]
                    gathered[mine] += silu(score) / N * value_key[j][: H * HEAD][mine]
            gated = gate_query[i][: H * HEAD] * norm(gathered)
            new.append(x[i] + part["output.weight"] @ gated + part["output.bias"])
        x = new
    return x[-1]


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("length", [1, 2, N])
def test_a_history_is_encoded_as_the_equations_say(timed: bool, length: int) -> None:
    encoder = make(timed=timed)
    items, times = [3, 7, 2, 8, 5][:length], [0, 90, 5 * DAY, 5 * DAY, 40 * DAY][:length]
    asked = times[-1] + 3 * DAY
    found = encoder.newest(torch.tensor([items]), torch.tensor([times]), torch.tensor([asked]))
    np.testing.assert_allclose(found[0].detach().numpy(), by_hand(encoder, items, times, asked), rtol=1e-9)


def test_the_newest_slot_is_that_of_all_slots() -> None:
    encoder = make(timed=True, layers=3)
    items, times = torch.tensor([[0, 4, 2, 6], [1, 3, 8, 8]]), torch.tensor([[0, 5, DAY, DAY], [7, 9, 11, 8 * DAY]])
    torch.testing.assert_close(encoder.newest(items, times), encoder(items, times)[:, -1], rtol=1e-9, atol=1e-9)


def test_a_request_is_made_when_the_newest_event_happened_unless_it_says_when() -> None:
    encoder = make(timed=True)
    items, times = torch.tensor([[4, 2, 6]]), torch.tensor([[0, DAY, 2 * DAY]])
    by_default = encoder.newest(items, times)
    torch.testing.assert_close(encoder.newest(items, times, times[:, -1]), by_default, rtol=0, atol=0)
    assert (encoder.newest(items, times, times[:, -1] + 30 * DAY) - by_default).abs().max() > 1e-3


def test_times_are_needed_where_they_are_used_and_not_looked_at_elsewhere() -> None:
    items, times = torch.tensor([[4, 2]]), torch.tensor([[0, DAY]])
    with pytest.raises(ValueError, match="timestamps are needed"):
        make(timed=True)(items)
    untimed = make(timed=False)
    assert torch.equal(untimed(items), untimed(items, times))


@pytest.mark.parametrize("gap", [1, 2, 3, 60, 3_600, DAY, 365 * DAY, 20 * 365 * DAY])
def test_a_bucket_is_that_of_the_logarithm(gap: int) -> None:
    bucket = torch.bucketize(torch.tensor(gap), bucket_boundaries(), right=True)
    assert int(bucket) == math.floor(math.log(gap) / BUCKET_STEP)


def test_a_shift_of_all_times_changes_nothing() -> None:
    encoder = make(timed=True)
    items, times = torch.tensor([[4, 2, 6]]), torch.tensor([[0, 777, 2 * DAY]])
    moved: Tensor = encoder.newest(items, times + 1_700_000_000)
    torch.testing.assert_close(moved, encoder.newest(items, times), rtol=0, atol=0)
