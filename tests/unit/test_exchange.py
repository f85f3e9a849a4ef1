from conversations.domain import (
    Conversation,
    ConversationStarted,
    Exchange,
    MessageSent,
    ResponseFailed,
    ResponseGenerated,
)
from tests.unit.story import ALICE, HELLO, TALK, fact, given, new_facts

SENT = fact(
    MessageSent,
    user_id=ALICE,
    conversation_id=TALK,
    message="hello",
    price=100,
    deadline_seconds=90,
)
GENERATED = fact(
    ResponseGenerated,
    user_id=ALICE,
    conversation_id=TALK,
    response="Hi there!",
    cost=100,
    model="dummy",
)
FAILED = fact(ResponseFailed, user_id=ALICE, conversation_id=TALK, reason="deadline", cost=0)


def test_a_conversation_starts_with_its_owner() -> None:
    conversation = Conversation.start(TALK, user_id=ALICE)
    assert new_facts(conversation) == [fact(ConversationStarted, user_id=ALICE, title=None)]


def test_a_message_is_the_first_version_of_its_exchange() -> None:
    exchange = Exchange.send(HELLO, **SENT[1])
    assert (exchange.version, exchange.ended) == (1, False)
    assert new_facts(exchange) == [SENT]


def test_a_response_ends_the_exchange() -> None:
    exchange = given(Exchange, SENT, stream_id=HELLO)
    exchange.respond("Hi there!", cost=100, model="dummy")
    assert exchange.version == 2
    assert new_facts(exchange) == [GENERATED]


def test_a_response_never_costs_more_than_was_debited() -> None:
    exchange = given(Exchange, SENT, stream_id=HELLO)
    exchange.respond("Hi there!", cost=250, model="dummy")
    assert new_facts(exchange) == [GENERATED]


def test_a_failure_ends_the_exchange_and_costs_nothing() -> None:
    exchange = given(Exchange, SENT, stream_id=HELLO)
    exchange.fail("deadline")
    assert new_facts(exchange) == [FAILED]


def test_an_exchange_that_has_ended_stays_as_it_is() -> None:
    for end in (GENERATED, FAILED):
        exchange = given(Exchange, SENT, end, stream_id=HELLO)
        exchange.respond("late", cost=100, model="dummy")
        exchange.fail("deadline")
        assert new_facts(exchange) == []
