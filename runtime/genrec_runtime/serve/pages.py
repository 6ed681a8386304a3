"""Two pages without anything from outside: one to try the service, one that describes it."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from html import escape
from importlib import resources
from typing import Any

from starlette.responses import HTMLResponse

from genrec.histories import Catalogue

MOST = 20  # items that a search finds


def html(page: str) -> HTMLResponse:
    """A page, allowed to run and to look as it says itself, and nothing else."""
    return HTMLResponse(page, headers={"Content-Security-Policy": _policy(page), "X-Content-Type-Options": "nosniff"})


@functools.cache
def page() -> str:
    """The page at ``/``."""
    return resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")


def docs(description: dict[str, Any]) -> str:
    """A description after OpenAPI as a page.

    >>> "<h2>" in docs({"info": {"title": "t", "version": "1", "description": "d"}, "paths": {"/a": {}}})
    False
    """
    info = description["info"]
    parts = [
        f"<p>{escape(info['description'])} Version {escape(info['version'])}; the same for machines: "
        "<a href='/openapi.json'>openapi.json</a>.</p>"
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>")
            content = operation.get("requestBody", {}).get("content", {})
            parts += [_schema(schema) for body in content.values() for schema in body["schema"]["oneOf"]]
            rows = [
                f"<tr><td>{status}<td>{escape(says['description'])}" for status, says in operation["responses"].items()
            ]
            parts.append(f"<table><tr><th>status<th>meaning{''.join(rows)}</table>")
    return _frame(info["title"], "\n".join(parts))


def search(catalogue: Catalogue, query: str) -> list[dict[str, str]]:
    """The first items whose title or id holds a text, whatever its case; ids as texts.

    Args:
        catalogue: of the bundle.
        query: the text; "" finds the most popular.
    """
    wanted, order = query.casefold().strip(), catalogue.cold_start.tolist()
    raw, found = catalogue.items.all(), []
    for index in order:
        item = str(raw[index - 1])
        title = catalogue.titles[index - 1] if catalogue.titles else item
        if wanted in title.casefold() or wanted in item.casefold():
            found.append({"id": item, "title": title})
            if len(found) == MOST:
                break
    return found


def _schema(schema: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code><td>{escape(field.get('description', ''))}"
        for name, field in schema["properties"].items()
    ]
    example = escape(json.dumps(schema["example"]))
    return f"<pre>{example}</pre><table><tr><th>field<th>meaning{''.join(rows)}</table>"


def _frame(title: str, body: str) -> str:
    style = re.search(r"<style>.*?</style>", page(), re.DOTALL)
    assert style is not None
    head = (
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>{style[0]}'
    )
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{head}<main>{body}</main>'


@functools.lru_cache(8)
def _policy(page: str) -> str:
    """A Content-Security-Policy that names the page's own script and style by their hashes."""
    rules = [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        hashes = [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        ]
        rules.append(" ".join([rule, *(f"'sha256-{value}'" for value in hashes or [])] if hashes else [rule, "'none'"]))
    return "; ".join(rules)
