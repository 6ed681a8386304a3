"""The addresses of the service, asked on loopback: answers equal to ``recommend``, and an error for everything else."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calls import Gate
from genrec_runtime import Recommender
from serving import Client, Running, metric, running, until
from tiny import ITEMS, Tiny

HISTORIES = [["item 03", "item 11"], [], ["item 36", "nobody's"], ["nobody's"]]


@pytest.fixture(scope="module")
def service(tiny: Tiny) -> Iterator[Running]:
    with running(tiny.path, timeout=30.0, max_rows=5, max_body=4000, slow=0.6) as service:
        yield service


# --- /v1/recommend


def rows_of(found: Any) -> list[tuple[Any, ...]]:
    return [(row["items"], row["scores"], row["status"]) for row in found]


def expected(served: Recommender, histories: Any, **options: Any) -> list[tuple[Any, ...]]:
    found = served.recommend(histories, **options)
    return list(zip(found.items, [scores.tolist() for scores in found.scores], found.status, strict=True))


@pytest.mark.parametrize("options", [{}, {"k": 3}, {"k": 20, "exclude_seen": False}, {"on_unknown": "drop"}])
def test_rows_are_answered_as_recommend_does(service: Running, served: Recommender, options: dict[str, Any]) -> None:
    reply = service.recommend(histories=HISTORIES, **options)
    assert reply.status == 200
    assert rows_of(reply.json["rows"]) == expected(served, HISTORIES, **options)
    assert [row["unknown_items"] for row in reply.json["rows"]] == [0, 0, 1, 1]
    assert reply.json["version"] == served.manifest.version


def test_one_user_is_answered_without_a_list(service: Running, served: Recommender) -> None:
    history, exclude = ["item 03", "item 11"], ["item 20", "item 21"]
    reply = service.recommend(history=history, exclude=exclude, k=4, titles=True)
    found = reply.json
    assert rows_of([found]) == expected(served, [history], exclude=[exclude], k=4)
    assert found["titles"] == [f"Title of {item}" for item in found["items"]]
    assert set(found) == {"items", "scores", "status", "unknown_items", "titles", "version"}


def test_candidates_are_ranked(service: Running, served: Recommender) -> None:
    reply = service.recommend(history=["item 03"], candidates=["item 09", "item 02", "unknown"], k=30)
    assert rows_of([reply.json]) == expected(served, [["item 03"]], candidates=[["item 09", "item 02"]], k=30)


def test_ids_may_be_texts_on_the_way_where_they_are_integers(numbers: Path) -> None:
    with running(numbers) as service:
        plain = service.recommend(history=[2**62, -7, 41], k=4).json
        texts = service.recommend(history=[str(2**62), "-7", "41"], k=4, text_ids=True).json
        assert texts["items"] == list(map(str, plain["items"]))
        assert {**texts, "items": plain["items"]} == plain
        assert plain["status"] == "model"
        unknown = service.recommend(history=["5", "many", "5.0", "²"], text_ids=True).json
        assert (unknown["unknown_items"], unknown["status"]) == (3, "model")
        assert service.recommend(history=["5"]).json["status"] == "all_unknown"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({}, "field", "give either history"),
        ({"history": [], "histories": []}, "field", "give either history"),
        ({"history": ["item 03"], "K": 3}, "field", "'K' is unknown; the fields are candidates, exclude"),
        ({"history": "item 03"}, "field", r"histories \(\['item 03'\]\) must be a list of lists"),
        ({"histories": ["item 03"]}, "field", r"histories \(\['item 03'\]\) must be a list of lists"),
        ({"histories": [[]], "exclude": [3]}, "field", r"exclude \(\[3\]\) must be a list of lists"),
        ({"history": [3.0]}, "id_type", "3.0"),
        ({"history": [None]}, "id_type", "None"),
        ({"history": [True]}, "id_type", "True"),
        ({"history": [["item 03"]]}, "id_type", "item 03"),
        ({"history": [], "k": 0}, "k", r"k \(0\)"),
        ({"history": [], "k": "3"}, "k", r"k \('3'\)"),
        ({"history": [], "k": 21}, "k", "above this bundle's 20"),
        ({"history": [], "k": 2**70}, "k", "above this bundle's 20"),
        ({"history": [], "exclude_seen": "no"}, "field", r"exclude_seen \('no'\) must be true or false"),
        ({"history": [], "titles": 1}, "field", r"titles \(1\) must be true or false"),
        ({"history": [], "on_unknown": 3}, "on_unknown", r"on_unknown \(3\)"),
        ({"history": ["nobody's"], "on_unknown": "error"}, "unknown_item", "nobody's"),
        ({"histories": [[], []], "exclude": [[]]}, "row_count", "exclude has 1 rows for 2 histories"),
        ({"histories": [[], []], "candidates": [[]]}, "row_count", "candidates has 1 rows for 2 histories"),
        ({"history": [], "user": "u"}, "unsupported", "this model takes no users"),
        ({"history": [], "timestamps": [3]}, "unsupported", "this model takes no timestamps"),
        ({"history": [], "request_time": 3}, "unsupported", "this model takes no request_time"),
        ({"history": [], "timeout_ms": 0}, "field", r"timeout_ms \(0\)"),
        ({"history": [], "timeout_ms": "1"}, "field", r"timeout_ms \('1'\)"),
        ({"history": [], "timeout_ms": True}, "field", r"timeout_ms \(True\)"),
    ],
)
def test_fault_100_a_bad_request_is_refused_with_its_field(
    service: Running, body: dict[str, Any], code: str, said: str
) -> None:
    reply = service.ask("POST", "/v1/recommend", body)
    assert (reply.status, reply.json["code"]) == (400, code), reply.body
    assert re.search(said, reply.json["error"]), reply.json["error"]
    assert "connection" not in reply.headers


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="fault_105 nothing"),
        pytest.param(b"{", id="fault_105 cut"),
        pytest.param(b"[]", id="fault_105 a list"),
        pytest.param(b"null", id="fault_105 null"),
        pytest.param(b"\xff", id="fault_105 no UTF-8"),
        pytest.param(b'{"history": [NaN]}', id="fault_105 NaN"),
        pytest.param(b'{"history": [], "history": []}', id="fault_105 a key twice"),
        pytest.param(b"[" * 3000, id="fault_105 bottomless"),
    ],
)
def test_what_is_no_json_object_is_refused(service: Running, body: bytes) -> None:
    reply = service.ask("POST", "/v1/recommend", body)
    assert (reply.status, reply.json["code"]) == (400, "json")


@pytest.mark.parametrize(("digits", "status"), [(3900, 200), (4400, 400)])
def test_fault_105_a_number_of_thousands_of_digits_harms_nobody(tiny: Tiny, digits: int, status: int) -> None:
    """Python reads 4,300 digits; such a number is an id that nobody has."""
    with running(tiny.path) as service:
        reply = service.ask("POST", "/v1/recommend", b'{"history": [' + b"9" * digits + b"]}")
        assert reply.status == status


def test_more_rows_than_a_request_may_have_are_refused(service: Running) -> None:
    reply = service.recommend(histories=[[]] * 6)
    assert (reply.status, reply.json["code"]) == (413, "too_large")
    assert "6 rows, 5 are taken at most" in reply.json["error"]


# --- limits


def test_fault_105_a_large_body_is_refused_by_its_stated_size_and_by_what_comes(service: Running) -> None:
    for size in (4001, 8 * 4000):  # read to its end, so that the sender comes to see the answer
        assert service.ask("POST", "/v1/recommend", b" " * size).status == 413
    reply = raw(service.port, b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in reply.lower()
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply = raw(service.port, head + 33 * chunk)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in reply


def test_fault_105_a_compressed_body_is_refused_unread(service: Running) -> None:
    reply = service.ask("POST", "/v1/recommend", b"\x1f\x8b", Content_Encoding="gzip")
    assert (reply.status, reply.json["code"]) == (415, "encoding")
    assert reply.headers["connection"] == "close"


def test_fault_105_a_body_that_comes_slowly_is_given_up(service: Running) -> None:
    reply = raw(service.port, b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"slow_body" in reply


@pytest.mark.parametrize("sent", [b"", b"POST /v1/recommend HTTP/1.1\r\nHost:"], ids=["nothing", "half a header"])
def test_fault_105_a_connection_that_sends_no_request_is_closed(service: Running, sent: bytes) -> None:
    start = time.monotonic()
    assert raw(service.port, sent) == b""
    assert time.monotonic() - start >= 0.6


def test_fault_105_headers_without_end_are_refused(service: Running) -> None:
    sent = b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 70_000
    start = time.monotonic()
    assert raw(service.port, sent).startswith(b"HTTP/1.1 400 ")
    assert time.monotonic() - start < 0.6  # not for being slow
    assert service.ask("GET", "/v2", X_A="a" * 30_000).status == 200


def test_a_connection_that_is_used_again_and_again_stays(service: Running) -> None:
    client = Client(service.port)
    sockets = set()
    for _ in range(8):
        assert client.ask("GET", "/v2").status == 200
        sockets.add(client._connection.sock)
        time.sleep(0.3)  # longer in all than a silent one may be
    assert len(sockets) == 1
    client.close()


def raw(port: int, sent: bytes) -> bytes:
    """What comes back for some bytes, until the service ends the connection."""
    parts = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)


def test_more_connections_than_there_may_be_are_refused(tiny: Tiny) -> None:
    with running(tiny.path, max_connections=2) as service:
        clients = [Client(service.port) for _ in range(3)]
        assert [client.ask("GET", "/v2").status for client in clients] == [200, 200, 503]
        for client in clients:
            client.close()
        until(lambda: service.ask("GET", "/v2").status == 200)


def test_fault_96_a_client_that_leaves_within_its_body_is_counted_as_gone(tiny: Tiny) -> None:
    with running(tiny.path) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as leaving:
            leaving.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
        until(lambda: 'code="499",endpoint="recommend"' in service.ask("GET", "/metrics").body.decode())


# --- addresses


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/recommend/", 404, "not_found"),
        ("GET", "/v1/recommend", 405, "method_not_allowed"),
        ("GET", "/v2/models/sasrec/infer", 405, "method_not_allowed"),
        ("POST", "/v2/models/other/infer", 404, "no_such_model"),
        ("GET", "/v2/models/other", 404, "no_such_model"),
        ("GET", "/v2/models/other/ready", 404, "no_such_model"),
        ("GET", "/v2/models/sasrec/versions/1", 404, "no_such_version"),
        ("POST", "/v2/models/sasrec/versions/1/infer", 404, "no_such_version"),
    ],
)
def test_fault_107_what_is_not_there_is_404_and_a_wrong_method_405(
    service: Running, method: str, path: str, status: int, code: str
) -> None:
    reply = service.ask(method, path, b"{}")
    assert (reply.status, reply.json["code"]) == (status, code)
    if status == 405:
        assert reply.headers["allow"] == "POST"


def test_what_answers_get_answers_head_without_a_body(service: Running) -> None:
    reply = service.ask("HEAD", "/v2/models/sasrec")
    assert (reply.status, reply.body) == (200, b"")
    assert service.ask("POST", "/v2/models/sasrec").headers["allow"] == "GET, HEAD"
    assert service.ask("DELETE", "/v2").headers["allow"] == "GET, HEAD"


def test_requests_are_counted_by_what_was_asked(service: Running) -> None:
    def counted(endpoint: str, code: int) -> float:
        text = service.ask("GET", "/metrics").body.decode()
        name = f'genrec_requests_total{{code="{code}",endpoint="{endpoint}"}}'
        return metric(text, name) if name in text else 0

    asked = [("GET", "/v2/models/sasrec", "model", 200), ("PUT", "/v2/models/sasrec", "model", 405)]
    asked += [("GET", "/v2", "server", 200), ("PUT", "/v2", "server", 405), ("GET", "/nowhere", "none", 404)]
    for method, path, endpoint, code in asked:
        before = counted(endpoint, code)
        assert service.ask(method, path).status == code
        assert counted(endpoint, code) == before + 1


def test_health_is_told(service: Running) -> None:
    assert service.ask("GET", "/v2/health/live").json == {"live": True}
    assert service.ask("GET", "/v2/health/ready").json == {"ready": True, "state": "ready"}


def test_a_request_id_is_passed_through_or_made(service: Running) -> None:
    assert service.ask("GET", "/v2", X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"
    made = {
        service.ask("GET", "/v2", **headers).headers["x-request-id"]
        for headers in ({}, {}, {"X_Request_Id": "a" * 129})
    }
    assert len(made) == 3
    assert max(map(len, made)) < 40


def test_the_metrics_count_what_happened(tiny: Tiny) -> None:
    with running(tiny.path) as service:
        assert service.recommend(histories=HISTORIES, k=3).status == 200
        assert service.recommend(histories=[ITEMS], k=3).status == 200
        assert service.recommend(history=[3.5]).status == 400
        service.ask("GET", "/nothing")
        text = service.ask("GET", "/metrics").body.decode()
        wanted = {
            'genrec_requests_total{code="200",endpoint="recommend"}': 2,
            'genrec_requests_total{code="400",endpoint="recommend"}': 1,
            'genrec_requests_total{code="404",endpoint="none"}': 1,
            'genrec_refused_requests_total{code="id_type"}': 1,
            'genrec_rows_total{status="model"}': 3,
            'genrec_rows_total{status="cold_start"}': 1,
            'genrec_rows_total{status="all_unknown"}': 1,
            "genrec_history_items_total": 2 + 0 + 2 + 1 + 37,
            "genrec_unknown_items_total": 2,
            'genrec_result_items_bucket{le="0.0"}': 1,  # who has everything gets nothing
            'genrec_result_items_bucket{le="5.0"}': 5,
            "genrec_result_items_sum": 4 * 3,
            "genrec_batch_rows_sum": 5,
            "genrec_batch_rows_count": 2,
            "genrec_catalogue_items": 37,
            "genrec_available_items": 37,
            "genrec_queue_rows": 0,
            "genrec_max_queue_rows": 1024,
            "genrec_ready": 1,
            'genrec_reloads_total{result="refused"}': 0,
            "genrec_reload_refused": 0,
            "genrec_availability_refused": 0,
        }
        assert {name: metric(text, name) for name in wanted} == wanted
        recommended = {
            item for row in service.recommend(histories=HISTORIES, k=3).json["rows"] for item in row["items"]
        }
        assert service.metric("genrec_distinct_items") == len(recommended)
        digest = service.service.recommender.digest
        info = f'digest="{digest}",model="sasrec",providers="CPUExecutionProvider",version="{tiny.path.name}"'
        assert metric(text, f"genrec_bundle_info{{{info}}}") == 1


def test_before_the_bundle_is_loaded_it_lives_and_is_not_ready(tiny: Tiny) -> None:
    with running(tiny.path, starts=False) as service:
        assert service.ask("GET", "/v2/health/live").status == 200
        for method, path in [("GET", "/v2/health/ready"), ("POST", "/v1/recommend"), ("GET", "/v2/models/sasrec")]:
            reply = service.ask(method, path, {"history": []})
            assert reply.status == 503
        assert (reply.headers["retry-after"], reply.json["code"]) == ("1", "not_ready")
        service.service.start()
        assert service.ask("GET", "/v2/health/ready").status == 200


# --- overload, deadlines, clients that leave


@pytest.fixture
def gated(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Running, Gate]]:
    """A service whose runs wait for a gate; its queue holds 2 rows."""
    with running(tiny.path, max_queue=2, max_rows=2, max_batch=1, timeout=30.0) as service:
        gate = Gate(service.service.recommender, monkeypatch)
        yield service, gate
        gate.open.set()


def in_background(service: Running, count: int, **fields: Any) -> tuple[list[threading.Thread], list[Any]]:
    """Some callers at once, and where their replies come."""
    replies: list[Any] = []
    threads = [threading.Thread(target=lambda: replies.append(service.recommend(**fields))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, replies


def test_fault_99_a_full_queue_is_429_with_when_to_come_back(gated: tuple[Running, Gate]) -> None:
    service, gate = gated
    first, answered = in_background(service, 1, history=["item 03"])
    assert gate.entered.wait(30)
    others, more = in_background(service, 2, history=["item 04"])
    until(lambda: service.metric("genrec_queue_rows") == 2)
    reply = service.recommend(history=["item 05"])
    assert (reply.status, reply.json["code"]) == (429, "overloaded")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert service.ask("GET", "/v2/health/ready").status == 200
    gate.open.set()
    for thread in first + others:
        thread.join(30)
    assert [reply.status for reply in answered + more] == [200, 200, 200]


def test_fault_98_after_its_deadline_a_request_gets_504_and_is_not_computed(gated: tuple[Running, Gate]) -> None:
    service, gate = gated
    first, answered = in_background(service, 1, history=["item 03"])
    assert gate.entered.wait(30)
    reply = service.recommend(history=["item 04"], timeout_ms=80)
    assert (reply.status, reply.json["code"]) == (504, "deadline_exceeded")
    assert service.metric("genrec_queue_rows") == 0
    gate.open.set()
    first[0].join(30)
    assert answered[0].status == 200
    assert gate.runs == 1


def test_fault_96_a_client_that_leaves_gives_its_place_back(gated: tuple[Running, Gate]) -> None:
    service, gate = gated
    first, answered = in_background(service, 1, history=["item 03"])
    assert gate.entered.wait(30)
    body = json.dumps({"history": ["item 04"]}).encode()
    leaving = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    leaving.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: service.metric("genrec_queue_rows") == 1)
    leaving.close()
    until(lambda: service.metric("genrec_queue_rows") == 0)
    gate.open.set()
    first[0].join(30)
    assert answered[0].status == 200
    assert gate.runs == 1
    assert service.metric('genrec_requests_total{code="499",endpoint="recommend"}') == 1
