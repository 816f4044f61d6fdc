"""Finds which tables a run names and writes, and locks those that a job writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lib.config.jobs import Job
from lib.elt_schema.strangers import Name, refuse_triggers
from lib.postgres.connection import Connection, execute, query
from lib.transform.references import references


def named_in(jobs: Iterable[Job]) -> frozenset[Name]:
    """What these jobs load or define, and what their scripts and checks name, as (schema, name)."""
    found: set[Name] = set()
    for job in jobs:
        if job.load:
            found.add((job.load.schema, job.load.name))
        for script in job.scripts:
            found |= references(script.text).all
            if script.layer in ("bronze", "gold"):
                schema, _, name = script.relation.partition(".")
                found.add((schema, name))
    return frozenset(found)


def written_in(jobs: Iterable[Job]) -> list[Name]:
    """The tables that these jobs load, publish or change, as (schema, name)."""
    found: set[Name] = set()
    for job in jobs:
        if job.load:
            found.add((job.load.schema, job.load.name))
        for script in job.transform:
            found |= references(script.text).published | references(script.text).changed
    return sorted(found)


def lock_targets(connection: Connection, job: Job, *, loads: bool) -> None:
    """Lock the tables that a job writes, in the caller's transaction, so that no trigger can be added. Then check the
    triggers that they have.

    A table that users edit and that no load replaces gets a weaker lock, so that an open edit does not block the run.
    """
    scripts = [references(script.text) for script in job.transform]
    replaced = {(job.load.schema, job.load.name)} if loads and job.load else set()
    replaced |= {name for script in scripts for name in script.published}
    changed = {name for script in scripts for name in script.changed} - replaced
    tables = [
        table
        for wanted, mode in ((replaced, "SHARE ROW EXCLUSIVE"), (changed, "ROW EXCLUSIVE"))
        for table in _lock(connection, wanted, mode)
    ]
    if tables:
        refuse_triggers(connection, (), tables, ())


def _lock(connection: Connection, wanted: Collection[Name], mode: str) -> list[str]:
    """Lock the tables and views of `wanted` that exist; PostgreSQL also locks the tables of a view. Returns them."""
    rows = query(
        connection,
        "SELECT pg_class.oid::regclass::text FROM unnest(%s::text[], %s::text[]) AS wanted (schema, name)"
        " JOIN pg_class ON relnamespace = to_regnamespace(quote_ident(schema)) AND relname = name"
        " WHERE relkind IN ('r', 'p', 'v') ORDER BY pg_class.oid",
        ([schema for schema, _ in wanted], [name for _, name in wanted]),
    )
    tables = [table for (table,) in rows]
    if tables:
        execute(connection, f"LOCK TABLE {', '.join(tables)} IN {mode} MODE")
    return tables
