"""A missing depends_on is found before a run, with the line to add."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.errors import JobConfigError
from lib.run.plan import read_project

LOADING = {
    "extract": {"keboola_table": "in.c-main.{name}"},
    "load": {"table": "bronze.{name}"},
    "transform": ["bronze/{name}.sql", "silver/{name}.sql"],
}


def project(folder: Path, *, depends_on: list[str], transform: dict[str, str], checks: dict[str, str]) -> Path:
    """Job a loads bronze.a and makes silver.a and silver.a_kind(); job b has these scripts."""
    scripts = {
        "bronze/a.sql": "CREATE TABLE IF NOT EXISTS bronze.a (id text);",
        "silver/a.sql": "CREATE TABLE IF NOT EXISTS silver.a (id text PRIMARY KEY);\n"
        "CREATE OR REPLACE FUNCTION silver.a_kind(id text) RETURNS text LANGUAGE sql RETURN id;\n"
        "SELECT * FROM elt.publish_rows('silver.a', 'a_now');",
        **transform,
        **checks,
    }
    for path, text in scripts.items():
        file = folder / "sql_scripts" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    a = json.loads(json.dumps(LOADING).replace("{name}", "a"))
    b = {"depends_on": depends_on, "transform": [*transform], "checks": [*checks]}
    (folder / "elt_jobs.json").write_text(json.dumps({"a": a, "b": b}))
    return folder


READING = {
    "silver/b.sql": "CREATE TABLE IF NOT EXISTS silver.b (id text PRIMARY KEY);\n"
    "CREATE TEMP TABLE b_now AS\nSELECT id FROM silver.a;\nSELECT * FROM elt.publish_rows('silver.b', 'b_now');",
    "gold/b.sql": "CREATE OR REPLACE VIEW gold.b AS\nSELECT silver.a_kind(id) AS kind FROM silver.b;",
}
CHECK = {"checks/b.sql": "SELECT id FROM bronze.a WHERE id IS NULL;"}


def test_what_a_script_reads_of_another_job_needs_depends_on(tmp_path: Path) -> None:
    with pytest.raises(JobConfigError) as refused:
        read_project(project(tmp_path, depends_on=[], transform=READING, checks=CHECK))
    assert str(refused.value).splitlines() == [
        f'{place}, which job a makes: add "a" to "depends_on" of job b in elt_jobs.json'
        for place in (
            "silver/b.sql:3: reads silver.a",
            "gold/b.sql:2: reads silver.a_kind",
            "checks/b.sql:1: reads bronze.a",
        )
    ]
    read_project(project(tmp_path, depends_on=["a"], transform=READING, checks=CHECK))


def test_comments_and_descriptions_are_no_reading(tmp_path: Path) -> None:
    words = {
        "silver/b.sql": "-- as silver.a\nCREATE TABLE IF NOT EXISTS silver.b (id text PRIMARY KEY);\n"
        "COMMENT ON TABLE silver.b IS 'Like silver.a.'; SELECT * FROM elt.publish_rows('silver.b', 'b_now');"
    }
    read_project(project(tmp_path, depends_on=[], transform=words, checks={}))


def test_a_table_that_a_script_fills_itself_needs_no_other_job(tmp_path: Path) -> None:
    filling = {"silver/b.sql": "INSERT INTO silver.a VALUES ('b') ON CONFLICT DO NOTHING;"}
    read_project(project(tmp_path, depends_on=[], transform=filling, checks={}))


def test_in_a_group_gold_and_checks_may_read_what_comes_later_but_silver_may_not(tmp_path: Path) -> None:
    folder = project(tmp_path, depends_on=["a"], transform=READING, checks=CHECK)
    jobs = json.loads((folder / "elt_jobs.json").read_text())
    (folder / "sql_scripts/gold/a.sql").write_text("CREATE OR REPLACE VIEW gold.a AS SELECT id FROM silver.b;")
    jobs["a"]["transform"].append("gold/a.sql")
    (folder / "elt_jobs.json").write_text(json.dumps(jobs))
    read_project(folder)
    with (folder / "sql_scripts/silver/a.sql").open("a") as script:
        script.write("\nDELETE FROM silver.a WHERE id IN (SELECT id FROM silver.b);")
    with pytest.raises(JobConfigError, match='silver/a.sql:4: reads silver.b, which job b makes: add "b"'):
        read_project(folder)
