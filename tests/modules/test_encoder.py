"""The encoder against torch's own, with weights copied, and against its promises about padding."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genrec.modules import LearnedPositions, PositionalEncoding, TransformerEncoder

SIZES: dict[str, Any] = {"vocab_size": 11, "embedding_dim": 12, "num_heads": 3, "num_layers": 2, "attn_dim": 7}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"norm_first": True, "final_norm": True},
    {"activation": "gelu", "causal": True, "norm_first": True},
]
MASKS = {
    "no mask": None,
    "all real": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "right padding": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]],
    "left padding": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]],
}


class Waves(nn.Module):
    """The reference's positions: a saved table of sines and cosines."""

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        table = torch.zeros(length, width)
        place = torch.arange(length).float()
        for column in range(width):
            angle = place * torch.exp(torch.tensor((column - column % 2) * (-math.log(10_000.0) / width)))
            table[:, column] = angle.cos() if column % 2 else angle.sin()
        self.register_buffer("pe", table[None])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class Reference(nn.Module):
    """The same encoder from torch's parts, on torch's slow path."""

    def __init__(self, length: int = 8, causal: bool = False, final_norm: bool = False, **layer: Any) -> None:
        super().__init__()
        width = SIZES["embedding_dim"]
        self.embedding = nn.Embedding(SIZES["vocab_size"], width)
        self.pos_encoding = Waves(width, length)
        block = nn.TransformerEncoderLayer(
            width, SIZES["num_heads"], SIZES["attn_dim"], dropout=0.0, batch_first=True, **layer
        )
        norm = nn.LayerNorm(width) if final_norm else None
        self.transformer = nn.TransformerEncoder(block, SIZES["num_layers"], norm, enable_nested_tensor=False)
        self.causal = causal
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)  # the layers are copies of one, and biases 0, unless drawn anew

    def masks(self, ids: Tensor, mask: Tensor | None) -> dict[str, Tensor | None]:
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        return {"mask": later, "src_key_padding_mask": None if mask is None else mask == 0}

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        encoded: Tensor = self.transformer(self.pos_encoding(self.embedding(ids)), **self.masks(ids, mask))
        return encoded

    def attention_maps(self, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        x, masks = self.pos_encoding(self.embedding(ids)), self.masks(ids, mask)
        hidden, later, maps = masks["src_key_padding_mask"], masks["mask"], []
        for layer in self.transformer.layers:
            seen = layer.norm1(x) if layer.norm_first else x
            attended = layer.self_attn(seen, seen, seen, hidden, True, later, average_attn_weights=False)
            maps.append(attended[1])
            x = layer(x, later, hidden)
        return maps


def pair(setting: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[TransformerEncoder, Reference]:
    """Ours and torch's, with the same weights."""
    torch.manual_seed(0)
    reference = Reference(**setting).to(dtype)
    ours = TransformerEncoder(**SIZES, dropout=0.0, max_seq_length=8, **setting).to(dtype)
    ours.load_state_dict(reference.state_dict(), strict=True)
    return ours, reference


def example(mask: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """Ids (2, 5), a mask or None, and where it is real."""
    ids = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(1))
    rows = MASKS[mask]
    chosen = None if rows is None else torch.tensor(rows)
    return ids, chosen, torch.ones_like(ids, dtype=torch.bool) if chosen is None else chosen != 0


def small(**settings: Any) -> TransformerEncoder:
    torch.manual_seed(2)
    return TransformerEncoder(**{**SIZES, "max_seq_length": 8, **settings}).eval()


def fits(setting: dict[str, Any], mask: str) -> bool:
    """Torch gives NaN where a causal row starts with padding."""
    return not (setting.get("causal") and mask == "left padding")


CASES = [(setting, mask) for setting in SETTINGS for mask in MASKS if fits(setting, mask)]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 5e-6)], ids=["f64", "f32"])
@pytest.mark.parametrize(("setting", "mask"), CASES)
def test_real_slots_agree_with_torch(setting: dict[str, Any], mask: str, dtype: torch.dtype, atol: float) -> None:
    ours, reference = pair(setting, dtype)
    ids, chosen, real = example(mask)
    torch.testing.assert_close(ours(ids, chosen)[real], reference(ids, chosen)[real], atol=atol, rtol=0)


@pytest.mark.parametrize(("setting", "mask"), [c for c in CASES if c[1] == "right padding"])
def test_gradients_agree_with_torch(setting: dict[str, Any], mask: str) -> None:
    ours, reference = pair(setting)
    ids, chosen, real = example(mask)
    for model in (ours, reference):
        model(ids, chosen)[real].square().sum().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("setting", "mask"), CASES)
def test_attention_maps_are_the_weights_that_torch_computes(setting: dict[str, Any], mask: str) -> None:
    ours, reference = pair(setting)
    ids, chosen, real = example(mask)
    maps, expected = ours.attention_maps(ids, chosen), reference.attention_maps(ids, chosen)
    assert [tuple(m.shape) for m in maps] == [(2, 3, 5, 5)] * 2
    for weights, theirs in zip(maps, expected, strict=True):
        rows = real[:, None, :, None].expand_as(weights)
        torch.testing.assert_close(weights[rows], theirs[rows], atol=1e-9, rtol=0)
        assert weights[~rows].eq(0).all()


@pytest.mark.parametrize("setting", [*SETTINGS, {"num_layers": 1, "causal": True}])
@pytest.mark.parametrize("mask", [None, [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]]], ids=["no mask", "ragged"])
def test_newest_is_the_last_slot_of_forward(setting: dict[str, Any], mask: list[list[int]] | None) -> None:
    encoder = small(**setting).double()
    ids, chosen = torch.arange(15).reshape(3, 5) % 11, None if mask is None else torch.tensor(mask)
    torch.testing.assert_close(encoder.newest(ids, chosen), encoder(ids, chosen)[:, -1], atol=1e-9, rtol=0)


def test_more_left_padding_changes_nothing_with_end_anchored_positions() -> None:
    encoder = small(causal=True, pos_encoding=LearnedPositions(12, 8)).double()
    ids = torch.tensor([[3, 1, 4]])
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.int64), ids], dim=1)
    short, long = encoder(ids, ids != 0), encoder(padded, padded != 0)
    torch.testing.assert_close(long[:, -3:], short, atol=1e-9, rtol=0)


def test_dropout_works_in_training_only() -> None:
    encoder = small(dropout=0.5)
    ids = torch.arange(10).reshape(2, 5)
    torch.testing.assert_close(encoder(ids), encoder(ids), atol=0, rtol=0)
    encoder.train()
    assert not torch.equal(encoder(ids), encoder(ids))


def test_dropout_reaches_the_attention_weights_too() -> None:
    attention = small(dropout=0.5).train().transformer.layers[0].self_attn
    x = torch.randn(2, 5, 12)
    assert not torch.equal(attention(x, x, None), attention(x, x, None))
    attention.eval()
    assert torch.equal(attention(x, x, None), attention(x, x, None))


def test_wrong_shapes_are_refused() -> None:
    encoder = small()
    with pytest.raises(ValueError, match=r"input_ids must be \(batch, length\), got shape \(5,\)"):
        encoder(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"one shape, got \(2, 4\) and \(2, 5\)"):
        encoder(torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 4))


def test_mend_01_causal_is_a_choice_and_not_the_default() -> None:
    ids, changed = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 4]])
    for causal in (False, True):
        encoder = small(causal=causal) if causal else small()
        kept = torch.isclose(encoder(ids)[0, :2], encoder(changed)[0, :2], atol=1e-6, rtol=0).all(dim=1)
        assert kept.tolist() == [causal, causal]
        assert not torch.isclose(encoder(ids)[0, 2], encoder(changed)[0, 2], atol=1e-6, rtol=0).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "causal"])
def test_mend_02_a_row_of_padding_gives_zeros(causal: bool, training: bool, dtype: torch.dtype) -> None:
    encoder = small(causal=causal, dropout=0.0).train(training)
    ids, mask = torch.arange(10).reshape(2, 5), torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    encoded = encoder(ids, mask.to(dtype))
    assert encoded[1].eq(0).all()
    torch.testing.assert_close(encoded[0], encoder(ids[:1], mask[:1])[0], atol=1e-6, rtol=0)
    assert encoder(ids[1:], mask[1:].to(dtype)).eq(0).all()  # a batch of nothing but padding
    encoded.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("mask", ["left padding", "right padding"])
def test_mend_03_padded_slots_are_zero_on_every_path(setting: dict[str, Any], mask: str) -> None:
    encoder = small(dropout=0.0, **setting)
    ids, chosen, real = example(mask)
    outputs = [encoder(ids, chosen), encoder.train()(ids, chosen)]
    with torch.inference_mode():
        outputs.append(encoder.eval()(ids, chosen))
    for encoded in outputs:
        assert encoded[~real].eq(0).all()
        torch.testing.assert_close(encoded, outputs[0], atol=1e-6, rtol=0)


def test_mend_04_a_longer_input_is_refused_with_both_numbers() -> None:
    for encoder in (small(), small(pos_encoding=LearnedPositions(12, 20))):
        assert encoder(torch.ones(1, 8, dtype=torch.int64)).shape == (1, 8, 12)
        for method in (encoder.forward, encoder.newest, encoder.attention_maps):
            with pytest.raises(ValueError, match=r"9 slots, more than max_seq_length \(8\)"):
                method(torch.ones(1, 9, dtype=torch.int64))


def test_mend_05_an_odd_width_works() -> None:
    encoder = small(embedding_dim=9, num_heads=3)
    assert encoder(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 5, 9)


def test_mend_06_weights_open_with_another_length_and_other_positions() -> None:
    reference = Reference(length=30)  # its state has a pos_encoding.pe of 30 slots
    encoder = small(max_seq_length=8)
    assert "pos_encoding.pe" not in encoder.state_dict()
    encoder.load_state_dict(reference.state_dict(), strict=True)
    small(max_seq_length=70).load_state_dict(encoder.state_dict(), strict=True)
    torch.testing.assert_close(encoder.pos_encoding.pe, PositionalEncoding(12, 8).pe, atol=0, rtol=0)
    learned = LearnedPositions(12, 8)
    assert small(pos_encoding=learned).pos_encoding is learned


def test_mend_07_the_padding_embedding_is_zero_and_stays_so() -> None:
    encoder = small(padding_idx=0)
    encoder(torch.tensor([[0, 1, 2]])).square().sum().backward()
    assert encoder.embedding.weight[0].eq(0).all()
    gradient = encoder.embedding.weight.grad
    assert gradient is not None
    assert gradient[0].eq(0).all()
    assert small().embedding.padding_idx is None


def test_mend_08_defaults_are_the_reference_and_the_rest_is_a_choice() -> None:
    default = small()
    assert {name.split(".")[-2] for name in default.state_dict() if "norm" in name} == {"norm1", "norm2"}
    torch.testing.assert_close(
        default(torch.ones(1, 4, dtype=torch.int64)),
        small(activation="relu", norm_first=False, final_norm=False)(torch.ones(1, 4, dtype=torch.int64)),
        atol=0,
        rtol=0,
    )
    assert "transformer.norm.weight" in small(final_norm=True).state_dict()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_heads": 5}, r"embedding_dim \(12\) must be a multiple of num_heads \(5\)"),
        ({"num_heads": 0}, r"num_heads \(0\) must be at least 1"),
        ({"embedding_dim": -3}, r"embedding_dim \(-3\) must be at least 1"),
        ({"num_layers": 0}, r"num_layers \(0\)"),
        ({"attn_dim": 0}, r"attn_dim \(0\)"),
        ({"vocab_size": 0}, r"vocab_size \(0\)"),
        ({"max_seq_length": 0}, r"max_seq_length \(0\)"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must lie in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout \(-0.1\)"),
        ({"dropout": math.nan}, r"dropout \(nan\)"),
        ({"padding_idx": 11}, r"padding_idx \(11\) must be an id, 0..10"),
        ({"activation": "tanh"}, r"activation \('tanh'\) must be one of \['gelu', 'relu'\]"),
    ],
)
def test_mend_09_wrong_sizes_are_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(**{**SIZES, **wrong})
