"""What a scripted model does with a request, and what it says in the words of the protocol."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import responses as reason_phrases
from typing import Any, Literal

MODEL = "scripted"
DELTAS_MAX = 100_000
TALE = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "ledger.")
DONE = b"data: [DONE]\n\n"

Point = Literal["before_headers", "after_headers"] | int
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Script:
    """What the server does with one request; the defaults are those of a well-behaved model."""

    deltas: Sequence[str | bytes] = ()
    """The texts to stream; `bytes` go out raw, in the place of an event."""
    first_after_seconds: float = 0.0
    """Silence before the headers."""
    stall_after_headers_seconds: float = 0.0
    every_seconds: float = 0.0
    """From one delta to the next."""
    byte_seconds: float = 0.0
    """Send the stream one byte at a time, this long apart."""
    stamped: bool = False
    """Append `:`, the `time.monotonic_ns()` of its sending and a blank to each delta."""
    finish_reason: str | None = "stop"
    usage: tuple[int, int] | None = None
    """Tokens of prompt and completion; streamed to those who ask for them, or `usage_always`."""
    usage_always: bool = False
    done: bool = True
    """End the stream with `data: [DONE]`."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """The whole answer, in the place of a stream or completion."""
    hang: Point | None = None
    """Stay silent from here on, or after so many deltas, until the client goes away."""
    cut_after: int | None = None
    """After so many deltas, close the connection in the middle of the next one."""
    flood_bytes: int = 0
    """In the place of the deltas, one line of data of this size without an end."""

    def __post_init__(self) -> None:
        size = len(self.deltas)
        if isinstance(self.hang, int) and not 0 <= self.hang <= size:
            raise ValueError(f"cannot hang after {self.hang} deltas of {size}")
        if self.cut_after is not None and not 0 <= self.cut_after < size:
            raise ValueError(f"cannot cut the delta after {self.cut_after} of {size}")


def says(*deltas: str | bytes, **more: Any) -> Script:
    """Stream these deltas; `more` are fields of `Script`, here and below."""
    return Script(deltas=deltas, **more)


def echoes(text: str, **more: Any) -> Script:
    """Stream "You said: …" word by word."""
    first, *words = f"You said: {text}".split(" ")
    return says(first, *(f" {word}" for word in words), **more)


def refuses(
    status: int,
    *,
    message: str = "",
    code: str | None = None,
    retry_after: float | None = None,
    **more: Any,
) -> Script:
    """Answer with this status and an error as OpenAI words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = message or reason_phrases.get(status, "Refused")
    error = {"message": message, "type": kind, "code": code, "param": None}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Script(status=status, headers=headers, body=encode({"error": error}), **more)


def hangs(*, after: Point, deltas: Sequence[str] = TALE, **more: Any) -> Script:
    """Fall silent before or after the headers or after so many deltas, the connection open."""
    return Script(deltas=deltas, hang=after, **more)


def breaks_off(*, after: int, deltas: Sequence[str] = TALE, **more: Any) -> Script:
    """Close the connection in the middle of the delta that follows so many."""
    return Script(deltas=deltas, cut_after=after, **more)


def floods(size_bytes: int) -> Script:
    """Send one line of data without an end, as fast as the client takes it."""
    return Script(flood_bytes=size_bytes)


def trickles(*deltas: str, byte_seconds: float = 1.0, **more: Any) -> Script:
    """Stream these deltas byte by byte."""
    return Script(deltas=deltas, byte_seconds=byte_seconds, **more)


def garbage(body: bytes, content_type: str = "text/event-stream") -> Script:
    """Answer 200 with these bytes, whatever was asked."""
    return Script(body=body, headers={"content-type": content_type})


def no_choices(count: int = 3) -> Script:
    """Stream well-formed chunks that hold no choice."""
    return garbage(chunk() * count + DONE)


def surrogates(text: str) -> list[str]:
    """The UTF-16 units of a text as deltas, as from a server that cuts an emoji in two."""
    units = text.encode("utf-16-be")
    pairs = (units[start : start + 2] for start in range(0, len(units), 2))
    return [pair.decode("utf-16-be", "surrogatepass") for pair in pairs]


def scripted_by_message(text: str) -> Script:
    """Do what the message says: {"deltas": 100, "every": 0.1, "first": 0.05, "stamped": true}.

    Delta i is `f"{i:05d} "`, or stamped `f"{i:05d}:{monotonic_ns} "`; `first` is the silence before
    the headers. Other keys are the client's own, to tell its messages apart; any other message is
    echoed.
    """
    try:
        plan = json.loads(text)
        count, every = int(plan["deltas"]), float(plan.get("every", 0))
        first = float(plan.get("first", 0))
    except (ValueError, LookupError, TypeError, OverflowError):
        return echoes(text)
    if not 0 <= count <= DELTAS_MAX:
        return refuses(400, message=f"deltas: 0 to {DELTAS_MAX}")
    stamped = bool(plan.get("stamped"))
    numbers = [f"{number:05d}" if stamped else f"{number:05d} " for number in range(count)]
    return Script(deltas=numbers, first_after_seconds=first, every_seconds=every, stamped=stamped)


def encode(value: object) -> bytes:
    # A lone surrogate has no UTF-8; its escape in Python is the one in JSON.
    return _encoder.encode(value).encode("utf-8", "backslashreplace")


def completion(kind: str, choices: Sequence[dict[str, Any]], **more: object) -> bytes:
    common = {"id": "chatcmpl-1", "object": kind, "created": 0, "model": MODEL}
    return encode({**common, "choices": choices, **more})


def chunk(*choices: dict[str, Any], **more: object) -> bytes:
    """One event of a stream."""
    return b"data: %b\n\n" % completion("chat.completion.chunk", choices, **more)


@lru_cache(maxsize=4096)
def delta_chunk(text: str, **more: str) -> bytes:
    return chunk({"index": 0, "delta": {**more, "content": text}, "finish_reason": None})


def usage_object(usage: tuple[int, int]) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return dict(zip(names, (*usage, sum(usage)), strict=True))
