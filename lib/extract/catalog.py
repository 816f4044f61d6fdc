"""What a source says of its tables beyond their rows: types, keys and descriptions. `main.py add` asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class ColumnDetail:
    """One column of a source table."""

    name: str
    #: integer, number, boolean, date, timestamp, or text where the source knows no type
    type: str = "text"
    description: str = ""


@dataclass(frozen=True)
class TableDetail:
    """One source table."""

    id: str
    columns: tuple[ColumnDetail, ...] = ()
    primary_key: tuple[str, ...] = ()
    description: str = ""
    #: None if the source does not say
    rows: int | None = None
    imported_at: datetime | None = None


class Catalog(Protocol):
    """A source that describes its tables. Every method raises ExtractError, or CredentialError for a refused secret."""

    def tables(self) -> Sequence[TableDetail]:
        """Every table that the token can read, without its columns."""
        ...

    def detail(self, table_id: str) -> TableDetail:
        """One table with its columns."""
        ...
