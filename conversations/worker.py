"""The worker: threads of this process that take messages from the broker and run its actors."""

from collections.abc import Iterable
from uuid import UUID

import dramatiq

import conversations.actors  # noqa: F401  (the broker has to know them)
from conversations import instant
from conversations.broker import WakingRedisBroker, broker
from conversations.metrics import WORKER_THREADS
from conversations.responders import InstantResponder, make_responder

#: How often an idle worker thread looks whether it shall stop, and how long the others may take.
IDLE_MS = 500
STOP_SECONDS = 5


#: Threads that answer at once: more of them would only take each other's turn at the interpreter.
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
    """Start worker threads in this process: of those that never wait, `INSTANT_THREADS` at most."""
    is_instant = isinstance(make_responder(), InstantResponder)
    threads = min(threads, INSTANT_THREADS) if is_instant else threads
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=IDLE_MS)
    # What this worker fetches and does not begin, another one could have begun.
    worker.queue_prefetch = threads
    if is_instant:
        worker.queue_prefetch = INSTANT_TOGETHER_MAX
        broker.in_turns = True
        broker.heard = _expect
    worker.start()
    # Its threads leave a message before its end is stored: what bounds them is what they may owe.
    WORKER_THREADS.set(instant.OWED_MAX if is_instant else threads)
    return RunningWorker(worker)


def _expect(messages: Iterable[dramatiq.Message[None]]) -> None:
    # The one actor's only argument.
    instant.expect(UUID(message.args[0]) for message in messages)
