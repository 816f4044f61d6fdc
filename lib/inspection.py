"""Everything that can be found wrong before a run: settings, registry, secrets; online also Keboola and PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lib.credentials import show_secret
from lib.database import Connection, address, query, translated
from lib.errors import EltError
from lib.history import missing_rights
from lib.loader import landing_columns
from lib.registry import Registry
from lib.plan import make_extractor, open_database, read_project
from lib.settings import Settings, require_keboola, require_postgres
from lib.stop import Stop


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; the text says what to do where it is wrong."""

    text: str
    wrong: bool = False


class Findings(list[Finding]):
    """What an inspection found, in order."""

    def ok(self, text: str) -> None:
        self.append(Finding(text))

    def wrong(self, text: str) -> None:
        self.append(Finding(text, wrong=True))

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
    if registry is None or _loads(registry):
        with findings.collecting():
            _ask_keboola(settings, registry, findings)
    with findings.collecting(), translated("PostgreSQL"):
        connection = open_database(settings, Stop()).connect("elt check")
        try:
            findings.ok(address(connection))
            missing = missing_rights(connection) + foreign_relations(connection, registry)
            for text in missing:
                findings.wrong(text)
            if not missing:
                findings.ok("PostgreSQL: the role has every right that a run needs")
        finally:
            connection.close()
    return findings


def _loads(registry: Registry) -> bool:
    return any(job.load for job in registry.jobs.values())


def _ask_keboola(settings: Settings, registry: Registry | None, findings: Findings) -> None:
    extractor = make_extractor(settings, "elt-check", Stop(), os.environ, lambda line: None)
    findings.ok(extractor.describe())
    for job in registry.jobs.values() if registry else ():
        if job.extract:
            with findings.collecting():
                table = extractor.table(job.extract.table)
                landing_columns(table)
                rows = "" if table.rows is None else f", {table.rows:,} rows"
                findings.ok(f"job {job.name}: {table.id}, {len(table.columns)} columns{rows}")


def foreign_relations(connection: Connection, registry: Registry | None) -> list[str]:
    """Each table or view of the registry that another role owns, with the statement that an administrator runs."""
    relations = {
        name
        for job in (registry.jobs.values() if registry else ())
        for name in [*(script.relation for script in job.transform), *([job.load.table] if job.load else [])]
    }
    rows = query(
        connection,
        "SELECT oid::regclass, CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, quote_ident(current_user)"
        " FROM pg_class WHERE oid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)"
        " AND NOT pg_has_role(relowner, 'USAGE') ORDER BY 1",
        (sorted(relations),),
    )
    return [f"{name} belongs to another role: ALTER {kind} {name} OWNER TO {role};" for name, kind, role in rows]
