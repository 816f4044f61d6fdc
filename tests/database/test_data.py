"""Any text arrives unchanged: from the sandbox over HTTP and COPY into bronze. Broken slices stop a load."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lib.config.jobs import Extract, Load
from lib.config.secret_value import Secret
from lib.config.settings import Settings
from lib.errors import LoadError
from lib.extract import Slice, SourceTable
from lib.extract.keboola import KeboolaExtractor
from lib.load.bronze import publish_bronze
from lib.load.contract import Contract, match, read_contract
from lib.load.guards import Accepted
from lib.load.staging_table import copy_slice, create_staging
from lib.postgres.connection import Connection, Database, execute, query
from lib.postgres.transaction import TransactionSettings, transaction
from sandbox.csv_slices import QUOTINGS
from sandbox.keboola_server import KeboolaServer
from tests.support.databases import EmptyDatabase
from tests.support.project import Project

Rows = Sequence[tuple[str | None, ...]]
WIDEST = 3
COLUMNS = ("JSON_id", "v", "order")
EVERYTHING = Accepted(frozenset({("t", "shrink"), ("t", "empty")}))


# ---- any text -------------------------------------------------------------------------------------------------------

#: text that CSV, COPY, PostgreSQL or a shell could misread
AWKWARD = [
    "",
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    '"',
    '""',
    ",",
    "\\",
    "\\.",
    "\\N",
    "\\n",
    "NULL",
    "'",
    ";",
    "\ufeff",
    "\x1a",
] + ["\x7f", "\x85", "\u2028", "é", "e\u0301", "😀", "\U0010ffff", "\uffff", "%s", "{}", "$1", "\b", "\v", "\f"]
TEXT = st.one_of(
    st.lists(st.sampled_from(AWKWARD), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bool, Rows]:
    """Whether a table is typed, and its rows, of one or more columns. Only typed tables hold NULLs."""
    typed = draw(st.booleans())
    value = st.none() | TEXT if typed else TEXT
    return typed, draw(st.lists(st.tuples(*[value] * draw(st.integers(1, WIDEST))), min_size=1, max_size=9))


class Pipe:
    """Loads a table from Keboola into bronze, without the rest of a run."""

    def __init__(self, database: EmptyDatabase, keboola: KeboolaServer) -> None:
        self.keboola = keboola
        self.extractor = KeboolaExtractor(
            keboola.url, Secret(keboola.token), run_id="1", parallel=1, environ=keboola.store_environment
        )
        opened = Database(Settings(root=database.server.folder), keywords=database.connect_args)
        self.connection: Connection = opened.connect("data")
        for schema in ("elt_staging", "bronze"):
            execute(self.connection, f"CREATE SCHEMA {schema}")
        for width in range(1, WIDEST + 1):
            columns = ", ".join(f'"{name.lower()}" text' for name in COLUMNS[:width])
            execute(self.connection, f"CREATE TABLE bronze.t{width} ({columns})")

    def send(self, rows: Rows, typed: bool) -> list[tuple]:
        """Give Keboola these rows, load them, and return the rows of bronze."""
        width = len(rows[0])
        self.keboola.put_table("in.c-main.t", columns=COLUMNS[:width], rows=rows, typed=typed)
        load = Load("t", Extract("keboola_table", "in.c-main.t"), f"bronze.t{width}")
        contract = read_contract(self.connection, load)
        table = self.extractor.table("in.c-main.t")
        found = match(contract, table).found
        export = self.extractor.finish(self.extractor.start(table, tuple(found.values())))
        staging = create_staging(self.connection, "r1_t", contract, found, table)
        counted = sum(
            copy_slice(self.connection, staging, csv_slice, "in.c-main.t").rows for csv_slice in export.slices
        )
        with transaction(self.connection, TransactionSettings(2)):
            publish_bronze(self.connection, load, contract, staging, counted, EVERYTHING)
        return query(self.connection, f"SELECT * FROM bronze.t{width}")

    def close(self) -> None:
        self.connection.close()


@pytest.fixture(params=QUOTINGS)
def pipe(request: pytest.FixtureRequest, database_on_each: EmptyDatabase) -> Iterator[Pipe]:
    """One pipe for all examples: three slices, both quoting styles, PostgreSQL 16 and 18."""
    with KeboolaServer(polls=0, slices=3, quoting=request.param) as keboola:
        pipe = Pipe(database_on_each, keboola)
        yield pipe
        pipe.close()


# all examples share the fixture: each replaces the rows of the one before
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
@example((False, [("\\.",), ("after",), ('"\n\\.\n"',), ("",)]))
@example((False, [("",)] * 9))
@example((False, [("NULL",), ("\\N",), ("null",)]))
@example((True, [("NULL", "\\N", "null"), (None, "NULL", None)]))
@example((True, [("\\.",), (None,), ("after",), ("",)]))
@example((True, [(None, None), ("", ""), (None, ""), ("", None)]))
def test_whatever_a_table_holds_arrives_unchanged(pipe: Pipe, table: tuple[bool, Rows]) -> None:
    typed, rows = table
    assert Counter(pipe.send(rows, typed)) == Counter(rows)


@pytest.mark.long
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_whatever_a_table_holds_arrives_unchanged_many_times(pipe: Pipe, table: tuple[bool, Rows]) -> None:
    typed, rows = table
    assert Counter(pipe.send(rows, typed)) == Counter(rows)


def test_rows_that_a_run_loads_arrive_unchanged(project: Project) -> None:
    awkward = [*AWKWARD, *(f"a{text}b" for text in AWKWARD), "".join(AWKWARD)]
    rows = [(str(number), text) for number, text in enumerate(awkward)]
    project.put("c", rows)
    assert project.run("c").exit_code == 0
    assert Counter(project.rows("bronze.c")) == Counter(rows)
    project.put("c", [*rows[1:], ("0", None), ("1000", 7), ("1001", True)], typed=True)
    assert project.run("c").exit_code == 0
    assert Counter(project.rows("bronze.c")) == Counter([*rows[1:], ("0", None), ("1000", "7"), ("1001", "true")])


def test_a_long_value_arrives_unchanged(project: Project) -> None:
    value = 'a "line"\n\\.\n' * 300_000 + "😀"
    project.put("c", [("1", value), ("2", "short")])
    assert project.run("c").exit_code == 0
    assert project.rows("bronze.c") == [("1", value), ("2", "short")]


# ---- slices as bytes ------------------------------------------------------------------------------------------------


def copied(database: EmptyDatabase, width: int, has_nulls: bool, data: bytes) -> list[tuple]:
    """The rows that COPY makes of one slice."""
    opened = Database(Settings(root=database.server.folder), keywords=database.connect_args).connect("bytes")
    execute(opened, "CREATE SCHEMA IF NOT EXISTS elt_staging")
    source = SourceTable("in.c-main.t", COLUMNS[:width], None, has_nulls, "1")
    names = tuple(name.lower() for name in COLUMNS[:width])
    staging = create_staging(opened, "r1_t", Contract("bronze.t", names, frozenset()), names, source)
    count = copy_slice(opened, staging, Slice(2, "t_0_1_0.csv.gz", lambda: io.BytesIO(data)), source.id).rows
    rows = query(opened, "SELECT * FROM elt_staging.r1_t")
    assert len(rows) == count
    return rows


def test_an_empty_unquoted_field_is_null_only_where_a_table_holds_nulls(database_on_each: EmptyDatabase) -> None:
    data = b',""\n"",\n\\.,"\\."\n'
    assert copied(database_on_each, 2, True, data) == [(None, ""), ("", None), ("\\.", "\\.")]
    assert copied(database_on_each, 2, False, data) == [("", ""), ("", ""), ("\\.", "\\.")]
    assert copied(database_on_each, 1, True, b'\n""\n\\.\n\n') == [(None,), ("",), ("\\.",), (None,)]
    assert copied(database_on_each, 1, False, b'\n""\n\\.\n\n') == [("",), ("",), ("\\.",), ("",)]


def test_a_slice_of_no_bytes_holds_no_row_and_a_last_line_needs_no_newline(database_on_each: EmptyDatabase) -> None:
    assert copied(database_on_each, 1, True, b"") == []
    assert copied(database_on_each, 1, True, b"a\n\\.") == [("a",), ("\\.",)]
    assert copied(database_on_each, 2, True, b'1,"a\r\nb"') == [("1", "a\r\nb")]


def test_lines_may_end_in_crlf(database_on_each: EmptyDatabase) -> None:
    assert copied(database_on_each, 1, True, b"\\.\r\na\r\n\\.\r\n") == [("\\.",), ("a",), ("\\.",)]
    assert copied(database_on_each, 2, True, b'1,"a\nb"\r\n2,c\r\n') == [("1", "a\nb"), ("2", "c")]


#: broken slices, and the error of PostgreSQL. In the first one, newlines within quotes do not count as lines.
BROKEN = [
    (b'1,a\n2,"b\n', "line 3: unterminated CSV quoted field"),
    (b"1,a\n2\n3,c\n", 'line 2: missing data for column "v"'),
    (b"1,a\n2,b,c\n", "line 2: extra data after last expected column"),
    (b'0,x\n1,"a\n\n"\n2,b,c\n', "line 5: extra data after last expected column"),
    (b"1,a\n2,\x00\n", 'line 2: invalid byte sequence for encoding "UTF8": 0x00'),
    (b"1,a\n2,\xc3(\n", 'line 2: invalid byte sequence for encoding "UTF8": 0xc3 0x28'),
    (b"1,a\n2,\xc3\x00\n", 'line 2: invalid byte sequence for encoding "UTF8": 0xc3 0x00'),
    (b"1,a\n2,\xed\xa0\x80\n", 'line 2: invalid byte sequence for encoding "UTF8": 0xed 0xa0 0x80'),
    (b"1,a\n2,\xf0\x9f\x98", 'line 2: invalid byte sequence for encoding "UTF8": 0xf0 0x9f 0x98'),
    (b'1,"a"\n' * 200_000 + b"2\n", 'line 200001: missing data for column "v"'),
    (b'1,"a"\n' * 200_000 + b"2,\xff\n", 'line 200001: invalid byte sequence for encoding "UTF8": 0xff'),
    (b"1,a\n2,b\rc\n", "line 2: unquoted carriage return found in data"),
]


def test_a_broken_slice_is_refused_with_slice_and_line(database_on_each: EmptyDatabase) -> None:
    for data, said in BROKEN:
        with pytest.raises(LoadError) as caught:
            copied(database_on_each, 2, True, data)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"in.c-main.t: slice 2 (t_0_1_0.csv.gz), {said}"
        cause = "cannot hold a NUL byte" if said.endswith(": 0x00") else "these bytes are not UTF-8"
        assert (cause in lines[-1]) == ("encoding" in said)
        assert database_on_each.sql("SELECT count(*) FROM elt_staging.r1_t") == [(0,)]


class Raw:
    """A value that a typed export writes without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


BROKEN_VALUES = [
    ("a\0b", 'line 3: invalid byte sequence for encoding "UTF8": 0x00'),
    ("\udcff", 'line 3: invalid byte sequence for encoding "UTF8": 0xff'),
    (Raw('"never ends'), "line 4: unterminated CSV quoted field"),
    (Raw("one,too many"), "line 3: extra data after last expected column"),
    (Raw("b\nc"), 'line 4: missing data for column "v"'),
]


def test_a_broken_slice_stops_its_job_by_table_slice_and_line_and_yesterdays_rows_stay(project: Project) -> None:
    project.put_day("monday")
    project.run()
    for value, said in BROKEN_VALUES:
        rows: list[tuple[str, object]] = [(str(number), "tuesday") for number in range(1, 11)]
        rows[7] = ("8", value)  # four slices get 1, 1, 1, 1, 2, 2, 2 rows: the eighth is the third line of the second
        project.put("c", rows, typed=True)
        assert project.run("c").exit_code == 1
        place = re.search(r"c \(in\.c-main\.c: slice 2 \(\S+_0_1_0\.csv\.gz\), (.*?)\), ", project.last_line)
        assert place and place[1] == said
        assert project.day("bronze.c") == project.day("silver.c") == "monday"
        assert ("fix the value in the source. The rows loaded before stay." in project.output) == ("UTF8" in said)
