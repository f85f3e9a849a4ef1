"""`GET /livez/` and `GET /readyz/`"""

import logging
import threading
import time

import pytest
from pytest_django import Settings

from config import health
from eventstore.database import StoreUnavailable
from eventstore.leases import LeasesUnavailable
from tests.api.client import Api, User, assert_problem


def away(*args: object) -> None:
    raise StoreUnavailable("the database is away")


def test_it_is_alive_and_ready(api: Api) -> None:
    assert api.get("/livez/").json() == {"status": "alive"}
    answer = api.get("/readyz/")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "degraded": []}


def test_without_a_database_it_is_alive_but_not_ready(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.health.in_thread", away)
    assert api.get("/livez/").status_code == 200
    answer = api.get("/readyz/")
    assert_problem(answer, 503, "store-unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_database_that_does_not_answer_in_time_counts_as_away(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr("config.health.DATABASE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("projections.queries.lag", lambda: over.wait(10))
    started = time.monotonic()
    assert_problem(api.get("/readyz/"), 503, "store-unavailable")
    assert time.monotonic() - started < 3
    over.set()


def test_with_a_key_that_does_not_open_the_log_it_is_not_ready(
    api: Api, alice: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DATA_KEY = bytes(32)
    with caplog.at_level(logging.WARNING):
        problem = assert_problem(api.get("/readyz/"), 503, "keys-unreadable")
    assert "\n" not in problem["detail"]
    assert "DATA_KEY does not open key" in caplog.text
    assert api.get("/livez/").status_code == 200


def test_while_keys_are_rewrapped_it_is_ready_with_both(
    api: Api, alice: User, settings: Settings
) -> None:
    settings.DATA_KEY_PREVIOUS, settings.DATA_KEY = settings.DATA_KEY, bytes(32)
    assert api.get("/readyz/").status_code == 200


def test_followers_that_stay_behind_are_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.queries.lag", lambda: health.LAG_EVENTS_MAX + 1)
    answer = api.get("/readyz/")
    assert answer.status_code == 200
    assert answer.json() == {"status": "degraded", "degraded": ["followers: 1001 events behind"]}


def test_parked_events_are_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.queries.parked_count", lambda: 3)
    assert api.get("/readyz/").json()["degraded"] == ["read models: 3 parked events"]


def test_a_broker_that_is_away_is_named(
    api: Api, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    class Away:
        def holder_of(self, name: str) -> None:
            raise LeasesUnavailable("Redis is away")

    settings.REDIS_URL = "redis://localhost:1"
    monkeypatch.setattr("config.health.get_leases", Away)
    answer = api.get("/readyz/")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["broker: Redis does not answer"]
