"""docs/metrics.md is true: its examples run, and it has each public name and each metric, and no others."""

import doctest
import re
from pathlib import Path

import genrec.metrics
from genrec.metrics import ItemCounts, evaluate

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
HEADINGS = re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)


def test_the_examples_run() -> None:
    examples = doctest.DocTestParser().get_doctest("\n".join(BLOCKS), {}, "docs/metrics.md", "docs/metrics.md", 0)
    complaints: list[str] = []
    found = doctest.DocTestRunner(verbose=False).run(examples, out=complaints.append)
    assert found.attempted >= len(BLOCKS) > 10
    assert found.failed == 0, "".join(complaints)


def test_every_metric_has_its_heading_and_every_heading_its_metric() -> None:
    counts = ItemCounts([7], 2)
    names = {*evaluate([], [], ks=[7]), *counts.compute(popularity=[0, 1, 1])}
    assert {heading for heading in HEADINGS if "@" in heading} == {name.replace("@7", "@k") for name in names}


def test_every_metric_has_an_example() -> None:
    sections = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    for section in sections:
        name = section.partition("\n")[0]
        if "@" in name or name in ("diversity", "personalization", "intra-list diversity"):
            assert ">>> " in section, name
            assert section.splitlines()[2].startswith("`"), f"{name} begins with no formula"


def test_every_public_name_occurs() -> None:
    code = set(re.findall(r"\w+", " ".join([*BLOCKS, *re.findall(r"`([^`\n]+)`", PAGE)])))
    assert [name for name in genrec.metrics.__all__ if name not in code] == []


def test_every_name_that_an_example_imports_is_public() -> None:
    imported = re.findall(r">>> from genrec\.metrics import (.+)", PAGE)
    assert {name for line in imported for name in line.split(", ")} <= set(genrec.metrics.__all__)


def test_every_link_leads_to_a_heading() -> None:
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert links
    assert set(links) <= anchors
