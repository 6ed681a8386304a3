"""T5's stacks: distances in buckets, what each slot may see, and that decoding step by step is decoding at once."""

import math
from typing import TypeVar

import pytest
import torch

from genrec.modules.t5 import T5Decoder, T5Encoder
from genrec.modules.t5_attention import RelativeBias, T5Attention

B, G, L, D, H, HEAD = 2, 3, 5, 6, 4, 7  # H * HEAD is not D
M = TypeVar("M", bound=torch.nn.Module)
CLOSE = {"atol": 1e-5, "rtol": 0.0}  # float32 in another order, values of about 1


def encoder() -> T5Encoder:
    torch.manual_seed(0)
    return shaken(T5Encoder(D, H, HEAD, num_layers=2, ff_dim=9, dropout=0.3))


def decoder() -> T5Decoder:
    torch.manual_seed(1)
    return shaken(T5Decoder(D, H, HEAD, num_layers=2, ff_dim=9, dropout=0.3))


def shaken(module: M) -> M:
    """Weights large enough that a mistake would show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


@pytest.mark.parametrize(("distance", "bucket"), [(0, 0), (1, 1), (15, 15), (16, 16), (128, 31), (500, 31)])
def test_a_decoder_s_buckets_are_for_the_past(distance: int, bucket: int) -> None:
    bias = RelativeBias(H, bidirectional=False)
    found = bias(torch.tensor([1000]), torch.tensor([1000 - distance]))
    torch.testing.assert_close(found[:, 0, 0], bias.table.weight[bucket])


@pytest.mark.parametrize("distance", [1, 7, 8, 11, 16, 63, 64, 127, 128, 500])
def test_an_encoder_s_buckets_tell_before_from_after(distance: int) -> None:
    """Half of 32 buckets a side, 8 of them exact, the others growing by 16 ** (1 / 8) up to 128."""
    bias = RelativeBias(H, bidirectional=True)
    steps = 8 * math.log2(max(distance, 8) / 8) / 4 + 1e-9  # log2(128 / 8) is 4; 1e-9 for limits met exactly
    bucket = distance if distance < 8 else min(8 + math.floor(steps), 15)
    before, after = bias(torch.tensor([1000]), torch.tensor([1000 - distance, 1000 + distance]))[:, 0].unbind(1)
    torch.testing.assert_close(before, bias.table.weight[bucket])
    torch.testing.assert_close(after, bias.table.weight[16 + bucket])


def test_the_future_has_no_bucket_of_its_own_in_a_decoder() -> None:
    bias = RelativeBias(H, bidirectional=False)
    ahead = bias(torch.tensor([4]), torch.tensor([4, 5, 9]))
    torch.testing.assert_close(ahead, bias.table.weight[0].view(H, 1, 1).expand(H, 1, 3))


def test_bucket_counts_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_buckets \(6\) must be a multiple of 4"):
        RelativeBias(H, bidirectional=True, num_buckets=6)
    with pytest.raises(ValueError, match=r"max_distance \(16\) more than its half"):
        RelativeBias(H, bidirectional=True, max_distance=16)


def test_attention_is_the_formula_without_a_division() -> None:
    torch.manual_seed(0)
    attention = shaken(T5Attention(D, 1, HEAD, dropout=0.0))
    x, seen, bias = torch.randn(B, 3, D), torch.randn(B, L, D), torch.randn(1, 1, 3, L)
    q, k, v = x @ attention.w_q.weight.T, seen @ attention.w_k.weight.T, seen @ attention.w_v.weight.T
    expected = (q @ k.transpose(1, 2) + bias[0]).softmax(dim=-1) @ v @ attention.w_o.weight.T
    torch.testing.assert_close(attention(x, attention.memory(seen), bias), expected, **CLOSE)


def test_there_is_no_bias_vector_anywhere() -> None:
    shapes = {name: tuple(p.shape) for name, p in [*encoder().named_parameters(), *decoder().named_parameters()]}
    assert {name for name, shape in shapes.items() if len(shape) == 1} == {
        name for name in shapes if ".norm" in f".{name}"
    }


def test_a_stack_has_one_table_of_distances_and_ends_on_a_norm() -> None:
    for stack in (encoder(), decoder()):
        names = dict(stack.named_parameters())
        assert [name for name in names if "position_bias" in name] == ["position_bias.table.weight"]
        assert "norm.weight" in names


def test_the_encoder_looks_both_ways_and_the_decoder_back() -> None:
    halfway = 8 + math.floor(
        8 * math.log(13 / 8) / math.log(128 / 8)
    )  # of an encoder's 16 buckets for the past, 8 are exact
    for stack, bucket in ((encoder(), halfway), (decoder(), 13)):
        found = stack.position_bias(torch.tensor([13]), torch.tensor([0]))[:, 0, 0]
        torch.testing.assert_close(found, stack.position_bias.table.weight[bucket])


def test_padding_is_not_seen_and_moves_nothing() -> None:
    model, x = encoder(), torch.randn(B, L, D)
    padded = torch.cat([torch.randn(B, 3, D), x], dim=1)
    real = torch.tensor([False] * 3 + [True] * L).expand(B, -1)
    torch.testing.assert_close(model(padded, real)[:, 3:], model(x, real[:, 3:]), **CLOSE)


def test_the_encoder_knows_the_order() -> None:
    model, x, real = encoder(), torch.randn(B, L, D), torch.ones(B, L, dtype=torch.bool)
    swapped = x[:, [1, 0, 2, 3, 4]]
    assert (model(x, real)[:, 4] - model(swapped, real)[:, 4]).abs().max() > 1e-3


def test_a_later_token_never_changes_an_earlier_one() -> None:
    model = decoder()
    memory = model.memory(torch.randn(B, L, D), torch.ones(B, L, dtype=torch.bool))
    x = torch.randn(B, G, 4, D)
    changed = x.clone()
    changed[:, :, 2:] = torch.randn(B, G, 2, D)
    first, second = model(x, memory)[0], model(changed, memory)[0]
    torch.testing.assert_close(first[:, :, :2], second[:, :, :2], atol=0, rtol=0)
    assert (first[:, :, 2] - second[:, :, 2]).abs().max() > 1e-3


def test_decoding_step_by_step_is_decoding_at_once() -> None:
    model = decoder()
    memory = model.memory(torch.randn(B, L, D), torch.ones(B, L, dtype=torch.bool))
    x, past, steps = torch.randn(B, G, 4, D), None, []
    for step in range(4):
        out, past = model(x[:, :, step : step + 1], memory, past)
        steps.append(out)
    torch.testing.assert_close(torch.cat(steps, dim=2), model(x, memory)[0], **CLOSE)


def test_the_sequences_of_a_row_do_not_see_one_another() -> None:
    model = decoder()
    encoded, real = torch.randn(B, L, D), torch.ones(B, L, dtype=torch.bool)
    x = torch.randn(B, G, 2, D)
    together = model(x, model.memory(encoded, real))[0]
    alone = [model(x[:, g : g + 1], model.memory(encoded, real))[0] for g in range(G)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), **CLOSE)


def test_the_decoder_sees_what_was_encoded_but_not_its_padding() -> None:
    model = decoder()
    encoded, x = torch.randn(B, L, D), torch.randn(B, G, 2, D)
    real = torch.tensor([[False, True, True, True, True]]).expand(B, -1)
    out = model(x, model.memory(encoded, real))[0]
    for slot, seen in ((0, False), (2, True)):
        changed = encoded.clone()
        changed[:, slot] = torch.randn(B, D)
        moved = (model(x, model.memory(changed, real))[0] - out).abs().max()
        assert (moved > 1e-3) == seen


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ff_dim \(0\) must be at least 1"):
        T5Encoder(D, H, HEAD, num_layers=1, ff_dim=0, dropout=0.1)
    with pytest.raises(ValueError, match=r"num_layers \(0\) must be at least 1"):
        T5Decoder(D, H, HEAD, num_layers=0, ff_dim=4, dropout=0.1)
    with pytest.raises(ValueError, match=r"dropout \(1\) must lie in"):
        T5Encoder(D, H, HEAD, num_layers=1, ff_dim=4, dropout=1)
