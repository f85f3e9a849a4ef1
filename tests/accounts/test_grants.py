"""`GrantTokens`: accepted, refused, repeated, raced."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from typing import NoReturn
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection

from accounts import commands, staff_commands
from accounts.commands import UserNotFound
from accounts.domain import Account, InsufficientTokens
from accounts.staff_commands import (
    SHELL,
    Granted,
    GrantKeyReused,
    GrantTokens,
    deactivate_user,
    grant_id_for,
    grant_tokens,
)
from eventstore import keys
from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.decisions import decide
from eventstore.log import EventLog, event_log, transaction_with_log
from eventstore.models import EventRecord
from eventstore.reading import RecordedEvent, max_position, read_events
from tests.accounts.conftest import CAUSE

STAFF = UUID("57aff000-0000-4000-8000-000000000001")
CALLERS = 6


def grant(
    user_id: UUID, amount: int = 500, reason: str = "sorry", key: str | None = "monday"
) -> Granted:
    return grant_tokens(GrantTokens(grant_id_for(STAFF, key), user_id, amount, reason), CAUSE)


def tokens(user_id: UUID) -> int:
    return EventLog().load(Account, user_id).tokens


def grants() -> int:
    return EventRecord.objects.filter(topic="chatledger.accounts.GrantMade").count()


def named(events: list[RecordedEvent]) -> list[str]:
    return [event.topic.rsplit(".", 1)[1] for event in events]


# Accepted


def test_the_tokens_and_the_grant_are_one_append_that_says_who_and_why(alice: UUID) -> None:
    before = max_position()
    granted = grant(alice)
    events = read_events(before)
    assert named(events) == ["TokensGranted", "GrantMade"]
    assert [event.stream_id for event in events] == [alice, grant_id_for(STAFF, "monday")]
    assert {(event.actor, event.request_id) for event in events} == {("staff:test", "request-1")}
    assert events[0].data["grant_id"] == str(events[1].stream_id)
    assert keys.decrypt_all([event.data["reason"] for event in events]) == ["sorry", "sorry"]
    assert granted == Granted(4500, events[1].position, repeated=False)


def test_the_reason_is_under_the_users_key(alice: UUID) -> None:
    before = max_position()
    grant(alice, reason="canary reason")
    assert {event.data["reason"].key_id for event in read_events(before)} == {alice}
    stored = b"".join(bytes(data) for data in EventRecord.objects.values_list("data", flat=True))
    assert b"canary" not in stored


def test_a_deactivated_user_may_be_granted(alice: UUID) -> None:
    deactivate_user(staff_commands.DeactivateUser(alice), CAUSE)
    assert grant(alice).balance == 4500


# Refused


def test_nobody_is_granted_nothing(alice: UUID) -> None:
    before = max_position()
    with pytest.raises(UserNotFound):
        grant(uuid4())
    assert max_position() == before


# Repeated


def test_a_repeat_grants_nothing(alice: UUID) -> None:
    first = grant(alice)
    assert grant(alice) == Granted(4500, first.position, repeated=True)
    assert (tokens(alice), grants()) == (4500, 1)


@pytest.mark.parametrize("other", [{"amount": 501}, {"reason": "sorry!"}])
def test_another_amount_or_reason_under_the_same_key_is_refused(
    alice: UUID, other: dict[str, object]
) -> None:
    grant(alice)
    with pytest.raises(GrantKeyReused):
        grant(alice, **other)  # type: ignore[arg-type]
    assert tokens(alice) == 4500


def test_another_user_under_the_same_key_is_refused(alice: UUID, bob: UUID) -> None:
    grant(alice)
    with pytest.raises(GrantKeyReused):
        grant(bob)
    assert tokens(bob) == 4000


def test_a_refused_grant_binds_no_key(alice: UUID) -> None:
    with pytest.raises(UserNotFound):
        grant(uuid4())
    assert not grant(alice).repeated


def test_without_a_key_every_grant_is_another(alice: UUID) -> None:
    grant(alice, key=None)
    grant(alice, key=None)
    assert (tokens(alice), grants()) == (5000, 2)


def test_a_key_belongs_to_who_gives(alice: UUID) -> None:
    ids = {grant_id_for(giver, "monday") for giver in (STAFF, SHELL, alice)}
    assert len(ids) == 3


# Raced


def test_one_key_at_many_processes_is_one_grant(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each caller with a cache of its own and no turns, as processes have.
    for module in (commands, staff_commands):
        monkeypatch.setattr(module, "event_log", EventLog)
    monkeypatch.setattr(staff_commands, "one_at_a_time", lambda user_id: nullcontext())

    def one(_: int) -> Granted:
        with closing(connection):
            return grant(alice)

    with ThreadPoolExecutor(CALLERS) as pool:
        granted = list(pool.map(one, range(CALLERS)))
    assert sorted(each.repeated for each in granted) == [False] + [True] * (CALLERS - 1)
    assert {each.balance for each in granted} == {4500}
    assert (tokens(alice), grants()) == (4500, 1)


def test_a_grant_and_debits_of_other_processes_both_count(alice: UUID) -> None:
    def debit(_: int) -> None:
        with closing(connection):
            log = EventLog()

            def decision(*, fresh: bool) -> int:
                account = log.load(Account, alice, fresh=fresh)
                account.debit(100, message_id=uuid4())
                return log.append(account, cause=Cause("user:alice"))

            decide(decision)

    def give(_: int) -> None:
        with closing(connection):
            grant(alice, 7, key=None)

    with ThreadPoolExecutor(2) as pool:
        debits = pool.map(debit, range(10))
        gifts = [pool.submit(give, number) for number in range(10)]
        list(debits)
        for gift in gifts:
            gift.result()
    assert tokens(alice) == 4000 - 10 * 100 + 10 * 7


def test_a_debit_that_only_the_grant_of_another_process_covers_is_accepted(alice: UUID) -> None:
    here = event_log()
    assert here.load(Account, alice).tokens == 4000
    there = EventLog()
    account = there.load(Account, alice)
    account.grant(1000, reason="sorry", grant_id=uuid4())
    there.append(account, cause=CAUSE)

    def decision(*, fresh: bool) -> int:
        account = here.load(Account, alice, fresh=fresh)
        account.debit(5000, message_id=uuid4())
        return here.append(account, cause=CAUSE)

    decide(decision)
    assert tokens(alice) == 0
    with pytest.raises(InsufficientTokens):
        decide(decision)


def test_a_grant_whose_commit_was_not_heard_of_is_made_once(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [True]

    @contextmanager
    def cut_off_after_the_commit() -> Iterator[None]:
        with transaction_with_log():
            yield
        if lost and lost.pop():
            raise OperationalError("the connection is lost")

    monkeypatch.setattr(staff_commands, "transaction_with_log", cut_off_after_the_commit)
    assert grant(alice, key=None).balance == 4500
    assert (tokens(alice), grants(), lost) == (4500, 1, [])


def test_a_database_that_stays_away_is_said_to_be(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> NoReturn:
        raise OperationalError("no route")

    monkeypatch.setattr(staff_commands, "transaction_with_log", away)
    with pytest.raises(StoreUnavailable):
        grant(alice)
