"""Queries that DuckDB runs: which are refused, what arrives of files that others wrote, and when a source changed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

import lib.extract.duckdb
from lib.cli.check import check
from lib.cli.console import Console
from lib.config.jobs import Extract, Load
from lib.config.settings import Settings
from lib.errors import Cancelled, ExtractError, JobConfigError, SettingsError
from lib.extract import SourceTable
from lib.extract.duckdb import DuckdbExtractor, read_query
from lib.run.plan import prepare_sources
from tests.support import ROOT

PATH = "extract/costs.sql"
CSV = "FROM read_csv('costs.csv', all_varchar = true)"


class Folder:
    """A project's folder with files, and what a query finds in them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, content: bytes | str) -> Path:
        file = self.root / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def extractor(self, query: str, pause: Callable[[float], None] = lambda seconds: None) -> DuckdbExtractor:
        return DuckdbExtractor(self.root, {PATH: query}, pause=pause)

    def table(self, query: str) -> SourceTable:
        return self.extractor(query).table(PATH)

    def stream(self, query: str) -> str:
        """The CSV that COPY would read."""
        extractor = self.extractor(query)
        table = extractor.table(PATH)
        (only,) = extractor.finish(extractor.start(table, table.columns)).slices
        with only.open() as stream:
            return b"".join(iter(lambda: stream.read(1000), b"")).decode()

    def rows(self, query: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.stream(query), newline="")))

    def refusal(self, query: str) -> str:
        with pytest.raises((ExtractError, JobConfigError)) as caught:
            self.stream(query)
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.put("costs.csv", 'sku,cost\n00123,1.50\n"",2\n,3\n')
    return found


# ---- what is refused -------------------------------------------------------------------------------------------------

WRITE = "write read_csv('costs.csv', all_varchar = true)"
REFUSED = {
    "SELECT *\nFROM read_csv('costs.csv')": f"{PATH}:2: read_csv guesses types, 00123 becomes 123: {WRITE}",
    "-- ž\nFROM read_csv_auto('costs.csv', all_varchar = false)": f"{PATH}:2: read_csv_auto guesses types",
    "SELECT 1 AS a,\n(SELECT max(cost) FROM\n'costs.csv')": f"{PATH}:3: FROM 'costs.csv' guesses types, 00123 becomes",
    'WITH a AS (FROM "x.csv.gz")\nFROM a': f"{PATH}:1: FROM 'x.csv.gz' guesses",
    "FROM read_csv('a' || '.csv', all_varchar = true)": f"{PATH}:1: read_csv needs its files as text in quotes",
    "FROM read_csv(['a.csv', 'b' || '.csv'], all_varchar = true)": f"{PATH}:1: read_csv needs its files as text",
    "ATTACH 'no.db' AS type;\nFROM type.t": f"{PATH}:1: a source is only read: write READ_ONLY",
    "FROM\nread_csv('https://example.com/a.csv.gz', all_varchar = true)": f"{PATH}:2: a packed file must be on this",
    "FROM read_csv('a.csv', all_varchar = not true)": f"{PATH}:1: read_csv guesses types",
    "FROM read_csv('a.csv', all_varchar = true, names = ['a'])": f"{PATH}:1: read_csv with names of columns needs",
    "FROM read_csv('a.csv', all_varchar = true) AS t (a)": f"{PATH}:1: read_csv with names of columns needs hea",
    "FROM read_xlsx('a.xlsx', all_varchar = true) t(a)": f"{PATH}:1: read_xlsx with names of columns needs",
    "FROM 'a.json'": f"{PATH}:1: FROM 'a.json' guesses types, 5.5 becomes 6: write read_json('a.json')",
    "FROM\n'a.ndjson.gz'": f"{PATH}:2: FROM 'a.ndjson.gz' guesses types",
    "FROM 'a.xlsx'": f"{PATH}:1: FROM 'a.xlsx' guesses types, 3 becomes 3.0, and a time may be cut: write",
    "FROM read_xlsx('a.xlsx')": f"{PATH}:1: read_xlsx guesses types, 3 becomes 3.0, and a time may be cut: write",
    "FROM read_xlsx('*.xlsx', all_varchar = true)": f"{PATH}:1: read_xlsx reads one file of those that match",
    "FROM 'data/costs.xls'": f"{PATH}:1: DuckDB cannot read 'data/costs.xls': save it as .xlsx, or as .csv",
    "FROM 'cost=9/a.parquet'": f"{PATH}:1: FROM 'cost=9/a.parquet' takes values from folders such as cost=9: write",
    "FROM '**/a.parquet'": f"{PATH}:1: FROM '**/a.parquet' takes values from folders",
    "SELECT 1 AS a;\n\nSELECT 2 AS a": f"{PATH}:1: only ATTACH may stand before the query, which is one SELECT",
    "/* a\n */ SET threads = 9;\nSELECT 2 AS a": f"{PATH}:2: only ATTACH may stand before the query",
    "PIVOT t ON x USING sum(y)": f"{PATH}:1: only ATTACH may stand before the query",
    "-- a\nDROP TABLE x": f"{PATH}:2: must be one SELECT",
    "ATTACH 'no.db' AS d (TYPE sqlite);\nFROM d.t": f"{PATH}:1: a source is only read: write READ_ONLY",
    "ATTACH 'no.db' AS d (TYPE sqlite, READ_ONLY false);\nFROM d.t": f"{PATH}:1: a source is only read: write",
    "ATTACH 'no.db' AS d (READ_ONLY, READ_ONLY 0, TYPE sqlite);\nFROM d.t": f"{PATH}:1: a source is only read: write",
    "ATTACH 'no.db' AS d (TYPE sqlite /* READ_ONLY */);\nFROM d.t": f"{PATH}:1: a source is only read: write READ_ONLY",
    "ATTACH 'read_only' AS d (TYPE sqlite);\nFROM d.t": f"{PATH}:1: a source is only read: write READ_ONLY",
    "-- a\nATTACH $$no.db$$ AS d (READ_ONLY);\nFROM d.t": f"{PATH}:2: write what is attached in single quotes: '..'",
    "-- nothing\n": f"{PATH}:1: holds no query",
    "SELECT\nFROM WHERE": f"{PATH}:2: Parser Error: syntax error at or near",
    "SELECT 1\nFROM read_parquet('no/*.parquet')": f'{PATH}:2: IO Error: No files found that match the pattern "no/',
    f"SELECT *\n{CSV}\nWHERE prize > 0": f'{PATH}:3: Binder Error: Referenced column "prize" not found in FROM clause!',
    "SELECT *\nFROM read_nothing('x')": f"{PATH}:2: Catalog Error: Table Function with name read_nothing does not",
    "SELECT st_point(1, 2) AS p FROM st_read('x')": f"{PATH}: needs DuckDB's extension spatial: pip install duckdb-ext",
    "-- a\nATTACH 'host=127.0.0.1 port=1' AS d (TYPE postgres, READ_ONLY);\nFROM d.t": f"{PATH}:2: IO Error: Unable to",
    "FROM read_csv('bad.csv', all_varchar = true, header = true)": f"{PATH}: /",
    f"SELECT\nsku::integer AS sku {CSV}": f"{PATH}:2: Conversion Error: Could not convert string '' to INT32",
}


@pytest.mark.parametrize("query", REFUSED)
def test_a_mistake_in_a_query_is_named_by_file_and_line(folder: Folder, query: str) -> None:
    folder.put("bad.csv", "id,v\n" + "1,2\n" * 30_000 + "3,4,hunter2\n")
    said = folder.refusal(query)
    assert said.startswith(REFUSED[query]) and "LINE" not in said and "hunter2" not in said
    assert not (folder.root / "no.db").exists()


@pytest.mark.parametrize(
    "reader, option",
    [
        ("read_csv('a.csv', all_varchar = true", "ignore_errors = true"),
        ("read_csv_auto('a.csv', all_varchar = true", "strict_mode => false"),
        ("read_csv('a.csv', all_varchar = true", "store_rejects = 1"),
        ("read_json('a.json'", "ignore_errors = (1 = 1)"),
        ("read_ndjson_objects('a.json'", "ignore_errors = true"),
        ("read_json('a.json'", "maximum_depth = 2"),
        ("read_xlsx('a.xlsx', all_varchar = true", "ignore_errors = 'true'"),
    ],
)
def test_an_option_that_loses_rows_or_values_is_refused_by_name(reader: str, option: str) -> None:
    name = option.split()[0]
    with pytest.raises(JobConfigError, match=f"^{PATH}:2: read_.* with {name} may lose .* leave {name} out$"):
        read_query(PATH, f"FROM\n{reader}, {option})")
    if name != "maximum_depth":
        read_query(PATH, f"FROM {reader}, {name} = {'true' if name == 'strict_mode' else 'false'})")


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH 'host=db user=elt password=hunter2' AS erp (TYPE postgres, READ_ONLY); FROM erp.t",
        "ATTACH 'host=db passwd = hunter2' AS erp (TYPE mysql, READ_ONLY); FROM erp.t",
        "ATTACH 'postgres://elt:hunter2@db/erp' AS erp (READ_ONLY); FROM erp.t",
        "FROM 'https://elt:hunter2@127.0.0.1:1/a.parquet'",
        "SELECT 1 FROMM 'https://127.0.0.1:1/a.parquet?a=b&sig=hunter2'",
        "FROM read_json('https://127.0.0.1:1/a.json?apikey=hunter2')",
        "FROM read_json('https://127.0.0.1:1/a.json?a=b&client_secret=hunter2')",
        "ATTACH $$host=db password=hunter2$$ AS erp (TYPE postgres, READ_ONLY); FROM erp.t",
        "ATTACH $a$host=db password=hunter2$a$ AS erp (TYPE postgres, READ_ONLY); FROM erp.t",
        "ATTACH E'host=db password=hunter2' AS erp (TYPE postgres, READ_ONLY); FROM erp.t",
        "FROM postgres_scan('user=u password = hunter2', 'public', 't')",
        "ATTACH 'host=db user=elt'' password=hunter2' AS erp (TYPE postgres, READ_ONLY); FROM erp.t",
    ],
)
@pytest.mark.parametrize("space", [" ", "\n"])
def test_a_secret_in_a_query_is_refused_and_not_repeated(query: str, space: str) -> None:
    lines = query.partition("hunter2")[0].count(" ") - 1 if space == "\n" and "=hunter2" in query else None
    with pytest.raises(JobConfigError, match=f"{PATH}:\\d+: holds a secret: .*service=erp") as caught:
        read_query(PATH, f"-- costs: password = 'ž'\n{query.replace(' ', space)}")
    said = str(caught.value)
    assert "hunter2" not in said and (lines is None or "db" not in query or said.startswith(f"{PATH}:{lines + 3}:"))


def test_what_is_no_text_may_be_called_password() -> None:
    read_query(
        PATH, "SELECT password=hash AS ok -- password=x\nFROM 'users.parquet' WHERE name <> 'pass' /* 'password=' */"
    )


@pytest.mark.parametrize(
    "said",
    [
        'Unable to connect at "host=db user=u password=hunter2": refused',
        "Unable to connect at \"host=db password = 'hunter2 hunter2' user=u\": refused",
        "parameters: PASSWD=hunter2 user=u",
        "cannot open mysql://u:hunter2@db/x, nor https://db/a?x=hunter2",
        "secret=hunter2, api_key=hunter2; PGPASSWORD=hunter2 access_token = hunter2",
    ],
)
def test_no_message_of_duckdb_shows_a_password(said: str) -> None:
    message = lib.extract.duckdb._words(PATH, lib.extract.duckdb.duckdb.IOException(f"IO Error: {said}"), 3)
    assert message.startswith(f"{PATH}:3: IO Error: ") and "hunter2" not in message and "..." in message


@pytest.mark.parametrize(
    "query, extension",
    [
        ("FROM\nread_xlsx('a.xlsx', all_varchar = true)", "excel"),
        ("FROM\nread_csv('a.csv', all_varchar = true, encoding = 'CP1250')", "encodings"),
        ("FROM\n'https://example.com/a.parquet'", "httpfs"),
        ("\nATTACH 'a.db' AS a (READ_ONLY, TYPE sqlite); FROM a.t", "sqlite-scanner"),
        ("\nATTACH 'service=erp' AS erp (TYPE postgres, READ_ONLY); FROM erp.t", "postgres-scanner"),
        ("SELECT (\nSELECT max(i) FROM mysql_query('a', 'SELECT 1 AS i')) AS i", "mysql-scanner"),
    ],
)
def test_an_extension_that_is_not_installed_is_named_before_a_run(
    monkeypatch: pytest.MonkeyPatch, query: str, extension: str
) -> None:
    read_query(PATH, query)
    monkeypatch.setattr(lib.extract.duckdb, "_extensions", lambda: iter(()))
    with pytest.raises(
        JobConfigError, match=f"^{PATH}:2: needs DuckDB's .* pip install duckdb-extension-{extension}=="
    ):
        read_query(PATH, query)
    read_query(PATH, "FROM read_csv('a.csv', all_varchar = true, encoding = 'utf-16')")


def test_all_queries_are_checked_before_a_run_and_all_mistakes_are_told(tmp_path: Path) -> None:
    loads = [Load(name, Extract("duckdb", f"extract/{name}.sql", f"FROM '{name}.csv'"), "bronze.a") for name in "ab"]
    with pytest.raises(JobConfigError) as caught:
        prepare_sources(Settings(root=tmp_path), loads, {})
    assert [line[:16] for line in str(caught.value).splitlines()] == ["extract/a.sql:1:", "extract/b.sql:1:"]


def test_check_names_a_csv_without_all_varchar_by_file_and_line(tmp_path: Path) -> None:
    scripts = {"extract/costs.sql": "SELECT *\nFROM 'a.csv'", "bronze/costs.sql": "SELECT 1;"}
    for path, text in scripts.items():
        (tmp_path / "sql_scripts" / path).parent.mkdir(parents=True)
        (tmp_path / "sql_scripts" / path).write_text(text)
    job = {"extract": {"duckdb": PATH}, "load": {"table": "bronze.costs"}, "transform": ["bronze/costs.sql"]}
    (tmp_path / "elt_jobs.json").write_text(json.dumps({"costs": job}))
    output = io.StringIO()
    assert check(Settings(root=tmp_path), Console(out=output, err=output), online=False) == 2
    assert f"{PATH}:2: FROM 'a.csv' guesses types" in output.getvalue()
    assert "Keboola" not in output.getvalue().replace("to ask Keboola", "")


def test_the_queries_of_the_documentation_are_accepted() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().partition("## Other sources")[2].partition("\n## ")[0]
    queries = re.findall("```sql\n(.*?)```", section, re.DOTALL)
    assert len(queries) == 4
    for query in queries:
        read_query(PATH, query)


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "lib.extract.duckdb")
    with pytest.raises(
        SettingsError, match="^a job with a duckdb .* pip install -r requirements-duckdb.txt$"
    ) as caught:
        prepare_sources(Settings(root=tmp_path), [Load("a", Extract("duckdb", PATH, CSV), "bronze.a")], {})
    assert caught.value.exit_code == 2


# ---- what arrives ----------------------------------------------------------------------------------------------------


def test_values_of_a_csv_arrive_as_text_and_an_empty_text_is_not_null(folder: Folder) -> None:
    assert folder.stream(CSV) == '00123,1.50\n"",2\n,3\n'
    assert folder.stream("FROM read_csv(['costs.csv'], ALL_VARCHAR => true)") == '00123,1.50\n"",2\n,3\n'
    # whoever wants it otherwise says so
    both = "FROM read_csv('c*.csv', all_varchar = true, allow_quoted_nulls = true);\n-- end"
    assert folder.stream(both) == "00123,1.50\n,2\n,3\n"


#: files, the options of read_csv, and the last lines that arrive
AS_WRITTEN: dict[str, tuple[dict[str, str], str, list[str]]] = {
    "a line with # is no comment": ({"a.csv": "sku,cost\n1,2\n#3,4\n"}, "", ["1,2", "#3,4"]),
    "a quote below the first rows": ({"a.csv": "sku,cost\n" + "1,2\n" * 30_000 + '7,"a,""b"\n'}, "", ['7,"a,""b"']),
    "another quote is a sign": ({"a.csv": "sku,cost\n1,'2'\n"}, "", ["1,'2'"]),
    "unless it is named": ({"a.csv": "sku,cost\n1,'a,''b'\n"}, "quote = ''''", ['''1,"a,'b"''']),
    "a folder is no value": ({"cost=9/a.csv": "sku,cost\n1,2\n"}, "", ["1,2"]),
    "unless it shall be": ({"cost=9/a.csv": "sku,cost\n1,2\n"}, "hive_partitioning = true", ["1,9"]),
    "quotes in the second file": ({"a.csv": "sku,cost\n1,2\n", "b.csv": '\ufeffsku,cost\nB,"2"\n'}, "", ["1,2", "B,2"]),
    "a header like the rows": ({"a.csv": "sku,cost\nsku,cost\n"}, "", ["sku,cost"]),
    "numbers as names": ({"a.csv": "1,2\n3,4\n"}, "", ["3,4"]),
    "tabs": ({"a.csv": "sku\tcost, EUR\n1\t2,5\n"}, "sep = '\t'", ['1,"2,5"']),
    "below a title": ({"a.csv": "Costs\n\nsku,cost\n1,2\n"}, "skip = 2", ["1,2"]),
}


@pytest.mark.parametrize("case", AS_WRITTEN)
def test_nothing_about_a_csv_is_guessed(folder: Folder, case: str) -> None:
    (folder.root / "costs.csv").unlink()
    files, options, lines = AS_WRITTEN[case]
    for name, content in files.items():
        folder.put(name, content)
    query = f"FROM read_csv('{'*/' * ('/' in [*files][0])}*.csv', all_varchar = true{', ' * bool(options)}{options})"
    found = [next(csv.reader([line])) for line in lines]
    assert folder.rows(query)[-len(found) :] == found
    assert folder.rows(query.replace("FROM", "SELECT count(*) AS n FROM")) in ([[str(len(found))]], [["30001"]])


@pytest.mark.parametrize(
    "files",
    [
        {"a.csv": '1,"2\n'},
        {"a.csv": "1,2\n" * 9 + "3,4,5\n"},
        {"a.csv": "sku,cost\n1\n"},
        {"a.csv": "sku;cost, EUR\n1;2,5\n"},
        {"a.csv": "", "b.csv": "sku,cost\n1,2\n"},
        {"a.csv": "sku,cost\n1,2\r\n3,4\n"},
        {"a.csv": "\n\nsku,cost\n1,2\n"},
        {"a.csv": "\ufeff\r\nsku,cost\r\n1,2\r\n"},
    ],
)
def test_a_csv_that_is_not_what_it_should_be_is_refused(folder: Folder, files: dict[str, str]) -> None:
    (folder.root / "costs.csv").unlink()
    for name, content in files.items():
        folder.put(name, content)
    said = folder.refusal("SELECT sku, cost FROM read_csv('*.csv', all_varchar = true)")
    assert said.startswith(PATH) and ("a.csv" in said or '"sku;cost"' in said), said


@pytest.mark.parametrize(
    "content, said",
    [
        (
            '1,"2\n',
            "a.csv: this is no CSV as the query describes it: a row has too few or too many values, a quote is not",
        ),
        (
            "sku,cost\n" + "1,2\n" * 30_000 + '3,"hunter2\n4,hunter2\n',
            "a.csv: Invalid Input Error: CSV Error on Line: 30002",
        ),
        ("sku,cost\n" + "1,2\n" * 30_000 + "3,4\r\n5,6\n", "CSV"),
        ("sku,cost\n1,Žluť\n".encode("cp1250"), "This file is not utf-8 encoded.: write encoding = 'CP1250'"),
    ],
)
def test_a_message_about_a_csv_names_the_file_and_what_to_write(
    folder: Folder, content: bytes | str, said: str
) -> None:
    folder.put("a.csv", content)
    message = folder.refusal("SELECT sku FROM read_csv('a.csv', all_varchar = true)")
    assert said in message and "hunter2" not in message and "ignore_errors" not in message and len(message) < 500


def test_a_file_without_header_may_be_empty(folder: Folder) -> None:
    folder.put("a.csv", "")
    folder.put("b.csv", "1,2\n")
    assert folder.stream("FROM read_csv(['b.csv', 'a.csv'], all_varchar = true, header = false)") == "1,2\n"


def test_json_arrives_as_text_as_it_stands_in_the_file(folder: Folder) -> None:
    late = '{"sku": "A", "cost": 5.5, "on": "2026-01-05T01:02:03Z", "new": [1, {"b": "c"}]}\n{"sku": null, "cost": "x"}'
    folder.put("a.json", '{"sku": 1, "cost": 5, "on": "2026-01-05"}\n' * 20_500 + late)
    expected = """A,5.5,2026-01-05T01:02:03Z,"[1,{""b"":""c""}]"\n,x,,\n"""
    for reader in ("read_json", "read_ndjson_auto"):
        assert folder.stream(f"FROM {reader}('a.json') LIMIT 1") == "1,5,2026-01-05,\n"
        assert folder.stream(f"FROM {reader}('a.json') WHERE cost <> '5'") == expected
    assert folder.stream("SELECT t.cost FROM read_json('a.json') t WHERE sku > '1'") == "5.5\n"
    assert folder.stream("SELECT read_json.cost FROM read_json('a.json' -- )\n) WHERE sku = 'A'") == "5.5\n"
    typed = "SELECT cost + 1 AS cost FROM read_json('b.json', columns = {cost: 'DECIMAL(9, 2)'})"
    folder.put(
        "b.json", '[{"cost": 5.5, "id": 12345678901234567890123, "key": "550E8400-E29B-41D4-A716-446655440000"}]'
    )
    assert folder.stream(typed) == "6.50\n"
    assert folder.stream("FROM read_json('b.json')") == (
        "5.5,12345678901234567890123,550E8400-E29B-41D4-A716-446655440000\n"
    )
    # 32 files would be looked at
    for number in range(34):
        folder.put(f"many/{number:02}.json", f'{{"sku": "{number}", "cost": {number / 2 if number > 32 else 1}}}')
    assert folder.stream("FROM read_json('many/*.json')").endswith("32,1\n33,16.5\n")
    folder.put("cost=9/a.json", '[{"sku": "z", "cost": 5.5}]')
    assert folder.stream("FROM read_json('*=*/a.json')") == "z,5.5\n"
    assert folder.stream("SELECT json->>'cost' AS cost FROM read_json_objects('*=*/a.json')") == "5.5\n"
    folder.put("wide.json", "\n".join(f'{{"k{number}": 1}}' for number in range(50)))  # few objects have each name
    assert len(folder.rows("FROM read_json('wide.json')")[0]) == 50


def test_excel_loses_no_row_and_no_time(folder: Folder) -> None:
    book = openpyxl.Workbook()
    for row in (
        ("sku", "cost", "on"),
        ("007", 3, datetime(2026, 1, 31)),
        (None, None, None),
        (12, 1.5, datetime(2026, 1, 31, 5, 6, 7)),
        ("X", None, None),
    ):
        book.active.append(row)
    book.active.cell(90, 1).number_format = "0.00"  # below the last row: no value
    book.save(folder.root / "a.xlsx")
    read = "read_xlsx('a.xlsx', all_varchar = true)"
    assert folder.stream(f"FROM {read}") == "007,3,46053\n12,1.5,46053.21258101852\nX,,\n"
    time = """TIMESTAMP '1899-12-30' + INTERVAL 1 SECOND * round("on"::DOUBLE * 86400)"""
    rows = folder.rows(f'SELECT {time} AS "on" FROM {read} WHERE cost::DOUBLE > 1')
    assert rows == [["2026-01-31 00:00:00"], ["2026-01-31 05:06:07"]]
    assert folder.stream(f"SELECT a.sku FROM {read.replace(')', ', stop_at_empty = true)')} AS a") == "007\n"


def test_a_folder_of_parquet_files_gives_no_values(folder: Folder) -> None:
    (folder.root / "cost=9").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"sku": ["A"], "cost": [1.5]}), folder.root / "cost=9" / "a.parquet")
    for reader in ("read_parquet('cost=9/a.parquet'", "parquet_scan(['*/*.parquet']"):
        assert folder.stream(f"FROM {reader})") == "A,1.5\n"
        assert folder.stream(f"FROM {reader}, hive_partitioning = true)") == "A,9\n"


def test_what_arrives_depends_on_no_setting_of_this_machine(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    names = ("TimeZone", "autoinstall_known_extensions", "autoload_known_extensions")
    query = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    assert folder.rows(query) == [["UTC", "false", "false"]]
    assert "Table with name stats does not exist" in folder.refusal("FROM stats")  # a variable of lib.extract.duckdb


def test_a_csv_of_windows_1250_with_semicolons(folder: Folder) -> None:
    folder.put("czech.csv", "sku;název\n007;Žluťoučký kůň\n".encode("cp1250"))
    query = "FROM read_csv('czech.csv', all_varchar = true, delim = ';', encoding = 'CP1250')"
    with rows_of(folder, query, ["název", "sku"]) as stream:  # not `rows`, which loads the 350 MB of encodings twice
        assert stream.read(1000).decode() == "Žluťoučký kůň,007\n"


def test_parquet_and_sqlite(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # relative paths begin in the project, wherever it is started
    table = pyarrow.table({"sku": ["007", None, ""], "cost": [1.5, 2.0, None], "day": [date(2026, 1, 5)] * 3})
    pyarrow.parquet.write_table(table, folder.root / "costs.parquet")
    assert folder.stream("FROM 'costs.parquet'") == '007,1.5,2026-01-05\n,2.0,2026-01-05\n"",,2026-01-05\n'
    with sqlite3.connect(folder.root / "it's.db") as database:
        database.execute("CREATE TABLE costs (sku text, cost integer)")
        database.execute("INSERT INTO costs VALUES ('007', 5), ('', NULL)")
    database.close()
    attached = "ATTACH 'it''s.db' AS erp (TYPE sqlite, READ_ONLY);\nFROM erp.costs"
    assert folder.stream(attached) == '007,5\n"",\n'


def test_values_of_sqlite_arrive_as_they_are_stored_whatever_their_column_declares(folder: Folder) -> None:
    with sqlite3.connect(folder.root / "a.db") as database:
        database.execute("CREATE TABLE t (day date, at timestamp, n integer, x real, flag boolean, sku)")
        database.execute("INSERT INTO t VALUES ('2026-01-01 05:06:07', '2026-01-01', 'abc', 1.5, 5, '007')")
        database.execute("INSERT INTO t VALUES (20260101, 'soon', 9007199254740993, NULL, 'f', '')")
    database.close()
    expected = '2026-01-01 05:06:07,2026-01-01,abc,1.5,5,007\n20260101,soon,9007199254740993,,f,""\n'
    attach = "ATTACH 'a.db' AS a (TYPE sqlite, READ_ONLY);\n"
    for query in (f"{attach}FROM a.t", f"{attach}FROM sqlite_query('a', 'SELECT * FROM t')"):
        assert folder.stream(query) == expected
    assert "Cannot compare values of type VARCHAR" in folder.refusal(f"{attach}FROM a.t WHERE flag > 1")


@pytest.fixture
def web(folder: Folder) -> Iterator[str]:
    """The folder by HTTP, without ranges."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def copyfile(self, source, outputfile) -> None:
            data = source.read()
            outputfile.write(data[: len(data) // 2] if "cut" in self.path else data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder.root))
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_from_the_web_arrives_whole_or_fails_without_its_urls_query(folder: Folder, web: str) -> None:
    query = f"FROM read_csv('{web}/costs.csv?key=hunter2', all_varchar = true)"
    assert folder.stream(query) == '00123,1.50\n"",2\n,3\n'
    assert not folder.table(query).version_lasts
    for name, said in {"costs.csv?cut=hunter2&key": "", "none.csv?key": "none.csv?...'"}.items():
        refused = folder.refusal(query.replace("costs.csv?key", name))
        assert refused.startswith(PATH) and said in refused and "hunter2" not in refused


def test_a_file_that_is_cut_or_damaged_is_refused(folder: Folder) -> None:
    text = "id\n" + "".join(f"{number}\n" for number in range(50_000))
    packed = gzip.compress(text.encode())
    query = "FROM read_csv('packed.csv', all_varchar = true, compression = 'gzip')"
    folder.put("packed.csv", packed + packed)
    assert len(folder.rows(query)) == 100_001  # two members; only the first has a header line
    for content, said in {
        packed[:-4]: "the gzip data end early",
        packed[: len(packed) // 2]: "the gzip data end early",
        packed[:-8] + b"\0\0\0\0" + packed[-4:]: "the gzip data are damaged",
        b"\x28\xb5\x2f\xfd": "nobody can tell whether a zstd file is complete",
    }.items():
        folder.put("packed.csv", content)
        with pytest.raises(ExtractError, match=f"{PATH}: .*packed.csv: {said}"):
            list(iter(partial(rows_of(folder, query, ["id"]).read, 1000), b""))
    pyarrow.parquet.write_table(pyarrow.table({"id": [*range(50_000)]}), folder.root / "whole.parquet")
    whole = (folder.root / "whole.parquet").read_bytes()
    folder.put("whole.parquet", whole[: len(whole) // 2])
    assert "No magic bytes" in folder.refusal("FROM 'whole.parquet'")


def rows_of(folder: Folder, query: str, columns: list[str]):
    extractor = folder.extractor(query)
    table = SourceTable(PATH, tuple(columns), None, True, "")
    return extractor.finish(extractor.start(table, columns)).slices[0].open()


def test_a_query_that_fails_after_its_first_rows_fails(folder: Folder) -> None:
    query = "SELECT CASE WHEN i = 900000 THEN error('spoilt at the end') ELSE i END AS i FROM range(1000000) AS r (i)"
    with rows_of(folder, query, ["i"]) as stream:
        assert stream.read(1000)
        with pytest.raises(ExtractError, match=f"{PATH}: .*spoilt at the end"):
            list(iter(lambda: stream.read(100_000), b""))


def test_a_query_ends_when_its_reader_does(folder: Folder) -> None:
    endless = "SELECT sum(a.i * b.i) AS i FROM range(10000000000) AS a (i), range(10000000000) AS b (i)"
    for query in (endless, "SELECT i FROM range(10000000000) AS r (i)"):
        stream = rows_of(folder, query, ["i"])
        if query != endless:
            stream.read(10)
        with stream:
            pass
        for thread in threading.enumerate():
            if thread.name == f"DuckDB {PATH}":
                thread.join(1)
                assert not thread.is_alive()


def test_a_stop_does_not_wait_for_a_database_that_does_not_answer(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lib.extract.duckdb, "END_WITHIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def stop(seconds: float) -> None:
            raise Cancelled()

        query = f"ATTACH 'host=127.0.0.1 port={port} sslmode=disable' AS erp (TYPE postgres, READ_ONLY); FROM erp.t"
        with pytest.raises(Cancelled):
            folder.extractor(query, stop).table(PATH)


# ---- versions --------------------------------------------------------------------------------------------------------


def test_the_version_of_a_source_of_files_is_their_names_sizes_and_times(folder: Folder) -> None:
    query = CSV.replace("costs", "c*")
    os.utime(folder.root / "costs.csv", (0, 1_700_000_000))
    first = folder.table(query)
    assert first.version_lasts and folder.table(query).version == first.version
    assert first.imported_at and first.imported_at.timestamp() == 1_700_000_000
    seen = {first.version, folder.table(query + " LIMIT 1").version}
    for change in (
        lambda: os.utime(folder.root / "costs.csv", (1, 1)),
        lambda: folder.put("costs2.csv", "sku,cost\n1,2\n"),
        lambda: folder.put("costs.csv", "sku,cost\n9,9\n"),
        lambda: (folder.root / "costs2.csv").rename(folder.root / "costs3.csv"),
    ):
        change()
        seen.add(folder.table(query).version)
    assert len(seen) == 6


@pytest.mark.parametrize(
    "query",
    [
        "FROM sqlite_scan('/{}/erp.db', 't')",
        f"SELECT *, (SELECT count(*) FROM glob('*')) AS n {CSV}",
        "SELECT * FROM information_schema.tables",
    ],
)
def test_the_version_of_anything_else_holds_for_one_run(folder: Folder, query: str) -> None:
    with sqlite3.connect(folder.root / "erp.db") as database:
        database.execute("CREATE TABLE t (id text)")
    database.close()
    extractor = folder.extractor(query.replace("/{}", str(folder.root)))
    first = extractor.table(PATH)
    assert not first.version_lasts and extractor.table(PATH).version == first.version
    assert folder.table(query.replace("/{}", str(folder.root))).version != first.version
