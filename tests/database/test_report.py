"""The page: what it says of a good and a bad morning, hostile values, errors, limits, and the file itself."""

from __future__ import annotations

import os
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from lib.errors import DatabaseError, EltError, SettingsError
from lib.postgres.connection import Database
from lib.report.answers import SHOWN, ask, reading
from lib.report.page import collect, write_page
from lib.run.plan import read_project
from lib.stop import start_thread
from tests.support import ROOT
from tests.support.colleague import somebody_holding
from tests.support.databases import sql
from tests.support.project import Project

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{ 7*7 }}"


@pytest.fixture
def pages(monday: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that was loaded on monday, with the template of the page and one question."""
    (monday.root / "report/questions").mkdir(parents=True)
    for name in ("page.html.j2", "page.css", "page.js"):
        shutil.copy(ROOT / "report" / name, monday.root / "report" / name)
    question(
        monday, "10_all", "-- What is there?\n-- chart: bar x=id y=id\nSELECT id, a, b FROM gold.both ORDER BY id;"
    )
    # libpq reads these; the settings of a test project name no database
    for name, value in monday.connect_args.items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), value)
    return monday


def question(project: Project, name: str, text: str) -> None:
    (project.root / f"report/questions/{name}.sql").write_text(text, encoding="utf-8")


def database_of(project: Project) -> Database:
    return Database(project.settings)


def page_of(project: Project) -> str:
    project.write_registry()
    output = project.root / "page.html"
    write_page(database_of(project), read_project(project.root), output)
    return output.read_text(encoding="utf-8")


def test_a_good_morning_is_sound_and_every_section_is_there(pages: Project) -> None:
    assert pages.run().exit_code == 0
    page = page_of(pages)
    assert '<p class="health warning" id="health"><strong>Look at this:</strong> run 2 done' in page
    assert "the source of a was last imported" in page, "the sandbox's clock is months behind"
    pages.database.sql("UPDATE elt.job_runs SET source_imported_at = now() WHERE source_imported_at IS NOT NULL")
    page = page_of(pages)
    assert '<p class="health good" id="health"><strong>Sound:</strong> run 2 done' in page
    for heading in (
        "Is it sound?",
        "Questions",
        "What the last runs changed",
        "How tables come from each other",
        "Runs",
    ):
        assert re.search(rf"<h2 [^>]*>{re.escape(heading)}</h2>", page)
    assert '<h3 id="title-1">What is there?</h3>' in page
    assert re.search(r'<td class="number">10</td><td>tuesday</td><td>tuesday</td>', page)
    assert "~10" in page, "what silver/a.sql changed"
    assert 'href="#table-silver.a"' in page and "a and b side by side." in page
    assert "http" not in re.sub(r"xmlns=\"[^\"]*\"", "", page).replace(pages.settings.keboola_url or "", "")


def test_a_bad_morning_says_what_is_wrong_since_when_and_why(pages: Project) -> None:
    pages.script("checks/few.sql", "SELECT id FROM gold.both WHERE id < 3;")
    pages.registry["both"]["checks"] = [{"script": "checks/few.sql", "on_failure": "warn"}]
    pages.run()
    pages.script("silver/c.sql", f"SELECT 1 AS \"{HOSTILE.replace(chr(34), '')}\" FROM oops;")
    for _ in range(2):
        assert pages.run().exit_code == 1
    pages.database.sql("UPDATE elt.job_runs SET recorded_at = '2026-01-02 03:04Z' WHERE run_id = 3")
    page = page_of(pages)
    assert '<p class="health bad" id="health"><strong>Not sound:</strong> run 4 failed' in page
    assert "<strong>c</strong> failed since 2026-01-02 03:04" in page
    assert "silver/c.sql:1: relation &#34;oops&#34; does not exist" in page
    assert re.search(r"checks/few.sql warns of 2 rows, since \d{4}-", page)
    assert "<script>alert" not in page


def test_hostile_values_are_only_text(pages: Project) -> None:
    for table in ("a", "b", "c"):
        pages.put(table, [("1", HOSTILE)])
    pages.registry["both"]["checks"] = []
    for name in ("a", "b", "c"):
        pages.registry[name]["load"] |= {"max_shrink_percent": 100}
    assert pages.run().exit_code == 0
    literal = HOSTILE.replace("'", "''")
    pages.database.sql(
        f"COMMENT ON TABLE silver.a IS '{literal}'; COMMENT ON COLUMN silver.a.v IS '{literal}';"
        f" UPDATE elt.runs SET error = '{literal}', process = '{literal}'"
    )
    question(
        pages, "20", f"-- {HOSTILE}\n-- {HOSTILE}\n-- chart: line x=a y=id color=b\nSELECT a, b, id FROM gold.both"
    )
    page = page_of(pages)
    assert page.count(HOSTILE.partition("'")[0].replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")) >= 6
    assert "<script>alert" not in page and "<img" not in page and "49" not in re.findall(r"\{\{.*?\}\}", page)
    assert page.count("<script>") == 1


def test_a_question_that_fails_leaves_the_others(pages: Project) -> None:
    question(pages, "05_broken", "-- Broken\nSELECT oops FROM gold.both;")
    question(pages, "06_two", "-- Two\nSELECT 1; SELECT 2;")
    question(pages, "07_chart", "-- Odd chart\n-- chart: pie x=a y=b\nSELECT a, b FROM gold.both;")
    question(pages, "08_columns", "-- Other columns\n-- chart: line x=day y=id\nSELECT id FROM gold.both;")
    question(pages, "09_write", "-- Writing\nWITH x AS (DELETE FROM silver.a RETURNING 1) SELECT * FROM x;")
    page = page_of(pages)
    assert "No answer. report/questions/05_broken.sql:2: column &#34;oops&#34; does not exist" in page
    assert "Look at this:" in page and "part of this page could not be read: report/questions/05_broken" in page
    assert "report/questions/06_two.sql:2: a question is one SELECT" in page
    assert "report/questions/07_chart.sql:2: a chart is one of line, bar, not &#39;pie&#39;" in page
    assert "the chart&#39;s x names &#39;day&#39;, but the answer has id" in page
    assert re.search(r'<td class="number">10</td><td>monday</td>', page)
    assert len(pages.rows("silver.a")) == 10


def test_a_question_has_its_time_and_then_the_next_one_is_asked(pages: Project) -> None:
    with reading(database_of(pages), []) as connection:
        assert ask(connection, "SELECT pg_sleep(60)", seconds=0.2).error == "no answer within 0.2 s"
        assert ask(connection, "SELECT 7 AS n").rows == (("7",),)


def test_all_is_read_as_of_one_moment(pages: Project) -> None:
    with reading(database_of(pages), []) as connection:
        assert ask(connection, "SELECT count(*) FROM silver.c").rows == (("10",),)
        pages.database.sql("DELETE FROM silver.c")
        assert ask(connection, "SELECT count(*) FROM silver.c").rows == (("10",),)
        assert "read-only transaction" in ask(connection, "SELECT nextval('elt.runs_run_id_seq')").error


def test_a_long_answer_is_counted_and_not_kept(pages: Project) -> None:
    with reading(database_of(pages), []) as connection:
        tracemalloc.start()
        found = ask(connection, "SELECT n, repeat('x', 1000) AS text FROM generate_series(1, 1000000) AS n")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (found.total, len(found.rows)) == (1_000_000, SHOWN)
    assert peak < 2_000_000
    assert len(found.rows[0][1] or "") == 300 and (found.rows[0][1] or "").endswith("…")
    question(pages, "10_all", "-- Many\nSELECT * FROM generate_series(1, 12345) AS n")
    assert "The first 100 of 12,345 rows." in page_of(pages)


def test_values_are_those_of_psql(pages: Project) -> None:
    odd = (
        "SELECT 0.10::numeric, 1e300::float8, 'infinity'::date, NULL::text, '', true, ARRAY[1, NULL],"
        " '2026-01-31 10:00Z'::timestamptz"
    )
    with reading(database_of(pages), []) as connection:
        (row,) = ask(connection, odd).rows
    assert row == ("0.10", "1e+300", "infinity", None, "", "t", "{1,NULL}", "2026-01-31 10:00:00+00")


def test_an_old_page_stays_where_no_new_one_can_be_made(pages: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of(pages)
    output = pages.root / "page.html"
    before = output.stat().st_ino
    monkeypatch.setenv("PGPORT", "1")
    with pytest.raises(DatabaseError, match="cannot connect"):
        page_of(pages)
    assert output.stat().st_ino == before
    monkeypatch.setenv("PGPORT", pages.connect_args["port"])
    (pages.root / "report/page.html.j2").write_text("{{ nowhere }}")
    with pytest.raises(SettingsError, match="template in .*report cannot be used: 'nowhere' is undefined"):
        page_of(pages)
    assert sorted(path.name for path in pages.root.glob("*.html*")) == ["page.html"]
    assert output.stat().st_ino == before


@pytest.mark.parametrize("place", ["nowhere/page.html", "."])
def test_a_place_that_cannot_be_written_is_named(pages: Project, place: str) -> None:
    pages.write_registry()
    with pytest.raises(EltError, match=r"the page cannot be written to .*: (No such|Is a)"):
        write_page(database_of(pages), read_project(pages.root), pages.root / Path(place))


def test_a_pipe_is_written_to_and_a_link_stays_a_link(pages: Project) -> None:
    """Replacing /dev/null by a file would harm the whole machine."""
    pages.write_registry()
    pipe, link = pages.root / "pipe", pages.root / "link.html"
    os.mkfifo(pipe)
    reading = start_thread(pipe.read_text, "reader")
    write_page(database_of(pages), read_project(pages.root), pipe)
    assert "Is it sound?" in reading.result(30) and pipe.is_fifo()
    link.symlink_to(pages.root / "real.html")
    write_page(database_of(pages), read_project(pages.root), link)
    assert link.is_symlink() and "Is it sound?" in (pages.root / "real.html").read_text()


def test_a_database_without_a_run_has_a_page_too(pages: Project) -> None:
    pages.database.sql("DROP SCHEMA elt CASCADE")
    assert "Look at this:</strong> nothing was loaded yet; type: python" in page_of(pages)


def test_a_question_that_ends_its_connection_is_named(pages: Project) -> None:
    question(pages, "05_end", "-- End\nSELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseError, match="report/questions/05_end.sql: it ended the connection"):
        page_of(pages)


def test_a_lock_is_no_reason_to_call_all_of_it_sound(pages: Project) -> None:
    pages.database.sql("UPDATE elt.job_runs SET source_imported_at = now() WHERE source_imported_at IS NOT NULL")
    with somebody_holding(pages, "elt.job_runs", "ACCESS EXCLUSIVE"):
        pages.write_registry()
        output = pages.root / "page.html"
        write_page(Database(pages.settings, lock_timeout=0.1), read_project(pages.root), output)
    page = output.read_text()
    assert "Look at this:" in page or "Not sound:" in page
    assert "canceling statement due to lock timeout" in page


def test_a_job_that_left_the_registry_does_not_count(pages: Project) -> None:
    pages.script("silver/c.sql", "SELECT oops;")
    assert pages.run().exit_code == 1
    del pages.registry["c"]
    assert pages.run().exit_code == 0
    page = page_of(pages)
    assert "Not sound" not in page and re.search("<td>c</td><td>removed</td>", page)


def test_wide_rows_do_not_fill_the_memory(pages: Project) -> None:
    with reading(database_of(pages), []) as connection:
        tracemalloc.start()
        found = ask(connection, "SELECT n, repeat('x', 5000000) FROM generate_series(1, 30) AS n")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(found.rows) == 30 and peak < 40_000_000


def test_the_page_keeps_the_mode_of_its_file(pages: Project) -> None:
    page_of(pages)
    (pages.root / "page.html").chmod(0o640)
    page_of(pages)
    assert (pages.root / "page.html").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("change", ["ALTER VIEW gold.both OWNER TO {}", "CREATE SCHEMA lab AUTHORIZATION {}"])
def test_code_of_a_stranger_is_not_run(pages: Project, change: str) -> None:
    name = f"{pages.database.name}_stranger"
    sql(pages.database.connect(), f"CREATE ROLE {name} LOGIN; {change.format(name)}")
    if "lab" in change:
        sql(pages.database.connect(), f"SET ROLE {name}; CREATE VIEW lab.v AS SELECT 1 AS one; RESET ROLE")
        question(pages, "05_lab", "-- Lab\nSELECT one FROM lab.v;")
    try:
        with pytest.raises(DatabaseError, match="nothing was done, because code of other roles would run"):
            pages.write_registry()
            collect(database_of(pages), read_project(pages.root))
    finally:
        pages.database.sql(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_the_largest_changes_in_silver_are_those_of_the_last_run_that_published(pages: Project) -> None:
    def largest() -> list[tuple]:
        found = collect(database_of(pages), read_project(pages.root)).largest
        assert not found.error
        return [row[:3] + row[4:] for row in found.rows if row[0] == "silver.c"]

    pages.script(
        "silver/c.sql",
        "CREATE TABLE IF NOT EXISTS silver.c (id integer PRIMARY KEY, pieces integer, price numeric, note text);"
        "DROP TABLE IF EXISTS pg_temp.n; CREATE TEMP TABLE n AS"
        " SELECT id::integer, v::integer * id::integer AS pieces, 1.5 AS price, v AS note FROM bronze.c;"
        "SELECT * FROM elt.publish_rows('silver.c', 'n')",
    )
    pages.database.sql("DROP TABLE silver.c")
    for v in "35":
        pages.put("c", [(str(number), v) for number in range(1, 11)])
        assert pages.run().exit_code == 0, pages.output
    expected = [("silver.c", "pieces", "10", str(3 * place), str(5 * place)) for place in (10, 9, 8)]
    assert largest() == expected
    page = page_of(pages)
    assert "The largest changes in silver" in page and '<td class="number">50</td>' in page
    pages.keboola.delete_table("in.c-main.a")
    pages.keboola.delete_table("in.c-main.c")
    assert pages.run().exit_code == 1
    assert largest() == expected, "that run published neither group"
    pages.database.sql("DROP VIEW elt.row_changes")
    assert largest() == [], "an older version lacks it"
