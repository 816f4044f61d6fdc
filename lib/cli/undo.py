"""The command `undo`: shows what the last published run changed, asks, and takes it back."""

from __future__ import annotations

import time

from lib.cli.arguments import how_to_type
from lib.cli.changes import show_changes
from lib.cli.console import Console
from lib.cli.report import write_after_run
from lib.cli.status import is_new, reading
from lib.config.jobs import Registry
from lib.config.settings import Settings
from lib.elt_schema.strangers import refuse_strangers
from lib.errors import Cancelled, EltError
from lib.postgres.connection import Database
from lib.run import history
from lib.run.plan import read_project
from lib.run.read_changes import last_published, one_run, read_changes
from lib.run.undo import Undo, Undone
from lib.stop import StopSignal, run_stoppable


def undo(settings: Settings, console: Console, leave: list[str], *, is_sure: bool) -> int:
    """Take back what the last published run changed. Returns 0, also if there is nothing to take back.

    leave: tables to leave as they are. Without is_sure it asks. Raises EltError; then nothing was done.
    """
    stop = StopSignal()
    database = Database(settings, stop)
    run_id = _last_change(database, console, settings)
    if run_id is None:
        console.text("nothing to undo: no run has published a change that was not taken back")
        return 0
    refusal = f"nothing was done: to take run {run_id} back without being asked, add --yes"
    if not is_sure and not console.asked(f"\nTake run {run_id} back?", refusal):
        console.text("nothing was done")
        return 0
    began = time.monotonic()
    registry = _registry(settings, console)
    work = Undo(settings, database, registry, run_id, leave)
    try:
        undone = run_stoppable(work.run, stop)
    except Cancelled:
        if work.outcome is None and not stop.at_once:
            console.text("nothing was done")
        raise
    _tell(console, undone, time.monotonic() - began)
    write_after_run(settings, console)
    return 0


def _last_change(database: Database, console: Console, settings: Settings) -> int | None:
    """Print what the last change was. Returns the run to take back."""
    with reading("undo"):
        connection = database.connect("elt undo")
        try:
            refuse_strangers(connection)
            run_id = None if is_new(connection) else history.last_change(connection)
            if run_id is None:
                return None
            newest = last_published(connection)
            if newest and newest.undone_run_id is None and newest.run_id > run_id:
                later = f"run {newest.run_id} published later and changed no row"
                console.warn(f"{later}. It is taken back with run {run_id}; its scripts stay")
            if run := one_run(connection, run_id):
                at = f"{run.started_at.astimezone(settings.zone):%Y-%m-%d %H:%M %Z}"
                console.text(f"run {run_id} of {run.run_date}, started {at}, changed this:\n")
            show_changes(console, read_changes(connection, run_id, limit=1))
            console.text(f"\nmore of its rows: {how_to_type(f'changes {run_id}', settings)}")
            return run_id
        finally:
            connection.close()


def _registry(settings: Settings, console: Console) -> Registry | None:
    try:
        return read_project(settings.root)
    except EltError as error:
        console.warn(f"no check will be run: {str(error).splitlines()[0]}")
        return None


def _tell(console: Console, undone: Undone, seconds: float) -> None:
    console.text()
    for script in undone.definitions:
        console.text(f"{script} stays: run {undone.undone_run_id} applied it, but scripts are not taken back")
    for text in (*undone.broken, *undone.notes):
        console.warn(text)
    passed = f", {undone.checks - len(undone.broken)} of {undone.checks} checks pass" if undone.checks else ""
    tables = len(undone.tables)
    rows = f"{undone.rows:,} rows of {tables} table{'s' if tables != 1 else ''}"
    console.text(f"run {undone.run_id} took back run {undone.undone_run_id}: {rows}{passed}, {seconds:.1f} s")
    console.text("The next load does not bring this back: it waits for a new import, and says so.")
