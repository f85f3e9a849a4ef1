"""The chain of checkpoints as it is stored, each checked in its place and nothing trusted.

Where one column of a checkpoint was changed its signature tells which: with the right value put
back it fits again. So the rest of the log can be checked as if that had not happened.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain as chained
from typing import Any

from django.db import connection

from eventstore.seals import merkle
from eventstore.seals.checkpoints import NO_PREVIOUS, Checkpoint, split
from eventstore.seals.merkle import HASH_BYTES
from eventstore.seals.rows import HIGHEST, LOWEST, read_binary
from eventstore.seals.signing import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Signatures,
    key_id_of,
)

#: Checkpoints that one read returns at most, with their leaves.
CHECKPOINTS_READ_MAX = 100
#: The same without their leaves.
HEADERS_READ_MAX = 1_000
#: Gaps in the numbers that are looked into, and numbers in them that are tried.
GAPS_MAX = 100

_SELECT_SQLITE = """
SELECT number, CAST(first AS INTEGER), CAST(last AS INTEGER), CAST(root AS BLOB),
       {leaves}, CAST(previous AS BLOB), CAST(at AS INTEGER), CAST(key_id AS BLOB),
       CAST(signature AS BLOB),
       typeof(first) || ' ' || typeof(last) || ' ' || typeof(root) || ' ' || typeof(leaves) || ' '
       || typeof(previous) || ' ' || typeof(at) || ' ' || typeof(key_id) || ' ' || typeof(signature)
FROM eventstore_checkpoint WHERE typeof(number) = 'integer' AND
"""
_SELECT_POSTGRES = """
SELECT number, first, last, root, {leaves}, previous, at, textsend(key_id), signature, NULL
FROM eventstore_checkpoint WHERE
"""
_TYPES = {
    "first": "integer",
    "last": "integer",
    "root": "blob",
    "leaves": "blob",
    "previous": "blob",
    "at": "integer",
    "key_id": "text",
    "signature": "blob",
}
_GAPS = """
SELECT number, next_number FROM (
    SELECT number, lead(number) OVER (ORDER BY number) AS next_number FROM {numbered}
) AS pairs WHERE CAST(next_number AS numeric) - number <> 1 ORDER BY number LIMIT %s
"""
_KEY_ID = re.compile(rb"[0-9a-f]{16}")
_NO_KEY = "?" * 16


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the checkpoints, with the columns that are not in the form that is stored."""

    row_number: int
    checkpoint: Checkpoint
    malformed: frozenset[str]

    @property
    def has_leaves(self) -> bool:
        """Whether there are as many leaf hashes as it says."""
        return len(self.checkpoint.leaves) == HASH_BYTES * self.checkpoint.size > 0


@dataclass(slots=True)
class Link:
    """A checkpoint in the chain: as it was signed, as far as that can be told.

    `is_intact` says that number, range, root, previous and time are those that were signed.
    `unsealed_before` are the positions in front of it that a missing checkpoint sealed.
    """

    checkpoint: Checkpoint
    is_intact: bool
    differences: list[str] = field(default_factory=list)
    unsealed_before: tuple[int, int] | None = None

    def differs(self, what: str) -> None:
        """Note a difference of this checkpoint."""
        self.differences.append(f"checkpoint {self.checkpoint.number}: {what}")


class Keys:
    """The public keys of the database, checked against their ids."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        #: Ids whose key is not the one that it was.
        self.changed: set[str] = set()
        known: dict[str, bytes] = {}
        for raw_id, public_key in _read(
            "SELECT CAST(id AS BLOB), CAST(public_key AS BLOB) FROM eventstore_sealkey",
            "SELECT textsend(id), public_key FROM eventstore_sealkey",
            [],
        ):
            key_id = (raw_id or b"").decode(errors="backslashreplace")
            if public_key is None or len(public_key) != PUBLIC_KEY_BYTES:
                self.changed.add(key_id)
                continue
            known[key_id_of(public_key)] = public_key
            if key_id_of(public_key) != key_id:
                self.changed.add(key_id)
        self.differences += [
            f"public key {key_id}: it does not belong to its id" for key_id in sorted(self.changed)
        ]
        self.ids = frozenset(known)
        self._signatures = Signatures(known)

    def signed(self, stored: Stored) -> bool:
        """Whether the checkpoint is well formed and its signature fits."""
        checkpoint = stored.checkpoint
        return not stored.malformed - {"leaves"} and self.fits(checkpoint)

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether the signature is that of what the checkpoint says."""
        if not all(LOWEST <= each <= HIGHEST for each in (checkpoint.first, checkpoint.last)):
            # A value that was tried; no checkpoint can say it.
            return False
        return self._signatures.are_of(checkpoint.key_id, checkpoint.message, checkpoint.signature)


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint as somebody has kept it elsewhere: its number, its hash, and who signed it."""

    number: int
    hash: bytes
    key_id: str


class Chain:
    """The checkpoints from number `since` on, in their order.

    `head` is one that was kept elsewhere; `at_head` becomes the one that stands in its place.
    """

    def __init__(self, since: int = 1, head: Head | None = None) -> None:
        self.since = since
        self.head = head
        self.at_head: Link | None = None
        self.keys = Keys()
        self.differences = list(self.keys.differences)
        if rows := unnumbered():
            self.differences.append(f"checkpoints: {rows} have no number")
        for number in _numbers_twice():
            self.differences.append(f"checkpoint {number}: stands there twice")
        #: How many cannot be checked, as the public key that they name was changed.
        self.unchecked = 0
        self.key_ids: set[str] = set()
        self.newest: Checkpoint | None = None
        self._renumbered = self._misnumbered()

    def links(self) -> Iterator[Link]:
        """Each checkpoint with what is wrong about it, and with what is missing before it."""
        before = self._before()
        number = self.since
        for stored, following in _with_next(self._stored()):
            if stored.checkpoint.number < number:
                if stored.checkpoint.number >= self.since:
                    # It stands there twice, which has been named.
                    continue
                self.differences.append(
                    f"checkpoint {stored.checkpoint.number}: the numbers begin with 1"
                )
                continue
            if stored.checkpoint.number > number:
                link = self._link(stored, None, following)
                self._note_missing(number, link, before)
            else:
                link = self._link(stored, before, following)
            self.newest = link.checkpoint
            if self.head and link.checkpoint.number == self.head.number:
                self.at_head = link
            if link.is_intact and link.checkpoint.key_id not in self.keys.changed:
                self.key_ids.add(link.checkpoint.key_id)
            yield link
            number, before = link.checkpoint.number + 1, link

    def _before(self) -> Link | None:
        """What the first link has to follow."""
        if self.since == 1:
            return _START
        if self.head is not None and self.head.number < self.since - 1:
            self._follow(self.head)
        stored = find(self.since - 1)
        if stored is None:
            self.differences.append(f"checkpoint {self.since - 1}: missing")
            return None
        is_intact = self.keys.signed(stored)
        if not is_intact:
            self.differences.append(
                f"checkpoint {self.since - 1}: its signature does not fit what it says"
            )
        return Link(stored.checkpoint, is_intact)

    def _follow(self, head: Head) -> None:
        """Note where the chain breaks between a head that was kept and the first link.

        What their events are is not looked at: only that each follows the one before, signed.
        """
        kept = find(head.number)
        number, digest = head.number, kept.checkpoint.hash if kept else head.hash
        while number < self.since - 1:
            page = page_from(number + 1, HEADERS_READ_MAX)
            for stored in page:
                checkpoint = stored.checkpoint
                if checkpoint.number >= self.since:
                    break
                if checkpoint.number > number + 1:
                    self.differences.append(_removed(number + 1, checkpoint.number - 1))
                elif checkpoint.previous != digest:
                    self.differences.append(
                        f"checkpoint {checkpoint.number}: it does not follow checkpoint {number} as"
                        " that is now: one of them was replaced"
                    )
                # That of the one before the first link is checked with it.
                if checkpoint.number < self.since - 1 and not self.keys.signed(stored):
                    self.differences.append(
                        f"checkpoint {checkpoint.number}: its signature does not fit what it says"
                    )
                number, digest = checkpoint.number, checkpoint.hash
            if not page or page[-1].checkpoint.number >= self.since:
                break
        if number < self.since - 2:
            self.differences.append(_removed(number + 1, self.since - 2))

    def _stored(self) -> Iterator[Stored]:
        """The rows in the order of their true numbers."""
        number = self.since
        start = self.since if self.since > 1 else LOWEST
        while start <= HIGHEST and (page := _page(start)):
            for stored in page:
                start = stored.row_number + 1
                if stored.row_number in self._renumbered:
                    continue
                yield from self._moved_here(number, stored.checkpoint.number)
                number = stored.checkpoint.number + 1
                yield stored
        yield from self._moved_here(number, number + GAPS_MAX)

    def _moved_here(self, number: int, upto: int) -> Iterator[Stored]:
        """The rows whose true numbers are in a gap."""
        for row_number, true_number in sorted(self._renumbered.items(), key=lambda pair: pair[1]):
            if number <= true_number < upto and (stored := find(row_number)):
                yield replace(stored, checkpoint=replace(stored.checkpoint, number=true_number))

    def _misnumbered(self) -> dict[int, int]:
        """Rows beside gaps in the numbers whose signature fits another number, and that number."""
        gaps = _gaps(self.since)
        beside = {number for gap in gaps for number in gap}
        candidates = [
            number
            for low, high in gaps
            for number in range(max(low, 0) + 1, min(high, max(low, 0) + GAPS_MAX))
        ][:GAPS_MAX]
        found: dict[int, int] = {}
        for row_number in sorted(beside):
            stored = find(row_number)
            if stored is None or self.keys.signed(stored):
                continue
            for number in candidates:
                if self.keys.fits(replace(stored.checkpoint, number=number)):
                    found[row_number] = number
                    self.differences.append(
                        f"checkpoint {number}: its number was changed to {row_number}"
                    )
                    break
        return found

    def _note_missing(self, number: int, link: Link, before: Link | None) -> None:
        last_missing = link.checkpoint.number - 1
        without = ""
        if before is not None and before.is_intact:
            first, last = before.checkpoint.last + 1, link.checkpoint.first - 1
            if first <= last:
                link.unsealed_before = (first, last)
                events = f"event {first} has" if first == last else f"events {first} to {last} have"
                without = f"; {events} no seal"
        link.differences.insert(0, _removed(number, last_missing) + without)

    def _link(self, stored: Stored, before: Link | None, following: Stored | None) -> Link:
        link = Link(stored.checkpoint, self.keys.signed(stored))
        checkpoint = stored.checkpoint
        if not link.is_intact:
            self._diagnose(link, stored, before, following)
        elif before is not None and before.is_intact:
            if checkpoint.previous != _hash_of(before):
                link.differs(
                    f"it does not follow checkpoint {checkpoint.number - 1} as that is now: one of "
                    "them was replaced"
                )
            if checkpoint.first != before.checkpoint.last + 1:
                link.differs(
                    f"it begins with event {checkpoint.first}, and the one before ends with "
                    f"{before.checkpoint.last}"
                )
        if link.is_intact and link.checkpoint.size < 1:
            link.differs(
                f"it is signed, and seals no event: it begins with {link.checkpoint.first} and"
                f" ends with {link.checkpoint.last}"
            )
        return link

    def _diagnose(
        self, link: Link, stored: Stored, before: Link | None, following: Stored | None
    ) -> None:
        """Find out which column was changed, and put its value back where it is known."""
        if stored.checkpoint.key_id in self.keys.changed:
            # Named once, by its key; the hash in the next one still binds what it says.
            link.is_intact = True
            self.unchecked += 1
            return
        for column, value in self._candidates(stored, before, following):
            mended = replace(stored.checkpoint, **{column: value})
            if stored.malformed <= {column, "leaves"} and self.keys.fits(mended):
                link.differs(f"its {column} was changed")
                link.checkpoint, link.is_intact = mended, True
                return
        true_hash = self._true_hash(stored, following)
        is_bound = (
            not stored.malformed - {"leaves", "signature"} and stored.checkpoint.hash == true_hash
        )
        if stored.checkpoint.key_id not in self.keys.ids and "key_id" not in stored.malformed:
            link.differs(f"there is no public key {stored.checkpoint.key_id} that it is signed by")
            link.is_intact = is_bound
        elif is_bound:
            link.differs("its signature was changed")
            link.is_intact = True
        elif self._fits_its_place(stored, before):
            or_signature = "" if true_hash else " or its signature"
            link.differs(
                f"its at{or_signature} was changed, or its events with their leaves and its root"
            )
        else:
            link.differs("its signature does not fit what it says")

    def _true_hash(self, stored: Stored, following: Stored | None) -> bytes | None:
        """The hash that it had, by what follows it or by a head kept elsewhere."""
        if following is not None and self.keys.signed(following):
            return following.checkpoint.previous
        if self.head is not None and self.head.number == stored.checkpoint.number:
            return self.head.hash
        return None

    def _candidates(
        self, stored: Stored, before: Link | None, following: Stored | None
    ) -> Iterator[tuple[str, Any]]:
        """Values that single columns may have had."""
        checkpoint = stored.checkpoint
        count = len(checkpoint.leaves) // HASH_BYTES
        if before is not None and before.is_intact:
            yield "previous", _hash_of(before)
            yield "first", before.checkpoint.last + 1
        if "leaves" not in stored.malformed:
            yield "root", merkle.root(split(checkpoint.leaves))
            yield "first", checkpoint.last - count + 1
            yield "last", checkpoint.first + count - 1
        if following is not None:
            yield "last", following.checkpoint.first - 1
        for key_id in self.keys.ids:
            yield "key_id", key_id

    def _fits_its_place(self, stored: Stored, before: Link | None) -> bool:
        """Whether all that can be told without the signature is right."""
        checkpoint = stored.checkpoint
        return (
            not stored.malformed - {"at", "signature"}
            and stored.has_leaves
            and checkpoint.root == merkle.root(split(checkpoint.leaves))
            and (
                before is None
                or not before.is_intact
                or (
                    checkpoint.previous == _hash_of(before)
                    and checkpoint.first == before.checkpoint.last + 1
                )
            )
        )


#: What stands before the first checkpoint.
_START = Link(
    Checkpoint(0, 0, 0, NO_PREVIOUS, b"", NO_PREVIOUS, 0, _NO_KEY, bytes(SIGNATURE_BYTES)),
    is_intact=True,
)


def _hash_of(link: Link) -> bytes:
    return NO_PREVIOUS if link is _START else link.checkpoint.hash


def _removed(first: int, last: int) -> str:
    which = f"checkpoint {first}" if first == last else f"checkpoints {first} to {last}"
    return f"{which}: removed"


def find(number: int) -> Stored | None:
    """The row of that number."""
    rows = _read_where("number = %s", [number])
    return rows[0] if rows else None


def newest() -> Stored | None:
    """The row with the highest number, without its leaves; None before there is one."""
    rows = _read_where("number >= 1 ORDER BY number DESC LIMIT 1", [], leaves=False)
    return rows[0] if rows else None


def page_from(number: int, limit: int) -> list[Stored]:
    """The rows from a number on, in order, without their leaves."""
    return _read_where("number >= %s ORDER BY number LIMIT %s", [number, limit], leaves=False)


def covering(position: int, keys: Keys) -> Stored | None:
    """The row that seals the position, None unless its signature covers its leaves.

    It may be one that is checked neither before nor later, so nothing it says is believed.
    """
    rows = _read_where("number >= 1 AND last >= %s ORDER BY last LIMIT 1", [position])
    if not rows or rows[0].checkpoint.first > position:
        return None
    stored = rows[0]
    is_sealed = (
        stored.has_leaves
        and keys.signed(stored)
        and merkle.root(split(stored.checkpoint.leaves)) == stored.checkpoint.root
    )
    return stored if is_sealed else None


def unnumbered() -> int:
    """How many rows have none, or, as only SQLite takes it, something else for a number."""
    is_none = (
        "number IS NULL" if connection.vendor == "postgresql" else "typeof(number) <> 'integer'"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM eventstore_checkpoint WHERE {is_none}")  # noqa: S608 (constants)
        (rows,) = cursor.fetchone()
    return int(rows)


def _page(start: int) -> list[Stored]:
    return _read_where("number >= %s ORDER BY number LIMIT %s", [start, CHECKPOINTS_READ_MAX])


def _read_where(which: str, parameters: Sequence[Any], *, leaves: bool = True) -> list[Stored]:
    sqlite, postgres = (
        select.format(leaves=column if leaves else empty) + which
        for select, column, empty in (
            (_SELECT_SQLITE, "CAST(leaves AS BLOB)", "x''"),
            (_SELECT_POSTGRES, "leaves", "''::bytea"),
        )
    )
    return list(map(_as_stored, _read(sqlite, postgres, parameters)))


def _read(sqlite: str, postgres: str, parameters: Sequence[Any]) -> list[Any]:
    if connection.vendor == "postgresql":
        return read_binary(postgres, parameters)
    with connection.cursor() as cursor:
        cursor.execute(sqlite, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows


def _as_stored(row: Sequence[Any]) -> Stored:
    number, first, last, root, leaves, previous, at, key_id, signature, types = row
    malformed = {
        name
        for (name, expected), found in zip(
            _TYPES.items(), types.split() if types else _TYPES.values(), strict=True
        )
        if found != expected
    }
    malformed |= {name for name, value in zip(_TYPES, row[1:-1], strict=True) if value is None}
    forms = {
        "root": len(root or b"") == HASH_BYTES,
        "leaves": len(leaves or b"") % HASH_BYTES == 0,
        "previous": len(previous or b"") == HASH_BYTES,
        "key_id": _KEY_ID.fullmatch(key_id or b"") is not None,
        "signature": len(signature or b"") == SIGNATURE_BYTES,
    }
    malformed |= {name for name, is_right in forms.items() if not is_right}

    def well(name: str, value: Any, otherwise: Any) -> Any:
        return otherwise if name in malformed else value

    checkpoint = Checkpoint(
        number,
        well("first", first, 0),
        well("last", last, -1),
        well("root", root, NO_PREVIOUS),
        well("leaves", leaves, b""),
        well("previous", previous, NO_PREVIOUS),
        well("at", at, 0),
        well("key_id", key_id, _NO_KEY.encode()).decode(),
        well("signature", signature, bytes(SIGNATURE_BYTES)),
    )
    return Stored(number, checkpoint, frozenset(malformed))


def _gaps(since: int) -> list[tuple[int, int]]:
    """Neighbours in the numbers that do not follow each other, from the start on."""
    numbered = "eventstore_checkpoint"
    if connection.vendor == "sqlite":
        numbered = f"(SELECT number FROM {numbered} WHERE typeof(number) = 'integer')"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT min(number) FROM {numbered}")  # noqa: S608 (constants)
        (lowest,) = cursor.fetchone()
        if lowest is None:
            return []
        cursor.execute(_GAPS.format(numbered=numbered), [GAPS_MAX])
        found = cursor.fetchall()
    start = [(0, lowest)] if lowest > 1 else []
    return [gap for gap in chained(start, found) if since == 1 or gap[1] >= since]


def _numbers_twice() -> list[int]:
    """Numbers that several rows have; none, while the table has its primary key."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT number FROM eventstore_checkpoint WHERE number IS NOT NULL"
            " GROUP BY number HAVING count(*) > 1 ORDER BY number LIMIT %s",
            [GAPS_MAX],
        )
        return [number for (number,) in cursor.fetchall()]


def _with_next(rows: Iterator[Stored]) -> Iterator[tuple[Stored, Stored | None]]:
    current = next(rows, None)
    while current is not None:
        following = next(rows, None)
        yield current, following
        current = following
