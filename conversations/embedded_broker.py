"""The broker of the embedded profile: in memory, with a bound, and without kept dead letters."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dramatiq
from dramatiq.broker import Broker, Consumer
from dramatiq.brokers.stub import StubBroker, _StubMessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread

#: Message ids that wait in memory at most, in the embedded profile.
QUEUED_MAX = 10_000


class BrokerFull(Exception):
    """Too many messages wait; the sweeper brings this one when there is room."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Message ids that wait in a broker, and those that a worker has fetched and not finished."""

    queued: int
    fetched: int


def nobody(messages: Sequence[dramatiq.Message[Any]]) -> None:
    """Hear of messages, and do nothing."""


class EmbeddedBroker(StubBroker):
    """The in-memory broker, with a bound, that keeps nothing of what failed.

    What is sent goes straight to the worker's threads when they run, as it is: not through bytes,
    and not through the consumer's thread.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dead_letters_by_queue = cast("Any", defaultdict(lambda: deque(maxlen=0)))
        #: As in `WakingRedisBroker`; a message comes alone here, as it is sent.
        self.heard: Callable[[Sequence[dramatiq.Message[Any]]], None] = nobody
        self._straight: dict[str, ConsumerThread] = {}
        self.add_middleware(_Straight(self._straight))

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        queue = self.queues[message.queue_name]
        if queue.unfinished_tasks >= QUEUED_MAX:
            raise BrokerFull
        to = self._straight.get(message.queue_name)
        if delay is not None or to is None or to.consumer is None:
            return super().enqueue(message, delay=delay)
        self.emit_before("enqueue", message, delay)
        with queue.mutex:
            queue.unfinished_tasks += 1
        self.heard([message])
        to.handle_message(_StubMessageProxy(message))
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Consumer:
        # The bound is on what is sent: what is here is in memory, wherever it waits.
        return super().consume(queue_name, QUEUED_MAX, timeout)

    def depth(self) -> Depth:
        """As `WakingRedisBroker.depth`; what is fetched from memory is not counted apart."""
        return Depth(sum(queue.unfinished_tasks for queue in self.queues.values()), 0)


class _Straight(Middleware):
    """Knows the consumers' threads while they run."""

    def __init__(self, threads: dict[str, ConsumerThread]) -> None:
        self._threads = threads

    def after_consumer_thread_boot(self, broker: Broker, thread: ConsumerThread) -> None:
        self._threads[thread.queue_name] = thread

    def before_consumer_thread_shutdown(self, broker: Broker, thread: ConsumerThread) -> None:
        self._threads.pop(thread.queue_name, None)
