"""The columns of a bronze table are a contract: they alone are exported, staged and loaded.

Owns which columns an export must fill, known before anything is exported, and which column of the source fills which.
Columns that fill themselves (DEFAULT, identity, generated) are no part of the contract. Knows no staging and no COPY.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lib import history
from lib.database import Connection, LockTimeout, execute, query, transaction, translated
from lib.errors import EltError, LoadError, ScriptError
from lib.extractors import SourceTable
from lib.jobs import Job, Load
from lib.strangers import ScriptPath, refuse_triggers
from lib.transformer import run_script

#: seconds; a bronze script that is only tried out must not make readers of its table wait for longer
TRIAL_LOCK_TIMEOUT = 0.2


@dataclass(frozen=True)
class Contract:
    """What an export must fill in one bronze table."""

    table: str
    #: in the table's order
    columns: tuple[str, ...]
    #: columns that fill themselves: nothing of the source is loaded into them
    self_filling: frozenset[str]


@dataclass(frozen=True)
class Match:
    """A contract held against a source table."""

    #: bronze column -> column of the source, in the source's order, which is that of an export
    found: Mapping[str, str]
    #: bronze columns that the source lacks
    missing: tuple[str, ...]
    #: columns of the source that no bronze column asks for, in the source's order
    unused: tuple[str, ...]


def landing_name(column: str) -> str:
    """A source column's name in bronze: lower case, everything but a-z, 0-9 and _ replaced by _."""
    return re.sub(r"[^a-z0-9_]", "_", column.lower())


def may_be_column(name: str) -> bool:
    """Whether PostgreSQL takes this name for a column whole (manual: "Identifiers and Key Words", "System Columns")."""
    return 0 < len(name.encode()) < 64 and name not in ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


def match(contract: Contract, source: SourceTable) -> Match:
    """Find the source's column for each column of the contract, by its landing name.

    Raises LoadError where two columns of the source land under one name that the contract asks for. Two that meet under
    any other name do no harm.
    """
    landed: dict[str, list[str]] = {}
    for column in source.columns:
        landed.setdefault(landing_name(column), []).append(column)
    for name in contract.columns:
        if len(landed.get(name, ())) > 1:
            both = " and ".join(map(repr, landed[name]))
            raise LoadError(
                f"{source.id}: columns {both} would both land as {name!r} in {contract.table}; rename one in Keboola"
            )
    wanted = {landed[name][0]: name for name in contract.columns if name in landed}
    found = {wanted[column]: column for column in source.columns if column in wanted}
    return Match(
        found,
        tuple(name for name in contract.columns if name not in found),
        tuple(column for column in source.columns if column not in wanted),
    )


def read_contract(connection: Connection, load: Load) -> Contract:
    """The contract as the database has it now. Raises LoadError where there is no such table."""
    with translated(f"cannot look at {load.table}", LoadError):
        columns = query(
            connection,
            "SELECT attname, atthasdef OR attidentity <> '', relkind IN ('r', 'p')"
            " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f'"{load.schema}"."{load.name}"',),
        )
    if not columns:
        raise LoadError(
            f"{load.table} does not exist: let {load.script} create it, and name that script in `transform`"
        )
    if not columns[0][2]:
        raise LoadError(f"{load.table} is no table: rows can only be loaded into a table")
    contract = Contract(
        load.table,
        tuple(name for name, fills_itself, _ in columns if not fills_itself),
        frozenset(name for name, fills_itself, _ in columns if fills_itself),
    )
    if not contract.columns:
        raise LoadError(f"{load.table} has no column that a load could fill: each has a DEFAULT or fills itself")
    if unknown := [name for name in load.optional_columns if name not in {name for name, *_ in columns}]:
        raise LoadError(
            f"{load.table} has no column {unknown[0]!r}, which optional_columns names; correct elt_jobs.json"
        )
    return contract


def read_contracts(
    connection: Connection,
    jobs: Sequence[Job],
    path: ScriptPath,
    pauses: Sequence[float],
    pause: Callable[[float], None],
    blockers: Callable[[], str],
) -> tuple[dict[str, Contract], dict[str, EltError]]:
    """The contract of each job that loads, and what failed, by job.

    Bronze scripts that are not applied yet are run, in the order of the jobs, in a transaction that is rolled back.
    Where a lock is in the way, all is tried again after each of these pauses (seconds); `blockers` says who held it.
    """
    scripts = [script for job in jobs for script in job.transform if script.layer == "bronze"]
    pending = history.not_applied(connection, scripts)
    trying = [job for job in jobs if any(script in pending for script in job.transform)]
    contracts, failed = _read_all(connection, [job for job in jobs if job not in trying])
    left = [*pauses]
    while trying:
        try:
            tried, wrong = _try_out(connection, trying, path)
            return contracts | tried, failed | wrong
        except LockTimeout as error:
            if not left:
                told = LockTimeout(f"{error}; {blockers() or 'who held it has let go since'}")
                return contracts, failed | {job.name: told for job in trying}
            pause(left.pop(0))
    return contracts, failed


def _read_all(connection: Connection, jobs: Sequence[Job]) -> tuple[dict[str, Contract], dict[str, EltError]]:
    contracts: dict[str, Contract] = {}
    failed: dict[str, EltError] = {}
    for job in jobs:
        try:
            contracts[job.name] = read_contract(connection, job.target)
        except LoadError as error:
            failed[job.name] = error
    return contracts, failed


def _try_out(
    connection: Connection, jobs: Sequence[Job], path: ScriptPath
) -> tuple[dict[str, Contract], dict[str, EltError]]:
    """The contracts that the jobs' bronze scripts will make; nothing of it stays. Raises LockTimeout."""
    contracts: dict[str, Contract] = {}
    failed: dict[str, EltError] = {}
    with (
        translated("trying out bronze scripts"),
        transaction(connection, lock_timeout=TRIAL_LOCK_TIMEOUT, search_path=path.path, commit=False),
    ):
        history.install_what_is_missing(connection)
        for job in jobs:
            execute(connection, "SAVEPOINT elt_trial")
            try:
                with translated(f"{job.name}: trying out {job.target.script}", ScriptError):
                    refuse_triggers(connection, ("bronze", "silver"), [], ())
                    for script in job.transform:
                        if script.layer == "bronze":
                            run_script(connection, script)
                contracts[job.name] = read_contract(connection, job.target)
            except (ScriptError, LoadError) as error:
                failed[job.name] = type(error)(f"{error}{path.help(error)}")
                execute(connection, "ROLLBACK TO SAVEPOINT elt_trial")
    return contracts, failed
