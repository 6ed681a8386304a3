from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batch_folders import write
from genrec_runtime import BundleNotFound, InputError, Unsupported
from genrec_runtime.batch import Plan
from genrec_runtime.batch.tables import import_polars

Prepare = Callable[..., Plan]
GOOD = [["item 01"]]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Parquet file of one row for each entry of its columns."""

    def table(**columns: Any) -> Path:
        pl.DataFrame(columns).write_parquet(tmp_path / "table.parquet")
        return tmp_path / "table.parquet"

    return table


# --- parts


def test_parts_are_ranges_of_rows_in_order_and_none_spans_two_files(prepare: Prepare, tmp_path: Path) -> None:
    for name, rows in (("a", 7), ("b", 0), ("c", 4)):
        write(tmp_path / f"{name}.parquet", GOOD * rows)
    (tmp_path / "in.parquet").unlink()
    parts = prepare(source=tmp_path, part_rows=3).parts
    cuts = [(part.number, Path(part.source.path).name[0], part.start, part.stop, part.first) for part in parts]
    assert cuts == [(0, "a", 0, 3, 0), (1, "a", 3, 6, 3), (2, "a", 6, 7, 6), (3, "c", 0, 3, 7), (4, "c", 3, 4, 10)]


def test_planning_writes_nothing(prepare: Prepare, tmp_path: Path) -> None:
    prepare()
    assert not (tmp_path / "out").exists()


# --- columns


@pytest.mark.parametrize("name", ["history", "item_ids", "items"])
def test_a_column_of_a_common_name_is_found(prepare: Prepare, table: Callable[..., Path], name: str) -> None:
    columns = prepare(source=table(**{name: GOOD, "customer_id": [7], "other": [1]})).job.columns
    assert (columns.history, columns.user, columns.exclude, columns.keep) == (
        name,
        "customer_id",
        None,
        ("customer_id",),
    )


def test_a_column_that_is_named_comes_before_a_common_name(prepare: Prepare, table: Callable[..., Path]) -> None:
    job = prepare(source=table(history=GOOD, bought=GOOD, user=[1]), history="bought").job
    assert job.columns.history == "bought"


def test_times_are_left_alone_where_the_model_reads_none(prepare: Prepare, table: Callable[..., Path]) -> None:
    columns = prepare(source=table(history=GOOD, timestamps=[["yesterday"]])).job.columns
    assert columns.timestamps is None


@pytest.mark.parametrize(
    ("columns", "chosen", "message"),
    [
        ({"a": [1]}, {}, "no column history or histories or .*; name that of the history: it has a"),
        ({"history": GOOD}, {"history": "bought"}, "no column 'bought'; it has history"),
        ({"history": GOOD}, {"keep": ("age",)}, "no column 'age'"),
        ({"history": ["item 01"]}, {}, "taken for the history, holds String; it must hold lists of str"),
        ({"history": [[1.0]]}, {}, r"holds List\(Float64\); it must hold lists of str: the bundle's item ids are str"),
        ({"history": [[1]]}, {}, r"holds List\(Int64\); it must hold lists of str"),
        ({"history": GOOD, "exclude": [[1]]}, {}, "taken for the exclude"),
        ({"history": GOOD, "row": [1]}, {"keep": ("row",)}, "'row' cannot be kept: the output has its own"),
    ],
)
def test_columns_that_no_row_could_be_answered_with_are_refused(
    prepare: Prepare, table: Callable[..., Path], columns: dict[str, Any], chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(source=table(**columns), **chosen)


def test_files_must_agree(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    write(tmp_path / "many" / "a.parquet", GOOD, age=[3])
    write(tmp_path / "many" / "b.parquet", GOOD)
    with pytest.raises(InputError, match=r"b\.parquet has no column 'age'"):
        prepare(source=tmp_path / "many", keep=("age",))


# --- what else may be wrong


@pytest.mark.parametrize("content", [b"", b"PAR1", b"history,user\n", b"PAR1" + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_file_is_refused(prepare: Prepare, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"no\.parquet cannot be read"):
        prepare(source=tmp_path / "no.parquet")


def test_a_cut_parquet_file_is_refused(prepare: Prepare, source: Path) -> None:
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"in\.parquet cannot be read"):
        prepare()


def test_an_input_that_is_not_there_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        prepare(source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no \*\.parquet file"):
        prepare(source=tmp_path / "empty")


def test_a_bundle_that_is_not_there_or_does_not_recommend_is_refused(
    prepare: Prepare, tmp_path: Path, features: Path
) -> None:
    with pytest.raises(BundleNotFound, match="nowhere"):
        prepare(bundle=tmp_path / "nowhere")
    with pytest.raises(Unsupported, match="of kind 'module'"):
        prepare(bundle=features)


@pytest.mark.parametrize("role", ["timestamps", "request_time"])
def test_a_column_that_the_model_has_no_use_for_is_refused_if_it_was_named(prepare: Prepare, role: str) -> None:
    with pytest.raises(Unsupported, match=f"takes no {role}"):
        prepare(**{role: "user"})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"k": 0}, r"k \(0\) must be"),
        ({"k": 36}, r"k \(36\) is above this bundle's 20"),
        ({"part_rows": 0}, r"part_rows \(0\) must be at least 1"),
        ({"device": "cdua"}, "cdua"),
    ],
)
def test_options_that_are_not_usable_are_refused_at_once(
    prepare: Prepare, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(**chosen)


def test_a_missing_polars_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(ImportError, match=r"pip install 'genrec\[batch\]'"):
        import_polars()
