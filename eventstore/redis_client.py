"""This process's connections to Redis. Whoever uses Redis here can do without."""

import time
from typing import Any

import redis
from django.conf import settings

from eventstore.once import once

#: Redis is on the way of a request: a server that does not answer in a second is away.
TIMEOUT_SECONDS = 1.0
#: How long a server that was away is not asked again, so that not every request waits for it.
AWAY_SECONDS = 1.0


class Breaker:
    """Fails at once what would wait for a Redis that did not answer a moment ago."""

    def __init__(self) -> None:
        self._away_until = 0.0
        self._away = False

    @property
    def is_open(self) -> bool:
        """Whether what is asked now would fail at once."""
        return time.monotonic() < self._away_until

    def __enter__(self) -> None:
        if time.monotonic() < self._away_until:
            raise redis.ConnectionError("Redis did not answer a moment ago")
        if self._away:
            # One looks whether it is back; nobody waits beside it.
            self._away_until = time.monotonic() + TIMEOUT_SECONDS + AWAY_SECONDS

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._away = isinstance(error, redis.ConnectionError | redis.TimeoutError)
        self._away_until = time.monotonic() + AWAY_SECONDS if self._away else 0.0


class BreakingRedis(redis.Redis):
    """A client behind a breaker of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._breaker = Breaker()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with self._breaker:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@once
def redis_client() -> BreakingRedis:
    """The shared client; its pool opens a connection for each thread that needs one at a time."""
    return new_client()


def new_client() -> BreakingRedis:
    """A client with a pool of its own, for who would wait too long for a turn at the shared one."""
    pool = redis.ConnectionPool.from_url(
        settings.REDIS_URL or "",
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=None,
    )
    return BreakingRedis(connection_pool=pool)
