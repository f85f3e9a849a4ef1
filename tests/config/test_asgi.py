"""The handler of requests: how much of a body it reads, and a client that has gone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from django.http import StreamingHttpResponse

from config import asgi
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


class Parts:
    """A stream that says something at once, and then waits to be closed."""

    def __init__(self, *parts: bytes, ends: bool = False) -> None:
        self.parts = list(parts)
        self.ends = ends
        self.closed = False

    async def iterate(self) -> AsyncIterator[bytes]:
        try:
            for part in self.parts:
                yield part
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True


class Connection:
    """A client's side of the connection."""

    def __init__(self, *, takes: bool = True) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.gone = asyncio.Event()
        self.takes = takes

    async def receive(self) -> Mapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)
        if not self.takes and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def bodies(self) -> list[tuple[bytes, bool]]:
        return [(each["body"], each["more_body"]) for each in self.sent[1:]]


async def streamed(
    parts: Parts,
    connection: Connection,
    then: Callable[[], None],
    content_type: str = "text/event-stream",
    **options: Any,
) -> None:
    response = StreamingHttpResponse(parts.iterate(), content_type=content_type)
    streaming = asyncio.create_task(
        asgi._stream(response, connection.receive, connection.send, **options)
    )
    await asyncio.sleep(0.02)
    then()
    async with asyncio.timeout(5):
        await streaming


def test_a_stream_is_sent_as_it_comes_and_closed_at_its_end() -> None:
    async def story() -> None:
        parts, connection = Parts(b"one", b"two", ends=True), Connection()
        await streamed(parts, connection, lambda: None, headers_only=False)
        assert connection.bodies == [(b"one", True), (b"two", True), (b"", False)]
        assert parts.closed

    asyncio.run(story())


def test_a_client_that_goes_closes_its_stream() -> None:
    async def story() -> None:
        parts, connection = Parts(b"one"), Connection()
        await streamed(parts, connection, connection.gone.set, headers_only=False)
        assert connection.bodies == [(b"one", True)]
        assert parts.closed

    asyncio.run(story())


def test_a_server_that_stops_ends_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_stopping", threading.Event())

    async def story() -> None:
        parts, connection = Parts(b"one"), Connection()
        await streamed(parts, connection, asgi.cut_streams, headers_only=False)
        assert connection.bodies == [(b"one", True), (b"", False)]
        assert parts.closed
        late = Connection()
        await streamed(Parts(b"one"), late, lambda: None, headers_only=False)
        assert late.bodies == [(b"", False)]

    asyncio.run(story())


def test_what_a_stop_cuts_off_does_not_look_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_stopping", threading.Event())

    async def story() -> None:
        parts, connection = Parts(b'{"events":['), Connection()
        await streamed(parts, connection, asgi.cut_streams, "application/json", headers_only=False)
        assert connection.bodies == [(b'{"events":[', True)]
        assert parts.closed

    asyncio.run(story())


def test_a_server_that_stops_does_not_wait_for_who_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi, "_stopping", threading.Event())
    monkeypatch.setattr(asgi, "CUT_SECONDS_MAX", 0.05)

    async def story() -> None:
        parts, connection = Parts(b"one"), Connection(takes=False)
        await streamed(parts, connection, asgi.cut_streams, headers_only=False)
        assert parts.closed

    asyncio.run(story())


def test_only_the_head_of_a_stream_goes_to_who_asks_for_no_more() -> None:
    async def story() -> None:
        parts, connection = Parts(b"one"), Connection()
        await streamed(parts, connection, lambda: None, headers_only=True)
        assert connection.bodies == [(b"", False)]

    asyncio.run(story())


def test_what_is_remembered_of_routes_has_an_end() -> None:
    """An address that is none is looked for again each time, as is one with a parameter."""
    requests = Requests()

    async def ask(path: str) -> int:
        sent: list[Mapping[str, Any]] = []

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request"}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        await requests(scope(path, "GET"), receive, send)
        status: int = sent[0]["status"]
        return status

    for _ in range(2):
        assert asyncio.run(ask("/livez/")) == 200
        assert asyncio.run(ask("/livez/x")) == 404
        assert asyncio.run(ask("/problems/not-found/")) == 200
        assert asyncio.run(ask("/problems/nowhere/")) == 404
    assert set(requests._fixed_routes) == {"/livez/"}
