"""Verifying the seals: each event against its leaf, each tree, signature and link of the chain."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress, pairwise
from uuid import UUID

from django.db import connection, transaction

from eventstore.reading import max_position
from eventstore.seals import merkle
from eventstore.seals.chain import Chain, Head, Link, find
from eventstore.seals.checkpoints import Checkpoint, split
from eventstore.seals.rows import (
    AT,
    BEFORE_ALL,
    HIGHEST,
    NO_ROW,
    POSITION,
    Row,
    RowReader,
    has_time,
    leaf_hashes,
    malformed_column,
    unplaced,
)
from eventstore.seals.tracing import SealedLeaves, Tracing

#: Differences that are named at most; a log that is wrong all over needs no list.
DIFFERENCES_MAX = 5_000
#: Events without a seal that may have been sealed elsewhere: the first ones, the last ones, and
#: those behind a gap.
FIRST_UNSEALED_MAX = 1_000
LAST_UNSEALED_MAX = 100
GAPS_MAX = 100
#: Streams whose versions have gaps that are named at most.
STREAMS_MAX = 100
_HEXADECIMAL = re.compile("[0-9a-f]{32}")

#: Told now and then: the position that has been reached, and the last one of the log.
Report = Callable[[int, int], None]


class NoSuchCheckpoint(Exception):
    """There is no checkpoint to begin with."""


@dataclass(slots=True)
class Findings:
    """What a verification has found; without differences the log is as it was sealed.

    `events` are those that a seal covers, `unsealed` those behind the last one. `newest` is the
    newest checkpoint's number and hash.
    """

    differences: list[str]
    events: int = 0
    checkpoints: int = 0
    unsealed: int = 0
    key_ids: tuple[str, ...] = ()
    newest: tuple[int, bytes] | None = None


def verify_seals(
    *, since: int = 1, head: Head | None = None, report: Report | None = None
) -> Findings:
    """Recompute the seals from the stored rows, from checkpoint `since` on, and compare.

    Also that positions have no gap, that streams' versions count from 1 (unless `since` leaves out
    a part), and that time never goes back. With `head`, the chain must hold that checkpoint.
    Nothing is written. Raises `NoSuchCheckpoint`.
    """
    if since != 1 and (not 1 <= since <= HIGHEST or find(since) is None):
        raise NoSuchCheckpoint(f"there is no checkpoint {since}")
    return _Verification(since, head, report).run()


class _Verification:
    def __init__(self, since: int, head: Head | None, report: Report | None) -> None:
        self.since = since
        self.report = report
        self.total = max_position() if report else 0
        self.chain = Chain(since, head)
        self.lines = _Lines()
        self.tracing = Tracing(SealedLeaves(self.chain.keys))
        self.rows: RowReader | None = None
        self.sealed_upto = 0
        #: The last row that is as it was stored, and where time goes back from one to the next.
        self.last: Row = NO_ROW
        self.went_back: list[tuple[int, int]] = []
        self.events = self.checkpoints = self.unsealed = 0

    def run(self) -> Findings:
        for link in self.chain.links():
            self.checkpoints += 1
            self.lines.add(link.differences)
            self._sealed(link)
            self._report()
        self._unsealed()
        self.lines.add(self.tracing.differences())
        self.lines.add(self.chain.differences)
        if unchecked := self.chain.unchecked:
            s = "s" if unchecked > 1 else ""
            self.lines.add([f"{unchecked:,} checkpoint{s} could not be checked"])
        if rows := unplaced():
            self.lines.add([f"events: {rows} have no position"])
        if self.since == 1:
            self.lines.add(_streams_with_gaps())
        if self.chain.head is not None:
            self.lines.add(_against(self.chain.head, self.chain))
        newest = self.chain.newest
        return Findings(
            self.lines.all(),
            events=self.events,
            checkpoints=self.checkpoints,
            unsealed=self.unsealed,
            key_ids=tuple(sorted(self.chain.key_ids)),
            newest=(newest.number, newest.hash) if newest else None,
        )

    def _sealed(self, link: Link) -> None:
        """Compare the events that a checkpoint seals with its leaves, and these with its root."""
        checkpoint = link.checkpoint
        hashes = split(checkpoint.leaves)
        if checkpoint.size < 1 or (len(hashes) != checkpoint.size and not link.is_intact):
            # Which events it sealed is unknown; what is wrong about it has been named.
            return
        if self.rows is None:
            self.rows = RowReader(BEFORE_ALL if self.since == 1 else checkpoint.first - 1)
        for page in self.rows.upto(checkpoint.first - 1):
            self._before(page, is_known=link.unsealed_before is not None)
        rows = [row for page in self.rows.upto(checkpoint.last) for row in page]
        self.sealed_upto = checkpoint.last
        self.events += len(rows)
        found = leaf_hashes(rows)
        is_tree_right = merkle.root(hashes) == checkpoint.root
        # Positions are distinct and in order: so many between two ends leave no gap.
        is_whole = len(rows) == checkpoint.size
        if is_whole and is_tree_right and found == hashes:
            self._times(rows)
        elif is_whole and not is_tree_right and _root(found) == checkpoint.root:
            self.lines.add([_changed_leaves(checkpoint, hashes, found)])
            self._times(rows)
        else:
            if not is_tree_right:
                what = "neither its leaves nor its events make its root"
                these = _events(checkpoint.first, checkpoint.last)
                self.lines.add(
                    [f"checkpoint {checkpoint.number}: {what}: {these} cannot be told apart"]
                )
            self._compare(checkpoint, hashes, rows, found)

    def _compare(
        self,
        checkpoint: Checkpoint,
        hashes: Sequence[bytes],
        rows: Sequence[Row],
        found: Sequence[bytes | None],
    ) -> None:
        """Note each place in which something else stands than what was sealed."""
        self.tracing.seals(checkpoint.number, checkpoint.first, hashes)
        sealed = dict(enumerate(hashes, checkpoint.first))
        expected = checkpoint.first
        for row, made in zip(rows, found, strict=True):
            position = row[POSITION]
            if position < expected:
                self._twice(position)
                continue
            self.tracing.absent(expected, position - 1)
            if made is None or made != sealed.get(position):
                self.tracing.wrong(row)
            else:
                self._times([row])
            expected = position + 1
        self.tracing.absent(expected, checkpoint.last)

    def _twice(self, position: int) -> None:
        """Note a row in a place that another one has; only without a primary key there can be."""
        self.lines.add([f"event {position}: stands there twice"])

    def _before(self, rows: Sequence[Row], *, is_known: bool) -> None:
        """Look at rows in front of a checkpoint that none before it seals."""
        for row in rows:
            if row[POSITION] < 1:
                self.tracing.stray(row)
        if is_known:
            hashes = leaf_hashes(rows)
            self._times(
                [
                    row
                    for row, made in zip(rows, hashes, strict=True)
                    if made is not None and row[POSITION] >= 1
                ]
            )

    def _unsealed(self) -> None:
        """Look at what has no seal yet, and whether some of it comes from a sealed place."""
        reader = self.rows or RowReader(BEFORE_ALL if self.since == 1 else self.sealed_upto)
        expected = self.sealed_upto + 1
        first: list[Row] = []
        last: deque[Row] = deque(maxlen=LAST_UNSEALED_MAX)
        gaps: list[tuple[int, Row]] = []
        damaged: list[Row] = []
        for page in reader.upto(HIGHEST):
            rows = [row for row in page if row[POSITION] >= 1]
            for row in page[: len(page) - len(rows)]:
                self.tracing.stray(row)
            for row in rows:
                if row[POSITION] < expected:
                    self._twice(row[POSITION])
                elif row[POSITION] != expected and len(gaps) < GAPS_MAX:
                    gaps.append((expected, row))
                expected = row[POSITION] + 1
            first += rows[: FIRST_UNSEALED_MAX - len(first)]
            last.extend(rows)
            hashes = leaf_hashes(rows)
            right = [
                made is not None and has_time(row) for row, made in zip(rows, hashes, strict=True)
            ]
            damaged += [row for row, is_right in zip(rows, right, strict=True) if not is_right]
            self._times(list(compress(rows, right)))
            self.unsealed += len(rows)
            self._report()
        self._resolve([*first, *last, *(row for _, row in gaps)], gaps)
        self.lines.add(
            f"event {row[POSITION]}: its {malformed_column(row)} is not in the form that is stored"
            for row in damaged
        )

    def _resolve(self, unsealed: Sequence[Row], gaps: Sequence[tuple[int, Row]]) -> None:
        """Find out which of the rows without a seal were sealed in another place."""
        lost = self.tracing.strays()
        if self.tracing:
            for row in {row[POSITION]: row for row in unsealed}.values():
                self.tracing.stray(row)
        moved = self.tracing.resolve()
        self.unsealed -= len([position for position in moved if position >= 1])
        self.lines.add(
            f"event {row[POSITION]}: inserted; positions begin with 1"
            for row in lost
            if row[POSITION] not in moved
        )
        self.lines.add(
            f"event {position}: its time goes back"
            for before, position in self.went_back
            if before not in moved and position not in moved
        )
        self.lines.add(
            f"{_events(expected, row[POSITION] - 1)}: missing; no seal tells more"
            for expected, row in gaps
            if row[POSITION] not in moved
        )

    def _times(self, rows: Sequence[Row]) -> None:
        """Compare the times of rows with each other and with that of the row before."""
        times = [row[AT] for row in rows]
        if not times:
            return
        if times[0] < self.last[AT] or times != sorted(times):
            for before, row in pairwise([self.last, *rows]):
                if row[AT] < before[AT] and len(self.went_back) < DIFFERENCES_MAX:
                    self.went_back.append((before[POSITION], row[POSITION]))
        self.last = rows[-1]

    def _report(self) -> None:
        if self.report and self.rows:
            self.report(min(max(self.rows.position, 0), self.total), self.total)


class _Lines:
    """Differences, of which the first ones are kept and the others counted."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, lines: Iterable[str]) -> None:
        for line in lines:
            if len(self._lines) < DIFFERENCES_MAX:
                self._lines.append(line)
            else:
                self._more += 1

    def all(self) -> list[str]:
        more = [f"and {self._more:,} more differences"] if self._more else []
        return [*self._lines, *more]


def _root(hashes: Sequence[bytes | None]) -> bytes | None:
    whole = [made for made in hashes if made is not None]
    return merkle.root(whole) if len(whole) == len(hashes) else None


def _changed_leaves(
    checkpoint: Checkpoint, hashes: Sequence[bytes], found: Sequence[bytes | None]
) -> str:
    changed = [
        position
        for position, (kept, made) in enumerate(zip(hashes, found, strict=False), checkpoint.first)
        if kept != made
    ]
    if len(changed) == 1 and len(hashes) == checkpoint.size:
        what = f"its leaf of event {changed[0]} was changed, not the event"
    else:
        what = "its leaves were changed, not the events"
    return f"checkpoint {checkpoint.number}: {what}"


def _events(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"


def _against(head: Head, chain: Chain) -> Iterator[str]:
    """How the chain differs from a head that was kept elsewhere."""
    link, newest = chain.at_head, chain.newest
    if link is None and head.number < chain.since and (stored := find(head.number)):
        link = Link(stored.checkpoint, is_intact=True)
    if link is None:
        if newest is not None and newest.number > head.number:
            yield f"checkpoint {head.number}: removed; the kept head has it"
        else:
            ends = f"ends with checkpoint {newest.number}" if newest else "has no checkpoint"
            yield f"the log was cut off: it {ends}, the kept head is checkpoint {head.number}"
        return
    if not link.is_intact:
        # What is wrong about it has been named.
        return
    if link.checkpoint.hash != head.hash:
        yield (
            f"checkpoint {head.number}: its hash is {link.checkpoint.hash.hex()}, the kept head's"
            f" {head.hash.hex()}"
        )
    if link.checkpoint.key_id != head.key_id:
        yield (
            f"checkpoint {head.number}: it is signed by key {link.checkpoint.key_id}, the kept head"
            f" by {head.key_id}"
        )


_STREAMS = """
SELECT {stream}, CAST(min(version) AS integer), CAST(max(version) AS integer), count(*)
FROM eventstore_event
GROUP BY stream_id
HAVING min(version) <> 1 OR max(version) <> count(*) OR count(DISTINCT version) <> count(*)
ORDER BY 1 LIMIT %s
"""


def _streams_with_gaps() -> Iterator[str]:
    """Streams whose versions are not 1, 2, 3 and so on."""
    on_sqlite = connection.vendor == "sqlite"
    # A transaction on SQLite would keep writers waiting; on PostgreSQL it bounds the setting.
    with nullcontext() if on_sqlite else transaction.atomic(), connection.cursor() as cursor:
        if not on_sqlite:
            # The whole log is grouped: it may take longer than a request's statement.
            cursor.execute("SET LOCAL statement_timeout = 0")
        stream = "CAST(stream_id AS BLOB)" if on_sqlite else "uuid_send(stream_id)"
        cursor.execute(_STREAMS.format(stream=stream), [STREAMS_MAX])
        rows = cursor.fetchall()
    for stream_id, lowest, highest, count in rows:
        yield (
            f"stream {_shown(bytes(stream_id or b''))}: its versions go from {lowest} to {highest},"
            f" and there are {count}"
        )


def _shown(stream_id: bytes) -> str:
    """A stream's id as it is written, or what is stored in its place."""
    if len(stream_id) == len(UUID(int=0).bytes):
        return str(UUID(bytes=stream_id))
    text = stream_id.decode("ascii", "backslashreplace")
    return str(UUID(text)) if _HEXADECIMAL.fullmatch(text) else repr(text)
