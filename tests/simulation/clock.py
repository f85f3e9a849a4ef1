"""The time of the simulation, in the place of the module `time`, and ids that are the same each
time."""

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import conversations.reply_streams.memory
import conversations.sweeper
import eventstore.clock
import eventstore.keys
import eventstore.leases
import eventstore.seals.sealer
import projections.generations
import projections.rebuild

#: All that looks at a clock in what is simulated.
TIMED: tuple[ModuleType, ...] = (
    conversations.reply_streams.memory,
    conversations.sweeper,
    eventstore.clock,
    eventstore.keys,
    eventstore.leases,
    eventstore.seals.sealer,
    projections.generations,
    projections.rebuild,
)
#: 2026-11-22T00:00:00Z.
BEGINNING_MICROSECONDS = 1_795_305_600_000_000


class Clock:
    """Answers as the module `time` does."""

    def __init__(self) -> None:
        self.passed = 1_000_000  # microseconds that have truly passed
        self._wrong = 0  # by how much the clock on the wall is slow

    def monotonic(self) -> float:
        return self.passed / 1_000_000

    def time_ns(self) -> int:
        return self.now * 1000

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    @property
    def now(self) -> int:
        """Microseconds since the epoch, as the clock on the wall says."""
        return BEGINNING_MICROSECONDS + self.passed - self._wrong

    def advance(self, seconds: float) -> None:
        self.passed += int(seconds * 1_000_000)

    def set_back(self, seconds: float) -> None:
        self._wrong += int(seconds * 1_000_000)

    def set_right(self) -> None:
        self._wrong = 0


@contextmanager
def simulated_time(clock: Any) -> Iterator[None]:
    """Let everything go by the clock."""
    usual = [module.__dict__["time"] for module in TIMED]
    for module in TIMED:
        module.__dict__["time"] = clock
    try:
        yield
    finally:
        for module, time in zip(TIMED, usual, strict=True):
            module.__dict__["time"] = time


@contextmanager
def the_same_ids(seed: int = 0) -> Iterator[None]:
    """Let `uuid4` give the same ids each time: sets of them are then in the same order too."""
    given = random.Random(seed)
    uuid.__dict__["os"] = SimpleNamespace(urandom=given.randbytes)
    try:
        yield
    finally:
        uuid.__dict__["os"] = os
