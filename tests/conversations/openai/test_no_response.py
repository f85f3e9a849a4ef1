"""What an upstream may say that is no response."""

import json
import tracemalloc

import pytest
from pytest_django import Settings

from conversations.responders import completion, upstream
from devstack.model_scripts import Script, floods, garbage, no_choices, says
from devstack.model_server import ModelServer
from tests.conversations.openai.asking import FINISH, ask, cause, heard


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
