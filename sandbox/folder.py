"""A local Keboola whose tables are the CSV files of a folder: in.c-shop.orders.csv is table in.c-shop.orders."""

from __future__ import annotations

import csv
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Generator
from pathlib import Path

from sandbox.keboola_server import KeboolaServer
from sandbox.messages import Request, Response

#: docs/keboola.md 2.1
_TABLE = re.compile(r"(in|out)\.[\w-]+\.[\w-]+", re.ASCII)
_ASKED = re.compile(r"/v2/storage/tables/([^/]+)")
_COLUMN = re.compile(r"[A-Za-z0-9-][\w-]{0,63}", re.ASCII)


class FolderKeboola(KeboolaServer):
    """Serves a folder. Before each request of the API it reads the files that came or changed.

    say: called with one line about a table that came, changed or went.
    complain: called with one line that says what is wrong with a file, or why something in the folder is no table. The
        others are served; requests for a table whose file is wrong get that line as the answer.
    port: as for KeboolaServer. Raises OSError if it cannot listen there.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None], complain: Callable[[str], None], port: int = 0
    ) -> None:
        self._source, self._say, self._complain = folder, say, complain
        #: of each file: its size, the time of its last change, and its inode; None if it is no file
        self._seen: dict[str, tuple[int, int, int] | None] = {}
        #: by table: what is wrong with its file
        self._wrong: dict[str, str] = {}
        self._reading = threading.Lock()
        super().__init__(polls=0, port=port)
        self.refresh()

    @property
    def is_empty(self) -> bool:
        """Whether no table is served."""
        return not self._api.tables

    def refresh(self) -> None:
        """Read what changed in the folder since the last call."""
        with self._reading:
            before, self._seen = self._seen, {}
            for path in sorted(self._source.glob("[!.]*")):
                self._seen[path.name] = _state(path)
                if path.name not in before or self._seen[path.name] != before[path.name]:
                    self._read(path)
            for name in before.keys() - self._seen.keys():
                table = _table_of(name)
                self._wrong.pop(table, None)
                if table in self._api.tables:
                    self.delete_table(table)
                    self._say(f"{name} is gone")

    def _answer(self, request: Request) -> Response:
        if request.path.startswith("/v2/storage"):
            self.refresh()
        response = super()._answer(request)
        asked = _ASKED.match(request.path)
        if asked and asked[1] in self._wrong and response.status != 401:
            return self._api.refuse(400, "storage.sandbox.file", self._wrong[asked[1]])
        return response

    def _read(self, path: Path) -> None:
        table = _table_of(path.name)
        self._wrong.pop(table, None)
        try:
            state = self._seen[path.name]
            if state is None:
                kind = "is a folder" if path.is_dir() else "is a link that leads nowhere" if path.is_symlink() else ""
                raise ValueError(f": {kind or 'is no file'}: only files in {self._source} itself are served")
            if not table:
                raise ValueError(": the name must be that of a table and .csv, such as in.c-shop.orders.csv")
            columns = self._put(table, path, state[1] / 1e9)
        except (ValueError, OSError) as error:
            why = f": cannot be read: {error.strerror}" if isinstance(error, OSError) else error
            if table:
                self._wrong[table] = f"{path.name}{why}"
            self._complain(f"{path.name}{why}" + ("; no longer served" if table in self._api.tables else ""))
        else:
            self._say(f"{table}: {self.row_count(table):,} rows, {columns} columns")

    def _put(self, table: str, path: Path, changed: float) -> int:
        """Put a file into its table. Returns the number of columns."""
        # exports read the rows later, when somebody may be writing the file; a copy that is open stays as it is
        copy = self._folder / path.name
        new = shutil.copyfile(path, copy.with_suffix(".new"))
        lines = _lines(new)
        columns = next(lines)
        lines.close()
        for _ in _rows(new):  # all of it, before it takes the place of the old copy
            pass
        os.replace(new, copy)
        self.put_table(table, columns=columns, rows=lambda: _rows(copy), imported_at=changed)
        return len(columns)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _rows(path: Path) -> Generator[list[str]]:
    lines = _lines(path)
    next(lines)
    return lines


def _lines(path: Path) -> Generator[list[str]]:
    """The header, then each row. Raises ValueError whose text continues the file's name: `:7: what is wrong`."""
    with path.open("rb") as file:
        reader = csv.reader((_text(number, line) for number, line in enumerate(file, 1)), strict=True)
        began = 1
        try:
            header = next(reader, [])
            _check_header(header)
            yield header
            began = reader.line_num + 1
            for row in reader:
                if len(row) not in (0, len(header)):
                    raise ValueError(f":{reader.line_num}: {len(row)} values, but the header names {len(header)}")
                if row:  # an empty line is no row
                    yield row
                began = reader.line_num + 1
        except csv.Error as error:
            if "end of data" in str(error):
                raise ValueError(f":{began}: in the row that begins here, a quote is never closed") from None
            if "new-line" in str(error):
                raise ValueError(f":{began}: a line ends with CR alone: save the file with LF or CR LF") from None
            raise ValueError(f":{reader.line_num}: is no CSV: {error}") from None


def _text(number: int, line: bytes) -> str:
    try:
        return line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode()
    except UnicodeDecodeError:
        raise ValueError(f":{number}: is not UTF-8 text: save the file as UTF-8") from None


def _table_of(name: str) -> str:
    """The table of a file; empty if its name is not that of a table and .csv."""
    table = name.removesuffix(".csv")
    return table if table != name and _TABLE.fullmatch(table) else ""


def _check_header(names: list[str]) -> None:
    if not names:
        raise ValueError(":1: has no header: the first line must name the columns, separated by commas")
    for place, name in enumerate(names, 1):
        if not _COLUMN.fullmatch(name):
            raise ValueError(
                f":1: column {place} is named {name[:70]!r}. The first line must name the columns, separated by commas;"
                " a name has at most 64 letters, digits, - and _, and does not begin with _"
            )
    twice = [name for place, name in enumerate(names) if name.lower() in [other.lower() for other in names[:place]]]
    if twice:
        raise ValueError(f":1: two columns are named {twice[0]!r}; upper and lower case count as the same")
