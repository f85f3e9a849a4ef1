"""The shared writer: one thread at a time decides a process's commands and commits many together.

What queues up while a commit is in flight shares the next one. That is what lets thirty callers
store four times as many sends a second as thirty transactions would, and on SQLite it is also what
keeps them from starving each other. The same thread decides: so a command costs one hand-over there
and one back, and commands on one account share a commit, each deciding on what the one before left.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import connection

from eventstore.append import Conflict, Job, Outcome, append, conflict_error
from eventstore.database import (
    CONNECTION_ERRORS,
    StoreUnavailable,
    close_unusable_connection,
    drop_stale_connection,
    writing,
)
from eventstore.decisions import CONFLICTS_MAX, Append, Decision, Raced, View
from eventstore.domain import Aggregate, Refused
from eventstore.gathering import gathered
from eventstore.log import EventLog, Stream, event_log
from eventstore.marker import appended
from eventstore.metrics import COMMIT_FAILURES, COMMIT_JOBS, COMMIT_QUEUE, COMMIT_SECONDS

logger = logging.getLogger(__name__)

R = TypeVar("R")

#: Commands that share one commit at most, and commands that may wait for theirs.
BATCH_MAX = 128
QUEUED_MAX = 10_000

#: How often, and how long each time, a batch waits for as many commands as the one before it had.
GATHER_LOOKS = 5
GATHER_LOOK_SECONDS = 0.001

#: How long a thread waits for its command before it calls the database unavailable.
COMMIT_TIMEOUT_SECONDS = 10.0


class SharedWriter:
    """Decides the process's commands and commits them in groups; its thread starts with the first.

    A decision is made again on fresh state when it was raced, refused or cut off: only then is a
    refusal believed. One that looked at what is about to be committed with it, and stores nothing
    itself, is made again too: its answer may depend on a commit that fails.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        #: Whoever has it commits: one thread at a time.
        self._turn = threading.Lock()

    @property
    def queued(self) -> int:
        """How many commands wait for a commit to begin."""
        return self._queue.qsize()

    def submit(self, command: "Command[Any]") -> None:
        """Have a command carried out, whether or not anybody waits for it.

        Raises `StoreUnavailable` when too many wait.
        """
        if self._queue.qsize() >= QUEUED_MAX:
            raise StoreUnavailable("too many commands wait for the database")
        self._ensure_thread()
        self._queue.put(command)

    def carry_out_here(self, commands: "Sequence[Command[Any]]") -> None:
        """Have commands carried out: by this thread, with what waits, unless another is at it.

        So who has nothing else to do saves the hand-over to the writer's thread. None of them is
        lost: what finds no room any more among those that wait fails with `StoreUnavailable`.
        """
        if not self._turn.acquire(blocking=False):
            for command in commands:
                self._submit_or_fail(command)
            return
        try:
            batch = [*commands]
            self._add_waiting(batch)
            while batch:
                batch = self.carry_out(batch)
        finally:
            self._turn.release()

    def carry_out(self, batch: "Sequence[Command[Any]]") -> "list[Command[Any]]":
        """Decide and commit a batch in this thread; returns those to be decided again."""
        drop_stale_connection()
        log = event_log()
        work = _Batch(log, _read_ahead(log, batch))
        # Those on fresh state first: what the others see of theirs is fresh, too.
        for command in sorted(batch, key=lambda each: not each.fresh):
            work.decide(command)
        if work.storing:
            work.commit()
        work.deliver()
        return work.again

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        again: list[Command[Any]] = []
        before = 1
        while True:
            batch = again or [self._queue.get()]
            with self._turn:
                self._gather(batch, before)
                before = len(batch)
                again = self.carry_out(batch)

    def _gather(self, batch: "list[Command[Any]]", before: int) -> None:
        """Add those that wait; when fewer do than came together before, wait a moment for them.

        So callers whose commands were answered together, and who are about to send the next, keep
        sharing a commit, and all that comes after it. Who sends alone never waits.
        """
        for _ in range(GATHER_LOOKS):
            if len(batch) + self._queue.qsize() >= before:
                break
            time.sleep(GATHER_LOOK_SECONDS)
        self._add_waiting(batch)

    def _add_waiting(self, batch: "list[Command[Any]]") -> None:
        with suppress(queue.Empty):
            while len(batch) < BATCH_MAX:
                batch.append(self._queue.get_nowait())

    def _submit_or_fail(self, command: "Command[Any]") -> None:
        try:
            self.submit(command)
        except StoreUnavailable as error:
            _tell([(command.done, None, error)])


class Command(Generic[R]):
    """A decision on its way through the writer, and the future that waits for its result.

    `then` is called with the result by whoever committed it, before anybody hears of it. `streams`
    are those that it decides on, as far as that is known: where others write too, they are read
    anew before it is decided, in one read for the whole batch.
    """

    def __init__(
        self,
        decision: Decision[R],
        done: "Future[R] | asyncio.Future[R]",
        then: Callable[[R], object] | None = None,
        streams: Collection[Stream] = (),
    ) -> None:
        self.decision = decision
        self.done = done
        self.then = then
        self.streams = streams
        self.fresh = False
        self.cut_off = False
        self.tries = 0
        # What is logged meanwhile carries the caller's ids.
        self._context = copy_context()

    def decide(self, view: View) -> R | Append[R]:
        self.tries += 1
        return self._context.run(self.decision, view)

    def go_on(self, result: R) -> None:
        """Call `then`; what is stored is stored, whatever becomes of it."""
        if self.then is not None:
            try:
                self._context.run(self.then, result)
            except Exception:
                logger.exception("what follows a commit failed")


class _Batch:
    """Commands that are decided one after the other and committed together."""

    def __init__(self, log: EventLog, read: Mapping[UUID, Aggregate | None]) -> None:
        self.storing: list[tuple[Command[Any], Append[Any], Job]] = []
        self.again: list[Command[Any]] = []
        self._log = log
        self._read = read
        #: Aggregates as the batch leaves them, if it is committed.
        self._tentative: dict[Any, Aggregate] = {}
        self._results: list[tuple[Command[Any], Any, Exception | None]] = []

    def decide(self, command: "Command[Any]") -> None:
        view = View(
            self._log, self._tentative, self._read, fresh=command.fresh, cut_off=command.cut_off
        )
        try:
            decided = command.decide(view)
            if isinstance(decided, Append):
                self._store(command, decided)
            elif view.saw_tentative:
                self._try_again(command)
            else:
                self._results.append((command, decided, None))
        except Refused as error:
            believed = command.fresh and not view.saw_tentative
            self._fail(command, error, finally_=believed)
        except CONNECTION_ERRORS as error:
            close_unusable_connection()
            self._fail(command, StoreUnavailable(str(error)), finally_=command.fresh)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the caller's)
            self._fail(command, error, finally_=True)

    def commit(self) -> None:
        COMMIT_JOBS.observe(len(self.storing))
        try:
            with COMMIT_FAILURES.count_exceptions(), COMMIT_SECONDS.time():
                outcomes = _append_and_commit([job for _, _, job in self.storing])
        except CONNECTION_ERRORS as error:
            close_unusable_connection()
            for command, stored, _ in self.storing:
                self._log.forget(stored.aggregates)
                # The commit may have been done all the same.
                was_fresh, command.cut_off = command.fresh, True
                self._fail(command, StoreUnavailable(str(error)), finally_=was_fresh)
        except Exception as error:  # noqa: BLE001 (it goes to its caller)
            close_unusable_connection()
            self._fail_each(error)
        else:
            self._settle(outcomes)

    def deliver(self) -> None:
        """Tell the callers, all that wait on one event loop in one wake-up."""
        with gathered():
            for command, result, error in self._results:
                if error is None:
                    command.go_on(result)
        of_loops = defaultdict(list)
        for command, result, error in self._results:
            if isinstance(command.done, Future):
                _tell([(command.done, result, error)])
            else:
                of_loops[command.done.get_loop()].append((command.done, result, error))
        for loop, told in of_loops.items():
            # A loop that is closed has nobody who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_tell, told)

    def _store(self, command: "Command[Any]", decided: Append[Any]) -> None:
        job = self._log.job(decided.aggregates, decided.cause, announced=decided.announced)
        self._tentative |= {each.id: each for each in decided.aggregates}
        self.storing.append((command, decided, job))

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        announced = 0
        for (command, stored, job), outcome in zip(self.storing, outcomes, strict=True):
            if isinstance(outcome, Conflict):
                # What is in memory stands as far as it goes: the next try reads what is behind it.
                command.streams = [(type(each), each.id) for each in stored.aggregates]
                last = command.tries > CONFLICTS_MAX
                error = Raced("too many others write to the same streams; try again")
                self._fail(command, error if last else conflict_error(outcome), finally_=last)
                continue
            self._log.remember(stored.aggregates, job)
            if job.announced:
                announced = max(announced, outcome)
            self._results.append((command, stored.result(outcome), None))
        if announced:
            appended.advance(announced)

    def _fail_each(self, error: Exception) -> None:
        """One command of the batch cannot be stored: alone, it takes nobody along."""
        for command, stored, _ in self.storing:
            self._log.forget(stored.aggregates)
            if len(self.storing) == 1:
                logger.error("an append failed", exc_info=error)
                self._fail(command, error, finally_=True)
                continue
            command.fresh = True
            alone = _Batch(self._log, {})
            alone.decide(command)
            if alone.storing:
                alone.commit()
            self.again += alone.again
            self._results += alone._results

    def _fail(self, command: "Command[Any]", error: Exception, *, finally_: bool) -> None:
        if finally_:
            self._results.append((command, None, error))
        else:
            logger.debug("deciding again on fresh state: %s", error)
            self._try_again(command)

    def _try_again(self, command: "Command[Any]") -> None:
        command.fresh = True
        self.again.append(command)


def _read_ahead(log: EventLog, batch: "Sequence[Command[Any]]") -> Mapping[UUID, Aggregate | None]:
    """What is known to be wanted anew, in one read. It is a shortcut, and may be nothing."""
    wanted = {
        stream
        for command in batch
        for stream in command.streams
        if command.fresh or log.is_shared(stream[1])
    }
    try:
        return log.read_anew(wanted) if wanted else {}
    except Exception:
        # Who needs it meets it again, and nobody else.
        logger.debug("nothing was read ahead", exc_info=True)
        close_unusable_connection()
        return {}


def _append_and_commit(jobs: Sequence[Job]) -> list[Outcome]:
    if connection.vendor == "sqlite":
        with writing():
            return append(jobs)
    return append(jobs)


def _tell(told: "Sequence[tuple[Any, Any, Exception | None]]") -> None:
    for done, result, error in told:
        if done.done():
            # Nobody waits any more.
            continue
        if error is None:
            done.set_result(result)
        elif isinstance(error, StopIteration):
            # A future takes none, and the others of this list are yet to hear.
            done.set_exception(RuntimeError("a decision raised StopIteration"))
        else:
            done.set_exception(error)


shared_writer = SharedWriter()
COMMIT_QUEUE.set_function(lambda: shared_writer.queued)


def decide_together(decision: Decision[R], then: Callable[[R], object] | None = None) -> R:
    """Decide and commit in the shared writer, and wait for the result; not within a transaction.

    Raises what the decision raises on fresh state, and `StoreUnavailable` when the fate is unknown.
    """
    done: Future[R] = Future()
    shared_writer.submit(Command(decision, done, then))
    try:
        return done.result(COMMIT_TIMEOUT_SECONDS)
    except TimeoutError:
        raise StoreUnavailable("the database did not commit in time") from None


def deciding_together(
    decision: Decision[R],
    then: Callable[[R], object] | None = None,
    streams: Collection[Stream] = (),
) -> "asyncio.Future[R]":
    """As `decide_together`, on the event loop. It is carried out even if nobody waits for it.

    `streams` as in `Command`.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()
    shared_writer.submit(Command(decision, done, then, streams))
    late = StoreUnavailable("the database did not commit in time")
    timer = loop.call_later(COMMIT_TIMEOUT_SECONDS, _tell, [(done, None, late)])
    done.add_done_callback(lambda _: timer.cancel())
    return done
