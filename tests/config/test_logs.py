"""Log lines: one event, one line."""

import logging
import sys

import pytest

from config.logs import AnsweredOnPurpose, OneLineFormatter


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
