"""A comparison on paper: aligned text, CSV with every figure, LaTeX that compiles and says when the best is not alone."""

import csv
import io
import re

import pytest

from genrec.results.comparison import Comparison, compare
from genrec.results.seeds import compare_seeds
from genrec.results.tables import CSV_COLUMNS, csv_table, latex_table, text_table
from scored import drawn_ranks, scored

USERS = 1_500


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = [("base_line 100%", 0.0, 1), ("better", 0.5, 2), ("alike", 0.45, 3)]
    return compare([scored(name, drawn_ranks(USERS, skill, seed)) for name, skill, seed in runs], resamples=999)


@pytest.fixture(scope="module")
def over_seeds() -> Comparison:
    runs = {"one": [(0.0, None)], "five": [(0.5, seed) for seed in range(5)], "single": [(0.5, 7)]}
    return compare_seeds(
        {
            name: [scored(f"{name}{seed}", drawn_ranks(USERS, skill, seed or 0), seed=seed) for skill, seed in one]
            for name, one in runs.items()
        }
    )


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def test_the_text_shows_every_mean_and_every_difference(comparison: Comparison) -> None:
    text = text_table(comparison)
    for metric, models in comparison.estimates.items():
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f"{metric} ") and " +" not in line and " -" not in line
        ]
        for one in models.values():
            assert f"{one.mean:.4f}" in line
            assert one.low is None or f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]" in line
    for difference in comparison.differences:
        assert f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]" in text
        assert difference.verdict in text
    assert f"{USERS:,} users" in text
    assert "corrected for 4 tests" in text
    assert text.splitlines()[-1] == comparison.notes[0]


def test_the_columns_of_the_text_are_aligned(comparison: Comparison) -> None:
    _, means, differences, _ = re.split(r"\n\(.*\)\n|\n\n.*\n", text_table(comparison))
    for block in (means, differences):
        lines = [line for line in block.splitlines() if line]
        starts = [[match.start() for match in re.finditer(r"(?<=  )\S", line.ljust(200))] for line in lines]
        full = max(starts, key=len)
        assert all(set(one) <= set(full) for one in starts), block


def test_metrics_that_follow_from_others_can_be_left_out_unless_they_were_tested(comparison: Comparison) -> None:
    text = text_table(comparison, leave_out=["mrr", "recall"])
    shown = {line.split()[0] for line in text.splitlines() if "@" in line}
    assert shown == {"ndcg@10", "recall@10", "ndcg@5", "coverage@10"}


def test_a_table_over_seeds_has_runs_and_their_sd(over_seeds: Comparison) -> None:
    text = text_table(over_seeds)
    estimate = over_seeds.estimates["ndcg@10"]["five"]
    assert "one, 1 run " in text
    assert "five, 5 runs" in text
    assert f"{estimate.mean:.4f} +- {estimate.sd:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]" in text
    assert "single has one seed (7), which tells nothing about the method" in text
    assert "corrected for 2 tests" in text  # of the two metrics; the method of one seed has none
    assert "nan" not in text.lower()
    assert "None" not in text


def test_where_nothing_could_be_tested_there_is_no_talk_of_tests() -> None:
    runs = {name: [scored(name, drawn_ranks(99, 0, seed), seed=seed)] for seed, name in enumerate("ab")}
    text = text_table(compare_seeds(runs))
    assert "corrected for" not in text
    assert text.count("not tested") == 6 + 2  # each metric's verdict, and a note for each method


def test_the_csv_has_every_figure_in_full(comparison: Comparison) -> None:
    table = rows(csv_table(comparison))
    assert tuple(table[0]) == CSV_COLUMNS
    assert len(table) == len(comparison.estimates) * len(comparison.models)
    for row in table:
        estimate = comparison.estimates[row["metric"]][row["model"]]
        assert float(row["mean"]) == estimate.mean
        assert row["low"] == ("" if estimate.low is None else repr(estimate.low))
    for one in comparison.differences:
        (row,) = [row for row in table if (row["metric"], row["model"]) == (one.metric, one.model)]
        assert (row["base"], float(row["difference"]), row["verdict"]) == (one.base, one.mean, one.verdict)
        assert (row["p"], row["p_holm"]) == (("", "") if one.p is None else (repr(one.p), repr(one.adjusted)))
    assert all(row["base"] == "" for row in table if row["model"] == comparison.models[0])


def test_the_csv_of_all_pairs_has_a_row_for_each(over_seeds: Comparison) -> None:
    results = [scored(name, drawn_ranks(100, 0.1 * i, i)) for i, name in enumerate("abc")]
    table = rows(csv_table(compare(results, resamples=9, all_pairs=True)))
    pairs = [(row["model"], row["base"]) for row in table if row["metric"] == "ndcg@10"]
    assert pairs == [("a", ""), ("b", "a"), ("c", "a"), ("c", "b")]
    assert {row["runs"] for row in rows(csv_table(over_seeds))} == {"1", "5"}


def test_latex_is_bold_where_the_value_is_best_and_says_when_it_is_not_alone(comparison: Comparison) -> None:
    table = latex_table(comparison)
    lines = {line.split(" & ")[0]: line for line in table.splitlines() if " & " in line}
    best = comparison.estimates["ndcg@10"]["better"]
    assert rf"\textbf{{{best.mean:.4f}}} [{best.low:.4f}, {best.high:.4f}]" in lines["better"]
    assert r"$^\dagger$" in lines["alike"]  # never held against the best
    assert r"$^\dagger$" not in lines[r"base\_line 100\%"]  # shown to be worse
    assert "not shown to differ" in table


def test_latex_has_a_dagger_where_the_best_was_tested_and_not_shown_to_be_better() -> None:
    names = ["base", "alike", "alike too"]
    results = [scored(name, drawn_ranks(USERS, 0.5 * (i > 0), i)) for i, name in enumerate(names)]
    table = latex_table(compare(results, ["ndcg@10"], resamples=999, all_pairs=True))
    assert table.count(r"$^\dagger$ [") == 1  # the lesser of the two; the base is shown to be worse


def test_latex_has_two_bold_values_where_two_are_best() -> None:
    one = scored("one", drawn_ranks(50, 0, 1))
    table = latex_table(compare([one, one], resamples=9))
    assert table.count(r"\textbf") == 2 * 2
    assert r"one (2) & \textbf" in table


def test_latex_over_seeds_shows_the_sd(over_seeds: Comparison) -> None:
    sd = over_seeds.estimates["ndcg@10"]["five"].sd
    assert rf" $\pm$ {sd:.4f} [" in latex_table(over_seeds)


def test_latex_escapes_what_it_would_take_for_a_command() -> None:
    strange = r"a_b%c&d#e$f{g}h~i^j\k<l>"
    table = latex_table(
        compare([scored(strange, drawn_ranks(9, 0, 1)), scored("b", drawn_ranks(9, 0, 2))], resamples=9)
    )
    escaped = r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k\textless{}l\textgreater{}"
    assert f"\n{escaped} & " in table


def test_latex_has_as_many_columns_as_it_names(comparison: Comparison, over_seeds: Comparison) -> None:
    for one in (comparison, over_seeds):
        table = latex_table(one)
        columns = len(re.findall(r"tabular}{(l+r+)}", table)[0])
        body = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(body) == 1 + len(one.models)
        assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {columns}
        assert re.findall(r"\\(\w+rule)", table) == ["toprule", "midrule", "bottomrule"]
        assert table.count(r"\begin") == table.count(r"\end")
