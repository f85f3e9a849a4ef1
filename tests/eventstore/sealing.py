"""A log with seals over it, for tests of what they find."""

import random
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Max

from eventstore.database import writing
from eventstore.marker import appended
from eventstore.models import EventRecord
from eventstore.reading import max_position
from eventstore.seals.checkpoints import latest
from eventstore.seals.sealer import SEAL_SECONDS, Sealer
from eventstore.seals.signing import Signer

SIGNER = Signer(b"the seed of the tests' seal key.")
OTHER_SIGNER = Signer(b"the seed of another seal key ...")
STEPS_MAX = 10_000
COLUMNS = (
    *("position", "stream_id", "version", "topic", "data", "at", "event_id", "actor"),
    *("request_id", "causation_id"),
)
#: An exchange as a send leaves it: topic, version, bytes of data, whether its user caused it.
_SEND = (
    ("chatledger.accounts.TokensDebited", 75, True),
    ("chatledger.conversations.MessageSent", 420, True),
    ("chatledger.conversations.ResponseGenerated", 510, False),
)


def fill(count: int, seed: int = 4) -> None:
    """Append events of the shapes and sizes that sends have; the same ones for the same seed."""
    made = random.Random(seed)
    first = max_position() + 1
    accounts = [(UUID(int=made.getrandbits(128), version=4), f"user:{n}") for n in range(20)]
    versions = dict.fromkeys((account for account, _ in accounts), 0)
    rows: list[tuple[Any, ...]] = []
    at = EventRecord.objects.aggregate(last=Max("at"))["last"] or 1_767_225_600_000_000
    position = first
    while len(rows) < count:
        account, actor = made.choice(accounts)
        exchange, request, at = _id(made), _id(made).hex, at + made.randrange(0, 90_000)
        for number, (topic, size, is_users) in enumerate(_SEND):
            stream = account if number == 0 else exchange
            versions[stream] = version = versions.get(stream, 0) + 1
            rows.append(
                (
                    *(position, stored(stream), version, topic, made.randbytes(size), at),
                    *(stored(_id(made)), actor if is_users else "worker", request),
                    None if is_users else stored(_id(made)),
                )
            )
            position += 1
    insert(rows[:count])
    appended.advance(max_position())


def insert(rows: list[tuple[Any, ...]]) -> None:
    """Store rows as they are."""
    with writing(), connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO eventstore_event ({', '.join(COLUMNS)})"
            f" VALUES ({', '.join(['%s'] * len(COLUMNS))})",
            rows,
        )


def stored(value: UUID) -> Any:
    """An id in the form that the database stores."""
    return value.hex if connection.vendor == "sqlite" else value


def _id(made: random.Random) -> UUID:
    return UUID(int=made.getrandbits(128), version=4)


class Steady:
    """A steady clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def seal(signer: Signer = SIGNER) -> None:
    """Seal all that is there, a second a step."""
    clock = Steady()
    sealer = Sealer(signer, clock)
    for _ in range(STEPS_MAX):
        sealer.step()
        clock.now += SEAL_SECONDS
        last = latest()
        if last is None or last.last == max_position():
            return
    raise AssertionError("the sealer does not come to an end")
