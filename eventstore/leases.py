"""Leases: who works on what, for how long. A hint that saves work; the log decides what counts."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import redis
from django.conf import settings

from eventstore.once import once
from eventstore.redis_client import redis_client

logger = logging.getLogger(__name__)


#: How long work on something may go on unseen after a worker's death, and how often it is renewed.
LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0
#: Counts kept in memory before those that have run out are dropped.
COUNTS_SWEPT_AT = 50_000


class LeasesUnavailable(Exception):
    """Nobody can say who holds what; whoever goes on does work twice at worst."""


class Leases(Protocol):
    """Named leases that run out unless they are renewed."""

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> bool:
        """Take or renew the lease; False while somebody else holds it."""
        ...

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, if it is still the holder's."""
        ...

    def holder_of(self, name: str) -> str | None:
        """Who holds the lease now."""
        ...

    def count(self, name: str, ttl_seconds: float) -> int:
        """Count one more under this name; forgotten after the time."""
        ...


class MemoryLeases:
    """Leases among the threads of one process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[str, float]] = {}
        self._counts: dict[str, tuple[int, float]] = {}

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> bool:
        now = time.monotonic()
        with self._guard:
            current = self._held.get(name)
            if current and current[0] != holder and current[1] > now:
                return False
            self._held[name] = (holder, now + ttl_seconds)
            return True

    def release(self, name: str, holder: str) -> None:
        with self._guard:
            if name in self._held and self._held[name][0] == holder:
                del self._held[name]

    def holder_of(self, name: str) -> str | None:
        with self._guard:
            current = self._held.get(name)
        return current[0] if current and current[1] > time.monotonic() else None

    def count(self, name: str, ttl_seconds: float) -> int:
        now = time.monotonic()
        with self._guard:
            if len(self._counts) >= COUNTS_SWEPT_AT:
                self._counts = {key: each for key, each in self._counts.items() if each[1] > now}
            known = self._counts.get(name)
            counted = known[0] + 1 if known and known[1] > now else 1
            self._counts[name] = (counted, now + ttl_seconds)
            return counted


_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLeases:
    """Leases among all processes; each expires in Redis by itself."""

    def __init__(self) -> None:
        client = redis_client()
        self._acquire = client.register_script(_ACQUIRE)
        self._release = client.register_script(_RELEASE)
        self._client = client

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> bool:
        milliseconds = int(ttl_seconds * 1000)
        try:
            return bool(self._acquire(keys=[f"lease:{name}"], args=[holder, milliseconds]))
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error

    def release(self, name: str, holder: str) -> None:
        try:
            self._release(keys=[f"lease:{name}"], args=[holder])
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error

    def holder_of(self, name: str) -> str | None:
        try:
            holder = self._client.get(f"lease:{name}")
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error
        return holder.decode() if isinstance(holder, bytes) else None

    def count(self, name: str, ttl_seconds: float) -> int:
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.incr(f"count:{name}")
            pipeline.pexpire(f"count:{name}", int(ttl_seconds * 1000))
            return int(pipeline.execute()[0])
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error


@once
def get_leases() -> Leases:
    """The process's leases: in Redis where there is one, else in memory."""
    return RedisLeases() if settings.REDIS_URL else MemoryLeases()


@contextmanager
def holding(name: str, holder: str) -> Iterator[bool]:
    """Hold a lease, renewed as long as it takes; False when somebody else holds it.

    Where nobody can say who holds it, everybody does.
    """
    try:
        mine = get_leases().acquire(name, holder, LEASE_SECONDS)
    except LeasesUnavailable:
        mine = True
    if not mine:
        yield False
        return
    _keeper.keep(name, holder)
    try:
        yield True
    finally:
        _keeper.let_go(name)
        try:
            get_leases().release(name, holder)
        except LeasesUnavailable:
            logger.debug("the lease %s will run out by itself", name)


class _Keeper:
    """One thread a process that renews the leases its threads hold."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._kept: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def keep(self, name: str, holder: str) -> None:
        with self._guard:
            self._kept[name] = holder
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()

    def let_go(self, name: str) -> None:
        with self._guard:
            self._kept.pop(name, None)

    def _renew(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            with self._guard:
                kept = list(self._kept.items())
            for name, holder in kept:
                try:
                    get_leases().acquire(name, holder, LEASE_SECONDS)
                except LeasesUnavailable as error:
                    logger.debug("a lease was not renewed: %s", error)
                    break


_keeper = _Keeper()
