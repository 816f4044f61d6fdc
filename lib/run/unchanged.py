"""Decides what a run may leave out: exports of sources that did not change, and all of a run if nothing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from lib.config.jobs import Job, Registry
from lib.load.exports import KnownLoad
from lib.postgres.connection import Connection, query
from lib.run import history
from lib.run.definitions import not_applied
from lib.run.session import Session
from lib.run.table_states import Named, read_parts, read_states, state_of, stored_states


def known_loads(connection: Connection, jobs: Sequence[Job], source: str) -> dict[str, KnownLoad]:
    """By job: what was loaded into each bronze table that is still as the load left it.

    Not if its bronze script is not applied as it is now, or if the table has triggers or rules: a load would do more
    than bring rows. source: where the rows come from, as it describes itself; another one may use the same versions.
    """
    loads = {job.name: job.load for job in jobs if job.load}
    pending = {script.path for script in not_applied(connection, [s for job in jobs for s in job.of_layer("bronze")])}
    left = history.left_states(connection, source)
    now = read_parts(connection, Named(frozenset(load.table for load in loads.values())))
    known: dict[str, KnownLoad] = {}
    for job in jobs:
        load = job.load
        if load is None or load.table not in left or any(script.path in pending for script in job.transform):
            continue
        before, parts = left[load.table], now.get(load.table, [])
        if before.state == state_of(parts) and not any(part.has_code for part in parts):
            known[job.name] = KnownLoad(before.run_id, before.version, before.rows)
    return known


def inputs_md5(session: Session, registry: Registry) -> str:
    """An md5 of what a run of all jobs makes its tables from, besides rows: registry, scripts, schema elt, run date."""
    ((elt,),) = query(session.connection, "SELECT obj_description('elt.runs'::regclass, 'pg_class')")
    jobs = [
        (
            job.name,
            job.depends_on,
            job.load,
            job.load and job.load.extract.query,
            [(script.path, script.text) for script in job.transform],
            [(check.script.path, check.script.text, check.on_failure) for check in job.checks],
        )
        for job in registry.jobs.values()
    ]
    return hashlib.md5(repr((elt, session.path.path, session.run_date, jobs)).encode()).hexdigest()


def unchanged_since(session: Session, registry: Registry) -> tuple[int, datetime] | None:
    """The last run that published and when it ended, if a run of all jobs would make the same again. Else None.

    Ask the sources first whether they changed. None also if that run failed, published some jobs only, or warned
    of something: then there is something to do or to say.
    """
    connection = session.connection
    last = query(
        connection,
        "SELECT inputs_md5, run_id, finished_at FROM elt.runs WHERE run_id < %s AND NOT is_unchanged"
        " AND kind <> 'preview'"
        " ORDER BY run_id DESC LIMIT 1",
        (session.run_id,),
    )
    if not last or last[0][0] != inputs_md5(session, registry):
        return None
    named = Named.by_jobs(list(registry.jobs.values()), session.path.path)
    if read_states(connection, named) != stored_states(connection):
        return None
    return last[0][1], last[0][2]
