"""A service that is told to stop: nobody waits for it long, and nobody loses anything."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import Signals
from urllib.parse import urlsplit

import httpx
import pytest

from devstack.model_scripts import MODEL, hangs
from devstack.model_server import ModelServer
from tests.stack.services import EmbeddedService, wait_for

#: Less than what a container engine waits before it kills.
STOP_SECONDS_MAX = 10.0
#: The model hangs, so the worker takes the five seconds it is given; the rest is a busy machine.
STOP_SECONDS_EXPECTED = 10.0


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.default = hangs(after=2)
        yield server


@pytest.fixture
def service(tmp_path: Path, model: ModelServer) -> Iterator[EmbeddedService]:
    env = {"RESPONDER": "openai", "OPENAI_BASE_URL": model.url, "OPENAI_MODEL": MODEL}
    with EmbeddedService(tmp_path, **env) as running:
        yield running


def test_a_stop_waits_for_nobody_and_answers_who_waits(
    service: EmbeddedService, model: ModelServer
) -> None:
    alice = service.user("alice")
    address = (urlsplit(service.url).hostname, urlsplit(service.url).port)
    head = b"POST /send/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    begun = [head + b"\r\n{", head + b"\r\n", head + b"Expect: 100-continue\r\n\r\n"]
    halves = [socket.create_connection(address, timeout=STOP_SECONDS_MAX) for _ in begun]
    for half, sent in zip(halves, begun, strict=True):
        half.sendall(sent)
    with (
        ThreadPoolExecutor(1) as others,
        httpx.stream(
            "POST",
            f"{service.url}/send/",
            headers={"Authorization": f"Bearer {alice.jwt}", "Accept": "text/event-stream"},
            json={"message": "streamed"},
            timeout=STOP_SECONDS_MAX,
        ) as stream,
    ):
        waiting = others.submit(alice.send, "awaited")
        wait_for(lambda: model.now_streaming == 2, 10, "both messages to reach the model")
        began = time.monotonic()
        service.process.child.send(Signals.SIGTERM)
        streamed = stream.read().decode()
        answer = waiting.result()
        assert service.process.child.wait(2 * STOP_SECONDS_MAX)
        stopped_after = time.monotonic() - began
    assert stopped_after < STOP_SECONDS_EXPECTED
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/messages/{answer.json()['id']}/"
    assert "event: delta" in streamed
    assert "event: done" not in streamed
    for half in halves:
        told = until_it_closes(half).lower()
        assert b"http/1.1 503 " in told
        assert b"x-request-id: " in told
        assert b'"type":"/problems/stopping/"' in told
        half.close()
    log = service.process.child.log_tail()
    assert "Traceback" not in log


def until_it_closes(connection: socket.socket) -> bytes:
    """What the server says until it closes the connection."""
    said = b""
    while part := connection.recv(4096):
        said += part
    return said
