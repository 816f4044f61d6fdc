"""Installs schema elt and the schemas of the layers, and reports which rights are missing.

The .sql files of this folder are run in the order of their names. Each can run again on top of an older version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import psycopg2

from lib.elt_schema.strangers import of_others
from lib.errors import DatabaseError
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.transaction import transaction

FOLDER = Path(__file__).parent
#: finds the names of the tables, views and functions that the .sql files make
MADE = re.compile(r"^CREATE (?:OR REPLACE )?(TABLE IF NOT EXISTS|VIEW|FUNCTION) elt\.(\w+)", re.MULTILINE)
SCHEMAS = ("elt", "elt_staging", "bronze", "silver", "gold")
#: keeps the rows that runs changed; a run also works without it
CHANGES = "elt_changes"
#: the statement of `missing_right_on_changes` follows
ONLY_COUNTED = "changed rows are counted, but not kept. To keep them, too, type as an administrator:"

#: A hash of these objects as they are in the database: columns, constraints, views and functions.
STATE = """
    WITH made AS (
        SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('elt') AND relname = ANY (%(names)s)
    )

    SELECT md5(coalesce(string_agg(line, ' ' ORDER BY line COLLATE "C"), '')) FROM (
        SELECT concat_ws(' ', attrelid::regclass, attname, atttypid::regtype, attnotnull, attidentity)
        FROM pg_attribute WHERE attrelid IN (TABLE made) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE conrelid IN (TABLE made)
        UNION ALL
        SELECT concat_ws(' ', oid::regclass, relkind, pg_get_viewdef(oid))
        FROM pg_class WHERE oid IN (TABLE made)
        UNION ALL
        SELECT pg_get_functiondef(oid)
        FROM pg_proc WHERE pronamespace = to_regnamespace('elt') AND proname = ANY (%(names)s) AND prokind = 'f'
    ) AS lines (line)
"""

REMEDY = (
    "If it was changed by hand and cannot be changed back: ALTER SCHEMA elt RENAME TO elt_old; The next run makes a new"
    " one, and the history stays in elt_old."
)


def install(connection: Connection) -> None:
    """Bring schema elt and the layers' schemas up to date, and repair what is missing. Takes no lock if all is there.

    Call it under the run lock: two CREATE OR REPLACE at the same time fail with "tuple concurrently updated".
    Raises DatabaseError with the statements to type if a right is missing, or if the schema cannot be repaired.
    """
    texts = _texts()
    try:
        if missing := missing_rights(connection) + of_others(connection, (), usable=True):
            asked = (
                "the role lacks rights that every run needs. `python main.py check --online` also prints what the jobs"
                " need. Type as an administrator:"
            )
            raise DatabaseError("\n    ".join([asked, *missing]))
        _create_schemas(connection)
        if query(connection, "SELECT obj_description(to_regclass('elt.runs'), 'pg_class')") != [
            (_mark(connection, texts),)
        ]:
            _refuse_other_kinds(connection, texts)
            with transaction(connection):
                for text in texts:
                    execute(connection, text)
                execute(connection, "COMMENT ON TABLE elt.runs IS %s", (_mark(connection, texts),))
    except psycopg2.Error as error:
        raise translate(error, "cannot install schema elt", remedy=REMEDY) from error


def install_what_is_missing(connection: Connection) -> None:
    """Make missing schemas, and schema elt if it lacks something. For use in a transaction that is rolled back."""
    _create_schemas(connection)
    if _missing(connection, texts := _texts()):
        for text in texts:
            execute(connection, text)


def _texts() -> list[str]:
    return [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.sql"))]


def _made(texts: Sequence[str]) -> dict[str, str]:
    """What the .sql files make: the name of each table, view and function, and which of these it is."""
    return {name: kind.split()[0].lower() for kind, name in MADE.findall("".join(texts))}


def _mark(connection: Connection, texts: Sequence[str]) -> str:
    """The comment that elt.runs has if these texts were installed and nothing was changed since.

    It is on a table, because the schemas may belong to an administrator.
    """
    ((state,),) = query(connection, STATE, {"names": [*_made(texts)]})
    version = hashlib.md5("".join([*texts, state]).encode()).hexdigest()
    return f"One row per run of the pipeline (schema elt as of {version})."


def _missing(connection: Connection, texts: Sequence[str]) -> bool:
    """Whether a table, view or function is missing."""
    names = [*_made(texts)]
    ((found,),) = query(
        connection,
        "SELECT count(*) FROM unnest(%s::text[]) AS name WHERE EXISTS ("
        "SELECT FROM pg_class WHERE relname = name AND relnamespace = to_regnamespace('elt')) OR EXISTS ("
        "SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('elt'))",
        (names,),
    )
    return bool(found < len(names))


def _refuse_other_kinds(connection: Connection, texts: Sequence[str]) -> None:
    """Raises DatabaseError if a name of our tables and views is that of another kind of object."""
    wanted = {name: kind for name, kind in _made(texts).items() if kind != "function"}
    found = query(
        connection,
        "SELECT relname, type FROM pg_class CROSS JOIN pg_identify_object('pg_class'::regclass, oid, 0)"
        " WHERE relnamespace = to_regnamespace('elt') AND relname = ANY (%s)",
        ([*wanted],),
    )
    for name, kind in found:
        if kind != wanted[name]:
            raise DatabaseError(
                f"elt.{name} is a {kind}, but the pipeline needs a {wanted[name]} of this name."
                f" Rename it: ALTER TABLE elt.{name} RENAME TO {name}_old; The next run makes a new one."
            )


def _create_schemas(connection: Connection) -> None:
    for (schema,) in query(
        connection, "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regnamespace(name) IS NULL", ([*SCHEMAS],)
    ):
        execute(connection, f"CREATE SCHEMA {schema}")
    if not missing_right_on_changes(connection):
        ours = "SELECT nspacl IS NULL AND pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = %s"
        if not (found := query(connection, ours, (CHANGES,))):
            execute(connection, f"CREATE SCHEMA {CHANGES}")
        # For its views, which show each role what it may see. Without an ACL, nobody has decided yet who may use it.
        if found in ([], [(True,)]):
            execute(connection, f"GRANT USAGE ON SCHEMA {CHANGES} TO PUBLIC")


def missing_right_on_changes(connection: Connection) -> str:
    """The statement that lets the role keep changed rows; empty if it may."""
    role, exists, usable, may_create = query(
        connection,
        "SELECT quote_ident(current_user), oid IS NOT NULL,"
        " coalesce(has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE'), false),"
        " has_database_privilege(current_database(), 'CREATE')"
        " FROM (SELECT to_regnamespace(%s)::oid AS oid) AS found",
        (CHANGES,),
    )[0]
    if exists:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {CHANGES} TO {role}; GRANT USAGE ON SCHEMA {CHANGES} TO PUBLIC;"
        return "" if usable else grant
    return "" if may_create else f"CREATE SCHEMA {CHANGES} AUTHORIZATION {role};"


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
