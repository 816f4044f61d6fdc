"""What a run will do, decided before anything is touched: which jobs, from which source, and whether it may be so."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.config.jobs import Job, Load, Registry
from lib.config.registry import read_registry
from lib.config.secrets import keboola_token
from lib.config.settings import Settings, require_keboola
from lib.errors import EltError, ExtractError, JobConfigError, LoadError
from lib.extract import Extractor, SourceTable
from lib.load.contract import match, read_contract
from lib.load.guards import missing_columns
from lib.postgres.connection import Connection
from lib.run.dependency_check import missing_dependencies
from lib.run.history import LastLoad
from lib.stop import StopSignal
from lib.transform.refusals import refusals

if TYPE_CHECKING:
    from lib.extract.keboola import StartedExport


@dataclass(frozen=True)
class Plan:
    """Which jobs a run works on: `loads` are exported and loaded, the others only transform."""

    registry: Registry
    loads: tuple[str, ...]
    #: what publishes together, each in dependency order
    groups: tuple[tuple[Job, ...], ...]
    #: of the same groups, but not asked for: their source tables must still be what was loaded
    unselected_loads: tuple[Load, ...]

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(job.name for group in self.groups for job in group)

    @property
    def loading_jobs(self) -> tuple[Job, ...]:
        """The jobs that are exported and loaded, in dependency order."""
        return tuple(job for group in self.groups for job in group if job.name in self.loads)

    def groups_without(self, failed: Container[str]) -> list[tuple[Job, ...]]:
        """The groups that have none of these jobs."""
        return [group for group in self.groups if not any(job.name in failed for job in group)]

    def loads_without(self, failed: Container[str]) -> list[list[Load]]:
        """What is exported and loaded of the groups that have none of these jobs, by group."""
        loads = [
            [job.load for job in group if job.load and job.name in self.loads] for group in self.groups_without(failed)
        ]
        return [group for group in loads if group]


def read_project(root: Path) -> Registry:
    """The registry of a project with all its scripts read and checked.

    Raises JobConfigError with every mistake, of the registry and of scripts, at once.
    """
    registry = read_registry(root / "elt_jobs.json", root / "sql_scripts")
    scripts = {script.path: script for job in registry.jobs.values() for script in job.scripts}
    mistakes = [text for script in scripts.values() for text in refusals(script)] + missing_dependencies(registry)
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
        unselected_loads=tuple(
            job.load for name, job in registry.jobs.items() if name in touched and name not in named and job.load
        ),
    )


def check_unselected_loads(
    plan: Plan, connection: Connection, extractor: Extractor[Any], last_loads: Mapping[str, LastLoad], command: str
) -> tuple[dict[str, EltError], dict[str, list[SourceTable]]]:
    """Refuse a partial run unless the other sources of its group are unchanged since they were loaded.

    So it publishes what a whole run would.
    Returns, by the first loading job of a group, why the group is refused, and the tables to watch meanwhile.
    """
    refused: dict[str, EltError] = {}
    watched: dict[str, list[SourceTable]] = {}
    for load in plan.unselected_loads:
        names = plan.registry.group_of(load.job)
        group = next(group for group in plan.groups if group[0].name in names)
        if not (asked := [job.name for job in group if job.name in plan.loads]):
            continue
        try:
            source = extractor.table(load.extract.table)
        except ExtractError as error:
            refused.setdefault(asked[0], error)
            continue
        if text := _outdated(plan, connection, load, source, asked, last_loads.get(load.job), command):
            refused.setdefault(asked[0], LoadError(text))
        watched.setdefault(asked[0], []).append(source)
    return refused, watched


def _outdated(
    plan: Plan,
    connection: Connection,
    load: Load,
    source: SourceTable,
    asked: Sequence[str],
    last: LastLoad | None,
    command: str,
) -> str:
    """Why a group can't be published without this load; empty: it can."""
    if last is not None and last.version == source.version:
        return ""
    with suppress(LoadError):  # its bronze table is not there yet
        # where a column is missing, loading this table, too, would not help
        if lost := missing_columns(load, source, match(read_contract(connection, load), source)):
            return lost
    whole = " ".join(name for name in plan.registry.group_of(load.job) if plan.registry.jobs[name].load)
    reason = "was never loaded here" if last is None else "changed in the source since it was loaded"
    return (
        f"{' and '.join([*asked, load.job])} no longer match: {source.id} {reason}."
        f" Run all of them: {command} {whole}"
    )


def make_extractor(
    settings: Settings, run_id: str, stop: StopSignal, environ: Mapping[str, str], report: Callable[[str], None]
) -> Extractor[StartedExport]:
    """The source of rows; run_id ties our calls together in Keboola's own logs.

    Raises SettingsError or CredentialError where the project or its token is missing.
    """
    from lib.extract.keboola import KeboolaExtractor

    return KeboolaExtractor(
        require_keboola(settings),
        keboola_token(settings, environ),
        run_id=run_id,
        parallel=settings.parallel,
        pause=stop.pause,
        environ=environ,
        report=report,
    )
