"""Installs schema elt and the schemas of the layers, and reports which rights are missing.

The .sql files of this folder are run in the order of their names. Each can run again on top of an older version.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import psycopg2

from lib.elt_schema.strangers import of_others
from lib.errors import DatabaseError
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.transaction import transaction

FOLDER = Path(__file__).parent
#: finds the names of the tables, views and functions that the .sql files make
MADE = re.compile(r"^CREATE (?:OR REPLACE )?(?:TABLE IF NOT EXISTS|VIEW|FUNCTION) elt\.(\w+)", re.MULTILINE)
SCHEMAS = ("elt", "elt_staging", "bronze", "silver", "gold")


def install(connection: Connection) -> None:
    """Bring schema elt and the layers' schemas up to date. Takes no lock if they already are.

    Call it under the run lock: two CREATE OR REPLACE at the same time fail with "tuple concurrently updated".
    Raises DatabaseError with the statements for an administrator if a right is missing.
    """
    texts = [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.sql"))]
    # the comment marks the installed version; it is on a table, because the schemas may belong to an administrator
    mark = f"One row per run of the pipeline (schema elt as of {hashlib.md5(''.join(texts).encode()).hexdigest()})."
    try:
        if missing := missing_rights(connection) + of_others(connection, (), usable=True):
            asked = (
                "the role lacks rights that every run needs. `python main.py check --online` also prints what the jobs"
                " need. Type as an administrator:"
            )
            raise DatabaseError("\n    ".join([asked, *missing]))
        _create_schemas(connection)
        if query(
            connection,
            "SELECT obj_description(to_regclass('elt.runs'), 'pg_class') = %s AND NOT EXISTS ("
            " SELECT FROM unnest(%s::text[]) AS name WHERE to_regclass('elt.' || name) IS NULL AND NOT EXISTS ("
            " SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('elt')))",
            (mark, sorted(set(MADE.findall("".join(texts))))),
        )[0][0]:
            return
        with transaction(connection):
            for text in texts:
                execute(connection, text)
            execute(connection, "COMMENT ON TABLE elt.runs IS %s", (mark,))
    except psycopg2.Error as error:
        raise translate(error, "cannot install schema elt") from error


def install_what_is_missing(connection: Connection) -> None:
    """Make missing schemas, and schema elt if it is missing or old. For use in a transaction that is rolled back."""
    _create_schemas(connection)
    if query(connection, "SELECT to_regproc('elt._refuse_triggers')")[0][0] is None:
        for file in sorted(FOLDER.glob("*.sql")):
            execute(connection, file.read_text(encoding="utf-8"))


def _create_schemas(connection: Connection) -> None:
    for (schema,) in query(
        connection, "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regnamespace(name) IS NULL", ([*SCHEMAS],)
    ):
        execute(connection, f"CREATE SCHEMA {schema}")


def missing_rights(connection: Connection) -> list[str]:
    """One statement for each right that the role lacks on the database and the pipeline's schemas."""
    role, database, may_create, may_use_temporary = query(
        connection,
        "SELECT quote_ident(current_user), quote_ident(current_database()),"
        " has_database_privilege(current_database(), 'CREATE'),"
        " has_database_privilege(current_database(), 'TEMPORARY')",
    )[0]
    missing = []
    for schema in SCHEMAS:
        exists, usage, create = query(
            connection,
            "SELECT oid IS NOT NULL, has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')"
            " FROM (SELECT to_regnamespace(%s)::oid AS oid) AS found",
            (schema,),
        )[0]
        if not exists and not may_create:
            missing.append(f"CREATE SCHEMA {schema} AUTHORIZATION {role};")
        elif exists and not (usage and create):
            missing.append(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};")
    if not may_use_temporary:
        missing.append(f"GRANT TEMPORARY ON DATABASE {database} TO {role};")
    return missing
