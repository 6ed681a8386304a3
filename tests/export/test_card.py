"""The bundle's card: what was measured, as a table by cut-off."""

from genrec_export.card import _by_cut_off, _entries


def test_what_was_measured_at_cut_offs_is_a_table_and_the_rest_a_list() -> None:
    values = {"recall@5": 0.1, "recall@10": 0.25, "ndcg@5": 1 / 3, "cases": 22, "seed": None}
    assert _entries(values) == ["- cases: 22"]
    assert _by_cut_off(values) == [
        "",
        "| at | 5 | 10 |",
        "| --- | --- | --- |",
        "| recall | 0.1 | 0.25 |",
        "| ndcg | 0.3333 |  |",
    ]
    assert _by_cut_off({"cases": 22}) == []
