"""The keys on their way: wrapped for the `DATA_KEY` of another installation, or for a passphrase.

Only the keys that the operator's `DATA_KEY` wraps change: a user's, and the names'. Those of
conversations are wrapped by their users' and travel as they are.
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from dotenv import dotenv_values
from msgspec.structs import replace

from audit.dumps.errors import DumpDamaged, DumpRefused
from audit.dumps.lines import DataKeyRow, ForDataKey, ForPassphrase
from eventstore import keys

#: 128 MiB and a third of a second for each guess at a passphrase.
SCRYPT_N, SCRYPT_R, SCRYPT_P, SALT_BYTES = 2**17, 8, 1, 32

PASSPHRASE_BYTES_MIN = 12
PASSPHRASE_BYTES_MAX = 1024

#: A row of a data key, as it is here, to one as it is there.
Rewrap = Callable[[DataKeyRow], DataKeyRow]


@dataclass(frozen=True)
class Wrapping:
    """What the header says of the keys, and what makes them so."""

    wrapped_for: ForDataKey | ForPassphrase
    rewrap: Rewrap


def as_they_are() -> Wrapping:
    """For an installation that has the same `DATA_KEY`."""
    return Wrapping(ForDataKey(), lambda row: row)


def for_data_key(file: Path) -> Wrapping:
    """For the installation whose keys are in this file. Raises `DumpRefused`."""
    return Wrapping(ForDataKey(), _to(_data_key_in(file)))


def for_passphrase(file: Path) -> Wrapping:
    """For whoever knows the passphrase in this file. Raises `DumpRefused`."""
    how = ForPassphrase("scrypt", SCRYPT_N, SCRYPT_R, SCRYPT_P, os.urandom(SALT_BYTES))
    return Wrapping(how, _to(_derived(read_passphrase(file), how)))


def unwrapping(wrapped_for: ForDataKey | ForPassphrase, passphrase: bytes | None) -> Rewrap:
    """What makes the keys of a dump this installation's own, or raises `DumpRefused`."""
    own = keys.wrapping_keys()
    if not own:
        raise DumpRefused("DATA_KEY is missing: the keys of a dump are kept under it")
    if isinstance(wrapped_for, ForDataKey):
        if passphrase is not None:
            raise DumpRefused(
                "the keys of this dump are wrapped for a DATA_KEY: leave --passphrase-file out"
            )
        return _checked(own)
    if passphrase is None:
        raise DumpRefused("the keys of this dump are wrapped for a passphrase: --passphrase-file")
    derived = _derived(passphrase, wrapped_for)
    return _changed(
        [derived],
        own[0],
        "the passphrase does not open this dump's keys: is it the one it was made with?",
    )


def read_passphrase(file: Path) -> bytes:
    """The passphrase in a file, without the line's end. Raises `DumpRefused`."""
    try:
        with file.open("rb") as opened:
            passphrase = opened.read(PASSPHRASE_BYTES_MAX + 3).rstrip(b"\r\n")
    except OSError as error:
        raise DumpRefused(f"the passphrase cannot be read: {error}") from error
    if not PASSPHRASE_BYTES_MIN <= len(passphrase) <= PASSPHRASE_BYTES_MAX or b"\n" in passphrase:
        raise DumpRefused(
            f"the passphrase in {file} is refused; allowed: one line of {PASSPHRASE_BYTES_MIN} to "
            f"{PASSPHRASE_BYTES_MAX} bytes"
        )
    return passphrase


def _to(wrap_for: bytes) -> Rewrap:
    return _changed(
        keys.wrapping_keys(),
        wrap_for,
        "DATA_KEY does not open this log's keys: is it the one that the log began with?",
    )


def _changed(opened_by: list[bytes], wrap_for: bytes, refusal: str) -> Rewrap:
    def rewrap(row: DataKeyRow) -> DataKeyRow:
        if row.wrapped_by is not None or row.wrapped is None:
            return row
        try:
            wrapped = keys.rewrap(
                bytes(row.wrapped), row.id, opened_by=opened_by, wrap_for=wrap_for
            )
        except keys.KeyUnreadable:
            raise DumpRefused(refusal) from None
        return replace(row, wrapped=wrapped)

    return rewrap


def _checked(own: list[bytes]) -> Rewrap:
    def check(row: DataKeyRow) -> DataKeyRow:
        if row.wrapped_by is None and row.wrapped is not None:
            _require_opens(own, row.id, row.wrapped)
        return row

    return check


def _require_opens(own: list[bytes], key_id: UUID, wrapped: bytes) -> None:
    if not any(keys.is_wrapped_by(key, wrapped, key_id) for key in own):
        raise DumpRefused(
            "DATA_KEY does not open this dump's keys: give this installation the DATA_KEY that "
            "they are wrapped by, or make the dump with --data-key-file or --passphrase-file"
        )


def _derived(passphrase: bytes, how: ForPassphrase) -> bytes:
    try:
        kdf = Scrypt(salt=how.salt, length=keys.KEY_BYTES, n=how.n, r=how.r, p=how.p)
    except ValueError as error:
        raise DumpDamaged(f"the dump is altered: scrypt cannot be used so: {error}") from error
    return kdf.derive(passphrase)


def _data_key_in(file: Path) -> bytes:
    try:
        with file.open(encoding="utf-8") as opened:
            text = dotenv_values(stream=opened, interpolate=False).get("DATA_KEY")
    except (OSError, UnicodeDecodeError) as error:
        raise DumpRefused(f"the file of the data key cannot be read: {error}") from error
    if not text:
        raise DumpRefused(f"{file} has no DATA_KEY; allowed: a file as make_keys writes it")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != keys.KEY_BYTES:
        raise DumpRefused(
            f"DATA_KEY in {file} is refused; allowed: {keys.KEY_BYTES} random bytes in base64url, "
            "as make_keys writes them"
        )
    return key
