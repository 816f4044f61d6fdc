"""The transaction in which a run changes the database, with the settings that every script relies on.

PostgreSQL: chapters "Client Connection Defaults" and "Concurrency Control".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from lib.errors import CommitInDoubt, ConnectionLost
from lib.postgres.connection import Connection, execute
from lib.postgres.driver_errors import translate

#: Applied again before each script, because a SET by an earlier script would still be in effect. pg_temp is searched
#: first, because the path does not list it. Each setting that could change a script's rows gets PostgreSQL's own
#: default, whatever the role or the server sets. parallel_tuple_cost is a tenth of the default: parsing a row
#: costs more than passing it between workers. enable_parallel_hash is off: a hash table that processes share is in
#: /dev/shm, and a container's 64 MB are too little for a million rows. cursor_tuple_fraction is 1, because each
#: cursor is read to its end.
TRANSACTION = """
    SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
    SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
    SET LOCAL standard_conforming_strings = on; SET LOCAL check_function_bodies = on; SET LOCAL row_security = off;
    SET LOCAL array_nulls = on; SET LOCAL transform_null_equals = off; SET LOCAL quote_all_identifiers = off;
    SET LOCAL lc_monetary = 'C'; SET LOCAL lc_numeric = 'C'; SET LOCAL lc_time = 'C';
    SET LOCAL timezone_abbreviations = 'Default'; SET LOCAL default_text_search_config = 'pg_catalog.simple';
    SET LOCAL xmlbinary = 'base64'; SET LOCAL xmloption = 'content'; SET LOCAL gin_fuzzy_search_limit = 0;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off;
    SET LOCAL work_mem = '64MB'; SET LOCAL default_tablespace = '';
    SET LOCAL parallel_tuple_cost = 0.01; SET LOCAL enable_parallel_hash = off;
    SET LOCAL cursor_tuple_fraction = 1;
"""


@dataclass(frozen=True)
class TransactionSettings:
    """The settings that differ between transactions."""

    #: seconds; must exceed deadlock_timeout (1 s), because an autovacuum that blocks us is cancelled only after that
    lock_timeout: float = 5.0
    #: the date that elt.run_date() returns to scripts
    run_date: date | None = None
    search_path: str = "pg_catalog"
    #: in a run: its number; elt.publish_rows and the like then record what they change
    run_id: int | None = None
    #: whether a run also keeps the changed rows, and not only counts
    keep_changes: bool = False
    #: whether all of it will be rolled back: then nothing runs ANALYZE, whose number of rows would stay
    is_preview: bool = False


@contextmanager
def transaction(
    connection: Connection, settings: TransactionSettings = TransactionSettings(), *, commit: bool = True
) -> Iterator[None]:
    """A READ COMMITTED READ WRITE transaction with the run's settings. Any exception rolls it back.

    commit False: it is always rolled back.
    Raises CommitInDoubt if the connection was lost during COMMIT, so that it is unknown whether it was committed.
    """
    execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        apply_settings(connection, settings)
        yield
        if commit:
            _commit(connection)
    finally:
        # also reached when COMMIT itself failed or the connection was lost
        if not connection.closed and connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            try:
                execute(connection, "ROLLBACK")
            except psycopg2.Error:
                connection.close()


def _commit(connection: Connection) -> None:
    try:
        execute(connection, "COMMIT")
    except psycopg2.Error as error:
        ours = translate(error, "COMMIT")
        if isinstance(ours, ConnectionLost):
            raise CommitInDoubt(str(ours)) from error
        raise


def apply_settings(connection: Connection, settings: TransactionSettings) -> None:
    """Set all settings of the transaction again, because a script may have changed them."""
    own = (
        f"SET LOCAL search_path = {settings.search_path};"
        f" SET LOCAL lock_timeout = '{round(settings.lock_timeout * 1000)}ms';"
        f" SET LOCAL elt.run_date = '{settings.run_date or ''}'; SET LOCAL elt.run_id = '{settings.run_id or ''}';"
        f" SET LOCAL elt.keep_changes = {'on' if settings.keep_changes else 'off'}; SET LOCAL elt.recorded_rows = '';"
        f" SET LOCAL elt.is_preview = {'on' if settings.is_preview else 'off'}"
    )
    execute(connection, TRANSACTION + own)
