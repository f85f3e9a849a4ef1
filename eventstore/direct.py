"""Statements of the hot path, executed by the database's own driver.

What Django's cursor, and psycopg's, do around a statement takes as long as the server takes for
most of these (`docs/decisions/0034`). On PostgreSQL each is prepared once a connection, what is the
same each time is kept, and what is left is what libpq itself needs.
"""

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg import generators, pq
from psycopg.adapt import Transformer
from psycopg.postgres import types

Value = UUID | bytes | str | int | bool | None
Row = tuple[Any, ...]

#: Statements that a connection keeps; one more takes the place of the oldest.
STATEMENTS_MAX = 100


@dataclass(slots=True)
class _Statement:
    """A statement as a connection knows it; what reads its rows is known with the first of them."""

    name: bytes
    marks: int
    reader: Any = None


#: By connection, and each connection's by their words, the one that was used last at the end.
_known: "WeakKeyDictionary[Any, dict[str, _Statement]]" = WeakKeyDictionary()
_numbers = count(1)


def execute(sql: str, values: Sequence[Value] = ()) -> list[Row]:
    """Execute a statement on this thread's connection, and return its rows.

    `%s` stands for a value, whose type the statement says or shows. For PostgreSQL, bytes are in
    the server's own form: a bytea, or an `array`. Raises what Django raises, and `TypeError` for
    values that it does not know, or too many or too few of them.
    """
    own = connections[DEFAULT_DB_ALIAS]
    own.ensure_connection()
    if own.needs_rollback:
        own.validate_no_broken_transaction()
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
    sent = [None if value is None else _sent(value) for value in values]
    in_binary = [type(value) is bytes for value in values]
    if not raw.autocommit:
        return _in_transaction(raw, sql, sent, in_binary)
    known = _known.setdefault(raw, {})
    statement = known.pop(sql, None) or _prepare(raw, known, sql)
    known[sql] = statement
    _check(statement.marks, sent)
    result = _run(raw, raw.pgconn.send_query_prepared, statement.name, sent, in_binary, _BINARY)
    if result.error_field(pq.DiagnosticField.SQLSTATE) in _TO_PREPARE_AGAIN:
        # The driver has the server forget all statements now and then, as after a rollback.
        known.clear()
        statement = known[sql] = _prepare(raw, known, sql)
        result = _run(raw, raw.pgconn.send_query_prepared, statement.name, sent, in_binary, _BINARY)
    _raise_if_failed(result)
    if statement.reader is None:
        statement.reader = _reader(raw, result)
    return _rows(statement.reader, result)


def _in_transaction(
    raw: Any, sql: str, sent: Sequence[bytes | None], in_binary: Sequence[bool]
) -> list[Row]:
    """The same where a statement that the server has forgotten would take more along with it."""
    if raw.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        # The driver begins a transaction with the first statement of its own.
        raw.execute("SELECT")
    numbered, marks = _numbered(sql)
    _check(marks, sent)
    result = _run(raw, raw.pgconn.send_query_params, numbered, sent, None, in_binary, _BINARY)
    _raise_if_failed(result)
    return _rows(_reader(raw, result), result)


def _prepare(raw: Any, known: dict[str, _Statement], sql: str) -> _Statement:
    if len(known) >= STATEMENTS_MAX:
        oldest = known.pop(next(iter(known)))
        _run(raw, raw.pgconn.send_query, b"DEALLOCATE " + oldest.name)
    name = b"chatledger_%d" % next(_numbers)
    numbered, marks = _numbered(sql)
    _raise_if_failed(_run(raw, raw.pgconn.send_prepare, name, numbered))
    return _Statement(name, marks)


def _run(raw: Any, send: Callable[..., None], *args: Any) -> Any:
    """Send, and wait as the driver waits: other threads run meanwhile, and Ctrl-C breaks it off."""
    send(*args)
    return raw.wait(generators.execute(raw.pgconn))[-1]


def _reader(raw: Any, result: Any) -> Any:
    # Of the adapters alone: with the connection in its hand it would keep that alive.
    reader = Transformer(raw.adapters)
    reader.set_pgresult(result, format=_BINARY)
    return reader


def _rows(reader: Any, result: Any) -> list[Row]:
    reader.set_pgresult(result, set_loaders=False)
    rows: list[Row] = reader.load_rows(0, result.ntuples, tuple)
    # Or the last result would be held until the next one comes.
    reader.set_pgresult(None, set_loaders=False)
    return rows


def _numbered(sql: str) -> tuple[bytes, int]:
    """The statement with PostgreSQL's own marks, and how many there are."""
    first, *rest = sql.split("%s")
    marked = [f"${number}{part}" for number, part in enumerate(rest, 1)]
    return "".join([first, *marked]).encode(), len(rest)


def _check(marks: int, sent: Sequence[bytes | None]) -> None:
    if len(sent) != marks:
        raise TypeError(f"the statement has {marks} marks, and there are {len(sent)} values")


def _raise_if_failed(result: Any) -> None:
    if result.status not in _DONE:
        raise psycopg.errors.error_from_result(result)


def _sent(value: Value) -> bytes:
    try:
        return _SENT[type(value)](value)
    except KeyError:
        raise TypeError(f"{type(value).__name__} is no value of a statement") from None


def _without_end(text: str) -> str:
    # libpq would take it for the end of the text and leave the rest away.
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL's texts cannot hold a NUL (0x00)")
    return text


_BINARY = pq.Format.BINARY
#: SQLSTATEs: no such statement; its rows are not what they were, since a table was changed.
_TO_PREPARE_AGAIN = (b"26000", b"0A000")
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
