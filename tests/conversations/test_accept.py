"""Which of the two a client likes better."""

import time

import pytest

from conversations.accept import HEADER_CHARACTERS_MAX, wants_events


@pytest.mark.parametrize(
    "header",
    [
        "text/event-stream",
        "TEXT/EVENT-STREAM",
        "text/event-stream;charset=utf-8",
        "text/event-stream, */*",
        "text/event-stream, */*;q=0.1",
        "text/html, text/event-stream;q=0.1",
        "application/json;q=0.5, text/event-stream",
        "application/json;q=0.5,text/event-stream ; q=0.9",
        "text/event-stream;q=0.5, application/*;q=0.4, */*",
        "text/event-stream; x*=bogus''a",
    ],
)
def test_an_event_stream_is_wanted(header: str) -> None:
    assert wants_events(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "*/*",
        "text/*",
        "application/json",
        "application/json, text/event-stream",
        "text/event-stream, application/json",
        "text/event-stream;q=0, */*",
        "text/event-stream;q=0",
        "text/event-stream;q=0.5, application/json",
        "text/event-stream;q=0.5, application/*",
        "text/event-stream;q=0.5, */*",
        "text/event-stream;q=0.0001, application/json;q=0.5",
        "text/event-stream;q=.5,*/*;q=0.8",
        "text/event-stream;q=high",
        ";;text/event-stream;;",
        "text/event-streams",
        "text/event-stream" + " " * HEADER_CHARACTERS_MAX,
    ],
)
def test_json_is_wanted(header: str) -> None:
    assert not wants_events(header)


def test_no_header_takes_long_to_read() -> None:
    headers = ['text/event-stream;x="' + ";" * 15_000, "text/event-stream," * 900, "," * 16_000]
    started = time.perf_counter()
    for header in headers:
        wants_events(header)
    assert time.perf_counter() - started < 0.05
