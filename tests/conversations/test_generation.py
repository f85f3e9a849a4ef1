import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings
from structlog.contextvars import get_contextvars

from accounts.domain import Account
from conversations import responders
from conversations.commands import fail_message, respond_to_message
from conversations.domain import Exchange, Usage
from conversations.ends import end_of as ended_as
from conversations.generation import ATTEMPTS_MAX, attempt_of, generate, lease_name
from conversations.responders import Prompt, Reply, ResponderFailed
from eventstore.leases import get_leases
from eventstore.log import EventLog, event_log
from eventstore.reading import RecordedEvent, read_events, read_stream
from tests.conversations.conftest import CAUSE, Send

Respond = Callable[[Prompt, Reply], None]


@pytest.fixture
def respond_with(settings: Settings) -> Callable[[Respond], None]:
    """Let a function of the test be the responder."""

    def use(function: Respond) -> None:
        class Scripted:
            model = "scripted"
            waits = False

            def respond(self, prompt: Prompt, reply: Reply) -> None:
                function(prompt, reply)

        responders.registered["scripted"] = Scripted
        settings.RESPONDER = "scripted"

    return use


def end_of(message_id: UUID) -> RecordedEvent:
    _, end = read_stream(message_id)
    return end


def test_a_message_ends_with_its_response_and_what_caused_it(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    generate(message_id)
    sent, end = read_stream(message_id)
    assert end.topic == "chatledger.conversations.ResponseGenerated"
    assert (end.data["cost"], end.data["model"]) == (100, "dummy")
    assert (end.actor, end.request_id, end.causation_id) == ("worker", "request-1", sent.event_id)
    assert event_log().load(Account, alice).tokens == 3900


def test_a_message_delivered_twice_is_generated_once(
    alice: UUID, send: Send, respond_with: Callable[[Respond], None]
) -> None:
    calls: list[UUID] = []

    def count(prompt: Prompt, reply: Reply) -> None:
        calls.append(prompt.message_id)
        reply.say("once")

    respond_with(count)
    message_id = send(alice).message_id
    generate(message_id)
    generate(message_id)
    assert calls == [message_id]
    assert len(read_stream(message_id)) == 2


def test_a_message_somebody_works_on_is_left_to_them(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    get_leases().renew(lease_name(message_id), "somebody", 10)
    generate(message_id)
    assert ended_as(message_id) is None
    get_leases().release(lease_name(message_id), "somebody")
    generate(message_id)
    assert ended_as(message_id) is not None


def test_a_message_that_is_not_in_the_log_is_nobodys_work() -> None:
    generate(uuid4())
    assert read_events(0) == []


@pytest.mark.parametrize("error", [ResponderFailed("the model is away"), RuntimeError("a bug")])
def test_a_responder_that_fails_ends_the_message_and_refunds_it(
    alice: UUID, send: Send, respond_with: Callable[[Respond], None], error: Exception
) -> None:
    def fail(_: Prompt, reply: Reply) -> None:
        reply.say("half a sen")
        raise error

    respond_with(fail)
    message_id = send(alice).message_id
    generate(message_id)
    end = end_of(message_id)
    assert (end.data["reason"], end.data["cost"]) == ("responder", 0)
    refund = read_events(end.position - 2, 1)[0]
    assert (refund.topic.rsplit(".", 1)[1], refund.data["amount"]) == ("TokensRefunded", 100)
    assert EventLog().load(Account, alice).tokens == 4000


def test_two_attempts_are_made_and_no_third(
    alice: UUID,
    send: Send,
    respond_with: Callable[[Respond], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[UUID] = []

    class WorkerDied(BaseException):
        pass

    def die(prompt: Prompt, reply: Reply) -> None:
        calls.append(prompt.message_id)
        reply.say("half a sen")
        raise WorkerDied

    respond_with(die)
    monkeypatch.setattr("eventstore.leases.LEASE_SECONDS", 0.05)
    message_id = send(alice).message_id
    for _ in range(ATTEMPTS_MAX):
        with pytest.raises(WorkerDied):
            generate(message_id)
        run_out(lease_name(message_id))
    generate(message_id)
    assert len(calls) == ATTEMPTS_MAX
    assert end_of(message_id).data["reason"] == "worker_lost"


def run_out(lease: str) -> None:
    """Wait until a lease that nobody renews any more has run out."""
    until = time.monotonic() + 5
    while get_leases().holder_of(lease) is not None:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_database_that_is_away_does_not_count_as_a_workers_death(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = send(alice).message_id
    with monkeypatch.context() as away:
        away.setattr("conversations.generation.read_stream_now", _raise_operational_error)
        for _ in range(ATTEMPTS_MAX + 1):
            with pytest.raises(OperationalError):
                generate(message_id)
    generate(message_id)
    assert end_of(message_id).topic.endswith("ResponseGenerated")


def _raise_operational_error(_: UUID) -> None:
    raise OperationalError("connection refused")


def test_a_late_response_after_a_refund_changes_nothing(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    late = event_log().load(Exchange, message_id)
    failed = fail_message(message_id, "deadline", CAUSE)
    answered = respond_to_message(late, "late", usage=None, attempt=1, model="dummy", cause=CAUSE)
    assert answered == failed == ended_as(message_id)
    assert end_of(message_id).data["reason"] == "deadline"
    assert EventLog().load(Account, alice).tokens == 4000


def test_a_refund_after_a_response_changes_nothing(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    generate(message_id)
    fail_message(message_id, "deadline", CAUSE)
    assert end_of(message_id).topic.endswith("ResponseGenerated")
    assert EventLog().load(Account, alice).tokens == 3900


def test_a_response_that_costs_less_is_refunded_in_the_same_append(
    alice: UUID, send: Send, settings: Settings
) -> None:
    price_by_usage(settings)
    message_id = send(alice).message_id
    exchange = event_log().load(Exchange, message_id)
    assert exchange.price == 112
    used = Usage(prompt_tokens=1000, completion_tokens=500, estimated=False)
    ended = respond_to_message(exchange, "short", usage=used, attempt=7, model="dummy", cause=CAUSE)
    assert ended == ended_as(message_id)
    assert ended
    assert (ended.cost, ended.refunded, ended.response, ended.attempt) == (26, 86, "short", 7)
    refund = read_events(ended.position - 2, 1)[0]
    assert (refund.data["amount"], refund.data["reason"]) == (86, "unused")
    end = end_of(message_id)
    assert refund.at == end.at
    assert end.data["usage"] == {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "estimated": False,
    }
    assert EventLog().load(Account, alice).tokens == 4000 - 26


def test_a_response_whose_usage_nobody_counted_costs_the_estimate(
    alice: UUID, send: Send, settings: Settings
) -> None:
    price_by_usage(settings)
    settings.PROMPT_PRICE_PER_1000 = 10_000
    settings.COMPLETION_PRICE_PER_1000 = 10_000
    settings.SIGNUP_TOKENS = 4000
    settings.CONTEXT_TOKENS_MAX = 256
    settings.RESPONSE_TOKENS_MAX = 100
    message_id = send(alice, "hello").message_id
    generate(message_id)
    ended = ended_as(message_id)
    assert ended
    # "hello" has 5 bytes, and its response 35.
    assert (ended.cost, ended.refunded) == ((2 + 9) * 10, 3560 - 110)


def price_by_usage(settings: Settings) -> None:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 10
    settings.COMPLETION_PRICE_PER_1000 = 31


def test_forced_races_of_a_response_against_the_deadline_have_one_end_each(
    alice: UUID, send: Send, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 1
    races = 100
    messages = [send(alice).message_id for _ in range(races)]
    start = Barrier(2)
    done = Event()

    def respond() -> None:
        for message_id in messages:
            exchange = event_log().load(Exchange, message_id)
            start.wait()
            respond_to_message(
                exchange, "in time?", usage=None, attempt=1, model="dummy", cause=CAUSE
            )
        done.set()
        connection.close()

    def refund() -> None:
        for message_id in messages:
            start.wait()
            fail_message(message_id, "deadline", CAUSE)
        connection.close()

    with ThreadPoolExecutor(2) as racers:
        for racer in [racers.submit(respond), racers.submit(refund)]:
            racer.result()
    assert done.is_set()
    ends = [end_of(message_id) for message_id in messages]
    failed = sum(end.topic.endswith("ResponseFailed") for end in ends)
    assert EventLog().load(Account, alice).tokens == 4000 - (races - failed)


def test_later_attempts_have_higher_numbers_whatever_the_clock_says() -> None:
    assert attempt_of(0, 1) < attempt_of(0, 2) < attempt_of(1_500_000, 1) < attempt_of(3_000_000, 1)


def test_what_a_worker_thread_logs_next_carries_no_id_of_a_message(alice: UUID, send: Send) -> None:
    before = get_contextvars()
    generate(send(alice).message_id)
    assert get_contextvars() == before
    assert "message_id" not in before
