"""Refuses a slice that is broken or endless while it streams to COPY, before it fills the memory of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lib.errors import LoadError

#: the most bytes of one row. COPY holds a whole row in memory, up to 1 GB for each connection.
LONGEST_ROW = 64 * 1024 * 1024


class Readable(Protocol):
    """A stream of bytes that somebody else closes."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class RowLimit:
    """The most rows that a slice may have, and what its refusal says."""

    rows: int
    refusal: str


class LimitedStream:
    """A CSV stream without a header line that ends in a LoadError, about `subject`, where it passes a limit.

    A row ends with a line end outside of quotes, as for COPY (PostgreSQL: COPY, "CSV Format").
    """

    def __init__(
        self, stream: Readable, subject: str, columns: int, limit: RowLimit | None, longest: int = LONGEST_ROW
    ) -> None:
        self._stream, self._subject, self._limit, self._longest = stream, subject, limit, longest
        self._is_quoted = False
        #: bytes read, and those since the last row ended
        self._position = self._length = 0
        #: Three ways to count the rows of a block, each slower than the one before. The first two find too many: they
        #: take each comma, and each line break in a value, for the end of a row. Where one comes to the limit, the next
        #: one begins to count from there.
        self._ways: list[Callable[[bytes], int]] = [
            lambda data: len(data) // columns,
            lambda data: data.count(b"\n"),
            lambda data: sum(part.count(b"\n") for part in data.split(b'"')[self._is_quoted :: 2]),
        ]
        self._rows = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        data = self._stream.read(size)
        if self._limit is not None:
            self._count_rows(data, self._limit)
        self._measure_row(data)
        return data

    def _count_rows(self, data: bytes, limit: RowLimit) -> None:
        self._rows += self._ways[0](data)
        if self._rows > limit.rows:
            if len(self._ways) == 1:
                raise LoadError(f"{self._subject}: {limit.refusal}")
            del self._ways[0]
            self._rows = 0

    def _measure_row(self, data: bytes) -> None:
        """Find the last row end in the block: from its end on, line by line, until one is outside of quotes."""
        is_quoted = self._is_quoted = self._is_quoted ^ (data.count(b'"') % 2 == 1)
        self._position += len(data)
        # no row ends behind a quote that is open
        end, is_quoted = (max(data.rfind(b'"'), 0), False) if is_quoted else (len(data), False)
        while (line_end := data.rfind(b"\n", 0, end)) >= 0:
            is_quoted ^= data.count(b'"', line_end, end) % 2 == 1
            if not is_quoted:
                self._length = len(data) - line_end - 1
                break
            end = line_end
        else:
            self._length += len(data)
        if self._length > self._longest:
            where = " and the quote of a value is still open" if self._is_quoted else ""
            raise LoadError(
                f"{self._subject}: the row that begins at byte {self._position - self._length + 1:,} (unpacked) has no"
                f" end within {self._longest / 1024 / 1024:g} MB{where}. The rows loaded before stay. Look for that"
                " value in the source, or run again."
            )
