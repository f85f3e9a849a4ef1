"""Log lines: one event, one line."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars

from config.logs import AnsweredOnPurpose, JsonFormatter, OneLineFormatter, bind_request

ALICE = UUID("a11ce000-0000-4000-8000-000000000001")


def line(message: str, *values: object, error: bool = False) -> str:
    record = logging.LogRecord(
        "chat", logging.INFO, __file__, 1, message, values, sys.exc_info() if error else None
    )
    return OneLineFormatter().format(record)


def test_a_line_names_its_time_level_and_source() -> None:
    assert line("hello %s", "alice").endswith("Z INFO chat hello alice")


def test_line_breaks_and_terminal_commands_in_a_value_are_escaped() -> None:
    written = line("name %s", "a\r\nERROR forged\x1b[2J\x85\u2028b")

    assert len(written.splitlines()) == 1
    assert written.endswith(r"name a\r\nERROR forged\x1b[2J\x85\u2028b")


def test_a_traceback_stays_on_the_line_of_its_event() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        written = line("failed", error=True)

    assert len(written.splitlines()) == 1
    assert r"ValueError: first\nsecond" in written


@pytest.mark.parametrize(("status", "kept"), [(500, True), (502, False), (503, False)])
def test_an_answer_that_was_given_on_purpose_has_no_second_line(status: int, *, kept: bool) -> None:
    record = logging.makeLogRecord({"msg": "Bad Gateway", "status_code": status})
    assert AnsweredOnPurpose().filter(record) is kept
    assert AnsweredOnPurpose().filter(logging.makeLogRecord({"msg": "anything else"}))


@pytest.fixture
def bound() -> Iterator[None]:
    """The ids of a request that a client has named, with the trace that it belongs to."""
    traceparent = f"00-{'a1' * 16}-{'b2' * 8}-01"
    bind_request("made-here", "named-there", traceparent)
    bind_contextvars(user_id=ALICE)
    yield
    clear_contextvars()


def json_line(message: str, *values: object, error: bool = False) -> dict[str, str]:
    record = logging.LogRecord(
        "chat", logging.INFO, __file__, 1, message, values, sys.exc_info() if error else None
    )
    written = JsonFormatter().format(record)
    assert len(written.splitlines()) == 1
    assert written.isascii()
    assert written.isprintable()
    said: dict[str, str] = json.loads(written)
    return said


def test_a_line_ends_with_the_ids_of_what_is_being_done(bound: None) -> None:
    assert line("hello").endswith(
        "Z INFO chat hello client_request_id=named-there request_id=made-here"
        f" trace_id={'a1' * 16} user_id={ALICE}"
    )


def test_a_line_of_json_says_the_same(bound: None) -> None:
    said = json_line("hello %s", "alice")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("at"))
    assert said == {
        "level": "info",
        "logger": "chat",
        "message": "hello alice",
        "request_id": "made-here",
        "client_request_id": "named-there",
        "trace_id": "a1" * 16,
        "user_id": str(ALICE),
    }


def test_a_line_of_json_holds_a_traceback_and_whatever_a_client_said() -> None:
    forged = 'a\r\n{"level":"error"}\x1b[2J\x7f\x85\u2028\ud800b'
    try:
        raise ValueError(forged)
    except ValueError:
        said = json_line("name %s", forged, error=True)

    assert said["message"] == f"name {forged}"
    assert said["exception"].startswith("Traceback (most recent call last)")
    assert forged in said["exception"]


def test_the_next_request_of_a_connection_does_not_carry_the_ids_of_the_last(bound: None) -> None:
    bind_request("second", "second", None)
    assert line("hello").endswith("hello request_id=second")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'b2' * 8}-01",
        f"00-{'a1' * 16}-{'0' * 16}-01",
        f"ff-{'a1' * 16}-{'b2' * 8}-01",
        f"00-{'A1' * 16}-{'b2' * 8}-01",
        f"00-{'a1' * 16}-{'b2' * 8}-01\n",
        f"00-{'a1' * 16}-{'b2' * 8}-01 forged=1",
    ],
)
def test_a_traceparent_that_is_none_leaves_no_trace(traceparent: str) -> None:
    bind_request("made-here", "made-here", traceparent)
    assert line("hello").endswith("hello request_id=made-here")
    clear_contextvars()
