"""Rotating `DATA_KEY`: what the key before it wraps gets wrapped by it, and the log says so."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection

from eventstore import keys
from eventstore.cause import Cause
from eventstore.domain import Aggregate, Created
from eventstore.log import event_log, transaction_with_log
from eventstore.reading import as_uuid, id_parameter

#: Keys that one transaction looks at; appends wait while it lasts.
BATCH_KEYS = 500

#: Told how many keys have been looked at.
Report = Callable[[int], None]


class Rewrapping(Aggregate):
    """One batch of keys that were rewrapped; a stream of one event."""


@dataclass(frozen=True, kw_only=True)
class KeysRewrapped(Created, topic="chatledger.keys.KeysRewrapped"):
    """Keys that `DATA_KEY_PREVIOUS` wrapped are wrapped by `DATA_KEY`; nothing else changed."""

    aggregate_class = Rewrapping

    keys: int


def rewrap_keys(cause: Cause, report: Report = lambda looked_at: None) -> int:
    """Wrap by `DATA_KEY` what `DATA_KEY_PREVIOUS` wraps, and return how many keys that were.

    A batch is rewrapped and recorded, or neither; whoever is interrupted begins again and finds
    less to do. Raises `KeyUnreadable` for a key that neither wraps.
    """
    after, looked_at, rewrapped = None, 0, 0
    while True:
        with transaction_with_log():
            # Under the lock nobody destroys a key between the look at it and its writing.
            batch = _top_level_keys(after)
            if not batch:
                return rewrapped
            changed = [(wrapped, key_id) for key_id, old in batch if (wrapped := _new(key_id, old))]
            if changed:
                _store(changed)
                record = Rewrapping.begin(KeysRewrapped, uuid4(), keys=len(changed))
                event_log().append(record, cause=cause)
        after = batch[-1][0]
        looked_at += len(batch)
        rewrapped += len(changed)
        report(looked_at)


def _new(key_id: UUID, wrapped: bytes) -> bytes | None:
    """The key wrapped by `DATA_KEY`, None when it is already."""
    if keys.is_wrapped_by(settings.DATA_KEY, wrapped, key_id):
        return None
    try:
        return keys.rewrap(
            wrapped, key_id, opened_by=keys.wrapping_keys(), wrap_for=settings.DATA_KEY
        )
    except keys.KeyUnreadable:
        raise keys.KeyUnreadable(
            f"neither DATA_KEY nor DATA_KEY_PREVIOUS opens key {key_id}"
        ) from None


def _top_level_keys(after: UUID | None) -> list[tuple[UUID, bytes]]:
    behind, parameters = ("", []) if after is None else (" AND id > %s", [id_parameter(after)])
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, wrapped FROM eventstore_datakey"  # noqa: S608 (constants)
            f" WHERE wrapped_by IS NULL AND wrapped IS NOT NULL{behind} ORDER BY id LIMIT %s",
            [*parameters, BATCH_KEYS],
        )
        return [(as_uuid(key_id), bytes(wrapped)) for key_id, wrapped in cursor.fetchall()]


def _store(changed: list[tuple[bytes, UUID]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE eventstore_datakey SET wrapped = %s WHERE id = %s AND wrapped IS NOT NULL",
            [(wrapped, id_parameter(key_id)) for wrapped, key_id in changed],
        )
