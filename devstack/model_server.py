"""A scripted model behind the OpenAI chat-completions protocol, for tests and benchmarks.

    with ModelServer() as server:
        server.scripts["hello"] = says("Hi", " there", every_seconds=0.1)
        server.scripts["again"] = [refuses(429, retry_after=1), says("Hi")]
        ...  # a client of server.url says hello
        server.wait_for(lambda: server.requests and server.requests[-1].closed_at)

`python -m devstack.model_server` runs it until Ctrl-C. No framework stands between the script and
the socket, because a script may misbehave down to the byte.
"""

import argparse
import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import responses as reason_phrases
from typing import Any, Self

from devstack.model_scripts import (
    DONE,
    MODEL,
    Script,
    chunk,
    completion,
    delta_chunk,
    echoes,
    encode,
    refuses,
    scripted_by_message,
    usage_object,
)
from devstack.processes import LOOPBACK, POLL_SECONDS

THREAD_NAME = "model-server"
HEAD_BYTES_MAX = 65_536
BODY_BYTES_MAX = 16 * 1024 * 1024
FLOOD_PIECE_BYTES = 65_536
BACKLOG = 1_024
REQUESTS_KEPT_MAX = 10_000
STOP_TIMEOUT_SECONDS = 10.0


@dataclass(eq=False)
class Asked:
    """One request and what became of it; times are those of `time.monotonic()`."""

    headers: Mapping[str, str]
    """By lower-case names."""
    body: dict[str, Any]
    text: str
    """The last message of the user."""
    began_at: float
    delta_times: list[float] = field(default_factory=list)
    """When each delta had been given to the socket."""
    client_hung_up: bool = False
    """The client closed its side before the script was through."""
    closed_at: float | None = None
    """When the exchange was over; set last, however it ended."""

    @property
    def first_byte_at(self) -> float | None:
        return self.delta_times[0] if self.delta_times else None

    @property
    def sent_deltas(self) -> int:
        return len(self.delta_times)


class ModelServer:
    """Plays scripts on a loopback port, from a thread of its own, and records what it was asked.

    A script is found by the last message of the user. Of a list, each request with that message
    takes the next one, and the last one repeats. All other messages get the default.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        api_key: str | None = None,
        default: Script | Callable[[str], Script] = echoes,
        requests_kept_max: int = REQUESTS_KEPT_MAX,
    ) -> None:
        self.port = port
        self.api_key = api_key
        self.default = default
        self.scripts: dict[str, Script | list[Script]] = {}
        self.requests: list[Asked] = []
        self.now_streaming = 0
        self._requests_kept_max = requests_kept_max

    @property
    def url(self) -> str:
        """What `OPENAI_BASE_URL` takes."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    def start(self) -> None:
        """Listen; `OSError` when the port is taken."""
        # Bound here, so that whoever connects from now on waits for the loop in the backlog.
        listener = socket.create_server((LOOPBACK, self.port), backlog=BACKLOG)
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=THREAD_NAME, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and end the thread; `start` then serves the same port again."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_TIMEOUT_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError(f"still serving after {STOP_TIMEOUT_SECONDS:.0f} s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float = 5.0) -> None:
        """Wait until the condition holds; `TimeoutError` when it does not in time."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not so after {timeout_seconds} s")
            time.sleep(POLL_SECONDS)

    def _run(self, listener: socket.socket) -> None:
        # Its end cancels what still runs on the loop: the connections.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(listener))

    async def _listen(self, listener: socket.socket) -> None:
        def connection() -> asyncio.StreamReaderProtocol:
            ears = Ears(HEAD_BYTES_MAX, self._loop)
            return asyncio.StreamReaderProtocol(ears, self._converse, self._loop)

        # asyncio sets it by itself only on sockets that name their protocol; this one does not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = await self._loop.create_server(connection, sock=listener, backlog=BACKLOG)
        await self._stopping.wait()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Ears)
        try:
            going_on = True
            while going_on:
                request = await read_request(reader)
                in_order = await self._answer(request, reader, writer)
                going_on = in_order and request.keep_alive
        except Malformed as error:
            writer.write(whole(refuses(400, message=str(error))))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            # The server stops: `close` would wait for a client that has stopped reading, and the
            # streams of Python 3.11 would log the cancellation if it went on from here.
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(
        self, request: "Request", reader: "Ears", writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False when the connection is not fit for another one."""
        refusal = self._refusal(request)
        if request.line == "POST /v1/chat/completions":
            asked = parse_asked(request)
            script = refusal or self._script_for(asked.text)
            self.requests.append(asked)
            if len(self.requests) > self._requests_kept_max:
                del self.requests[0]
            return await self._play(script, asked, reader, writer)
        if request.line == "GET /v1/models":
            card = {"id": MODEL, "object": "model", "created": 0, "owned_by": "devstack"}
            models = Script(body=encode({"object": "list", "data": [card]}))
            writer.write(whole(refusal or models))
        else:
            writer.write(whole(refuses(404, message=f"Unknown: {request.line}")))
        return True

    def _refusal(self, request: "Request") -> Script | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if self.api_key is None or (scheme, key) == ("Bearer", self.api_key):
            return None
        # With the key in it, as from some servers: a test can see who passes that on.
        return refuses(401, message=f"Incorrect API key provided: {key}.", code="invalid_api_key")

    def _script_for(self, text: str) -> Script:
        script = self.scripts.get(text, self.default)
        if isinstance(script, list):
            earlier = sum(asked.text == text for asked in self.requests)
            return script[min(earlier, len(script) - 1)]
        return script if isinstance(script, Script) else script(text)

    async def _play(
        self, script: Script, asked: Asked, reader: "Ears", writer: asyncio.StreamWriter
    ) -> bool:
        """Play the script until its end or the client's."""
        streams = bool(asked.body.get("stream"))
        self.now_streaming += streams
        playing = asyncio.create_task(Exchange(script, asked, writer).play())
        gone = asyncio.create_task(reader.gone.wait())
        try:
            await asyncio.wait((playing, gone), return_when=asyncio.FIRST_COMPLETED)
            if playing.done() and not isinstance(playing.exception(), ConnectionError):
                return playing.result()
            asked.client_hung_up = True
            writer.transport.abort()
            return False
        finally:
            playing.cancel()
            gone.cancel()
            self.now_streaming -= streams
            asked.closed_at = time.monotonic()


@dataclass(frozen=True)
class Exchange:
    """One script as it is played to one request."""

    script: Script
    asked: Asked
    writer: asyncio.StreamWriter

    async def play(self) -> bool:
        """Answer as the script says; False when that leaves the connection in the middle."""
        script = self.script
        await asyncio.sleep(script.first_after_seconds)
        if script.hang == "before_headers":
            await forever()
        if script.body is None and self.asked.body.get("stream"):
            return await self._stream()
        if script.hang is not None:
            await forever()
        answer = whole(script)
        self.writer.write(answer if script.cut_after is None else answer[:-1])
        return script.cut_after is None

    async def _stream(self) -> bool:
        script = self.script
        own = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        self.writer.write(head(script.status, own, script.headers))
        await asyncio.sleep(script.stall_after_headers_seconds)
        if script.hang == "after_headers":
            await forever()
        if script.flood_bytes:
            await self._flood()
        elif not await self._send_events():
            return False
        # In one step with the last event: a client may close as soon as it has that.
        self.writer.write(framed(b""))
        return True

    async def _send_events(self) -> bool:
        """Send the deltas and what ends them; False when that was cut."""
        script, now = self.script, asyncio.get_running_loop().time
        await self._send(delta_chunk("", role="assistant"))
        began = now()
        for number, delta in enumerate(script.deltas):
            if number == script.hang:
                await forever()
            if number:
                await asyncio.sleep(began + number * script.every_seconds - now())
            event = self._event(delta)
            if number == script.cut_after:
                self.writer.write(framed(event)[: len(event) // 2])
                return False
            await self._send(event)
            self.asked.delta_times.append(time.monotonic())
        if script.hang is not None:
            await forever()
        await self._send(self._ending())
        return True

    def _event(self, delta: str | bytes) -> bytes:
        if isinstance(delta, bytes):
            return delta
        if self.script.stamped:
            delta += f":{time.monotonic_ns()} "
        return delta_chunk(delta)

    def _ending(self) -> bytes:
        script, ending = self.script, b""
        if script.finish_reason is not None:
            ending += chunk({"index": 0, "delta": {}, "finish_reason": script.finish_reason})
        wanted = (self.asked.body.get("stream_options") or {}).get("include_usage")
        if script.usage and (wanted or script.usage_always):
            ending += chunk(usage=usage_object(script.usage))
        return ending + DONE * script.done

    async def _send(self, data: bytes) -> None:
        """Send the bytes in one piece, or one by one when the script trickles."""
        pause_seconds = self.script.byte_seconds
        size = 1 if pause_seconds else max(len(data), 1)
        for start in range(0, len(data), size):
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
            await self._send_piece(data[start : start + size])

    async def _send_piece(self, piece: bytes) -> None:
        # Before the write, so that nothing waits between the last event and the end of the stream.
        await self.writer.drain()
        self.writer.write(framed(piece))

    async def _flood(self) -> None:
        await self._send_piece(b"data: ")
        piece = b"x" * FLOOD_PIECE_BYTES
        for start in range(0, self.script.flood_bytes, FLOOD_PIECE_BYTES):
            await self._send_piece(piece[: self.script.flood_bytes - start])
            # A client that keeps up would otherwise keep the loop from everybody else.
            await asyncio.sleep(0)


class Ears(asyncio.StreamReader):
    """Notices at once that the client has gone, also while nobody reads."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class Malformed(Exception):
    """The client sent something that is not a request of this protocol."""


@dataclass(frozen=True)
class Request:
    line: str
    """Method and path."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The next request; `IncompleteReadError` at the client's end."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        fields = (line.split(":", 1) for line in lines[1:-2])
        headers = {name.lower(): value.strip() for name, value in fields}
        size = int(headers.get("content-length", "0"))
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise Malformed(f"not an HTTP request: {error}") from error
    if version != "HTTP/1.1" or "transfer-encoding" in headers or not 0 <= size <= BODY_BYTES_MAX:
        raise Malformed(f"not HTTP/1.1 with a Content-Length up to {BODY_BYTES_MAX}")
    body = await reader.readexactly(size)
    return Request(f"{method} {target.partition('?')[0]}", headers, body)


def parse_asked(request: Request) -> Asked:
    """What this request for a completion asks."""
    began_at = time.monotonic()
    try:
        body = json.loads(request.body)
        texts = [text_of(said["content"]) for said in body["messages"] if said["role"] == "user"]
    except (ValueError, LookupError, TypeError) as error:
        raise Malformed(f"not a request for a completion: {error!r}") from error
    return Asked(request.headers, body, texts[-1] if texts else "", began_at)


def text_of(content: str | list[dict[str, Any]]) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def whole(script: Script) -> bytes:
    """The script as one answer with a length."""
    body = script.body
    if body is None:
        content = "".join(delta for delta in script.deltas if isinstance(delta, str))
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": script.finish_reason}
        usage = {"usage": usage_object(script.usage)} if script.usage else {}
        body = completion("chat.completion", [choice], **usage)
    own = {"content-type": "application/json", "content-length": str(len(body))}
    return head(script.status, own, script.headers) + body


def head(status: int, own: dict[str, str], scripted: Mapping[str, str]) -> bytes:
    headers = own | {name.lower(): value for name, value in scripted.items()}
    lines = [f"HTTP/1.1 {status} {reason_phrases.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def framed(piece: bytes) -> bytes:
    """One chunk of the chunked coding (RFC 9112, section 7.1); the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


async def forever() -> None:
    await asyncio.Event().wait()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m devstack.model_server")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--every",
        type=float,
        default=0.05,
        metavar="SECONDS",
        help="between words; default: %(default)s",
    )
    parser.add_argument(
        "--scripted-by-message", action="store_true", help=scripted_by_message.__doc__
    )
    arguments = parser.parse_args()
    echo = partial(echoes, every_seconds=arguments.every)
    default = scripted_by_message if arguments.scripted_by_message else echo
    # Nobody can look at the requests of a process of its own.
    server = ModelServer(arguments.port, default=default, requests_kept_max=0)
    # A shell that starts it in the background has it ignore Ctrl-C's signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), server:
        settings = f"RESPONDER=openai OPENAI_BASE_URL={server.url} OPENAI_MODEL={MODEL}"
        print(settings, flush=True)
        # Again and again: a signal that comes right before a wait without an end does not end it.
        while not threading.Event().wait(1.0):
            pass


if __name__ == "__main__":
    main()
