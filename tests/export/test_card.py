"""The bundle's card: what is known of the training, then what was proved."""

from dataclasses import replace

from genrec_export.card import card
from tiny import Tiny


def test_a_bundle_s_card_holds_the_run_s_and_what_was_compared(tiny: Tiny) -> None:
    manifest = replace(tiny.exported.manifest, model={"name": "mine", "config": {"width": 3}})
    facts = {
        "test": {"recall@10": 0.25, "ndcg@10": 0.125, "cases": 22},
        "baselines": {"markov": {"recall@10": 0.2, "ndcg@10": 0.1, "difference": [0.025, 0.02, 0.03]}},
    }
    text = card(manifest, tiny.exported.report, facts)
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["Settings", "Accuracy", "Parity with torch", "Speed", "Use"]
    assert text.startswith("# mine\n\nRecommends from 37 items")
    assert "**mine is better than markov**" in text
    assert tiny.exported.report.table() in text
    speed = tiny.exported.manifest.measured["fp32"]["speed"]
    assert set(speed) == {"1", "32"}
    assert min(speed.values()) > 0
    assert f"raw ids in and raw ids out: {speed['1']:.2f} at batch 1, {speed['32']:.2f} at batch 32." in text
    assert tiny.exported.manifest.measured["on"] in text
