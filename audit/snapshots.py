"""Whether snapshots are what the log says: commands start from them instead of from the log."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from audit.stored import UNREADABLE, bounded, stored_id
from eventstore.domain import TOPICS, AggregateSnapshot
from eventstore.log import event_log
from eventstore.reading import each_of_stream

#: Snapshots that one query reads.
PAGE_ROWS = 500

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def compare_snapshots() -> list[str]:
    """Name each snapshot that is not what its stream makes up to its version.

    Every stream that has any is replayed once, an event at a time and without its text. One of a
    shape that commands pass over is passed over here too. Events are there before a snapshot of
    them is, and stay: so this may run beside a service.
    """
    lines: list[str] = []
    for stored, rows in groupby(_rows(), key=lambda row: row[0]):
        stream_id = stored_id(stored)
        if stream_id is None:
            lines.append(f"snapshots: {stored!r} is no stream")
        else:
            lines += [f"snapshots: stream {stream_id}{line}" for line in _compare(stream_id, rows)]
    return bounded(lines, "snapshots")


def _compare(stream_id: UUID, rows: Iterator[tuple[Any, ...]]) -> Iterator[str]:
    replay = _Replay(stream_id)
    for _, version, topic, data in rows:
        try:
            snapshot = _snapshot(stream_id, version, topic, data)
        except UNREADABLE:
            yield f", version {version!r}: it cannot be read"
            continue
        if not snapshot.fits():
            continue
        try:
            aggregate = replay.upto(version)
        except UNREADABLE:
            yield ": its events cannot be replayed"
            return
        if aggregate is None or aggregate.version != version:
            there = aggregate.version if aggregate else 0
            yield f", version {version}: by the log it has {there} events"
        elif type(aggregate) is not type(snapshot).aggregate_class:
            yield f", version {version}: by the log it is no {type(snapshot).__name__}"
        elif differing := _differing(snapshot, type(snapshot).take(aggregate)):
            yield f", version {version}: {differing}"


class _Replay:
    """A stream replayed as far as it is asked for."""

    def __init__(self, stream_id: UUID) -> None:
        self._events = map(event_log().with_texts_closed, each_of_stream(stream_id))
        self._aggregate: Any = None

    def upto(self, version: int) -> Any:
        """The aggregate at a version, or at the end of its stream if that comes first."""
        while self._aggregate is None or self._aggregate.version < version:
            event = next(self._events, None)
            if event is None:
                break
            self._aggregate = event.mutate(self._aggregate)
        return self._aggregate


def _snapshot(stream_id: UUID, version: Any, topic: Any, data: Any) -> AggregateSnapshot:
    said, kind = _decode(bytes(data)), TOPICS[topic]
    if said.keys() != {"state"} or not isinstance(said["state"], dict):
        raise ValueError("there is something else in it")
    if type(version) is not int or not issubclass(kind, AggregateSnapshot):
        raise TypeError("it is none")
    return kind(originator_id=stream_id, originator_version=version, state=said["state"])


def _differing(snapshot: AggregateSnapshot, by_the_log: AggregateSnapshot) -> str:
    # As they are stored: 1 is not true there, and 1.0 is not 1.
    pairs = [
        (name, _stored(value), _stored(by_the_log.state.get(name)))
        for name, value in snapshot.state.items()
    ]
    return "; ".join(
        f"{name} is {is_now}, by the log {log}" for name, is_now, log in pairs if is_now != log
    )


def _stored(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _rows() -> Iterator[tuple[Any, ...]]:
    """Every snapshot, by stream and version, a page a query."""
    page, end = (
        "SELECT stream_id, version, topic, data FROM eventstore_snapshot",
        (f" ORDER BY stream_id, version LIMIT {PAGE_ROWS}"),
    )
    with connection.cursor() as cursor:
        cursor.execute(page + end)
        while found := cursor.fetchall():
            yield from found
            cursor.execute(f"{page} WHERE (stream_id, version) > (%s, %s){end}", found[-1][:2])
