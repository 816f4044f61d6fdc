"""Scripts are split into statements, and refused by file and line before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.config.jobs import Script
from lib.transform.refusals import refusals, writes_nothing
from lib.transform.statements import statements
from tests.support.scripts import ROUTINE, SPLIT, script

# ---- splitting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SPLIT)
def test_a_script_is_split_into_statements_with_the_lines_where_they_begin(text: str) -> None:
    assert list(statements(text)) == SPLIT[text]


# ---- refusing -------------------------------------------------------------------------------------------------------

REFUSED = {
    "SELECT 1;\nBEGIN;": "silver/x.sql:2: BEGIN is transaction control; the whole run is one transaction",
    "SELECT 1;\n\n  COMMIT;": "silver/x.sql:3: COMMIT is transaction control",
    "start /* c */ transaction;": "silver/x.sql:1: START TRANSACTION is transaction control",
    "END;": "silver/x.sql:1: END is transaction control",
    "ROLLBACK": "silver/x.sql:1: ROLLBACK is transaction control",
    "ROLLBACK TO a;": "silver/x.sql:1: ROLLBACK TO is transaction control",
    "ABORT;": "silver/x.sql:1: ABORT is transaction control",
    "SAVEPOINT a;": "silver/x.sql:1: SAVEPOINT A is transaction control",
    "RELEASE a;": "silver/x.sql:1: RELEASE A is transaction control",
    "PREPARE TRANSACTION 'a';": "silver/x.sql:1: PREPARE TRANSACTION is transaction control",
    "SET search_path = x;": "silver/x.sql:1: SET SEARCH_PATH is a setting; it would outlast the script",
    "SET LOCAL jit = off;": "silver/x.sql:1: SET LOCAL is a setting",
    "RESET ALL;": "silver/x.sql:1: RESET ALL is a setting",
    "DISCARD TEMP;": "silver/x.sql:1: DISCARD TEMP is a setting",
    "VACUUM silver.x;": "silver/x.sql:1: VACUUM SILVER is a command that cannot run in a transaction",
    "-- first\nTRUNCATE silver.x;": "silver/x.sql:2: TRUNCATE SILVER is a TRUNCATE; readers would see an empty table",
    "COPY silver.x FROM STDIN;": "silver/x.sql:1: COPY .. FROM STDIN gets no input here",
    "COPY silver.x TO STDOUT;": "silver/x.sql:1: COPY .. TO STDOUT has no output here",
    "CREATE INDEX CONCURRENTLY i ON t (a);": "silver/x.sql:1: CONCURRENTLY cannot run in a transaction",
    "CREATE TEMP TABLE t (a int)\nON COMMIT DROP;": "silver/x.sql:1: ON COMMIT DROP: under psql -f",
    "SELECT 1\n\\gexec": "silver/x.sql:2: \\gexec is a command of psql",
    "SELECT 1;\n\\i other.sql": "silver/x.sql:2: \\i is a command of psql",
    "SELECT 1;\nSELECT '\0';": "silver/x.sql:2: a NUL byte",
    "-- nothing here\n;": "silver/x.sql:1: the script has no statement",
}
ALLOWED = [
    "SELECT 'COMMIT; \\i x', $$ BEGIN; $$, \"set\" FROM t -- ROLLBACK;\n",
    "TRUNCATE pg_temp.x;",
    "DO $$ BEGIN PERFORM 1; END $$;",
    "PREPARE q AS SELECT 1; UPDATE t SET a = 1; CREATE TEMP TABLE t (a int) ON COMMIT PRESERVE ROWS;",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY silver.x;",
    "COPY silver.x TO '/dev/null';",
    "LOCK TABLE silver.x;",
    ROUTINE,
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_script_must_not_hold_is_refused_by_file_and_line(text: str) -> None:
    (refusal,) = refusals(script(text))
    assert refusal.startswith(REFUSED[text])


@pytest.mark.parametrize("text", ALLOWED)
def test_what_only_looks_like_it_is_not_refused(text: str) -> None:
    assert refusals(script(text)) == []


def test_all_refusals_of_a_script_come_at_once_in_the_order_of_its_lines() -> None:
    found = refusals(script("\\set x 1\nBEGIN;\nSELECT 1;\n\\i y\nCOMMIT;\n"))
    assert [refusal.split(":")[1] for refusal in found] == ["1", "2", "4", "5"]


V = "CREATE OR REPLACE VIEW gold.x AS SELECT 1;\n"


def bronze(text: str) -> Script:
    return Script("bronze/x.sql", "bronze", Path("bronze/x.sql"), text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("CREATE TABLE bronze.x (a text);\nCREATE TABLE IF NOT EXISTS bronze.y (a text)", "2: makes bronze.y"),
        ("CREATE TABLE IF NOT EXISTS bronze.z (a text)", "1: makes bronze.z"),
        ("CREATE TABLE x (a text)", "1: makes x"),
        ("CREATE VIEW silver.v AS SELECT 1", "1: makes silver.v"),
        ("CREATE UNLOGGED TABLE silver.x AS SELECT 1", "1: makes silver.x"),
    ],
)
def test_a_bronze_script_makes_no_other_table_than_its_own(text: str, made: str) -> None:
    (refusal,) = refusals(bronze(text))
    assert refusal.startswith(f"bronze/x.sql:{made}, but this file is for bronze.x: correct the name")


@pytest.mark.parametrize(
    "text",
    [
        'create table if not exists "bronze"."x" (a text)',
        "CREATE TABLE bronze.x (a text) PARTITION BY LIST (a); CREATE TABLE bronze.x_1 PARTITION OF bronze.x DEFAULT",
        "CREATE TABLE bronze.x (a text); CREATE TABLE bronze.x_1 () INHERITS (bronze.x)",
        "CREATE TEMP TABLE y (a text); CREATE TABLE pg_temp.z (a text); CREATE INDEX i ON bronze.x (a)",
        "SELECT elt.add_column('bronze.x', 'b', 'text')",
    ],
)
def test_what_belongs_to_a_bronze_table_may_be_made_with_it(text: str) -> None:
    assert refusals(bronze(text)) == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("SELECT * FROM bronze.x", "reads rows"),
        ("WITH a AS (SELECT 1) SELECT count(*) FROM a WHERE b IN (1)", "reads rows"),
        (
            "CREATE TABLE IF NOT EXISTS silver.x (a int);\nCREATE TEMP TABLE x_now AS SELECT * FROM bronze.x",
            "reads rows",
        ),
        ("DROP TABLE IF EXISTS pg_temp.x; COMMENT ON TABLE silver.x IS 'INSERT'; SELECT 1", "reads rows"),
        ("CREATE TABLE IF NOT EXISTS silver.x (a int); COMMENT ON TABLE silver.x IS 'x'", "makes a table"),
        ("SELECT * FROM elt.publish_rows('silver.x', 'x_now')", ""),
        ("SELECT changed FROM elt.publish_history('silver.x', 'x_now', elt.run_date())", ""),
        ("WITH gone AS (DELETE FROM silver.x RETURNING *) SELECT * FROM gone", ""),
        ("SELECT 1 AS a INTO silver.x", ""),
        ("CREATE TABLE silver.x AS SELECT 1", ""),
        ("DO $$ BEGIN PERFORM 1; END $$", ""),
        ("SELECT silver.refresh(id) FROM silver.list", ""),
        ("SELECT refresh()", ""),
        ("CALL refresh()", ""),
        ("CREATE FUNCTION silver.f() RETURNS int LANGUAGE sql RETURN 1", ""),
    ],
)
def test_a_silver_script_that_writes_no_row_is_found(text: str, instead: str) -> None:
    assert writes_nothing(script(text)) == instead


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("CREATE TABLE IF NOT EXISTS gold.x AS SELECT 1", "1: makes a TABLE, but a gold script makes one view"),
        ("CREATE MATERIALIZED VIEW gold.x AS SELECT 1", "1: makes a MATERIALIZED VIEW, but a gold script"),
        ("CREATE FUNCTION gold.f() RETURNS int LANGUAGE sql RETURN 1", "1: makes a FUNCTION, but a gold script"),
        ("SELECT 1 AS one INTO gold.x", "1: SELECT does not make the view: a gold script makes one view"),
        (
            "CREATE OR REPLACE VIEW gold.x AS SELECT 1;\nDO $$ BEGIN EXECUTE 'CREATE TABLE gold.y ()'; END $$",
            "2: DO does not make",
        ),
        (
            "CREATE OR REPLACE VIEW gold.x AS SELECT 1;\nINSERT INTO silver.y VALUES (1)",
            "2: INSERT does not make the view",
        ),
        ("CREATE OR REPLACE VIEW gold.x AS SELECT 1;\nCOMMIT", "2: COMMIT is transaction control"),
        ("1 + 1;\nCREATE OR REPLACE VIEW gold.x AS SELECT 1", "1: this statement does not make the view"),
        ("CREATE OR REPLACE VIEW gold.y AS SELECT 1", "1: makes the view gold.y, but this file is for gold.x"),
        ("CREATE VIEW x AS SELECT 1", "1: makes the view x, but this file is for gold.x"),
        ("COMMENT ON VIEW gold.x IS 'x'", "1: does not make the view gold.x that the file is named after"),
        ("CREATE OR REPLACE VIEW gold.x AS SELECT 1;\n\nCREATE VIEW gold.x2 AS SELECT 2", "3: makes the view gold.x2"),
        ("CREATE VIEW gold.x AS SELECT 1", "1: CREATE VIEW fails once the view is there: write CREATE OR REPLACE VIEW"),
        (V + "GRANT SELECT ON silver.products TO ana", "2: GRANT is about silver.products: move it into"),
        (V + "COMMENT ON TABLE silver.products IS 'x'", "2: COMMENT is about silver.products: move it into"),
        (V + "ALTER VIEW gold.y RENAME TO z", "2: ALTER is about gold.y: move it into"),
        (V + "ALTER VIEW gold.x SET SCHEMA public", "2: ALTER VIEW .. RENAME and SET SCHEMA take the view away"),
        ("DROP VIEW IF EXISTS gold.x;\nCREATE OR REPLACE VIEW gold.x AS SELECT 1", "1: DROP loses the view's grants"),
    ],
)
def test_a_gold_script_makes_the_view_of_its_name_and_nothing_else(text: str, refused: str) -> None:
    (refusal,) = refusals(Script("gold/x.sql", "gold", Path("gold/x.sql"), text))
    assert refusal.startswith(f"gold/x.sql:{refused}")


@pytest.mark.parametrize(
    "text",
    [
        "CREATE OR REPLACE VIEW gold.x AS SELECT 1 AS one; COMMENT ON VIEW gold.x IS 'CREATE TABLE gold.y'",
        'create or replace recursive view "gold"."x" (one) as select 1; grant select on gold.x to public',
        "CREATE /* a */ OR REPLACE -- b\n VIEW gold.x AS SELECT 1; ALTER VIEW gold.x SET (security_barrier = true)",
        "CREATE OR REPLACE VIEW gold . x WITH (security_invoker = true) AS SELECT 1",
    ],
)
def test_a_gold_script_may_say_it_in_any_way(text: str) -> None:
    assert refusals(Script("gold/x.sql", "gold", Path("gold/x.sql"), text)) == []
