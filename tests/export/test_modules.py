"""Plain modules as bundles: our encoder and attention, any other with a stated signature, from memory and from a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec.modules import LearnedPositions, MultiHeadAttention, TransformerEncoder, save
from genrec_export import ExportError, TensorSpec, export_folder, export_module
from genrec_export.signatures import signature_of
from genrec_runtime import InputError, Module, load
from recent import Blend, large

LENGTH = 7


def encoder(**settings: Any) -> Any:
    return large(TransformerEncoder(19, 12, 3, 2, 16, max_seq_length=LENGTH, **settings)).eval()


CAUSAL = {"causal": True, "norm_first": True, "final_norm": True, "pos_encoding": LearnedPositions(12, LENGTH)}


def test_an_encoder_answers_as_torch_does_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    model = encoder()
    exported = export_module(model, out=tmp_path / "store", name="encoder")
    served = load(exported.path, device="cpu")
    assert isinstance(served, Module)
    served.selftest()
    ids = np.random.default_rng(0).integers(0, 19, (4, 5))
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    encoded = served.run(input_ids=ids, attention_mask=mask)["encoded"]
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), torch.from_numpy(mask))
    np.testing.assert_allclose(encoded, expected, atol=1e-5, rtol=1e-5)  # float32, in another order
    assert not encoded[mask == 0].any()
    for inputs, message in (
        ({"input_ids": ids}, "the inputs must be input_ids, attention_mask; got input_ids"),
        ({"ids": ids, "attention_mask": mask}, "got ids, attention_mask"),
        ({"input_ids": ids.astype(np.float32), "attention_mask": mask}, "input_ids must be int64, not float32"),
        ({"input_ids": ids + 19, "attention_mask": mask}, "input_ids holds .*allowed are 0 to 18"),
        ({"input_ids": ids, "attention_mask": mask[:, :4]}, "attention_mask has 4 along 'length' where 5 is needed"),
        (
            {"input_ids": np.ones((1, 8), int), "attention_mask": np.ones((1, 8), int)},
            "has 8 along 'length', at most 7",
        ),
    ):
        with pytest.raises(InputError, match=message):
            served.run(**inputs)


def test_attention_answers_as_torch_does_within_and_across(tmp_path: Path) -> None:
    model = large(MultiHeadAttention(12, 3)).train()
    exported = export_module(model, out=tmp_path / "store")
    assert model.training
    model.eval()
    served = Module.load(exported.path, device="cpu")
    random = np.random.default_rng(1)
    for queries, keys in ((4, 4), (1, 9), (20, 3)):
        query, key, value = (random.standard_normal((2, n, 12)).astype(np.float32) for n in (queries, keys, keys))
        mask = random.integers(0, 2, (2, queries, keys))
        mask[0, 0] = 0  # sees nothing
        answer = served.run(query=query, key=key, value=value, mask=mask)
        with torch.no_grad():
            expected = model(*map(torch.from_numpy, (query, key, value, mask)))
        for name, tensor in zip(("output", "weights"), expected, strict=True):
            np.testing.assert_allclose(answer[name], tensor, atol=1e-5, rtol=1e-5)


def test_attention_without_weights_has_one_output() -> None:
    attention = MultiHeadAttention(12, 3, need_weights=False)
    assert [spec.name for spec in signature_of(attention).outputs] == ["output"]


BLEND: dict[str, Any] = {
    "inputs": [
        {"name": "features", "dtype": "float32", "axes": ["batch", "time", 6]},
        {"name": "kept", "dtype": "int64", "axes": ["batch", "time"], "low": 0, "high": 1},
    ],
    "outputs": [
        {"name": "blend", "dtype": "float32", "axes": ["batch", 6]},
        {"name": "distance", "dtype": "float32", "axes": ["batch", "time"]},
    ],
    "limits": {"time": 5},
}


def specs(way: str) -> list[TensorSpec]:
    return [
        TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"]), spec.get("low"), spec.get("high"))
        for spec in BLEND[way]
    ]


def test_a_module_with_a_stated_signature_goes_from_its_folder_to_the_runtime(tmp_path: Path) -> None:
    model = large(Blend(6))
    save(model, tmp_path / "blend", arguments={"width": 6}, signature=BLEND)
    said: list[str] = []
    exported = export_folder(tmp_path / "blend", tmp_path / "store", say=said.append)
    assert said == ["tracing", "comparing with torch"]
    assert exported.manifest.model["name"] == "Blend"
    features = np.random.default_rng(2).standard_normal((3, 4, 6)).astype(np.float32)
    kept = np.array([[1, 1, 0, 1]] * 3)
    answer = Module.load(tmp_path / "store" / "current", device="cpu").run(features=features, kept=kept)
    with torch.no_grad():
        blend, _, distance = model(torch.from_numpy(features), torch.from_numpy(kept))
    np.testing.assert_allclose(answer["blend"], blend, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(answer["distance"], distance, atol=1e-5, rtol=1e-5)


def test_our_own_encoder_goes_from_its_folder_to_the_runtime(tmp_path: Path) -> None:
    model = encoder(**CAUSAL)
    save(model, tmp_path / "encoder")
    exported = export_folder(tmp_path / "encoder", tmp_path / "store")
    assert exported.manifest.model["config"]["causal"] is True
    answer = Module.load(exported.path, device="cpu").run(input_ids=[[3, 9]], attention_mask=[[1, 1]])
    np.testing.assert_allclose(answer["encoded"], model(torch.tensor([[3, 9]])).detach(), atol=1e-5)


def test_a_module_without_a_known_signature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the inputs and outputs of Blend are not known; state them: export_module"):
        export_module(Blend(6), out=tmp_path / "store")
    assert not any(tmp_path.iterdir())


def changed(way: str, place: int, **changes: Any) -> dict[str, Any]:
    """The blend's signature with one entry changed."""
    stated = {key: [dict(spec) for spec in BLEND[key]] for key in ("inputs", "outputs")}
    stated[way][place] |= changes
    return {**stated, "limits": BLEND["limits"]}


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ({"inputs": BLEND["inputs"]}, "a signature needs inputs and outputs"),
        ({"inputs": BLEND["inputs"], "outputs": []}, "state both: there are 2 inputs and 0 outputs"),
        (changed("inputs", 1, name="features"), "a name occurs twice: features, features"),
        (changed("inputs", 0, dtype="float31"), "features has the dtype 'float31', which numpy does not know"),
        (changed("inputs", 0, axes=[]), "features has no axis"),
        (
            changed("inputs", 0, axes=["batch", "no name", 6]),
            "features has the axis 'no name': it must be a plain name",
        ),
        (changed("inputs", 1, high=None), r"kept is int64: state low and high, both whole numbers \(got 0 and None\)"),
        (changed("inputs", 0, low=0), "features is float32: state low and high, both whole numbers, or neither"),
        (changed("inputs", 0, low=0.5, high=2), r"both whole numbers, or neither \(got 0.5 and 2\)"),
        (changed("inputs", 1, low=2), r"both whole numbers \(got 2 and 1\)"),
        (changed("outputs", 0, name="kept"), "a name occurs twice: features, kept, kept, distance"),
        (changed("outputs", 0, axes=["batch", "width"]), "outputs have width"),
        ({**BLEND, "limits": {"length": 4}}, r"limits are \{'length': 4\}"),
        (
            changed("outputs", 0, axes=["batch", 5]),
            r"output 'blend' is stated as float32 .*the module gives .*\(2, 6\)",
        ),
        (changed("outputs", 1, dtype="float64"), "output 'distance' is stated as float64 .*the module gives float32"),
    ],
)
def test_a_signature_that_is_none_or_is_not_kept_is_refused(
    tmp_path: Path, signature: dict[str, Any], message: str
) -> None:
    save(Blend(6), tmp_path / "blend", arguments={"width": 6}, signature=signature)
    with pytest.raises(ValueError, match=message):
        export_folder(tmp_path / "blend", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the model must give the tensors blend; it gave Tensor, Tensor"):
        export_module(Blend(6), out=tmp_path / "store", inputs=specs("inputs"), outputs=specs("outputs")[:1])


class Half(Blend):
    """Ignores its second input."""

    def forward(self, features: Tensor, kept: Tensor) -> Any:
        return super().forward(features, torch.ones_like(features[:, :, 0]))


class OneSize(Blend):
    """Turns the length into a Python number."""

    def forward(self, features: Tensor, kept: Tensor) -> Any:
        return super().forward(features[:, torch.arange(len(features[0]))], kept)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Half, "graph 'module' does not use its input 'kept': the model ignores it"),
        (OneSize, r"the time of 'features' was fixed at 3 while tracing; .*x\.shape\[0\] stays free"),
    ],
)
def test_a_module_that_ignores_or_fixes_an_input_is_refused(tmp_path: Path, kind: type[Blend], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_module(kind(6), out=tmp_path / "store", inputs=specs("inputs"), outputs=specs("outputs"))
    assert (tmp_path / "store.failed" / "error.txt").exists()
    assert not (tmp_path / "store").exists()
