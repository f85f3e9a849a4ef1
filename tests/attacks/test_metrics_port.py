"""Clients of the metrics' port that would keep its places."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from config.metrics import server as metrics_server
from config.metrics.server import CLIENTS_MAX, MetricsServer
from devstack.processes import free_port

DEADLINE_SECONDS = 1.0


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(metrics_server, "CONNECTION_SECONDS_MAX", DEADLINE_SECONDS, raising=False)
    port = free_port()
    server = MetricsServer("127.0.0.1", port)
    yield port
    server.stop()


def is_served(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).is_success
    return False


def test_a_byte_from_time_to_time_keeps_no_place(port: int) -> None:
    with ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(CLIENTS_MAX)
        ]
        until = time.monotonic() + 8 * DEADLINE_SECONDS
        while not is_served(port):
            assert time.monotonic() < until, "they have kept their places"
            for client in clients:
                with suppress(OSError):
                    client.sendall(b"G")
            time.sleep(0.1)


def test_a_thread_that_does_not_start_takes_no_place(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(CLIENTS_MAX):
            assert not is_served(port)
    assert is_served(port)
