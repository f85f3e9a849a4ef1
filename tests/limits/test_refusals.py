"""What the limits refuse is counted, for the metrics."""

from uuid import UUID

import pytest
from django.http import HttpRequest
from pytest_django import Settings

from accounts.at_once import AtOnce, TooManyAtOnce
from accounts.metrics import REFUSALS
from accounts.rate_limits import SEND, RateLimited
from accounts.rates import Rate

ALICE = UUID(int=1)


def refusals(limit: str) -> float:
    return float(REFUSALS.labels(limit)._value.get())


def test_a_refused_send_is_counted(settings: Settings) -> None:
    settings.REDIS_URL, settings.RATE_LIMIT_SEND = None, Rate(1, 60)
    before = refusals("send")
    try:
        SEND.take(HttpRequest(), "alice")
        with pytest.raises(RateLimited):
            SEND.take(HttpRequest(), "alice")
    finally:
        SEND.forget()

    assert refusals("send") == before + 1


def test_one_too_many_at_once_is_counted() -> None:
    before, exports = refusals("exports"), AtOnce("exports", 1)
    with exports.one(ALICE), pytest.raises(TooManyAtOnce), exports.one(ALICE):
        pass

    assert refusals("exports") == before + 1
