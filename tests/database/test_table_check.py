"""check --online finds what changed only inside CREATE TABLE IF NOT EXISTS, and its statements repair it."""

from __future__ import annotations

import re

from lib.config.jobs import Job, Script
from lib.elt_schema.strangers import ScriptPath
from lib.run.table_check import tables_that_differ
from tests.support.project import Project


def differences(project: Project, silver: str) -> list[str]:
    script = Script("silver/c.sql", "silver", project.root / "silver/c.sql", silver)
    return tables_that_differ(project.database.connect(), [Job("c", transform=(script,))], ScriptPath("pg_catalog"))


def test_columns_that_the_table_has_otherwise_are_named_with_the_statement_that_helps(project: Project) -> None:
    project.put_day("monday")
    silver = (project.root / "sql_scripts/silver/c.sql").read_text()
    assert differences(project, silver) == [], "no table is there"
    project.run()
    assert differences(project, silver) == []
    project.database.sql('ALTER TABLE silver.c ADD "Odd" varchar(3), ADD by_hand int')
    changed = (
        "-- first\nCREATE TABLE IF NOT EXISTS silver.c (\n    id bigint /* wide */ PRIMARY KEY,\n"
        '    v text NOT NULL,\n    "Odd" varchar(5),\n    added numeric(9, 2)\n);'
    )
    found = differences(project, changed)
    assert [text.partition(", but")[0] for text in found] == [
        "silver/c.sql:3: id is bigint here",
        "silver/c.sql:4: v is text NOT NULL here",
        "silver/c.sql:5: Odd is character varying(5) here",
        "silver/c.sql:6: added is numeric(9,2) here",
    ]
    assert "silver.c has integer: CREATE TABLE IF NOT EXISTS changes no table that is there." in found[0]
    for text in found:
        (command,) = re.findall(r"To change it, (?:in psql|add to the script): (.*;)$", text)
        project.database.sql(command)
    assert project.database.sql("SELECT count(*) FROM silver.c") == [(10,)]
    assert differences(project, changed + "SELECT 1;") == []


def test_a_statement_that_cannot_be_tried_out_alone_is_left_to_the_run(project: Project) -> None:
    project.put_day("monday")
    project.run()
    for silver in (
        "CREATE TABLE IF NOT EXISTS silver.c (id oops);",
        "CREATE TABLE IF NOT EXISTS silver.c AS SELECT 'x' AS id FROM nowhere;",
        "CREATE TABLE IF NOT EXISTS silver.c (id integer, b integer REFERENCES silver.a);",
        "CREATE TABLE IF NOT EXISTS silver.c_1 PARTITION OF silver.c DEFAULT;",
        "CREATE TABLE silver.c (id text);",
    ):
        assert differences(project, silver + "CREATE TABLE IF NOT EXISTS silver.a (id integer, v text);") == []
