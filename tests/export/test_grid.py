"""Our modules over the grid: what is served against torch's own answers, at every size and for every kind of row.

Batches of 1, 2, 5 and 32, lengths of 1, 2, one below the maximum and the maximum, masks from full to all dead. The export
has proved some of it before; nothing of that proof is used here but the rule that says when two answers are the same.

What runs always is a covering design: all eight combinations of causal, width and activation, with every pair of values of the
encoder's seven settings; every mask of attention, within and across. The marker "slow" completes a design of sixteen encoders
in which any three values meet, opset 23 among them, and adds the other ways of attention.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec.modules import LearnedPositions, MultiHeadAttention, TransformerEncoder
from genrec_export import TensorSpec, export_module
from genrec_export.variants import Opset
from genrec_runtime import Module
from grid import BATCHES, assert_same, masks, padded_ids
from recent import large

Array = NDArray[Any]

VOCABULARY, LONGEST = 19, 7
QUERIES, KEYS = (1, 2, 6, 7), (1, 2, 8, 9)
WIDTHS = {False: (12, 3), True: (15, 5)}  # even or odd, with as many heads


def encoder_designs() -> Iterator[Any]:
    """The sixteen; settings are sums modulo 2 of four bits, so that few runs hold many combinations."""
    for opset_23, causal, odd, gelu in itertools.product((False, True), repeat=4):
        settings = {
            "opset_23": opset_23,
            "causal": causal,
            "odd": odd,
            "gelu": gelu,
            "norm_first": causal ^ odd ^ opset_23,
            "final_norm": causal ^ gelu ^ opset_23,
            "learned": odd ^ gelu ^ opset_23,
            "two_layers": causal ^ odd ^ gelu,
        }
        slow = opset_23 and not (causal and odd and gelu)
        name = " ".join(key for key, value in settings.items() if value) or "none"
        yield pytest.param(settings, id=name, marks=[pytest.mark.slow] if slow else [])


def test_the_encoders_cover_all_pairs_of_settings_and_the_slow_ones_all_triples() -> None:
    designs = [(design.values[0], bool(design.marks)) for design in encoder_designs()]
    always = [values for values, slow in designs if not slow]
    pairs = itertools.combinations([name for name in always[0] if name != "opset_23"], 2)
    triples = itertools.combinations(always[0], 3)
    for runs, combinations in ((always, pairs), ([values for values, _ in designs], triples)):
        for names in combinations:
            assert len({tuple(values[name] for name in names) for values in runs}) == 2 ** len(names), names


def encoder_of(settings: dict[str, bool]) -> TransformerEncoder:
    width, heads = WIDTHS[settings["odd"]]
    encoder = TransformerEncoder(
        VOCABULARY,
        width,
        heads,
        num_layers=1 + settings["two_layers"],
        attn_dim=16,
        max_seq_length=LONGEST,
        causal=settings["causal"],
        activation="gelu" if settings["gelu"] else "relu",
        norm_first=settings["norm_first"],
        final_norm=settings["final_norm"],
        pos_encoding=LearnedPositions(width, LONGEST) if settings["learned"] else None,
    )
    return large(encoder).eval()


@pytest.mark.parametrize("settings", [*encoder_designs()])
def test_an_encoder_is_served_as_torch_answers(tmp_path: Path, settings: dict[str, bool]) -> None:
    model = encoder_of(settings)
    exported = export_module(model, out=tmp_path / "store", opset=23 if settings["opset_23"] else 20)
    served = Module.load(exported.path, device="cpu", threads=1)
    assert served.manifest.opset == (23 if settings["opset_23"] else 20)
    for case, ids, real in padded_ids(VOCABULARY - 1, LONGEST):
        encoded = served.run(input_ids=ids, attention_mask=real)["encoded"]
        with torch.no_grad():
            assert_same(encoded, model(torch.from_numpy(ids), torch.from_numpy(real)), case)
        assert not encoded[~real].any(), case


@pytest.mark.parametrize("causal", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_encoder_without_a_mask_is_served_as_torch_answers(tmp_path: Path, causal: bool) -> None:
    model = large(TransformerEncoder(VOCABULARY, 15, 5, 2, 16, max_seq_length=LONGEST, causal=causal)).eval()
    exported = export_module(
        model,
        out=tmp_path / "store",
        inputs=[TensorSpec("input_ids", "int64", ("batch", "length"), 0, VOCABULARY - 1)],
        outputs=[TensorSpec("encoded", "float32", ("batch", "length", 15))],
        limits={"length": LONGEST},
    )
    served = Module.load(exported.path, device="cpu", threads=1)
    for case, ids, _ in padded_ids(VOCABULARY - 1, LONGEST):
        with torch.no_grad():
            assert_same(served.run(input_ids=ids)["encoded"], model(torch.from_numpy(ids)), case)


class Within(nn.Module):
    """Attention of a sequence to itself, from one input; ``shared`` says that a mask (L, L) is for all rows."""

    def __init__(self, attention: MultiHeadAttention, shared: bool) -> None:
        super().__init__()
        self.attention = attention
        self.shared = shared

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return self.attention(x, x, x, mask.unsqueeze(0) if mask is not None and self.shared else mask)


ALL_ROWS = "for all rows"
MASKS: dict[str, tuple[str | int, ...] | None] = {  # axes; Q and K are one axis within a sequence
    "of each query": ("batch", "Q", "K"),
    "of the keys": ("batch", "K"),
    ALL_ROWS: (1, "Q", "K"),
    "no mask": None,
}


def attention_designs() -> Iterator[Any]:
    """Every mask, within (even width) and across (odd width): one of three ways always runs, each in turn."""
    ways = [(True, 20), (False, 20), (False, 23)]  # with weights or fused, and the opset
    for turn, (mask, across) in enumerate(itertools.product(MASKS, (False, True))):
        for way in ways:
            name = (
                f"{'across' if across else 'within'}, {mask}, {'with' if way[0] else 'without'} weights, opset {way[1]}"
            )
            marks = [] if way == ways[turn % 3] else [pytest.mark.slow]
            yield pytest.param(mask, across, *way, id=name, marks=marks)


def attention_signature(
    axes: tuple[str | int, ...] | None, across: bool, need_weights: bool, width: int, heads: int
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    queries, keys = ("Q", "K") if across else ("L", "L")
    names = {"query": queries, "key": keys, "value": keys} if across else {"x": queries}
    inputs = [TensorSpec(name, "float32", ("batch", axis, width)) for name, axis in names.items()]
    if axes is not None:
        sizes: list[str | int] = [{"Q": queries, "K": keys}.get(str(axis), axis) for axis in axes]
        if not across and axes[0] == 1:
            del sizes[0]  # a mask of two axes, which ``Within`` says is for all rows
        inputs.append(TensorSpec("mask", "int64", tuple(sizes), 0, 1))
    outputs = [TensorSpec("output", "float32", ("batch", queries, width))]
    if need_weights:
        outputs.append(TensorSpec("weights", "float32", ("batch", heads, queries, keys)))
    return inputs, outputs


def attention_cases(inputs: list[TensorSpec]) -> Iterator[tuple[str, dict[str, Array]]]:
    """The grid for attention: every kind of mask over its last axis, so that some queries see nothing."""
    random = np.random.default_rng(1)
    across = any("K" in spec.axes for spec in inputs)
    for batch, queries, keys in itertools.product(BATCHES, QUERIES, KEYS if across else (0,)):
        sizes: dict[str | int, int] = {"batch": batch, "Q": queries, "K": keys, "L": queries}
        arrays = {}
        for spec in inputs:
            shape = [sizes.get(axis, axis) for axis in spec.axes]
            arrays[spec.name] = random.standard_normal(shape).astype(np.float32)
        if "mask" not in arrays:
            yield f"B={batch} Q={queries} K={keys}", arrays
            continue
        shape = arrays["mask"].shape
        for name, mask in masks(int(np.prod(shape[:-1])), shape[-1]).items():
            yield f"B={batch} Q={queries} K={keys} {name}", {**arrays, "mask": mask.reshape(shape).astype(np.int64)}


@pytest.mark.parametrize(("mask", "across", "need_weights", "opset"), [*attention_designs()])
def test_attention_is_served_as_torch_answers(
    tmp_path: Path, mask: str, across: bool, need_weights: bool, opset: Opset
) -> None:
    width, heads = WIDTHS[across]
    attention = large(MultiHeadAttention(width, heads, need_weights=need_weights)).eval()
    model = attention if across else Within(attention, mask == ALL_ROWS).eval()
    inputs, outputs = attention_signature(MASKS[mask], across, need_weights, width, heads)
    exported = export_module(model, out=tmp_path / "store", inputs=inputs, outputs=outputs, opset=opset)
    served = Module.load(exported.path, device="cpu", threads=1)
    for case, arrays in attention_cases(inputs):
        answer = served.run(**arrays)
        with torch.no_grad():
            output, weights = model(*(torch.from_numpy(array) for array in arrays.values()))
        assert_same(answer["output"], output, case)
        if need_weights:
            assert_same(answer["weights"], weights, case)
        if case.endswith("all dead"):
            bias = attention.w_o.bias.detach()
            np.testing.assert_allclose(answer["output"], bias.expand_as(output), atol=1e-6)  # nothing else comes out
            assert not need_weights or not answer["weights"].any()


def test_one_array_for_all_three_inputs_is_attention_within(tmp_path: Path) -> None:
    attention = large(MultiHeadAttention(15, 5)).eval()
    served = Module.load(export_module(attention, out=tmp_path / "store").path, device="cpu", threads=1)
    x = np.random.default_rng(2).standard_normal((5, 6, 15)).astype(np.float32)
    for name, mask in masks(5 * 6, 6).items():
        seen = mask.reshape(5, 6, 6)
        answer = served.run(query=x, key=x, value=x, mask=seen)
        tensor = torch.from_numpy(x)
        with torch.no_grad():
            output, weights = attention(tensor, tensor, tensor, torch.from_numpy(seen))
        assert_same(answer["output"], output, name)
        assert_same(answer["weights"], weights, name)
