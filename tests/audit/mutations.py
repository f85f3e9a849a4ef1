"""Single mutations of a sealed log, each made by SQL on what is stored, and how it is named.

A mutation returns the lines that `verify --seals` has to print for it: these and no other, but for
lines about the versions of a stream, which many of them break as well.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.seals.checkpoints import Checkpoint
from eventstore.seals.rows import HIGHEST, LOWEST
from tests.eventstore.sealing import COLUMNS, insert, stored

#: Where a row goes, or is made, that is not in the log's own range.
OUTSIDE_MAX = 50
INTEGER_BITS = {"position": 64, "version": 32, "at": 64, "number": 64, "first": 64, "last": 64}
IDS = ("stream_id", "event_id", "causation_id")
TEXTS = ("topic", "actor", "request_id", "key_id")


@dataclass
class Sealed:
    """The log that is mutated."""

    last: int
    checkpoints: list[Checkpoint]
    is_sqlite: bool = field(default_factory=lambda: connection.vendor == "sqlite")

    def seal(self, position: int) -> int:
        return next(each.number for each in self.checkpoints if position <= each.last)

    def named(self, first: int, last: int | None = None) -> str:
        last = first if last is None else last
        a, b = self.seal(first), self.seal(last)
        seals = f"checkpoint {a}" if a == b else f"checkpoints {a} to {b}"
        return f"{seals}, event {first}" if first == last else f"{seals}, events {first} to {last}"


Mutation = Callable[[random.Random, Sealed], list[str]]


class NotPossible(Exception):
    """This draw cannot be made; another one is."""


def execute(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        if cursor.rowcount == 0:
            raise NotPossible(statement)


def value_of(table: str, key: str, row: int | str, column: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} WHERE {key} = %s", [row])
        return cursor.fetchone()[0]


def flipped(column: str, value: Any, rng: random.Random, *, is_sqlite: bool) -> tuple[str, Any]:
    """The expression and the parameter of a stored value with one bit of it flipped."""
    if column in INTEGER_BITS:
        bits = INTEGER_BITS[column]
        changed = (value ^ 1 << rng.randrange(bits)) & ((1 << bits) - 1)
        return "%s", changed - (1 << bits) if changed >> (bits - 1) else changed
    if column in IDS and not is_sqlite:
        return "%s", UUID(int=value.int ^ 1 << rng.randrange(128))
    is_text = column in TEXTS or column in IDS
    changed_bytes = bytearray(value.encode() if isinstance(value, str) else bytes(value))
    if not changed_bytes:
        raise NotPossible("there is no bit to flip")
    # PostgreSQL takes no byte sequence that is not UTF-8, and no NUL.
    bit = rng.randrange(8 if is_sqlite or not is_text else 7)
    index = rng.randrange(len(changed_bytes))
    changed_bytes[index] ^= 1 << bit
    if is_text and not is_sqlite:
        if not changed_bytes[index]:
            raise NotPossible("PostgreSQL stores no NUL")
        return "%s", changed_bytes.decode()
    return ("CAST(%s AS TEXT)" if is_text else "%s"), bytes(changed_bytes)


def event_bit(rng: random.Random, log: Sealed) -> list[str]:
    position, column = rng.randint(1, log.last), rng.choice(COLUMNS)
    value = value_of("eventstore_event", "position", position, column)
    if value is None:
        raise NotPossible("there is no bit to flip")
    expression, changed = flipped(column, value, rng, is_sqlite=log.is_sqlite)
    execute(
        f"UPDATE eventstore_event SET {column} = {expression} WHERE position = %s",
        changed,
        position,
    )
    if column == "position":
        return [f"{log.named(position)}: moved to {changed}"]
    return [f"{log.named(position)}: changed"]


def causation_made_up_or_dropped(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.randint(1, log.last)
    is_none = value_of("eventstore_event", "position", position, "causation_id") is None
    value = stored(UUID(int=rng.choice([0, rng.getrandbits(128)]))) if is_none else None
    execute("UPDATE eventstore_event SET causation_id = %s WHERE position = %s", value, position)
    return [f"{log.named(position)}: changed"]


def type_changed(rng: random.Random, log: Sealed) -> list[str]:
    """The same bytes as another type, which only SQLite stores."""
    if not log.is_sqlite:
        raise NotPossible("PostgreSQL stores no other type")
    position = rng.randint(1, log.last)
    column = rng.choice(["stream_id", "topic", "data", "event_id", "actor", "request_id"])
    other = "TEXT" if column == "data" else "BLOB"
    execute(
        f"UPDATE eventstore_event SET {column} = CAST({column} AS {other}) WHERE position = %s",
        position,
    )
    return [f"{log.named(position)}: changed"]


def id_in_capitals(rng: random.Random, log: Sealed) -> list[str]:
    """The same id in another spelling, which only SQLite stores."""
    if not log.is_sqlite:
        raise NotPossible("PostgreSQL stores no spelling")
    position, column = rng.randint(1, log.last), rng.choice(IDS)
    execute(
        f"UPDATE eventstore_event SET {column} = upper({column}) WHERE position = %s"
        f" AND upper({column}) <> {column}",
        position,
    )
    return [f"{log.named(position)}: changed"]


def removed(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.randint(1, log.last)
    execute("DELETE FROM eventstore_event WHERE position = %s", position)
    return [f"{log.named(position)}: removed"]


def removed_and_closed(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.randint(1, log.last)
    execute("DELETE FROM eventstore_event WHERE position = %s", position)
    if position == log.last:
        return [f"{log.named(position)}: removed"]
    shift(position + 1, log.last, -1)
    return [f"{log.named(position)}: removed", run(log, position + 1, log.last, -1)]


def inserted_outside(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.choice(
        [-rng.randint(0, OUTSIDE_MAX), LOWEST, log.last + rng.randint(2, OUTSIDE_MAX), HIGHEST]
    )
    insert_one(rng, position)
    if position < 1:
        return [f"event {position}: inserted; positions begin with 1"]
    gap = f"events {log.last + 1} to {position - 1}"
    if position == log.last + 2:
        gap = f"event {log.last + 1}"
    return [f"{gap}: missing; no seal tells more"]


def inserted_between(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.randint(1, log.last)
    shift(position, log.last, 1)
    insert_one(rng, position)
    return [f"{log.named(position)}: inserted", run(log, position, log.last, 1)]


def swapped(rng: random.Random, log: Sealed) -> list[str]:
    first = rng.randint(1, log.last - 1)
    near = rng.random() < 0.5
    second = rng.randint(first + 1, min(log.last, first + 3) if near else log.last)
    for old, new in ((first, 0), (second, first), (0, second)):
        execute("UPDATE eventstore_event SET position = %s WHERE position = %s", new, old)
    seal = log.seal(second)
    return [f"{log.named(first)}: swapped with event {second} of checkpoint {seal}"]


def moved_outside(rng: random.Random, log: Sealed) -> list[str]:
    position = rng.randint(1, log.last)
    to = rng.choice(
        [-rng.randint(0, OUTSIDE_MAX), LOWEST, log.last + rng.randint(1, OUTSIDE_MAX), HIGHEST]
    )
    execute("UPDATE eventstore_event SET position = %s WHERE position = %s", to, position)
    return [f"{log.named(position)}: moved to {to}"]


def moved_within(rng: random.Random, log: Sealed) -> list[str]:
    """One event to another place, and those between by one."""
    position, to = rng.sample(range(1, log.last + 1), 2)
    if abs(position - to) == 1:
        raise NotPossible("that would be two swapped")
    execute("UPDATE eventstore_event SET position = 0 WHERE position = %s", position)
    if to > position:
        first, last, by = position + 1, to, -1
    else:
        first, last, by = to, position - 1, 1
    shift(first, last, by)
    execute("UPDATE eventstore_event SET position = %s WHERE position = 0", to)
    return [f"{log.named(position)}: moved to {to}", run(log, first, last, by)]


def tail_of_events_cut(rng: random.Random, log: Sealed) -> list[str]:
    first = rng.randint(log.last - 3_000, log.last)
    execute("DELETE FROM eventstore_event WHERE position >= %s", first)
    return [f"{log.named(first, log.last)}: removed"]


def checkpoint_bit(rng: random.Random, log: Sealed) -> list[str]:
    checkpoint, column = rng.choice(log.checkpoints), rng.choice(Checkpoint.__slots__)
    value = value_of("eventstore_checkpoint", "number", checkpoint.number, column)
    expression, changed = flipped(column, value, rng, is_sqlite=log.is_sqlite)
    execute(
        f"UPDATE eventstore_checkpoint SET {column} = {expression} WHERE number = %s",
        changed,
        checkpoint.number,
    )
    what = f"its {column} was changed"
    if column == "number":
        what += f" to {changed}"
    elif column == "leaves":
        before, after = bytes(value), bytes(changed)
        index = next(n for n in range(len(before)) if before[n] != after[n]) // 32
        what = f"its leaf of event {checkpoint.first + index} was changed, not the event"
    elif column == "at":
        what += ", or its events with their leaves and its root"
    return [f"checkpoint {checkpoint.number}: {what}"]


def checkpoint_made_up(rng: random.Random, log: Sealed) -> list[str]:
    """A row without a signature below the first one, which no other is compared with."""
    number = rng.choice([LOWEST, LOWEST + 1, -rng.randint(0, OUTSIDE_MAX)])
    columns = ", ".join(Checkpoint.__slots__)
    execute(
        f"INSERT INTO eventstore_checkpoint ({columns})"
        f" SELECT %s, -first, -last, {columns.partition('last, ')[2]}"
        " FROM eventstore_checkpoint WHERE number = %s",
        number,
        rng.choice(log.checkpoints).number,
    )
    return [f"checkpoint {number}: the numbers begin with 1"]


def checkpoint_removed(rng: random.Random, log: Sealed) -> list[str]:
    checkpoint = rng.choice(log.checkpoints[:-1])
    execute("DELETE FROM eventstore_checkpoint WHERE number = %s", checkpoint.number)
    events = (
        f"event {checkpoint.first} has"
        if checkpoint.size == 1
        else f"events {checkpoint.first} to {checkpoint.last} have"
    )
    return [f"checkpoint {checkpoint.number}: removed; {events} no seal"]


def newest_checkpoints_removed(rng: random.Random, log: Sealed) -> list[str]:
    left = rng.randint(0, len(log.checkpoints) - 1)
    execute("DELETE FROM eventstore_checkpoint WHERE number > %s", left)
    return [cut_off(log, left)]


def tail_cut(rng: random.Random, log: Sealed) -> list[str]:
    """Events and checkpoints together: the rest is a log of its own that looks whole."""
    left = rng.randint(0, len(log.checkpoints) - 1)
    last = log.checkpoints[left - 1].last if left else 0
    execute("DELETE FROM eventstore_checkpoint WHERE number > %s", left)
    execute("DELETE FROM eventstore_event WHERE position > %s", last)
    return [cut_off(log, left)]


def key_bit(rng: random.Random, log: Sealed) -> list[str]:
    key_id = log.checkpoints[0].key_id
    value = value_of("eventstore_sealkey", "id", key_id, "public_key")
    _, changed = flipped("public_key", value, rng, is_sqlite=log.is_sqlite)
    execute("UPDATE eventstore_sealkey SET public_key = %s WHERE id = %s", changed, key_id)
    return [
        f"public key {key_id}: it does not belong to its id",
        f"{len(log.checkpoints):,} checkpoints could not be checked",
    ]


MUTATIONS: tuple[Mutation, ...] = (
    # Bits are what the most kinds of damage come down to.
    *(event_bit,) * 6,
    *(checkpoint_bit,) * 4,
    causation_made_up_or_dropped,
    type_changed,
    id_in_capitals,
    removed,
    removed_and_closed,
    inserted_outside,
    inserted_between,
    swapped,
    swapped,
    moved_outside,
    moved_within,
    tail_of_events_cut,
    checkpoint_made_up,
    checkpoint_removed,
    newest_checkpoints_removed,
    tail_cut,
    key_bit,
)


def shift(first: int, last: int, by: int) -> None:
    """Move the rows of a range by one; a place is never taken twice on the way."""
    far = 2**40
    execute(
        "UPDATE eventstore_event SET position = position + %s WHERE position BETWEEN %s AND %s",
        far,
        first,
        last,
    )
    execute(
        "UPDATE eventstore_event SET position = position - %s WHERE position > %s", far - by, far
    )


def run(log: Sealed, first: int, last: int, by: int) -> str:
    """How events are named that were moved by one place together."""
    if first == last:
        return f"{log.named(first)}: moved to {first + by}"
    way = "up" if by > 0 else "down"
    named = log.named(first, last)
    return f"{named}: moved {way} by 1 place, to {first + by} to {last + by}"


def insert_one(rng: random.Random, position: int) -> None:
    made = [stored(UUID(int=rng.getrandbits(128))) for _ in range(2)]
    at = (
        value_of("eventstore_event", "position", 2 if position <= 1 else position - 1, "at")
        if (1 < position < 10_000)
        else 1_900_000_000_000_000
    )
    topic = "chatledger.accounts.TokensGranted"
    insert([(position, made[0], 1, topic, rng.randbytes(80), at, made[1], "staff:1", "r", None)])


def cut_off(log: Sealed, left: int) -> str:
    ends = f"ends with checkpoint {left}" if left else "has no checkpoint"
    newest = log.checkpoints[-1].number
    return f"the log was cut off: it {ends}, the kept head is checkpoint {newest}"
