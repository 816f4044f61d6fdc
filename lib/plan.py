"""What a run will do, decided before anything is touched: which jobs, from which source, into which database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.credentials import keboola_token
from lib.database import Connection, Database, execute, query
from lib.errors import JobConfigError
from lib.extractors import Extractor
from lib.jobs import Job, Registry
from lib.registry import read_registry
from lib.settings import Settings, require_keboola, require_postgres
from lib.stop import Stop
from lib.strangers import Name, refuse_triggers
from lib.transformer import names, refusals

if TYPE_CHECKING:
    from lib.extractors.keboola import StartedExport


@dataclass(frozen=True)
class Plan:
    """Which jobs a run works on: `loads` are exported and loaded, the others only transform."""

    registry: Registry
    loads: tuple[str, ...]
    #: what publishes together, each in dependency order
    groups: tuple[tuple[Job, ...], ...]
    #: jobs of the same groups that load but were not asked for: their tables must still be what was loaded
    bystanders: tuple[Job, ...]

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(job.name for group in self.groups for job in group)


def read_project(root: Path) -> Registry:
    """The registry of a project with all its scripts read and checked.

    Raises JobConfigError with every mistake, of the registry and of scripts, at once.
    """
    registry = read_registry(root / "elt_jobs.json", root / "sql_scripts")
    scripts = {
        script.path: script
        for job in registry.jobs.values()
        for script in (*job.transform, *(check.script for check in job.checks))
    }
    mistakes = [text for script in scripts.values() for text in refusals(script)]
    if mistakes:
        raise JobConfigError("\n".join(mistakes))
    return registry


def make_plan(registry: Registry, names: Sequence[str] = ()) -> Plan:
    """All jobs, or the named ones with the transforms and checks of everything downstream of them.

    Raises SettingsError for a name that the registry lacks.
    """
    registry.check_names(names)
    named = set(names or registry.jobs)
    taking_part = named | set(registry.downstream(named))
    groups = [[registry.jobs[name] for name in group if name in taking_part] for group in registry.groups]
    touched = {name for group in registry.groups if taking_part & set(group) for name in group}
    return Plan(
        registry,
        loads=tuple(name for name, job in registry.jobs.items() if name in named and job.load),
        groups=tuple(tuple(group) for group in groups if group),
        bystanders=tuple(
            job for name, job in registry.jobs.items() if name in touched and name not in named and job.load
        ),
    )


def named_in(jobs: Iterable[Job]) -> frozenset[Name]:
    """What these jobs load, make, and name in their scripts and checks, as (schema, name)."""
    found: set[Name] = set()
    for job in jobs:
        if job.load:
            found.add((job.load.schema, job.load.name))
        for script in (*job.transform, *(check.script for check in job.checks)):
            found |= names(script.text).all
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
            found |= names(script.text).published | names(script.text).changed
    return sorted(found)


def lock_what_is_written(connection: Connection, job: Job, *, loads: bool) -> None:
    """Lock the tables that a job writes, in the caller's transaction, so that no trigger comes; look at those it has.

    A table that people edit and no load overwrites is locked less: an open edit must not hold up the morning.
    """
    scripts = [names(script.text) for script in job.transform]
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
    """Lock those of the tables that are there, with the tables beneath a view; returns them."""
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


def open_database(settings: Settings, stop: Stop) -> Database:
    """The database that the settings name; the embedded server is started where it is meant and not running.

    Raises SettingsError where nothing is named.
    """
    require_postgres(settings)
    if not settings.postgres.embedded:
        return Database(settings, stop)
    from lib.embedded import Server

    return Database(settings, stop, Server.start(settings.state / "postgres").connect_args())


def make_extractor(
    settings: Settings, run_id: str, stop: Stop, environ: Mapping[str, str], report: Callable[[str], None]
) -> Extractor[StartedExport]:
    """The source of rows; run_id ties our calls together in Keboola's own logs.

    Raises SettingsError or CredentialError where the project or its token is missing.
    """
    from lib.extractors.keboola import KeboolaExtractor

    return KeboolaExtractor(
        require_keboola(settings),
        keboola_token(settings, environ),
        run_id=run_id,
        parallel=settings.parallel,
        pause=stop.pause,
        environ=environ,
        report=report,
    )
