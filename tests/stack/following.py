"""A client that follows a message's event stream, by the contract's rules and nothing more.

A delta appends, a restart voids, one end comes last; after a cut it goes on behind its last id.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.stack.client import User

ENDS = ("done", "failed", "cancelled")
#: Longer than a worker's death may keep a stream silent.
SILENCE_SECONDS = 40.0
RESUMES_MAX = 200
RESUME_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Event:
    """One event of a stream (WHATWG HTML, section 9.2)."""

    id: str
    name: str
    data: dict[str, Any]


class Parser:
    """Makes events of bytes, in whatever pieces these come; half an event at a cut is none."""

    def __init__(self) -> None:
        self.comments = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks for event in self._event(block.decode())]

    def _event(self, block: str) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if not name:
                self.comments += 1
                continue
            assert name in ("id", "event", "data"), line
            assert name not in fields, block
            fields[name] = value.removeprefix(" ")
        if fields:
            yield Event(fields["id"], fields["event"], json.loads(fields["data"]))


class Follower:
    """One client that follows one message, through any number of connections."""

    def __init__(self, user: User, message_id: str = "", client: httpx.Client | None = None):
        self.user = user
        self.message_id = message_id
        self.text = ""
        self.last_id = ""
        self.events: list[Event] = []
        self.restarts = 0
        self.end: Event | None = None
        # Without TLS, so without the certificates that take a client longest.
        self._client = client or httpx.Client(verify=False)
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._parser = Parser()

    def send(self, message: str, path: str = "/send/") -> None:
        """Send a message and leave its event stream open."""
        response = self._open("POST", path, json={"message": message})
        assert response.status_code == 200, response.read()
        self.message_id = response.headers["location"].split("/")[2]

    def resume(self) -> int:
        """Go on behind the last event; the answer's status, 204 when there is no more to come."""
        more = {"Last-Event-ID": self.last_id} if self.last_id else {}
        response = self._open("GET", f"/messages/{self.message_id}/stream/", headers=more)
        if response.status_code != 200:
            self.hang_up()
        return response.status_code

    def read(
        self, *, until: Callable[[], object] = lambda: False, bytes_max: int | None = None
    ) -> None:
        """Read the open stream to its end, or so far."""
        assert self._response is not None
        left = bytes_max
        while not until() and (left is None or left > 0):
            data = next(self._pieces, None)
            if data is None:
                self.hang_up()
                return
            for event in self._parser.feed(data if left is None else data[:left]):
                self._take(event)
            if left is not None:
                left -= len(data)

    @property
    def comments(self) -> int:
        """Comment lines on the latest connection."""
        return self._parser.comments

    def hang_up(self) -> None:
        """Close the connection, wherever the stream stands."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def follow(self) -> None:
        """Read to the end of the message, over as many connections as that takes."""
        for _ in range(RESUMES_MAX):
            try:
                if self._response is None and self.resume() == 204:
                    return
                self.read()
            except httpx.TransportError:
                self.hang_up()
                time.sleep(RESUME_PAUSE_SECONDS)
            if self.end is not None:
                return
        raise AssertionError(f"no end of {self.message_id} after {RESUMES_MAX} resumes")

    def _open(self, method: str, path: str, **more: Any) -> httpx.Response:
        self.hang_up()
        headers = {
            "Authorization": f"Bearer {self.user.jwt}",
            "Accept": "text/event-stream",
            **more.pop("headers", {}),
        }
        request = self._client.build_request(
            method, self.user.url + path, headers=headers, timeout=SILENCE_SECONDS, **more
        )
        self._response = self._client.send(request, stream=True)
        self._pieces = self._response.iter_raw()
        self._parser = Parser()
        return self._response

    def _take(self, event: Event) -> None:
        assert self.end is None, f"{event} after {self.end}"
        self.events.append(event)
        self.last_id = event.id
        match event.name:
            case "delta":
                assert event.data["text"]
                self.text += event.data["text"]
            case "restart":
                assert event.data == {}
                self.text = ""
                self.restarts += 1
            case _:
                assert event.name in ENDS, event
                self.end = event
        if event.name != "failed":
            # An id is the attempt and the number of characters so far.
            assert event.id.split("-")[1] == str(len(self.text)), event
