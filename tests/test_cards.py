"""Model cards: what was measured stands in tables, and a model that does not beat counting is not praised."""

import pytest

from genrec.cards import by_cut_off, entries, facts_of, run_card, sections, verdict

CONFIG = {
    "model": "sasrec",
    "config": {"dropout": 0.25, "loss": None},
    "fit": {"max_epochs": 30, "learning_rate": 1e-3},
    "seed": 7,
    "data": {
        "source": "/home/me/shop.csv",
        "hash": "abc123",
        "items": 1234,
        "options": {"source": "/home/me/shop.csv"},
    },
    "protocol": {"split": "leave_one_out", "source": "/home/me/shop.csv", "content_hash": "abc123", "filters": {}},
}


def metrics(low: float, high: float) -> dict[str, object]:
    epochs = [{"epoch": n, "train_loss": 8.0 - n / 10, "valid_ndcg@10": n / 100} for n in range(1, 31)]
    return {
        "best_epoch": 29,
        "epochs": epochs,
        "test": {"recall@5": 0.1, "recall@10": 0.25, "ndcg@10": 0.125, "precision@10": 0.025, "cases": 22},
        "intervals": {"ndcg@10": [0.11, 0.14]},
        "baselines": {
            "popularity": {"recall@10": 0.01, "ndcg@10": 0.005, "difference": [0.12, 0.11, 0.13]},
            "markov": {"recall@10": 0.2, "ndcg@10": 0.1, "difference": [(low + high) / 2, low, high]},
        },
        "facts": {"semantic_ids": {"collision_rate": 0.0625}},
    }


def test_what_was_measured_at_cut_offs_is_a_table_and_the_rest_a_list() -> None:
    values = {"recall@5": 0.1, "recall@10": 0.25, "ndcg@5": 1 / 3, "cases": 22}
    assert entries({"cases": 22, "seed": None, "filters": {"k_core": 5}}) == ["- cases: 22", "- filters: k_core 5"]
    assert by_cut_off(values) == [
        "",
        "| at | 5 | 10 |",
        "| --- | --- | --- |",
        "| recall | 0.1 | 0.25 |",
        "| ndcg | 0.3333 |  |",
    ]
    assert by_cut_off({"cases": 22}) == []


def test_a_card_tells_settings_course_figures_and_facts() -> None:
    card = run_card(CONFIG, metrics(0.02, 0.03))
    assert card.startswith("# sasrec\n\nRecommends from 1,234 items.")
    for line in (
        "- dropout: 0.25",
        "- seed: 7",
        "- best epoch: 29",
        "| recall | 0.1 | 0.25 |",
        "95% interval over users of ndcg@10: 0.1100 to 0.1400",
        "| markov | 0.2 | 0.1 |",
        "- collision_rate: 0.0625",
        "- hash: abc123",
        "- split: leave_one_out",
    ):
        assert f"\n{line}\n" in card, line
    assert "precision" not in card


def test_a_long_training_is_shown_by_some_of_its_epochs_the_best_and_the_last_among_them() -> None:
    shown = [row["epoch"] for row in facts_of(CONFIG, metrics(0.02, 0.03))["epochs"]]
    assert shown == [1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29, 30]


def test_folders_of_the_trainer_s_machine_are_left_out() -> None:
    assert "/home" not in run_card(CONFIG, metrics(0.02, 0.03))
    assert facts_of(CONFIG, {})["data"] == {"source": "shop.csv", "hash": "abc123", "items": 1234}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.02, 0.03, "**sasrec is better than markov**, the best of the counted models, by 0.0250"),
        (-0.03, -0.02, "**markov, which only counts, is better here** by 0.0250"),
        (-0.01, 0.03, "**No difference from markov**, which only counts, is shown: by 0.0100"),
    ],
)
def test_the_verdict_is_on_the_best_of_the_counted_models(low: float, high: float, said: str) -> None:
    sentence = verdict("sasrec", metrics(low, high)["baselines"])  # type: ignore[arg-type]  # as JSON has it
    assert sentence.startswith(said)
    assert f"{low:.4f} to {high:.4f}" in sentence
    assert ("not recommended" in sentence) == (high < 0)


def test_facts_of_others_are_sections_and_what_is_lacking_is_not() -> None:
    assert sections("own", {}, {}) == []
    assert sections("own", {"width": 3}, {"data": {"rows": 9}, "note": "x"}) == [
        "## Settings\n\n- width: 3",
        "## Data\n\n- rows: 9",
    ]
