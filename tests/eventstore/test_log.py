from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import IntegrityError

from accounts.domain import Account, InsufficientTokens
from conversations.domain import Conversation, Exchange
from eventstore import keys
from eventstore.cause import Cause
from eventstore.database import writing
from eventstore.decisions import decide
from eventstore.log import BEHIND_MAX, EventLog, transaction_with_log
from eventstore.mapper import UnknownTopic
from eventstore.models import DataKey, EventRecord, SnapshotRecord
from eventstore.reading import max_position, read_stream

pytestmark = pytest.mark.django_db(transaction=True)

CAUSE = Cause("worker", "request-2", UUID(int=5))


@pytest.fixture
def log() -> EventLog:
    return EventLog()


def opened(log: EventLog, tokens: int = 100_000) -> Account:
    user_id, talk = uuid4(), uuid4()
    with writing():
        keys.create_key(user_id)
        keys.create_key(talk, wrapped_by=user_id)
    account = Account.register(
        user_id, username="alice", default_conversation_id=talk, grant=tokens
    )
    log.append(account, cause=CAUSE)
    return account


def test_what_was_appended_comes_back_from_the_events_alone(log: EventLog) -> None:
    account = opened(log)
    read = EventLog().load(Account, account.id)
    assert vars(read) == vars(account)


def test_personal_text_is_stored_encrypted(log: EventLog) -> None:
    account = opened(log)
    stored = EventRecord.objects.get(stream_id=account.id, version=1)
    assert b"alice" not in bytes(stored.data)
    assert b"timestamp" not in bytes(stored.data)
    event: Any = log.mapper.to_domain_event(log.recorder.select_events(account.id)[0])
    assert event.username == "alice"


def test_metadata_says_who_caused_an_event(log: EventLog) -> None:
    account = opened(log)
    event = read_stream(account.id)[0]
    assert (event.actor, event.request_id, event.causation_id) == (
        "worker",
        "request-2",
        UUID(int=5),
    )


def test_a_loaded_aggregate_may_be_changed_without_harm_to_the_next_one(log: EventLog) -> None:
    account = opened(log)
    log.load(Account, account.id).debit(100, message_id=uuid4())
    assert log.load(Account, account.id).tokens == 100_000


def test_a_stale_aggregate_stores_nothing_and_is_forgotten(log: EventLog) -> None:
    other = EventLog()
    account = opened(log)
    other.load(Account, account.id)
    ours, theirs = log.load(Account, account.id), other.load(Account, account.id)
    ours.debit(100, message_id=uuid4())
    log.append(ours, cause=CAUSE)
    theirs.debit(100, message_id=uuid4())
    with pytest.raises(IntegrityError):
        other.append(theirs, cause=CAUSE)
    assert other.load(Account, account.id).tokens == 99_900


def test_a_rolled_back_append_is_not_remembered(log: EventLog) -> None:
    account = opened(log)
    changed = log.load(Account, account.id)
    changed.revoke_jwts()
    with pytest.raises(RuntimeError), transaction_with_log():
        log.append(changed, cause=CAUSE)
        raise RuntimeError
    assert log.load(Account, account.id).jwt_epoch == 0


def test_a_stream_that_does_not_exist_is_not_found(log: EventLog) -> None:
    account = opened(log)
    assert log.find(Account, uuid4()) is None
    assert log.find(Exchange, uuid4()) is None
    with pytest.raises(AggregateNotFoundError):
        log.load(Exchange, account.id)


def test_an_account_is_read_from_its_snapshot_and_what_came_after(log: EventLog) -> None:
    account = log.load(Account, opened(log).id)
    for _ in range(203):
        account.debit(1, message_id=uuid4())
        log.append(account, cause=CAUSE)
    versions = list(SnapshotRecord.objects.order_by("version").values_list("version", flat=True))
    assert versions == [100, 200]
    EventRecord.objects.filter(stream_id=account.id, version__lte=200).delete()
    read = EventLog().load(Account, account.id)
    assert (read.tokens, read.version) == (100_000 - 203, 205)
    assert read.default_conversation_id == account.default_conversation_id


def test_a_snapshot_that_falls_due_in_a_transaction_is_taken_after_it(log: EventLog) -> None:
    account = log.load(Account, opened(log).id)
    for _ in range(97):
        account.debit(1, message_id=uuid4())
    with transaction_with_log():
        account.revoke_jwts()
        log.append(account, cause=CAUSE)
        assert not SnapshotRecord.objects.exists()
    assert SnapshotRecord.objects.get().version == account.version == 100


def test_a_snapshot_of_an_older_shape_counts_as_absent(log: EventLog) -> None:
    account = log.load(Account, opened(log).id)
    for _ in range(98):
        account.debit(1, message_id=uuid4())
    log.append(account, cause=CAUSE)
    SnapshotRecord.objects.update(data=b'{"state":{"tokens":7}}')
    read = EventLog().load(Account, account.id)
    assert (read.tokens, read.active) == (100_000 - 98, True)


def test_an_unreadable_snapshot_counts_as_absent(log: EventLog) -> None:
    account = log.load(Account, opened(log).id)
    for _ in range(98):
        account.debit(1, message_id=uuid4())
    log.append(account, cause=CAUSE)
    SnapshotRecord.objects.update(data=b"not json")
    assert EventLog().load(Account, account.id).tokens == 100_000 - 98


def debited(log: EventLog, user_id: UUID, amount: int = 1, times: int = 1) -> Account:
    """An account of which something was paid; it is stored in one append."""
    account = log.load(Account, user_id)
    for _ in range(times):
        account.debit(amount, message_id=uuid4())
    log.append(account, cause=CAUSE)
    return account


def test_what_others_have_stored_is_read_behind_what_is_in_memory(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = opened(log).id
    theirs = debited(EventLog(), user_id, times=3)
    assert log.load(Account, user_id).version == theirs.version - 3
    # Nothing is loaded whole.
    monkeypatch.setattr(EventLog, "_loaded", lambda *_: None)
    assert vars(log.load(Account, user_id, fresh=True)) == vars(theirs)
    assert vars(log.load(Account, user_id)) == vars(theirs)
    # And again behind what was read so, and behind what was appended to it.
    for _ in range(2):
        ours = debited(log, user_id)
        assert vars(log.load(Account, user_id, fresh=True)) == vars(ours)


def test_what_was_read_once_is_not_changed_by_what_is_read_behind_it(log: EventLog) -> None:
    user_id = opened(log).id
    before = log.load(Account, user_id)
    debited(EventLog(), user_id)
    assert log.load(Account, user_id, fresh=True).tokens == 99_999
    assert (before.tokens, before.version) == (100_000, 2)


@pytest.mark.parametrize("others", [BEHIND_MAX, BEHIND_MAX + 1, 3 * BEHIND_MAX])
def test_however_far_behind_something_is_it_catches_up(log: EventLog, others: int) -> None:
    user_id = opened(log).id
    theirs = debited(EventLog(), user_id, times=others)
    assert vars(log.load(Account, user_id, fresh=True)) == vars(theirs)


def test_what_is_not_kept_in_memory_is_read_to_its_end(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = opened(log).id
    theirs = debited(EventLog(), user_id, times=3 * BEHIND_MAX)
    monkeypatch.setattr(Account, "cached", False)
    assert vars(EventLog().load(Account, user_id)) == vars(theirs)


def test_what_is_not_kept_in_memory_is_not_kept_for_who_takes_it_for_something_else(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = opened(log).id
    monkeypatch.setattr(Account, "cached", False)
    another = EventLog()
    assert another.find(Conversation, user_id) is None
    assert another._remembered(user_id) is None


def test_a_database_without_what_is_in_memory_is_believed(log: EventLog) -> None:
    user_id = opened(log).id
    debited(log, user_id, 500, times=2)
    EventRecord.objects.filter(stream_id=user_id, version__gt=2).delete()
    back = log.load(Account, user_id, fresh=True)
    assert (back.tokens, back.version) == (100_000, 2)


@pytest.mark.parametrize("more", [0, 1])
def test_a_database_with_another_past_at_the_same_versions_is_believed(
    log: EventLog, more: int
) -> None:
    """Even if the last event that is known says the same in both."""
    user_id, same = opened(log).id, uuid4()
    for where, amount in ((log, 500), (EventLog(), 700)):
        EventRecord.objects.filter(stream_id=user_id, version__gt=2).delete()
        account = where.load(Account, user_id)
        if account.version == 2:
            account.debit(amount, message_id=uuid4())
            account.debit(1, message_id=same)
            where.append(account, cause=CAUSE)
    for _ in range(more):
        debited(EventLog(), user_id)
    back = log.load(Account, user_id, fresh=True)
    assert (back.tokens, back.version) == (100_000 - 701 - more, 4 + more)


def test_a_stream_that_is_gone_is_not_found_and_not_remembered(log: EventLog) -> None:
    user_id = opened(log).id
    EventRecord.objects.filter(stream_id=user_id).delete()
    assert log.find(Account, user_id, fresh=True) is None
    assert log.find(Account, user_id) is None


def test_several_streams_are_read_anew_together(log: EventLog) -> None:
    alice, bob, carol = (opened(log).id for _ in range(3))
    theirs = {each: debited(EventLog(), each, times=2) for each in (alice, bob)}
    log.evict(bob)
    message = uuid4()
    read = log.read_anew([*((Account, each) for each in (alice, bob, carol)), (Exchange, message)])
    assert read.pop(message) is None
    assert {each: vars(read[each]) for each in read} == {
        alice: vars(theirs[alice]),
        bob: vars(theirs[bob]),
        carol: vars(log.load(Account, carol)),
    }


def test_a_topic_that_nobody_knows_is_named_and_nothing_is_imported(log: EventLog) -> None:
    account = opened(log)
    EventRecord.objects.filter(stream_id=account.id).update(topic="os:system")
    with pytest.raises(UnknownTopic, match="os:system"):
        EventLog().load(Account, account.id)


def test_what_comes_after_an_erasure_is_stored_without_its_text(log: EventLog) -> None:
    account = opened(log)
    exchange = Exchange.send(
        uuid4(),
        user_id=account.id,
        conversation_id=account.default_conversation_id,
        message="hello",
        price=100,
        deadline_seconds=90,
    )
    log.append(exchange, cause=CAUSE)
    DataKey.objects.filter(id=account.id).update(wrapped=None)
    keys.forget()
    ended = log.load(Exchange, exchange.id)
    assert ended.message == keys.ERASED
    ended.respond("late", usage=None, attempt=1, model="dummy")
    log.append(ended, cause=CAUSE)
    assert read_stream(exchange.id)[1].data["response"] is None
    assert log.load(Exchange, exchange.id).ended


def test_a_refusal_is_believed_only_on_fresh_state() -> None:
    tries: list[bool] = []

    def decision(*, fresh: bool) -> str:
        tries.append(fresh)
        if not fresh:
            raise InsufficientTokens(0, 100)
        return "accepted"

    assert decide(decision) == "accepted"
    assert tries == [False, True]


def test_a_race_is_decided_again_until_it_is_won() -> None:
    tries: list[bool] = []

    def decision(*, fresh: bool) -> str:
        tries.append(fresh)
        if len(tries) < 4:
            raise IntegrityError
        return "accepted"

    assert decide(decision) == "accepted"
    assert tries == [False, True, True, True]


def test_the_log_ignores_the_librarys_environment_variables(
    monkeypatch: pytest.MonkeyPatch, log: EventLog
) -> None:
    monkeypatch.setenv("PERSISTENCE_MODULE", "eventsourcing.popo")
    monkeypatch.setenv("COMPRESSOR_TOPIC", "zlib")
    account = opened(EventLog())
    assert max_position() == 2
    assert log.load(Account, account.id).tokens == 100_000
