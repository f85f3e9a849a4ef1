"""Instants that people ask about: read and written as RFC 3339, and settled before answered."""

import re
from calendar import monthrange
from datetime import UTC, datetime, time, timedelta, timezone

from django.db import connection

from eventstore.append import APPEND_LOCK
from eventstore.clock import to_datetime
from eventstore.database import writing
from eventstore.reading import clock_now, max_position

#: An append takes its stamp before its commit; none of them takes as long as this.
UNDER_WAY_SECONDS_MAX = 60

_LAST_SECOND = time(23, 59, 59)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:([Zz])|([ +-])(\d\d):([0-5]\d))?",
    re.ASCII,
)
_EXAMPLE = "2026-11-22T10:00:00Z"


class MalformedInstant(ValueError):
    """A text that is no time of RFC 3339; the error says why."""


class InTheFuture(ValueError):
    """The instant has not come yet, by the database's clock."""

    def __init__(self, now: int) -> None:
        super().__init__(f"this time has not come yet: it is {rfc3339(now)}")


def parse_instant(text: str) -> int:
    """Microseconds since the epoch for a time with an offset (RFC 3339, section 5.6).

    What is finer than a microsecond is cut off: no event has a time between two of them. A leap
    second, 23:59:60 in UTC at the end of a month, is the last microsecond before it: clocks have no
    number of its own for it. Raises `MalformedInstant`.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise MalformedInstant(f"a time is written like {_EXAMPLE} (RFC 3339)")
    date, clock, fraction, zulu, sign, hours, minutes = match.groups()
    leaps = clock.endswith(":60")
    if leaps:
        clock, fraction = f"{clock[:-2]}59", "999999"
    if sign == " ":
        raise MalformedInstant("the + of an offset is written %2B in an address")
    if not zulu and not sign:
        raise MalformedInstant(
            f"a time needs an offset from UTC: Z, or one like +02:00 ({_EXAMPLE})"
        )
    try:
        local = datetime.fromisoformat(f"{date}T{clock}")
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        moment = local.replace(tzinfo=timezone(-offset if sign == "-" else offset))
    except ValueError:
        raise MalformedInstant("there is no such day, time or offset") from None
    if leaps and not _ends_a_month(moment):
        raise MalformedInstant("a second 60 there is only at 23:59 UTC, at the end of a month")
    microseconds = int((fraction or "").ljust(6, "0")[:6])
    return (moment - _EPOCH) // timedelta(microseconds=1) + microseconds


def _ends_a_month(moment: datetime) -> bool:
    """Whether the next second begins a month of UTC (RFC 3339, section 5.7)."""
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        return False
    return utc.time() == _LAST_SECOND and utc.day == monthrange(utc.year, utc.month)[1]


def rfc3339(microseconds: int) -> str:
    """An event's time as text: in UTC, always with its microseconds."""
    return f"{to_datetime(microseconds):%Y-%m-%dT%H:%M:%S.%fZ}"


def settle(at: int) -> int:
    """Where the log ends once nothing of the instant `at`, or before it, is still being written.

    Raises `InTheFuture`.
    """
    now = clock_now()
    if at > now:
        raise InTheFuture(now)
    if at > now - UNDER_WAY_SECONDS_MAX * 1_000_000:
        _wait_for_appends_under_way()
    return max_position()


def _wait_for_appends_under_way() -> None:
    if connection.vendor == "sqlite":
        with writing():
            return
    with connection.cursor() as cursor:
        # Outside of a transaction the lock is given back at once.
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [APPEND_LOCK])
