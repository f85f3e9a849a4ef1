"""Secret keys: how they are made, what is refused, and the file that keeps them."""

import base64
import binascii
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from dotenv import dotenv_values

KEY_BYTES = 32
KEY_ALLOWED = f"{KEY_BYTES} random bytes in base64url, as `python manage.py make_keys` writes them"
FILE_MODE = 0o600

# Thirty-two random bytes hold about 30 different ones; fewer than 16 come once in 10^17 keys.
_DIFFERENT_BYTES_MIN = 16
_EXAMPLE_WORDS = ("example", "changeme", "change-me", "change_me", "insecure", "password")


def new_key() -> str:
    """Return 32 random bytes in base64url, without padding."""
    return secrets.token_urlsafe(KEY_BYTES)


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a key, or raise `ValueError` without repeating the key."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64url") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"it holds {len(key)} bytes")
    if _looks_made_up(text, key):
        raise ValueError("it is an example or otherwise easy to guess")
    return key


def read_keys(path: Path) -> dict[str, str]:
    """Return the names and values in a key file; none when there is no file."""
    if not path.exists():
        return {}
    values = dotenv_values(path, interpolate=False, encoding="utf-8")
    return {name: value for name, value in values.items() if value}


def add_missing_keys(path: Path, names: Iterable[str]) -> list[str]:
    """Add a new key for each name that the file lacks, and return the names that were added.

    Readers see the file before or after, never a part of it; of several processes that start
    together one makes the keys and the others find them. The file has mode 0600 from its first
    byte on.
    """
    path = path.resolve()
    with locked(path.parent):
        present = read_keys(path)
        added = [name for name in names if name not in present]
        if added:
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            if before and not before.endswith("\n"):
                before += "\n"
            _replace(path, before + "".join(f"{name}={new_key()}\n" for name in added))
    return added


def _looks_made_up(text: str, key: bytes) -> bool:
    lowered = text.lower()
    return (
        len(set(key)) < _DIFFERENT_BYTES_MIN
        or len({(after - before) % 256 for before, after in pairwise(key)}) == 1
        or all(0x20 <= byte < 0x7F for byte in key)
        or any(word in lowered for word in _EXAMPLE_WORDS)
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it if this process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Put the text in the file's place in one step, on disk before it is visible."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
