"""Plans a run before anything changes: which jobs, from which source, and whether a partial run is allowed."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lib.config.jobs import Job, Load, Registry
from lib.config.registry import read_registry
from lib.config.secrets import keboola_token
from lib.config.settings import Settings, require_keboola
from lib.errors import EltError, ExtractError, JobConfigError, LoadError
from lib.extract import Export, Extractor, FlowJob, SourceTable
from lib.extract.catalog import Catalog
from lib.load.contract import match, read_contract
from lib.load.guards import missing_columns
from lib.postgres.connection import Connection
from lib.run.dependency_check import missing_dependencies
from lib.run.history import LastLoad
from lib.stop import StopSignal
from lib.transform.refusals import refusals


@dataclass(frozen=True)
class Plan:
    """Which jobs a run works on: `loads` are exported and loaded, the others only transform."""

    registry: Registry
    loads: tuple[str, ...]
    #: the jobs of the run that publish together; each group is in dependency order
    groups: tuple[tuple[Job, ...], ...]
    #: loads of the same groups that are not in this run: their source tables must be unchanged since the last load
    unselected_loads: tuple[Load, ...]
    #: whether no job was named, so that all are in the run
    is_whole: bool = False

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(job.name for group in self.groups for job in group)

    @property
    def loading_jobs(self) -> tuple[Job, ...]:
        """The jobs that are exported and loaded, in dependency order."""
        return tuple(job for group in self.groups for job in group if job.name in self.loads)

    @property
    def source_loads(self) -> tuple[Load, ...]:
        """The loads whose sources this run asks; none if it loads nothing."""
        loads = tuple(job.load for job in self.loading_jobs if job.load)
        return loads and (*loads, *self.unselected_loads)

    def groups_without(self, failed: Container[str]) -> list[tuple[Job, ...]]:
        """The groups that contain none of these jobs."""
        return [group for group in self.groups if not any(job.name in failed for job in group)]

    def loads_without(self, failed: Container[str]) -> list[list[Load]]:
        """The loads of each group that contains none of these jobs."""
        loads = [
            [job.load for job in group if job.load and job.name in self.loads] for group in self.groups_without(failed)
        ]
        return [group for group in loads if group]


def read_project(root: Path) -> Registry:
    """Read the registry of a project and check all its scripts.

    Raises JobConfigError with every mistake of the registry, or if it has none, with every mistake of the scripts.
    """
    registry = read_registry(root / "elt_jobs.json", root / "sql_scripts")
    scripts = {script.path: script for job in registry.jobs.values() for script in job.scripts}
    mistakes = [text for script in scripts.values() for text in refusals(script)] + missing_dependencies(registry)
    if mistakes:
        raise JobConfigError("\n".join(mistakes))
    return registry


def make_plan(registry: Registry, names: Sequence[str] = ()) -> Plan:
    """Plan all jobs, or the named ones and, without their loads, all jobs that depend on them.

    Raises SettingsError for an unknown job.
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
        is_whole=not names,
    )


def check_unselected_loads(
    plan: Plan, connection: Connection, extractor: Extractor[Any], last_loads: Mapping[str, LastLoad], command: str
) -> tuple[dict[str, EltError], dict[str, list[SourceTable]]]:
    """Refuse a partial run unless the other source tables of its group are unchanged since they were loaded.

    A partial run then publishes the same data as a run of the whole group.
    Returns, by the first loading job of a group: why the group is refused, and which tables must not change during the
    export.
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
    """Why a group cannot be published without this load. Empty: it can."""
    if last is not None and last.version == source.version:
        return ""
    with suppress(LoadError):  # its bronze table does not exist yet
        # if a column is missing, say so: loading this table too, as the message below suggests, would fail
        if lost := missing_columns(load, source, match(read_contract(connection, load), source)):
            return lost
    whole = " ".join(name for name in plan.registry.group_of(load.job) if plan.registry.jobs[name].load)
    changed = "changed in" if source.version_lasts else "may have changed in"
    reason = "was never loaded here" if last is None else f"{changed} the source since it was loaded"
    return (
        f"{' and '.join([*asked, load.job])} no longer match: {source.id} {reason}."
        f" Run all of them: {command} {whole}"
    )


def prepare_sources(settings: Settings, loads: Sequence[Load], environ: Mapping[str, str]) -> Settings:
    """Find out early whether these loads have what their sources need. Returns the settings with Keboola's token.

    Raises SettingsError or CredentialError if something is missing, JobConfigError with every mistake of the queries.
    """
    kinds = {load.extract.source for load in loads}
    if "keboola_table" in kinds:
        require_keboola(settings)
        settings = replace(settings, keboola_token=keboola_token(settings, environ))
    if "duckdb" in kinds:
        from lib.extract.duckdb import read_query

        mistakes: list[str] = []
        for path, query in _queries(loads).items():
            try:
                read_query(path, query)
            except JobConfigError as error:
                mistakes.append(str(error))
        if mistakes:
            raise JobConfigError("\n".join(mistakes))
    return settings


def make_catalog(settings: Settings) -> Catalog:
    """The source of descriptions of tables. Raises SettingsError or CredentialError as make_extractor does."""
    from lib.extract.keboola import KeboolaExtractor
    from lib.extract.keboola_catalog import KeboolaCatalog

    token = keboola_token(settings)
    return KeboolaCatalog(KeboolaExtractor(require_keboola(settings), token, run_id="elt-add", parallel=1))


def make_extractor(
    settings: Settings,
    loads: Sequence[Load],
    run_id: str,
    pause: Callable[[float], None],
    environ: Mapping[str, str],
    report: Callable[[str], None],
) -> Extractor[Any]:
    """The source of the rows of these loads; without loads it can only describe Keboola. run_id identifies the calls of
    this run in Keboola's logs. pause: every wait uses it; it raises to end them.

    Raises what `prepare_sources` raises.
    """
    made: dict[str, Extractor[Any]] = {}
    for kind in dict.fromkeys(load.extract.source for load in loads) or ["keboola_table"]:
        if kind == "duckdb":
            from lib.extract.duckdb import DuckdbExtractor

            made[kind] = DuckdbExtractor(settings.root, _queries(loads), pause=pause)
        else:
            from lib.extract.keboola import KeboolaExtractor

            made[kind] = KeboolaExtractor(
                require_keboola(settings),
                keboola_token(settings, environ),
                run_id=run_id,
                parallel=settings.parallel,
                pause=pause,
                environ=environ,
                report=report,
                deadline=settings.export_minutes * 60.0,
            )
    return Sources(tuple(made.values()), {load.extract.table: made[load.extract.source] for load in loads})


def _queries(loads: Sequence[Load]) -> dict[str, str]:
    return {load.extract.table: load.extract.query for load in loads if load.extract.source == "duckdb"}


@dataclass(frozen=True)
class Sources:
    """Several sources as one: each table's own is asked. Implements `lib.extract.Extractor`."""

    sources: tuple[Extractor[Any], ...]
    of_table: Mapping[str, Extractor[Any]]

    def describe(self) -> str:
        return " and ".join(source.describe() for source in self.sources)

    def warnings(self) -> list[str]:
        return [text for source in self.sources for text in source.warnings()]

    def table(self, table_id: str) -> SourceTable:
        return self.of_table[table_id].table(table_id)

    def start(self, table: SourceTable, columns: Sequence[str]) -> tuple[Extractor[Any], Any]:
        source = self.of_table[table.id]
        return source, source.start(table, columns)

    def finish(self, started: tuple[Extractor[Any], Any]) -> Export:
        source, ticket = started
        return source.finish(ticket)


def make_flow_query(
    settings: Settings, stop: StopSignal, environ: Mapping[str, str], report: Callable[[str], None]
) -> Callable[[datetime | None], FlowJob | None]:
    """A function that asks for the newest job of [keboola] wait_for_flow that started at or after a time (None: ever).

    Raises SettingsError or CredentialError as `make_extractor` does.
    """
    from lib.extract.keboola import KeboolaExtractor
    from lib.extract.keboola_queue import KeboolaQueue

    url, token = require_keboola(settings), keboola_token(settings, environ)
    keboola = KeboolaExtractor(url, token, run_id="elt-flow", parallel=1, pause=stop.pause, report=report)
    return KeboolaQueue(keboola, settings.wait_for_flow or "").newest
