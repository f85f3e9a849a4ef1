"""The follower that counts what the log says: events, tokens, and how messages end.

The processes that append do not count: an append whose fate was unknown, and that was there when
somebody looked, would be missing. What is counted here is what `audit` and `verify` would find.
Each followers process counts all of it, so that none has to know what another has counted.
"""

import logging
import time
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from eventstore.domain import TOPICS, Event
from eventstore.reading import (
    READ_MAX,
    RecordedEvent,
    max_position,
    read_events,
)

logger = logging.getLogger(__name__)

#: How often the log is read.
LOOK_SECONDS = 1.0
#: Messages whose sending is remembered until their end.
PENDING_MAX = 50_000

EVENTS = Counter("chatledger_events", "Events that were appended to the log.", ["type"])
TOKENS = Counter(
    "chatledger_tokens", "Tokens of balance that were granted, debited and refunded.", ["kind"]
)
ENDED = Counter(
    "chatledger_messages_ended", "Messages that ended, and why they failed.", ["status", "reason"]
)
METERED = Gauge(
    "chatledger_metered_position",
    "The position up to which this process has counted the log; -1 before it began to.",
)
METERED.set(-1)
RESPONSE_SECONDS = Histogram(
    "chatledger_response_seconds",
    "From the sending of a message to its end, by the clock of the log.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

_SENT = "chatledger.conversations.MessageSent"
_KINDS = {
    "chatledger.accounts.TokensGranted": "granted",
    "chatledger.accounts.TokensDebited": "debited",
    "chatledger.accounts.TokensRefunded": "refunded",
}
_STATUSES = {
    "chatledger.conversations.ResponseGenerated": "done",
    "chatledger.conversations.ResponseCancelled": "cancelled",
    "chatledger.conversations.ResponseFailed": "failed",
}
#: Why a message fails; whatever else a log holds is one of the others.
REASONS = ("deadline", "responder", "worker_lost", "other")


class Meter:
    """Counts the log from where it stood when this process began to, a look a second."""

    name = "meter"

    def __init__(self) -> None:
        self._position: int | None = None
        self._next_look = 0.0
        self._sent: dict[UUID, int] = {}
        # Each series begins at 0, so that its first event is an increase; and looking one up by its
        # labels costs more than counting on it.
        self._events = {topic: EVENTS.labels(_type(topic)) for topic in _topics()}
        self._others = EVENTS.labels("other")
        self._tokens = {topic: TOKENS.labels(kind) for topic, kind in _KINDS.items()}
        self._ends = {
            (status, reason): ENDED.labels(status, reason)
            for status in _STATUSES.values()
            for reason in (REASONS if status == "failed" else ("",))
        }

    def step(self) -> bool:
        """Count what is new, at most a page of it; True when there is more."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        if self._position is None:
            self._position = max_position()
            METERED.set(self._position)
            return False
        events = read_events(self._position)
        for event in events:
            self._count(event)
            self._position = event.position
        METERED.set(self._position)
        if len(events) < READ_MAX:
            return False
        self._next_look = 0.0
        return True

    def _count(self, event: RecordedEvent) -> None:
        topic = event.topic
        self._events.get(topic, self._others).inc()
        try:
            if topic in self._tokens:
                self._tokens[topic].inc(event.data["amount"])
            elif topic in _STATUSES:
                self._ended(event, _STATUSES[topic])
        except (KeyError, TypeError, ValueError) as error:
            # A changed event is for `verify` to name; the rest is still counted.
            logger.debug("event %d is not counted: %s", event.position, error)
        if topic == _SENT and len(self._sent) < PENDING_MAX:
            self._sent[event.stream_id] = event.at

    def _ended(self, event: RecordedEvent, status: str) -> None:
        sent_at = self._sent.pop(event.stream_id, None)
        if sent_at is not None:
            RESPONSE_SECONDS.observe((event.at - sent_at) / 1_000_000)
        reason = event.data["reason"] if status == "failed" else ""
        self._ends.get((status, reason), self._ends["failed", "other"]).inc()


def _topics() -> list[str]:
    return [topic for topic, kind in TOPICS.items() if issubclass(kind, Event)]


def _type(topic: str) -> str:
    return topic.removeprefix("chatledger.")
