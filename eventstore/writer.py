"""The shared writer: one thread a process that commits what its callers hand it, several at a time.

What queues up while a commit is in flight shares the next one. That is what lets thirty callers
store four times as many sends a second as thirty transactions would, and on SQLite it is also what
keeps them from starving each other.
"""

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from django.db import connection

from eventstore.append import Conflict, Job, Outcome, append, conflict_error
from eventstore.database import (
    CONNECTION_ERRORS,
    StoreUnavailable,
    close_unusable_connection,
    drop_stale_connection,
    writing,
)
from eventstore.marker import appended
from eventstore.metrics import COMMIT_FAILURES, COMMIT_JOBS, COMMIT_QUEUE, COMMIT_SECONDS

logger = logging.getLogger(__name__)

#: Jobs that share one commit at most, and jobs that may wait for theirs.
BATCH_JOBS_MAX = 128
QUEUED_JOBS_MAX = 10_000

#: How long a caller waits for its commit before it calls the database unavailable.
COMMIT_TIMEOUT_SECONDS = 10.0


class SharedWriter:
    """Commits the process's appends in groups; its thread starts with the first job."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[tuple[Job, Future[int]]] = queue.Queue(QUEUED_JOBS_MAX)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def queued(self) -> int:
        """How many jobs wait for a commit to begin."""
        return self._jobs.qsize()

    def store(self, job: Job) -> int:
        """Commit the job and return the position of its last event.

        Raises the library's `IntegrityError` when another writer was first (nothing is stored), and
        `StoreUnavailable` when the fate is unknown: look before trying again.
        """
        future: Future[int] = Future()
        self._ensure_thread()
        try:
            self._jobs.put_nowait((job, future))
        except queue.Full:
            raise StoreUnavailable("too many appends wait for the database") from None
        try:
            return future.result(COMMIT_TIMEOUT_SECONDS)
        except TimeoutError:
            raise StoreUnavailable("the database did not commit in time") from None

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            batch = [self._jobs.get()]
            while len(batch) < BATCH_JOBS_MAX:
                try:
                    batch.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            self._commit(batch)

    def _commit(self, batch: Sequence[tuple[Job, "Future[int]"]]) -> None:
        COMMIT_JOBS.observe(len(batch))
        try:
            with COMMIT_FAILURES.count_exceptions(), COMMIT_SECONDS.time():
                outcomes = _append_and_commit([job for job, _ in batch])
        except CONNECTION_ERRORS as error:
            close_unusable_connection()
            for _, future in batch:
                future.set_exception(StoreUnavailable(str(error)))
        except Exception as error:
            close_unusable_connection()
            if len(batch) == 1:
                logger.exception("an append failed")
                batch[0][1].set_exception(error)
            else:
                # One job of the batch cannot be stored: alone, it takes nobody along.
                for entry in batch:
                    self._commit([entry])
        else:
            _settle(batch, outcomes)


def _append_and_commit(jobs: Sequence[Job]) -> list[Outcome]:
    drop_stale_connection()
    if connection.vendor == "sqlite":
        with writing():
            return append(jobs)
    return append(jobs)


def _settle(batch: Sequence[tuple[Job, "Future[int]"]], outcomes: Sequence[Outcome]) -> None:
    positions = [outcome for outcome in outcomes if not isinstance(outcome, Conflict)]
    if positions and any(job.announced for job, _ in batch):
        appended.advance(positions[-1])
    for (_, future), outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Conflict):
            future.set_exception(conflict_error(outcome))
        else:
            future.set_result(outcome)


shared_writer = SharedWriter()
COMMIT_QUEUE.set_function(lambda: shared_writer.queued)
