"""Results as files: what is written comes back, and what does not belong together is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.results import COMPARED, Result, read_result

TEXTS = np.array(["b", "", "ä\0"], dtype=object)  # numpy's own text type would cut the last one


def result(users: Any = TEXTS, **changes: Any) -> Result:
    values = {"recall@5": np.array([1.0, 0.0, 0.0]), "ndcg@5": np.array([0.5, np.nan, 0.0])}
    parts: dict[str, Any] = {
        "name": "ours",
        "metrics": {"recall@5": 1 / 3, "ndcg@5": 0.5 / 2, "coverage@5": 0.25},
        "users": users,
        "values": values,
        "protocol": {"split": "leave_one_out", "cutoffs": None},
        "details": {"model": "sasrec", "config": {"width": 8}, "seed": 3},
    }
    return Result(**(parts | changes))


@pytest.mark.parametrize("users", [TEXTS, np.array([2**62, -5, 7])], ids=["texts", "ints"])
def test_a_result_survives_its_files(tmp_path: Path, users: Any) -> None:
    written = result(users)
    written.write(tmp_path / "new" / "folder")
    found = read_result(tmp_path / "new" / "folder")
    assert (found.name, found.metrics, found.protocol, found.details) == (
        written.name,
        written.metrics,
        written.protocol,
        written.details,
    )
    assert found.users.dtype == users.dtype
    assert found.users.tolist() == users.tolist()
    for name, column in written.values.items():
        np.testing.assert_array_equal(found.values[name], column)
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {"metrics.json", "per_user.npz"}


def test_a_run_folder_gives_its_own_name_and_settings(tmp_path: Path) -> None:
    run = tmp_path / "sasrec-1"
    result().write(run)
    content = json.loads((run / "metrics.json").read_text())
    del content["name"], content["details"]  # as training writes it
    (run / "metrics.json").write_text(json.dumps(content))
    (run / "config.json").write_text(json.dumps({"model": "sasrec", "config": {"width": 8}, "seed": 4, "fit": {}}))
    found = read_result(run)
    assert found.name == "sasrec-1"
    assert found.details == {"model": "sasrec", "config": {"width": 8}, "fit": {}, "seed": 4}


def test_a_folder_without_values_by_user_says_how_to_write_them(tmp_path: Path) -> None:
    result().write(tmp_path)
    (tmp_path / "per_user.npz").unlink()
    with pytest.raises(ValueError, match=r"no per_user.npz.*genrec evaluate .* --out FOLDER"):
        read_result(tmp_path)


def damage(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "version 1, not 'genrec-metrics', version 2"),
        ({"format": "other"}, "must be of format 'genrec-metrics'"),
        ({"test": {"recall@5": 1 / 3, "ndcg@5": 0.3}}, "not of one evaluation: ndcg@5 is 0.3"),
        ({"test": {"recall@5": 1 / 3}}, "not of one evaluation: ndcg@5 is None"),
        ({"test": {"recall@5": "much"}}, "recall@5 must be a number, got 'much'"),
        ({"test": {"recall@5": float("nan")}}, "NaN is no JSON"),
        ({"test": None}, "test must be an object"),
        ({"protocol": 5}, "protocol must be an object, got 5"),
    ],
)
def test_a_metrics_file_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    result().write(tmp_path)
    damage(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path)


def test_damaged_values_by_user_are_refused(tmp_path: Path) -> None:
    result().write(tmp_path)
    whole = (tmp_path / "per_user.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x93NUMPY"):
        (tmp_path / "per_user.npz").write_bytes(content)
        with pytest.raises(ValueError, match="no readable file of values by user"):
            read_result(tmp_path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    result().write(tmp_path)
    np.savez(tmp_path / "per_user.npz", users=TEXTS)
    with pytest.raises(ValueError, match=r"no readable file of values by user.*allow_pickle=False"):
        read_result(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no metrics.json"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"users": np.array(["a", "a", "b"], dtype=object)}, ValueError, "each once"),
        ({"users": np.array([1, 2])}, ValueError, r"recall@5 have shape \(3,\), the users \(2,\)"),
        ({"users": np.array([1.0, 2.0, 3.0])}, TypeError, "users must be int64 or objects of str, not float64"),
        ({"users": np.array(["a", None, "b"], dtype=object)}, TypeError, "objects of str"),
        ({"values": {"recall@5": np.array([1, 0, 0])}}, TypeError, "must be float64, not int64"),
    ],
)
def test_users_and_values_that_are_no_table_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        result(**changes)


def test_a_mean_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        result(metrics={"recall@5": float("nan")}).write(tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_what_is_compared_says_what_is_predicted_and_how_but_not_where_the_data_lay() -> None:
    assert {"content_hash", "split", "cutoffs", "seen_filter"} <= set(COMPARED)
    assert "source" not in COMPARED
