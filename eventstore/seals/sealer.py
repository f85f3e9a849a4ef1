"""The follower that seals the log: a checkpoint for every thousand events, or for each second."""

import logging
import time
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import connection

from eventstore.database import writing
from eventstore.marker import appended
from eventstore.reading import clock_now
from eventstore.seals import merkle
from eventstore.seals.checkpoints import NO_PREVIOUS, Checkpoint, checkpoints_before
from eventstore.seals.rows import AT, POSITION, Row, leaf_hashes, read_rows
from eventstore.seals.signing import Signer

logger = logging.getLogger(__name__)

#: Events that one checkpoint seals at most; so many are sealed at once.
SEALED_EVENTS_MAX = 1_000
#: How long fewer of them wait for others to share their checkpoint.
SEAL_SECONDS = 1.0


class Sealer:
    """Seals what the chain of checkpoints does not cover yet, from wherever it ends.

    It remembers nothing of the chain, so several sealers do no harm: a checkpoint's number is
    written once, and whoever loses that race looks again.
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
        self._stuck_at: int | None = None

    def step(self) -> bool:
        """Write the next checkpoint if one is due; True when there may be more at once."""
        is_due = self._steady_clock() >= self._due
        is_full = self._is_behind or appended.value >= self._sealed + SEALED_EVENTS_MAX
        if not is_due and not is_full:
            return False
        before = next(iter(checkpoints_before(None, 1)), None)
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
        if not self._write(self._checkpoint(before, leaves, rows[len(leaves) - 1][AT])):
            # Another sealer was first: it may have the rest as well.
            self._is_behind = False
            return False
        self._sealed += len(leaves)
        return self._is_behind

    def _leaves(self, rows: Sequence[Row]) -> list[bytes]:
        """The leaves of the rows that follow the chain without a gap."""
        leaves: list[bytes] = []
        for position, (row, leaf) in enumerate(
            zip(rows, leaf_hashes(rows), strict=True), self._sealed + 1
        ):
            if row[POSITION] != position or leaf is None:
                self._complain(position)
                break
            leaves.append(leaf)
        return leaves

    def _complain(self, position: int) -> None:
        """Say once that something is wrong: a seal over it would make it look right."""
        if self._stuck_at != position:
            self._stuck_at = position
            logger.error(
                "event %d is missing or damaged: nothing is sealed from there on; "
                "see manage.py verify --seals",
                position,
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
