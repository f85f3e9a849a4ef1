"""The simulated processes: what each of them remembers, and loses when it dies."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import conversations.watching
import eventstore.keys
import eventstore.leases
import eventstore.log
from conversations.ends import ended_among
from conversations.sweeper import Sweeper
from eventstore.leases import LEASE_SECONDS
from eventstore.log import EventLog, event_log
from eventstore.seals.sealer import Sealer
from eventstore.seals.signing import Signer
from projections.runner import ProjectionRunner
from tests.simulation.clock import Clock
from tests.simulation.services import Redis

SIGNER = Signer(b"the simulation's own sealing key")


class Process:
    """Serves requests, works, follows the log: each process here does all of it."""

    def __init__(self, clock: Clock, redis: Redis) -> None:
        self._clock = clock
        self._redis = redis
        self._turns = [threading.Lock() for _ in range(1024)]
        self.start()

    def start(self) -> None:
        """Begin with nothing in memory."""
        self.log = EventLog()
        self.keys = eventstore.keys._Cache()
        self.runner = ProjectionRunner()
        self.sweeper = Sweeper()
        self.sealer = Sealer(SIGNER, self._clock.monotonic)
        self.stalled = False
        self.kept: dict[str, str] = {}
        self.watched: dict[UUID, Callable[[], None]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let this be the process that the block runs in."""
        logs, turns, cache = event_log._made, eventstore.log._turns, eventstore.keys._cache
        keeper, watch = eventstore.leases._keeper, conversations.watching._watch
        stand_ins: Any = self
        event_log._made = [self.log]
        eventstore.log._turns = self._turns
        eventstore.keys._cache = self.keys
        eventstore.leases._keeper = stand_ins
        conversations.watching._watch = stand_ins
        try:
            yield
        finally:
            event_log._made, eventstore.log._turns, eventstore.keys._cache = logs, turns, cache
            eventstore.leases._keeper, conversations.watching._watch = keeper, watch

    def time_passes(self) -> None:
        """Do what its background threads would have done meanwhile, unless it is stalled."""
        if self.stalled:
            return
        # They renew every few seconds, so a lease that was held when time began to pass still is.
        for name, holder in self.kept.items():
            if not self._redis.away:
                self._redis.leases._held.setdefault(name, (holder, 0.0))
                if self._redis.leases._held[name][0] == holder:
                    until = self._clock.monotonic() + LEASE_SECONDS
                    self._redis.leases._held[name] = (holder, until)
        for message_id in ended_among(self.watched.keys()):
            self.watched[message_id]()

    # As the thread that renews leases:

    def keep(self, name: str, holder: str) -> None:
        self.kept[name] = holder

    def let_go(self, name: str) -> None:
        self.kept.pop(name, None)

    # As the thread that stops the work on messages that have ended:

    def add(self, message_id: UUID, stop: Callable[[], None]) -> None:
        self.watched[message_id] = stop

    def remove(self, message_id: UUID) -> None:
        self.watched.pop(message_id, None)
