"""The keys of personal text: a user's, wrapped by `DATA_KEY`; a conversation's, by its user's.

Destroying a key is how text is erased. So "destroyed" and "cannot be read now" are two answers
here: the first reads as `[erased]` for ever, the second is an error.
"""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from uuid import NAMESPACE_URL, UUID, uuid5

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q

from eventstore.database import writing
from eventstore.encrypted import NONCE_BYTES, EncryptedText
from eventstore.models import DataKey, Destruction
from eventstore.reading import as_uuid, clock_now, id_parameter

#: What stands for a text whose key has been destroyed.
ERASED = "[erased]"

KEY_BYTES = 32
#: How long an unwrapped key stays in memory, and how many.
CACHED_SECONDS = 10.0
CACHED_MAX = 10_000

#: Where PostgreSQL announces that a key was destroyed: whoever hears it forgets what it remembers.
DESTROYED_CHANNEL = "chatledger_destroyed"

#: The key of the names' HMAC: made once, never rotated, or names could be given out twice.
NAMES_KEY_ID = uuid5(NAMESPACE_URL, "chatledger:names")


class KeyDestroyed(Exception):
    """The key was destroyed: what it encrypted is gone for ever."""


class KeyUnreadable(Exception):
    """The key is not there or does not open what it should: a mistake or damage, no erasure."""


class WrongDataKey(KeyUnreadable):
    """`DATA_KEY` does not open a key that it should have wrapped: a mistake of settings."""


def create_key(key_id: UUID, *, wrapped_by: UUID | None = None) -> None:
    """Make a key and store it wrapped, in the caller's transaction."""
    DataKey.objects.create(
        id=key_id, wrapped_by=wrapped_by, wrapped=_wrap(os.urandom(KEY_BYTES), key_id, wrapped_by)
    )


def destroy(key_id: UUID, *, user_id: UUID) -> None:
    """Destroy a key in the caller's transaction: what it encrypted reads `[erased]` from then on.

    Its row stays, so that "destroyed" and "not found" are two answers. Other processes are told,
    and one that misses the word remembers the key for `CACHED_SECONDS`. Its bytes leave the files
    of the database soon after, and a file of erasures names it (`privacy.destructions`).
    """
    DataKey.objects.filter(id=key_id).update(wrapped=None)
    _note_destroyed(key_id, user_id, [key_id])


def destroy_user(user_id: UUID) -> None:
    """Destroy a user's key and those of all their conversations; see `destroy`."""
    of_user = [user_id, *wrapped_by(user_id)]
    DataKey.objects.filter(Q(id=user_id) | Q(wrapped_by=user_id)).update(wrapped=None)
    _note_destroyed(user_id, user_id, of_user)


def wrapped_by(user_id: UUID) -> list[UUID]:
    """The conversations of a user that have a key: all that were not deleted."""
    keys = DataKey.objects.filter(wrapped_by=user_id, wrapped__isnull=False)
    return list(keys.values_list("id", flat=True))


def cipher(key_id: UUID) -> AESGCM:
    """The cipher of a key. Raises `KeyDestroyed` or `KeyUnreadable`."""
    return _cache.get(key_id) or _open([key_id])[key_id]


def read_text(packed: bytes | None) -> str | None:
    """One text of a read model, decrypted."""
    return read_texts([packed])[0]


def read_texts(packed: Sequence[bytes | None]) -> list[str | None]:
    """A page of texts of a read model, decrypted; keys that are not at hand come in one query."""
    texts = [None if each is None else EncryptedText.unpack(bytes(each)) for each in packed]
    return decrypt_all(texts)


def decrypt_all(texts: Sequence[EncryptedText | None]) -> list[str | None]:
    """Decrypt texts; one whose key was destroyed reads `[erased]`."""
    ciphers = _ciphers({text.key_id for text in texts if text is not None})
    return [None if text is None else _decrypt(text, ciphers[text.key_id]) for text in texts]


def names_key() -> bytes:
    """The secret of the names' HMAC; made when it is first asked for."""
    secret = _cache.names_key
    if secret is None:
        if not DataKey.objects.filter(id=NAMES_KEY_ID).exists():
            wrapped = _wrap(os.urandom(KEY_BYTES), NAMES_KEY_ID, None)
            with writing():
                # Of two processes that come here together, one makes the key and both read it.
                DataKey.objects.bulk_create(
                    [DataKey(id=NAMES_KEY_ID, wrapped=wrapped)], ignore_conflicts=True
                )
        row = DataKey.objects.get(id=NAMES_KEY_ID)
        secret = _cache.names_key = _unwrap(bytes(row.wrapped or b""), NAMES_KEY_ID, None)
    return secret


def check_data_key() -> None:
    """Raise `WrongDataKey` when `DATA_KEY` is not the one that this log's keys are wrapped by."""
    row = DataKey.objects.filter(wrapped_by=None, wrapped__isnull=False).order_by("id").first()
    if row is not None:
        _unwrap(bytes(row.wrapped or b""), row.id, None)


def wrapping_keys() -> list[bytes]:
    """The keys that may wrap this log's top-level keys: `DATA_KEY`, and the one before it."""
    known = (getattr(settings, name, None) for name in ("DATA_KEY", "DATA_KEY_PREVIOUS"))
    return [key for key in known if key]


def is_wrapped_by(wrapping_key: bytes, wrapped: bytes, key_id: UUID) -> bool:
    """Whether this key wraps that one."""
    return _opened(wrapping_key, wrapped, key_id) is not None


def rewrap(wrapped: bytes, key_id: UUID, *, opened_by: Iterable[bytes], wrap_for: bytes) -> bytes:
    """The same key, wrapped by another one. Raises `KeyUnreadable` if none of `opened_by` fits."""
    for wrapping_key in opened_by:
        secret = _opened(wrapping_key, wrapped, key_id)
        if secret is not None:
            nonce = os.urandom(NONCE_BYTES)
            return nonce + AESGCM(wrap_for).encrypt(nonce, secret, key_id.bytes)
    raise KeyUnreadable(f"key {key_id} is wrapped by another key")


def forget() -> None:
    """Drop every unwrapped key from this process's memory."""
    _cache.clear()


def _note_destroyed(key_id: UUID, user_id: UUID, unwrapped: Sequence[UUID]) -> None:
    # A key that was destroyed before, in a log that was restored since, is noted anew.
    Destruction.objects.update_or_create(
        key_id=key_id, defaults={"user_id": user_id, "at": clock_now()}
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [DESTROYED_CHANNEL])
    # At once, since the answer to a commit can be lost; and again after it, since whoever read the
    # row before may take long to remember it.
    _cache.drop(unwrapped)
    transaction.on_commit(partial(_cache.drop, unwrapped))


def _decrypt(text: EncryptedText, cipher: AESGCM | None) -> str:
    if cipher is None:
        return ERASED
    try:
        return text.decrypt(cipher)
    except InvalidTag:
        raise KeyUnreadable(f"key {text.key_id} does not open {text.topic}.{text.field}") from None


def _ciphers(key_ids: Iterable[UUID]) -> dict[UUID, AESGCM | None]:
    found: dict[UUID, AESGCM | None] = {}
    missing = []
    for key_id in key_ids:
        if cached := _cache.get(key_id):
            found[key_id] = cached
        else:
            missing.append(key_id)
    if missing:
        found.update(_open(missing, destroyed_ok=True))
    return found


def _open(key_ids: list[UUID], *, destroyed_ok: bool = False) -> dict[UUID, AESGCM]:
    """Read and unwrap keys with the keys that wrap them, in one query."""
    with connection.cursor() as cursor:
        placeholders = ", ".join(["%s"] * len(key_ids))
        cursor.execute(
            "SELECT k.id, k.wrapped_by, k.wrapped, w.wrapped FROM eventstore_datakey k"  # noqa: S608
            " LEFT JOIN eventstore_datakey w ON w.id = k.wrapped_by"
            f" WHERE k.id IN ({placeholders})",
            list(map(id_parameter, key_ids)),
        )
        rows = cursor.fetchall()
    opened: dict[UUID, AESGCM] = {}
    for raw_id, raw_wrapped_by, wrapped, wrapper in rows:
        key_id = as_uuid(raw_id)
        wrapped_by = None if raw_wrapped_by is None else as_uuid(raw_wrapped_by)
        if wrapped is None or (wrapped_by is not None and wrapper is None):
            if not destroyed_ok:
                raise KeyDestroyed(str(key_id))
            opened[key_id] = None  # type: ignore[assignment]  # None stands for destroyed
            continue
        outer = None if wrapped_by is None else _unwrap(wrapper, wrapped_by, None)
        opened[key_id] = AESGCM(_unwrap(wrapped, key_id, outer))
        _cache.put(key_id, opened[key_id])
    for key_id in key_ids:
        if key_id not in opened:
            raise KeyUnreadable(f"there is no key {key_id}")
    return opened


def _wrap(secret: bytes, key_id: UUID, wrapped_by: UUID | None) -> bytes:
    outer = AESGCM(settings.DATA_KEY) if wrapped_by is None else cipher(wrapped_by)
    nonce = os.urandom(NONCE_BYTES)
    return nonce + outer.encrypt(nonce, secret, key_id.bytes)


def _unwrap(wrapped: bytes, key_id: UUID, outer: bytes | None) -> bytes:
    wrapped = bytes(wrapped)
    candidates = [outer] if outer else [settings.DATA_KEY, settings.DATA_KEY_PREVIOUS]
    for candidate in candidates:
        if candidate:
            try:
                return AESGCM(candidate).decrypt(
                    wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], key_id.bytes
                )
            except InvalidTag:
                continue
    if outer:
        raise KeyUnreadable(f"the key of its user does not open key {key_id}")
    raise WrongDataKey(f"DATA_KEY does not open key {key_id}: is it the one this log began with?")


def _opened(wrapping_key: bytes, wrapped: bytes, key_id: UUID) -> bytes | None:
    try:
        return AESGCM(wrapping_key).decrypt(
            wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], key_id.bytes
        )
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce
        return None


class _Cache:
    """Unwrapped keys, for seconds."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # None stands for a key that is being destroyed: nobody may remember it now.
        self._entries: dict[UUID, tuple[float, AESGCM | None]] = {}
        self.names_key: bytes | None = None

    def get(self, key_id: UUID) -> AESGCM | None:
        entry = self._entries.get(key_id)
        return entry[1] if entry and entry[0] > time.monotonic() else None

    def put(self, key_id: UUID, opened: AESGCM) -> None:
        now = time.monotonic()
        with self._guard:
            until, known = self._entries.get(key_id, (0.0, None))
            if known is None and until > now:
                return
            if len(self._entries) >= CACHED_MAX:
                self._entries.clear()
            self._entries[key_id] = (now + CACHED_SECONDS, opened)

    def drop(self, key_ids: Iterable[UUID]) -> None:
        until = time.monotonic() + CACHED_SECONDS
        with self._guard:
            self._entries.update((key_id, (until, None)) for key_id in key_ids)

    def clear(self) -> None:
        with self._guard:
            self._entries.clear()
            self.names_key = None


_cache = _Cache()
