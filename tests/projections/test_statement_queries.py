"""The statement as clients read it, and the balance at any instant, held against the log."""

import random
from collections.abc import Iterator
from itertools import accumulate
from uuid import UUID

import pytest

from eventstore import keys
from eventstore.models import DataKey
from eventstore.reading import RecordedEvent, read_events
from projections import queries
from projections.models import StatementEntry
from projections.queries import ReadModelParked, StatementRow
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    CAROL,
    HELLO,
    NOBODY,
    Fact,
    broken,
    debited,
    drain,
    granted,
    happened,
    moment,
    projected,
    refunded,
    registered,
    told,
)

pytestmark = pytest.mark.django_db

SEED = 20261122
ENTRIES = 400


class TestStatement:
    def test_the_newest_entries_come_first_each_with_what_it_came_from(self) -> None:
        projected(registered(ALICE), granted(ALICE, 500), debited(ALICE, 100), refunded(ALICE, 40))
        assert queries.statement(ALICE, None, 10) == [
            StatementRow(3, moment(4), "refunded", 40, 440, HELLO, "deadline"),
            StatementRow(2, moment(3), "debited", 100, 400, HELLO, None),
            StatementRow(1, moment(2), "granted", 500, 500, None, "signup"),
        ]

    def test_a_page_begins_before_an_entry_and_has_its_limit(self) -> None:
        told(*(granted(ALICE, 1) for _ in range(5)), granted(BOB, 1), together=True)
        assert self.entries(None, 2) == [5, 4]
        assert self.entries(4, 2) == [3, 2]
        assert self.entries(2, 2) == [1]
        assert self.entries(1, 2) == []
        assert self.entries(queries.ENTRY_MAX, 2) == [5, 4]

    def test_a_reason_whose_key_was_destroyed_reads_erased(self) -> None:
        projected(granted(ALICE, 500), debited(ALICE, 100))
        DataKey.objects.filter(id=ALICE).update(wrapped=None)
        keys.forget()
        rows = queries.statement(ALICE, None, 10)
        assert [row.reason for row in rows] == [None, "[erased]"]

    def test_nobody_has_none(self) -> None:
        assert queries.statement(NOBODY, None, 10) == []
        projected(granted(ALICE, 500))
        assert queries.statement(NOBODY, None, 10) == []

    def test_of_a_parked_account_it_is_refused_and_of_others_it_is_not(self) -> None:
        projected(granted(ALICE, 500), granted(BOB, 500), broken(debited(ALICE, 100)))
        with pytest.raises(ReadModelParked, match="KeyError") as refused:
            queries.statement(ALICE, None, 10)
        assert (refused.value.projection, refused.value.stream_id) == ("statement", ALICE)
        assert [row.balance for row in queries.statement(BOB, None, 10)] == [500]

    def entries(self, before: int | None, limit: int) -> list[int]:
        return [row.entry for row in queries.statement(ALICE, before, limit)]


class TestBalanceAt:
    def test_it_is_the_one_after_the_last_entry_up_to_the_instant(self) -> None:
        projected(granted(ALICE, 500), debited(ALICE, 100), granted(BOB, 7), refunded(ALICE, 40))
        first, second, _, third = (event.at for event in read_events(0))
        instants = [first - 1, first, second - 1, second, third - 1, third, third + 1_000_000]
        balances = [queries.balance_at(ALICE, at) for at in instants]
        assert balances == [0, 500, 500, 400, 400, 440, 440]

    def test_entries_of_one_instant_count_together(self) -> None:
        told(granted(ALICE, 500), debited(ALICE, 100), debited(ALICE, 30), together=True)
        (at,) = {event.at for event in read_events(0)}
        assert [queries.balance_at(ALICE, instant) for instant in (at - 1, at)] == [0, 370]

    def test_nobody_has_none(self) -> None:
        assert queries.balance_at(NOBODY, 1) == 0
        projected(registered(ALICE), granted(BOB, 500))
        assert queries.balance_at(ALICE, 2**62) == 0

    def test_of_a_parked_account_it_is_refused_and_of_others_it_is_not(self) -> None:
        projected(granted(ALICE, 500), granted(BOB, 500), broken(debited(ALICE, 100)))
        with pytest.raises(ReadModelParked, match="KeyError"):
            queries.balance_at(ALICE, 2**62)
        assert queries.balance_at(BOB, 2**62) == 500

    def test_it_is_one_statement_and_one_for_what_is_parked(
        self, django_assert_num_queries: object
    ) -> None:
        told(*(granted(ALICE, 1) for _ in range(100)), together=True)
        with django_assert_num_queries(2):  # type: ignore[operator]  # a fixture that is a context
            queries.balance_at(ALICE, 2**62)

    def test_at_any_instant_it_is_the_sum_of_the_log(self) -> None:
        chance = random.Random(SEED)
        facts = list(movements(chance))
        while facts:
            together = chance.choice([1, 1, 2, 5, 40])
            happened(*facts[:together])
            del facts[:together]
            if chance.random() < 0.1:
                drain(ProjectionRunner())
        drain(ProjectionRunner())
        log = read_everything()
        times = sorted({event.at for event in log})
        instants = [at + shift for at in times for shift in (-1, 0, 1)]
        instants += [chance.randint(times[0], times[-1]) for _ in range(200)]
        for user in (ALICE, BOB, CAROL):
            wrong = [at for at in instants if queries.balance_at(user, at) != summed(log, user, at)]
            assert wrong == [], f"seed {SEED}"
            lines = queries.statement(user, None, 1_000)
            amounts = [signed(event) for event in log if event.stream_id == user]
            assert [row.balance for row in reversed(lines)] == list(accumulate(amounts))

    def test_a_clock_that_stood_still_changes_nothing(self) -> None:
        projected(*(granted(ALICE, 1) for _ in range(20)))
        StatementEntry.objects.filter(entry__gt=5, entry__lte=15).update(at=7)
        StatementEntry.objects.filter(entry__lte=5).update(at=6)
        StatementEntry.objects.filter(entry__gt=15).update(at=8)
        assert [queries.balance_at(ALICE, at) for at in (5, 6, 7, 8)] == [0, 5, 15, 20]


class TestRegisteredAt:
    def test_it_is_the_time_of_the_registration(self) -> None:
        projected(registered(ALICE))
        (event,) = read_events(0)
        assert queries.registered_at(ALICE) == event.at
        assert queries.registered_at(NOBODY) is None

    def test_of_a_parked_one_it_is_refused(self) -> None:
        projected(broken(registered(ALICE)))
        with pytest.raises(ReadModelParked):
            queries.registered_at(ALICE)


def movements(chance: random.Random) -> Iterator[Fact]:
    for user in (ALICE, BOB, CAROL):
        yield granted(user, 4000)
    for _ in range(ENTRIES):
        kind = chance.choice([granted, debited, debited, refunded])
        yield kind(chance.choice([ALICE, ALICE, BOB]), chance.randint(0, 100))


def read_everything() -> list[RecordedEvent]:
    found = read_events(0)
    while page := read_events(found[-1].position):
        found += page
    return found


def summed(log: list[RecordedEvent], user: UUID, at: int) -> int:
    return sum(signed(event) for event in log if event.stream_id == user and event.at <= at)


def signed(event: RecordedEvent) -> int:
    amount: int = event.data["amount"]
    return -amount if event.topic.endswith("TokensDebited") else amount
