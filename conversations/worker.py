"""The worker: threads of this process that take messages from the broker and run its actors."""

import dramatiq

import conversations.actors  # noqa: F401  (the broker has to know them)
from conversations.broker import broker
from conversations.metrics import WORKER_THREADS

#: How often an idle worker thread looks whether it shall stop, and how long the others may take.
IDLE_MS = 500
STOP_SECONDS = 5


class RunningWorker:
    """The worker threads of this process."""

    def __init__(self, worker: dramatiq.Worker) -> None:
        self._worker = worker

    def stop(self) -> None:
        """Finish what was begun, within `STOP_SECONDS`; another worker does what is left."""
        self._worker.stop(timeout=STOP_SECONDS * 1000)


def start_worker(threads: int) -> RunningWorker:
    """Start worker threads in this process."""
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=IDLE_MS)
    # What this worker fetches and does not begin, another one could have begun.
    worker.queue_prefetch = threads
    worker.start()
    WORKER_THREADS.set(threads)
    return RunningWorker(worker)
