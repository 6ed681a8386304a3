"""Multi-head attention against its formula worked one query at a time, and against its promises about masks."""

import math

import pytest
import torch
from torch import Tensor

from genrec.modules import MultiHeadAttention

B, Q, K, H, D = 2, 3, 5, 4, 8


def attention(dropout: float = 0.0, need_weights: bool = True) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(D, H, dropout, need_weights=need_weights).eval()


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.randn(B, Q + K + K, D, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return drawn[:, :Q], drawn[:, Q : Q + K], drawn[:, Q + K :]


def by_hand(model: MultiHeadAttention, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the weights by the formula; ``keep`` is bool (B, Q, K)."""
    weights = torch.zeros(len(q), H, q.shape[1], k.shape[1], dtype=q.dtype)
    gathered = torch.zeros_like(q)
    size = D // H
    for b in range(len(q)):
        for h in range(H):
            part = slice(h * size, (h + 1) * size)
            queries, keys, values = (w(x[b])[:, part] for w, x in ((model.w_q, q), (model.w_k, k), (model.w_v, v)))
            for i in range(q.shape[1]):
                scores = (keys @ queries[i] / math.sqrt(size)).tolist()
                paid = [math.exp(score) * bool(kept) for score, kept in zip(scores, keep[b, i], strict=True)]
                if sum(paid) > 0:
                    weights[b, h, i] = torch.tensor(paid, dtype=q.dtype) / sum(paid)
                gathered[b, i, part] = weights[b, h, i] @ values
    return model.w_o(gathered), weights


MASK = torch.tensor(
    [
        [[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]],
        [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]],
    ]
)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 5e-6)], ids=["f64", "f32"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
def test_output_and_weights_follow_the_formula(mask: Tensor | None, dtype: torch.dtype, atol: float) -> None:
    model = attention().to(dtype)
    keep = torch.ones_like(MASK) if mask is None else mask
    with torch.no_grad():
        output, weights = model(*inputs(dtype), mask)
        expected, expected_weights = by_hand(model, *inputs(dtype), keep)
    torch.testing.assert_close(output, expected, atol=atol, rtol=0)
    torch.testing.assert_close(weights, expected_weights, atol=atol, rtol=0)


def test_it_is_torchs_attention_under_other_names() -> None:
    model, theirs = attention().double(), torch.nn.MultiheadAttention(D, H, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([w.weight for w in (model.w_q, model.w_k, model.w_v)]))
        theirs.in_proj_bias.copy_(torch.cat([w.bias for w in (model.w_q, model.w_k, model.w_v)]))
    theirs.out_proj.load_state_dict(model.w_o.state_dict())
    padding = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    output, weights = model(*inputs(torch.float64), padding)
    expected = theirs(*inputs(torch.float64), key_padding_mask=padding == 0, average_attn_weights=False)
    torch.testing.assert_close((output, weights), expected, atol=1e-9, rtol=0)


def test_weights_have_the_references_names_and_the_attributes_too() -> None:
    model = attention()
    assert set(model.state_dict()) == {f"w_{part}.{kind}" for part in "qkvo" for kind in ("weight", "bias")}
    assert (model.embedding_dim, model.num_heads, model.head_dim, model.scale) == (D, H, D // H, math.sqrt(D // H))


def test_mend_10_cross_attention_has_its_own_key_length() -> None:
    model = attention()
    query, key, value = inputs()
    output, weights = model(query, key, value)
    assert (output.shape, weights.shape) == ((B, Q, D), (B, H, Q, K))
    for b in range(B):  # rows of the batch do not mix
        torch.testing.assert_close(model(query[b : b + 1], key[b : b + 1], value[b : b + 1])[0][0], output[b])
    with pytest.raises(ValueError, match=r"key and value must have one shape, .*key \(2, 5, 8\), value \(2, 4, 8\)"):
        model(query, key, value[:, :4])
    with pytest.raises(ValueError, match=r"of one batch, got query \(2, 6, 8\), key \(4, 3, 8\)"):
        model(torch.zeros(2, 6, D), torch.zeros(4, 3, D), torch.zeros(4, 3, D))
    with pytest.raises(ValueError, match=r"the last axis must be embedding_dim \(8\)"):
        model(query[..., :6], key, value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mend_11_half_precision_works_with_a_mask(dtype: torch.dtype) -> None:
    expected, _ = attention()(*inputs(), MASK)
    output, weights = attention().to(dtype)(*(x.to(dtype) for x in inputs()), MASK)
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0)  # 8 bits of mantissa
    assert weights[(MASK == 0).unsqueeze(1).expand_as(weights)].eq(0).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_mend_12_a_query_that_sees_no_key_gathers_nothing(need_weights: bool) -> None:
    model = attention(need_weights=need_weights)
    mask = MASK.clone()
    mask[1, 2] = 0
    query, key, value = (x.clone().requires_grad_() for x in inputs())
    output, weights = model(query, key, value, mask)
    torch.testing.assert_close(output[1, 2], model.w_o.bias, atol=0, rtol=0)
    if need_weights:
        assert weights[1, :, 2].eq(0).all()
        torch.testing.assert_close(weights.sum(dim=-1).sum(), torch.tensor(float(H * (B * Q - 1))))
    output.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (query, key, value))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_mend_13_padding_and_shared_masks_work_too(need_weights: bool, dtype: torch.dtype) -> None:
    model, x = attention(need_weights=need_weights), inputs()
    padding, shared = MASK[:, 0].to(dtype), MASK[0].to(dtype)
    for mask, whole in (
        (padding, padding[:, None, :].expand(B, Q, K)),
        (shared, shared.expand(B, Q, K)),
        (shared[None], shared.expand(B, Q, K)),
    ):
        torch.testing.assert_close(model(*x, mask)[0], model(*x, whole)[0], atol=1e-6, rtol=0)
    for wrong in (torch.ones(B, Q), torch.ones(B, Q + 1, K), torch.ones(B, 1, Q, K), torch.ones(K)):
        with pytest.raises(ValueError, match=r"mask must be .* = \(2, 3, 5\), \(2, 5\) or \(3, 5\), got \("):
            model(*x, wrong)


def test_a_square_mask_is_read_as_padding() -> None:
    model, (query, key, value) = attention(), inputs()
    square = MASK[:, 0]  # (B, K), and as well (Q, K) for two queries
    output = model(query[:, :2], key, value, square)[0]
    torch.testing.assert_close(output, model(query[:, :2], key, value, square[:, None].expand(B, 2, K))[0])


def test_mend_14_returned_weights_are_those_before_dropout() -> None:
    model = attention(dropout=0.5)
    calm, weights = model(*inputs(), MASK)
    output, trained = model.train()(*inputs(), MASK)
    torch.testing.assert_close(trained, weights, atol=0, rtol=0)
    torch.testing.assert_close(trained.sum(dim=-1), torch.ones(B, H, Q))
    assert not torch.allclose(output, calm)  # dropout did work


def test_mend_15_without_weights_the_output_is_the_same() -> None:
    for mask in (None, MASK, MASK[:, 0], MASK[0]):
        expected, _ = attention()(*inputs(), mask)
        output, weights = attention(need_weights=False)(*inputs(), mask)
        assert weights is None
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
    model = attention(dropout=0.5, need_weights=False).train()
    assert not torch.allclose(model(*inputs())[0], model(*inputs())[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 3), r"embedding_dim \(8\) must be a multiple of num_heads \(3\)"),
        ((8, 0), r"num_heads \(0\)"),
        ((8, 2, 1.5), r"dropout \(1.5\)"),
    ],
)
def test_wrong_settings_are_refused(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(*arguments)
