"""The sandbox's tables: their rows, their files as encoded exports, and their times."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from sandbox.csv_slices import Encoded, Row, encode

#: the offset of Keboola's servers, written without a colon (docs/keboola.md 2.1)
_SERVER_ZONE = timezone(timedelta(hours=1))


@dataclass(frozen=True)
class Shape:
    """The parameters of an export. Equal shapes of an unchanged table share one file (docs/keboola.md 4.3)."""

    columns: tuple[str, ...]
    gzipped: bool
    limit: int | None = None


@dataclass(frozen=True)
class Encoding:
    """How exports are written. It is the same for every table of a server."""

    folder: Path
    slices: int
    quoting: str
    sliced: bool
    gzip_members: bool
    serial: itertools.count[int] = field(default_factory=itertools.count)


@dataclass(eq=False)
class Table:
    """A table with one content. New content is a new Table, so a running export keeps the content it began with."""

    id: str
    columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    typed: bool
    rows: Callable[[], Iterable[Row]]
    #: epoch seconds
    created: float
    changed: float
    encoding: Encoding
    #: whether the bucket shows an external schema, whose row counts lag behind (docs/keboola.md 13.1)
    external: bool = False
    #: the number of rows that the API reports, if it should be a wrong one; None: the true number
    rows_said: int | None = None
    description: str = ""
    #: by column: KBC.datatype.basetype, KBC.description and the like
    hints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _encoded: dict[Shape, Encoded] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.id.rpartition(".")[2]

    @property
    def bucket(self) -> str:
        return self.id.rpartition(".")[0]

    def default_shape(self) -> Shape:
        """All columns, gzipped. It is written when the table is put, because that counts the rows."""
        return Shape(self.columns, gzipped=True)

    def encoded(self, shape: Shape) -> Encoded:
        """The rows in this shape as files; they are written at the first call."""
        with self._lock:
            if shape not in self._encoded:
                how = self.encoding
                self._encoded[shape] = encode(
                    self.selected(shape),
                    how.folder / f"{next(how.serial)}",
                    width=len(shape.columns),
                    slices=how.slices if how.sliced else 1,
                    quoting=how.quoting,
                    typed=self.typed,
                    gzipped=shape.gzipped,
                    gzip_members=how.gzip_members,
                    header=None if how.sliced else shape.columns,
                )
            return self._encoded[shape]

    def selected(self, shape: Shape) -> Iterable[Row]:
        """The rows, reduced to the shape's columns and limit."""
        rows = itertools.islice(self.rows(), shape.limit)
        if shape.columns == self.columns:
            return rows
        places = [self.columns.index(column) for column in shape.columns]
        return ([row[place] for place in places] for row in rows)


def api_time(epoch: float) -> str:
    """`2025-03-04T05:06:07+0100`."""
    return datetime.fromtimestamp(epoch, _SERVER_ZONE).strftime("%Y-%m-%dT%H:%M:%S%z")
