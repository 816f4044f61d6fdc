"""What a run will do, decided before anything is touched: which jobs, from which source, into which database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.credentials import keboola_token
from lib.database import Database
from lib.errors import JobConfigError
from lib.extractors import Extractor
from lib.jobs import Job, Registry
from lib.registry import read_registry
from lib.settings import Settings, require_keboola, require_postgres
from lib.stop import Stop
from lib.strangers import Name
from lib.transformer import names, refusals


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
) -> Extractor:
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
