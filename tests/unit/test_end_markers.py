"""A line \\. in a slice, which COPY would treat as the end of the data."""

from __future__ import annotations

import io
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.load.staging_table import QuotedEndMarkers

# ---- a line of \. ---------------------------------------------------------------------------------------------------


def through(data: bytes, size: int) -> bytes:
    """The bytes that COPY would read."""
    return b"".join(iter(partial(QuotedEndMarkers(io.BytesIO(data)).read, size), b""))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"\n", b"\n"),
        (b"\\.", b'"\\."'),
        (b"\\.\n", b'"\\."\n'),
        (b"\\.\r\n", b'"\\."\r\n'),
        (b"\\.\r", b'"\\."\r'),
        (b"\\.\n\\.\n\\.", b'"\\."\n"\\."\n"\\."'),
        (b"a\n\\.\nb\n", b'a\n"\\."\nb\n'),
        (b"a\r\n\\.\r\nb\r\n", b'a\r\n"\\."\r\nb\r\n'),
        (b"\n\\.\n\n", b'\n"\\."\n\n'),
        (b'"\\."\n"a"\n', b'"\\."\n"a"\n'),
        (b'"a\n\\.\nb"\n\\.\n', b'"a\n\\.\nb"\n"\\."\n'),
        (b'"\n\\.\n""\n\\.\n"\n\\.\n', b'"\n\\.\n""\n\\.\n"\n"\\."\n'),
        (b'"""\n\\.\n"""\n\\.', b'"""\n\\.\n"""\n"\\."'),
        (
            b"a\\.\n\\.b\n\\..\n\\\\.\n\\\n.\n \\.\n\\. \n\\.\rb\n",
            b"a\\.\n\\.b\n\\..\n\\\\.\n\\\n.\n \\.\n\\. \n\\.\rb\n",
        ),
    ],
)
def test_a_bare_marker_is_quoted_and_nothing_else_whatever_the_size_of_a_block(data: bytes, expected: bytes) -> None:
    for size in range(1, len(data) + 2):
        assert through(data, size) == expected, f"blocks of {size}"


@given(st.lists(st.sampled_from([b"\\", b".", b"\\.", b"\n", b"\r\n", b'"', b"x"]), max_size=30).map(b"".join))
def test_the_size_of_a_block_does_not_matter(data: bytes) -> None:
    expected: list[bytes] = []
    inside = False
    for line in data.split(b"\n"):
        bare = not inside and line in (b"\\.", b"\\.\r")
        expected.append(line.replace(b"\\.", b'"\\."') if bare else line)
        inside ^= line.count(b'"') % 2 == 1
    assert {through(data, size) for size in range(1, len(data) + 2)} == {b"\n".join(expected)}
