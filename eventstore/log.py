"""The log as commands use it: load an aggregate, decide, save.

`EventLog` is the library's `Application` with a memory that is believed until an append proves it
stale. Within a process, commands on one account take turns: in the shared writer, or by
`one_at_a_time`. Between processes the version decides, and the loser reads what others have stored
since and decides again (`eventstore.decisions`).
"""

import contextlib
import functools
import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction
from eventsourcing.application import AggregateNotFoundError, Application, LRUCache
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    EventStore,
    InfrastructureFactory,
    Mapper,
    ProcessRecorder,
    TrackingRecorder,
)

from eventstore.append import Job, append_here, take_append_lock
from eventstore.cause import Cause
from eventstore.database import CONNECTION_ERRORS, writing
from eventstore.domain import Aggregate
from eventstore.mapper import FieldMapper
from eventstore.marker import appended
from eventstore.once import once
from eventstore.reading import RecordedEvent, each_of_stream, read_each_from
from eventstore.recorder import LogRecorder, SnapshotRecorder

logger = logging.getLogger(__name__)

TAggregate = TypeVar("TAggregate", bound=Aggregate)

#: Aggregates that a process keeps in memory.
CACHED_AGGREGATES_MAX = 20_000
#: A snapshot is taken each time a stream has grown by so many versions.
SNAPSHOT_EVERY = 100
#: Versions that something in memory may be behind the log; from there its snapshot is nearer.
BEHIND_MAX = SNAPSHOT_EVERY
#: A stream to which others were seen to write is read before it is decided on, until they were not
#: seen again so many times in a row.
READS_AHEAD = 8

#: A stream, and what it is a stream of.
Stream = tuple[type[Aggregate], UUID]


class DjangoFactory(InfrastructureFactory[TrackingRecorder]):
    """Builds the library's parts on Django's connection."""

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        return SnapshotRecorder()

    def application_recorder(self) -> ApplicationRecorder:
        return LogRecorder()

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> TrackingRecorder:
        raise NotImplementedError("projections keep their own positions")

    def process_recorder(self) -> ProcessRecorder:
        raise NotImplementedError("projections keep their own positions")


def evolve(aggregate: Any, events: Iterable[Any]) -> Any:
    """The library's projector without its check of a runtime protocol at each event."""
    for event in events:
        aggregate = event.mutate(aggregate)
    return aggregate


@dataclass(slots=True)
class Remembered:
    """An aggregate as it was stored, never changed, and what is known of its stream.

    `last_event_id` is of the event that it ends with, if it was read or appended here.
    """

    aggregate: Aggregate
    last_event_id: UUID | None
    reads_ahead: int = 0


class EventLog(Application[UUID]):
    """The one log of the service."""

    name = "chatledger"
    is_snapshotting_enabled = True

    def __init__(self) -> None:
        # Given here, so that no stray variable of the process's environment can switch the store.
        super().__init__(
            env={
                "IS_SNAPSHOTTING_ENABLED": "y",
                "COMPRESSOR_TOPIC": "",
                "CIPHER_TOPIC": "",
            }
        )
        self._memory: LRUCache[UUID, Remembered] = LRUCache(CACHED_AGGREGATES_MAX)

    def construct_factory(self, env: Any) -> InfrastructureFactory[TrackingRecorder]:
        return DjangoFactory(env)

    def construct_mapper(self) -> Mapper[UUID]:
        self._field_mapper = FieldMapper(transcoder=self.construct_transcoder())
        return self._field_mapper

    def construct_snapshot_store(self) -> EventStore[UUID]:
        return SnapshotStore(self.mapper, self.factory.aggregate_recorder(purpose="snapshots"))

    def load(self, kind: type[TAggregate], stream_id: UUID, *, fresh: bool = False) -> TAggregate:
        """The aggregate of a stream, as a copy to decide on. Raises `AggregateNotFoundError`.

        It comes from memory where it can; what another process has appended since shows as a
        conflict at the save. `fresh` reads the stream anew.
        """
        known = None if fresh or not kind.cached else self._remembered(stream_id)
        if known is not None:
            return copy_of(known.aggregate, kind, stream_id)
        return copy_of(self.read_anew([(kind, stream_id)])[stream_id], kind, stream_id)

    def read_anew(self, streams: Collection[Stream]) -> dict[UUID, Aggregate | None]:
        """What the log holds of some streams now, None where it holds nothing.

        Of what is in memory only the events behind it are read, in one statement for all streams.
        """
        known = {stream_id: self._remembered(stream_id) for _, stream_id in streams}
        versions = {each: old.aggregate.version for each, old in known.items() if old is not None}
        versions |= {stream_id: 1 for kind, stream_id in streams if not kind.cached}
        # The event that is known, those that may be behind it, and one that would be too many.
        found = read_each_from(versions, limit=BEHIND_MAX + 2) if versions else {}
        return {
            stream_id: self._brought_up(known[stream_id], found[stream_id])
            if stream_id in found
            else self._loaded(stream_id)
            for _, stream_id in streams
        }

    def is_shared(self, stream_id: UUID) -> bool:
        """Whether others write to a stream that is in memory, as far as was seen lately."""
        known = self._remembered(stream_id)
        return known is not None and known.reads_ahead > 0

    def evolved(self, events: Iterable[RecordedEvent]) -> Any:
        """The aggregate that a stream makes which was read as followers read, or None."""
        return self._evolved(None, events)

    def with_texts_closed(self, event: RecordedEvent) -> Any:
        """The domain event with its personal text still encrypted, for folds that need no text."""
        return self._field_mapper.from_recorded(event, decrypted=False)

    def find(
        self, kind: type[TAggregate], stream_id: UUID, *, fresh: bool = False
    ) -> TAggregate | None:
        """As `load`, with None for a stream that does not exist."""
        try:
            return self.load(kind, stream_id, fresh=fresh)
        except AggregateNotFoundError:
            return None

    def append(self, *aggregates: Aggregate, cause: Cause, announced: bool = True) -> int:
        """Store what the aggregates have pending, in this order, together or not at all.

        In the caller's transaction, or in one of its own. `announced` as in `Job`. Returns the
        position of the last event. Raises the library's `IntegrityError` when another writer was
        first.
        """
        job = self.job(aggregates, cause, announced=announced)
        try:
            with contextlib.nullcontext() if connection.in_atomic_block else transaction_with_log():
                position = append_here(job) if job.events else 0
        except Exception:
            self.forget(aggregates)
            raise
        # Until the commit nobody else may see this state, and after a rollback nobody ever.
        transaction.on_commit(functools.partial(appended.advance, position))
        transaction.on_commit(functools.partial(self.remember, aggregates, job))
        return position

    def job(self, aggregates: Iterable[Aggregate], cause: Cause, *, announced: bool) -> Job:
        """What the aggregates have pending, in this order, as it is stored."""
        events = [event for each in aggregates for event in each.collect_events()]
        return Job(list(map(self.mapper.to_stored_event, events)), cause, announced)

    def remember(self, aggregates: Iterable[Aggregate], job: Job) -> None:
        """Keep what was appended in memory; of those that are kept, a snapshot now and then."""
        streams = [event.originator_id for event in job.events]
        grown = Counter(streams)
        last_ids = dict(zip(streams, job.event_ids, strict=True))
        # Of an aggregate that was appended in parts, the last is the latest.
        for aggregate in {each.id: each for each in aggregates}.values():
            if not aggregate.cached or aggregate.id not in grown:
                continue
            old = self._remembered(aggregate.id)
            reads_ahead = 0 if old is None else old.reads_ahead
            self._memory.put(
                aggregate.id, Remembered(aggregate, last_ids[aggregate.id], reads_ahead)
            )
            before = aggregate.version - grown[aggregate.id]
            if aggregate.version // SNAPSHOT_EVERY > before // SNAPSHOT_EVERY:
                self._take_snapshot(aggregate)

    def forget(self, aggregates: Iterable[Aggregate]) -> None:
        """Evict aggregates that could not be appended."""
        for each in aggregates:
            self.evict(each.id)

    def evict(self, stream_id: UUID) -> None:
        """Forget a cached aggregate."""
        with contextlib.suppress(KeyError):
            self._memory.get(stream_id, evict=True)

    def _brought_up(self, old: Remembered | None, events: Sequence[RecordedEvent]) -> Any:
        """What is in memory with the events behind it; the first is the one that it ends with."""
        if old is None:
            all_of_it = len(events) < BEHIND_MAX + 2
            return self.evolved(events if all_of_it else each_of_stream(events[0].stream_id))
        # A database that has gone back in time may hold other events at the same versions, or none.
        if not events or events[0].event_id != old.last_event_id or len(events) > BEHIND_MAX + 1:
            return self._loaded(old.aggregate.id)
        if len(events) == 1:
            old.reads_ahead = max(0, old.reads_ahead - 1)
            return old.aggregate
        aggregate = self._evolved(old.aggregate.copy(), events[1:])
        self._memory.put(aggregate.id, Remembered(aggregate, events[-1].event_id, READS_AHEAD))
        return aggregate

    def _loaded(self, stream_id: UUID) -> Any:
        """What the snapshot and the events behind it make, or None; kept if its kind is."""
        self.evict(stream_id)
        store = self.snapshots
        aggregate = evolve(None, store.get(stream_id, desc=True, limit=1) if store else ())
        version = 0 if aggregate is None else aggregate.version
        # With the event that the snapshot ends with, for its id.
        events = list(each_of_stream(stream_id, max(0, version - 1)))
        aggregate = self._evolved(aggregate, [each for each in events if each.version > version])
        if aggregate is not None and aggregate.cached:
            last_id = events[-1].event_id if events else None
            self._memory.put(stream_id, Remembered(aggregate, last_id))
        return aggregate

    def _evolved(self, aggregate: Any, events: Iterable[RecordedEvent]) -> Any:
        return evolve(aggregate, map(self._field_mapper.from_recorded, events))

    def _remembered(self, stream_id: UUID) -> Remembered | None:
        try:
            return self._memory.get(stream_id)
        except KeyError:
            return None

    def _take_snapshot(self, aggregate: Aggregate) -> None:
        if aggregate.snapshot_class is None or self.snapshots is None:
            return
        try:
            self.snapshots.put([aggregate.snapshot_class.take(aggregate)])
        except Exception:
            # The events are stored; a snapshot is only a shortcut.
            logger.warning("no snapshot of %s was taken", aggregate.id, exc_info=True)


def copy_of(aggregate: Aggregate | None, kind: type[TAggregate], stream_id: UUID) -> TAggregate:
    """A copy to decide on of what was read. Raises `AggregateNotFoundError` if it is no `kind`."""
    if not isinstance(aggregate, kind):
        raise AggregateNotFoundError(f"stream {stream_id} holds no {kind.__name__}")
    return aggregate.copy()


class SnapshotStore(EventStore[UUID]):
    """Snapshots, of which one that cannot be read, or is of an older shape, counts as absent."""

    def get(self, originator_id: UUID, **page: Any) -> Iterator[Any]:
        try:
            found: list[Any] = list(super().get(originator_id, **page))
            return iter([snapshot for snapshot in found if snapshot.fits()])
        except CONNECTION_ERRORS:
            raise
        except Exception:
            logger.warning("the snapshot of %s is unreadable", originator_id, exc_info=True)
            return iter(())


@once
def event_log() -> EventLog:
    """The process's log."""
    return EventLog()


@contextlib.contextmanager
def transaction_with_log() -> Iterator[None]:
    """A transaction that writes rows of its own beside its events.

    It takes the append lock first: one order of locks everywhere, so that none wait for each other.
    """
    with writing():
        take_append_lock()
        yield


_turns = [threading.Lock() for _ in range(1024)]


def one_at_a_time(user_id: UUID) -> threading.Lock:
    """The lock under which this process's commands on one account take turns."""
    return _turns[user_id.int % len(_turns)]
