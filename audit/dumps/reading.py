"""Reading a dump: one pass, a line at a time, and no trust in any of it before its end."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from audit.dumps.errors import DumpDamaged, DumpRefused
from audit.dumps.lines import (
    FORMAT,
    LINE_BYTES_MAX,
    TABLES,
    VERSION,
    Counts,
    End,
    Header,
    Row,
    decode_header,
    decode_line,
    encode_line,
)

_ORDER = {table.row: place for place, table in enumerate(TABLES)}
_NAMES = {table.row: table.counted_as for table in TABLES}
_END_BEGINS = b'{"kind":"end"'


class DumpReader:
    """The lines of a dump in their order; whatever is wrong with it raises `DumpDamaged`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._lines = 0
        #: How long the lines are that were read so far.
        self.bytes_read = 0
        self._is_whole = False
        self._read: Counter[str] = Counter()

    def header(self) -> Header:
        """The first line."""
        raw = self._raw_line()
        self._digest.update(raw)
        try:
            header = decode_header(raw)
        except (ValueError, RecursionError) as error:
            raise _not_a_header(raw, error) from error
        if header.format != FORMAT:
            raise DumpDamaged(f"this is no {FORMAT}")
        if header.version != VERSION:
            raise DumpRefused(
                f"the dump has version {header.version} of its format, this program reads {VERSION}"
            )
        self._require_form(header, raw)
        self._header = header
        return header

    def rows(self) -> Iterator[Row]:
        """Every row, by table, and when they are through, the proof that the dump is whole."""
        place = 0
        while True:
            raw = self._raw_line()
            line = self._decoded(raw)
            if isinstance(line, End):
                self._check_end(line)
                self._check_counts(line)
                return
            self._digest.update(raw)
            if _ORDER[type(line)] < place:
                raise DumpDamaged(f"the dump is altered: line {self._lines} is out of order")
            place = _ORDER[type(line)]
            self._read[_NAMES[type(line)]] += 1
            yield line

    def look_for_damage(self) -> None:
        """Read the rest without a look at its meaning, and raise `DumpDamaged` if it is damaged."""
        while not self._is_whole:
            raw = self._raw_line()
            if raw.startswith(_END_BEGINS) and isinstance(end := self._decoded(raw), End):
                self._check_end(end)
            self._digest.update(raw)

    def _raw_line(self) -> bytes:
        raw = self._file.readline(LINE_BYTES_MAX)
        if not raw.endswith(b"\n"):
            if len(raw) == LINE_BYTES_MAX:
                raise DumpDamaged(f"line {self._lines + 1} is longer than any line of a dump")
            if not self._lines and not raw:
                raise DumpDamaged("there is nothing in it")
            raise DumpDamaged(f"the dump is cut short, behind line {self._lines}")
        self._lines += 1
        self.bytes_read += len(raw)
        return raw

    def _decoded(self, raw: bytes) -> Row | End:
        try:
            line: Row | End = decode_line(raw)
        except (ValueError, RecursionError) as error:
            raise DumpDamaged(f"the dump is altered: line {self._lines}: {error}") from error
        self._require_form(line, raw)
        return line

    def _require_form(self, line: Header | Row | End, raw: bytes) -> None:
        # A line that can be read in two ways, such as one that says something twice, is none.
        if encode_line(line) != raw:
            raise DumpDamaged(f"the dump is altered: line {self._lines} is not in its one form")

    def _check_end(self, end: End) -> None:
        if end.sha256 != self._digest.hexdigest():
            raise DumpDamaged("the dump is altered: its SHA-256 is not what its last line says")
        if self._file.read(1):
            raise DumpDamaged("the dump is altered: something stands behind its last line")
        self._is_whole = True

    def _check_counts(self, end: End) -> None:
        read = Counts(**{table.counted_as: self._read[table.counted_as] for table in TABLES})
        if not read == self._header.counts == end.counts:
            raise DumpDamaged("the dump holds other numbers of lines than it says")


def _not_a_header(raw: bytes, error: Exception) -> DumpDamaged:
    if FORMAT.encode() in raw:
        return DumpDamaged(f"the dump is altered: line 1: {error}")
    return DumpDamaged(f"this is no {FORMAT}")
