"""The web server: what it takes for the head of a request."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from config.http_protocol import HEAD_BYTES_MAX, LimitedHttpProtocol
from config.serving import listen

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LAST = HEAD + b"Connection: close\r\n"


async def greet(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(
            greet, http=LimitedHttpProtocol, lifespan="off", log_config=None, access_log=False
        )
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def answers(address: tuple[str, int], *pieces: bytes) -> list[str]:
    """Send the pieces over one connection and return the status lines until it ends."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while data := connection.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    return re.findall(r"HTTP/1\.1 [^\r]*", received.decode("latin-1"))


def test_a_head_below_the_limit_is_served(address: tuple[str, int]) -> None:
    value = b"x" * (HEAD_BYTES_MAX - 200)

    assert answers(address, LAST + b"X: " + value + b"\r\n\r\n") == ["HTTP/1.1 200 OK"]


def test_each_request_of_a_connection_has_a_head_of_its_own(address: tuple[str, int]) -> None:
    request = HEAD + b"X: " + b"x" * (HEAD_BYTES_MAX // 2) + b"\r\n\r\n"

    assert answers(address, request * 4 + LAST + b"\r\n") == ["HTTP/1.1 200 OK"] * 5


def test_a_body_is_no_part_of_the_head(address: tuple[str, int]) -> None:
    body = b"x" * (4 * HEAD_BYTES_MAX)
    length = b"Content-Length: %d\r\n\r\n" % len(body)

    assert answers(address, HEAD + length, body, LAST + length + body) == ["HTTP/1.1 200 OK"] * 2


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * (HEAD_BYTES_MAX // 6) + b"\r\n",
        b"GET /" + b"x" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["one long header", "many headers", "a long path"],
)
def test_a_larger_head_is_refused(address: tuple[str, int], head: bytes) -> None:
    assert answers(address, head) == ["HTTP/1.1 431 Request Header Fields Too Large"]


def test_a_header_without_an_end_is_refused_long_before_it_fills_the_memory(
    address: tuple[str, int],
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HEAD + b"X: ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            connection.sendall(b"x" * 32 * 1024 * 1024)
