"""A week of a real shop: trained on what was sold before a freeze, asked for the customers of the week after it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from genrec.data import load_data, temporal_split
from genrec.training import FitConfig, fit
from genrec_export import export_run
from genrec_models import build, model_class
from genrec_runtime import Recommender

EVENTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail.events.parquet"
FREEZE, END = datetime(2011, 10, 1), datetime(2011, 10, 8)

pytestmark = pytest.mark.skipif(not EVENTS.is_file(), reason=f"the real data {EVENTS} is not here")


@pytest.fixture(
    scope="module",
    params=[pytest.param(8, id="every 8th customer"), pytest.param(1, id="all customers", marks=pytest.mark.slow)],
)
def shop(request: pytest.FixtureRequest) -> pl.DataFrame:
    """The events of the shop, or of those customers whose number can be divided."""
    return pl.read_parquet(EVENTS).filter(pl.col("customer") % request.param == 0)


@pytest.fixture(scope="module")
def frozen(shop: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A SASRec that was trained for one epoch and exported when nothing after the freeze had happened yet."""
    folder = tmp_path_factory.mktemp("retail")
    shop.filter(pl.col("time") < FREEZE).write_parquet(folder / "events.parquet")
    split = temporal_split(load_data(folder / "events.parquet"), "2011-09-01", "2011-09-16")
    settings = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1, "max_seq_length": 50}
    model = build(model_class("sasrec"), len(split.data.items), settings)
    fit(model, split, out=folder / "run", config=FitConfig(max_epochs=1, device="cpu"))
    return Recommender.load(export_run(folder / "run", folder / "store", k_max=10).path, device="cpu", threads=1)


def histories_before(shop: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """Per customer of the week, in the order of their numbers, all that he bought before a moment, oldest first."""
    customers = shop.filter(pl.col("time").is_between(FREEZE, END, closed="left")).select("customer").unique()
    bought = shop.filter(pl.col("time") < moment).sort("time", maintain_order=True)
    lists = bought.group_by("customer", maintain_order=True).agg("stock_code")
    return (
        customers.join(lists, on="customer", how="left")
        .sort("customer")
        .with_columns(pl.col("stock_code").fill_null([]))
    )


@pytest.mark.parametrize(
    "moment", [FREEZE, datetime(2011, 10, 5), END], ids=["as the week begins", "in its middle", "as it ends"]
)
def test_the_customers_of_the_week_after_a_freeze_are_answered_and_counted_as_polars_counts_them(
    shop: pl.DataFrame, frozen: Recommender, moment: datetime
) -> None:
    asked = histories_before(shop, moment)
    answer = frozen.recommend(asked["stock_code"].to_list(), k=10)

    sold = shop.filter(pl.col("time") < FREEZE).select(pl.col("stock_code").unique(), known=True)
    events = asked.explode("stock_code", empty_as_null=True).join(sold, on="stock_code", how="left")
    counts = events.group_by("customer").agg(
        given=pl.col("stock_code").count(),
        known=pl.col("known").sum(),
    )
    status = (
        pl.when(pl.col("known") > 0).then(pl.lit("model")).when(pl.col("given") > 0).then(pl.lit("all_unknown"))
    ).otherwise(pl.lit("cold_start"))
    expected = counts.sort("customer").with_columns(status=status)
    assert answer.status == expected["status"].to_list()
    assert answer.unknown_items == (expected["given"] - expected["known"]).sum()
    if moment == FREEZE:  # new customers have bought nothing yet, and nothing is new
        assert answer.status.count("cold_start") > 0
        assert answer.unknown_items == 0
    if moment == END:  # each has bought something, and some of it was first sold in this week
        assert answer.status.count("cold_start") == 0
        assert answer.unknown_items > 0

    for history, items in zip(asked["stock_code"].to_list(), answer.items, strict=True):
        assert len(items) == len(set(items)) == 10
        assert not set(items) & set(history)
        assert set(items) <= set(sold["stock_code"].to_list())
