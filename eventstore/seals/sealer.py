"""The follower that seals the log: a checkpoint for every thousand events, or for each second."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from django.conf import settings
from django.db import connection

from eventstore.database import writing
from eventstore.marker import appended
from eventstore.reading import clock_now, max_position
from eventstore.seals import merkle
from eventstore.seals.chain import Keys, Stored, newest, page_from
from eventstore.seals.checkpoints import NO_PREVIOUS, Checkpoint
from eventstore.seals.rows import AT, POSITION, Row, has_time, leaf_hashes, read_rows
from eventstore.seals.signing import Signatures, Signer

logger = logging.getLogger(__name__)

#: Events that one checkpoint seals at most; so many are sealed at once.
SEALED_EVENTS_MAX = 1_000
#: How long fewer of them wait for others to share their checkpoint.
SEAL_SECONDS = 1.0
#: Checkpoints of other sealers that one step follows at most.
FOLLOWED_MAX = 1_000


class ChainBroken(Exception):
    """The chain is not one to go on from; the text says why."""


class Sealer:
    """Seals what the chain of checkpoints does not cover yet, from wherever it ends.

    It remembers the newest checkpoint that it wrote or saw, for as long as it runs, and goes on
    only from a chain that still holds it: otherwise whoever can write the database would get a
    chain that was taken apart, and events that were changed, signed anew. Several sealers do no
    harm: a checkpoint's number is written once, and whoever loses that race looks again.
    """

    name = "sealer"

    def __init__(
        self, signer: Signer | None = None, steady_clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signer = signer or Signer(settings.SEAL_KEY)
        self._steady_clock = steady_clock
        self._due = 0.0
        self._sealed = 0
        self._is_behind = False
        self._remembered: Checkpoint | None = None
        self._said = ""

    def step(self) -> bool:
        """Write the next checkpoint if one is due; True when there may be more at once."""
        is_due = self._steady_clock() >= self._due
        is_full = self._is_behind or appended.value >= self._sealed + SEALED_EVENTS_MAX
        if not is_due and not is_full:
            return False
        try:
            before = self._end_of_chain()
        except ChainBroken as broken:
            self._due = self._steady_clock() + SEAL_SECONDS
            self._is_behind = False
            self._complain(str(broken))
            return False
        self._sealed = before.last if before else 0
        rows = read_rows(self._sealed, limit=SEALED_EVENTS_MAX)
        self._is_behind = len(rows) == SEALED_EVENTS_MAX
        if not self._is_behind and not is_due:
            return False
        self._due = self._steady_clock() + SEAL_SECONDS
        leaves = self._leaves(rows)
        self._is_behind = len(leaves) == SEALED_EVENTS_MAX
        if not leaves:
            return False
        checkpoint = self._checkpoint(before, leaves, rows[len(leaves) - 1][AT])
        if not self._write(checkpoint):
            # Another sealer was first: it may have the rest as well.
            self._is_behind = False
            if not page_from(checkpoint.number, 1):
                self._complain(f"checkpoint {checkpoint.number} finds its events sealed by another")
            return False
        self._remembered = checkpoint
        self._sealed += len(leaves)
        return self._is_behind

    def _leaves(self, rows: Sequence[Row]) -> list[bytes]:
        """The leaves of the rows that follow the chain without a gap."""
        leaves: list[bytes] = []
        for position, (row, leaf) in enumerate(
            zip(rows, leaf_hashes(rows), strict=True), self._sealed + 1
        ):
            if row[POSITION] != position or leaf is None or not has_time(row):
                self._complain(f"event {position} is missing or damaged")
                break
            leaves.append(leaf)
        return leaves

    def _end_of_chain(self) -> Checkpoint | None:
        """The newest checkpoint, None before there is one; raises `ChainBroken`.

        Where others have written more than `FOLLOWED_MAX` meanwhile it is one before the newest:
        what is made to follow it loses the race, and the next step comes further.
        """
        stored = newest()
        if self._remembered is not None:
            stored = _followed(self._remembered, stored)
        if stored is None:
            return None
        end = stored.checkpoint
        if not self._signed(stored):
            raise ChainBroken(f"the signature of checkpoint {end.number} does not fit what it says")
        if not end.first <= end.last <= max_position():
            raise ChainBroken(
                f"checkpoint {end.number} seals events up to {end.last}, which are not in the log"
            )
        self._remembered = end
        return end

    def _signed(self, stored: Stored) -> bool:
        """Whether the key that a checkpoint names signed it: ours, or one that the table holds."""
        checkpoint = stored.checkpoint
        if not _is_whole(stored):
            return False
        if checkpoint.key_id != self._signer.key_id:
            return Keys().signed(stored)
        own = Signatures({self._signer.key_id: self._signer.public_key})
        return own.are_of(checkpoint.key_id, checkpoint.message, checkpoint.signature)

    def _complain(self, what: str) -> None:
        """Say once that something is wrong: a seal over it would make it look right."""
        if self._said != what:
            self._said = what
            logger.error(
                "%s: nothing is sealed from there on; see manage.py verify --seals",
                what,
            )

    def _checkpoint(
        self, before: Checkpoint | None, leaves: Sequence[bytes], last_at: int
    ) -> Checkpoint:
        unsigned = Checkpoint(
            number=before.number + 1 if before else 1,
            first=self._sealed + 1,
            last=self._sealed + len(leaves),
            root=merkle.root(leaves),
            leaves=b"".join(leaves),
            previous=before.hash if before else NO_PREVIOUS,
            # No clock that was set back makes it older than what it seals.
            at=max(clock_now(), last_at, before.at if before else 0),
            key_id=self._signer.key_id,
            signature=b"",
        )
        return unsigned.signed(self._signer.sign(unsigned.message))

    def _write(self, checkpoint: Checkpoint) -> bool:
        """Store the checkpoint; False if another sealer was first."""
        began = time.monotonic()
        with writing(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO eventstore_sealkey (id, public_key) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                [self._signer.key_id, self._signer.public_key],
            )
            cursor.execute(
                "INSERT INTO eventstore_checkpoint (number, first, last, root, leaves, previous,"
                " at, key_id, signature) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [getattr(checkpoint, column) for column in Checkpoint.__slots__],
            )
            was_first = bool(cursor.rowcount)
        if connection.vendor == "sqlite":
            # The one write lock stays free for as long as it was held: whoever sends goes first.
            time.sleep(time.monotonic() - began)
        return was_first


def _followed(known: Checkpoint, end: Stored | None) -> Stored:
    """The end of the chain, reached from hash to hash; raises `ChainBroken`."""
    if end is None or end.checkpoint.number < known.number:
        raise ChainBroken(f"checkpoint {known.number}, the newest one that was there, is gone")
    page = [
        stored
        for stored in page_from(known.number, 1 + FOLLOWED_MAX)
        if stored.checkpoint.number <= end.checkpoint.number
    ]
    if not page or not _is_whole(page[0]) or page[0].checkpoint.hash != known.hash:
        raise ChainBroken(f"checkpoint {known.number} is not the one that was there")
    for before, after in pairwise(page):
        if (
            not _is_whole(after)
            or after.checkpoint.number != before.checkpoint.number + 1
            or after.checkpoint.previous != before.checkpoint.hash
            or after.checkpoint.first != before.checkpoint.last + 1
        ):
            raise ChainBroken(
                f"checkpoint {after.checkpoint.number} does not follow"
                f" checkpoint {before.checkpoint.number}"
            )
    return page[-1]


def _is_whole(stored: Stored) -> bool:
    """Whether all that is signed is in the form that is stored."""
    return not stored.malformed - {"leaves"}
