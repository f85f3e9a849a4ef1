"""One read for all who ask while another is under way: they share its hop, statement and wake-up.

Whoever asks alone is read for at once, as without sharing. A read begins after everybody it is for
has asked, so nobody is answered with what was true before.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from eventstore.database import in_thread_of

Q = TypeVar("Q")
A = TypeVar("A")

#: Questions that one read answers; more of them wait for the next.
BATCH_MAX = 100
#: How long a read keeps the next one from beginning: behind a slow one nobody waits for long.
PATIENCE_SECONDS = 0.1


class SharedReads(Generic[Q, A]):
    """Answers questions many at a time.

    `read` runs in a thread and answers all questions that it gets, in their order; an error among
    the answers is raised for who asked. One that it raises itself is everybody's.
    """

    def __init__(self, read: Callable[[Sequence[Q]], Sequence[A | Exception]]) -> None:
        self._read = read
        self._line: _Line[Q, A] | None = None

    async def ask(self, question: Q) -> A:
        """Answer a question by a read that begins now or later. Raises as `in_thread` does."""
        loop = asyncio.get_running_loop()
        line = self._line
        if line is None or line.loop is not loop:
            # Only tests have more than one loop, one after the other.
            line = self._line = _Line(loop, self._read)
        return await line.ask(question)


class _Line(Generic[Q, A]):
    """Who waits on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[Sequence[Q]], Sequence[A | Exception]],
    ) -> None:
        self.loop = loop
        self._read = read
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        #: The read behind which the others wait, if there is one.
        self._awaited: asyncio.Future[Sequence[A | Exception]] | None = None

    def ask(self, question: Q) -> "asyncio.Future[A]":
        answer: asyncio.Future[A] = self.loop.create_future()
        self._waiting.append((question, answer))
        if self._awaited is None and len(self._waiting) == 1:
            # Not at once: who asks in the same turn of the loop shares the read.
            self.loop.call_soon(self._begin_unless_begun)
        return answer

    def _begin_unless_begun(self) -> None:
        if self._awaited is None and self._waiting:
            self._begin()

    def _begin(self) -> None:
        count = min(len(self._waiting), BATCH_MAX)
        batch = [self._waiting.popleft() for _ in range(count)]
        questions = [question for question, _ in batch]
        # What all share carries the ids of no request.
        reading = self._awaited = in_thread_of(Context(), self._read, questions)
        patience = self.loop.call_later(PATIENCE_SECONDS, self._go_on, reading)

        def answer(reading: "asyncio.Future[Sequence[A | Exception]]") -> None:
            patience.cancel()
            self._go_on(reading)
            _settle([answer for _, answer in batch], reading)

        reading.add_done_callback(answer)

    def _go_on(self, reading: "asyncio.Future[Sequence[A | Exception]]") -> None:
        if self._awaited is reading:
            self._awaited = None
            if self._waiting:
                self._begin()


def _settle(
    waiting: "Sequence[asyncio.Future[A]]", reading: "asyncio.Future[Sequence[A | Exception]]"
) -> None:
    error = reading.exception()
    answers = [error] * len(waiting) if error is not None else reading.result()
    for future, answer in zip(waiting, answers, strict=True):
        if future.done():
            # Its client has gone.
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
