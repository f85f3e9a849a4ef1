"""The openai responder against a scripted server, through the real library and a real socket."""

import json
import logging
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from config.environment import KEY_NAMES, PROJECT_DIR
from config.keyfile import new_key
from conversations.domain import Usage
from conversations.prices import tokens_estimated, tokens_max
from conversations.responders import (
    DeadlinePassed,
    Prompt,
    Reply,
    ResponderFailed,
    Stopped,
    Turn,
    completion,
    make_responder,
    openai,
    upstream,
)
from conversations.responders.completion import Text, joined
from conversations.responders.openai import OpenAiResponder, probe, retry_after_seconds
from devstack.model_scripts import (
    MODEL,
    Point,
    Script,
    breaks_off,
    chunk,
    floods,
    garbage,
    hangs,
    no_choices,
    refuses,
    says,
    surrogates,
    trickles,
)
from devstack.model_server import ModelServer
from devstack.processes import free_port
from tests.config.processes import FULL, environment

MESSAGE_ID = UUID("4b1d7a3e-7c52-4b7e-9d0e-1f2a3b4c5d6e")
KEY = "sk-canary-0123456789"
FINISH = chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
#: A hang-up has to reach the upstream within this.
PROMPTLY_SECONDS = 1.0


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Nothing here needs the database that the other tests of this folder start with."""


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server
    forget_the_upstream()


def forget_the_upstream() -> None:
    upstream.upstream().stop()
    upstream.upstream.forget()


@pytest.fixture
def server(
    lasting_server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> ModelServer:
    """A scripted server that the settings name, and an upstream that knows nothing about it yet."""
    lasting_server.requests.clear()
    lasting_server.scripts.clear()
    settings.RESPONDER = "openai"
    settings.OPENAI_BASE_URL = lasting_server.url
    settings.OPENAI_MODEL = MODEL
    settings.WORKER_THREADS = 64
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(openai, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(upstream.upstream(), "limit_name", "max_tokens")
    return lasting_server


@contextmanager
def another_upstream() -> Iterator[None]:
    """Have the upstream made anew from settings that were changed."""
    forget_the_upstream()
    try:
        yield
    finally:
        forget_the_upstream()


class Heard:
    """A reply that keeps what is said."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.stopped_at: float | None = None
        self._stops: list[Callable[[], object]] = []

    def say(self, text: str) -> None:
        if self.stopped_at is not None:
            raise Stopped
        text.encode()
        self.pieces.append(text)
        self.times.append(time.monotonic())

    def on_stop(self, stop: Callable[[], object]) -> None:
        self._stops.append(stop)

    def stop(self, *, by_call: bool = True) -> None:
        self.stopped_at = time.monotonic()
        for stop in self._stops * by_call:
            stop()


def ask(
    message: str = "hello",
    reply: Reply | None = None,
    *,
    seconds: float = 10.0,
    earlier: Callable[[], Iterator[Turn]] = lambda: iter(()),
) -> Usage | None:
    prompt = Prompt(MESSAGE_ID, message, seconds, earlier)
    return OpenAiResponder().respond(prompt, reply or Heard())


def heard(message: str = "hello", *, seconds: float = 10.0) -> list[str]:
    reply = Heard()
    ask(message, reply, seconds=seconds)
    return reply.pieces


def cause(message: str = "hello", *, seconds: float = 10.0) -> str:
    """Why no response could be had."""
    with pytest.raises(ResponderFailed) as failed:
        ask(message, seconds=seconds)
    text = str(failed.value)
    assert 0 < len(text) <= 500
    assert text.isprintable()
    return text


@contextmanager
def asking(reply: Heard) -> Iterator[Future[Usage | None]]:
    with ThreadPoolExecutor(1) as worker:
        yield worker.submit(ask, "hello", reply)


def hung_up_at(server: ModelServer) -> float:
    """When the upstream saw the connection of the latest request close, before it was through."""
    asked = server.requests[-1]
    server.wait_for(lambda: asked.closed_at is not None)
    assert asked.client_hung_up
    assert asked.closed_at is not None
    return asked.closed_at


# What is asked, and what is said


def test_make_responder_knows_openai(server: ModelServer) -> None:
    responder = make_responder()

    assert isinstance(responder, OpenAiResponder)
    assert (responder.model, responder.waits) == (MODEL, True)


def test_pieces_are_said_in_order_as_they_come(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", " there", "!", every_seconds=0.15)
    ask("What is imported at the first request is imported now.")
    reply = Heard()

    assert ask("hello", reply) is None

    assert reply.pieces == ["Hi", " there", "!"]
    first, last = reply.times[0], reply.times[-1]
    assert last - first >= 0.25
    assert first < server.requests[-1].delta_times[1]


def test_a_request_holds_the_message_the_model_and_the_limit_and_nothing_else(
    server: ModelServer, settings: Settings
) -> None:
    settings.RESPONSE_TOKENS_MAX = 77

    ask("hello")

    (asked,) = server.requests
    assert asked.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_tokens": 77,
    }
    assert "authorization" not in asked.headers
    assert asked.headers["accept-encoding"] == "identity"


def test_a_connection_is_used_again(server: ModelServer) -> None:
    ask()
    ask()

    # The first was read to its end, so nobody hung up on it.
    assert [asked.client_hung_up for asked in server.requests] == [False, False]


def test_the_system_prompt_comes_first_and_earlier_turns_in_time_order(
    server: ModelServer, settings: Settings
) -> None:
    settings.SYSTEM_PROMPT = "Be brief."
    turns = [Turn("second", "2nd response"), Turn("first", "1st response")]
    reply = Heard()

    ask("third", reply, earlier=lambda: iter(turns))

    messages = server.requests[0].body["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "1st response"),
        ("user", "second"),
        ("assistant", "2nd response"),
        ("user", "third"),
    ]
    assert reply.prompt_tokens == sum(tokens_estimated(each["content"]) for each in messages)


def test_the_oldest_turns_are_left_out_when_the_context_is_full(
    server: ModelServer, settings: Settings
) -> None:
    settings.SYSTEM_PROMPT = "s" * 30
    looked_at = []

    def earlier() -> Iterator[Turn]:
        for number in range(1000):
            looked_at.append(number)
            yield Turn(f"{number:010d}", "r" * 20)

    turn_tokens = tokens_max("0" * 10) + tokens_max("r" * 20)
    always = tokens_max(settings.SYSTEM_PROMPT) + tokens_max("hello")
    settings.CONTEXT_TOKENS_MAX = always + 3 * turn_tokens

    ask("hello", earlier=earlier)
    settings.CONTEXT_TOKENS_MAX -= 1
    ask("hello", earlier=earlier)

    sent = [[each["content"] for each in asked.body["messages"]] for asked in server.requests]
    three, two = ([text for text in texts if text.startswith("0")] for texts in sent)
    assert three == ["0000000002", "0000000001", "0000000000"]
    assert two == ["0000000001", "0000000000"]
    assert looked_at == [0, 1, 2, 3, 0, 1, 2]


def test_the_system_prompt_and_the_message_are_never_cut(
    server: ModelServer, settings: Settings
) -> None:
    settings.CONTEXT_TOKENS_MAX = 256
    settings.SYSTEM_PROMPT = "s" * 200
    message = "\N{GRINNING FACE}" * 8_000

    ask(message, earlier=lambda: iter([Turn("before", "response")]))

    texts = [each["content"] for each in server.requests[0].body["messages"]]
    assert texts == [settings.SYSTEM_PROMPT, message]


def test_forty_responses_are_generated_at_once_on_one_loop(server: ModelServer) -> None:
    replies = [Heard() for _ in range(40)]
    for number in range(40):
        server.scripts[f"message {number}"] = hangs(after=1, deltas=[f"response {number}", "more"])

    with ThreadPoolExecutor(40) as workers:
        answers = [
            workers.submit(ask, f"message {number}", reply) for number, reply in enumerate(replies)
        ]
        server.wait_for(lambda: all(reply.pieces for reply in replies))
        assert server.now_streaming == 40
        assert [thread.name for thread in threading.enumerate()].count("upstream") == 1
        for reply in replies:
            reply.stop()
        for answer in answers:
            with pytest.raises(Stopped):
                answer.result(5)

    assert [reply.pieces for reply in replies] == [[f"response {n}"] for n in range(40)]
    server.wait_for(lambda: server.now_streaming == 0, PROMPTLY_SECONDS)


def test_a_text_may_hold_any_character(server: ModelServer) -> None:
    server.scripts["hello"] = says("a\x00b", "\x1b[31m\r\n", "\u2028", "\N{GRINNING FACE}")

    assert "".join(heard()) == "a\x00b\x1b[31m\r\n\u2028\N{GRINNING FACE}"


def test_an_emoji_that_was_cut_in_two_is_put_together(server: ModelServer) -> None:
    server.scripts["hello"] = says(*surrogates("a\N{GRINNING FACE}b"))

    assert heard() == ["a", "\N{GRINNING FACE}", "b"]


def test_half_an_emoji_becomes_a_replacement_character(server: ModelServer) -> None:
    server.scripts["hello"] = says("a", "\ud83d", "b", "\ude00", "c\ud83d")

    assert "".join(heard()) == "a\ufffdb\ufffdc\ufffd"


@given(st.lists(st.text(st.characters(), min_size=1)))
def test_any_pieces_are_said_as_valid_text(pieces: list[str]) -> None:
    reply = Heard()
    text = Text(reply)

    for piece in pieces:
        text.add(piece)
    text.end()

    said, whole = "".join(reply.pieces), "".join(pieces)
    assert said == joined(whole)
    assert said.replace("\ufffd", "") == "".join(each for each in joined(whole) if each != "\ufffd")


# What it took


@pytest.fixture
def by_usage(settings: Settings) -> None:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 10
    settings.COMPLETION_PRICE_PER_1000 = 40


def test_the_upstream_says_what_a_response_took(server: ModelServer, by_usage: None) -> None:
    server.scripts["hello"] = says("Hi", usage=(12, 3))

    assert ask() == Usage(prompt_tokens=12, completion_tokens=3, estimated=False)
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


def test_an_upstream_that_does_not_count_says_nothing(server: ModelServer, by_usage: None) -> None:
    server.scripts["hello"] = says("Hi")

    assert ask() is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 12, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 3.5},
        {"prompt_tokens": "12", "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 10**30},
        {"prompt_tokens": 12},
        {},
        [],
        "many",
        7,
    ],
)
def test_a_usage_that_makes_no_sense_is_none(
    server: ModelServer, by_usage: None, usage: object
) -> None:
    server.scripts["hello"] = says("Hi", FINISH, chunk(usage=usage), finish_reason=None)

    assert ask() is None


def test_the_first_of_several_choices_is_the_response(server: ModelServer) -> None:
    other = chunk({"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"})
    both = chunk(
        {"index": 1, "delta": {"content": "other"}},
        {"index": 0, "delta": {"content": " there"}},
    )
    server.scripts["hello"] = says("Hi", other, both)

    assert "".join(heard()) == "Hi there"


def test_a_text_that_is_complete_is_not_waited_for_longer_whatever_follows(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "TAIL_SECONDS", 0.2)
    server.scripts["hello"] = says("Hi", FINISH, *["more"] * 100, every_seconds=0.05)

    began = time.monotonic()
    assert heard()[0] == "Hi"
    assert time.monotonic() - began < 2


def test_a_text_that_is_complete_before_its_deadline_is_a_response(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", FINISH, hang=2, finish_reason=None)

    assert heard(seconds=0.5) == ["Hi"]


def test_a_flood_of_empty_lines_is_broken_off(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", b":\n" * 400_000)

    began = time.monotonic()
    assert "262144 lines" in cause()
    assert time.monotonic() - began < 5


# Attempts


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_refusal_that_may_pass_is_tried_again(server: ModelServer, status: int) -> None:
    server.scripts["hello"] = [refuses(status), says("Hi")]

    assert heard() == ["Hi"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 413, 422])
def test_a_refusal_that_stays_is_not_tried_again(server: ModelServer, status: int) -> None:
    server.scripts["hello"] = refuses(status, message="no\nsuch\x1b thing")

    assert cause() == f"status {status}: no such thing"
    assert len(server.requests) == 1


def test_a_long_cause_is_cut(server: ModelServer) -> None:
    server.scripts["hello"] = refuses(400, message="x" * 10_000)

    assert len(cause()) == 500


def test_four_attempts_are_all(server: ModelServer) -> None:
    server.scripts["hello"] = refuses(503)

    assert cause().startswith("status 503")
    assert len(server.requests) == 4


def test_the_pauses_between_attempts_double_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "BACKOFF_SECONDS", 0.5)
    pauses = [[openai._backoff_seconds(attempt) for _ in range(50)] for attempt in range(1, 9)]

    for attempt, some in enumerate(pauses):
        longest = min(0.5 * 2**attempt, 8.0)
        assert all(longest / 2 <= pause <= longest for pause in some)
        assert len(set(some)) > 1


def test_a_server_that_says_so_is_not_asked_again(server: ModelServer) -> None:
    refusal = refuses(503)
    server.scripts["hello"] = Script(
        status=503, body=refusal.body, headers={"x-should-retry": "false"}
    )

    cause()

    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(server: ModelServer, status: int) -> None:
    server.scripts["hello"] = [refuses(status, retry_after=0.4), says("Hi")]

    assert heard() == ["Hi"]

    first, second = (asked.began_at for asked in server.requests)
    assert 0.4 <= second - first < 1.0


def test_retry_after_beyond_the_deadline_fails_at_once(server: ModelServer) -> None:
    server.scripts["hello"] = refuses(429, retry_after=60, message="slow down")
    began = time.monotonic()

    text = cause(seconds=5.0)

    assert "status 429: slow down" in text
    assert "the next attempt is due in 60.0 s" in text
    assert time.monotonic() - began < 1.0
    assert len(server.requests) == 1


def test_retry_after_is_seconds_or_a_date_or_nothing() -> None:
    assert retry_after_seconds("1.5") == 1.5
    assert 8 <= retry_after_seconds(formatdate(time.time() + 10, usegmt=True)) <= 10
    assert retry_after_seconds(formatdate(time.time() - 10, usegmt=True)) == 0
    for nonsense in ("", "soon", "-1", "nan", "Fri, 99 Foo 2026"):
        assert retry_after_seconds(nonsense) == 0
    assert retry_after_seconds("1e999") == float("inf")


def test_a_connection_that_breaks_before_the_text_is_tried_again(server: ModelServer) -> None:
    server.scripts["hello"] = [breaks_off(after=0), says("Hi")]

    assert heard() == ["Hi"]


def test_nothing_is_asked_again_after_the_first_piece(server: ModelServer) -> None:
    server.scripts["hello"] = [breaks_off(after=1, deltas=["Hi", "x", "y"]), says("Ho")]
    reply = Heard()

    with pytest.raises(ResponderFailed, match=r"^connection: "):
        ask("hello", reply)

    assert reply.pieces == ["Hi"]
    assert len(server.requests) == 1


def test_half_an_emoji_of_a_broken_attempt_is_forgotten(server: ModelServer) -> None:
    server.scripts["hello"] = [breaks_off(after=1, deltas=["\ud83d", "x"]), says("\ude00", "Hi")]

    assert heard() == ["\ufffd", "Hi"]


def test_an_upstream_that_is_away_is_named(server: ModelServer, settings: Settings) -> None:
    settings.OPENAI_BASE_URL = f"http://127.0.0.1:{free_port()}/v1"
    with another_upstream():
        assert cause().startswith("connection: ConnectError")


@pytest.mark.parametrize("name", ["max_tokens", "'max_tokens' is not supported"])
def test_a_model_that_wants_another_name_for_the_limit_gets_it_from_then_on(
    server: ModelServer, name: str
) -> None:
    refusal = refuses(400, code="unsupported_parameter", message=f"Unsupported: {name}")
    server.scripts["hello"] = [refusal, says("Hi")]

    assert heard() == ["Hi"]
    ask("again")

    named = [
        sorted(set(asked.body) & {"max_tokens", "max_completion_tokens"})
        for asked in server.requests
    ]
    assert named == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_a_model_that_wants_neither_name_is_not_asked_for_ever(server: ModelServer) -> None:
    server.scripts["hello"] = refuses(400, code="unsupported_parameter", message="max_tokens")

    cause()

    assert len(server.requests) == 2


# Stops and timeouts


@pytest.mark.parametrize("after", ["before_headers", "after_headers", 0, 2])
def test_a_stop_while_the_upstream_is_silent_hangs_up_promptly(
    server: ModelServer, after: Point
) -> None:
    server.scripts["hello"] = hangs(after=after, deltas=["a", "b", "c"])
    reply = Heard()
    said = after if isinstance(after, int) else 0

    with asking(reply) as answer:
        server.wait_for(lambda: server.requests and len(reply.pieces) == said)
        reply.stop()
        with pytest.raises(Stopped):
            answer.result(5)

    assert reply.stopped_at is not None
    assert hung_up_at(server) - reply.stopped_at < PROMPTLY_SECONDS
    assert len(reply.pieces) == said


@pytest.mark.parametrize("by_call", [True, False])
def test_a_stop_while_the_upstream_streams_hangs_up_promptly(
    server: ModelServer, *, by_call: bool
) -> None:
    server.scripts["hello"] = says(*["x"] * 1000, every_seconds=0.02)
    reply = Heard()

    with asking(reply) as answer:
        server.wait_for(lambda: len(reply.pieces) > 3)
        reply.stop(by_call=by_call)
        with pytest.raises(Stopped):
            answer.result(5)

    assert reply.stopped_at is not None
    assert hung_up_at(server) - reply.stopped_at < PROMPTLY_SECONDS


def test_a_stop_between_attempts_ends_them(server: ModelServer) -> None:
    server.scripts["hello"] = refuses(503, retry_after=5)
    reply = Heard()

    with asking(reply) as answer:
        server.wait_for(lambda: server.requests and server.requests[0].closed_at)
        reply.stop()
        with pytest.raises(Stopped):
            answer.result(2)

    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["before_headers", 1])
def test_a_response_is_broken_off_at_its_deadline(server: ModelServer, after: Point) -> None:
    server.scripts["hello"] = hangs(after=after)
    began = time.monotonic()

    with pytest.raises(DeadlinePassed):
        ask(seconds=0.3)

    assert 0.3 <= time.monotonic() - began < 1.0
    assert hung_up_at(server) - began < 0.3 + PROMPTLY_SECONDS


def test_a_stream_that_never_ends_is_broken_off_at_its_deadline(server: ModelServer) -> None:
    server.scripts["hello"] = says(*["x"] * 1000, every_seconds=0.02)

    with pytest.raises(DeadlinePassed):
        ask(seconds=0.3)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_nobody_is_asked_after_the_deadline(server: ModelServer, seconds: float) -> None:
    with pytest.raises(DeadlinePassed):
        ask(seconds=seconds)

    assert not [asked for asked in server.requests if asked.sent_deltas]


@pytest.mark.parametrize("after", ["before_headers", "after_headers"])
def test_an_upstream_that_does_not_begin_is_tried_again(
    server: ModelServer, settings: Settings, after: Point
) -> None:
    settings.OPENAI_FIRST_BYTE_SECONDS = 0.2
    server.scripts["hello"] = [hangs(after=after), says("Hi")]

    assert heard() == ["Hi"]
    assert server.requests[0].client_hung_up


def test_an_upstream_that_never_begins_is_named(
    server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPENAI_FIRST_BYTE_SECONDS = 0.1
    monkeypatch.setattr(openai, "ATTEMPTS_MAX", 2)
    server.scripts["hello"] = hangs(after="before_headers")

    assert cause() == "no response began within 0.1 s"
    assert len(server.requests) == 2


def test_an_upstream_that_falls_silent_is_broken_off(
    server: ModelServer, settings: Settings
) -> None:
    settings.OPENAI_SILENCE_SECONDS = 0.2
    server.scripts["hello"] = hangs(after=2)
    began = time.monotonic()

    assert cause() == "the upstream fell silent for 0.2 s"
    assert time.monotonic() - began < 1.0
    assert hung_up_at(server) - began < PROMPTLY_SECONDS


def test_the_time_to_begin_does_not_count_later(server: ModelServer, settings: Settings) -> None:
    settings.OPENAI_FIRST_BYTE_SECONDS = 0.3
    server.scripts["hello"] = says(*"abcde", every_seconds=0.1)

    assert heard() == list("abcde")


def test_a_byte_a_second_is_no_response(
    server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPENAI_FIRST_BYTE_SECONDS = 1.5
    monkeypatch.setattr(openai, "ATTEMPTS_MAX", 1)
    server.scripts["hello"] = trickles("Hi", byte_seconds=1.0)

    assert cause() == "no response began within 1.5 s"


# What is no response


def test_a_stream_without_a_finish_reason_is_half_a_stream(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", finish_reason=None)

    assert cause() == "half a stream (text/event-stream)"


def test_a_stream_without_its_done_is_whole(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", done=False)

    assert heard() == ["Hi"]


def test_what_goes_wrong_behind_the_text_does_not_matter(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "TAIL_SECONDS", 0.1)
    server.scripts["silence"] = says("Hi", FINISH, hang=2)
    server.scripts["end"] = says("Hi", FINISH, "x", cut_after=2)
    server.scripts["error"] = says("Hi", FINISH, b'data: {"error": {"message": "oh"}}\n\n')
    server.scripts["garbage"] = says("Hi", FINISH, b"data: {\n\n")

    for message in ("silence", "end", "error", "garbage"):
        assert heard(message) == ["Hi"], message


@pytest.mark.parametrize("finish_reason", ["stop", "content_filter"])
def test_a_response_without_text_is_none(server: ModelServer, finish_reason: str) -> None:
    server.scripts["hello"] = says("", finish_reason=finish_reason)

    assert cause() == f"an empty response ({finish_reason})"
    assert len(server.requests) == 1


EVENTS: list[object] = [
    None,
    7,
    "text",
    [],
    [1],
    {"choices": 7},
    {"choices": [7]},
    {"choices": {"0": {}}},
    {"choices": [{"delta": 7, "finish_reason": "stop"}]},
    {"choices": [{"delta": {"content": 7}, "finish_reason": "stop"}]},
    {"choices": [{"delta": {"content": ["a"]}, "finish_reason": "stop"}]},
]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (garbage(b"<html><body>Welcome</body></html>", "text/html"), "half a stream (text/html)"),
        (garbage(b""), "half a stream (text/event-stream)"),
        (garbage(b"\x00\xff\xfe\n\n"), "an event that is not JSON in UTF-8"),
        (garbage(b"data: {\n\n"), "an event that is not JSON in UTF-8"),
        (garbage(b"data: \xff\n\n"), "an event that is not JSON in UTF-8"),
        (garbage(b"data: " + b"[" * 200_000 + b"\n\n"), "an event that is not JSON in UTF-8"),
        (garbage(b"data: {}\n\n"), "half a stream (text/event-stream)"),
        (garbage(b'data: {"choices": [{}]}\n\n'), "half a stream (text/event-stream)"),
        (no_choices(), "half a stream (text/event-stream)"),
        *(
            (garbage(b"data: " + json.dumps(event).encode() + b"\n\n"), "an event ")
            for event in EVENTS
        ),
        (
            garbage(b'data: {"error": {"message": "overloaded", "code": 529}}\n\n'),
            "an error in the stream: overloaded",
        ),
        (garbage(b'data: {"error": "overloaded"}\n\n'), "an error in the stream: "),
        (
            Script(body=b"\x1f\x8b", headers={"content-encoding": "gzip"}),
            "the upstream's response is compressed (gzip)",
        ),
    ],
)
def test_garbage_is_no_response(server: ModelServer, script: Script, expected: str) -> None:
    server.scripts["hello"] = script

    assert cause().startswith(expected)
    assert len(server.requests) == 1


def test_a_text_that_is_too_long_is_broken_off(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(completion, "RESPONSE_CHARACTERS_FLOOR", 100)
    settings.RESPONSE_TOKENS_MAX = 4
    server.scripts["whole"] = says("x" * 64, "y" * 64)
    server.scripts["hello"] = says("x" * 64, "y" * 64, "z", *["."] * 1000, every_seconds=0.01)

    assert len(heard("whole")) == 2
    assert cause() == "a response of more than 128 characters"
    assert server.requests[-1].sent_deltas < 1000


def test_a_line_of_fifty_megabytes_is_broken_off_and_does_not_fill_the_memory(
    server: ModelServer,
) -> None:
    server.scripts["hello"] = floods(50 * 1024 * 1024)
    ask("warm up")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        text = cause()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert text == "the upstream sent more than 8388608 bytes"
    assert peak - before < 40 * 1024 * 1024
    assert len(server.requests) == 2


def test_an_error_page_without_end_is_broken_off(server: ModelServer) -> None:
    server.scripts["hello"] = Script(status=500, body=b"x" * 9 * 1024 * 1024)

    assert cause() == "the upstream sent more than 8388608 bytes"


def test_what_a_response_may_weigh_grows_with_its_length(settings: Settings) -> None:
    settings.RESPONSE_TOKENS_MAX = 1_000_000

    assert upstream.wire_bytes_max() == 2048 * 1_000_000
    assert completion.response_characters_max() == 32 * 1_000_000


# The key


@pytest.fixture
def with_key(server: ModelServer, settings: Settings) -> Iterator[None]:
    settings.OPENAI_API_KEY = KEY
    with another_upstream():
        yield


def test_the_key_is_sent(server: ModelServer, with_key: None) -> None:
    ask()

    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "script",
    [
        refuses(401, message=f"Incorrect API key provided: {KEY}.", code="invalid_api_key"),
        refuses(400, message=f"{'x' * 490} {KEY}"),
        Script(status=404, body=f"<p>{KEY}</p>".encode()),
        Script(status=503, body=f"[{KEY}]".encode()),
        garbage(b'data: {"error": {"message": "%b"}}\n\n' % KEY.encode()),
        garbage(b"data: " + KEY.encode() + b"\n\n"),
        garbage(b"", content_type=KEY),
    ],
)
def test_a_key_that_an_upstream_repeats_is_nowhere_in_what_is_logged(
    server: ModelServer, with_key: None, caplog: pytest.LogCaptureFixture, script: Script
) -> None:
    server.scripts["hello"] = script
    caplog.set_level(logging.INFO)

    with pytest.raises(ResponderFailed) as failed:
        ask()

    shown = "".join(traceback.format_exception(failed.value)) + caplog.text
    assert KEY not in shown
    assert KEY[:-1] not in shown


# The probe


def probed(caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    caplog.set_level(logging.INFO, "conversations")
    caplog.clear()
    probe()
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    return record.levelname, record.getMessage()


def test_the_probe_finds_the_model(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    assert probed(caplog) == ("INFO", f"the upstream {server.url} knows the model {MODEL}")


def test_the_probe_names_a_model_that_is_not_listed(
    server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OPENAI_MODEL = "another"

    level, line = probed(caplog)

    assert level == "WARNING"
    assert line.endswith(f"does not list the model another; it lists: {MODEL}")


def test_the_probe_says_when_the_upstream_is_away(
    server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OPENAI_BASE_URL = f"http://127.0.0.1:{free_port()}/v1"
    with another_upstream():
        level, line = probed(caplog)

    assert level == "WARNING"
    assert "is not reachable: ConnectError" in line


def test_the_probe_says_when_the_key_is_refused_and_not_which(
    server: ModelServer,
    settings: Settings,
    with_key: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ModelServer(api_key="another") as strict:
        settings.OPENAI_BASE_URL = strict.url
        level, line = probed(caplog)

    assert level == "WARNING"
    assert "OPENAI_API_KEY is refused: status 401: Incorrect API key provided: ***." in line


@pytest.mark.parametrize(("responder", "probes"), [("openai", 1), ("dummy", 0)])
def test_a_worker_that_starts_probes_the_upstream_it_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, responder: str, probes: int
) -> None:
    from config import runtime
    from conversations import worker

    settings.RESPONDER = responder
    probed_in: list[threading.Thread] = []
    monkeypatch.setattr(worker, "start_worker", lambda threads: None)
    monkeypatch.setattr(openai, "probe", lambda: probed_in.append(threading.current_thread()))

    runtime.start_worker()

    for thread in threading.enumerate():
        if thread.name == "probe":
            thread.join(5)
    assert [thread.daemon for thread in probed_in] == [True] * probes


# The process


def test_a_proxy_of_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert upstream._proxy("https://api.example.org/v1") == "http://proxy:3128"
    assert upstream._proxy("http://localhost:11434/v1") is None
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert upstream._proxy("https://api.example.org:8443/v1") is None


def test_a_stop_of_the_process_breaks_off_what_runs(server: ModelServer) -> None:
    server.scripts["hello"] = hangs(after=1)
    reply = Heard()

    with asking(reply) as answer:
        server.wait_for(lambda: reply.pieces)
        began = time.monotonic()
        forget_the_upstream()
        with pytest.raises(Stopped):
            answer.result(5)

    assert hung_up_at(server) - began < PROMPTLY_SECONDS


WEB = "import django; django.setup(); import config.asgi, conversations.api"
DUMMY = (
    "import django; django.setup(); import conversations.worker;"
    "from conversations.responders import make_responder; make_responder()"
)
UPSTREAM = {"RESPONDER": "openai", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_MODEL": "m"}


@pytest.mark.parametrize(
    ("code", "settings_of_it"), [(WEB, UPSTREAM), (DUMMY, {"RESPONDER": "dummy"})]
)
def test_who_asks_no_upstream_does_not_import_the_library(
    code: str, settings_of_it: dict[str, str]
) -> None:
    keys = {name: new_key() for name in KEY_NAMES}
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; sys.exit('openai' in sys.modules)"],
        cwd=PROJECT_DIR,
        env=environment(DJANGO_SETTINGS_MODULE="config.settings", **FULL, **keys, **settings_of_it),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("status 404: there is no model x", "status 404: there is no model x"),
        ("invalid: my secret diary of 1999", "invalid: […]"),
        ('invalid: {"content": "my secret diary of 1999"}', 'invalid: {"content": […]}'),
        ("invalid: ...cret diary of 1999 was", "invalid: ...[…] was"),
        ('invalid: "caf\\u00e9 au lait, twice"', "invalid: […]"),
        ("you said canary, did you", "you said […], did you"),
        ("my secret is short", "my secret is short"),
        ("invalid: hello bob42 is not ok", "invalid: […] is not ok"),
        ("bad request: his hi five is abc123", "bad request: […]"),
        ("Error 422 - [{'input': 'żółw:\\nkot12\\nkoń 4711'}]", "Error 422 - [{'input': […]}]"),
        ("", ""),
    ],
)
def test_what_an_error_quotes_of_a_conversation_is_left_out(text: str, kept: str) -> None:
    said = ["my secret diary of 1999", "café au lait, twice", "canary", "hi", "hello"]
    said += ["hello bob42", "five", "his hi five is abc123", "żółw:\nkot12\nkoń 4711"]
    assert openai.without(text, said) == kept


def test_leaving_quotations_out_takes_no_time_worth_the_name() -> None:
    text = ("a" * 11 + "c") * (openai.QUOTED_CHARACTERS_MAX // 12)
    began = time.perf_counter()
    openai.without(text, ["a" * openai.SAID_CHARACTERS_MAX])
    assert time.perf_counter() - began < 0.5
