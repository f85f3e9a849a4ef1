"""The lines of a dump, typed, and the tables that they come from and go to."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

FORMAT = "chatledger-dump"
VERSION = 1

#: The longest line that is read: some megabytes of response, base64 twice over, and then much more.
LINE_BYTES_MAX = 64 * 1024 * 1024

#: What scrypt may be asked for by a dump: 1 GiB of memory at most.
SCRYPT_N_MAX, SCRYPT_R_MAX, SCRYPT_P_MAX = 2**20, 8, 4

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Row(Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """One row of a table: its fields are the table's columns."""


class SealKeyRow(Row, frozen=True, tag="seal_key"):
    id: str
    public_key: bytes


class DataKeyRow(Row, frozen=True, tag="data_key"):
    id: UUID
    wrapped_by: UUID | None
    wrapped: bytes | None


class CredentialRow(Row, frozen=True, tag="credential"):
    user_id: UUID
    claim_id: UUID
    password_hash: str
    jwt_epoch: Int32
    active: bool
    role: str


class EventRow(Row, frozen=True, tag="event"):
    position: Int64
    stream_id: UUID
    version: Int32
    topic: str
    data: bytes
    at: Int64
    event_id: UUID
    actor: str
    request_id: str
    causation_id: UUID | None


class CheckpointRow(Row, frozen=True, tag="checkpoint"):
    number: Int64
    first: Int64
    last: Int64
    root: bytes
    leaves: bytes
    previous: bytes
    at: Int64
    key_id: str
    signature: bytes


class Counts(Struct, frozen=True, forbid_unknown_fields=True):
    """How many lines there are of each kind."""

    seal_keys: Count
    data_keys: Count
    credentials: Count
    events: Count
    checkpoints: Count


class ForDataKey(Struct, frozen=True, tag_field="key", tag="data_key", forbid_unknown_fields=True):
    """The top-level keys are wrapped for the `DATA_KEY` of whoever loads them."""


class ForPassphrase(
    Struct, frozen=True, tag_field="key", tag="passphrase", forbid_unknown_fields=True
):
    """The top-level keys are wrapped for what scrypt makes of a passphrase."""

    kdf: Literal["scrypt"]
    n: Annotated[int, Meta(ge=2, le=SCRYPT_N_MAX)]
    r: Annotated[int, Meta(ge=1, le=SCRYPT_R_MAX)]
    p: Annotated[int, Meta(ge=1, le=SCRYPT_P_MAX)]
    salt: Annotated[bytes, Meta(min_length=16, max_length=64)]


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    format: str
    version: int
    wrapped_for: ForDataKey | ForPassphrase
    counts: Counts
    last_position: Count
    #: The last checkpoint as the API and head files show it.
    head: dict[str, Any] | None


class End(Struct, frozen=True, tag_field="kind", tag="end", forbid_unknown_fields=True):
    """The last line."""

    counts: Counts
    sha256: str


@dataclass(frozen=True)
class Table:
    """A table of the log, its first column the key that it is read by."""

    name: str
    row: type[Row]
    #: PostgreSQL's types of the columns, in their order.
    types: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.row.__struct_fields__

    @property
    def counted_as(self) -> str:
        return f"{self.row.__struct_config__.tag}s"


_TYPES = {UUID: "uuid", bytes: "bytea", str: "text", bool: "bool", Int32: "int4", Int64: "int8"}


def _type(hint: Any) -> str:
    return _TYPES[hint] if hint in _TYPES else _TYPES[get_args(hint)[0]]


#: In the order in which they stand in a dump.
TABLES = tuple(
    Table(name, row, tuple(_type(field.type) for field in msgspec.structs.fields(row)))
    for name, row in (
        ("eventstore_sealkey", SealKeyRow),
        ("eventstore_datakey", DataKeyRow),
        ("accounts_credential", CredentialRow),
        ("eventstore_event", EventRow),
        ("eventstore_checkpoint", CheckpointRow),
    )
)

Line = SealKeyRow | DataKeyRow | CredentialRow | EventRow | CheckpointRow | End

decode_header = msgspec.json.Decoder(Header).decode
decode_line = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def encode_line(line: Struct) -> bytes:
    """A line as it stands in a dump."""
    return _encode(line) + b"\n"
