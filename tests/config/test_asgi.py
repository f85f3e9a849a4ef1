"""The handler of requests: how much of a body it reads, and a client that has gone."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from config.asgi import Requests

LIMIT = 128 * 1024
PIECE = 16 * 1024


def scope(path: str, method: str = "POST") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }


def exchange(path: str, *messages: dict[str, Any], method: str = "POST") -> tuple[list[Any], int]:
    """Return what is sent in answer to the messages, and how many of them were read."""
    sent: list[Mapping[str, Any]] = []
    left = list(messages)

    async def receive() -> Mapping[str, Any]:
        return left.pop(0)

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Requests()(scope(path, method), receive, send))
    return sent, len(messages) - len(left)


def piece(*, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b" " * PIECE, "more_body": more}


def test_a_request_without_a_body_is_answered() -> None:
    sent, _ = exchange("/livez/", {"type": "http.request"}, method="GET")

    assert sent[0]["status"] == 200
    assert sent[1]["body"] == b'{"status":"alive"}'


def test_a_body_in_chunks_is_read_to_its_limit_and_no_further() -> None:
    sent, read = exchange("/send/", *[piece(more=True) for _ in range(1000)])

    assert sent[0]["status"] == 413
    assert read == LIMIT // PIECE + 1


def test_a_body_in_chunks_at_its_limit_is_not_too_large() -> None:
    pieces = [piece(more=number < LIMIT // PIECE) for number in range(1, LIMIT // PIECE + 1)]

    sent, _ = exchange("/send/", *pieces)

    assert sent[0]["status"] == 401


def test_a_client_that_goes_before_its_body_ends_is_not_answered() -> None:
    assert exchange("/send/", piece(more=True), {"type": "http.disconnect"}) == ([], 2)


def test_a_query_that_is_not_utf8_is_answered_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = {**scope("/livez/", "GET"), "query_string": b"a=\xff&b=c"}
    monkeypatch.setattr("tests.config.test_asgi.scope", lambda *_: raw)

    sent, _ = exchange("/livez/", {"type": "http.request"}, method="GET")

    assert sent[0]["status"] == 200
    assert b"x-request-id" in {name.lower() for name, _ in sent[0]["headers"]}


def test_a_trailer_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {**scope("/token/", "GET")}
    monkeypatch.setattr("tests.config.test_asgi.scope", lambda *_: plain)
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        # As uvicorn does with the trailers of a body in chunks.
        plain["headers"].append((b"host", b"elsewhere.example"))
        return {"type": "http.request"}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Requests()(plain, receive, send))

    assert sent[0]["status"] == 401
