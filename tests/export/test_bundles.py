"""What an export leaves in the store: one copy of the weights, the same version for the same model, and ``current``."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec_export import ExportError, export_recommender, writer
from genrec_runtime import Recommender
from genrec_runtime.bundle import Bundle
from recent import ITEM_IDS, Recent, export_recent, newest_left, reference_of
from tiny import Tiny


def listing(folder: Path) -> dict[str, Any]:
    """Every file and link under a folder with its content."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_the_graphs_share_one_copy_of_the_weights(tiny: Tiny) -> None:
    size = tiny.exported.manifest.files["weights.bin"].size
    parameters = sum(4 * parameter.numel() for parameter in tiny.model.parameters())
    weights = tiny.exported.manifest.weights["weights.bin"]
    assert parameters / 2 < size <= parameters + 64 * len(weights)  # the small ones stay in the graphs; alignment
    assert sum(weight.shape == (38, 12) for weight in weights) == 1  # the table reads histories and scores
    assert all(weight.offset % 64 == 0 for weight in weights)


def test_nothing_of_the_exporting_machine_is_in_the_bundle(tiny: Tiny) -> None:
    for name in tiny.exported.manifest.files:
        if name.endswith(".onnx"):
            content = (tiny.path / name).read_bytes()
            assert b".py" not in content
            assert b"site-packages" not in content


@pytest.mark.usefixtures("quick")
def test_files_are_readable_by_all_and_the_graphs_hold_no_module_paths(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        exported = export_recent(tmp_path / "store")
    finally:
        os.umask(before)
    for path in (exported.path, exported.path / "golden", *exported.path.rglob("*.*")):
        assert path.stat().st_mode & 0o044 == 0o044, path


@pytest.mark.usefixtures("small_grid")
def test_the_same_model_is_the_same_version_and_changes_nothing(tmp_path: Path) -> None:
    first = export_recent(tmp_path / "store")
    before = listing(tmp_path)
    again = export_recent(tmp_path / "store")
    assert again.version == first.version == first.path.name
    assert again.path == first.path
    assert listing(tmp_path) == before
    assert export_recent(tmp_path / "other").version == first.version
    assert Bundle.open(first.path).manifest.identified().bundle_id == first.manifest.bundle_id


@pytest.mark.usefixtures("quick")
def test_current_is_the_first_version_until_another_is_promoted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = export_recent(store)
    assert os.readlink(store / "current") == first.version
    second = export_recent(store, k_max=12)
    assert second.version != first.version
    assert os.readlink(store / "current") == first.version
    third = export_recent(store, k_max=11, promote=True)
    assert os.readlink(store / "current") == third.version
    assert export_recent(store, k_max=12, promote=True).path == second.path  # there already, promoted now
    assert os.readlink(store / "current") == second.version
    assert os.readlink(store / "previous") == third.version  # what rollback goes to
    versions = {first.version, second.version, third.version}
    assert {p.name for p in store.iterdir()} == {"current", "previous", *versions}


@pytest.mark.usefixtures("quick")
def test_a_damaged_version_is_not_taken_for_the_one_just_made(tmp_path: Path) -> None:
    first = export_recent(tmp_path / "store")
    (first.path / "items.npy").write_bytes(b"damaged")
    with pytest.raises(ExportError, match=r"the store has this version already, but damaged; remove .*items\.npy"):
        export_recent(tmp_path / "store")


def no_trace(*arguments: Any) -> Any:
    raise AssertionError("the long work has begun")


def test_a_file_in_the_stores_place_is_said_before_the_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec_export.draft.trace", no_trace)
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ExportError, match=r"cannot write to the store .*store: Not a directory$"):
        export_recent(tmp_path / "store")
    with pytest.raises(ExportError, match=r"cannot write to the store .*new: Not a directory$"):
        export_recent(tmp_path / "store" / "new")


def test_a_store_that_may_not_be_written_is_said_before_the_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("genrec_export.draft.trace", no_trace)
    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(ExportError, match=r"cannot write to the store .*store: Permission denied$"):
        export_recent(tmp_path / "store")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["weights.bin", "manifest.json", "README.md"])
def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write = writer._write_synced

    def full(path: Path, content: bytes) -> None:
        if path.name == name:
            path.write_bytes(content[:5])
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(writer, "_write_synced", full)
    with pytest.raises(ExportError, match=r"cannot write the bundle to .*: No space left on device"):
        export_recent(tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("quick")
def test_a_store_that_was_there_stays_when_an_export_is_refused(tmp_path: Path) -> None:
    exported = export_recent(tmp_path / "store")
    before = listing(tmp_path / "store")
    with pytest.raises(ExportError, match=r"reference gave 0 answers for \d+ histories"):
        export_recent(tmp_path / "store", k_max=9, reference=lambda rows: [])
    assert listing(tmp_path / "store") == before
    shutil.rmtree(exported.path)  # a dangling current stays as it is
    (tmp_path / "store" / "other").mkdir()
    export_recent(tmp_path / "store", k_max=9)
    assert os.readlink(tmp_path / "store" / "current") == exported.version


@pytest.mark.usefixtures("quick")
def test_a_failed_export_that_cannot_leave_evidence_says_so(tmp_path: Path) -> None:
    (tmp_path / "store.failed").write_text("in the way")
    with pytest.raises(ExportError, match=r"(?s)0 answers.*nor could .*store\.failed be written: File exists"):
        export_recent(tmp_path / "store", reference=lambda rows: [])


@pytest.mark.usefixtures("quick")
def test_stages_are_told_in_their_order(tmp_path: Path) -> None:
    said: list[str] = []
    export_recent(tmp_path / "store", say=said.append)
    assert said == [
        "trying whether padding moves the scores",
        "tracing",
        "comparing with torch",
        "serving in a process without torch",
        "timing the bundle and torch",
    ]


class Ones(nn.Module):
    """Integer vectors: every score is a whole number, and most are tied."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        vectors = torch.randint(-1, 2, (rows, 4), generator=torch.Generator().manual_seed(4)).float()
        self.items = nn.Embedding.from_pretrained(vectors, freeze=False)

    def forward(self, items: Tensor) -> Tensor:
        return (self.items(items) * (items != 1).unsqueeze(-1)).sum(dim=1)


@pytest.mark.usefixtures("small_grid")
def test_a_large_catalogue_of_tied_scores_with_a_numbering_of_its_own_is_served_exactly(tmp_path: Path) -> None:
    count, k = 700, 5  # 700 > 2 * 5 * 64: the block-max path
    raw = [(37 * i) % count for i in range(count)]  # the model's order
    model = Ones(count + 3)  # 0 mask, 1 padding, 2.. items, one token after them
    table = model.items.weight.detach()
    number = {item: i + 2 for i, item in enumerate(raw)}

    def reference(histories: Any) -> Any:
        answers = []
        for history in histories:
            kept = torch.tensor([number[item] for item in history[-6:]])
            scores = (table[kept].sum(dim=0) @ table.T).tolist()
            best = sorted(set(raw) - set(history), key=lambda item: (-scores[number[item]], item))[:12]
            answers.append((best, [scores[number[item]] for item in best]))
        return answers

    histories = [[raw[(11 * user + 5 * step) % count] for step in range(1 + user % 14)] for user in range(30)]
    exported = export_recommender(
        encode=model,
        item_vectors=model.items.weight,
        item_ids=raw,
        first_item=2,
        pad_index=1,
        max_seq_length=6,
        reference=reference,
        histories=histories,
        out=tmp_path / "store",
        k_max=k,
    )
    answer = Recommender.load(exported.path, device="cpu").recommend(histories, k=k)
    for items, scores, (ids, expected) in zip(answer.items, answer.scores, reference(histories), strict=True):
        assert items == ids[:k]  # ties by the lower index, which is the lower raw id
        np.testing.assert_array_equal(scores, expected[:k])


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_windows_are_exported(tmp_path: Path, length: int) -> None:
    net = Recent().eval()

    def window(numbers: list[int]) -> list[int]:
        return ([0] * length + numbers)[-length:]

    exported = export_recent(
        tmp_path / "store", net=net, max_seq_length=length, window="auto", reference=reference_of(net, window)
    )
    assert exported.manifest.semantics is not None
    assert exported.manifest.semantics.window == ("bucketed" if length == 2 else "fixed")


@pytest.mark.usefixtures("quick")
def test_histories_may_be_arrays(tmp_path: Path) -> None:
    histories = [np.array(ITEM_IDS[:n]) for n in (1, 4, 9)]
    exported = export_recent(tmp_path / "store", histories=histories)  # type: ignore[arg-type]  # numpy ids are no int
    report = json.loads((exported.path / "report.json").read_text())
    assert report["passed"]


@pytest.mark.usefixtures("quick")
def test_seen_items_come_again_where_the_bundle_says_so(tmp_path: Path) -> None:
    net = Recent().eval()
    exported = export_recent(
        tmp_path / "store", net=net, exclude_seen=False, reference=reference_of(net, newest_left, seen=True)
    )
    assert not exported.manifest.defaults.exclude_seen
    assert len(Recommender.load(exported.path, device="cpu").recommend([[3]], k=31).items[0]) == 31
