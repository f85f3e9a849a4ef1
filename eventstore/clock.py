"""The one clock there is: the database's. Deadlines and events are stamped by it."""

import time
from datetime import UTC, datetime
from typing import Any

from django.db import connection

#: The last microsecond of the year 9999: later moments cannot be written as dates.
LATEST = 253_402_300_799_999_999
#: Microseconds since the epoch on PostgreSQL's own clock.
POSTGRES_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def database_clock(cursor: Any) -> int:
    """Microseconds since the epoch, UTC. SQLite's clock is this machine's."""
    if connection.vendor == "sqlite":
        return time.time_ns() // 1000
    cursor.execute(f"SELECT {POSTGRES_NOW}")
    (now,) = cursor.fetchone()
    return int(now)


def to_datetime(microseconds: int) -> datetime:
    """The moment that an event's `at` stands for."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
