"""The command `check`: finds every mistake that can be found before a run.

It checks settings, registry, scripts and secrets, and with --online also Keboola and PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.cli.report import lacks_package
from lib.config.jobs import Load, Registry
from lib.config.secrets import readable_files, show_secret
from lib.config.settings import Settings, require_keboola, require_postgres
from lib.elt_schema.installation import ONLY_COUNTED, missing_right_on_changes, missing_rights
from lib.elt_schema.strangers import OUR_SCHEMAS, creators, of_others, script_path, trigger_rights
from lib.errors import EltError
from lib.extract import SourceTable
from lib.load.contract import Contract, Match, match
from lib.load.guards import Accepted, check_age, check_columns, named
from lib.postgres.connection import Connection, Database, address
from lib.postgres.driver_errors import translated
from lib.run.flow import in_words
from lib.run.plan import make_extractor, make_flow_query, prepare_sources, read_project
from lib.run.table_check import tables_that_differ
from lib.run.targets import named_in, written_in
from lib.run.trial import read_contracts
from lib.stop import StopSignal
from lib.transform.references import references
from lib.transform.refusals import writes_nothing


def check(settings: Settings, console: Console, *, online: bool) -> int:
    """Run all checks and print every finding. Returns the exit code: 2 if there is a problem, else 0."""
    # what both of them find is told once
    findings = [*dict.fromkeys([*_offline(settings), *(_online(settings) if online else [])])]
    for finding in findings:
        if finding.level == "wrong":
            console.error(finding.text)
        elif finding.level == "warning":
            console.warn(finding.text)
        else:
            console.text(f"ok: {finding.text}")
    wrong = sum(finding.level == "wrong" for finding in findings)
    if wrong:
        console.error(f"{wrong} {'problem' if wrong == 1 else 'problems'} found")
        return 2
    console.text(
        "all is well"
        + ("" if online else f"; to ask Keboola and PostgreSQL too: {how_to_type('check --online', settings)}")
    )
    return 0


@dataclass(frozen=True)
class Finding:
    """The result of one check. If it is a warning or a problem, the text says what to do."""

    text: str
    level: Literal["ok", "warning", "wrong"] = "ok"


class Findings(list[Finding]):
    """The results of all checks, in order."""

    def ok(self, text: str) -> None:
        self.append(Finding(text))

    def warn(self, text: str) -> None:
        self.append(Finding(text, "warning"))

    def wrong(self, text: str) -> None:
        self.append(Finding(text, "wrong"))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add an error inside as a problem; the checks after it still run."""
        try:
            yield
        except EltError as error:
            self.wrong(str(error))


def _offline(settings: Settings) -> Findings:
    """Check registry, scripts, questions, settings and secrets, without a connection."""
    findings = Findings()
    registry = None
    with findings.collecting():
        registry = read_project(settings.root)
        scripts = sum(len(job.transform) + len(job.checks) for job in registry.jobs.values())
        findings.ok(f"elt_jobs.json: {len(registry.jobs)} jobs, {scripts} scripts and checks")
        _check_page(settings, findings)
        for finding in _idle_scripts(registry):
            findings.append(finding)
        for name in registry.unused_scripts:
            findings.ok(f"sql_scripts/{name} is used by no job")
    if registry is not None:
        # what Keboola needs has findings of its own below
        queries = [load for load in _loads(registry) if load.extract.query]
        with findings.collecting():
            prepare_sources(settings, queries, os.environ)
    if registry is None or any(not load.extract.query for load in _loads(registry)):
        with findings.collecting():
            findings.ok(f"Keboola is {require_keboola(settings)}")
        with findings.collecting():
            if settings.keboola_token is None:
                findings.ok(f"Keboola token: {show_secret(settings, 'keboola')}")
    for text in readable_files(settings):
        findings.warn(text)
    with findings.collecting():
        require_postgres(settings)
        findings.ok("PostgreSQL is configured")
    return findings


def _online(settings: Settings) -> Findings:
    """Ask Keboola about the token and every table, and PostgreSQL about every right that a run needs."""
    findings = Findings()
    registry = None
    with findings.collecting():
        registry = read_project(settings.root)
    contracts: dict[str, Contract] = {}
    with findings.collecting(), translated("PostgreSQL"):
        connection = Database(settings).connect("elt check")
        try:
            findings.ok(address(connection))
            wish = missing_right_on_changes(connection) if settings.keep_changes else ""
            contracts = _ask_postgres(connection, registry, wish, findings)
        finally:
            connection.close()
    loads = _loads(registry) if registry else []
    kinds = dict.fromkeys(load.extract.source for load in loads)
    for source in kinds if registry else ["keboola_table"]:
        with findings.collecting():
            _ask_source(settings, [load for load in loads if load.extract.source == source], contracts, findings)
    return findings


def _check_page(settings: Settings, findings: Findings) -> None:
    """Check the files of report/questions, and the packages if each run writes the page."""
    from lib.report.questions import read_questions

    for question in read_questions(settings.root):
        for text in question.mistakes:
            findings.wrong(text)
    for name in ("jinja2", "pygal") if settings.report else ():
        if importlib.util.find_spec(name) is None:
            findings.wrong(lacks_package(name))


def _idle_scripts(registry: Registry) -> Iterator[Finding]:
    """Silver scripts that write no row."""
    scripts = [script for job in registry.jobs.values() for script in job.of_layer("silver")]
    written = {
        name for script in scripts for found in [references(script.text)] for name in found.published | found.changed
    }
    for script in scripts:
        instead = writes_nothing(script)
        table = (script.layer, script.relation.partition(".")[2])
        call = f"SELECT * FROM elt.publish_rows('{script.relation}', '{table[1]}_now');"
        if instead == "reads rows":
            yield Finding(f"{script.path} reads rows and writes none: end it with {call}", "wrong")
        elif instead and table not in written:
            text = (
                f"{script.path} makes a table, and no script writes to it. If nobody does by hand, end it with {call}"
            )
            yield Finding(text, "warning")


def _loads(registry: Registry) -> list[Load]:
    return [job.load for job in registry.jobs.values() if job.load]


def _ask_postgres(
    connection: Connection, registry: Registry | None, wish: str, findings: Findings
) -> dict[str, Contract]:
    """Check rights, owners and what strangers could do. Returns, by job, the columns that each export must fill.

    wish: a statement for a right that a run can do without.
    """
    jobs = list(registry.jobs.values()) if registry else []
    lacking = missing_rights(connection) + of_others(connection, named_in(jobs), usable=True)
    lacking += creators(connection, OUR_SCHEMAS)
    if lacking:
        asked = "PostgreSQL: a run needs this. Look at each line, then type all of them as an administrator:"
        findings.wrong("\n    ".join([asked, *lacking, *filter(None, [wish])]))
    else:
        findings.ok("PostgreSQL: the role has every right that a run needs")
        if wish:
            findings.warn(f"{ONLY_COUNTED} {wish}")
    written = [f"{schema}.{name}" for schema, name in written_in(jobs)]
    for text in creators(connection, ["bronze", "silver", "gold"]) + trigger_rights(connection, written):
        findings.warn(text)
    path = script_path(connection)
    if path.hidden or path.reason:
        findings.warn(f"scripts do not see schema public: {path.reason}")
    if lacking:
        return {}
    loading = [job for job in jobs if job.load]
    contracts, failed = read_contracts(connection, loading, path, [0.5] * 4, time.sleep, lambda: "")
    for error in failed.values():
        findings.wrong(str(error))
    for text in tables_that_differ(connection, jobs, path):
        findings.wrong(text)
    return contracts


def _ask_source(
    settings: Settings, loads: Sequence[Load], contracts: Mapping[str, Contract], findings: Findings
) -> None:
    """Ask one kind of source about itself and about the table of each of these loads."""
    extractor = make_extractor(settings, loads, "elt-check", StopSignal().pause, os.environ, lambda line: None)
    findings.ok(extractor.describe())
    for text in extractor.warnings():
        findings.warn(text)
    if flow := settings.wait_for_flow:
        with findings.collecting():
            newest = make_flow_query(settings, StopSignal(), os.environ, lambda line: None)(None)
            if newest:
                findings.ok(in_words(flow, newest, settings.zone))
            else:
                findings.warn(f"flow {flow}: no job is to be seen. Is the id right, and may the token see its jobs?")
    accepted = Accepted(command=how_to_type("run", settings))
    for load in loads:
        with findings.collecting():
            table = extractor.table(load.extract.table)
            rows = "" if table.rows is None else f", {table.rows:,} rows"
            found = f"job {load.job}: {table.id}, {len(table.columns)} columns{rows}"
            loaded = table.columns
            if load.job in contracts:
                matched = match(contracts[load.job], table)
                found += _columns(load, table, matched, accepted)
                loaded = tuple(matched.found.values())
            if cut := [name for name in table.cut_timestamps if name in loaded]:
                found += (
                    f"; typed timestamps: {named(cut)}. The export has no fractions of a second and no offsets of them;"
                    " to keep these, make them text columns in Keboola"
                )
            check_age(load, table, datetime.now(UTC), accepted)
            findings.ok(found)


def _columns(load: Load, table: SourceTable, found: Match, accepted: Accepted) -> str:
    """Text about columns that only one side has. Raises LoadError if a column is missing that is not optional."""
    check_columns(load, table, found, accepted)
    optional = f"; without the optional {named(found.missing)}" if found.missing else ""
    return optional + (f"; not in {load.table}: {named(found.unused)}" if found.unused else "")
