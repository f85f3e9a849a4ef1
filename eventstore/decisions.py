"""Decisions: how a command asks the domain, and how it is asked again when somebody was faster.

A command that writes rows of its own beside its events decides in its own transaction (`decide`).
The others, sends and the ends of messages, are decided by the shared writer, many in a batch: such
a decision takes a `View` of the log and returns what it wants stored (`Append`), or its result.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import IntegrityError

from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.domain import Aggregate, Refused
from eventstore.log import EventLog, copy_of

logger = logging.getLogger(__name__)

R_co = TypeVar("R_co", covariant=True)
TAggregate = TypeVar("TAggregate", bound=Aggregate)

#: How often a command decides again after losing a race, before it gives up.
CONFLICTS_MAX = 20


class Raced(StoreUnavailable):
    """Others wrote to the same streams first, again and again: nothing was done."""


class DecisionAlone(Protocol[R_co]):
    """A command at work in its own thread: load, decide, append."""

    def __call__(self, *, fresh: bool) -> R_co: ...


def decide(decision: DecisionAlone[R_co]) -> R_co:
    """Run a command's decision, and again on fresh state when it was raced, refused or cut off.

    The first try may use what the process remembers; a refusal or a conflict is believed only on
    fresh state. After a lost connection the fate of the append is unknown, so a decision that must
    not happen twice looks for its own trace when `fresh`.
    """
    try:
        return decision(fresh=False)
    except (IntegrityError, Refused, StoreUnavailable):
        logger.debug("deciding again on fresh state", exc_info=True)
    for _ in range(CONFLICTS_MAX):
        try:
            return decision(fresh=True)
        except IntegrityError:
            continue
    raise Raced("too many others write to the same streams; try again")


class View:
    """The log as one decision of a batch sees it.

    That is what this process remembers, or with `fresh` what is stored; on top of it what commands
    before it in the batch have decided, which is committed with it or not at all. `read` was read
    anew for the batch. `cut_off`: an earlier try of the same command may have been stored.
    """

    def __init__(
        self,
        log: EventLog,
        tentative: Mapping[Any, Aggregate],
        read: Mapping[UUID, Aggregate | None],
        *,
        fresh: bool,
        cut_off: bool,
    ) -> None:
        self.fresh = fresh
        self.cut_off = cut_off
        #: Whether anything was looked at that is not committed yet.
        self.saw_tentative = False
        self._log = log
        self._tentative = tentative
        self._read = read

    def is_decided_on(self, stream_id: UUID) -> bool:
        """Whether a command before it in the batch has decided on this stream."""
        return stream_id in self._tentative

    def load(self, kind: type[TAggregate], stream_id: UUID, *, fresh: bool = False) -> TAggregate:
        """The aggregate of a stream, as a copy to decide on. Raises `AggregateNotFoundError`."""
        tentative = self._tentative.get(stream_id)
        if isinstance(tentative, kind):
            self.saw_tentative = True
            return tentative.copy()
        if stream_id in self._read:
            return copy_of(self._read[stream_id], kind, stream_id)
        return self._log.load(kind, stream_id, fresh=fresh or self.fresh)

    def find(
        self, kind: type[TAggregate], stream_id: UUID, *, fresh: bool = False
    ) -> TAggregate | None:
        """As `load`, with None for a stream that does not exist."""
        try:
            return self.load(kind, stream_id, fresh=fresh)
        except AggregateNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class Append(Generic[R_co]):
    """What a decision wants stored, together or not at all, and what is its result then.

    `result` makes it of the position of the last event. `announced` as in `Job`.
    """

    aggregates: tuple[Aggregate, ...]
    cause: Cause
    result: Callable[[int], R_co] = field(repr=False)
    announced: bool = True


class Decision(Protocol[R_co]):
    """A command at work in the shared writer, with whatever else is in its batch."""

    def __call__(self, view: View, /) -> R_co | Append[R_co]: ...
