"""What a client says to PostgreSQL or Redis, cut into messages that a proxy can choose from."""

import struct
from collections.abc import Iterator


class Protocol:
    """Splits one client's bytes; pieces come whole, each with the text of what it asks for."""

    def split(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pieces that are complete with this data, as (bytes to pass on, their text)."""
        raise NotImplementedError


class Redis(Protocol):
    """Redis: what comes together is one piece; commands are small and travel whole."""

    def split(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield data, data


class Postgres(Protocol):
    """PostgreSQL 3.0 without TLS: a piece is one message, its text the SQL that it has executed.

    Of an extended query it is the Sync at its end that carries the text: with it the server
    executes and, outside of a transaction, commits.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._prepared: dict[bytes, bytes] = {}
        self._executed = b""

    def split(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._rest += data
        while piece := self._take():
            yield piece, self._text(piece) if self._begun else self._greet(piece)

    def _take(self) -> bytes:
        """The next whole message; nothing while there is none."""
        head = 1 if self._begun else 0
        if len(self._rest) < head + 4:
            return b""
        (length,) = struct.unpack_from("!i", self._rest, head)
        if len(self._rest) < head + length:
            return b""
        piece, self._rest = self._rest[: head + length], self._rest[head + length :]
        return piece

    def _greet(self, piece: bytes) -> bytes:
        # 3.0 begins the conversation; requests for encryption come before it and are refused.
        (version,) = struct.unpack_from("!i", piece, 4)
        self._begun = version >> 16 == 3
        return b""

    def _text(self, piece: bytes) -> bytes:
        kind, body = piece[:1], piece[5:]
        match kind:
            case b"Q":
                return body
            case b"P":
                name, sql, *_ = body.split(b"\0", 2)
                self._prepared[name] = sql
            case b"B":
                _portal, name, *_ = body.split(b"\0", 2)
                self._executed += self._prepared.get(name, b"") + b"\n"
            case b"S":
                text, self._executed = self._executed, b""
                return text
        return b""
