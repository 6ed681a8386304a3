import io
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import Catalogue, ItemIds
from genrec_runtime import BundleCorrupt, BundleNotFound, Recommender
from genrec_runtime.bundle import Bundle
from tiny import ITEMS, Tiny

KINDS = [
    "recommend.onnx",
    "score.onnx",
    "weights.bin",
    "items.utf8",
    "items.offsets.npy",
    "titles.utf8",
    "cold_start.npy",
    "golden/recommend.npz",
    "report.json",
    "README.md",
]


def test_what_was_opened_is_what_was_written(tiny: Tiny) -> None:
    bundle = Bundle.open(tiny.path)
    assert bundle.manifest == tiny.exported.manifest
    for name, content in bundle.files.items():
        assert content.tobytes() == (tiny.path / name).read_bytes()
        assert content.ctypes.data % 64 == 0 or not content.size
        assert not content.flags.writeable
    assert bundle.catalogue().items.all() == ITEMS
    assert bundle.catalogue().title(2) == "Title of item 01"
    assert set(KINDS) <= set(bundle.files)


# --- nothing there


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("none", r"there is no bundle at .*none; beside it: a-file, empty, store$", id="fault_50 missing"),
        pytest.param("none/deeper", "there is no bundle at .*deeper$", id="fault_50 missing above"),
        pytest.param("a-file", "is a file; a bundle is a folder with a manifest.json", id="fault_50 a file"),
        pytest.param(
            "empty", "holds no manifest.json: no bundle, or an export that did not finish", id="fault_51 empty"
        ),
        pytest.param(
            "store", r"is a store of bundles; name one of them, such as .*store/current", id="fault_51 a store"
        ),
        pytest.param("x" * 300, "there is no bundle at", id="fault_50 too long a name"),
        pytest.param("x\0y", "there is no bundle at .*null", id="fault_50 a NUL"),
    ],
)
def test_where_no_bundle_is_the_message_says_what_is(tmp_path: Path, tiny: Tiny, path: str, message: str) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "empty" / ".tmp-1-ab").mkdir(parents=True)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "current").symlink_to(tiny.path)
    with pytest.raises(BundleNotFound, match=message):
        Bundle.open(tmp_path / path)


def test_fault_50_an_empty_path_is_not_the_current_folder(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.path)
    with pytest.raises(BundleNotFound, match="the bundle's path is empty"):
        Bundle.open("")
    assert Bundle.open(".").path == tiny.path.resolve()


# --- changed files


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_fault_53_fault_54_a_flipped_bit_is_found_and_its_file_named(copied: Path, name: str, where: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(BundleCorrupt, match=rf"{name} was changed: its sha256 is [0-9a-f]{{64}}, the manifest says"):
        Bundle.open(copied)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.unlink(), "is missing$", id="fault_56 missing"),
        pytest.param(lambda path: path.write_bytes(b""), "has 0 bytes, the manifest says", id="fault_52 empty"),
        pytest.param(lambda path: os.truncate(path, 5), "has 5 bytes, the manifest says", id="fault_56 truncated"),
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes, the manifest says", id="fault_56 longer"
        ),
        pytest.param(lambda path: path.write_bytes(pickle.dumps({})), "the manifest says", id="fault_52 a pickle"),
        pytest.param(
            lambda path: (path.unlink(), path.mkdir()), "is a folder, not a regular file", id="fault_52 a folder"
        ),
        pytest.param(lambda path: (path.unlink(), os.mkfifo(path)), "is not a regular file", id="fault_67 a FIFO"),
        pytest.param(
            lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "is not a regular file", id="fault_67 a device"
        ),
        pytest.param(
            lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read: Too many", id="fault_67 a loop"
        ),
        pytest.param(
            lambda path: (path.unlink(), path.symlink_to("gone")), "is missing$", id="fault_67 a dangling link"
        ),
    ],
)
@pytest.mark.parametrize("name", ["weights.bin", "recommend.onnx", "manifest.json"])
def test_a_damaged_file_is_named(copied: Path, damage: Callable[[Path], Any], message: str, name: str) -> None:
    damage(copied / name)
    if name == "manifest.json":  # its size is stated nowhere, and without it there is no bundle
        message = message if "regular" in message else "manifest.json|is not strict JSON|no manifest"
    with pytest.raises((BundleCorrupt, BundleNotFound), match=message) as caught:
        Bundle.open(copied)
    assert name in str(caught.value)


def test_fault_67_a_socket_in_a_files_place_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "weights.bin").unlink()
    monkeypatch.chdir(copied)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("weights.bin")
        with pytest.raises(BundleCorrupt, match=r"weights\.bin cannot be read: No such"):
            Bundle.open(copied)


def test_fault_59_weights_of_another_version_are_found(copied: Path) -> None:
    size = (copied / "weights.bin").stat().st_size
    (copied / "weights.bin").write_bytes(np.random.default_rng(0).bytes(size))
    with pytest.raises(BundleCorrupt, match=r"weights\.bin was changed"):
        Bundle.open(copied)


def test_fault_67_files_may_be_links_as_in_caches_and_config_maps(copied: Path, tmp_path: Path) -> None:
    shutil.move(copied, tmp_path / "..data")
    copied.mkdir()
    for path in (tmp_path / "..data").iterdir():
        (copied / path.name).symlink_to(path)
    Recommender.load(copied, device="cpu", threads=1).selftest()
    os.link(tmp_path / "..data" / "weights.bin", tmp_path / "another-name")
    assert Bundle.open(copied).files["weights.bin"].size


def test_the_path_is_resolved_once(copied: Path, tiny: Tiny, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copied)
    assert Bundle.open(link).path == copied.resolve()


def test_fault_79_an_unreadable_file_is_named_with_its_mode_and_owner(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "weights.bin").chmod(0o600)
    open_file = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if str(path).endswith("weights.bin"):
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    message = rf"weights.bin cannot be read: Permission denied \(mode 600, owner {os.getuid()}, this process is user"
    with pytest.raises(BundleCorrupt, match=message):
        Bundle.open(copied)


def test_fault_68_an_undeclared_file_is_not_read(copied: Path) -> None:
    (copied / "stray.bin").mkdir()
    (copied / "recommend.py").write_text("raise SystemExit")
    assert "recommend.py" not in Bundle.open(copied).files


def test_fault_80_a_bundle_is_never_written_to(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(copied.rglob("*"))} | {copied: copied.stat().st_mtime_ns}
    Recommender.load(copied, device="cpu", threads=1).selftest()
    assert before == {path: path.stat().st_mtime_ns for path in sorted(copied.rglob("*"))} | {
        copied: copied.stat().st_mtime_ns
    }


# --- pinned


def test_fault_55_a_pinned_digest_accepts_this_bundle_and_no_other(
    tiny: Tiny, copied: Path, reseal: Callable[..., None]
) -> None:
    digest = Bundle.open(tiny.path).digest
    assert digest.startswith("sha256:")
    assert Bundle.open(copied, expect_digest=digest).digest == digest
    reseal(copied, lambda data: data.update(created="2031"))
    with pytest.raises(BundleCorrupt, match=f"manifest.json has sha256:.*, expected {digest}") as caught:
        Recommender.load(copied, device="cpu", expect_digest=digest)
    assert caught.value.code == "bundle_digest"


# --- consistent, and still wrong


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("items.utf8", "".join(ITEMS[::-1]).encode(), "are not sorted", id="fault_74 another order"),
        pytest.param("items.utf8", b"short", r"items\.offsets\.npy does not fit", id="fault_74 too short"),
        pytest.param("items.offsets.npy", npy(np.arange(38) * 7 // 2), "does not fit", id="fault_74 other offsets"),
        pytest.param("items.utf8", b"\xff" * 259, r"items\.utf8 is no text", id="fault_74 no text"),
        pytest.param("cold_start.npy", npy(np.arange(37)), r"the numbers 1\.\.37 once", id="fault_74 cold start"),
        pytest.param("cold_start.npy", npy(np.arange(1.0, 38)), "must be int64", id="fault_74 floats"),
        pytest.param(
            "cold_start.npy",
            npy(np.array([{}]), allow_pickle=True),
            "is not a plain array file",
            id="fault_77 a pickle",
        ),
    ],
)
def test_item_files_that_do_not_fit_are_refused(
    copied: Path, reseal: Callable[..., None], name: str, content: bytes, message: str
) -> None:
    (copied / name).write_bytes(content)
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=message):
        Recommender.load(copied, device="cpu", threads=1)


def test_fault_74_a_catalogue_of_another_size_is_refused(copied: Path, reseal: Callable[..., None]) -> None:
    fewer = Catalogue(ItemIds(ITEMS[:36]), np.arange(1, 37), tuple(ITEMS[:36]))
    for name, content in fewer.files().items():
        (copied / name).write_bytes(content)
    reseal(copied)
    with pytest.raises(BundleCorrupt, match="the item files hold 36 items, the manifest says 37"):
        Recommender.load(copied, device="cpu", threads=1)


def test_fault_77_int_ids_that_are_pickled_are_refused(
    numbers: Path, tmp_path: Path, reseal: Callable[..., None]
) -> None:
    folder = Path(shutil.copytree(numbers, tmp_path / "bundle"))
    (folder / "items.npy").write_bytes(npy(np.array([1, 2], dtype=object), allow_pickle=True))
    reseal(folder)
    with pytest.raises(BundleCorrupt, match=r"items\.npy is not a plain array file"):
        Recommender.load(folder, device="cpu", threads=1)


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"not a zip", "is damaged", id="fault_52 text"),
        pytest.param(
            zipped("0.in.x.npy", b"\0" * (257 << 20)), "unpack to more than 268435456", id="fault_78 a zip bomb"
        ),
        pytest.param(
            zipped("0.in.x.npy", npy(np.array([{}]), allow_pickle=True)), "is damaged", id="fault_77 a pickle"
        ),
        pytest.param(zipped("0.in.x.npy", b"\x93NUMPY rubbish"), "is damaged", id="fault_52 a broken header"),
        pytest.param(
            zipped("stray.npy", npy(np.arange(2))), "'stray', which is neither an input", id="fault_73 a name"
        ),
    ],
)
def test_goldens_that_cannot_be_read_are_refused(
    copied: Path, reseal: Callable[..., None], content: bytes, message: str
) -> None:
    (copied / "golden" / "score.npz").write_bytes(content)
    reseal(copied)
    with pytest.raises(BundleCorrupt, match=message):
        Bundle.open(copied).golden("score")


def test_goldens_of_every_graph_are_there(tiny: Tiny) -> None:
    bundle = Bundle.open(tiny.path)
    for graph, signature in bundle.manifest.signature.items():
        for inputs, outputs in bundle.golden(graph):
            assert set(inputs) == {spec.name for spec in signature.inputs}
            assert set(outputs) == {spec.name for spec in signature.outputs}
    with pytest.raises(BundleCorrupt, match=r"golden/other\.npz is missing"):
        bundle.golden("other")
