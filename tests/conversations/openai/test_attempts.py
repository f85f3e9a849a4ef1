"""What is asked again, and how often, and what is not."""

import time
from email.utils import formatdate

import pytest
from pytest_django import Settings

from conversations.responders import ResponderFailed, openai
from conversations.responders.openai import retry_after_seconds
from devstack.model_scripts import Script, breaks_off, refuses, says
from devstack.model_server import ModelServer
from devstack.processes import free_port
from tests.conversations.openai.asking import Heard, another_upstream, ask, cause, heard


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
