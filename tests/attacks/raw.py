"""Bytes as no HTTP client would send them, and what comes back."""

import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from config.openapi import PROBLEM_SCHEMA
from config.problems import CONTENT_TYPE, PROBLEMS

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """One answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    def assert_problem(self, status: int, slug: str) -> None:
        """It is this problem, with its id, and the connection ends with it."""
        assert self.status == status, self
        assert self.headers["content-type"] == CONTENT_TYPE
        document: dict[str, Any] = json.loads(self.body)
        Draft202012Validator(PROBLEM_SCHEMA).validate(document)
        assert (document["type"], document["status"]) == (PROBLEMS[slug].type, status)
        assert len(document["request_id"]) == 32
        assert document["request_id"] == self.headers["x-request-id"]
        assert self.headers["x-content-type-options"] == "nosniff"


def connect(url: str) -> socket.socket:
    """A connection on which each piece that is sent leaves at once."""
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(url: str, *pieces: bytes, pause_seconds: float = 0) -> list[Answer]:
    """Send the pieces over one connection; returns the answers until the server hangs up."""
    with connect(url) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_seconds)
        return answers_on(connection)


def answers_on(connection: socket.socket) -> list[Answer]:
    """What the server says until it hangs up."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return parse(received)


def parse(received: bytes) -> list[Answer]:
    """The answers, each with a length, one behind the other."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        found.append(Answer(int(status.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found
