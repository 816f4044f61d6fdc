"""Schemas that only the open transaction sees: a preview changes definitions and columns there, and no reader waits.

CREATE OR REPLACE VIEW and ALTER TABLE lock readers out until the end of the transaction. So a schema is renamed, and a
new one is made with the same views and tables under the same names. Renaming a schema locks none of its relations:
others go on reading them under the old name until, and after, the rollback. Only who changes the schema itself waits,
by CREATE VIEW for instance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg2 import sql

from lib.elt_schema.strangers import Name
from lib.errors import DatabaseError
from lib.postgres.connection import Connection, execute, query
from lib.transform.view_properties import properties_of

#: relations with their kind, a view's query and the triggers of a table, those first that others read
RELATIONS = """
    WITH RECURSIVE readers (oid, depth) AS (
        SELECT oid, 0 FROM pg_class
        UNION
        SELECT ev_class, depth + 1
        FROM readers
        JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = readers.oid
        JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
        WHERE ev_class <> readers.oid AND ev_class >= 16384
    )

    SELECT
        pg_class.oid, nspname, relname, relkind, pg_get_viewdef(pg_class.oid),
        ARRAY(
            SELECT pg_get_triggerdef(oid) FROM pg_trigger
            WHERE tgrelid = pg_class.oid AND NOT tgisinternal AND tgenabled <> 'D'
        )
    FROM readers
    JOIN pg_class ON pg_class.oid = readers.oid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ANY (%s) AND relkind IN ('v', 'm', 'r', 'p', 'f')
    GROUP BY pg_class.oid, nspname
    ORDER BY max(depth), nspname, relname
"""
#: Functions and types move along, because nobody who calls a function or has a value of a type locks it.
MOVES = """
    SELECT format('ALTER ROUTINE %%s SET SCHEMA %%I', oid::regprocedure, %(new)s)
    FROM pg_proc
    WHERE pronamespace = %(old)s::regnamespace
    UNION ALL
    SELECT format('ALTER TYPE %%s SET SCHEMA %%I', oid::regtype, %(new)s)
    FROM pg_type
    WHERE typnamespace = %(old)s::regnamespace AND typtype IN ('d', 'e', 'r')
    ORDER BY 1 DESC
"""
#: columns that an INSERT may name
COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum
"""
#: lets identity columns of the copy go on where those of the table are
COUNTERS = """
    SELECT setval(
        pg_get_serial_sequence(%(new)s, attname)::regclass,
        pg_sequence_last_value(pg_get_serial_sequence(%(old)s, attname)::regclass)
    )
    FROM pg_attribute
    WHERE attrelid = %(old)s::regclass AND attidentity <> ''
        AND pg_sequence_last_value(pg_get_serial_sequence(%(old)s, attname)::regclass) IS NOT NULL
"""
#: properties of a view that CREATE OR REPLACE looks at
KEPT = ("option ", "default ")


def old_name(schema: str) -> str:
    """The name, in this transaction, of the schema that others know as `schema`."""
    return f"elt_before_{schema}"


def is_private(connection: Connection, schema: str) -> bool:
    """Whether the open transaction has its own schema of this name."""
    return query(connection, "SELECT to_regnamespace(%s) IS NOT NULL", (old_name(schema),)) == [(True,)]


def make_private(
    connection: Connection, schemas: Sequence[str], *, copied: Collection[Name] = (), scripted: Collection[str] = ()
) -> None:
    """Give the open transaction its own schemas, with the same views and tables as those that others read.

    copied: tables that are copied with their rows. The others are read through a view.
    scripted: views that gold scripts make. A table of that name stays a table, so that its script fails as in a run.
    Raises DatabaseError with the statements to type if the role may not rename the schemas.
    """
    _refuse_missing_rights(connection, schemas)
    execute(connection, "SET LOCAL search_path = pg_catalog")  # so that queries of views name all schemas
    relations = [
        (schema, name, kind, definition, triggers, properties_of(connection, oid) if kind == "v" else {})
        for oid, schema, name, kind, definition, triggers in query(connection, RELATIONS, ([*schemas],))
    ]
    for schema in schemas:
        execute(connection, f"ALTER SCHEMA {schema} RENAME TO {old_name(schema)}; CREATE SCHEMA {schema}")
        for (move,) in query(connection, MOVES, {"old": old_name(schema), "new": schema}):
            execute(connection, move)
    for schema, name, kind, definition, triggers, properties in relations:
        new, old = sql.Identifier(schema, name), sql.Identifier(old_name(schema), name)
        if kind == "v":
            execute(connection, sql.SQL("CREATE VIEW {} AS {}").format(new, sql.SQL(definition)))
            for key, statement in properties.items():
                if key.startswith(KEPT):
                    execute(connection, statement)
        elif (schema, name) in copied:
            _copy_table(connection, new, old)
            for trigger in triggers:
                execute(connection, trigger)
        elif f"{schema}.{name}" in scripted:
            execute(connection, sql.SQL("CREATE TABLE {} AS TABLE {} WITH NO DATA").format(new, old))
        else:
            execute(connection, sql.SQL("CREATE VIEW {} AS TABLE {}").format(new, old))


def _copy_table(connection: Connection, new: sql.Identifier, old: sql.Identifier) -> None:
    names = {"new": new.as_string(connection), "old": old.as_string(connection)}
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in query(connection, COLUMNS, (names["old"],)))
    execute(connection, sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING ALL)").format(new, old))
    execute(
        connection,
        sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(new, columns, columns, old),
    )
    query(connection, COUNTERS, dict(names))
    execute(connection, sql.SQL("ANALYZE {}").format(new))  # of a table that the rollback takes away


def _refuse_missing_rights(connection: Connection, schemas: Sequence[str]) -> None:
    rights = query(
        connection,
        "SELECT nspname, pg_has_role(nspowner, 'USAGE'), has_database_privilege(current_database(), 'CREATE'),"
        " quote_ident(current_user), quote_ident(current_database())"
        " FROM pg_namespace WHERE nspname = ANY (%s)",
        ([*schemas],),
    )
    statements = [f"ALTER SCHEMA {schema} OWNER TO {role};" for schema, owns, _, role, _ in rights if not owns]
    statements += [f"GRANT CREATE ON DATABASE {base} TO {role};" for _, _, may, role, base in rights[:1] if not may]
    if statements:
        raise DatabaseError(
            "to preview a changed view or a new column, the role needs rights that a run does not. Type as an"
            f" administrator: {' '.join(statements)}"
        )
