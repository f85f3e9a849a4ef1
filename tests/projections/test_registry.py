"""The projections and the domains speak of the same events."""

import pytest

from accounts.domain import Account
from conversations.domain import Exchange
from eventstore import keys
from eventstore.cause import Cause
from eventstore.domain import TOPICS
from eventstore.log import EventLog, transaction_with_log
from projections import queries
from projections.comparison import compare_with_fresh_replay
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import ALICE, HELLO, TALK, drain


def test_every_handled_topic_is_one_of_an_event() -> None:
    handled = {topic for projection in PROJECTIONS.values() for topic in projection.handlers}
    assert handled <= TOPICS.keys()


@pytest.mark.django_db
def test_the_events_of_the_domains_become_rows() -> None:
    log = EventLog()
    account = Account.register(ALICE, username="alice", default_conversation_id=TALK, grant=4000)
    exchange = Exchange.send(
        HELLO,
        user_id=ALICE,
        conversation_id=TALK,
        message="hello",
        price=100,
        deadline_seconds=90,
    )
    account.debit(100, message_id=HELLO)
    exchange.respond("hi", cost=80, model="dummy")
    account.refund(20, message_id=HELLO, reason="usage")
    with transaction_with_log():
        keys.create_key(ALICE)
        keys.create_key(TALK, wrapped_by=ALICE)
        log.append(account, exchange, cause=Cause(f"user:{ALICE}"))
    drain(ProjectionRunner())
    assert queries.parked_count() == 0
    assert queries.balance(ALICE) == 3920
    user, message = queries.user(ALICE), queries.message(ALICE, HELLO)
    assert user is not None
    assert user.username == "alice"
    assert message is not None
    assert (message.message, message.response, message.cost) == ("hello", "hi", 80)
    assert compare_with_fresh_replay() == []
