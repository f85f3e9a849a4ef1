"""How the log and its followers stand, by the database."""

from uuid import UUID

import pytest
from django.db import OperationalError

from config.metrics import standing
from config.metrics.standing import read_standing
from config.metrics.state import State
from eventstore.reading import clock_now, max_position
from eventstore.seals.sealer import Sealer
from projections.models import ParkedEvent
from projections.registry import PROJECTIONS
from tests.conversations.conftest import Send, project

SECOND = 1_000_000


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds the clock is ahead."""
    seconds = [0.0]
    monkeypatch.setattr(standing, "clock_now", lambda: clock_now() + int(seconds[0] * SECOND))
    return seconds


def test_an_empty_log_has_no_lag_and_nothing_is_old() -> None:
    now = read_standing()
    assert (now.position, now.sealed_position, now.overdue) == (0, 0, 0)
    assert {(lag.events, lag.seconds) for lag in now.lags.values()} == {(0, 0)}
    assert (now.pending_oldest_seconds, now.seal_age_seconds) == (0, 0)


def test_a_follower_is_behind_by_what_it_has_not_dealt_with(
    alice: UUID, send: Send, ahead: list[float]
) -> None:
    project()
    reached = max_position()
    Sealer().step()
    send(alice)
    ahead[0] = 30

    now = read_standing()
    assert set(now.lags) == {*PROJECTIONS, "sealer"}
    for lag in now.lags.values():
        assert lag.events == max_position() - reached
        assert 30 <= lag.seconds < 40
    assert now.sealed_position == reached
    assert 30 <= now.seal_age_seconds < 40

    project()
    Sealer().step()
    assert {(lag.events, lag.seconds) for lag in read_standing().lags.values()} == {(0, 0)}


def test_pending_messages_are_counted_by_age_and_by_their_deadline(
    alice: UUID, send: Send, ahead: list[float]
) -> None:
    for _ in range(3):
        send(alice)
    project()
    ages = []
    for seconds in (0, 20, 70, 95, 110):
        ahead[0] = seconds
        now = read_standing()
        ages.append((list(now.pending.values()), now.overdue))
        assert seconds <= now.pending_oldest_seconds < seconds + 10

    assert ages == [([3, 0, 0], 0), ([0, 3, 0], 0), ([0, 0, 3], 0), ([0, 0, 3], 0), ([0, 0, 3], 3)]


def test_parked_events_are_counted_for_the_rows_that_are_read(alice: UUID) -> None:
    project()
    for generation in (1, 2):
        ParkedEvent.objects.create(
            projection="balances", generation=generation, stream_id=alice, position=2, topic="t"
        )

    parked = read_standing().parked
    assert parked == dict.fromkeys(PROJECTIONS, 0) | {"balances": 1}


def test_a_database_that_is_away_has_no_figures_rather_than_old_ones(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("the database is away")

    state = State()
    monkeypatch.setattr("config.metrics.state.read_standing", away)
    samples = {sample.name: sample for family in state.collect() for sample in family.samples}
    up = [s for f in state.collect() for s in f.samples if s.name == "chatledger_service_up"]
    state.close()

    assert {sample.labels["service"]: sample.value for sample in up} == {"database": 0, "broker": 1}
    assert set(samples) == {"chatledger_service_up", "chatledger_broker_messages"}
    assert {family.name for family in state.describe()} >= {"chatledger_log_position"}
