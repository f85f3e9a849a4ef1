"""Counters that open a window with the first count and forget it when the window is over.

To look and to count is one step, so however many ask at once, no more than allowed get through.
What is refused is not counted: a window ends in time, whoever keeps trying.
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import redis

from accounts.rates import Rate
from eventstore.redis_client import redis_client

#: Counters that a process keeps at most; the one that ends first makes room for another.
COUNTERS_MAX = 100_000


class CountersUnavailable(Exception):
    """Redis does not answer, so nobody can say what all processes counted together."""


@dataclass(frozen=True, slots=True)
class Count:
    """What came of one count: whether it was allowed, how many are left, when the window ends."""

    allowed: bool
    left: int
    reset_seconds: int


class Counters(Protocol):
    """Counts by key, each for as long as its window is open."""

    def take(self, key: str, rate: Rate) -> Count:
        """Count one more, if that is allowed."""

    def take_each(self, keys: Sequence[str], rate: Rate) -> list[Count]:
        """The same for several, one after the other; a key may come more than once."""

    def give_back(self, key: str) -> None:
        """Take back one count, if its window is still open."""


class MemoryCounters:
    """Counters of this process alone; all of one object have windows of the same length."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Windows of one length end in the order in which they were opened, which a dict keeps.
        self._windows: dict[str, tuple[int, float]] = {}

    def take_each(self, keys: Sequence[str], rate: Rate) -> list[Count]:
        return [self.take(key, rate) for key in keys]

    def take(self, key: str, rate: Rate) -> Count:
        now = time.monotonic()
        with self._guard:
            self._forget_ended(now)
            used, until = self._windows.get(key, (0, now + rate.seconds))
            allowed = used < rate.times
            if allowed:
                used += 1
                self._windows[key] = (used, until)
        return _count(rate, used, until - now, allowed=allowed)

    def give_back(self, key: str) -> None:
        with self._guard:
            used, until = self._windows.get(key, (0, 0.0))
            if used > 1:
                self._windows[key] = (used - 1, until)
            elif used:
                del self._windows[key]

    def _forget_ended(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][1] > now and len(self._windows) < COUNTERS_MAX:
                return
            del self._windows[oldest]


_TAKE = """
local counts = {}
for number, key in ipairs(KEYS) do
    local used = tonumber(redis.call('GET', key) or 0)
    local allowed, reset = used < tonumber(ARGV[1]), nil
    if allowed then
        used = redis.call('INCR', key)
        if used == 1 then
            redis.call('PEXPIRE', key, ARGV[2])
            reset = tonumber(ARGV[2])
        end
    end
    counts[number] = {allowed and 1 or 0, used, reset or redis.call('PTTL', key)}
end
return counts
"""
_GIVE_BACK = """
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('DECR', KEYS[1]) <= 0 then
    redis.call('DEL', KEYS[1])
end
return 0
"""


class RedisCounters:
    """Counters of all processes together: one round trip a call. Raises `CountersUnavailable`."""

    def __init__(self) -> None:
        client = redis_client()
        self._take = client.register_script(_TAKE)
        self._give_back = client.register_script(_GIVE_BACK)

    def take(self, key: str, rate: Rate) -> Count:
        return self.take_each([key], rate)[0]

    def take_each(self, keys: Sequence[str], rate: Rate) -> list[Count]:
        try:
            counts = self._take(keys=keys, args=[rate.times, rate.seconds * 1000])
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error
        return [
            _count(rate, used, reset_ms / 1000, allowed=bool(allowed))
            for allowed, used, reset_ms in counts
        ]

    def give_back(self, key: str) -> None:
        try:
            self._give_back(keys=[key])
        except redis.RedisError as error:
            raise CountersUnavailable(str(error)) from error


def _count(rate: Rate, used: int, reset_seconds: float, *, allowed: bool) -> Count:
    # After a limit was lowered a window may hold more than it allows.
    return Count(allowed, max(0, rate.times - used), math.ceil(reset_seconds))
