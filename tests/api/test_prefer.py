"""RFC 7240: what a `Prefer` header is understood to say."""

import time

import pytest

from conversations.prefer import (
    HEADER_CHARACTERS_MAX,
    NO_PREFERENCE,
    Preference,
    parse_prefer,
)

ASYNC = Preference(respond_async=True)


@pytest.mark.parametrize(
    ("header", "understood"),
    [
        ("respond-async", ASYNC),
        ("Respond-Async", ASYNC),
        ("wait=10", Preference(wait_seconds=10)),
        ("WAIT=10", Preference(wait_seconds=10)),
        ("wait = 10", Preference(wait_seconds=10)),
        ('wait="10"', Preference(wait_seconds=10)),
        ('wait="1\\0"', Preference(wait_seconds=10)),
        ("wait=0", Preference(wait_seconds=0)),
        ("wait=0007", Preference(wait_seconds=7)),
        ("wait=120", Preference(wait_seconds=120)),
        ("wait=121", Preference(wait_seconds=120)),
        ("wait=" + "9" * 500, Preference(wait_seconds=120)),
        ("wait=10; foo=bar", Preference(wait_seconds=10)),
        ("wait=10;;", Preference(wait_seconds=10)),
        ("respond-async, wait=10", Preference(respond_async=True, wait_seconds=10)),
        ("respond-async,wait=10", Preference(respond_async=True, wait_seconds=10)),
        ("\twait=10 ,\trespond-async ", Preference(respond_async=True, wait_seconds=10)),
        (", ,respond-async,,", ASYNC),
        ('respond-async=""', ASYNC),
        ('respond-async; foo="a, b"', ASYNC),
        ('return=minimal; note="a, wait=5", respond-async', ASYNC),
        ("return=minimal, wait=5", Preference(wait_seconds=5)),
        ("handling=lenient, respond-async", ASYNC),
    ],
)
def test_a_preference_is_understood(header: str, understood: Preference) -> None:
    assert parse_prefer(header) == understood


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "   ",
        ",",
        "=",
        ";",
        "wait",
        "wait=",
        'wait=""',
        "wait=-1",
        "wait=1.5",
        "wait=10s",
        "wait=ten",
        "wait=\u00b2",
        "wait=1 0",
        'wait="10',
        "wait==10",
        "waiting=10",
        "wait 10",
        "respond-async=no",
        "respond_async",
        "respond async",
        "(respond-async)",
        'x="respond-async, wait=10"',
        "wait=10" + " " * HEADER_CHARACTERS_MAX,
    ],
)
def test_nonsense_is_ignored(header: str | None) -> None:
    assert parse_prefer(header) == NO_PREFERENCE


def test_of_a_repeated_preference_the_first_counts() -> None:
    assert parse_prefer("wait=1, wait=2").wait_seconds == 1
    assert parse_prefer("wait=soon, wait=2").wait_seconds is None


def test_wait_counts_also_beside_respond_async() -> None:
    assert parse_prefer("respond-async, wait=5").seconds_to_wait(30) == 5
    assert parse_prefer("respond-async").seconds_to_wait(30) == 0
    assert parse_prefer("").seconds_to_wait(30) == 30


def test_what_was_applied_is_said_as_it_was_granted() -> None:
    assert parse_prefer("wait=500, respond-async").applied == "respond-async, wait=120"
    assert parse_prefer("wait=7").applied == "wait=7"
    assert parse_prefer("return=minimal").applied == ""


@pytest.mark.parametrize("part", ['"\\', "=", "; ", '"', "wait=", ",", "\\", ' \t="'])
def test_a_hostile_header_is_read_in_a_moment(part: str) -> None:
    header = (part * HEADER_CHARACTERS_MAX)[:HEADER_CHARACTERS_MAX]
    started = time.perf_counter()
    parse_prefer(header)
    assert time.perf_counter() - started < 0.1
