"""The pages: they need nothing from outside, may do nothing that they do not say, and the description fits the code."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.histories import Catalogue, ItemIds
from genrec_runtime.serve import friendly, openapi, pages
from serving import Running, running
from tiny import Tiny

ADDRESSES = {"src", "href", "action", "data", "poster", "srcset", "formaction", "background"}


@pytest.fixture(scope="module")
def service(tiny: Tiny) -> Iterator[Running]:
    with running(tiny.path) as service:
        yield service


class Addresses(HTMLParser):
    """Every address that a page's tags name, and its handlers in attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ADDRESSES]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_names_nothing_outside_and_runs_only_what_it_says(service: Running, path: str) -> None:
    reply = service.ask("GET", path)
    page = reply.body.decode()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    seen = Addresses(page)
    assert all(re.fullmatch(r"/[a-z.]*", address) for address in seen.found), seen.found
    assert seen.handlers == []
    assert "//" not in re.sub(r"(?m) // .*$", "", page)
    rules = dict(rule.split(" ", 1) for rule in reply.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for tag in ("script", "style"):
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        ]
        assert rules[f"{tag}-src"] == (" ".join(hashes) or "'none'")


def test_the_pages_script_never_writes_markup() -> None:
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert dangerous not in pages.page()


def test_what_a_description_says_is_escaped() -> None:
    schema = {"properties": {"<b>": {"description": "<i>"}}, "example": {"a": "</pre>"}}
    body = {"content": {"application/json": {"schema": {"oneOf": [schema]}}}}
    operation = {"summary": "<s>", "requestBody": body, "responses": {"200": {"description": "<u>"}}}
    page = pages.docs(
        {"info": {"title": "<t>", "version": "<v>", "description": "<d>"}, "paths": {"/<p>": {"post": operation}}}
    )
    for tag in ("<b>", "<i>", "<s>", "<u>", "<t>", "<v>", "<d>", "<p>" * 2, "/<p>"):
        assert tag not in page


def test_the_pages_can_be_switched_off(tiny: Tiny) -> None:
    with running(tiny.path, page=False) as service:
        assert service.ask("GET", "/").status == 404
        assert service.ask("GET", "/v1/items?query=item").status == 404
        assert service.ask("GET", "/docs").status == 200


# --- the search


TITLES = ("Trail shoe", "trail map", "Straße", "Tent")
CATALOGUE = Catalogue(ItemIds([10, 20, 30, 40]), np.array([4, 3, 2, 1]), TITLES)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("TRAIL", ["20", "10"]),
        ("strasse", ["30"]),
        (" tent ", ["40"]),
        ("0", ["40", "30", "20", "10"]),
        ("20", ["20"]),
        ("", ["40", "30", "20", "10"]),
        ("nothing", []),
    ],
)
def test_items_are_found_by_title_or_id_the_popular_first(query: str, found: list[str]) -> None:
    assert [item["id"] for item in pages.search(CATALOGUE, query)] == found


def test_items_are_found_by_their_ids_where_there_are_no_titles() -> None:
    catalogue = Catalogue(ItemIds(["b", "a"]), np.array([2, 1]))
    assert pages.search(catalogue, "A") == [{"id": "a", "title": "a"}]


def test_a_search_finds_a_page_at_most(service: Running) -> None:
    found = service.ask("GET", "/v1/items?query=Title%20of").json["items"]
    assert len(found) == pages.MOST
    assert (
        found[0] == {"id": "item 36", "title": "Title of item 36"} or found[0]["title"] == f"Title of {found[0]['id']}"
    )


# --- the description


def test_the_description_names_every_field_that_is_read() -> None:
    assert set(openapi.ONE["properties"]) == {*friendly.ONE, *friendly.OPTIONS, "text_ids", "timeout_ms"}
    assert set(openapi.MANY["properties"]) == {*friendly.MANY, *friendly.OPTIONS, "text_ids", "timeout_ms"}


def test_the_description_fits_what_is_answered(service: Running) -> None:
    found: Any = service.ask("GET", "/openapi.json").json
    assert found == openapi.DESCRIPTION
    for example in (openapi.ONE["example"], openapi.MANY["example"]):
        assert service.recommend(**example).status == 200
    one = service.recommend(history=[], titles=True).json
    assert set(one) == set(openapi.ANSWER["properties"])
    many = service.recommend(histories=[[]]).json
    assert set(many) == set(openapi.ANSWERS["properties"])
    assert set(service.recommend(history=[3.5]).json) == set(openapi.ERROR["properties"])
    for path, methods in found["paths"].items():
        status = service.ask(next(iter(methods)).upper(), path.replace("{name}", "sasrec"), b"{}").status
        assert status in (200, 400), path


def test_every_file_of_the_package_is_there() -> None:
    folder = Path(pages.__file__).parent
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == {".py", ".html"}
