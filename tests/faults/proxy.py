"""A TCP proxy that loses connections on purpose, in front of PostgreSQL or Redis.

One event loop in a thread of its own carries all proxies of the test process; every method may be
called from any thread.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from devstack.processes import LOOPBACK, free_port
from tests.faults.protocols import Protocol, Redis

T = TypeVar("T")

PIECE_BYTES = 65_536
CALL_SECONDS_MAX = 10.0
#: How long a server may take to work off what was sent to it before its client was cut off.
DRAIN_SECONDS_MAX = 30.0


class Trap:
    """Waits for a chosen message; springs `times` times, then no more.

    It cuts the connection, or calls `action` instead and leaves the connection to itself.
    """

    def __init__(
        self, text: bytes, *, forwarded: bool, times: int, action: Callable[[], object] | None
    ) -> None:
        self.text = text
        self.forwarded = forwarded
        self.left = times
        self.action = action
        self.cuts = 0
        self._cut = threading.Condition()

    def wait(self, cuts: int, timeout_seconds: float) -> bool:
        """Whether it has sprung so often within the time."""
        with self._cut:
            return self._cut.wait_for(lambda: self.cuts >= cuts, timeout_seconds)

    def springs(self, message: bytes) -> bool:
        """Whether this message springs it."""
        if self.left <= 0 or self.text not in message:
            return False
        self.left -= 1
        return True

    def sprung(self) -> None:
        """Count, once the message has gone where it was to go."""
        with self._cut:
            self.cuts += 1
            self._cut.notify_all()

    def disarm(self) -> None:
        """Spring no more."""
        self.left = 0


class Proxy:
    """One listener that passes everything on to one server, until it is told otherwise."""

    def __init__(self, target_port: int, protocol: type[Protocol] = Redis) -> None:
        self.port = free_port()
        #: How long each piece is held back, in either direction.
        self.delay_seconds = 0.0
        self._target_port = target_port
        self._protocol = protocol
        self._links: list[Link] = []
        self._traps: list[Trap] = []
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._reserved = socket.socket()

    def url(self, url: str) -> str:
        """The same address by way of this proxy."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}").geturl()

    def start(self) -> None:
        """Listen and pass on."""
        _call(self._start())

    def stop(self) -> None:
        """Cut everything and listen no more: who connects is refused."""
        _call(self._stop())

    def cut_all(self) -> int:
        """Cut every connection, and take new ones; how many there were."""
        return _call(self._cut(len))

    def cut_one(self) -> int:
        """Cut the oldest connection."""
        return _call(self._cut(lambda links: min(len(links), 1)))

    def blackhole(self) -> None:
        """Take connections and bytes, and pass none on: a server that says nothing any more."""
        _call(self._set_open(is_open=False))

    def pass_on(self) -> None:
        """End the blackhole; what was held back goes out."""
        _call(self._set_open(is_open=True))

    def cut_when(self, text: str, *, forwarded: bool = True, times: int = 1) -> Trap:
        """Cut off the client that sends a message with this text, before its answer comes back.

        With `forwarded` the server gets the message and works it off; otherwise it never does.
        """
        return self._set(Trap(text.encode(), forwarded=forwarded, times=times, action=None))

    def call_when(
        self, text: str, action: Callable[[], object], *, forwarded: bool = True, times: int = 1
    ) -> Trap:
        """Call `action` as a message with this text is sent, before its answer comes back."""
        return self._set(Trap(text.encode(), forwarded=forwarded, times=times, action=action))

    def _set(self, trap: Trap) -> Trap:
        self._traps = [trap, *(each for each in self._traps if each.left > 0)]
        return trap

    @property
    def connections(self) -> int:
        return len(self._links)

    async def _start(self) -> None:
        self._open.set()
        self._reserved.close()
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self.port)

    async def _stop(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
            self._reserve()
        await self._cut(len)

    def _reserve(self) -> None:
        """Keep the port for the next start: nobody listens on it, and nobody else can."""
        self._reserved = socket.socket()
        for reuse in (1, 0):
            # With it, past what is left of old connections; without it, others cannot bind.
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            if reuse:
                self._reserved.bind((LOOPBACK, self.port))

    async def _cut(self, how_many: "Callable[[list[Link]], int]") -> int:
        cut = self._links[: how_many(self._links)]
        for link in cut:
            link.cut()
        return len(cut)

    async def _set_open(self, *, is_open: bool) -> None:
        (self._open.set if is_open else self._open.clear)()

    async def _connected(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            await self._open.wait()
            from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        except OSError:
            to_client.transport.abort()
            return
        link = Link(self, from_client, to_client, from_server, to_server)
        self._links.append(link)
        try:
            await link.run()
        finally:
            self._links.remove(link)

    async def hold_back(self) -> None:
        """Wait as long as a piece is to be held back."""
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await self._open.wait()

    def messages(self) -> Protocol:
        """What tells one client's messages apart."""
        return self._protocol()

    def trap_for(self, message: bytes) -> Trap | None:
        """The trap that this message springs."""
        return next((trap for trap in self._traps if trap.springs(message)), None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = from_client, to_client
        self._from_server, self._to_server = from_server, to_server
        self._pumps: list[asyncio.Task[None]] = []
        self._sprung = False

    async def run(self) -> None:
        """Pass on until one side ends or the link is cut."""
        self._pumps = [asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())]
        await asyncio.wait(self._pumps, return_when=asyncio.FIRST_COMPLETED)
        if self._sprung:
            await asyncio.wait(self._pumps)
        self.cut()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Close both sides at once, with whatever was on its way."""
        for pump in self._pumps:
            pump.cancel()
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def _upwards(self) -> None:
        messages = self._proxy.messages()
        while data := await self._from_client.read(PIECE_BYTES):
            await self._proxy.hold_back()
            for piece, text in messages.split(data):
                trap = self._proxy.trap_for(text)
                if trap is None or trap.forwarded:
                    self._to_server.write(piece)
                if trap is not None and trap.action is not None:
                    trap.action()
                    trap.sprung()
                elif trap is not None:
                    self._let_go_of_client()
                    trap.sprung()
                    await self._until_worked_off()
                    return
            await self._to_server.drain()

    async def _downwards(self) -> None:
        while data := await self._from_server.read(PIECE_BYTES):
            if not self._sprung:
                await self._proxy.hold_back()
            if not self._sprung:
                self._to_client.write(data)
                await self._to_client.drain()

    def _let_go_of_client(self) -> None:
        self._sprung = True
        self._to_client.transport.abort()

    async def _until_worked_off(self) -> None:
        """Wait until the server has done what it got; its answer goes nowhere."""
        # An end, not a reset: a reset could overtake what was sent before it.
        self._to_server.write_eof()
        await asyncio.wait([self._pumps[1]], timeout=DRAIN_SECONDS_MAX)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="proxies", daemon=True).start()
    return loop


def _call(coroutine: Coroutine[Any, Any, T]) -> T:
    future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    return future.result(CALL_SECONDS_MAX)
