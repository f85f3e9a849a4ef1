"""A response is broken off when it is stopped, late, or silent."""

import time

import pytest
from pytest_django import Settings

from conversations.responders import DeadlinePassed, Stopped, openai
from devstack.model_scripts import Point, hangs, refuses, says, trickles
from devstack.model_server import ModelServer
from tests.conversations.openai.asking import (
    PROMPTLY_SECONDS,
    Heard,
    ask,
    asking,
    cause,
    heard,
    hung_up_at,
)


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
