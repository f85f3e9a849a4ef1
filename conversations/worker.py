"""The worker: threads of this process that take messages from the broker and run its actors."""

from collections.abc import Iterable
from contextlib import suppress
from queue import Empty
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq.worker import ConsumerThread, WorkerThread

import conversations.actors  # noqa: F401  (the broker has to know them)
from conversations import instant
from conversations.broker import WakingRedisBroker, broker
from conversations.metrics import WORKER_THREADS
from conversations.responders import InstantResponder, make_responder
from eventstore.gathering import gathered

#: How often an idle worker thread looks whether it shall stop, and how long the others may take.
IDLE_MS = 500
STOP_SECONDS = 5


#: Threads that answer at once in the embedded profile: more of them would only take each other's
#: turn at the interpreter. In the full stack it is the consumer's.
INSTANT_THREADS = 2
#: Messages that are fetched, read and answered together at most, where they are answered at once.
INSTANT_TOGETHER_MAX = 128


class RunningWorker:
    """The worker threads of this process."""

    def __init__(self, worker: dramatiq.Worker) -> None:
        self._worker = worker

    def stop(self) -> None:
        """Finish what was begun, within `STOP_SECONDS`; another worker does what is left."""
        self._worker.stop(timeout=STOP_SECONDS * 1000)
        instant.flush(STOP_SECONDS)
        if isinstance(broker, WakingRedisBroker):
            broker.flush_orders()


def start_worker(threads: int) -> RunningWorker:
    """Start worker threads in this process; of those that never wait there are one or two."""
    is_instant = isinstance(make_responder(), InstantResponder)
    worker = _instant_worker(threads) if is_instant else _waiting_worker(threads)
    worker.start()
    # Its threads leave a message before its end is stored: what bounds them is what they may owe.
    WORKER_THREADS.set(instant.OWED_MAX if is_instant else threads)
    return RunningWorker(worker)


def _waiting_worker(threads: int) -> dramatiq.Worker:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=IDLE_MS)
    # What this worker fetches and does not begin, another one could have begun.
    worker.queue_prefetch = threads
    return worker


def _instant_worker(threads: int) -> dramatiq.Worker:
    broker.heard = _expect
    if isinstance(broker, WakingRedisBroker):
        broker.acknowledges_late = True
        worker: dramatiq.Worker = AnsweringWorker(broker, worker_threads=0, worker_timeout=IDLE_MS)
    else:
        threads = min(threads, INSTANT_THREADS)
        worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=IDLE_MS)
    worker.queue_prefetch = INSTANT_TOGETHER_MAX
    return worker


class AnsweringWorker(dramatiq.Worker):
    """A worker whose consumer's thread runs what it has fetched itself, and all of it together."""

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        if delay or queue_name in self.consumers:
            super()._add_consumer(queue_name, delay=delay)
            return
        consumer = self.consumers[queue_name] = _AnsweringThread(
            broker=self.broker,
            queue_name=queue_name,
            prefetch=self.queue_prefetch,
            work_queue=self.work_queue,
            worker_timeout=self.worker_timeout,
        )
        consumer.start()


class _AnsweringThread(ConsumerThread):
    """Answers what a fetch has brought, commits the ends, says so, and only then fetches again.

    That takes one thread from the bell to the reply, where handing over would wake four.
    """

    def run(self) -> None:
        self._hand = WorkerThread(
            broker=self.broker,
            consumers={self.queue_name: self},
            work_queue=self.work_queue,
            worker_timeout=self.worker_timeout,
        )
        self.broker.emit_after("worker_thread_boot", self._hand)
        super().run()
        self.broker.emit_before("worker_thread_shutdown", self._hand)

    def handle_message(self, message: Any) -> None:
        next_one: Any = message
        with gathered(here=True), instant.together():
            while next_one is not None:
                super().handle_message(next_one)
                self._run_waiting()
                next_one = self.consumer.fetched_already()  # type: ignore[union-attr]  # its own kind

    def _run_waiting(self) -> None:
        with suppress(Empty):
            self._hand.process_message(self.work_queue.get_nowait().message)


def _expect(messages: Iterable[dramatiq.Message[None]]) -> None:
    # The one actor's only argument.
    instant.expect(UUID(message.args[0]) for message in messages)
