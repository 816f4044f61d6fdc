"""The interface of every source: describe a table, start its export, wait for it, and read it slice by slice.

To add a kind of source, add a module to this package that implements `Extractor`. The rest of the pipeline does not
depend on the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TypeVar

from lib.errors import ExtractError

Ticket = TypeVar("Ticket")


@dataclass(frozen=True)
class SourceTable:
    """What the source reports about one table at one moment."""

    id: str
    #: in the order in which an export delivers them
    columns: tuple[str, ...]
    #: None if the source's count cannot be compared with an export (a filtered alias, an external table)
    rows: int | None
    #: whether an empty unquoted field means NULL (True) or an empty string (False) (docs/keboola.md 7.5)
    has_nulls: bool
    #: changes whenever the table's content changes; compare for equality only
    version: str
    #: False: nobody can tell whether the table changed since an earlier run, so `version` equals none of an earlier run
    version_lasts: bool = field(default=True, kw_only=True)
    #: False: rows may change while `version` stays, such as those of a query that asks for the time
    version_is_exact: bool = field(default=True, kw_only=True)
    #: when the source last imported rows into it; None if the source does not say
    imported_at: datetime | None = None
    #: columns of typed timestamps: an export has them without fractions of a second and without an offset
    cut_timestamps: tuple[str, ...] = field(default=(), kw_only=True)


class ExportGone(ExtractError):
    """A file of an export no longer exists in the source. The same export can be started again."""


class ByteStream(Protocol):
    """A readable stream of bytes; `with` closes it."""

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
    #: each call opens the decompressed CSV bytes (UTF-8, RFC 4180) from the beginning;
    #: read(n) raises ExtractError if bytes are missing, ExportGone if the object is
    open: Callable[[], ByteStream]


@dataclass(frozen=True)
class FlowJob:
    """One job of a flow: in the source's own system, one run of what fills its tables."""

    id: str
    #: the system's own word
    status: str
    has_ended: bool
    started: datetime | None
    #: what the system says about its end; may be empty
    message: str


@dataclass(frozen=True)
class Export:
    """A finished export; no slices means no rows."""

    table: SourceTable
    slices: tuple[Slice, ...]
    #: the source's own ids of the job that made it and of its file; None if the source has none
    job_id: str | None = None
    file_id: str | None = None


class Extractor(Protocol[Ticket]):
    """A source of tables. Every method raises ExtractError with the table's name and the source's error message.

    Ticket is what `start` returns and `finish` takes. Each source has its own type; callers only pass it on.
    """

    def describe(self) -> str:
        """One line that says where rows come from, for the first line of a run. It asks the source, which tests access.

        Raises CredentialError if the source refuses the secret."""
        ...

    def warnings(self) -> Sequence[str]:
        """What will soon need a person: one message each, with what to do. It asks the source."""
        ...

    def table(self, table_id: str) -> SourceTable:
        """The table as the source describes it now."""
        ...

    def start(self, table: SourceTable, columns: Sequence[str]) -> Ticket:
        """Request an export of these columns of the table, in this order. Returns at once with what `finish` needs."""
        ...

    def finish(self, started: Ticket) -> Export:
        """Wait for a started export. Its slices can be read when this returns.

        Raises ExportGone if its files no longer exist."""
        ...
