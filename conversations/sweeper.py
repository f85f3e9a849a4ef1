"""The sweeper: it makes the log the outbox, so that a broker may lose all it holds at any moment.

A pending message that nobody works on is sent to the broker again, with backoff; past its deadline
it is failed and refunded.
"""

import logging
import time
from dataclasses import dataclass
from uuid import UUID

from conversations.generation import end_with_failure, lease_name
from conversations.replies import enqueue
from eventstore.cause import Cause
from eventstore.leases import LeasesUnavailable, get_leases
from eventstore.reading import clock_now
from projections.pending import due

logger = logging.getLogger(__name__)

#: How often the sweeper looks, and at how many messages.
SWEEP_SECONDS = 1.0
SWEPT_MAX = 2_000
#: A message this young may still be on its way through the broker.
RESEND_AFTER_SECONDS = 2.0
RESEND_SECONDS_MAX = 30.0


@dataclass
class _Backoff:
    resend_at: float
    pause_seconds: float


class Sweeper:
    """The follower that brings every message to an end."""

    name = "sweeper"

    def __init__(self) -> None:
        self._next_sweep = 0.0
        self._backoffs: dict[UUID, _Backoff] = {}

    def step(self) -> bool:
        """Look at what is pending, at most once in `SWEEP_SECONDS`."""
        now = time.monotonic()
        if now < self._next_sweep:
            return False
        self._next_sweep = now + SWEEP_SECONDS
        self._sweep(now)
        return False

    def _sweep(self, now: float) -> None:
        clock = clock_now()
        rows = due(clock - int(RESEND_AFTER_SECONDS * 1_000_000), SWEPT_MAX)
        for row in rows:
            if clock >= row.deadline_at:
                logger.warning("message %s is past its deadline", row.message_id)
                end_with_failure(row.message_id, "deadline", Cause("sweeper"))
            elif self._may_resend(row.message_id, now):
                enqueue(row.message_id)
        pending = {row.message_id for row in rows}
        self._backoffs = {key: value for key, value in self._backoffs.items() if key in pending}

    def _may_resend(self, message_id: UUID, now: float) -> bool:
        backoff = self._backoffs.get(message_id)
        if backoff is not None and now < backoff.resend_at:
            return False
        try:
            if get_leases().holder_of(lease_name(message_id)) is not None:
                return False
        except LeasesUnavailable:
            logger.debug("nobody can say who works on %s", message_id)
        pause = (
            min(backoff.pause_seconds * 2, RESEND_SECONDS_MAX) if backoff else RESEND_AFTER_SECONDS
        )
        self._backoffs[message_id] = _Backoff(now + pause, pause)
        return True
