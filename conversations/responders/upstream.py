"""The process's one way to the upstream: an event loop in a thread of its own, and a client on it.

Imported by processes that ask an upstream and by nobody else: the openai library takes most of a
second to import.
"""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import cycle
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai
import uvloop
from django.conf import settings

from conversations.responders import ResponderFailed
from eventstore.once import once

T = TypeVar("T")

#: What a response may weigh on the wire. Servers send 200 to 500 bytes for each token, chatty ones
#: twice that; one that sends more than this does not answer, it floods.
WIRE_BYTES_FLOOR = 8 * 1024 * 1024
WIRE_BYTES_PER_TOKEN = 2 * 1024
#: Connections for each worker thread: one in use and one that is being closed.
CONNECTIONS_PER_THREAD = 2
#: Pools that share the connections: one looks at all of its own for each request.
POOLS = 16
#: How long sending a request may take between two of its parts.
WRITE_SECONDS = 20.0
STOP_SECONDS = 1.0


#: And in lines: an event is two or three, and each takes the library 25 microseconds.
WIRE_LINES_FLOOR = 256 * 1024
WIRE_LINES_PER_TOKEN = 8


def wire_lines_max() -> int:
    """The most lines that one response of the upstream may have."""
    return max(WIRE_LINES_FLOOR, WIRE_LINES_PER_TOKEN * settings.RESPONSE_TOKENS_MAX)


def wire_bytes_max() -> int:
    """The most bytes that one response of the upstream may have."""
    return max(WIRE_BYTES_FLOOR, WIRE_BYTES_PER_TOKEN * settings.RESPONSE_TOKENS_MAX)


class Upstream:
    """The client, its connections, and the loop that they belong to."""

    def __init__(self) -> None:
        #: What the model calls the limit of a response; newer ones know the second name alone.
        self.limit_name = "max_tokens"
        #: Omits the header that the library would otherwise make of the placeholder below.
        self.headers = {} if settings.OPENAI_API_KEY else {"Authorization": openai.Omit()}
        self.client = _client()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Break off what runs on the loop, and end its thread; once is enough."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError):
            self.submit(self._break_off()).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _break_off(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.client.close()


@once
def upstream() -> Upstream:
    """The process's upstream, as the settings name it."""
    made = Upstream()
    # A thread that still runs when the interpreter is taken down may take it down harder.
    atexit.register(made.stop)
    return made


def _client() -> openai.AsyncOpenAI:
    # Threads bound how many are open. A pool that is given its part of them could be full of long
    # responses while others are empty.
    limits = httpx2.Limits(
        max_connections=CONNECTIONS_PER_THREAD * settings.WORKER_THREADS,
        max_keepalive_connections=-(-settings.WORKER_THREADS // POOLS),
    )
    proxy = _proxy(settings.OPENAI_BASE_URL)
    transports = [httpx2.AsyncHTTPTransport(limits=limits, proxy=proxy) for _ in range(POOLS)]
    connect_seconds = settings.OPENAI_CONNECT_SECONDS
    return openai.AsyncOpenAI(
        base_url=settings.OPENAI_BASE_URL,
        # Given in any case, or the library would look for one by itself.
        api_key=settings.OPENAI_API_KEY or "none",
        max_retries=0,
        http_client=httpx2.AsyncClient(
            transport=Bounded(transports),
            # Reading has timeouts of our own: the library's would count a lone byte as progress.
            timeout=httpx2.Timeout(
                connect=connect_seconds, pool=connect_seconds, write=WRITE_SECONDS, read=None
            ),
            # A few compressed bytes can become any number, so none are asked for.
            headers={"Accept-Encoding": "identity"},
        ),
    )


def _proxy(url: str) -> str | None:
    """The proxy that the environment (`HTTPS_PROXY`, `NO_PROXY`, …) names for an address."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


class Bounded(httpx2.AsyncBaseTransport):
    """Takes its transports in turn, and breaks off a response that has too many bytes."""

    def __init__(self, transports: Sequence[httpx2.AsyncBaseTransport]) -> None:
        self._transports = transports
        self._next = cycle(transports)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await next(self._next).handle_async_request(request)
        stream = cast("httpx2.AsyncByteStream", response.stream)
        coding = response.headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            await stream.aclose()
            raise ResponderFailed(f"the upstream's response is compressed ({coding[:20]})")
        response.stream = _BoundedStream(stream, wire_bytes_max(), wire_lines_max())
        return response

    async def aclose(self) -> None:
        for transport in self._transports:
            await transport.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, bytes_max: int, lines_max: int) -> None:
        self._inner = inner
        self._bytes_max = bytes_max
        self._lines_max = lines_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = lines = 0
        async for part in self._inner:
            taken += len(part)
            lines += part.count(b"\n") + part.count(b"\r")
            if taken > self._bytes_max:
                raise ResponderFailed(f"the upstream sent more than {self._bytes_max} bytes")
            if lines > self._lines_max:
                raise ResponderFailed(f"the upstream sent more than {self._lines_max} lines")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
