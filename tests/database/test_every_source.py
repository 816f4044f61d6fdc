"""What holds for every kind of source: a run loads it whole, as text, or keeps what was loaded before and says why."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lib.cli.check import check
from lib.cli.console import Console
from lib.config.settings import Postgres
from lib.errors import ExtractError
from lib.extract.duckdb import DuckdbExtractor
from lib.load.guards import Accepted
from lib.stop import StopSignal
from sandbox.faults import Fault
from tests.support.project import Project, assert_it_is_still_monday, newest_run

Rows = Sequence[tuple[str | None, ...]]


class KeboolaSource:
    """Job c loads a table of Keboola."""

    id = r"in\.c-main\.c"

    def __init__(self, project: Project) -> None:
        self.project = project

    def put(self, rows: Rows, columns: Sequence[str] = ("id", "v")) -> None:
        self.project.keboola.faults.clear()
        self.project.put("c", rows, columns, typed=True)

    def cut(self) -> str:
        """Cut the file in the middle. Returns what the run says."""
        self.project.keboola.faults.add(Fault("slice", "truncate", at=0.5, nth=None, path="%2Fc%2F"))
        return "the gzip data end early"

    def hang(self) -> None:
        self.project.keboola.faults.add(Fault("slice", "stall", at=0.5, path="%2Fc%2F"))


class DuckdbSource:
    """Job c loads a Parquet file."""

    id = r"extract/c\.sql"

    def __init__(self, project: Project) -> None:
        self.project = project
        self.file = project.root / "data" / "c.parquet"
        self.file.parent.mkdir()
        project.registry["c"]["extract"] = {"duckdb": "extract/c.sql"}
        project.script("extract/c.sql", "-- c\nFROM 'data/c.parquet'\n")

    def put(self, rows: Rows, columns: Sequence[str] = ("id", "v")) -> None:
        by_column = {name: pyarrow.array([row[place] for row in rows], "string") for place, name in enumerate(columns)}
        pyarrow.parquet.write_table(pyarrow.table(by_column), self.file)

    def cut(self) -> str:
        self.file.write_bytes(self.file.read_bytes()[: self.file.stat().st_size // 2])
        return "No magic bytes found at end of file"

    def hang(self) -> None:
        self.project.script(
            "extract/c.sql",
            "SELECT sum(a.i * b.i) AS id, 'x' AS v FROM range(10000000000) a (i), range(10000000) b (i)",
        )


Source = KeboolaSource | DuckdbSource


@pytest.fixture(params=[KeboolaSource, DuckdbSource], ids=["keboola", "duckdb"])
def source(request: pytest.FixtureRequest, monday: Project) -> Source:
    return request.param(monday)


def test_text_arrives_as_it_is_and_null_is_no_empty_text(source: Source) -> None:
    rows = [("1", "00123"), ("2", ""), ("3", None), ("4", "\\."), ("5", ' "a",\r\n🦊'), ("6", "NULL"), ("7", "\\N")]
    source.put(rows)
    assert source.project.run("c").exit_code == 0, source.project.output
    assert source.project.rows("bronze.c") == rows


def test_a_bad_export_is_named_and_mondays_rows_stay(source: Source) -> None:
    ten = [(str(number), "tuesday") for number in range(10)]

    def nul() -> str:
        source.put([*ten, ("10", "a\0b")])
        return "line .*invalid byte sequence.* 0x00"

    def missing() -> str:
        source.put([(number,) for number, _ in ten], columns=("id",))
        return "has no column 'v'"

    def empty() -> str:
        source.put([])
        return "the export has 0 rows, min_rows is 1"

    def cut() -> str:
        source.put(ten)
        return source.cut()

    cases: list[Callable[[], str]] = [nul, missing, empty, cut]
    for case in cases:
        said = case()
        assert source.project.run("c").exit_code == 1
        subject = r"bronze\.c" if case is empty else source.id
        assert newest_run(source.project)[0] == "failed"
        ((error,),) = source.project.database.sql(
            "SELECT error FROM elt.job_runs WHERE job = 'c' ORDER BY run_id DESC LIMIT 1"
        )
        assert re.search(f"{subject}.*{said}", error), error
        assert_it_is_still_monday(source.project)
        assert source.project.keboola.token not in source.project.output
    source.put(ten)
    assert source.project.run("c").exit_code == 0, source.project.output
    source.put([])
    emptied = Accepted(frozenset({("c", "empty")}))
    assert source.project.run("c", accepted=emptied).exit_code == 0, source.project.output
    assert source.project.rows("bronze.c") == []


def test_a_stop_ends_a_source_that_does_not_answer(source: Source) -> None:
    source.put([(str(number), "tuesday") for number in range(1000)])
    source.hang()
    stop = StopSignal()
    copying = "SELECT FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active'"

    def stop_when_it_copies() -> None:
        while not source.project.database.sql(copying):
            pass
        stop.request()

    stopper = threading.Thread(target=stop_when_it_copies)
    stopper.start()
    assert source.project.run("c", stop=stop).exit_code == 130
    stopper.join()
    source.project.keboola.faults.release()
    assert_it_is_still_monday(source.project)


# ---- several kinds in one run ----------------------------------------------------------------------------------------


def test_a_group_of_keboola_and_a_database_loads_as_a_whole_only(
    monday: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is the test's own PostgreSQL, found by its service."""
    arguments = monday.database.connect_args
    services = tmp_path / "services.conf"
    services.write_text("[erp]\n" + "".join(f"{key}={value}\n" for key, value in arguments.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monday.database.sql("CREATE TABLE public.costs (id text, v text, cost numeric(6, 2))")
    monday.database.sql("INSERT INTO public.costs SELECT i, 'tuesday', i / 4.0 FROM generate_series(1, 10) AS i")
    monday.registry["b"]["extract"] = {"duckdb": "extract/b.sql"}
    monday.script("extract/b.sql", "ATTACH 'service=erp' AS erp (TYPE postgres, READ_ONLY);\nFROM erp.public.costs;\n")
    refused = (
        "a and b no longer match: extract/b.sql may have changed in the source since it was loaded. Run all of them:"
    )
    assert monday.run("a").exit_code == 1
    assert f"{refused} python main.py run a b" in monday.output
    assert monday.run("a", "b").exit_code == 0, monday.output
    assert monday.day("silver.a") == monday.day("silver.b") == "tuesday"
    assert monday.run("a").exit_code == 1 and refused in monday.output  # also where nothing changed
    ((source,),) = monday.database.sql("SELECT source FROM elt.runs ORDER BY run_id DESC LIMIT 1")
    assert source.startswith("Keboola project ") and " and DuckDB " in source


def test_a_number_of_postgresql_is_not_rounded(
    monday: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services.conf"
    services.write_text("[erp]\n" + "".join(f"{key}={value}\n" for key, value in monday.database.connect_args.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    attach = "ATTACH 'service=erp' AS erp (TYPE postgres, READ_ONLY);\n"
    written = "FROM postgres_query('erp', 'SELECT a::text AS a, .. FROM public.costs')"
    monday.database.sql("CREATE TABLE public.costs (a numeric, b numeric(50, 6), c numeric(38, 6), d float8)")
    monday.database.sql("INSERT INTO public.costs VALUES ('NaN', 12345678901234567890.123456, 1.5, 0.1)")

    def columns(query: str) -> tuple[str, ...]:
        extractor = DuckdbExtractor(tmp_path, {"extract/c.sql": attach + query}, pause=lambda seconds: None)
        return extractor.table("extract/c.sql").columns

    for query in ("FROM erp.costs", "SELECT c, a FROM erp.public.costs", "SELECT b FROM erp.costs"):
        with pytest.raises(ExtractError, match="^extract/c.sql: public.costs.[ab] is numeric without a prec") as caught:
            columns(query)
    assert str(caught.value).endswith(written.replace("a::text AS a", "b::text AS b"))
    assert columns("SELECT c, d FROM erp.costs") == ("c", "d")
    assert columns(written.replace(", ..", ", b::text AS b")) == ("a", "b")


def test_a_job_of_duckdb_alone_needs_no_keboola(monday: Project) -> None:
    source = DuckdbSource(monday)
    source.put([("1", "wednesday")])
    monday.settings = replace(monday.settings, keboola_url=None, keboola_token=None)
    accepted = Accepted(frozenset({("c", "shrink")}))
    assert monday.run("c", accepted=accepted).exit_code == 0, monday.output
    assert monday.day("silver.c") == "wednesday"


def test_check_asks_each_kind_of_source(monday: Project) -> None:
    DuckdbSource(monday).put([("1", "x")], columns=("id", "w"))
    monday.write_registry()
    output = io.StringIO()
    address = monday.database.connect_args
    server = Postgres(host=address["host"], port=int(address["port"]), dbname=address["dbname"], user=address["user"])
    settings = replace(monday.settings, postgres=server)
    assert check(settings, Console(out=output, err=output), online=True) == 2
    said = output.getvalue()
    assert "ok: Keboola project" in said and "ok: job a: in.c-main.a, 2 columns, 10 rows" in said
    assert "ok: DuckDB " in said and "extract/c.sql has no column 'v', but 'w'" in said
