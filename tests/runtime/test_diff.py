import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from genrec_runtime import InputError, Recommender
from genrec_runtime.cli import main
from genrec_runtime.diff import compare_answers, passes, plot
from timed import FURTHER, write_timed
from tiny import Tiny


def test_a_bundle_does_not_differ_from_itself(tiny: Tiny, served: Recommender) -> None:
    found = compare_answers(served, served, tiny.histories, k=5)
    expected = {"overlap@5": 1.0, "same_first": 1.0, "same_list": 1.0, "items_only_in_a": 0.0, "items_only_in_b": 0.0}
    assert found.measures == expected


def test_overlaps_are_counted_by_history(tiny: Tiny, served: Recommender, numbers: Path) -> None:
    other = Recommender.load(numbers, device="cpu", threads=1)
    found = compare_answers(served, other, [["item 01"], []], k=4)
    assert found.overlaps.tolist() == [0.0, 0.0]  # catalogues without a common item
    assert found.measures["items_only_in_a"] == 37
    assert found.measures["items_only_in_b"] == 11


def test_bad_input_is_refused(served: Recommender) -> None:
    with pytest.raises(ValueError, match="at least one history"):
        compare_answers(served, served, [])
    with pytest.raises(InputError, match=r"k \(0\)"):
        compare_answers(served, served, [["item 01"]], k=0)


@pytest.mark.parametrize(
    ("gate", "expected"),
    [("overlap@10>=0.5", True), ("overlap@10 >= 0.7", False), ("overlap@10<=.6", True), ("same_first<=0", False)],
)
def test_gates(gate: str, expected: bool) -> None:
    assert passes({"overlap@10": 0.6, "same_first": 0.1}, gate) is expected


@pytest.mark.parametrize("gate", ["overlap@10", "overlap@10>0.5", "overlap@10>=x", "nothing>=1"])
def test_a_gate_that_is_none_is_refused(gate: str) -> None:
    with pytest.raises(ValueError, match=r"gate \("):
        passes({"overlap@10": 0.6}, gate)


def test_the_picture_is_drawn(tiny: Tiny, served: Recommender, tmp_path: Path) -> None:
    plot(compare_answers(served, served, tiny.histories), tmp_path / "overlap.png")
    assert (tmp_path / "overlap.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_gates(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "histories.jsonl"
    file.write_text("".join(json.dumps(history) + "\n" for history in tiny.histories))
    arguments = ["diff", str(tiny.path), str(tiny.path), "--histories", str(file), "--device", "cpu"]
    good = CliRunner().invoke(main, [*arguments, "--gate", "overlap@10>=1", "--plot", str(tmp_path / "x.png")])
    assert (good.exit_code, good.stdout.split()[:2]) == (0, ["overlap@10", "1.0000"])
    bad = CliRunner().invoke(main, [*arguments, "--gate", "overlap@10<=0.5"])
    assert bad.exit_code == 1
    assert "does not pass overlap@10<=0.5" in bad.stderr


def test_shares_are_between_none_and_all(tiny: Tiny, served: Recommender) -> None:
    overlaps = compare_answers(served, served, tiny.histories).overlaps
    assert overlaps.dtype == np.float64
    assert ((overlaps >= 0) & (overlaps <= 1)).all()


def test_each_bundle_is_asked_with_what_it_reads(tmp_path: Path) -> None:
    one, two = (Recommender.load(write_timed(tmp_path / name, reads)) for name, reads in (("a", FURTHER), ("b", ())))
    further = {"timestamps": [[5, 9], [7]], "request_time": [20, 8], "users": ["u1", None]}
    found = compare_answers(one, two, [["item 1", "item 4"], ["item 4"]], k=3, **further)
    asked = one.recommend([["item 1", "item 4"], ["item 4"]], k=3, **further).items
    plain = two.recommend([["item 1", "item 4"], ["item 4"]], k=3).items
    assert found.overlaps.tolist() == [len({*a} & {*b}) / 3 for a, b in zip(asked, plain, strict=True)]
