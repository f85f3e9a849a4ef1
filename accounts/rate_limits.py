"""How often somebody may do something: log in, register, send.

Counted in Redis where there is one, for all processes together. While it is away each process
counts for itself: a limit may let more through then, but nothing fails for want of a counter.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django.http import HttpRequest

from accounts.counters import (
    Count,
    Counters,
    CountersUnavailable,
    MemoryCounters,
    RedisCounters,
)
from accounts.metrics import refused
from accounts.rates import Rate
from eventstore.once import once

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where somebody stands with a limit, as every answer to what is limited tells them."""

    limit: str
    rate: Rate
    count: Count

    def headers(self) -> Mapping[str, str]:
        """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "RateLimit-Policy": f'"{self.limit}";q={self.rate.times};w={self.rate.seconds}',
            "RateLimit": f'"{self.limit}";r={self.count.left};t={self.count.reset_seconds}',
        }


class RateLimited(Exception):
    """It was done too often; in `seconds` it is allowed again."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(f"{standing.limit}: {standing.rate.times} in {standing.rate.seconds} s")
        self.standing = standing
        self.seconds = max(1, standing.count.reset_seconds)


class RateLimit:
    """One limit: its name, and the setting that says what it allows."""

    def __init__(self, name: str, setting: str) -> None:
        self.name = name
        self._setting = setting
        self._here = MemoryCounters()
        self._alone = False

    def take(self, request: HttpRequest, subject: str) -> Callable[[], None]:
        """Count one more of a subject's, or raise `RateLimited`; it may wait for Redis.

        Returns what takes it back, for when it was nothing that the limit is about. The request
        remembers where the subject stands, for the headers of its answer.
        """
        rate = self._rate()
        if rate is None:
            return _nothing
        key = _key(self.name, subject)
        counters, (count,) = self._count([key], rate)
        standing = Standing(self.name, rate, count)
        if error := self._judge(request, standing):
            raise error

        def give_back() -> None:
            try:
                counters.give_back(key)
            except CountersUnavailable as error:
                logger.debug("a count of %s stays until its window ends: %s", self.name, error)
            _note(request, replace(standing, count=replace(count, left=count.left + 1)))

        return give_back

    def take_each(self, asked: Sequence[tuple[HttpRequest, str]]) -> list[RateLimited | None]:
        """Count for several requests together; return what is to be raised for each.

        There it may wait for Redis once, and nothing of it can be given back.
        """
        rate = self._rate()
        if rate is None or not asked:
            return [None] * len(asked)
        keys = [_key(self.name, subject) for _, subject in asked]
        _, counts = self._count(keys, rate)
        return [
            self._judge(request, Standing(self.name, rate, count))
            for (request, _), count in zip(asked, counts, strict=True)
        ]

    def forget(self) -> None:
        """Forget what this process counted; for tests."""
        self._here = MemoryCounters()

    def _rate(self) -> Rate | None:
        rate: Rate | None = getattr(settings, self._setting)
        return rate

    def _judge(self, request: HttpRequest, standing: Standing) -> RateLimited | None:
        _note(request, standing)
        if standing.count.allowed:
            return None
        refused(self.name)
        return RateLimited(standing)

    def _count(self, keys: Sequence[str], rate: Rate) -> tuple[Counters, list[Count]]:
        if settings.REDIS_URL:
            try:
                counts = _in_redis().take_each(keys, rate)
            except CountersUnavailable as error:
                if not self._alone:
                    logger.warning("the limit %s counts in each process now: %s", self.name, error)
                self._alone = True
            else:
                self._alone = False
                return _in_redis(), counts
        return self._here, self._here.take_each(keys, rate)


#: Guesses at a password, by name and address: what a right one took it gives back.
LOGIN = RateLimit("login", "RATE_LIMIT_LOGIN")
#: Accounts that are opened, by address.
REGISTER = RateLimit("register", "RATE_LIMIT_REGISTER")
#: Sends, by user.
SEND = RateLimit("send", "RATE_LIMIT_SEND")


def _nothing() -> None:
    """Take back what was never counted."""


def _note(request: HttpRequest, standing: Standing) -> None:
    request.rate_limit = standing  # type: ignore[attr-defined]  # accounts.jwt_auth.ApiRequest


def _key(limit: str, subject: str) -> str:
    """A key that tells nobody who looks into Redis of whose name or address it is."""
    key = settings.SECRET_KEY.encode()[:64]
    return f"limit:{limit}:{hashlib.blake2b(subject.encode(), key=key, digest_size=16).hexdigest()}"


@once
def _in_redis() -> RedisCounters:
    return RedisCounters()
