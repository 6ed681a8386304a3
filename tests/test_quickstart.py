"""``genrec quickstart``, which ``make demo`` runs: results such as the embedded data allow, and all it names is there."""

import json
from pathlib import Path

import pytest

from genrec.quickstart import BASELINES, RESULTS, quickstart


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of one quickstart, and what it said."""
    out = tmp_path_factory.mktemp("demo") / "quickstart"
    said: list[str] = []
    quickstart(out, 0, said.append)
    return out, said


def test_sasrec_is_far_above_popularity_and_not_above_the_best_possible(done: tuple[Path, list[str]]) -> None:
    found = json.loads((done[0] / RESULTS).read_text())
    sasrec, best, error = (found[name]["recall@10"] for name in ("sasrec", "the best possible", "  its standard error"))
    assert sasrec >= 3 * found["popularity"]["recall@10"]
    assert max(found[name]["recall@10"] for name in BASELINES) < sasrec <= best + 2 * error


def test_ten_recommendations_have_readable_titles(done: tuple[Path, list[str]]) -> None:
    said = "\n".join(done[1])
    answer = said.partition("torch cannot be imported")[2].partition("== written")[0]
    lines = [line.split() for line in answer.splitlines() if line.strip()[:1].isdecimal()]
    assert [line[0] for line in lines] == [str(place) for place in range(1, 11)]
    assert all(line[2].startswith("SKU") and line[-1].isdecimal() and len(line) >= 5 for line in lines)


def test_every_path_it_names_exists(done: tuple[Path, list[str]]) -> None:
    said = "\n".join(done[1]).partition("== written\n")[2].splitlines()
    assert len(said) == 5
    for line in said:
        assert Path(line).exists()
    assert all((done[0] / name).read_bytes().startswith(b"\x89PNG") for name in ("training_curve.png", "attention.png"))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="something else than an earlier quickstart"):
        quickstart(tmp_path, 0, print)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
