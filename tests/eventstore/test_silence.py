"""Who counts as silent: one that says nothing, and not one that has no room or is starting."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest

from eventstore import silence

#: What a client may begin with instead of a startup message: offers of TLS and of GSSAPI.
OFFERS = (80877103, 80877104)
TOO_MANY_CLIENTS, STARTING = b"53300", b"57P03"


def refuses(client: socket.socket, code: bytes) -> None:
    """Refuse a client as PostgreSQL does, after "no" to what it offers."""
    while len(head := client.recv(8, socket.MSG_WAITALL)) == 8:
        length, kind = struct.unpack("!II", head)
        if kind not in OFFERS:
            client.recv(length - 8)
            break
        client.sendall(b"N")
    fields = b"SFATAL\0VFATAL\0C" + code + b"\0Mno\0\0"
    client.sendall(b"E" + struct.pack("!I", 4 + len(fields)) + fields)


Listen = Callable[[bytes | None], None]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listen]:
    """Let the database be one that refuses everybody with this code, or says nothing at all."""
    monkeypatch.setattr(silence, "_asking", [])
    monkeypatch.setattr(silence, "GREETING_SECONDS", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve(code: bytes) -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        refuses(client, code)

        def listen(code: bytes | None) -> None:
            parameters = {"host": "127.0.0.1", "port": server.getsockname()[1], "dbname": "x"}
            stand_in = SimpleNamespace(
                vendor="postgresql",
                get_connection_params=lambda: {
                    **parameters,
                    "user": "x",
                    "cursor_factory": None,
                },
            )
            monkeypatch.setattr(silence, "connection", stand_in)
            if code:
                threading.Thread(target=serve, args=[code], daemon=True).start()

        yield listen
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("code", [TOO_MANY_CLIENTS, STARTING])
def test_one_that_refuses_answers(listen: Listen, code: bytes) -> None:
    listen(code)
    assert asyncio.run(silence.answers())


def test_one_that_says_nothing_does_not(listen: Listen) -> None:
    listen(None)
    assert not asyncio.run(silence.answers())
