"""Statements of the hot path, executed by the database's own driver.

What Django's cursor, and psycopg's, do around a statement takes as long as the server takes for
most of these (`docs/decisions/0034`). On PostgreSQL each is prepared once a connection, what is the
same each time is kept, and what is left is one call of libpq's.
"""

import struct
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.postgres import types

Value = UUID | bytes | str | int | bool | None
Row = tuple[Any, ...]

#: Statements that a connection keeps; one more takes the place of the oldest.
STATEMENTS_MAX = 100


class _Statement(NamedTuple):
    """A statement as a connection knows it, and what reads its rows."""

    name: bytes
    reader: Any


_known: "WeakKeyDictionary[Any, dict[str, _Statement]]" = WeakKeyDictionary()
_numbers = count(1)


def execute(sql: str, values: Sequence[Value] = ()) -> list[Row]:
    """Execute a statement on this thread's connection, and return its rows.

    `%s` stands for a value, whose type the statement says or shows. For PostgreSQL, bytes are in
    the server's own form: a bytea, or an `array`. Raises what Django raises.
    """
    own = connections[DEFAULT_DB_ALIAS]
    own.ensure_connection()
    if own.queries_logged:
        own.queries_log.append({"sql": sql, "time": "not taken"})
    with own.wrap_database_errors:
        if own.vendor == "postgresql":
            return _by_libpq(own.connection, sql, values)
        stored = [value.hex if type(value) is UUID else value for value in values]
        rows: list[Row] = own.connection.execute(sql.replace("%s", "?"), stored).fetchall()
        return rows


def array(kind: str, elements: Collection[Any]) -> bytes:
    """The elements as the server's own form of an array of `kind`: int, uuid, text or bytea."""
    oid, packed = _ELEMENTS[kind]
    parts = [_HEAD.pack(1, 1, oid, len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_NULL)
        else:
            bytes_of_it = packed(element)
            parts += _LENGTH(len(bytes_of_it)), bytes_of_it
    return b"".join(parts)


def _by_libpq(raw: Any, sql: str, values: Sequence[Value]) -> list[Row]:
    sent = [None if value is None else _SENT[type(value)](value) for value in values]
    in_binary = [type(value) is bytes for value in values]
    if not raw.autocommit:
        return _in_transaction(raw, sql, sent, in_binary)
    known = _known.setdefault(raw, {})
    name, reader = known.get(sql) or _prepare(raw, known, sql)
    result = raw.pgconn.exec_prepared(name, sent, in_binary, pq.Format.BINARY)
    if result.error_field(pq.DiagnosticField.SQLSTATE) == _NOT_PREPARED:
        # The driver has the server forget all statements now and then, as after a rollback.
        known.clear()
        name, reader = _prepare(raw, known, sql)
        result = raw.pgconn.exec_prepared(name, sent, in_binary, pq.Format.BINARY)
    _raise_if_failed(raw, result)
    reader.set_pgresult(result, set_loaders=False)
    rows: list[Row] = reader.load_rows(0, result.ntuples, tuple)
    # Or the last result would be held until the next one comes.
    reader.set_pgresult(None, set_loaders=False)
    return rows


def _in_transaction(
    raw: Any, sql: str, sent: Sequence[bytes | None], in_binary: Sequence[bool]
) -> list[Row]:
    """The same where a statement that the server has forgotten would take more along with it."""
    if raw.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        # The driver begins a transaction with the first statement of its own.
        raw.execute("SELECT")
    result = raw.pgconn.exec_params(_numbered(sql), sent, None, in_binary, pq.Format.BINARY)
    _raise_if_failed(raw, result)
    reader = Transformer(raw.adapters)
    reader.set_pgresult(result, format=pq.Format.BINARY)
    return reader.load_rows(0, result.ntuples, tuple)


def _prepare(raw: Any, known: dict[str, _Statement], sql: str) -> _Statement:
    if len(known) >= STATEMENTS_MAX:
        oldest = known.pop(next(iter(known)))
        raw.pgconn.exec_(b"DEALLOCATE " + oldest.name)
    name = b"chatledger_%d" % next(_numbers)
    _raise_if_failed(raw, raw.pgconn.prepare(name, _numbered(sql)))
    described = raw.pgconn.describe_prepared(name)
    _raise_if_failed(raw, described)
    # Of the adapters alone: with the connection in its hand it would keep that alive.
    reader = Transformer(raw.adapters)
    reader.set_pgresult(described, format=pq.Format.BINARY)
    statement = known[sql] = _Statement(name, reader)
    return statement


def _numbered(sql: str) -> bytes:
    first, *rest = sql.split("%s")
    marked = [f"${number}{part}" for number, part in enumerate(rest, 1)]
    return "".join([first, *marked]).encode()


def _raise_if_failed(raw: Any, result: Any) -> None:
    if result.status in _DONE:
        return
    if raw.pgconn.status == pq.ConnStatus.BAD:
        raise psycopg.OperationalError(result.get_error_message())
    raise psycopg.errors.error_from_result(result)


def _without_end(text: str) -> str:
    # libpq would take it for the end of the text and leave the rest away.
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL's texts cannot hold a NUL (0x00)")
    return text


#: SQLSTATE of `invalid_sql_statement_name`.
_NOT_PREPARED = b"26000"
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

#: How a value is sent. All but bytes are text, which the server reads as the type that it expects.
_SENT: dict[type, Callable[[Any], bytes]] = {
    UUID: lambda value: value.hex.encode(),
    bytes: bytes,
    str: lambda value: _without_end(value).encode(),
    int: b"%d".__mod__,
    bool: lambda value: b"t" if value else b"f",
}

# https://www.postgresql.org/docs/current/protocol.html says nothing of the binary forms; they are
# those of the server's own *_recv functions (array_recv: dimensions, whether there are nulls, the
# elements' type, and of the dimension its length and first index).
_HEAD = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i").pack
_NULL = _LENGTH(-1)
_ELEMENTS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "int": (types["int4"].oid, _LENGTH),
    "uuid": (types["uuid"].oid, lambda value: value.bytes),
    "text": (types["text"].oid, str.encode),
    "bytea": (types["bytea"].oid, bytes),
}
