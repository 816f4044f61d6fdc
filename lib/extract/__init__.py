"""The border that every source meets: a table is described, its export is started, awaited, and read slice by slice.

A further kind of source is a further module in this package that offers these four things; nothing else of the
pipeline knows where rows come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TypeVar

Ticket = TypeVar("Ticket")


@dataclass(frozen=True)
class SourceTable:
    """What the source says of one table at one moment."""

    id: str
    #: in the order in which an export delivers them
    columns: tuple[str, ...]
    #: None where the source's count cannot be compared with an export (a filtered alias, an external table)
    rows: int | None
    #: True: an empty unquoted field is NULL; False: the table has no NULLs, it is an empty string (docs/keboola.md 7.5)
    has_nulls: bool
    #: equal texts mean that the content did not change between two looks
    version: str
    #: when the source last imported rows into it; None where the source does not say
    imported_at: datetime | None = None


class ByteStream(Protocol):
    """What is read to its end and then closed, as `with` does."""

    def read(self, size: int, /) -> bytes: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> object: ...


@dataclass(frozen=True)
class Slice:
    """One part of an export: a complete CSV stream without a header line."""

    #: counted from 1, for messages
    number: int
    #: the object's last path segment, for messages; never a URL
    name: str
    #: gives the decompressed CSV bytes (UTF-8, RFC 4180) from the beginning, each time it is called;
    #: read(n) raises ExtractError where the bytes are not all there
    open: Callable[[], ByteStream]


@dataclass(frozen=True)
class Export:
    """A finished export; no slices means no rows."""

    table: SourceTable
    slices: tuple[Slice, ...]


class Extractor(Protocol[Ticket]):
    """A source of tables. Every method raises ExtractError with the table's name and the source's own words.

    Ticket is what `start` gives and `finish` takes: each source has a type of its own, and nobody else looks into it.
    """

    def describe(self) -> str:
        """One line that says where rows come from, for the first line of a run; asks the source, so it proves access.

        Raises CredentialError where the source refuses the secret."""
        ...

    def table(self, table_id: str) -> SourceTable:
        """Look at one table now."""
        ...

    def start(self, table: SourceTable, columns: Sequence[str]) -> Ticket:
        """Ask for an export of these columns of the table, in this order; return at once what `finish` needs."""
        ...

    def finish(self, started: Ticket) -> Export:
        """Wait for a started export; its slices can be read once this returns."""
        ...
