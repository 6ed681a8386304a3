"""Bundles damaged at random: each is refused with an error of ours, or answers as before; no process dies over one."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mutants
from mutations import mutate

MANY = 2000
AT_A_TIME = 250


def outcomes(first: int, count: int) -> list[dict[str, Any]]:
    """What came of the mutants of some seeds, tried in a process of their own."""
    command = [sys.executable, mutants.__file__, str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(mutants.__file__).parent), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=count * mutants.SECONDS)
    found: dict[int, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        found.setdefault(entry["seed"], {}).update(entry)
    last = max(found.values(), key=lambda entry: entry["seed"], default={})
    assert done.returncode == 0, f"the process ended by {done.returncode} over {last}: {done.stderr}"
    assert list(found) == list(range(first, first + count))
    return list(found.values())


def hold(found: list[dict[str, Any]]) -> None:
    """Refused or as before; another bundle only where somebody made one, hashes and all, of more than graphs and weights."""
    assert [entry for entry in found if entry["verdict"].startswith("WRONG")] == []
    for entry in found:
        if entry["verdict"] == "another bundle":
            assert entry["sealed"], entry
            assert not entry["computes"], entry


def test_a_sample_of_mutants_is_refused_or_answers_as_before() -> None:
    found = outcomes(MANY, 100)
    hold(found)
    verdicts = Counter(entry["verdict"].split()[0] for entry in found)
    assert verdicts["refused"] > verdicts["as"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MANY, AT_A_TIME))
def test_thousands_of_mutants_are_refused_or_answer_as_before(first: int) -> None:
    hold(outcomes(first, AT_A_TIME))


def test_a_mutant_is_made_by_its_seed_alone(tmp_path: Path) -> None:
    """So that what fails can be looked at: ``python tests/mutants.py SEED 1``."""
    made = []
    for name in ("one", "two"):
        folder = Path(shutil.copytree(mutants.FROZEN / "recommender", tmp_path / name))
        mutate(folder, "fp32", 17)
        made.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    original = mutants.FROZEN / "recommender"
    assert made[0] != {path.relative_to(original): path.read_bytes() for path in original.rglob("*") if path.is_file()}
