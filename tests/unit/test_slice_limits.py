"""Rows without an end and slices with too many rows, as blocks of any size."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config.jobs import Extract, Load
from lib.errors import LoadError
from lib.extract import SourceTable
from lib.load.guards import Accepted, row_limit
from lib.load.slice_limits import LimitedStream, RowLimit

TEXTS = st.lists(st.sampled_from([b'"', b'""', b"\n", b"\r\n", b",", b"x", b"xyz"]), max_size=30).map(b"".join)


def read(data: bytes, size: int, longest: int = 10**9, limit: int | None = None, columns: int = 3) -> bytes:
    rows = None if limit is None else RowLimit(limit, "too many")
    stream = LimitedStream(io.BytesIO(data), "in.c-main.t: slice 1 (t.csv.gz)", columns, rows, longest)
    return b"".join(iter(partial(stream.read, size), b""))


def test_the_most_rows_follow_from_the_count_of_the_source() -> None:
    load, accepted = Load("t", Extract("keboola_table", "in.c-main.t"), "bronze.t"), frozenset({("t", "count")})
    table = SourceTable("in.c-main.t", ("a",), rows=1000, has_nulls=False, version="1")
    limit = row_limit(load, table, 2000, Accepted())
    assert limit is not None and limit.rows == 100_000
    assert row_limit(load, table, 0, Accepted(accepted)) is None
    assert row_limit(load, replace(table, rows=None), 0, Accepted()) is None


def open_row(data: bytes) -> int:
    """The bytes behind the last row end, found byte by byte."""
    length, inside = 0, False
    for byte in data:
        inside ^= byte == 34
        length = 0 if byte == 10 and not inside else length + 1
    return length


@given(TEXTS, st.integers(1, 12), st.integers(1, 20))
def test_a_slice_passes_as_it_is_until_a_row_is_too_long(data: bytes, size: int, longest: int) -> None:
    lengths = [open_row(data[: end + size]) for end in range(0, len(data), size)]
    if max(lengths, default=0) <= longest:
        assert read(data, size, longest) == data
    else:
        with pytest.raises(LoadError, match=r"^in.c-main.t: slice 1 \(t.csv.gz\): the row that begins at byte \d+ "):
            read(data, size, longest)


@pytest.mark.parametrize(
    "data, words",
    [
        (b'"a","b"\n' * 10 + b"x" * 2000, r"begins at byte 81 \(unpacked\) has no end within 0.000976562 MB. The rows"),
        (b'"a","b"\n' * 10 + b'"' + b"x" * 2000, "byte 81 .* MB and the quote of a value is still open"),
        (b'"a","b"\n' * 10 + b'"c' + b'"a","b"\n' * 1000, r"byte 81 \(unp"),
        (b'"a","b"\n' * 10 + b'"' + b"\n" * 2000, "byte 81 .* MB and the quote of a value is still open"),
        (b"\0" * 2000, "byte 1 "),
        (b'"' + b'""' * 1000, "byte 1 "),
    ],
    ids=["line", "quoted", "lost quote", "line ends in quotes", "NUL", "quotes"],
)
def test_what_never_ends_is_refused_by_place(data: bytes, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        read(data, 100, longest=1024)


@given(st.lists(st.tuples(*[st.sampled_from(["", "x", "a\nb", '"', "\n\n\n"])] * 3), max_size=60), st.integers(1, 50))
def test_a_slice_of_the_allowed_rows_is_never_refused(rows: list[tuple[str, ...]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    assert read(data, size, limit=len(rows)) == data


@pytest.mark.parametrize("row", [b'"a","b","c"\n', b",,\n", b'"\n\n","",""\n'], ids=["plain", "shortest", "line ends"])
def test_rows_without_an_end_are_refused_soon(row: bytes) -> None:
    with pytest.raises(LoadError, match=r"^in.c-main.t: slice 1 \(t.csv.gz\): too many$"):
        read(row * 3100, 10 * len(row), limit=1000)
    assert read(row * 1000, 10 * len(row), limit=1000) == row * 1000
