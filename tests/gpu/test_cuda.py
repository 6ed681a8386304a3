"""What only a CUDA device can show; ``pytest -m gpu`` where there is one."""

import numpy as np
import pytest

from genrec_runtime import DeviceUnavailable, Recommender
from genrec_runtime.compare import compare_outputs
from genrec_runtime.device import CUDA
from genrec_runtime.manifest import Tolerance
from tiny import Tiny

pytestmark = pytest.mark.gpu

ON_CUDA = Tolerance(atol=1e-4, rtol=1e-4)  # other kernels, other order of sums; TF32 is off


@pytest.fixture(scope="module")
def on_cuda(tiny: Tiny) -> Recommender:
    """The tiny bundle on the first GPU; a named device is strict, so this is no silent CPU."""
    return Recommender.load(tiny.path, device="cuda")


def test_the_provider_is_cuda(on_cuda: Recommender) -> None:
    assert on_cuda.device_report.providers[0] == CUDA
    assert on_cuda.device_report.reason == ""


def test_cuda_answers_as_torch_does(tiny: Tiny, on_cuda: Recommender) -> None:
    answer = on_cuda.recommend(tiny.histories, k=20)
    for items, scores, (expected, values) in zip(
        answer.items, answer.scores, tiny.torch_path.recommend(tiny.histories, 20), strict=True
    ):
        index = on_cuda.catalogue.items.index
        ours = {"items": index(items)[None], "scores": scores[None]}
        theirs = {"items": index(expected)[None], "scores": np.array([values], np.float32)}
        assert compare_outputs("recommend", ours, theirs, ON_CUDA).same


def test_a_gpu_that_is_not_there_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(DeviceUnavailable):
        Recommender.load(tiny.path, device="cuda:99")
