"""What follows the log: each follower in a thread of its own, most in one process at a time."""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

from eventstore.database import (
    CONNECTION_ERRORS,
    StoreUnavailable,
    close_unusable_connection,
    drop_stale_connection,
)
from eventstore.leases import LEASE_SECONDS, RENEW_SECONDS, LeasesUnavailable, get_leases
from eventstore.marker import appended

logger = logging.getLogger(__name__)

#: The longest a follower sleeps while nothing is announced.
IDLE_SECONDS = 1.0
#: How long one waits for more when events come faster than it steps, so that more of them share
#: what a step costs, and how many have to come during a step for that: those of two sends. Who
#: sends alone never waits.
GATHER_SECONDS = 0.005
GATHER_EVENTS_MIN = 5
#: How often one asks for a lease that another process holds.
ASK_SECONDS = 0.2
#: How long one that has failed leaves it to others: they ask meanwhile.
FAILED_SECONDS = 1.5


class Follower(Protocol):
    """Something that follows the log a step at a time, and may be run twice without harm."""

    name: str

    def step(self) -> bool:
        """Do what there is to do now; True when there may be more at once."""
        ...


class Appends(Protocol):
    """How far the log is, and a way to wait until it is farther."""

    @property
    def value(self) -> int:
        """The highest position that is known to be committed."""

    def wait(self, at_least: int, timeout_seconds: float) -> object:
        """Block until it is known that `at_least` has been reached, or until the time is out."""


def run(
    followers: Sequence[Follower],
    stop: threading.Event,
    *,
    appends: Appends = appended,
    by_the_clock: Sequence[Follower] = (),
    everywhere: Sequence[Follower] = (),
) -> list[threading.Thread]:
    """Start a thread for each follower; they end soon after `stop` is set.

    The first are woken by each append that `appends` knows of: one that listens by itself can do so
    for a single thread. Those that look `by_the_clock` are not, nor those of
    `everywhere`, which follow in every process, all others in the one that holds their lease.
    """
    loops = [
        *(_Loop(follower, stop, woken_by=appends) for follower in followers),
        *(_Loop(follower, stop) for follower in by_the_clock),
        *(_Loop(follower, stop, leased=False) for follower in everywhere),
    ]
    threads = [
        threading.Thread(target=loop.run, name=loop.follower.name, daemon=True) for loop in loops
    ]
    for thread in threads:
        thread.start()
    return threads


class _Loop:
    def __init__(
        self,
        follower: Follower,
        stop: threading.Event,
        *,
        leased: bool = True,
        woken_by: Appends | None = None,
    ) -> None:
        self.follower = follower
        self.leased = leased
        self.woken_by = woken_by
        self.stop = stop
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        #: Without a lease to share, it is always held.
        self.holds = not leased
        self.ask_at = 0.0

    def run(self) -> None:
        complained = False
        while not self.stop.is_set():
            try:
                seen = self.woken_by.value if self.woken_by else 0
                drop_stale_connection()
                more = self._may_run() and self.follower.step()
                complained = False
                if not more and not self.stop.is_set():
                    self._pause(seen)
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                if not complained:
                    logger.warning("%s lost the database: %s", self.follower.name, error)
                complained = True
                self._leave_it_to_others()
            except Exception:
                logger.exception("%s failed and will retry", self.follower.name)
                self._leave_it_to_others()
        if self.leased:
            self._give_back()

    def _pause(self, seen: int) -> None:
        """Wait for the next step, after one that began when `seen` was the end of the log."""
        if self.woken_by is None:
            self.stop.wait(IDLE_SECONDS)
        elif self.woken_by.value >= seen + GATHER_EVENTS_MIN:
            self.stop.wait(GATHER_SECONDS)
        else:
            self.woken_by.wait(seen + 1, IDLE_SECONDS)

    def _may_run(self) -> bool:
        """Hold the follower's lease; without Redis everybody runs, and the positions decide."""
        now = time.monotonic()
        if not self.leased or now < self.ask_at:
            return self.holds
        try:
            self.holds = get_leases().renew(self._lease, self.holder, LEASE_SECONDS)
        except LeasesUnavailable:
            self.holds = True
        self.ask_at = now + (RENEW_SECONDS if self.holds else ASK_SECONDS)
        return self.holds

    def _leave_it_to_others(self) -> None:
        """What fails here may work in another process: wait until it has had time to ask."""
        close_unusable_connection()
        if self.leased:
            self._give_back()
            self.holds, self.ask_at = False, 0.0
        self.stop.wait(FAILED_SECONDS)

    def _give_back(self) -> None:
        try:
            get_leases().release(self._lease, self.holder)
        except LeasesUnavailable:
            logger.debug("%s could not give its lease back", self.follower.name)

    @property
    def _lease(self) -> str:
        return f"follower:{self.follower.name}"
