"""The broker of this profile: a hint that is fast, bounded, and may lose everything."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dramatiq
import pytest
import redis
from django.conf import settings
from dramatiq.broker import Broker, Consumer

from conversations import embedded_broker, instant
from conversations.broker import WakingRedisBroker, make_broker
from conversations.embedded_broker import BrokerFull, Depth, EmbeddedBroker
from conversations.worker import AnsweringWorker


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = make_broker()
    if isinstance(made, WakingRedisBroker):
        made.namespace = "test"
    yield made
    made.flush_all()
    made.close()


@pytest.fixture
def worker(broker: Broker) -> Iterator[dramatiq.Worker]:
    running = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    yield running
    running.stop()


def test_an_idle_worker_has_a_message_within_milliseconds(
    broker: Broker, worker: dramatiq.Worker
) -> None:
    arrived = threading.Event()
    delays: list[float] = []

    @dramatiq.actor(broker=broker)
    def note(sent_at: float) -> None:
        delays.append(time.time() - sent_at)
        arrived.set()

    worker.start()
    for _ in range(11):
        arrived.clear()
        time.sleep(0.15)  # idle: longer than any backoff before the wait
        note.send(time.time())
        assert arrived.wait(5)
    assert sorted(delays)[5] < 0.05


def test_a_broker_that_lost_everything_takes_the_next_message(
    broker: Broker, worker: dramatiq.Worker
) -> None:
    arrived: list[int] = []

    @dramatiq.actor(broker=broker)
    def note(number: int) -> None:
        arrived.append(number)

    note.send(1)
    if isinstance(broker, WakingRedisBroker):
        broker.flush_orders()
        broker.client.flushall()
        broker.client.script_flush()
    else:
        broker.flush_all()
    note.send(2)
    worker.start()
    deadline = time.monotonic() + 5
    while 2 not in arrived:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert arrived == [2]


@pytest.mark.parametrize("error", [redis.ConnectionError, redis.TimeoutError])
def test_a_redis_that_hangs_up_or_says_nothing_is_a_lost_connection_and_no_surprise(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # in memory there is no connection to lose
        return
    consumer = broker.consume("default")
    assert next(consumer) is None

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(broker.bells, "pipeline", fail)
    with pytest.raises(dramatiq.ConnectionClosed):
        next(consumer)


def test_the_embedded_broker_is_bounded_and_keeps_nothing_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if settings.REDIS_URL:
        # Redis is bounded by its own settings; there is one broker of each kind.
        assert not isinstance(make_broker(), EmbeddedBroker)
        return
    monkeypatch.setattr(embedded_broker, "QUEUED_MAX", 3)
    small = make_broker()

    @dramatiq.actor(broker=small)
    def fail() -> None:
        raise RuntimeError

    for _ in range(3):
        fail.send()
    with pytest.raises(BrokerFull):
        fail.send()
    worker = dramatiq.Worker(small, worker_threads=2, worker_timeout=50)
    worker.start()
    small.join("default", timeout=5000, fail_fast=False)  # type: ignore[call-arg]  # the stub's own
    worker.stop()
    assert isinstance(small, EmbeddedBroker)
    assert small.dead_letters == []


def test_what_a_broker_holds_is_counted_as_waiting_and_as_fetched(
    broker: EmbeddedBroker | WakingRedisBroker, worker: dramatiq.Worker
) -> None:
    begun, over = threading.Semaphore(0), threading.Event()

    @dramatiq.actor(broker=broker)
    def hold() -> None:
        begun.release()
        over.wait(10)

    assert broker.depth() == Depth(0, 0)
    for _ in range(5):
        hold.send()
    if isinstance(broker, WakingRedisBroker):
        broker.flush_orders()
    assert broker.depth() == Depth(5, 0)

    worker.queue_prefetch = 2
    worker.start()
    assert all(begun.acquire(timeout=5) for _ in range(2))
    if isinstance(broker, WakingRedisBroker):
        held = broker.depth()
        assert held.queued + held.fetched == 5
        assert held.fetched >= 2
    over.set()
    until = time.monotonic() + 10
    while broker.depth() != Depth(0, 0):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_send_does_not_wait_for_a_redis_that_says_nothing(
    broker: Broker, worker: dramatiq.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, may_answer = threading.Semaphore(0), threading.Event()

    @dramatiq.actor(broker=broker)
    def note() -> None:
        arrived.release()

    if isinstance(broker, WakingRedisBroker):
        send = broker._send

        def frozen(*args: object) -> None:
            assert may_answer.wait(5)
            send(*args)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(broker, "_send", frozen)
    began = time.monotonic()
    for _ in range(20):
        note.send()
    assert time.monotonic() - began < 1
    may_answer.set()
    worker.start()
    assert all(arrived.acquire(timeout=5) for _ in range(20))


def test_an_answering_worker_runs_what_it_fetches_in_one_thread_and_acknowledges_it_afterwards(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # in memory, messages come without a consumer
        return
    threads, fetched, done = set(), [], threading.Event()

    @contextmanager
    def together() -> Iterator[None]:
        yield
        broker.flush_orders()
        # Here the ends are committed: until then the messages are the broker's to give again.
        fetched.append(broker.depth().fetched)

    monkeypatch.setattr(instant, "together", together)

    @dramatiq.actor(broker=broker)
    def note(number: int) -> None:
        threads.add(threading.get_ident())
        if number == 2:
            done.set()

    for number in range(3):
        note.send(number)
    broker.flush_orders()
    worker = answering(broker)
    try:
        assert done.wait(5)
        until = time.monotonic() + 5
        while broker.depth() != Depth(0, 0):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        worker.stop()
    assert fetched == [3]
    assert threads == {worker.consumers["default"].ident}


def test_what_is_done_when_a_consumer_closes_is_acknowledged(broker: Broker) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # as above
        return
    consumer = with_one_done(broker)
    assert broker.depth() == Depth(0, 1)
    consumer.close()
    broker.flush_orders()
    assert broker.depth() == Depth(0, 0)


def test_a_redis_that_forgot_its_scripts_still_hears_what_is_done_and_gives_what_it_has(
    broker: Broker,
) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # as above
        return

    note = an_actor(broker)

    note.send()
    broker.flush_orders()
    ((first,), _) = broker.fetch("default", 5, waits=True)
    note.send()
    broker.flush_orders()
    broker.client.script_flush()
    done = dramatiq.Message.decode(first).options["redis_message_id"]
    began = time.monotonic()
    fetched, acknowledged = broker.fetch("default", 5, done=[done], waits=True)
    assert (len(fetched), acknowledged) == (1, True)
    assert time.monotonic() - began < 0.5
    assert broker.depth() == Depth(0, 1)


def test_what_could_not_be_acknowledged_still_is_to_be(broker: Broker) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # as above
        return
    consumer = with_one_done(broker)
    # Where Dramatiq keeps what was fetched stands something else: only the fetch works.
    fetched = next(key for key in broker.client.keys("test:__acks__*"))
    broker.client.rename(fetched, "test:aside")
    broker.client.set(fetched, "no set")
    with suppress(dramatiq.ConnectionClosed, redis.ResponseError):
        next(consumer)
    broker.client.rename("test:aside", fetched)
    broker.client.delete("test:default.bell")
    next(consumer)
    assert broker.depth() == Depth(0, 0)


def test_a_bell_that_cannot_ring_is_an_error_and_no_reason_to_ask_on_and_on(
    broker: Broker,
) -> None:
    if not isinstance(broker, WakingRedisBroker):
        assert not settings.REDIS_URL  # as above
        return

    note = an_actor(broker)

    broker.client.set("test:default.bell", "no list")
    with pytest.raises(redis.ResponseError):
        broker.fetch("default", 5, waits=True)
    broker.client.delete("test:default.bell")
    note.send()
    broker.flush_orders()
    broker.client.set("test:default.bell", "no list")
    fetched, acknowledged = broker.fetch("default", 5, waits=True)
    assert (len(fetched), acknowledged) == (1, True)


def an_actor(broker: Broker) -> "dramatiq.Actor[[], None]":
    @dramatiq.actor(broker=broker)
    def note() -> None: ...

    return note


def with_one_done(broker: WakingRedisBroker) -> Consumer:
    """A consumer with one message that is done and not acknowledged yet."""

    note = an_actor(broker)

    broker.acknowledges_late = True
    note.send()
    broker.flush_orders()
    consumer = broker.consume("default", prefetch=5)
    message = next(consumer)
    assert message is not None
    consumer.ack(message)
    return consumer


def answering(broker: WakingRedisBroker) -> AnsweringWorker:
    broker.acknowledges_late = True
    worker = AnsweringWorker(broker, worker_threads=0, worker_timeout=100)
    worker.queue_prefetch = 5
    worker.start()
    return worker
