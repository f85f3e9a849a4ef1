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
#: How long it is remembered how often a lease was taken; longer than any deadline.
COUNTED_SECONDS = 3_700
#: Counts kept in memory at most; each is of a holder that died.
COUNTS_MAX = 50_000


class LeasesUnavailable(Exception):
    """Nobody can say who holds what; whoever goes on does work twice at worst."""


class Leases(Protocol):
    """Named leases that run out unless they are renewed."""

    def take(self, name: str, holder: str, ttl_seconds: float) -> int:
        """Take the lease; returns how often it has been taken, or 0 while somebody else holds it.

        The count is forgotten `COUNTED_SECONDS` after the last time.
        """
        ...

    def renew(self, name: str, holder: str, ttl_seconds: float) -> bool:
        """Take or renew the lease without counting; False while somebody else holds it."""
        ...

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, if it is still the holder's, and forget how often it was taken."""
        ...

    def holder_of(self, name: str) -> str | None:
        """Who holds the lease now."""
        ...


class MemoryLeases:
    """Leases among the threads of one process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[str, float]] = {}
        self._counts: dict[str, tuple[int, float]] = {}

    def take(self, name: str, holder: str, ttl_seconds: float) -> int:
        with self._guard:
            return self._count(name) if self._hold(name, holder, ttl_seconds) else 0

    def renew(self, name: str, holder: str, ttl_seconds: float) -> bool:
        with self._guard:
            return self._hold(name, holder, ttl_seconds)

    def release(self, name: str, holder: str) -> None:
        with self._guard:
            if name in self._held and self._held[name][0] == holder:
                del self._held[name]
                self._counts.pop(name, None)

    def holder_of(self, name: str) -> str | None:
        with self._guard:
            current = self._held.get(name)
        return current[0] if current and current[1] > time.monotonic() else None

    def _hold(self, name: str, holder: str, ttl_seconds: float) -> bool:
        now = time.monotonic()
        current = self._held.get(name)
        if current and current[0] != holder and current[1] > now:
            return False
        self._held[name] = (holder, now + ttl_seconds)
        return True

    def _count(self, name: str) -> int:
        now = time.monotonic()
        known = self._counts.pop(name, None)
        counted = known[0] + 1 if known and known[1] > now else 1
        self._counts[name] = (counted, now + COUNTED_SECONDS)
        # What was counted longest ago stands first.
        if len(self._counts) > COUNTS_MAX:
            del self._counts[next(iter(self._counts))]
        return counted


_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not KEYS[2] then return 1 end
local counted = redis.call('INCR', KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return counted
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
return 0
"""


class RedisLeases:
    """Leases among all processes; each expires in Redis by itself."""

    def __init__(self) -> None:
        self._client = redis_client()
        self._hold = self._client.register_script(_HOLD)
        self._release = self._client.register_script(_RELEASE)

    def take(self, name: str, holder: str, ttl_seconds: float) -> int:
        return self._held([_key(name), f"taken:{name}"], holder, ttl_seconds)

    def renew(self, name: str, holder: str, ttl_seconds: float) -> bool:
        return bool(self._held([_key(name)], holder, ttl_seconds))

    def release(self, name: str, holder: str) -> None:
        try:
            self._release(keys=[_key(name), f"taken:{name}"], args=[holder])
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error

    def holder_of(self, name: str) -> str | None:
        try:
            holder = self._client.get(_key(name))
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error
        return holder.decode() if isinstance(holder, bytes) else None

    def _held(self, keys: list[str], holder: str, ttl_seconds: float) -> int:
        arguments: list[str | int] = [holder, int(ttl_seconds * 1000), COUNTED_SECONDS]
        try:
            return int(self._hold(keys=keys, args=[*arguments]))
        except redis.RedisError as error:
            raise LeasesUnavailable(str(error)) from error


def _key(name: str) -> str:
    return f"lease:{name}"


@once
def get_leases() -> Leases:
    """The process's leases: in Redis where there is one, else in memory."""
    return RedisLeases() if settings.REDIS_URL else MemoryLeases()


@contextmanager
def holding(name: str, holder: str) -> Iterator[int]:
    """Hold a lease, renewed as long as it takes; yields what `take` returned.

    Where nobody can say who holds it, everybody does, for the first time. An error gives the lease
    back; a holder that is interrupted, or dies, leaves it to run out, and that counts.
    """
    try:
        taken = get_leases().take(name, holder, LEASE_SECONDS)
    except LeasesUnavailable:
        taken = 1
    if not taken:
        yield 0
        return
    _keeper.keep(name, holder)
    try:
        yield taken
    except Exception:
        _let_go(name, holder)
        raise
    except BaseException:
        _keeper.let_go(name)
        raise
    _let_go(name, holder)


def _let_go(name: str, holder: str) -> None:
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
                if self._kept.get(name) != holder:
                    continue
                try:
                    get_leases().renew(name, holder, LEASE_SECONDS)
                except LeasesUnavailable as error:
                    logger.debug("a lease was not renewed: %s", error)
                    break
                except Exception:
                    logger.exception("a lease was not renewed")


_keeper = _Keeper()
