"""Everything that can be found wrong before a run: settings, registry, secrets; online also Keboola and PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from lib.command_line import command
from lib.contract import Contract, Match, match, read_contracts
from lib.credentials import show_secret
from lib.database import Connection, address, translated
from lib.errors import EltError
from lib.extractors import SourceTable
from lib.guards import Accepted, check_columns, named
from lib.history import missing_rights
from lib.jobs import Job, Registry
from lib.plan import make_extractor, named_in, open_database, read_project, written_in
from lib.settings import Settings, require_keboola, require_postgres
from lib.stop import Stop
from lib.strangers import creators, of_others, script_path, trigger_rights


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; the text says what to do where it is wrong, or where it is worth a warning."""

    text: str
    level: Literal["ok", "warning", "wrong"] = "ok"


class Findings(list[Finding]):
    """What an inspection found, in order."""

    def ok(self, text: str) -> None:
        self.append(Finding(text))

    def warn(self, text: str) -> None:
        self.append(Finding(text, "warning"))

    def wrong(self, text: str) -> None:
        self.append(Finding(text, "wrong"))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """An error inside is one more thing to mend, and no reason to stop looking."""
        try:
            yield
        except EltError as error:
            self.wrong(str(error))


def offline(settings: Settings) -> Findings:
    """Registry, scripts, settings and secrets, without a connection."""
    findings = Findings()
    registry = None
    with findings.collecting():
        registry = read_project(settings.root)
        scripts = sum(len(job.transform) + len(job.checks) for job in registry.jobs.values())
        findings.ok(f"elt_jobs.json: {len(registry.jobs)} jobs, {scripts} scripts and checks")
        for name in registry.unused_scripts:
            findings.ok(f"sql_scripts/{name} is used by no job")
    if registry is None or _loads(registry):
        with findings.collecting():
            findings.ok(f"Keboola is {require_keboola(settings)}")
        with findings.collecting():
            if settings.keboola_token is None:
                findings.ok(f"Keboola token: {show_secret(settings, 'keboola')}")
    with findings.collecting():
        require_postgres(settings)
        findings.ok("PostgreSQL is named")
    return findings


def online(settings: Settings) -> Findings:
    """Ask Keboola for its token and every table, and PostgreSQL for every right that a run needs."""
    findings = Findings()
    registry = None
    with findings.collecting():
        registry = read_project(settings.root)
    contracts: dict[str, Contract] = {}
    with findings.collecting(), translated("PostgreSQL"):
        connection = open_database(settings, Stop()).connect("elt check")
        try:
            findings.ok(address(connection))
            contracts = _ask_postgres(connection, registry, findings)
        finally:
            connection.close()
    if registry is None or _loads(registry):
        with findings.collecting():
            _ask_keboola(settings, registry, contracts, findings)
    return findings


def _loads(registry: Registry) -> bool:
    return any(job.load for job in registry.jobs.values())


def _ask_postgres(connection: Connection, registry: Registry | None, findings: Findings) -> dict[str, Contract]:
    """Rights, owners, and what strangers could do; returns the columns that each job's export must fill."""
    jobs = list(registry.jobs.values()) if registry else []
    missing = missing_rights(connection)
    foreign = of_others(connection, named_in(jobs), usable=True) + creators(connection, ["elt", "elt_staging"])
    for text in missing + foreign:
        findings.wrong(text)
    if not missing + foreign:
        findings.ok("PostgreSQL: the role has every right that a run needs")
    written = [f"{schema}.{name}" for schema, name in written_in(jobs)]
    for text in creators(connection, ["bronze", "silver", "gold"]) + trigger_rights(connection, written):
        findings.warn(text)
    path = script_path(connection)
    if path.hidden or path.reason:
        findings.warn(f"scripts do not see schema public: {path.reason}")
    if missing or foreign:
        return {}
    loading = [job for job in jobs if job.load]
    contracts, failed = read_contracts(connection, loading, path, [0.5] * 4, time.sleep, lambda: "")
    for error in failed.values():
        findings.wrong(str(error))
    return contracts


def _ask_keboola(
    settings: Settings, registry: Registry | None, contracts: Mapping[str, Contract], findings: Findings
) -> None:
    extractor = make_extractor(settings, "elt-check", Stop(), os.environ, lambda line: None)
    findings.ok(extractor.describe())
    accepted = Accepted(command=command("run", settings))
    for job in registry.jobs.values() if registry else ():
        if job.extract:
            with findings.collecting():
                table = extractor.table(job.source.table)
                rows = "" if table.rows is None else f", {table.rows:,} rows"
                found = f"job {job.name}: {table.id}, {len(table.columns)} columns{rows}"
                if job.name in contracts:
                    found += _columns(job, table, match(contracts[job.name], table), accepted)
                findings.ok(found)


def _columns(job: Job, table: SourceTable, found: Match, accepted: Accepted) -> str:
    """What to say of columns that only one side has. Raises LoadError where one is missing that may not be."""
    check_columns(job, table, found, accepted)
    optional = f"; without the optional {named(found.missing)}" if found.missing else ""
    return optional + (f"; not in {job.target.table}: {named(found.unused)}" if found.unused else "")
