"""Where something can happen to a process: at each statement, commit, enqueue, lease and ack.

Everything runs in one thread, so that a run is the same each time. A process that is crashed is one
whose call ends in `Crash`; what happens at the same time on another process is done at a point that
the first has reached, and the first then goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError

CRASH, CUT, OTHERS = "crash", "cut", "others"


class Crash(BaseException):
    """The process has died at this point."""


@dataclass(frozen=True, slots=True)
class Command:
    """An operation by its name, and the two numbers by which it picks whom and what it is about."""

    name: str
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls an operation when it reaches its point number `at`, counted from 0.

    It is crashed, or cut off from what it talks to, or others do something meanwhile.
    """

    kind: str
    at: int
    others: tuple[Command, ...] = ()


class Seams:
    """Counts the points that the operation under way reaches, and lets its fate come true."""

    def __init__(self, do_others: Callable[[tuple[Command, ...]], None]) -> None:
        self._do_others = do_others
        self._fate: Fate | None = None
        self._left = 0
        #: How often each kind came true.
        self.happened = {CRASH: 0, CUT: 0, OTHERS: 0}

    @property
    def armed(self) -> bool:
        return self._fate is not None

    @contextmanager
    def fated(self, fate: Fate | None) -> Iterator[None]:
        """Let the block have a fate of its own."""
        before = self._fate, self._left
        self._fate, self._left = fate, fate.at if fate else 0
        try:
            yield
        finally:
            self._fate, self._left = before

    def reach(self, *, error: type[Exception] = OperationalError, alone: bool = False) -> None:
        """A point: `error` is how a process is told that it is cut off here.

        `alone`: the database lets nobody else write now.
        """
        fate = self._fate
        if fate is None:
            return
        if self._left:
            self._left -= 1
            return
        if fate.kind == OTHERS and alone:
            return  # they come at the next point that lets them
        self._fate = None
        self.happened[fate.kind] += 1
        if fate.kind == CRASH:
            raise Crash
        if fate.kind == CUT:
            raise error("cut off")
        self._do_others(fate.others)

    def at_statement(
        self,
        execute: Callable[..., Any],
        sql: str,
        parameters: Any,
        many: bool,  # noqa: FBT001 (Django calls it so)
        context: Any,
    ) -> Any:
        """Django's hook around each statement."""
        if self._fate is not None:
            self.reach(alone=context["connection"].in_atomic_block)
        return execute(sql, parameters, many, context)
