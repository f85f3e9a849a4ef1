"""Reads event streams on raw sockets: notes what arrives and when, and takes it apart afterwards.

    python -m benchmarks.stream_client < PLAN > READINGS

reads many at once, in a process of its own, and checks each by the contract's rules.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec
import uvloop

from devstack.processes import LOOPBACK

#: The streams do not all begin in the same instant.
STARTS_SECONDS = 1.0
#: How much longer than its script a stream may take.
GRACE_SECONDS = 60.0


class Plan(msgspec.Struct, frozen=True):
    """What to read: `streams`, in turn as each of the users, each of `deltas` stamped pieces."""

    port: int
    jwts: list[str]
    streams: int
    deltas: int
    every_seconds: float

    @property
    def message(self) -> str:
        return json.dumps({"deltas": self.deltas, "every": self.every_seconds, "stamped": True})

    @property
    def seconds_max(self) -> float:
        """The time after which a stream is given up."""
        return self.deltas * self.every_seconds + GRACE_SECONDS


class Heard(msgspec.Struct):
    """One stream by the contract's rules."""

    wrong: str = ""
    """Why it is not the response, complete, in order and once; empty when it is."""
    text: str = ""
    events: int = 0
    restarts: int = 0
    accepted_ms: float = 0.0
    """From the request to the first byte of its answer."""
    first_ms: float = 0.0
    """From the request to the first delta."""
    delays_ms: list[float] = []
    """From each stamp to the arrival of its piece."""


class Readings(msgspec.Struct):
    """What the process read, and what that took."""

    heard: list[Heard]
    elapsed_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


Read = tuple[int, bytes]


async def read(port: int, request: bytes, seconds_max: float) -> "Reading":
    """Send a request on a connection of its own, and note what arrives until its end."""
    loop = asyncio.get_running_loop()
    reading = Reading(request)
    try:
        async with asyncio.timeout(seconds_max):
            await loop.create_connection(lambda: reading, LOOPBACK, port)
            await reading.ended.wait()
    except (TimeoutError, ConnectionError) as error:
        reading.gave_up = repr(error)
    finally:
        reading.close()
    return reading


class Reading(asyncio.Protocol):
    """One request, and each read of its answer with the `time.monotonic_ns()` of its arrival."""

    def __init__(self, request: bytes) -> None:
        self.reads: list[Read] = []
        self.sent_at = 0
        self.ended = asyncio.Event()
        self.gave_up = ""
        self._request = request
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self.sent_at = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.monotonic_ns(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def close(self) -> None:
        if self._transport:
            self._transport.abort()


def post(path: str, body: object, **headers: str) -> bytes:
    """A request after whose answer the server closes the connection."""
    content = json.dumps(body).encode()
    fields = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **headers,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join((*lines, "", "")).encode() + content


def send(message: str, jwt: str) -> bytes:
    """The request that sends a message and follows its response."""
    accepted = {"Accept": "text/event-stream", "Authorization": f"Bearer {jwt}"}
    return post("/send/", {"message": message}, **accepted)


async def read_all(plan: Plan) -> list[Reading]:
    """Read all streams of the plan, begun within `STARTS_SECONDS`."""

    async def read_one(number: int) -> Reading:
        await asyncio.sleep(STARTS_SECONDS * number / plan.streams)
        request = send(plan.message, plan.jwts[number % len(plan.jwts)])
        return await read(plan.port, request, plan.seconds_max)

    return await asyncio.gather(*map(read_one, range(plan.streams)))


def hear(reading: Reading, deltas: int) -> Heard:
    """Put a stream together by the contract's rules, and check it."""
    heard = _Hearing(reading.sent_at)
    try:
        if reading.reads:
            heard.heard.accepted_ms = (reading.reads[0][0] - reading.sent_at) / 1e6
        if reading.gave_up:
            raise Wrong(f"given up: {reading.gave_up}")
        for at, event in events(reading.reads):
            heard.take(at, event)
        heard.check(deltas)
    except Wrong as wrong:
        heard.heard.wrong = str(wrong)
    return heard.heard


class Wrong(Exception):
    """The stream is not what the contract says."""


@dataclass
class _Hearing:
    sent_at: int
    heard: Heard = field(default_factory=Heard)
    response: str | None = None
    #: Characters so far and when they had arrived, for each delta of the latest attempt.
    arrivals: list[tuple[int, int]] = field(default_factory=list)

    def take(self, at: int, event: dict[str, str]) -> None:
        if self.response is not None:
            raise Wrong(f"{event} behind the end")
        name, said = event.get("event"), json.loads(event.get("data", "null"))
        self.heard.events += 1
        if name == "delta":
            self.heard.first_ms = self.heard.first_ms or (at - self.sent_at) / 1e6
            self.heard.text += said["text"]
            self.arrivals.append((len(self.heard.text), at))
        elif name == "restart":
            self.heard.restarts += 1
            self.heard.text = ""
            self.arrivals.clear()
        elif name == "done":
            self.response = said["response"]
        else:
            raise Wrong(f"ends with {name}: {said}")
        characters = event.get("id", "").split("-")[1:2]
        if characters != [str(len(self.heard.text))]:
            raise Wrong(f"id {event.get('id')} after {len(self.heard.text)} characters")

    def check(self, deltas: int) -> None:
        text = self.heard.text
        if self.response is None:
            raise Wrong(f"no end after {self.heard.events} events and {len(text)} characters")
        if text != self.response:
            raise Wrong(f"{len(text)} characters are not the {len(self.response)} of the response")
        pieces = text.split(" ")
        numbers = [piece.partition(":")[0] for piece in pieces[:-1]]
        if pieces[-1] or numbers != [f"{number:05d}" for number in range(deltas)]:
            raise Wrong(f"{len(numbers)} pieces of {deltas}, or not in order")
        arrivals, end = iter(self.arrivals), 0
        characters, at = next(arrivals)
        for piece in pieces[:-1]:
            end += len(piece) + 1
            while characters < end:
                characters, at = next(arrivals)
            self.heard.delays_ms.append((at - int(piece.partition(":")[2])) / 1e6)


def events(reads: Sequence[Read]) -> Iterator[tuple[int, dict[str, str]]]:
    """The events of a stream as their fields, each with the time at which it was whole."""
    waiting = b""
    for at, data in _chunks(reads):
        *blocks, waiting = (waiting + data).split(b"\n\n")
        for block in blocks:
            lines = block.decode().split("\n")
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if fields:
                yield at, fields


def _chunks(reads: Sequence[Read]) -> Iterator[Read]:
    """The chunks of a body in the chunked coding (RFC 9112, section 7.1)."""
    waiting, in_body = b"", False
    for at, data in reads:
        waiting += data
        if not in_body:
            head, blank, body = waiting.partition(b"\r\n\r\n")
            if not blank:
                continue
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head.lower():
                raise Wrong(f"{head.decode('latin-1').splitlines()[0]}: {body[:500]!r}")
            waiting, in_body = body, True
        while True:
            size, newline, rest = waiting.partition(b"\r\n")
            if not newline or len(rest) < (length := int(size, 16)) + 2:
                break
            yield at, rest[:length]
            waiting = rest[length + 2 :]


def main() -> None:
    """Read what the plan says, and then check it."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    # A collection would look like a delay.
    gc.disable()
    began, cpu_began = time.monotonic(), time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        readings = runner.run(read_all(plan))
    elapsed, cpu = time.monotonic() - began, time.process_time() - cpu_began
    peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    heard = [hear(reading, plan.deltas) for reading in readings]
    read = Readings(heard, elapsed, cpu, peak_rss_bytes)
    sys.stdout.buffer.write(msgspec.json.encode(read))


if __name__ == "__main__":
    main()
