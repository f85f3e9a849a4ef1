"""A client that keeps its connection, and the few figures that are made of what it saw."""

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PASSWORD = "correct horse battery"
TIMEOUT_SECONDS = 60


@dataclass
class Caller:
    """One client: a registered user, a JWT, one kept connection, and how long each send took."""

    url: str
    name: str
    jwt: str = ""
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(
            urlsplit(self.url).netloc, timeout=TIMEOUT_SECONDS
        )

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def register(self) -> None:
        """Register and log in."""
        credentials = {"username": self.name, "password": PASSWORD}
        status, _ = self.call("POST", "/users/register/", credentials)
        assert status == http.HTTPStatus.CREATED, status
        status, answer = self.call("POST", "/users/login/", credentials)
        assert status == http.HTTPStatus.OK, status
        self.jwt = answer["token"]

    def send(self, message: str = "hello") -> int:
        """Send a message, wait for its response, and note both."""
        began = time.perf_counter()
        status, _ = self.call("POST", "/send/", {"message": message})
        self.seconds.append(time.perf_counter() - began)
        self.statuses.append(status)
        return status

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.jwt}"}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def milliseconds(values: Sequence[float]) -> str:
    """Median, p95, p99 and maximum, for a person to read."""
    figures = [percentile(values, percent) * 1000 for percent in (50, 95, 99)]
    p50, p95, p99 = figures
    return (
        f"median {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, max {max(values) * 1000:.1f} ms"
    )
