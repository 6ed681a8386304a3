"""One tensor given for several inputs of a trace: what torch makes of it, and that ours is not deceived."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from genrec.modules import MultiHeadAttention
from genrec_export import ExportError
from genrec_export.checks import check_model
from genrec_export.signatures import signature_of
from genrec_export.surgery import cut
from genrec_export.tracing import Graph, trace
from grid import assert_same
from recent import large

ATTENTION = large(MultiHeadAttention(12, 3, need_weights=False)).eval()
SIZES = {"query": 4, "key": 6, "value": 6}
GRAPHS = {"module": Graph(ATTENTION, signature_of(ATTENTION).inputs, signature_of(ATTENTION).outputs, {})}


def test_torch_merges_aliased_examples_and_the_check_sees_it() -> None:
    x, mask = torch.rand(2, 3, 12), torch.ones(2, 3, 3, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals
        program = torch.onnx.export(
            ATTENTION,
            (x, x, x, mask),
            dynamo=True,
            input_names=["query", "key", "value", "mask"],
            output_names=["module/output"],
            dynamic_shapes=tuple({0: "batch"} for _ in range(4)),
            verbose=False,
        )
    assert program is not None
    with pytest.raises(ExportError, match=r"does not use its input '(query|key|value)': .* one tensor passed for two"):
        check_model("module", cut(program.model_proto, "module", GRAPHS["module"]), GRAPHS["module"])


def test_our_tracing_keeps_aliased_examples_apart() -> None:
    x, mask = torch.rand(2, 3, 12), torch.ones(2, 3, 3, dtype=torch.int64)
    model = cut(trace(ATTENTION, GRAPHS, {"query": x, "key": x, "value": x, "mask": mask}), "module", GRAPHS["module"])
    check_model("module", model, GRAPHS["module"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(4)
    arrays = {name: random.standard_normal((5, length, 12)).astype(np.float32) for name, length in SIZES.items()}
    arrays["mask"] = random.integers(0, 2, (5, 4, 6))
    [output] = session.run(None, arrays)
    with torch.no_grad():
        assert_same(output, ATTENTION(*(torch.from_numpy(array) for array in arrays.values()))[0], "other lengths")
