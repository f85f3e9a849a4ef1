"""The broker that carries message ids to the workers. It may lose them all: the sweeper notices.

Embedded, it lives in the process's memory, with a bound and without kept dead letters. In the full
stack it is Dramatiq's Redis broker, whose idle consumer waits on a key instead of polling.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dramatiq
import redis
from django.conf import settings
from django.db import connection
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.middleware import Middleware, TimeLimit
from redis.exceptions import NoScriptError

from conversations.embedded_broker import BrokerFull, Depth, EmbeddedBroker, nobody
from conversations.responders import make_responder
from eventstore.database import CONNECTION_ERRORS
from eventstore.gathering import Gathering, TooManyWait
from eventstore.redis_client import TIMEOUT_SECONDS, Breaker

logger = logging.getLogger(__name__)

#: A worker thread that is still at a message so long after its deadline is interrupted.
TIME_LIMIT_AFTER_DEADLINE_SECONDS = 15
#: How long an idle consumer blocks before it looks by itself.
IDLE_SECONDS = 1.0
#: A fetched message whose worker is silent for so long goes back to the queue.
HEARTBEAT_TIMEOUT_MS = 15_000
#: Nobody reads what failed: the log says how each message ended.
DEAD_MESSAGES_KEPT_MS = 60_000


@dataclass(frozen=True, slots=True)
class _Order:
    """What the broker's thread tells Redis: one command of Dramatiq's, or only to ring."""

    queue_name: str
    command: str
    args: tuple[Any, ...] = ()

    @property
    def rings(self) -> bool:
        return self.command in ("enqueue", "ring")


class WakingRedisBroker(RedisBroker):
    """The Redis broker, which enqueues and acknowledges in groups, and rings for an idle consumer.

    Only an `AnsweringWorker`, which has nothing else to do, waits for Redis. An order that is lost
    is a message that the sweeper brings again, or one that is delivered twice, which changes
    nothing.
    """

    def __init__(self, *, bells: "redis.Redis", **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # Dramatiq has no types here
        self.bells = bells
        #: Told of the messages that come next, as soon as they are there.
        self.heard: Callable[[Sequence[dramatiq.Message[Any]]], None] = nobody
        #: Whether the thread that fetches also runs what it has fetched (`AnsweringWorker`): then
        #: it acknowledges with the next fetch.
        self.acknowledges_late = False
        self._breaker = Breaker()
        self._orders = Gathering("broker", self._tell, "messages wait for the sweeper")

    def depth(self) -> Depth:
        """How many messages it holds. Raises `redis.RedisError`."""
        pipeline = self.client.pipeline(transaction=False)
        for queue_name in self.queues:
            pipeline.llen(f"{self.namespace}:{queue_name}")
            pipeline.hlen(f"{self.namespace}:{queue_name}.msgs")
        with self._breaker:
            counts = pipeline.execute()
        queued, held = sum(counts[::2]), sum(counts[1::2])
        return Depth(queued, max(0, held - queued))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 0) -> Consumer:
        return _WakingConsumer(self, queue_name, prefetch, timeout)

    def do_enqueue(self, queue_name: str, *args: Any) -> None:
        """Raises `BrokerFull`, and `redis.ConnectionError` while Redis is known to be away."""
        if self._breaker.is_open:
            raise redis.ConnectionError("Redis did not answer a moment ago")
        self._order(queue_name, "enqueue", *args)

    def do_ack(self, queue_name: str, *args: Any) -> None:
        self._order(queue_name, "ack", *args)

    def fetch(
        self, queue_name: str, number: int, *, done: Sequence[str] = (), waits: bool
    ) -> tuple[list[bytes], bool]:
        """Acknowledge what is done, wait for the bell if asked to, and fetch, in one round trip.

        Returns what was fetched, and whether what was done is acknowledged: if not, it is still to
        be. Raises `redis.RedisError`.
        """
        try:
            return self._fetch(queue_name, number, done, waits=waits)
        except NoScriptError:
            self._load_script()
            # The bell may have rung for what was not fetched: no wait for another.
            return self._fetch(queue_name, number, done, waits=False)

    def _fetch(
        self, queue_name: str, number: int, done: Sequence[str], *, waits: bool
    ) -> tuple[list[bytes], bool]:
        pipeline = self.bells.pipeline(transaction=False)
        for message_id in done:
            self._add(pipeline, _Order(queue_name, "ack", (message_id,)))
        if waits:
            # Redis goes on with what stands behind a blocking command as soon as that has ended.
            pipeline.brpop([_bell(self.namespace, queue_name)], IDLE_SECONDS)
        self._add(pipeline, _Order(queue_name, "fetch", (number,)))
        *replies, fetched = pipeline.execute(raise_on_error=False)
        acks, bell = replies[: len(done)], replies[len(done) :]
        if isinstance(fetched, Exception):
            raise fetched
        # A bell that cannot ring must not be asked again at once; but what came is there.
        if bell and isinstance(bell[0], Exception) and not fetched:
            raise bell[0]
        return fetched, not any(isinstance(each, Exception) for each in acks)

    def ring(self, queue_name: str) -> None:
        """Wake another consumer: there may be more than this one can take."""
        self._order(queue_name, "ring")

    def flush_orders(self) -> None:
        """Wait until all that was ordered so far is done or lost, but not for ever."""
        self._orders.flush(TIMEOUT_SECONDS)

    def close(self) -> None:
        self.flush_orders()
        super().close()

    def _order(self, queue_name: str, command: str, *args: Any) -> None:
        try:
            self._orders.add(_Order(queue_name, command, args))
        except TooManyWait as error:
            raise BrokerFull(str(error)) from None

    def _tell(self, orders: Sequence[_Order]) -> None:
        try:
            self._send(orders)
        except NoScriptError:
            self._load_script()
            self._send(orders)

    def _send(self, orders: Sequence[_Order]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for order in orders:
            if order.command != "ring":
                self._add(pipeline, order)
        for queue_name in {order.queue_name for order in orders if order.rings}:
            bell = _bell(self.namespace, queue_name)
            pipeline.lpush(bell, 1)
            pipeline.ltrim(bell, 0, 0)
        with self._breaker:
            pipeline.execute()

    def _load_script(self) -> None:
        # Redis came back empty: it has to be told the script again.
        self.client.script_load(self.scripts["dispatch"].script)

    def _add(self, pipeline: Any, order: _Order) -> None:
        dispatched = self._dispatch_args(order.command, order.queue_name, *order.args)
        sha = self.scripts["dispatch"].sha
        pipeline.execute_command("EVALSHA", sha, 1, self.namespace, *dispatched)

    def _dispatch_args(self, command: str, queue_name: str, *args: Any) -> list[Any]:
        return [
            command,
            int(time.time() * 1000),
            queue_name,
            self.broker_id,
            self.heartbeat_timeout,
            self.dead_message_ttl,
            self._should_do_maintenance(command),
            self._max_unpack_size(),  # type: ignore[no-untyped-call]  # as above
            *args,
        ]


class _WakingConsumer(_RedisConsumer):
    """Fetches when there is word of a message, and once a second in any case.

    Of an `AnsweringWorker` what is done is acknowledged with the next fetch, so that a message
    whose end that thread has not committed yet still counts as fetched.
    """

    #: The last fetch brought less than was asked for: what came later has rung.
    _drained = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]  # as above
        self._has_room = threading.Event()
        #: What is done and not acknowledged yet.
        self._done: list[str] = []

    def ack(self, message: Any) -> None:
        if self.broker.acknowledges_late:
            self._done.append(message.options["redis_message_id"])
            self.queued_message_ids.discard(message.message_id)
            return
        super().ack(message)  # type: ignore[no-untyped-call]  # as above
        self._look_for_room()

    def nack(self, message: Any) -> None:
        super().nack(message)  # type: ignore[no-untyped-call]  # as above
        self._look_for_room()

    def __next__(self) -> Any:
        if not self.message_cache:
            self._has_room.clear()
            room = self._room()
            if room <= 0:
                self._has_room.wait(IDLE_SECONDS)
                return None
            try:
                self._fill(room)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                raise dramatiq.ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # as above
        return self.fetched_already()

    def fetched_already(self) -> MessageProxy | None:
        """The next message of those that came with the last fetch."""
        if not self.message_cache:
            return None
        message = self.message_cache.pop(0)
        self.queued_message_ids.add(message.message_id)
        return MessageProxy(message)

    # Whoever stops, or lost Redis, has no next fetch that would say what is done.
    def close(self) -> None:
        done, self._done = self._done, []
        with suppress(BrokerFull):
            for message_id in done:
                self.broker.do_ack(self.queue_name, message_id)
        super().close()

    def _fill(self, room: int) -> None:
        fetched, acknowledged = self.broker.fetch(
            self.queue_name, room, done=self._done, waits=self._drained
        )
        if acknowledged:
            self._done = []
        self._drained = len(fetched) < room
        if not self._drained:
            # One bell rings for many messages: who cannot take them all passes it on.
            self.broker.ring(self.queue_name)
        self.message_cache = [dramatiq.Message.decode(each) for each in fetched if each]
        self.broker.heard(self.message_cache)

    def _room(self) -> int:
        return int(self.prefetch - self.outstanding_message_count)

    def _look_for_room(self) -> None:
        if self._room() > 0:
            self._has_room.set()


def _bell(namespace: str, queue_name: str) -> str:
    return f"{namespace}:{queue_name}.bell"


class ReadyConnections(Middleware):
    """Each worker thread opens its database connection before its first message, not with it.

    Unless its responder waits on a network: such threads are many, and share the process's.
    """

    def after_worker_thread_boot(self, broker: Broker, thread: object) -> None:
        if make_responder().waits:
            return
        try:
            connection.ensure_connection()
        except CONNECTION_ERRORS as error:
            logger.warning("a worker thread starts without the database: %s", error)

    def before_worker_thread_shutdown(self, broker: Broker, thread: object) -> None:
        connection.close()


def make_broker() -> EmbeddedBroker | WakingRedisBroker:
    """The broker of this process's profile."""
    time_limit_ms = (settings.RESPONSE_DEADLINE_SECONDS + TIME_LIMIT_AFTER_DEADLINE_SECONDS) * 1000
    middleware = [TimeLimit(time_limit=time_limit_ms), ReadyConnections()]
    if not settings.REDIS_URL:
        return EmbeddedBroker(middleware=middleware)
    options = {"socket_connect_timeout": TIMEOUT_SECONDS, "retry": None}
    return WakingRedisBroker(
        client=redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_SECONDS, **options),
        # A blocked wait is no silence: its connections may be quiet for as long as it blocks.
        bells=redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=IDLE_SECONDS + TIMEOUT_SECONDS, **options
        ),
        middleware=middleware,
        heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
        dead_message_ttl=DEAD_MESSAGES_KEPT_MS,
        maintenance_chance=1_000_000,
    )


broker = make_broker()
