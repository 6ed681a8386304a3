"""Semantic ids: where vectors come from, how collisions are told apart, the folder, new items, and the exported tokenizer."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.histories import Catalogue, ItemIds, Ragged
from genrec_export import export_folder
from genrec_models.codebooks import CodeReport, LevelReport, collision_codes, report_codes
from genrec_models.cooccurrence import cooccurrence_vectors
from genrec_models.item_vectors import Floats, read_vectors, text_vectors
from genrec_models.rqvae import RQVAE
from genrec_models.semantic_ids import SemanticIds, load_semantic_ids, make_semantic_ids
from genrec_models.tokenizer import ResidualKMeans, Tokenizer
from genrec_runtime import Module

V, W = 300, 6
IDS = [f"item {i:03d}" for i in range(V)]
CATALOGUE = Catalogue(ItemIds(IDS), np.arange(V, 0, -1), tuple(f"Title {i}" for i in range(V)))
SETTINGS: dict[type[Tokenizer], dict[str, Any]] = {
    RQVAE: {"hidden_dims": [8], "code_dim": 4, "levels": 2, "num_codes": 16, "epochs": 10, "batch_size": 64},
    ResidualKMeans: {"levels": 2, "num_codes": 16},
}


def normal(rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, W)).astype(np.float32)


@pytest.fixture(scope="module")
def made() -> SemanticIds:
    return make_semantic_ids(
        ResidualKMeans, normal(V), CATALOGUE, settings=SETTINGS[ResidualKMeans], facts={"why": "test"}
    )


# --- vectors out of co-occurrence


def test_items_with_the_same_neighbours_get_like_vectors() -> None:
    # items 1 and 2 stand beside 5 and 6, items 3 and 4 beside 7 and 8, never beside each other
    rows = [[a, b] for group, others in (((1, 2), (5, 6)), ((3, 4), (7, 8))) for a in group for b in others]
    vectors = cooccurrence_vectors(Ragged.from_rows(rows), 8, width=4)
    assert vectors.shape == (8, 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    like = vectors @ vectors.T
    assert like[0, 1] > 0.99
    assert like[2, 3] > 0.99
    assert abs(like[0, 2]) < 0.01


def test_the_vectors_are_those_of_a_dense_decomposition() -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(1, 13, random.integers(2, 9)).tolist() for _ in range(40)]
    counts = np.zeros((12, 12))
    for row in rows:
        for i, one in enumerate(row):
            for j in range(max(0, i - 5), i):
                counts[one - 1, row[j] - 1] += 1 / (i - j)
                counts[row[j] - 1, one - 1] += 1 / (i - j)
    frequency = counts.sum(axis=1)
    partner = frequency**0.75 / (frequency**0.75).sum()
    with np.errstate(divide="ignore"):
        information = np.maximum(np.log(counts / np.outer(frequency, partner)), 0)
    left, values, _ = np.linalg.svd(information)
    expected = left[:, :5] * np.sqrt(values[:5])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = cooccurrence_vectors(Ragged.from_rows(rows), 12, width=5)
    # equal up to the signs of the singular vectors; a sample of all 12 directions is exact up to rounding
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_events_farther_apart_than_five_do_not_count() -> None:
    near = cooccurrence_vectors(Ragged.from_rows([[1, 2, 3, 4, 5, 6], [7, 8]]), 8, width=3)
    far = cooccurrence_vectors(Ragged.from_rows([[1, 2, 3, 4, 5, 6, 7, 8]]), 8, width=3)
    assert near.shape == far.shape
    apart = cooccurrence_vectors(Ragged.from_rows([[1, 2], [3, 4, 5, 6, 7, 8]]), 8, width=3)
    assert not np.allclose(near @ near.T, apart @ apart.T, atol=0.1)


def test_items_that_training_never_saw_get_vectors_of_their_own() -> None:
    histories = Ragged.from_rows([[1, 2, 3], [2, 3, 1], [4]])
    vectors = cooccurrence_vectors(histories, 6, width=3)
    unknown = vectors[3:]  # item 4 has no neighbour, items 5 and 6 no event
    assert np.isfinite(vectors).all()
    assert len(np.unique(unknown.round(3), axis=0)) == 3
    np.testing.assert_array_equal(vectors, cooccurrence_vectors(histories, 6, width=3))
    assert not np.array_equal(unknown, cooccurrence_vectors(histories, 6, width=3, seed=1)[3:])


def test_histories_without_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="no history has two events"):
        cooccurrence_vectors(Ragged.from_rows([[1], [2], []]), 2)
    with pytest.raises(ValueError, match=r"width \(0\) must be at least 1"):
        cooccurrence_vectors(Ragged.from_rows([[1, 2]]), 2, width=0)


# --- vectors out of files

ITEMS = ItemIds([30, 10, 20])
ROWS = np.array([[1.0, 2], [3, 4], [5, 6]], dtype=np.float32)  # of 10, 20, 30


def test_rows_in_catalogue_order_need_no_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS.astype(np.float64))
    found = read_vectors(tmp_path / "v.npy", ITEMS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)


@pytest.mark.parametrize("kind", ["numbers", "texts", "lines"])
def test_ids_say_which_row_is_whose(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "v.npy", np.array([[5, 6], [0, 0], [1, 2], [3, 4]], dtype=np.float16))
    ids: Any = [30, 77, 10, 20]  # 77 is no item of the catalogue
    path = tmp_path / ("ids.txt" if kind == "lines" else "ids.npy")
    if kind == "lines":
        path.write_text("\n".join(map(str, ids)) + "\n")
    else:
        np.save(path, ids if kind == "numbers" else list(map(str, ids)))
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy", ITEMS, ids=path), ROWS)


@pytest.mark.parametrize("lists", [True, False], ids=["one column of lists", "columns of numbers"])
def test_a_parquet_file_brings_its_ids(tmp_path: Path, lists: bool) -> None:
    columns: dict[str, Any] = {"v": [[5, 6], [1, 2], [3, 4]]} if lists else {"a": [5, 1, 3], "b": [6.0, 2, 4]}
    pl.DataFrame({"item_id": [30, 10, 20], **columns}).write_parquet(tmp_path / "v.parquet")
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.parquet", ITEMS), ROWS)


def test_the_column_of_ids_may_be_named(tmp_path: Path) -> None:
    pl.DataFrame({"mine": [30, 10, 20], "a": [5.0, 1, 3], "b": [6.0, 2, 4]}).write_parquet(tmp_path / "v.parquet")
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.parquet", ITEMS, item_col="mine"), ROWS)


BAD_ARRAYS: list[tuple[Any, str]] = [
    (np.ones((2, 3)), "2 rows for 3 items; say by ids"),
    (np.ones(3), r"must hold numbers of shape \(items, width\), not float64 of shape \(3,\)"),
    (np.array([["a"]]), "must hold numbers"),
    (np.array([[1.0], [np.nan], [2]]), r"row 1 \(from 0\) is not finite"),
    (np.array([[{}]], dtype=object), "is not a plain .npy file"),
]


@pytest.mark.parametrize(("array", "message"), BAD_ARRAYS)
def test_an_array_that_is_no_vectors_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(ValueError, match=message):
        read_vectors(tmp_path / "v.npy", ITEMS)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("10\n20\n40", "1 of 3 items have no vector, such as 30"),
        ("10\n20\n10", "item '10' has more than one vector"),
        ("10\n20", "has 3 rows for 2 ids"),
    ],
)
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, ids: str, message: str) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(ValueError, match=message):
        read_vectors(tmp_path / "v.npy", ITEMS, ids=tmp_path / "ids.txt")


BAD_COLUMNS: list[tuple[dict[str, Any], str]] = [
    ({"v": [[1.0, 2], [3.0], [4.0, 5]]}, "the lists of column 'v' must be numbers, all equally many"),
    ({"v": [[1.0], [3.0], [4.0]], "a": [1, 2, 3]}, "one column of lists or only columns of numbers; it has v, a"),
    ({"name": ["a", "b", "c"]}, "only columns of numbers; it has name"),
    ({}, "only columns of numbers"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pl.DataFrame({"item_id": [30, 10, 20], **columns}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=message):
        read_vectors(tmp_path / "v.parquet", ITEMS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must lie in a \.npy or \.parquet file"):
        read_vectors(tmp_path / "v.csv", ITEMS)
    with pytest.raises(ValueError, match=r"ids \(i\.txt\) belong to a \.npy file"):
        read_vectors(tmp_path / "v.parquet", ITEMS, ids="i.txt")
    np.save(tmp_path / "v.npy", ROWS)
    np.save(tmp_path / "ids.npy", ROWS)
    with pytest.raises(ValueError, match="one axis of whole numbers or texts, not float32 of 2 axes"):
        read_vectors(tmp_path / "v.npy", ITEMS, ids=tmp_path / "ids.npy")


# --- vectors out of texts


class FakeEncoder:
    """Stands for sentence_transformers.SentenceTransformer: a text becomes its length and its first letter."""

    def __init__(self, folder: str, *, device: str, local_files_only: bool) -> None:
        assert Path(folder).is_dir()
        assert local_files_only

    def encode(self, texts: list[str], **options: bool) -> Any:
        assert options["normalize_embeddings"]
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_texts_are_encoded_from_a_local_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=FakeEncoder))
    assert text_vectors(["abc", "z"], tmp_path).tolist() == [[3, 97], [1, 122]]
    with pytest.raises(ValueError, match="nothing is downloaded"):
        text_vectors(["abc"], tmp_path / "all-MiniLM")


def test_a_missing_encoder_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install sentence-transformers"):
        text_vectors(["abc"], tmp_path)


# --- collisions


def test_last_codes_count_inside_each_group_in_the_items_order() -> None:
    codes = np.array([[1, 1], [0, 5], [1, 1], [0, 5], [1, 1], [1, 2]])
    assert collision_codes(codes, 3).tolist() == [0, 0, 1, 1, 2, 0]


def test_new_items_go_on_after_the_highest_last_code() -> None:
    before = np.array([[1, 1, 4], [1, 1, 0], [0, 5, 0]])
    codes = np.array([[1, 1], [0, 5], [7, 7], [1, 1]])
    assert collision_codes(codes, 9, before).tolist() == [5, 1, 0, 6]


def test_a_group_larger_than_the_codebook_is_refused() -> None:
    codes = np.array([[2, 3]] * 5 + [[0, 0]])
    assert collision_codes(codes, 5).max() == 4
    with pytest.raises(ValueError, match=re.escape("5 items share the codes [2, 3], more than the 4 last codes")):
        collision_codes(codes, 4)


# --- the report


def test_the_report_counts_use_perplexity_and_collisions() -> None:
    codes = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [1, 1]])
    report = report_codes(codes, 4, [0.5, 0.25])
    first, second = report.levels
    assert (first.used, first.use, first.residual_norm) == (2, 2 / 4, 0.5)
    assert first.perplexity == pytest.approx((5 / 2) ** (2 / 5) * (5 / 3) ** (3 / 5))  # shares 2/5 and 3/5
    assert second.perplexity == pytest.approx((5 / 4) ** (4 / 5) * 5 ** (1 / 5))  # shares 4/5 and 1/5
    assert report.collision_rate == pytest.approx(1 - 3 / 5)
    assert report.largest_group == 2
    assert "level 1 uses 2 of 4 codes (50%; at least 80% is good)" in report.warnings[0]
    assert "40.0% of the items collide" in report.warnings[2]
    assert CodeReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_the_gates_stand_at_their_bounds() -> None:
    level = LevelReport(used=8, use=0.8, perplexity=7.0, residual_norm=0.5)
    assert CodeReport(100, 10, (level,), collision_rate=0.1, largest_group=3).warnings == []
    worse = LevelReport(used=7, use=0.7, perplexity=7.0, residual_norm=0.5)
    assert len(CodeReport(100, 10, (level, worse), collision_rate=0.11, largest_group=3).warnings) == 2


def test_even_use_has_a_perplexity_of_all_codes() -> None:
    report = report_codes(np.arange(6).reshape(6, 1), 6, [0.1])
    assert report.levels[0].perplexity == pytest.approx(6)
    assert (report.collision_rate, report.largest_group) == (0, 1)


# --- the whole


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_item_gets_codes_of_its_own(kind: type[Tokenizer]) -> None:
    ids = make_semantic_ids(kind, normal(V), CATALOGUE, settings=SETTINGS[kind], seed=3)
    again = make_semantic_ids(kind, normal(V), CATALOGUE, settings=SETTINGS[kind], seed=3)
    assert ids.codes.shape == (V, 3)
    assert ids.codes.dtype == np.int64
    assert len(np.unique(ids.codes, axis=0)) == V
    assert np.count_nonzero(ids.codes[:, 2]) == round(ids.report.collision_rate * V)  # all but the first of each group
    assert ids.report.levels[1].residual_norm < ids.report.levels[0].residual_norm < 1
    np.testing.assert_array_equal(ids.codes, again.codes)


def test_a_folder_comes_back_as_it_was(made: SemanticIds, tmp_path: Path) -> None:
    made.save(tmp_path / "ids", normal(V))
    names = {path.name for path in tmp_path.rglob("*")}
    assert names >= {"codes.npy", "vectors.npy", "items.utf8", "titles.utf8", "report.json", "model.safetensors"}
    assert not any(name.endswith(".part") for name in names)
    opened = load_semantic_ids(tmp_path / "ids")
    np.testing.assert_array_equal(opened.codes, made.codes)
    assert opened.catalogue.items == CATALOGUE.items
    assert opened.catalogue.titles == CATALOGUE.titles
    assert opened.facts == made.facts
    assert (opened.facts["why"], opened.facts["method"]) == ("test", "ResidualKMeans")
    assert opened.report == made.report
    np.testing.assert_array_equal(opened.codes_of_new(normal(9, 1)), made.codes_of_new(normal(9, 1)))
    with pytest.raises(ValueError, match="exists and is not empty"):
        made.save(tmp_path / "ids")


def test_given_vectors_are_not_copied(made: SemanticIds, tmp_path: Path) -> None:
    made.save(tmp_path / "ids")
    assert not (tmp_path / "ids/vectors.npy").exists()


def test_new_items_are_coded_by_the_frozen_codebooks(made: SemanticIds) -> None:
    vectors = normal(V)
    new = made.codes_of_new(vectors[[5, 8, 5]])
    np.testing.assert_array_equal(new[:, :2], made.codes[[5, 8, 5], :2])
    taken = {tuple(row) for row in made.codes.tolist()} | {tuple(row) for row in new.tolist()}
    assert len(taken) == V + 3
    group = (made.codes[:, :2] == made.codes[5, :2]).all(axis=1)
    assert new[[0, 2], 2].tolist() == [group.sum(), group.sum() + 1]


def test_a_larger_catalogue_keeps_the_codes_of_its_old_items(made: SemanticIds) -> None:
    larger = made.extended(["item 100b", "aaa"], normal(2, 5), ["New", "Newer"])
    items = larger.catalogue.items
    assert len(items) == V + 2
    assert items.all()[0] == "aaa"
    np.testing.assert_array_equal(larger.codes[items.index(IDS) - 1], made.codes)
    np.testing.assert_array_equal(larger.codes[items.index(["item 100b", "aaa"]) - 1], made.codes_of_new(normal(2, 5)))
    assert items.raw(larger.catalogue.cold_start) == [*IDS[::-1], "item 100b", "aaa"]
    assert [larger.catalogue.title(int(i)) for i in items.index(["aaa", "item 007"])] == ["Newer", "Title 7"]
    twice = larger.extended(["bbb"], normal(2, 5)[:1])  # the vector of item 100b
    first, second = (twice.codes[twice.catalogue.items.index([raw])[0] - 1].tolist() for raw in ("item 100b", "bbb"))
    assert second == [*first[:2], first[2] + 1]
    assert twice.catalogue.title(int(twice.catalogue.items.index(["bbb"])[0])) == "bbb"


def test_what_does_not_fit_is_refused(made: SemanticIds, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="299 vectors for 300 items"):
        make_semantic_ids(ResidualKMeans, normal(V - 1), CATALOGUE)
    with pytest.raises(ValueError, match="item id 'item 003' occurs twice"):
        made.extended(["item 003"], normal(1))
    with pytest.raises(ValueError, match="2 vectors and None titles for 1 items"):
        made.extended(["x"], normal(2))
    with pytest.raises(ValueError, match=re.escape("codes must be int64 (300, 3), got int64 (300, 2)")):
        SemanticIds(CATALOGUE, made.codes[:, :2], made.tokenizer)
    with pytest.raises(ValueError, match=re.escape("codes must lie in 0..15, got")):
        SemanticIds(CATALOGUE, made.codes + 9, made.tokenizer)
    with pytest.raises(ValueError, match="two items have the same codes"):
        SemanticIds(CATALOGUE, np.zeros_like(made.codes), made.tokenizer)
    with pytest.raises(FileNotFoundError, match="make some with: genrec semantic-ids"):
        load_semantic_ids(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(ValueError, match="is not of format 'genrec-semantic-ids', version 1"):
        load_semantic_ids(tmp_path)


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_exported_tokenizer_gives_every_item_the_same_codes(kind: type[Tokenizer], tmp_path: Path) -> None:
    vectors = normal(V)
    ids = make_semantic_ids(kind, vectors, CATALOGUE, settings=SETTINGS[kind])
    ids.save(tmp_path / "ids")
    served = Module.load(export_folder(tmp_path / "ids", tmp_path / "store").path, device="cpu", threads=1)
    assert isinstance(served, Module)
    np.testing.assert_array_equal(served.run(vectors=vectors)["codes"], ids.codes[:, :2])
    alone = np.concatenate([served.run(vectors=vectors[i : i + 1])["codes"] for i in range(50)])
    np.testing.assert_array_equal(alone, ids.codes[:50, :2])
    assert set(served.manifest.ops) == {""}  # plain operators only
