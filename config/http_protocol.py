"""uvicorn's parser, with an end to what it takes for a request and to how long it waits for one.

What it refuses gets a problem document like any other refusal, and the connection ends with it:
where the next request would begin is not known any more.
"""

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from secrets import token_hex
from typing import Any

import httptools
from django.http import HttpRequest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from config import problems
from config.middleware import complete
from config.problems import Problem, problem_response

logger = logging.getLogger(__name__)

HEAD_BYTES_MAX = 16 * 1024
#: Requests of a connection that wait behind the one that is being answered.
PIPELINED_MAX = 16
#: How long a client may take for its first byte and then for a request line and its headers.
HEAD_SECONDS_MAX = 10.0
#: How long it may take for the body behind them, and, after an early answer, for the rest of it.
BODY_SECONDS_MAX = 30.0
#: How long a client may take nothing of what is waiting for it, and how often that is looked at.
UNSENT_SECONDS_MAX = 60.0
UNSENT_LOOKS = 12

Header = tuple[bytes, bytes]


class _Refused(Exception):
    """A request that the parser would take, and that is none all the same."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """See the module's promise."""

    cycle: Any
    _head_bytes = 0
    _unparsed_bytes = 0
    _begun = 0
    #: The cycle that is being answered; `cycle` is the newest one.
    _running: Any = None
    _is_refused = False
    _head_is_open = False
    _body_is_open = False
    _ignores_upgrade = False
    _too_late: asyncio.TimerHandle | None = None
    _unsent_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_within(HEAD_SECONDS_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._look_no_more()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the newest request only, which may wait behind this one.
            self._running.disconnected = True
            self._running.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_at_what_is_unsent()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look_no_more()
        self._look_at_what_is_unsent()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            # Taken all the same: a close over unread bytes is a reset, which takes answers along.
            return
        self._unset_keepalive_if_required()
        before = self._progress()
        # The parser keeps an unfinished header to itself, so its bytes are counted as they come,
        # and apart: of what it has handed on they would count twice.
        if self._head_is_open or self._body_is_open:
            self._unparsed_bytes += len(data)
        self._feed(data)
        if self._unparsed_bytes > HEAD_BYTES_MAX:
            self._refuse(problems.HEAD_TOO_LARGE)
        self._expect_what_is_next(nothing_new=self._progress() == before)

    def on_message_begin(self) -> None:
        self._head_bytes = self._unparsed_bytes = 0
        self._begun += 1
        self._head_is_open, self._body_is_open = True, False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        _refuse_ambiguous(self.headers, self.parser.get_http_version())
        self._head_is_open = False
        self._unparsed_bytes = 0
        self._ignores_upgrade = self.parser.should_upgrade()
        if not self._ignores_upgrade:
            if len(self.pipeline) >= PIPELINED_MAX:
                raise _Refused("too many requests wait for an answer")
            self.url = _with_path(self.url)
            super().on_headers_complete()
            # Not before: of a target that is none, nothing has begun.
            self._body_is_open = True
            if not self.pipeline:
                self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        if not self._ignores_upgrade:
            self._body_is_open = False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._running = following
        self._look_at_what_is_unsent()

    def _feed(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    data = b""
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            logger.debug("a request is refused: %s", error)
            too_large = self._head_bytes > HEAD_BYTES_MAX
            self._refuse(problems.HEAD_TOO_LARGE if too_large else problems.BAD_REQUEST)

    def _without_upgrade(self) -> bytes:
        """The head that was just read, as it is without its offer of another protocol.

        None is known here, and an offer may be ignored (RFC 9110 §7.8). The parser cannot: it would
        take the body for the other protocol. Java's client offers h2c with every first request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version.encode())]
        head += [b"%s: %s\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"".join((*head, b"\r\n"))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _Refused("request head too large")

    def _progress(self) -> tuple[int, bool, bool]:
        return self._begun, self._head_is_open, self._body_is_open

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_what_is_next(self, *, nothing_new: bool) -> None:
        """Set the time for it; where nothing new was begun or ended, the old one runs.

        So a byte more from time to time gains nothing.
        """
        if self._is_refused or self.transport.is_closing():
            self._expect_nothing()
        elif self._head_is_open or self._body_is_open:
            if not nothing_new:
                self._expect_within(HEAD_SECONDS_MAX if self._head_is_open else BODY_SECONDS_MAX)
        elif self._is_answering():
            self._expect_nothing()
        elif not nothing_new or self._too_late is None:
            # A line break before a request begins none, and has ended uvicorn's own waiting.
            self._expect_within(HEAD_SECONDS_MAX)

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._too_late = self.loop.call_later(seconds, self._on_too_late, seconds)

    def _expect_nothing(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _on_too_late(self, seconds: float) -> None:
        if self.flow.read_paused or (self._head_is_open and self._is_answering()):
            # It is this side that keeps the client waiting.
            self._expect_within(seconds)
        elif self._head_is_open or self._body_is_open:
            self._refuse(problems.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer, if it is this request's turn to be answered and nothing was, and hang up.

        Requests before it are answered first, and what comes behind it is dropped.
        """
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        of_this_request = self._body_is_open
        if of_this_request and self.pipeline:
            # It waits for its turn, and would then wait for the rest of its body.
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._running
            of_this_request = False
        if self._is_answering() and not of_this_request:
            self.cycle.keep_alive = False
            self.flow.resume_reading()
            return
        if not of_this_request or not self.cycle.response_started:
            self.transport.write(_answer(problem))
        self.transport.close()

    def _look_at_what_is_unsent(self) -> None:
        """Look from time to time whether the client takes what is waiting for it, until it has."""
        if self._unsent_look is None and (unsent := self.transport.get_write_buffer_size()):
            self._look_later(unsent, UNSENT_LOOKS)

    def _look_later(self, unsent: int, looks: int) -> None:
        pause = UNSENT_SECONDS_MAX / UNSENT_LOOKS
        self._unsent_look = self.loop.call_later(pause, self._look, unsent, looks - 1)

    def _look_no_more(self) -> None:
        if self._unsent_look is not None:
            self._unsent_look.cancel()
            self._unsent_look = None

    def _look(self, unsent_before: int, looks_left: int) -> None:
        self._unsent_look = None
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            return
        if unsent < unsent_before:
            self._look_later(unsent, UNSENT_LOOKS)
        elif looks_left:
            self._look_later(unsent, looks_left)
        else:
            # A close in order would wait until the client takes the rest, which may be for ever.
            self.transport.abort()


def _with_path(target: bytes) -> bytes:
    """The target of a request; one that names a host and no path means the path `/`."""
    if target.startswith(b"/"):
        return target
    parts = httptools.parse_url(target)
    if parts.path or not parts.host:
        return target
    return b"/?" + parts.query if parts.query else b"/"


def _refuse_ambiguous(headers: Sequence[Header], version: str) -> None:
    """Refuse a head that others on the way may understand differently (RFC 9112 §3.2, §6.1)."""
    hosts, codings = 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if version not in ("1.0", "1.1"):
        raise _Refused("HTTP/1.0 and HTTP/1.1 are known here")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise _Refused("one Host header is needed")
    if codings and (codings != [b"chunked"] or version != "1.1"):
        raise _Refused("no transfer coding but chunked is known here")


def _answer(problem: Problem) -> bytes:
    """The problem as it goes over the wire, where there is no request to hand to Django."""
    request = HttpRequest()
    request_id = token_hex(16)
    request.shown_request_id = request_id  # type: ignore[attr-defined]  # accounts.jwt_auth.ApiRequest
    response = problem_response(request, problem, headers={"Connection": "close"})
    complete(response, request_id)
    phrase = HTTPStatus(problem.status).phrase
    head = [f"HTTP/1.1 {problem.status} {phrase}"]
    head += [f"{name.lower()}: {value}" for name, value in response.items()]
    return "\r\n".join((*head, "", "")).encode("latin-1") + response.content
