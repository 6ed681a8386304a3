"""The README is true: its Python blocks and its commands run as they stand, in one folder, in their order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.data import make_shop
from genrec.training import DataOptions
from my_models import RightNet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, flags=re.DOTALL)
RUN_BY_CI = ("make ", "pip ")  # .ci/run calls these from a clean clone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the README's reader has: events, titles, a trained net of their own."""
    import polars as pl
    import torch

    shop = make_shop(users=250, items=60)
    frame = shop.interactions.frame.with_columns(pl.col("time") // 1_000_000)  # seconds
    frame.write_csv(tmp_path / "events.csv")
    assert shop.data.titles is not None
    titles = {"item": [str(raw) for raw in shop.data.items.all()], "title": list(shop.data.titles)}
    pl.DataFrame(titles).write_csv(tmp_path / "items.csv")
    torch.save(RightNet().state_dict(), tmp_path / "right.pt")
    write_predictions(tmp_path / "events.csv", tmp_path / "theirs.csv")
    return tmp_path


def write_predictions(events: Path, out: Path) -> None:
    """What another code base recommends on the same split: to each user the first 20 items that it has not had."""
    import polars as pl

    split = DataOptions(source=str(events), k_core=5).load()
    raw = split.data.items.all()
    rows = []
    for user, history in zip(split.test.users.tolist(), split.histories(split.test).rows(), strict=True):
        new = [number for number in range(1, len(raw) + 1) if number not in set(history.tolist())]
        rows += [(str(split.data.user_ids[user]), raw[number - 1], rank) for rank, number in enumerate(new[:20], 1)]
    pl.DataFrame(rows, schema=["user", "item", "rank"], orient="row").write_csv(out)


def test_every_block_of_the_readme_runs(folder: Path) -> None:
    places = [str(ROOT / "tests"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "100"}
    for language, block in BLOCKS:
        for command in [[sys.executable, "-c", block]] if language == "python" else list(commands(block)):
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def commands(block: str) -> list[list[str]]:
    """The shell lines of a block but those that continuous integration runs itself, by this interpreter's own commands."""
    lines = [line for line in block.splitlines() if line and not line.startswith(("#", *RUN_BY_CI))]
    found = []
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        module = {"genrec": "genrec.cli", "genrec-export": "genrec_export.cli", "genrec-runtime": "genrec_runtime.cli"}[
            name
        ]
        found.append([sys.executable, "-c", f"from {module} import main; main()", *arguments])
    return found


def test_the_doors_are_short() -> None:
    for _, block in BLOCKS[:4]:
        assert len(block.splitlines()) <= 8
    own = next(block for language, block in BLOCKS if language == "python" and "load_state_dict" in block)
    assert len([line for line in own.splitlines() if line.strip()]) <= 15


def test_the_own_model_imports_nothing_of_genrec() -> None:
    source = (ROOT / "tests" / "my_models.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) genrec", source, flags=re.MULTILINE)
    assert type(RightNet().encoder).__module__.startswith("torch.")
