"""What a run will do, decided before anything is touched: which jobs, from which source, into which database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.credentials import keboola_token
from lib.database import Database
from lib.errors import JobConfigError
from lib.extractors import Extractor
from lib.registry import Job, Registry, read_registry
from lib.settings import Settings, require_keboola, require_postgres
from lib.stop import Stop
from lib.transformer import refusals


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
