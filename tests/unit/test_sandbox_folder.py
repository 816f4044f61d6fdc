"""The sandbox that serves a folder of CSV files, read by the extractor over real loopback HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.errors import ExtractError
from sandbox.folder import FolderKeboola
from tests.support.extraction import TABLE, Time, export, extractor_of, rows_of

FILE = f"{TABLE}.csv"


class Folder:
    """A folder that is served, and what was said about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.wrong: list[str] = []
        self.keboola = FolderKeboola(path, self.lines.append, self.wrong.append)
        self.extractor = extractor_of(self.keboola, Time())

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def rows(self) -> list[tuple[str, ...]]:
        return rows_of(export(self.extractor))

    def complaint(self, name: str, content: bytes) -> str:
        """The one complaint about a file that was written just now."""
        self.wrong.clear()
        self.write(name, content)
        for _ in range(2):
            self.extractor.describe()  # any request looks at the folder, and says it once
        (line,) = self.wrong
        return line


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    served = Folder(tmp_path)
    yield served
    served.keboola.close()


def test_a_file_is_a_table(folder: Folder) -> None:
    folder.write(FILE, b'\xef\xbb\xbfid,note\r\n1,"a ""b"",\r\n\xc5\x99"\r\n\r\n2,\r\n')
    table = folder.extractor.table(TABLE)
    assert (table.columns, table.rows) == (("id", "note"), 2)
    assert folder.rows() == [("1", 'a "b",\r\nř'), ("2", "")]
    assert (folder.lines, folder.wrong) == ([f"{TABLE}: 2 rows, 2 columns"], [])


def test_a_bucket_needs_no_c_in_its_name(folder: Folder) -> None:
    folder.write("in.shop.orders.csv", b"id\n1\n")
    assert folder.extractor.table("in.shop.orders").rows == 1
    assert folder.wrong == []


def test_a_file_that_changed_came_or_went_is_noticed(folder: Folder) -> None:
    folder.write(FILE, b"id\n1\n")
    before = folder.extractor.table(TABLE)
    assert folder.extractor.table(TABLE) == before
    started = folder.extractor.start(before, before.columns)
    folder.write(FILE, b"id\n2\n3\n")
    assert rows_of(folder.extractor.finish(started)) == [("1",)], "an export keeps the rows it began with"
    assert folder.rows() == [("2",), ("3",)]
    assert folder.extractor.table(TABLE).version != before.version
    (folder.path / FILE).unlink()
    with pytest.raises(ExtractError, match="was not found"):
        folder.extractor.table(TABLE)
    assert folder.lines[-1] == f"{FILE} is gone"


def test_a_table_is_as_old_as_its_file_so_another_start_changes_nothing(folder: Folder) -> None:
    folder.write(FILE, b"id\n1\n")
    os.utime(folder.path / FILE, (1_700_000_000, 1_700_000_000))
    table = folder.extractor.table(TABLE)
    assert table.imported_at and table.imported_at.timestamp() == 1_700_000_000
    again = Folder(folder.path)
    assert again.extractor.table(TABLE) == table
    again.keboola.close()


@pytest.mark.parametrize(
    "name, content, said",
    [
        (FILE, b"", ":1: has no header: the first line must name the columns"),
        (FILE, b"\n1,2\n", ":1: has no header"),
        (FILE, b"id,ID\n", ":1: two columns are named 'ID'"),
        (FILE, b"id,,x\n", ":1: column 2 is named ''."),
        (
            FILE,
            b"id;note\n1;a\n",
            ":1: column 1 is named 'id;note'. The first line must name the columns, separated by",
        ),
        (FILE, b"id,_x\n", ":1: column 2 is named '_x'."),
        (FILE, b"id,n\xe9\n", ":1: is not UTF-8 text: save the file as UTF-8"),
        (FILE, "id,note\n1,é\n".encode("utf-16"), ":1: is not UTF-8 text"),
        (FILE, b'id,note\n1,"a\nb"\n2,\xff\n', ":4: is not UTF-8 text"),
        (FILE, b'id,note\n1,"a\nb"\n2\n', ":4: 1 values, but the header names 2"),
        (FILE, b"id,note\n1,2,3\n", ":2: 3 values, but the header names 2"),
        (FILE, b'id,note\n1,"a\n', ":2: in the row that begins here, a quote is never closed"),
        (FILE, b'id,note\n1,"a\nb"\n2,"a\n3,b\n', ":4: in the row that begins here, a quote is never closed"),
        (FILE, b"id,note\r1,a\r2,b\r", ":1: a line ends with CR alone: save the file with LF or CR LF"),
        (FILE, b'id,note\n1,"a"b\n', ":2: is no CSV: "),
        ("orders.csv", b"id\n", ": the name must be that of a table and .csv, such as in.c-shop.orders.csv"),
        ("in.shop.sub.orders.csv", b"id\n", ": the name must be"),
        ("in.c-shop.or ders.csv", b"id\n", ": the name must be"),
        (f"{FILE}.gz", b"id\n", ": the name must be"),
        ("in.c-shop.csvx", b"id\n", ": the name must be"),
        ("in.c-shop.orders.CSV", b"id\n", ": the name must be"),
        ("in.c-shop.orders.tsv", b"id\n", ": the name must be"),
        ("notes.txt", b"", ": the name must be"),
    ],
)
def test_a_bad_file_is_named_once_and_the_others_are_served(
    folder: Folder, name: str, content: bytes, said: str
) -> None:
    folder.write("in.c-shop.good.csv", b"id\n1\n")
    assert folder.complaint(name, content).startswith(name + said)
    assert rows_of(export(folder.extractor, "in.c-shop.good")) == [("1",)]


def test_a_file_that_became_bad_fails_whoever_asks_for_it(folder: Folder) -> None:
    folder.write(FILE, b"id,note\n1,a\n")
    whole = folder.extractor.table(TABLE)
    started = folder.extractor.start(whole, ["note"])
    assert folder.complaint(FILE, b"id,note\n1\n").endswith("; no longer served")
    for ask in (lambda: folder.extractor.table(TABLE), lambda: folder.extractor.start(whole, ["note"])):
        with pytest.raises(ExtractError, match=f"{FILE}:2: 1 values, but the header names 2"):
            ask()
    assert rows_of(folder.extractor.finish(started)) == [("a",)], "an export keeps the rows it began with"
    folder.write(FILE, b"id,note\n2,b\n")
    assert folder.rows() == [("2", "b")]
    assert folder.extractor.table(TABLE).version != whole.version


def test_a_file_of_a_tables_name_without_csv_is_nothing_to_the_table(folder: Folder) -> None:
    folder.write(FILE, b"id,note\n1,a\n")
    assert folder.complaint(TABLE, b"x").startswith(f"{TABLE}: the name must be that of a table and .csv")
    assert folder.rows() == [("1", "a")]
    (folder.path / TABLE).unlink()
    assert folder.rows() == [("1", "a")]


def test_what_is_no_file_is_named_once(folder: Folder) -> None:
    (folder.path / "in.c-shop").mkdir()
    folder.write(".in.c-shop.orders.csv.swp", b"")
    os.mkfifo(folder.path / "in.c-shop.pipe.csv")
    (folder.path / FILE).symlink_to("nowhere")
    folder.extractor.describe()
    (folder.path / "in.c-shop/more").mkdir()
    folder.extractor.describe()
    assert [line.partition(": only files in ")[0] for line in folder.wrong] == [
        "in.c-shop: is a folder",
        f"{FILE}: is a link that leads nowhere",
        "in.c-shop.pipe.csv: is no file",
    ]
    assert folder.lines == [] and folder.keboola.is_empty
    (folder.path / FILE).unlink()
    folder.write(FILE, b"id\n1\n")
    assert folder.rows() == [("1",)]
