"""Real files, where this checkout stands beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec.data import leave_one_out, load_data

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real data of {FOLDER} is not here")


@pytest.mark.parametrize(
    ("name", "k_core", "users", "items", "read", "events", "tested"),
    [
        ("amazon_beauty.events.csv.gz", 5, 22_363, 12_101, 198_502, 198_502, 22_363),
        ("online_retail.events.parquet", 0, 4_335, 3_659, 396_370, 266_226, 4_189),
        ("online_retail.events.parquet", 5, 4_074, 3_145, 396_370, 264_514, 4_074),
        ("movielens_small.events.csv.gz", 0, 671, 9_066, 100_004, 100_004, 671),
        ("movielens_small.events.csv.gz", 5, 671, 3_496, 100_004, 90_072, 671),
    ],
)
def test_real_data_loads_without_options(
    name: str, k_core: int, users: int, items: int, read: int, events: int, tested: int
) -> None:
    titles = FOLDER / (name.partition(".")[0] + ".items.csv")
    split = leave_one_out(load_data(FOLDER / name, k_core=k_core, items=titles))
    assert split.data.filters == {"events_read": read, "dedup": "first", "k_core": k_core}
    assert split.protocol()["counts"] == {
        "users": users,
        "items": items,
        "events": events,
        "train_events": events - 2 * tested,
        "valid_cases": tested,
        "test_cases": tested,
    }


def test_raw_ids_are_those_of_the_file() -> None:
    retail = load_data(FOLDER / "online_retail.events.parquet")
    assert retail.user_ids[0] == 12346
    assert {"85123A", "71053"} <= set(retail.items.all())
    beauty = load_data(FOLDER / "amazon_beauty.events.csv.gz")
    assert beauty.items.raw(beauty.events.row(0)[:2]) == ["B004756YJA", "B004ZT0SSG"]  # the first two rows of the file
