"""Instants: how they are written, and that what is answered about one stays true."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from django.db import connections

from eventstore.append import Job, append_here, take_append_lock
from eventstore.clock import to_datetime
from eventstore.database import writing
from eventstore.instants import InTheFuture, MalformedInstant, parse_instant, rfc3339, settle
from eventstore.reading import clock_now
from tests.eventstore.making import CAUSE, append_jobs, events

#: How long somebody who should wait is given to show that they do not.
WAITING_SECONDS = 0.3
BOUND_SECONDS = 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01z", 1),
        ("1970-01-01t00:00:01.5Z", 1.5),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T18:30:00-05:30", 0),
        ("1969-12-31T23:59:59Z", -1),
        ("1970-01-01T00:00:00.0000019Z", 0.000001),
        ("2026-11-22T10:00:00.123456Z", 1795341600.123456),
        ("0001-01-01T00:00:00+14:00", -62135647200),
        ("9999-12-31T23:59:59-14:00", 253402351199),
        # The examples of RFC 3339, section 5.8, and one of a month that had none so far.
        ("1990-12-31T23:59:60Z", 662687999.999999),
        ("1990-12-31T15:59:60-08:00", 662687999.999999),
        ("2017-01-01T05:29:60.25+05:30", 1483228799.999999),
        ("2028-02-29T23:59:60Z", 1835481599.999999),
    ],
)
def test_an_instant_is_read(text: str, seconds: float) -> None:
    assert parse_instant(text) == round(seconds * 1_000_000)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is written like"),
        ("yesterday", "is written like"),
        ("2026-11-22", "is written like"),
        ("1795341600", "is written like"),
        ("2026-11-22T10:00Z", "is written like"),
        ("2026-11-22 10:00:00Z", "is written like"),
        ("2026-11-22T10:00:00+0200", "is written like"),
        ("2026-11-22T10:00:00Z\n", "is written like"),
        ("٢٠٢٦-11-22T10:00:00Z", "is written like"),
        ("2026-11-22T10:00:00", "needs an offset"),
        ("2026-11-22T10:00:00 02:00", "%2B"),
        ("2026-02-30T10:00:00Z", "no such day, time or offset"),
        ("2026-11-22T25:00:00Z", "no such day, time or offset"),
        ("2026-11-22T10:00:60Z", "a second 60 there is only at 23:59 UTC, at the end of a month"),
        ("2026-11-30T10:59:60Z", "a second 60"),
        ("2026-11-30T23:59:60+01:00", "a second 60"),
        ("2026-11-22T23:59:60Z", "a second 60"),
        ("9999-12-31T23:59:60-14:00", "a second 60"),
        ("2026-11-30T23:59:61Z", "no such day, time or offset"),
        ("2026-11-22T10:00:00+24:00", "no such day, time or offset"),
        ("2026-11-22T10:00:00+02:60", "is written like"),
        ("0000-01-01T00:00:00Z", "no such day, time or offset"),
    ],
)
def test_what_is_no_instant_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(MalformedInstant, match=why):
        parse_instant(text)


def test_the_last_leap_second_there_can_be_is_read() -> None:
    assert rfc3339(parse_instant("9999-12-31T23:59:60Z")) == "9999-12-31T23:59:59.999999Z"


def test_an_instant_is_written_with_its_microseconds_and_read_again() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    for microseconds in (0, 1, 1_795_341_600_123_456):
        assert parse_instant(rfc3339(microseconds)) == microseconds
        assert parse_instant(to_datetime(microseconds).isoformat()) == microseconds


@pytest.mark.django_db(transaction=True)
def test_an_instant_ends_with_what_is_in_the_log() -> None:
    assert settle(clock_now()) == 0
    append_jobs(events(count=2))
    assert settle(clock_now()) == 2
    assert settle(0) == 2


@pytest.mark.django_db
def test_an_instant_that_has_not_come_is_refused_with_the_time_it_is() -> None:
    before = clock_now()
    with pytest.raises(InTheFuture, match="has not come yet: it is 20") as refused:
        settle(before + 60_000_000)
    now = str(refused.value).rpartition(" ")[2]
    assert before <= parse_instant(now) <= clock_now()


@pytest.mark.django_db(transaction=True)
def test_an_append_that_has_its_time_and_no_commit_yet_is_waited_for() -> None:
    appended, commit = threading.Event(), threading.Event()

    def append_slowly() -> None:
        with writing():
            take_append_lock()
            append_here(Job(events(), CAUSE))
            appended.set()
            assert commit.wait(BOUND_SECONDS)

    def settled_now() -> int:
        return settle(clock_now())

    def alone(function: object) -> object:
        try:
            return function()  # type: ignore[operator]  # one of the two above
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(alone, append_slowly)
        assert appended.wait(BOUND_SECONDS)
        asked = pool.submit(alone, settled_now)
        assert wait([asked], WAITING_SECONDS).done == set()
        commit.set()
        assert asked.result(BOUND_SECONDS) == 1
        slow.result(BOUND_SECONDS)
