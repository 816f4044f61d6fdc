"""Finds the columns that each export must fill, before anything is exported.

A bronze script that is not applied yet is run in a transaction that is rolled back, to learn the columns it will make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lib.config.jobs import Job, Load
from lib.elt_schema.installation import install_what_is_missing
from lib.elt_schema.strangers import ScriptPath, refuse_triggers
from lib.errors import EltError, LoadError, LockTimeout, ScriptError
from lib.load.contract import Contract, columns_of, read_contract
from lib.postgres.connection import Connection, execute
from lib.postgres.driver_errors import translated
from lib.postgres.transaction import TransactionSettings, transaction
from lib.run.definitions import not_applied
from lib.transform.scripts import run_script

#: seconds; a trial must not wait longer for a lock, because readers of the table wait behind it
TRIAL_LOCK_TIMEOUT = 0.2


def read_contracts(
    connection: Connection,
    jobs: Sequence[Job],
    path: ScriptPath,
    retry_pauses: Sequence[float],
    pause: Callable[[float], None],
    blockers: Callable[[], str],
) -> tuple[dict[str, Contract], dict[str, EltError]]:
    """The contract of each job that loads, and what failed, both by job.

    Bronze scripts that are not applied yet are run, in the order of the jobs, in a transaction that is rolled back.
    If a lock blocks it, all of it is tried again after each pause of `retry_pauses` (in seconds, with `pause`).
    `blockers` says which sessions held the lock.
    """
    pending = not_applied(connection, [script for job in jobs for script in job.of_layer("bronze")])
    trying = [job for job in jobs if any(script in pending for script in job.transform)]
    contracts, failed = _read_all(connection, [job.load for job in jobs if job.load and job not in trying])
    pauses = [*retry_pauses]
    while trying:
        try:
            tried, wrong = _try_out(connection, trying, path)
            return contracts | tried, failed | wrong
        except LockTimeout as error:
            if not pauses:
                blocked = LockTimeout("; ".join(filter(None, (str(error), blockers()))))
                return contracts, failed | {job.name: blocked for job in trying}
            pause(pauses.pop(0))
    return contracts, failed


def _read_all(connection: Connection, loads: Sequence[Load]) -> tuple[dict[str, Contract], dict[str, EltError]]:
    contracts: dict[str, Contract] = {}
    failed: dict[str, EltError] = {}
    for load in loads:
        try:
            contracts[load.job] = read_contract(connection, load)
        except LoadError as error:
            failed[load.job] = error
    return contracts, failed


def _try_out(
    connection: Connection, jobs: Sequence[Job], path: ScriptPath
) -> tuple[dict[str, Contract], dict[str, EltError]]:
    """The contracts that the jobs' bronze scripts will make; everything is rolled back. Raises LockTimeout."""
    contracts: dict[str, Contract] = {}
    failed: dict[str, EltError] = {}
    settings = TransactionSettings(TRIAL_LOCK_TIMEOUT, search_path=path.path)
    with translated("trying out bronze scripts"), transaction(connection, settings, commit=False):
        install_what_is_missing(connection)
        for load, scripts in ((job.load, job.of_layer("bronze")) for job in jobs if job.load):
            execute(connection, "SAVEPOINT elt_trial")
            made = columns_of(connection, load)
            try:
                with translated(f"{load.job}: trying out {load.script}", ScriptError):
                    refuse_triggers(connection, ("bronze", "silver"), [], ())
                    for script in scripts:
                        run_script(connection, script)
                contract = read_contract(connection, load)
                contracts[load.job] = replace(contract, not_yet_made=frozenset(contract.columns) - made)
            except (ScriptError, LoadError) as error:
                failed[load.job] = type(error)(f"{error}{path.help(error)}")
                execute(connection, "ROLLBACK TO SAVEPOINT elt_trial")
    return contracts, failed
