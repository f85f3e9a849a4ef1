import pytest

from conversations.domain import (
    Conversation,
    ConversationStarted,
    Exchange,
    MessageSent,
    ResponseCancelled,
    ResponseFailed,
    ResponseGenerated,
    Usage,
    UsagePrices,
)
from tests.unit.story import ALICE, HELLO, TALK, Fact, fact, given, new_facts

PRICES = UsagePrices(
    prompt_per_1000=10, completion_per_1000=31, prompt_tokens_max=8000, completion_tokens_max=1024
)
SENT = fact(
    MessageSent,
    user_id=ALICE,
    conversation_id=TALK,
    message="hello",
    price=100,
    usage_prices=None,
    deadline_seconds=90,
)
SENT_BY_USAGE = fact(
    MessageSent,
    user_id=ALICE,
    conversation_id=TALK,
    message="hello",
    price=112,
    usage_prices={
        "prompt_per_1000": 10,
        "completion_per_1000": 31,
        "prompt_tokens_max": 8000,
        "completion_tokens_max": 1024,
    },
    deadline_seconds=90,
)
USED = Usage(prompt_tokens=1000, completion_tokens=500, estimated=False)


def generated(**what: object) -> Fact:
    said = {"response": "Hi there!", "cost": 100, "usage": None, "attempt": 7, "model": "dummy"}
    return fact(ResponseGenerated, user_id=ALICE, conversation_id=TALK, **(said | what))


def cancelled(**what: object) -> Fact:
    said = {"response": "Hi the", "cost": 100, "usage": None, "attempt": 7}
    return fact(ResponseCancelled, user_id=ALICE, conversation_id=TALK, **(said | what))


FAILED = fact(ResponseFailed, user_id=ALICE, conversation_id=TALK, reason="deadline", cost=0)


def sent() -> Exchange:
    return given(Exchange, SENT, stream_id=HELLO)


def sent_by_usage() -> Exchange:
    return given(Exchange, SENT_BY_USAGE, stream_id=HELLO)


def test_a_conversation_starts_with_its_owner() -> None:
    conversation = Conversation.start(TALK, user_id=ALICE)
    assert new_facts(conversation) == [fact(ConversationStarted, user_id=ALICE, title=None)]


def test_a_message_is_the_first_version_of_its_exchange() -> None:
    exchange = Exchange.send(HELLO, **SENT[1])
    assert (exchange.version, exchange.ended) == (1, False)
    assert new_facts(exchange) == [SENT]


def test_a_message_carries_the_prices_it_was_sent_at() -> None:
    exchange = Exchange.send(HELLO, **{**SENT_BY_USAGE[1], "usage_prices": PRICES})
    assert exchange.usage_prices == PRICES
    assert new_facts(exchange) == [SENT_BY_USAGE]


def test_a_message_of_before_there_were_prices_by_usage_is_flat() -> None:
    what = {name: said for name, said in SENT[1].items() if name != "usage_prices"}
    exchange = given(Exchange, fact(MessageSent, **what), stream_id=HELLO)
    assert exchange.usage_prices is None


def test_a_response_ends_the_exchange() -> None:
    exchange = sent()
    assert exchange.respond("Hi there!", usage=None, attempt=7, model="dummy") == 100
    assert exchange.version == 2
    assert new_facts(exchange) == [generated()]


def test_a_flat_price_does_not_ask_for_the_usage() -> None:
    assert sent().respond("Hi there!", usage=USED, attempt=7, model="dummy") == 100


def test_a_response_by_usage_costs_what_it_used_rounded_up() -> None:
    exchange = sent_by_usage()
    assert exchange.respond("Hi there!", usage=USED, attempt=7, model="gpt") == 26
    used = {"prompt_tokens": 1000, "completion_tokens": 500, "estimated": False}
    assert new_facts(exchange) == [generated(cost=26, usage=used, model="gpt")]


def test_a_response_never_costs_more_than_was_debited() -> None:
    used = Usage(prompt_tokens=9000, completion_tokens=5000, estimated=False)
    assert sent_by_usage().respond("Hi there!", usage=used, attempt=7, model="gpt") == 112


def test_a_cancelled_response_keeps_its_text_and_costs_its_price() -> None:
    exchange = sent()
    assert exchange.cancel("Hi the", usage=None, attempt=7) == 100
    assert new_facts(exchange) == [cancelled()]


def test_a_cancelled_response_by_usage_costs_what_is_estimated() -> None:
    exchange = sent_by_usage()
    used = Usage(prompt_tokens=10, completion_tokens=2, estimated=True)
    assert exchange.cancel("Hi the", usage=used, attempt=7) == 1
    said = {"prompt_tokens": 10, "completion_tokens": 2, "estimated": True}
    assert new_facts(exchange) == [cancelled(cost=1, usage=said)]


@pytest.mark.parametrize("exchange", [sent(), sent_by_usage()])
def test_a_message_cancelled_before_any_text_costs_nothing(exchange: Exchange) -> None:
    used = Usage(prompt_tokens=10, completion_tokens=0, estimated=True)
    assert exchange.cancel("", usage=used, attempt=0) == 0
    assert new_facts(exchange) == [cancelled(response=None, cost=0, attempt=0)]


def test_a_failure_ends_the_exchange_and_costs_nothing() -> None:
    exchange = sent()
    exchange.fail("deadline")
    assert new_facts(exchange) == [FAILED]


@pytest.mark.parametrize("end", [generated(), cancelled(), FAILED])
def test_an_exchange_that_has_ended_stays_as_it_is(end: Fact) -> None:
    exchange = given(Exchange, SENT, end, stream_id=HELLO)
    exchange.respond("late", usage=None, attempt=8, model="dummy")
    exchange.cancel("late", usage=None, attempt=8)
    exchange.fail("deadline")
    assert new_facts(exchange) == []
