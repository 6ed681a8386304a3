"""Faults of bundles that only show while they are served, or before they are read."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec_runtime import BundleCorrupt, Recommender
from genrec_runtime.bundle import Bundle
from tiny import Tiny

HISTORIES = [["item 03", "item 11"], ["item 36"], ["item 05", "item 06", "item 07"]]


def overwrite(path: Path) -> None:
    """Other bytes in the same file, as a copy over it leaves them."""
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(overwrite, id="fault_57 overwritten"),
        pytest.param(lambda path: os.truncate(path, 0), id="fault_58 cut to nothing"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="fault_58 cut"),
        pytest.param(Path.unlink, id="fault_57 removed"),
    ],
)
def test_what_is_served_is_the_verified_copy_in_memory(tiny: Tiny, copied: Path, harm: Callable[[Path], None]) -> None:
    expected = Recommender.load(tiny.path, device="cpu", threads=1)
    recommender = Recommender.load(copied, device="cpu", threads=1)
    for name in recommender.manifest.files:
        harm(copied / name)
    scored = [["item 01", "item 02"]] * len(HISTORIES)
    for _ in range(2):
        found, wanted = (one.recommend(HISTORIES, k=7) for one in (recommender, expected))
        assert found.items == wanted.items
        for row, other in zip(found.scores, wanted.scores, strict=True):
            np.testing.assert_array_equal(row, other)
        assert [list(row) for row in recommender.score(HISTORIES, scored)] == [  # a graph that is only opened now
            list(row) for row in expected.score(HISTORIES, scored)
        ]
    with pytest.raises(BundleCorrupt):
        Bundle.open(copied)


def test_fault_63_a_manifest_of_a_gigabyte_is_refused_by_its_size(copied: Path) -> None:
    os.truncate(copied / "manifest.json", 1 << 30)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json has 1073741824 bytes, more than 1048576") as caught:
        Bundle.open(copied)
    assert caught.value.code == "bundle_unsafe"


def test_fault_78_an_archive_that_understates_what_it_holds_is_refused(
    copied: Path, reseal: Callable[..., None]
) -> None:
    path = copied / "golden" / "score.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.in.x.npy", bytes(1 << 20))
    blob = bytearray(path.read_bytes())
    for place in (
        blob.index(b"PK\3\4") + 22,
        blob.index(b"PK\1\2") + 24,
    ):  # in front of the content and in the directory
        assert int.from_bytes(blob[place : place + 4], "little") == 1 << 20
        blob[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(blob)
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=r"golden/score\.npz is damaged"):
        Bundle.open(copied).golden("score")


@pytest.mark.parametrize("shape", [(1 << 50,), (1 << 62, 4), (-1,)], ids=["fault_78 2**50", "2**64", "negative"])
def test_arrays_that_claim_to_be_larger_than_their_file_are_refused(
    copied: Path, reseal: Callable[..., None], shape: tuple[int, ...]
) -> None:
    (copied / "cold_start.npy").write_bytes(npy_of(shape))
    with zipfile.ZipFile(copied / "golden" / "score.npz", "w") as archive:
        archive.writestr("0.in.item_ids.npy", npy_of(shape))
    reseal(copied)
    bundle = Bundle.open(copied)
    with pytest.raises(BundleCorrupt, match=r"cold_start\.npy is not a plain array file"):
        bundle.catalogue()
    with pytest.raises(BundleCorrupt, match=r"golden/score\.npz is damaged"):
        bundle.golden("score")


def npy_of(shape: tuple[int, ...]) -> bytes:
    """The header of an int64 array of that shape, and eight bytes of it."""
    text = repr({"descr": "<i8", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8)


def test_fault_77_a_member_that_is_no_array_is_refused(copied: Path, reseal: Callable[..., None]) -> None:
    """numpy hands the bytes of such a member over, whatever they are."""
    with zipfile.ZipFile(copied / "golden" / "score.npz", "w") as archive:
        archive.writestr("0.in.item_ids.npy", b"cos\nsystem\n(S'true'\ntR.")
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=r"golden/score\.npz is damaged: .*item_ids.* no array"):
        Bundle.open(copied).golden("score")
