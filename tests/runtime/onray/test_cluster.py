import subprocess
from collections.abc import Callable

import pytest

from genrec_runtime.onray.cluster import Share, connected, share_of


@pytest.mark.parametrize(
    ("resources", "device", "threads", "share"),
    [
        ({"CPU": 7.0}, "cpu", None, Share(1, 0, 7)),
        ({"CPU": 7.0}, "auto", 3, Share(3, 0, 2)),
        ({"CPU": 7.0, "GPU": 2.0}, "cpu", None, Share(1, 0, 7)),
        ({"CPU": 7.0, "GPU": 2.0}, "auto", None, Share(1, 1, 2)),
        ({"CPU": 7.0, "GPU": 5.0}, "cuda", 3, Share(3, 1, 2)),
    ],
)
def test_a_worker_takes_a_gpu_or_its_threads(
    resources: dict[str, float], device: str, threads: int | None, share: Share
) -> None:
    assert share_of(resources, device, threads) == share


@pytest.mark.parametrize(
    ("resources", "device", "threads", "said"),
    [
        ({"CPU": 2.0}, "cpu", 3, r"a worker takes 3 CPUs; the cluster has 2 CPUs and 0 GPUs"),
        ({"CPU": 2.0}, "cuda", None, r"a worker takes 1 CPUs and a GPU; the cluster has 2 CPUs and 0 GPUs"),
        ({"GPU": 2.0}, "cuda", None, r"the cluster has 0 CPUs"),
        ({"CPU": 2.0, "GPU": 2.0}, "cuda:1", None, r"device \('cuda:1'\) must be cpu, cuda or auto"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_refused(
    resources: dict[str, float], device: str, threads: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        share_of(resources, device, threads)


def test_an_address_of_rays_client_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="ray://head:10001: run this on a machine of the cluster"),
        connected("ray://head:10001"),
    ):
        pass


def test_without_ray_what_to_install_is_said(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from genrec_runtime.onray.cluster import connected\n"
        "try:\n    connected('auto').__enter__()\n"
        "except ImportError as error:\n    print(error)\n"
    )
    assert "pip install 'genrec[ray]'" in run_python(code).stdout
