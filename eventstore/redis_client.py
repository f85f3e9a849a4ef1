"""This process's connections to Redis. Whoever uses Redis here can do without."""

import redis
from django.conf import settings

from eventstore.once import once

#: Redis is on the way of a request: a server that does not answer in a second is away.
TIMEOUT_SECONDS = 1.0


@once
def redis_client() -> "redis.Redis":
    """The shared client; its pool opens a connection for each thread that needs one at a time."""
    return redis.Redis.from_url(
        settings.REDIS_URL or "",
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=None,
    )
