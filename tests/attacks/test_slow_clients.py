"""Clients that take their time: with a head, with a body, with an answer, or with anything at all.

The same server as always, on real sockets, with shorter patience.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from config import http_protocol
from config.serving import listen
from tests.attacks.raw import Answer, answers_on, connect

PATIENCE_SECONDS = 0.5
LARGE_BYTES = 64 * 1024 * 1024
SIZES = {"/large": LARGE_BYTES // 4, "/larger": LARGE_BYTES}
HEAD = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once to /early, late to /late, with much to /large and /larger, without an end to
    /endless, and else behind the body.
    """
    path = scope["path"]
    if path == "/late":
        await asyncio.sleep(3 * PATIENCE_SECONDS)
    if path != "/early":
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            return
    if path == "/endless":
        gone = asyncio.create_task(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await asyncio.sleep(0)
        return
    body = bytes(SIZES.get(path, 2))
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEAD_SECONDS_MAX", "BODY_SECONDS_MAX", "UNSENT_SECONDS_MAX"):
            patch.setattr(http_protocol, name, PATIENCE_SECONDS)
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(
            uvicorn.Config(
                serve,
                http=http_protocol.LimitedHttpProtocol,
                lifespan="off",
                log_config=None,
                access_log=False,
                port=listener.getsockname()[1],
            )
        )
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        yield server
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def connection(server: uvicorn.Server) -> Iterator[socket.socket]:
    with connect(f"http://127.0.0.1:{server.config.port}") as connection:
        yield connection


def until_the_end(connection: socket.socket) -> tuple[list[Answer], float]:
    """What comes until the server hangs up, and after how many seconds it does."""
    began = time.monotonic()
    return answers_on(connection), time.monotonic() - began


def ask(connection: socket.socket, path: bytes = b"", body: bytes = b"x" * 20) -> None:
    """Send a request and take its answer."""
    connection.sendall(HEAD % path + b"\r\n" + body)
    take_answer(connection)


def take_answer(connection: socket.socket) -> None:
    received = b""
    while not received.endswith(bytes(2)):
        data = connection.recv(65536)
        assert data, received
        received += data
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def drip(connection: socket.socket, content: bytes) -> None:
    """Send a byte at a time, each well within anybody's patience."""
    with suppress(ConnectionResetError, BrokenPipeError):
        for byte in content:
            connection.sendall(bytes([byte]))
            time.sleep(PATIENCE_SECONDS / 8)


def test_a_connection_on_which_nothing_comes_is_closed(connection: socket.socket) -> None:
    answers, seconds = until_the_end(connection)
    assert answers == []
    assert 0.5 * PATIENCE_SECONDS < seconds < 10


def test_a_line_break_begins_no_request_and_buys_no_time(connection: socket.socket) -> None:
    began = time.monotonic()
    connection.sendall(b"\r\n")
    drip(connection, b"\r\n" * 50)
    assert answers_on(connection) == []
    assert time.monotonic() - began < 4 * PATIENCE_SECONDS


def test_a_line_break_behind_an_answer_is_not_waited_behind_for_ever(
    connection: socket.socket,
) -> None:
    ask(connection)
    connection.sendall(b"\r\n")
    answers, seconds = until_the_end(connection)
    assert answers == []
    assert 0.5 * PATIENCE_SECONDS < seconds < 10


def test_a_line_break_behind_a_request_does_not_hurry_its_answer(
    connection: socket.socket,
) -> None:
    connection.sendall(HEAD.replace(b"20", b"0") % b"late" + b"\r\n")
    drip(connection, b"\r\n" * 8)
    connection.sendall(HEAD % b"" + b"Connection: close\r\n\r\n" + b"x" * 20)
    assert [answer.status for answer in answers_on(connection)] == [200, 200]


def test_who_has_ended_its_body_behind_an_early_answer_is_given_up(
    connection: socket.socket,
) -> None:
    ask(connection, b"early", body=b"x" * 10)
    connection.sendall(b"x" * 10)
    answers, seconds = until_the_end(connection)
    assert answers == []
    assert 0.5 * PATIENCE_SECONDS < seconds < 10


@pytest.mark.parametrize("begun", [b"G", b"GET / HT", HEAD % b"", HEAD % b"" + b"X: "])
def test_a_head_that_does_not_end_is_given_up(connection: socket.socket, begun: bytes) -> None:
    connection.sendall(begun)
    (answer,), seconds = until_the_end(connection)
    answer.assert_problem(408, "request-timeout")
    assert seconds < 10


def test_a_byte_from_time_to_time_buys_no_time_for_a_head(connection: socket.socket) -> None:
    began = time.monotonic()
    drip(connection, HEAD % b"" + b"X: " + b"x" * 200)
    assert time.monotonic() - began < 10
    for answer in answers_on(connection):
        answer.assert_problem(408, "request-timeout")


def test_a_body_that_does_not_come_is_given_up(connection: socket.socket) -> None:
    connection.sendall(HEAD % b"" + b"\r\nhalf of it")
    (answer,), seconds = until_the_end(connection)
    answer.assert_problem(408, "request-timeout")
    assert seconds < 10


def test_a_byte_from_time_to_time_buys_no_time_for_a_body(connection: socket.socket) -> None:
    connection.sendall(HEAD.replace(b"20", b"9000") % b"" + b"\r\n")
    began = time.monotonic()
    drip(connection, b"x" * 200)
    assert time.monotonic() - began < 10


def test_the_extensions_of_a_chunk_are_no_way_to_send_for_ever(connection: socket.socket) -> None:
    chunked = HEAD.replace(b"Content-Length: 20", b"Transfer-Encoding: chunked") % b""
    connection.sendall(chunked + b"\r\n1;")
    began = time.monotonic()
    drip(connection, b"x" * 200)
    assert time.monotonic() - began < 10


def test_the_rest_of_a_body_is_not_waited_for_after_an_early_answer(
    connection: socket.socket,
) -> None:
    connection.sendall(HEAD % b"early" + b"\r\nhalf of it")
    (answer,), seconds = until_the_end(connection)
    assert answer.status == 200
    assert seconds < 10


def test_each_request_of_a_connection_has_its_time_anew(connection: socket.socket) -> None:
    for _ in range(4):
        connection.sendall(HEAD % b"")
        time.sleep(PATIENCE_SECONDS / 5)
        connection.sendall(b"\r\n" + b"x" * 10)
        time.sleep(PATIENCE_SECONDS / 5)
        connection.sendall(b"x" * 10)
        take_answer(connection)


def test_who_waits_for_an_answer_is_not_hurried(connection: socket.socket) -> None:
    connection.sendall(HEAD % b"late" + b"\r\n" + b"x" * 20 + b"POST / HT")
    time.sleep(2 * PATIENCE_SECONDS)
    connection.sendall(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert [answer.status for answer in answers_on(connection)] == [200, 200]


def test_who_takes_nothing_of_a_large_answer_is_given_up(
    server: uvicorn.Server, connection: socket.socket
) -> None:
    connection.sendall(HEAD % b"larger" + b"\r\n" + b"x" * 20)
    assert connection.recv(1) == b"H"
    wait_until_alone(server)
    assert taken(connection, LARGE_BYTES) < LARGE_BYTES / 2


def test_who_takes_a_large_answer_slowly_gets_it(connection: socket.socket) -> None:
    connection.sendall(HEAD.replace(b"20", b"0") % b"larger" + b"Connection: close\r\n\r\n")
    received = 0
    for _ in range(8):
        received += taken(connection, LARGE_BYTES // 8)
        time.sleep(PATIENCE_SECONDS / 4)
    assert received + taken(connection, LARGE_BYTES) > LARGE_BYTES


def test_who_takes_nothing_of_an_answer_without_end_is_given_up(
    server: uvicorn.Server, connection: socket.socket
) -> None:
    connection.sendall(HEAD.replace(b"20", b"0") % b"endless" + b"\r\n")
    assert connection.recv(1) == b"H"
    wait_until_alone(server)


def test_who_leaves_is_gone_for_the_answer_before_the_last_one_too(server: uvicorn.Server) -> None:
    with connect(f"http://127.0.0.1:{server.config.port}") as connection:
        connection.sendall(HEAD.replace(b"20", b"0") % b"endless" + b"\r\n")
        connection.sendall(HEAD % b"late" + b"\r\n" + b"x" * 20)
        assert connection.recv(1) == b"H"
    wait_until_alone(server)


def test_who_took_one_answer_slowly_is_not_hurried_with_the_next(
    connection: socket.socket,
) -> None:
    last = HEAD.replace(b"20", b"0") % b"larger" + b"Connection: close\r\n\r\n"
    connection.sendall(HEAD.replace(b"20", b"0") % b"large" + b"\r\n" + last)
    received = 0
    for _ in range(20):
        received += taken(connection, LARGE_BYTES // 16)
        time.sleep(PATIENCE_SECONDS / 8)
    assert received + taken(connection, 2 * LARGE_BYTES) > sum(SIZES.values())


def taken(connection: socket.socket, size: int) -> int:
    """Take so many bytes of what comes, or all until it ends; returns how many there were."""
    left = size
    with suppress(ConnectionResetError):
        while left and (data := connection.recv(min(left, 1024 * 1024))):
            left -= len(data)
    return size - left


def wait_until_alone(server: uvicorn.Server) -> None:
    until = time.monotonic() + 10
    while server.server_state.connections or server.server_state.tasks:
        assert time.monotonic() < until, "somebody is still there"
        time.sleep(0.01)
