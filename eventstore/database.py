"""How this process reaches its database: threads for reading, one fair lock for SQLite's writes."""

import asyncio
import concurrent.futures
import contextlib
import functools
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection, transaction

from eventstore.silence import answers
from eventstore.threads import Call, Threads

P = ParamSpec("P")
R = TypeVar("R")

#: How long work may take before it is asked whether the database still answers; with the second
#: that the asking may take, a silent one is known before three are over.
SLOW_SECONDS = 1.0
#: Threads, and so connections, that serve the event loop of a process.
THREADS_MAX = 24


class StoreUnavailable(Exception):
    """The database does not answer: nothing was done, or the fate of it is unknown."""


#: What Django raises when the connection, not the statement, is at fault.
CONNECTION_ERRORS = (OperationalError, InterfaceError)

_threads = Threads(THREADS_MAX, "database")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run database work in a thread that keeps its connection, and logs with the caller's ids.

    Raises `StoreUnavailable` when the database is away or silent; the next call finds a fresh
    connection.
    """
    return await in_thread_of(copy_context(), function, *args, **kwargs)


def in_thread_of(
    context: Context, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> "asyncio.Future[R]":
    """The same as a future, for work that logs with the ids of a context."""
    call = Call(functools.partial(guarded, function, *args, **kwargs), context)
    _threads.run(call)
    return while_it_answers(call.future)


def while_it_answers(work: "asyncio.Future[R]") -> "asyncio.Future[R]":
    """Let a future wait only as long as the database answers anybody; `StoreUnavailable` else.

    A server that was frozen keeps its connections open: the thread goes on waiting, its caller not.
    """
    slow = work.get_loop().call_later(SLOW_SECONDS, _look_after, work)
    work.add_done_callback(lambda _: slow.cancel())
    return work


def _look_after(work: "asyncio.Future[R]") -> None:
    looking = work.get_loop().create_task(_fail_in_silence(work))
    _looking.add(looking)
    looking.add_done_callback(_looking.discard)


async def _fail_in_silence(work: "asyncio.Future[R]") -> None:
    while not work.done():
        if await answers():
            await asyncio.wait((work,), timeout=SLOW_SECONDS)
        elif not work.done():
            work.set_exception(StoreUnavailable("the database does not answer anybody"))


#: A loop keeps no hold of its tasks.
_looking: set[asyncio.Task[None]] = set()


def in_shared_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `in_thread`, for a thread that waits for the result instead of keeping a connection."""
    call = functools.partial(guarded, function, *args, **kwargs)
    done: concurrent.futures.Future[R] = concurrent.futures.Future()

    def settle() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 (it is the caller's)
            done.set_exception(error)

    _threads.run(functools.partial(copy_context().run, settle))
    return done.result()


def guarded(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function`; when the connection fails under it, drop it and raise `StoreUnavailable`."""
    drop_stale_connection()
    try:
        return function(*args, **kwargs)
    except CONNECTION_ERRORS as error:
        close_unusable_connection()
        raise StoreUnavailable(str(error)) from error


def drop_stale_connection() -> None:
    """Drop this thread's connection if the server has hung up on it while it was idle.

    An idle connection has nothing to read; one that has was closed. That costs a microsecond to
    see, where a query to find out would cost a round trip.
    """
    if connection.vendor != "postgresql" or connection.connection is None:
        return
    if connection.connection.closed or _is_readable(connection.connection.fileno()):
        connection.close()


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def close_unusable_connection() -> None:
    """Drop this thread's connection if it is broken, so that the next query opens a new one."""
    if connection.connection is not None and not connection.in_atomic_block:
        usable = False
        with contextlib.suppress(Exception):
            usable = connection.is_usable()
        if not usable:
            with contextlib.suppress(Exception):
                connection.close()
            connection.connection = None


#: No thread has this number; a lock that is being handed over is held by it.
NOBODY = -1


class FairLock:
    """A lock whose waiters are served in the order they came; its holder may take it again.

    SQLite's own busy handler is not fair: under 16 writers it left one of them waiting 1.5 s.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queue: deque[threading.Lock] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            self._depth += 1
            return
        with self._guard:
            if self._owner is None:
                self._owner = me
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        try:
            turn.acquire()
        except BaseException:
            self._give_up(turn)
            raise
        self._owner = me

    def __exit__(self, *_: object) -> None:
        if self._depth:
            self._depth -= 1
            return
        with self._guard:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._queue:
            # Held on behalf of the next in line, so that nobody comes between.
            self._owner = NOBODY
            self._queue.popleft().release()
        else:
            self._owner = None

    def _give_up(self, turn: threading.Lock) -> None:
        """Leave the line; a turn that has come already goes to the next."""
        with self._guard:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self._pass_on()


_sqlite_writes = FairLock()


@contextlib.contextmanager
def writing_alone() -> Iterator[None]:
    """Keep this process's writers away on SQLite, for what cannot be done in a transaction."""
    with _sqlite_writes:
        yield


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """A transaction of the caller's; on SQLite it waits its turn among this process's writers."""
    if connection.in_atomic_block:
        with transaction.atomic():
            yield
    elif connection.vendor == "sqlite":
        with _sqlite_writes, transaction.atomic():
            yield
    else:
        with transaction.atomic():
            yield
