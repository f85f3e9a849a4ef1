"""The sweeper: it makes the log the outbox, so that a broker may lose all it holds at any moment.

A pending message that nobody works on is sent to the broker again, with backoff; past its deadline
it is failed and refunded.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from structlog.contextvars import bound_contextvars

from conversations.generation import end_with_failure, lease_name
from conversations.replies import enqueue
from eventstore.cause import Cause
from eventstore.database import CONNECTION_ERRORS, StoreUnavailable
from eventstore.decisions import Raced
from eventstore.leases import LeasesUnavailable, get_leases
from eventstore.reading import clock_now, read_stream
from projections.pending import EVER, PendingRow, due

logger = logging.getLogger(__name__)

#: How often the sweeper looks, and at how many messages of each kind: overdue ones, and all.
SWEEP_SECONDS = 1.0
SWEPT_MAX = 2_000
#: A message this young may still be on its way through the broker.
RESEND_AFTER_SECONDS = 2.0
#: The longest pause before a message is sent again, or failed again where it could not be.
RESEND_SECONDS_MAX = 30.0


@dataclass
class _Known:
    """A pending message as this process has come to know it, by its own steady clock."""

    first_seen: float
    resend_at: float
    resend_pause_seconds: float = RESEND_AFTER_SECONDS
    fail_at: float = 0.0
    # Longer than the time between two sweeps: one of them goes by without it.
    fail_pause_seconds: float = 2 * SWEEP_SECONDS


class _Turn:
    """Goes round what is pending, a page a sweep: nothing at the front keeps the rest waiting."""

    def __init__(self) -> None:
        self._last: PendingRow | None = None

    def next_page(self, until: int) -> list[PendingRow]:
        rows = due(until, SWEPT_MAX, self._last)
        self._last = rows[-1] if len(rows) == SWEPT_MAX else None
        return rows

    @property
    def is_over(self) -> bool:
        return self._last is None


class Sweeper:
    """The follower that brings every message to an end."""

    name = "sweeper"

    def __init__(self) -> None:
        self._next_sweep = 0.0
        self._overdue, self._all = _Turn(), _Turn()
        # Who was seen in the turn through all before this one, and in this one.
        self._known: dict[UUID, _Known] = {}
        self._seen: dict[UUID, _Known] = {}

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
        rows = {row.message_id: row for row in self._overdue.next_page(clock)}
        rows |= {row.message_id: row for row in self._all.next_page(EVER)}
        for row in rows.values():
            self._seen[row.message_id] = self._known_since(row, clock, now)
        overdue = [row for row in rows.values() if self._is_overdue(row, clock, now)]
        for row in overdue:
            self._fail(row, now)
        failed = {row.message_id for row in overdue}
        self._resend([row for row in rows.values() if row.message_id not in failed], now)
        if self._all.is_over:
            self._known, self._seen = self._seen, {}

    def _known_since(self, row: PendingRow, clock: int, now: float) -> _Known:
        """When this process saw the message first; when it may be resent, by either clock."""
        age_seconds = max(0.0, (clock - row.sent_at) / 1_000_000)
        wait_seconds = max(0.0, RESEND_AFTER_SECONDS - age_seconds)
        known = self._seen.get(row.message_id) or self._known.get(row.message_id)
        return known or _Known(now, now + wait_seconds)

    def _is_overdue(self, row: PendingRow, clock: int, now: float) -> bool:
        """By the log's clock, or by our own when the log's has been set back."""
        seen_seconds = now - self._seen[row.message_id].first_seen
        allowed_seconds = (row.deadline_at - row.sent_at) / 1_000_000
        return clock >= row.deadline_at or seen_seconds >= allowed_seconds

    def _fail(self, row: PendingRow, now: float) -> None:
        known = self._seen[row.message_id]
        if now < known.fail_at:
            return
        known.fail_at = now + known.fail_pause_seconds
        known.fail_pause_seconds = min(known.fail_pause_seconds * 2, RESEND_SECONDS_MAX)
        with bound_contextvars(message_id=row.message_id, user_id=row.user_id):
            try:
                sent = read_stream(row.message_id)[0]
                cause = Cause("sweeper", sent.request_id, sent.event_id)
                with bound_contextvars(request_id=cause.request_id):
                    logger.warning("message %s is past its deadline", row.message_id)
                    end_with_failure(row.message_id, "deadline", cause)
            # One message that cannot be ended keeps no other from its end.
            except Raced as error:
                logger.warning("message %s could not be failed: %s", row.message_id, error)
            except (*CONNECTION_ERRORS, StoreUnavailable):
                raise
            except Exception:
                logger.exception("message %s could not be failed", row.message_id)

    def _resend(self, rows: Sequence[PendingRow], now: float) -> None:
        for row in rows:
            known = self._seen[row.message_id]
            if now < known.resend_at:
                continue
            try:
                worked_on = get_leases().holder_of(lease_name(row.message_id)) is not None
            except LeasesUnavailable:
                # Without Redis there is no broker either: the next sweep asks again.
                return
            if not worked_on:
                if not enqueue(row.message_id):
                    return
                known.resend_at = now + known.resend_pause_seconds
                known.resend_pause_seconds = min(known.resend_pause_seconds * 2, RESEND_SECONDS_MAX)
