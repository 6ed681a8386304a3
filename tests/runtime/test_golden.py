import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec_runtime import BundleCorrupt, InferenceError, Module, Recommender, verify
from tiny import Tiny


def change_golden(folder: Path, graph: str, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Rewrites recorded arrays; None as a function removes one."""
    path = folder / "golden" / f"{graph}.npz"
    with np.load(io.BytesIO(path.read_bytes())) as file:
        arrays = {name: file[name] for name in file.files}
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays.get(name, np.zeros(1)))
    np.savez(path, **arrays)


def test_an_untouched_bundle_answers_its_goldens(tiny: Tiny, numbers: Path, features: Path) -> None:
    differences = verify(tiny.path).differences
    assert set(differences) == set(tiny.exported.manifest.graphs)
    assert all(difference.same for difference in differences.values())
    Recommender.load(numbers, device="cpu", threads=1).selftest()
    Module.load(features, device="cpu", threads=1).selftest()


@pytest.mark.parametrize(
    ("graph", "name", "change"),
    [
        ("recommend", "lengths.out.scores", lambda scores: scores + np.float32(0.01)),
        ("recommend", "lengths.out.items", lambda items: items[:, ::-1].copy()),
        ("score", "edges.out.scores", lambda scores: scores * np.float32(1.001)),
        ("encode", "lengths.out.states", lambda states: -states),
    ],
)
def test_fault_76_another_answer_than_recorded_is_found(
    copied: Path, reseal: Callable[..., None], graph: str, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    change_golden(copied, graph, {name: change})
    reseal(copied)
    message = rf"graph '{graph}' answers the golden requests differently here: error .* times the tolerance, in row"
    with pytest.raises(InferenceError, match=message) as caught:
        verify(copied)
    assert caught.value.code == "golden_mismatch"
    with pytest.raises(InferenceError, match=message):  # a graph answers nothing before its own goldens
        Recommender.load(copied, device="cpu", threads=1).warmup()


def test_fault_76_a_difference_within_the_tolerance_is_none(copied: Path, reseal: Callable[..., None]) -> None:
    change_golden(copied, "score", {"edges.out.scores": lambda scores: scores + np.float32(1e-6)})
    reseal(copied)
    assert verify(copied).differences["score"].excess < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths.out.scores": None}, r"golden/recommend\.npz has no scores of the shape"),
        ({"lengths.out.scores": lambda scores: scores[:, :5]}, "has no scores of the shape"),
        ({"lengths.out.scores": lambda scores: scores.astype(np.float64)}, "has no scores of the shape"),
        ({"lengths.out.more": lambda empty: empty}, "records more than the graph's outputs"),
        ({"lengths.in.exclude": None}, r"does not fit the graph: the inputs must be"),
        ({"lengths.in.item_ids": lambda ids: ids + 99}, "does not fit the graph: item_ids holds"),
    ],
)
def test_goldens_that_are_no_requests_of_the_graph_are_refused(
    copied: Path, reseal: Callable[..., None], changes: dict[str, Callable[[np.ndarray], np.ndarray]], message: str
) -> None:
    change_golden(copied, "recommend", changes)
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=message):
        verify(copied)


def test_goldens_must_be_there(copied: Path, reseal: Callable[..., None]) -> None:
    np.savez(copied / "golden" / "encode.npz")
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=r"golden/encode\.npz holds no request"):
        verify(copied)
    reseal(copied, lambda data: data["files"].pop("golden/encode.npz"))
    with pytest.raises(BundleCorrupt, match=r"golden/encode\.npz is missing"):
        verify(copied)


def test_fault_75_weights_that_are_no_numbers_are_found_by_the_goldens(
    copied: Path, reseal: Callable[..., None]
) -> None:
    blob = np.frombuffer((copied / "weights.bin").read_bytes(), np.float32).copy()
    blob[:] = np.nan
    (copied / "weights.bin").write_bytes(blob.tobytes())
    reseal(copied)
    with pytest.raises(InferenceError, match="answers the golden requests differently"):
        verify(copied)
    with pytest.raises(InferenceError, match="answers the golden requests differently"):
        Recommender.load(copied, device="cpu", threads=1)
