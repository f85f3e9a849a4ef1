"""The projections and the domains speak of the same events."""

from uuid import UUID

import pytest

from accounts.domain import Account
from conversations.domain import Conversation, Exchange
from eventstore import keys
from eventstore.cause import Cause
from eventstore.domain import TOPICS
from eventstore.log import EventLog, transaction_with_log
from projections import queries
from projections.comparison import compare_with_fresh_replay
from projections.pending import in_flight_of_user
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import ALICE, CHAT, HELLO, TALK, drain, messages


def test_every_handled_topic_is_one_of_an_event() -> None:
    handled = {topic for projection in PROJECTIONS.values() for topic in projection.handlers}
    assert handled <= TOPICS.keys()


@pytest.mark.django_db
def test_the_events_of_the_domains_become_rows() -> None:
    log = EventLog()
    account = Account.register(ALICE, username="alice", default_conversation_id=TALK, grant=4000)
    talk = Conversation.start(TALK, user_id=ALICE)
    chat = Conversation.start(CHAT, user_id=ALICE, title="gone")
    one, two, three = messages(3)
    answered, stopped, lost = (send(message_id, TALK) for message_id in (one, two, three))
    deleted = send(HELLO, CHAT)
    for exchange in (answered, stopped, lost, deleted):
        account.debit(100, message_id=exchange.id)
    talk.rename("weather")
    answered.respond("hi", usage=None, attempt=1, model="dummy")
    stopped.cancel("so fa", usage=None, attempt=1)
    lost.fail("deadline")
    account.refund(100, message_id=three, reason="deadline")
    deleted.cancel("", usage=None, attempt=1)
    account.refund(100, message_id=HELLO, reason="cancelled")
    account.close_conversation(CHAT, new_default_id=HELLO)
    chat.delete()
    with transaction_with_log():
        keys.create_key(ALICE)
        keys.create_key(TALK, wrapped_by=ALICE)
        keys.create_key(CHAT, wrapped_by=ALICE)
        parts = (account, talk, chat, answered, stopped, lost, deleted)
        log.append(*parts, cause=Cause(f"user:{ALICE}"))
    drain(ProjectionRunner())
    assert queries.parked_count() == 0
    assert queries.balance(ALICE) == 3800
    user = queries.user(ALICE)
    assert user is not None
    assert user.username == "alice"
    assert [row.title for row in queries.list_conversations(ALICE, None, 10)] == ["weather"]
    page = queries.messages(ALICE, TALK, after=None, before=None, limit=10)
    assert page is not None
    assert [(row.message, row.status, row.response, row.cost) for row in page.rows] == [
        ("hello", "done", "hi", 100),
        ("hello", "cancelled", "so fa", 100),
        ("hello", "failed", None, 0),
    ]
    assert queries.messages(ALICE, CHAT, after=None, before=None, limit=10) is None
    assert in_flight_of_user(ALICE).pending == set()
    assert compare_with_fresh_replay() == []


def send(message_id: UUID, conversation_id: UUID) -> Exchange:
    return Exchange.send(
        message_id,
        user_id=ALICE,
        conversation_id=conversation_id,
        message="hello",
        price=100,
        deadline_seconds=90,
    )
