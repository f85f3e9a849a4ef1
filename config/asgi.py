"""The ASGI application: Django for requests, and a lifespan that runs the process's other parts."""

import asyncio
import functools
import io
import logging
import os
import string
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import quote

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBadRequest, HttpResponseBase
from django.urls import ResolverMatch, get_resolver
from django.utils.log import log_response

from config.metrics.requests import STREAMS, count_request

logger = logging.getLogger(__name__)

#: How long a stop waits for a client to take the end of a stream that is cut.
CUT_SECONDS_MAX = 1.0

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Requests(ASGIHandler):
    """Django's handler without what costs it three quarters of a small request's time.

    No signals through threads and no thread to close a response: connections that have become
    unusable are `eventstore.database`'s to drop. A body is read to its limit and no further. The
    service stands at the root of its host, so no prefix of paths is set and reset a request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fixed_routes: dict[str, ResolverMatch] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Taken before the body: uvicorn adds a chunked body's trailers to the same list later, and
        # a trailer is no header (RFC 9110 §6.5.1).
        scope = {**scope, "headers": [_plain(*header) for header in scope["headers"]]}
        body = await _read_or_give_up(receive)
        if body is None:
            if _stopping.is_set():
                await self._answer_stopping(scope, send)
            return
        if not scope["query_string"].isascii():
            # Raw bytes have no place in a query; quoted, they are a value like any other.
            quoted = quote(scope["query_string"], safe=string.punctuation)
            scope = {**scope, "query_string": quoted.encode()}
        request, refusal = self.create_request(scope, io.BytesIO(body))
        if request is None:
            await self.send_response(refusal or HttpResponseBadRequest(), send)
            return
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            # A body in chunks does not say its length; now it is known to be too large.
            request.META["CONTENT_LENGTH"] = str(len(body))
        began = time.perf_counter()
        response: HttpResponseBase = await self.get_response_async(request)
        seconds = time.perf_counter() - began
        count_request(request, scope["method"], response.status_code, seconds)
        if isinstance(response, StreamingHttpResponse):
            await _stream(response, receive, send, headers_only=scope["method"] == "HEAD")
        else:
            await self.send_response(response, send)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Answer; an answer that is no success is logged here and not in a thread."""
        response: Any = await self._middleware_chain(request)  # type: ignore[attr-defined]  # not in the stubs
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            log_response(
                "%s: %s", response.reason_phrase, request.path, response=response, request=request
            )
        answer: HttpResponseBase = response
        return answer

    async def _get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        match = self.resolve_request(request)
        if not _is_async(match.func):
            # A view of Django's that may block. None of ours is one.
            return await super()._get_response_async(request)  # type: ignore[misc,no-any-return]  # not in the stubs
        # There are no other kinds of middleware, transactions a request or lazy templates here.
        response: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
        return response

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Return the route; one without a parameter is looked for once, not at every request."""
        match = self._fixed_routes.get(request.path_info)
        if match is None:
            match = get_resolver().resolve(request.path_info)
            # What is no address has the empty route too: of those there is no end.
            if match.route and not match.kwargs and not match.args:
                self._fixed_routes[request.path_info] = match
        request.resolver_match = match
        return match

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        """Send an answer that is there as a whole; no answer here sets a cookie."""
        await send(_head(response))
        content = response.content  # type: ignore[attr-defined]  # a stream is sent by `_stream`
        await send({"type": "http.response.body", "body": content, "more_body": False})

    async def _answer_stopping(self, scope: Scope, send: Send) -> None:
        """Say that this process stops, to who has not finished its request."""
        from config import problems
        from config.middleware import RequestIdMiddleware

        async def stopping(request: HttpRequest) -> HttpResponseBase:
            headers = {"Connection": "close"}
            return problems.problem_response(request, problems.STOPPING, headers=headers)

        request, refusal = self.create_request(scope, io.BytesIO())
        answer = await RequestIdMiddleware(stopping)(request) if request else refusal
        await self.send_response(answer or HttpResponseBadRequest(), send)


def _head(response: HttpResponseBase) -> Message:
    head = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
    return {"type": "http.response.start", "status": response.status_code, "headers": head}


@functools.cache
def _is_async(view: Callable[..., Any]) -> bool:
    return iscoroutinefunction(view)


async def _stream(
    response: StreamingHttpResponse, receive: Receive, send: Send, *, headers_only: bool
) -> None:
    """Send what comes until it ends, or until the client has gone."""
    from conversations.accept import EVENT_STREAM

    await send(_head(response))
    is_event_stream = response.get("Content-Type") == EVENT_STREAM
    # Django's own wrapper around it cannot be closed at once.
    parts: Any = response._iterator  # type: ignore[attr-defined]  # noqa: SLF001
    sending = asyncio.create_task(_send_parts(() if headers_only else parts, send))
    leaving = asyncio.create_task(_gone(receive))
    _streams.add(sending)
    STREAMS.inc(is_event_stream)
    if _stopping.is_set():
        sending.cancel()
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        gone, cut = leaving.done(), sending.cancelled()
    finally:
        _streams.discard(sending)
        STREAMS.dec(is_event_stream)
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        await parts.aclose()
    if cut:
        # Whoever follows a message goes on behind its last event. All else must not look whole.
        if is_event_stream:
            with suppress(TimeoutError):
                async with asyncio.timeout(CUT_SECONDS_MAX):
                    await send(_LAST)
    elif not gone:
        sending.result()


def cut_streams() -> None:
    """Cut all streams and give up all half requests, so that a stop need not wait for them.

    The streams' clients come back with their last id, to another process or to the next one here.
    """
    _stopping.set()
    for task in (*_streams, *_readings):
        task.cancel()


_streams: set[asyncio.Task[None]] = set()
_readings: set[asyncio.Task[Any]] = set()
_stopping = threading.Event()


async def _send_parts(parts: Any, send: Send) -> None:
    if parts:
        async for part in parts:
            # A client that takes nothing is given up by `config.http_protocol`: then it has gone.
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send(_LAST)


_LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _plain(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The header, without a content type's parameters: JSON has none (RFC 8259 §11).

    Django would look each charset up, and Python remembers every name it was ever asked for.
    """
    return (name, value.partition(b";")[0].strip()) if name == b"content-type" else (name, value)


class Application:
    """Serve requests between a start and a stop of the parts that this process runs."""

    def __init__(self) -> None:
        self._requests = Requests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._requests(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    from config import checks, runtime

    parts = runtime.Runtime()
    await receive()
    try:
        checks.require_keys(checks.WEB_KEYS)
        await asyncio.to_thread(checks.require_ready_database)
        checks.note_old_sqlite()
        checks.note_unused_settings()
        await asyncio.to_thread(parts.start, runtime.web_parts())
    except checks.StartRefused as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    except Exception as error:
        logger.exception("start-up failed")
        await send({"type": "lifespan.startup.failed", "message": repr(error)})
        return
    runtime.spare_the_collector()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(parts.stop)
    await send({"type": "lifespan.shutdown.complete"})


async def _read_or_give_up(receive: Receive) -> bytes | None:
    """Return the body; None if the client has gone, or if this process stops meanwhile."""
    me = asyncio.current_task()
    if _stopping.is_set() or me is None:
        return None
    _readings.add(me)
    try:
        return await _read_body(await receive(), receive)
    except asyncio.CancelledError:
        if not _stopping.is_set():
            raise
        me.uncancel()
        return None
    finally:
        _readings.discard(me)


async def _read_body(message: Message, receive: Receive) -> bytes | None:
    """Return the body, or a little more than its limit of it; None if the client has gone."""
    body = bytearray()
    while message["type"] != "http.disconnect":
        body += message.get("body", b"")
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE or not message.get("more_body", False):
            return bytes(body)
        message = await receive()
    return None


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
application = Application()
