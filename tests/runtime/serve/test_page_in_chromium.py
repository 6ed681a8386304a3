"""The page at ``/`` in a browser: typed into, clicked, on a narrow and on a dark screen; skipped where none is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
import timed
from chromium import Browser
from genrec_runtime import Recommender
from serving import Running, running
from tiny import Tiny

NARROW = 360  # pixels


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests, each of which opens a page in it."""
    program = chromium.find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is installed")
    with chromium.browser(program, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def service(tiny: Tiny) -> Iterator[Running]:
    with running(tiny.path) as service:
        yield service


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Browser]:
    """The page, as it is after it was opened; in the end nothing was complained of, and nothing outside asked for."""
    visit(browser, service)
    yield browser
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith(home(service))] == []


def home(service: Running) -> str:
    return f"http://127.0.0.1:{service.port}/"


def visit(browser: Browser, service: Running) -> None:
    """Opens the page and waits for its first answer, good or bad."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(home(service))
    browser.until(lambda: browser.texts("#recommended td") or browser.text("#error"))


def choose(page: Browser, item: str) -> None:
    """Types, and clicks the first that is found; waits until the history has it."""
    before = len(page.texts("#history li"))
    page.click("#query")
    page.write(item)
    page.until(lambda: page.texts("#found li")[:1] == [f"Title of {item} {item}"])
    page.click("#found button")
    page.until(lambda: len(page.texts("#history li")) == before + 1)


def recommended(page: Browser) -> list[str]:
    return page.texts("#recommended tr td:nth-child(2)")


def test_what_is_chosen_by_clicks_comes_to_what_recommend_answers(page: Browser, served: Recommender) -> None:
    chosen = ["item 07", "item 21", "item 07"]
    for item in chosen:
        choose(page, item)
    wanted = served.recommend([chosen])
    titles = [f"Title of {item} {item}" for item in wanted.items[0]]
    page.until(lambda: recommended(page) == titles)
    assert page.texts("#recommended td:last-child") == [f"{score:.3f}" for score in wanted.scores[0]]
    assert page.texts("#history .name") == [f"Title of {item} {item}" for item in chosen]
    assert page.text("#status").startswith("by the model, version ")

    page.click("#history li:nth-child(2) button")
    fewer = served.recommend([["item 07", "item 07"]]).items[0]
    page.until(lambda: recommended(page) == [f"Title of {item} {item}" for item in fewer])
    page.click("#clear")
    page.until(lambda: page.text("#status").startswith("the most popular: there is no history"))
    assert page.texts("#history li") == []


def test_enter_chooses_what_was_typed_not_what_was_shown_before(page: Browser) -> None:
    page.until(lambda: len(page.texts("#found li")) == 8)
    page.click("#query")
    page.write("item 05")
    page.enter()
    page.until(lambda: page.texts("#history .name") == ["Title of item 05 item 05"])
    page.enter()  # nothing is typed: nothing is chosen
    page.write("no such")
    page.until(lambda: page.texts("#found li") == ["Nothing is called so."])
    page.enter()
    assert len(page.texts("#history li")) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_narrow_screen_nothing_sticks_out(page: Browser, tmp_path: Path, dark: bool) -> None:
    page.screen(NARROW, dark=dark)
    for item in ("item 01", "item 02", "item 03"):
        choose(page, item)
    page.value("document.querySelector('#history .name').textContent = 'longword'.repeat(20)")
    page.value("document.querySelector('#recommended .name').textContent = 'longword'.repeat(20)")
    assert page.value("document.documentElement.scrollWidth") == NARROW
    for selector in ("#query", "#clear", "#history li", "#recommended tr"):
        edge = f"document.querySelector('{selector}').getBoundingClientRect().right"
        assert page.value(edge) <= NARROW, selector
    ink, shade = page.value("getComputedStyle(document.body).color"), 255 if dark else 0
    assert ink == f"rgb({shade}, {shade}, {shade})"


def test_a_refusal_is_shown_until_the_next_answer_and_no_old_list_beside_it(browser: Browser, tiny: Tiny) -> None:
    with running(tiny.path, max_body=60) as service:  # a history of one item fits
        visit(browser, service)
        choose(browser, "item 07")
        choose(browser, "item 08")
        browser.until(lambda: "60 bytes" in browser.text("#error"))
        browser.until(lambda: browser.texts("#found li"))
        assert (recommended(browser), browser.text("#status")) == ([], "")
        browser.click("#clear")
        browser.until(lambda: len(recommended(browser)) == 10)
        assert browser.text("#error") == ""


def test_a_service_that_is_not_ready_or_gone_is_said(browser: Browser, tiny: Tiny) -> None:
    with running(tiny.path, starts=False) as service:
        visit(browser, service)
        assert browser.text("#error") == service.recommend(history=[]).json["error"]
    browser.click("#query")
    browser.write("x")
    browser.until(lambda: "The service does not answer." in browser.text("#error"))


def test_a_model_that_reads_times_is_told_when_items_were_chosen(browser: Browser, tmp_path: Path) -> None:
    with running(timed.write_timed(tmp_path / "bundle")) as service:
        visit(browser, service)
        for number in (3, 5):
            browser.click("#query")
            browser.write(f"item {number}")
            browser.enter()
            browser.until(lambda number=number: f"item {number}" in " ".join(browser.texts("#history li")))
        browser.until(lambda: browser.text("#status").startswith("by the model"))
        assert "It reads times" in browser.text("#status")
        assert len(recommended(browser)) == 4
    assert browser.complaints == []
