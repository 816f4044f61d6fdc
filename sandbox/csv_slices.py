"""Writes rows to disk as the slices of an export, in the two CSV dialects of Keboola's backends, gzipped or not.

The format is that of docs/keboola.md 7. Memory use does not grow with the number of rows.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: the two dialects; their names are the values of `bucket.backend`
QUOTINGS = ("snowflake", "bigquery")
_LARGEST_CHUNK = 4096
_NEEDS_QUOTES = re.compile('[",\r\n]')
Row = Sequence[object]


@dataclass(frozen=True)
class StoredSlice:
    """One slice on disk."""

    path: Path
    size: int
    #: MD5 of the bytes on disk; the stores derive ETag and checksums from it
    md5: bytes


@dataclass(frozen=True)
class Encoded:
    """A table's rows in one shape."""

    rows: int
    #: bytes of CSV before compression
    csv_bytes: int
    slices: tuple[StoredSlice, ...]


def encode(
    rows: Iterable[Row],
    folder: Path,
    *,
    width: int,
    slices: int,
    quoting: str,
    typed: bool,
    gzipped: bool,
    gzip_members: bool = False,
    header: Sequence[str] | None = None,
) -> Encoded:
    """Write `rows` into at most `slices` files in `folder`, which must be empty or missing.

    The slices get chunks of rows in turn. The chunks begin with 1 row and grow, so that a few rows reach every slice.
    Without rows Snowflake writes no file, BigQuery one without rows. With fewer rows than slices Snowflake writes fewer
    files, BigQuery some without rows (docs/keboola.md 6.2, 7.8). Only files that are not gzipped can have 0 bytes
    (13.5).

    header: written first, for the one file of an export that is not sliced.
    gzip_members: each chunk of rows is a separate gzip stream, with an empty one at the end.

    Text is UTF-8. A lone surrogate (`"\\udcff"`) is written as the invalid byte that it stands for, for tests.

    Raises ValueError for a row whose number of values is not `width`, and for None in a table that is not typed
    (docs/keboola.md 2.3).
    """
    folder.mkdir(parents=True, exist_ok=True)
    text_of = _text_writer(quoting, typed)
    count = csv_bytes = 0
    with contextlib.ExitStack() as open_files:
        new_files = (_SliceFile(folder / f"{number:06d}", gzipped, gzip_members) for number in range(slices))
        files = [open_files.enter_context(file) for file in new_files]
        if header is not None:
            csv_bytes += files[0].write(_quoted([header]).encode())
        for file, chunk in zip(itertools.cycle(files), _growing_chunks(rows, slices)):
            _check(chunk, width, typed, first=count + 1)
            csv_bytes += file.write(text_of(chunk).encode("utf-8", "surrogateescape"))
            count += len(chunk)
        kept = [file for file in files if file.used]
        if quoting == "bigquery":
            kept = files if csv_bytes else files[:1]
        return Encoded(count, csv_bytes, tuple(file.finish() for file in kept))


class _SliceFile:
    """One slice being written."""

    def __init__(self, path: Path, gzipped: bool, gzip_members: bool) -> None:
        self._path = path
        self._file = path.open("wb")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._gzip = _gzip_stream() if gzipped else None
        self._members = gzip_members
        self.used = False

    def write(self, data: bytes) -> int:
        self.used = True
        self._put(self._gzip.compress(data) if self._gzip else data)
        if self._gzip and self._members:
            self._put(self._gzip.flush())
            self._gzip = _gzip_stream()
        return len(data)

    def finish(self) -> StoredSlice:
        """The finished slice on disk. Without rows a gzipped slice has 20 bytes."""
        if self._gzip:
            self._put(self._gzip.flush())
        return StoredSlice(self._path, self._file.tell(), self._md5.digest())

    def __enter__(self) -> _SliceFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _put(self, data: bytes) -> None:
        self._md5.update(data)
        self._file.write(data)


def _gzip_stream() -> zlib._Compress:
    return zlib.compressobj(1, zlib.DEFLATED, 31)


def _growing_chunks(rows: Iterable[Row], slices: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    size = 1
    while True:
        for _ in range(slices):
            chunk = list(itertools.islice(iterator, size))
            if not chunk:
                return
            yield chunk
        size = min(size * 2, _LARGEST_CHUNK)


def _check(chunk: list[Row], width: int, typed: bool, first: int) -> None:
    for number, row in enumerate(chunk, first):
        if len(row) != width:
            raise ValueError(f"row {number} has {len(row)} values, the table has {width} columns")
        if not typed and None in row:
            raise ValueError(f"row {number} has a NULL, which only a typed table can hold")


def csv_text(rows: Iterable[Row], quoting: str, typed: bool) -> str:
    """Rows as one CSV text, for a preview."""
    return _text_writer(quoting, typed)(list(rows))


def _text_writer(quoting: str, typed: bool) -> Callable[[list[Row]], str]:
    if quoting == "bigquery":
        return lambda chunk: _joined(chunk, _bigquery_value)
    if typed:
        return lambda chunk: _joined(chunk, _snowflake_value)
    return _quoted


def _quoted(chunk: Iterable[Row]) -> str:
    """Every value in quotes, as Snowflake writes text. This is also the fastest way."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(chunk)
    return buffer.getvalue()


def _joined(chunk: list[Row], value_text: Callable[[object], str]) -> str:
    return "".join([",".join(map(value_text, row)) + "\n" for row in chunk])


def _bare(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _snowflake_value(value: object) -> str:
    """Text in quotes, a number without quotes, NULL as an empty field (docs/keboola.md 7.2, 7.5)."""
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else _bare(value)


def _bigquery_value(value: object) -> str:
    """Quotes only where needed. An empty text gets quotes, because NULL is an empty field (docs/keboola.md 12.3)."""
    text = _bare(value)
    if _NEEDS_QUOTES.search(text) or value == "":
        return '"' + text.replace('"', '""') + '"'
    return text
