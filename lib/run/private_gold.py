"""A schema gold that only the open transaction sees: a preview applies changed definitions there, and no reader waits.

CREATE OR REPLACE VIEW would lock readers of the view out until the end of the transaction. So the schema is renamed and
a new gold is made with the same views, under the same names, in which the definitions are applied as in a run. Renaming
a schema locks none of its relations: others go on reading them under the old name until, and after, the rollback. Only
who changes the schema itself, such as by CREATE VIEW, waits.
"""

from __future__ import annotations

from collections.abc import Collection

from psycopg2 import sql

from lib.errors import DatabaseError
from lib.postgres.connection import Connection, execute, query
from lib.transform.view_properties import properties_of

#: name of the schema that others know as gold
OLD = "elt_gold_before"

#: relations of gold with their kind and a view's query, those first that others read
RELATIONS = """
    WITH RECURSIVE readers (oid, depth) AS (
        SELECT oid, 0 FROM pg_class WHERE relnamespace = 'gold'::regnamespace AND relkind IN ('v', 'm', 'r', 'p', 'f')
        UNION
        SELECT ev_class, depth + 1
        FROM readers
        JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = readers.oid
        JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
        WHERE ev_class <> readers.oid
    )

    SELECT oid, relname, relkind, pg_get_viewdef(oid)
    FROM readers
    JOIN pg_class USING (oid)
    WHERE relnamespace = 'gold'::regnamespace
    GROUP BY oid
    ORDER BY max(depth), relname
"""
#: Functions and types of gold move along, because nobody who calls a function or has a value of a type locks it.
MOVES = f"""
    SELECT format('ALTER ROUTINE %s SET SCHEMA gold', oid::regprocedure)
    FROM pg_proc
    WHERE pronamespace = '{OLD}'::regnamespace
    UNION ALL
    SELECT format('ALTER TYPE %s SET SCHEMA gold', oid::regtype)
    FROM pg_type
    WHERE typnamespace = '{OLD}'::regnamespace AND typtype IN ('d', 'e', 'r')
    ORDER BY 1 DESC
"""
#: properties of a view that CREATE OR REPLACE looks at
KEPT = ("option ", "default ")


def is_private(connection: Connection) -> bool:
    """Whether the open transaction has its own gold."""
    return query(connection, "SELECT to_regnamespace(%s) IS NOT NULL", (OLD,)) == [(True,)]


def make_private(connection: Connection, scripted: Collection[str]) -> None:
    """Give the open transaction its own gold, with the same views as the one that others read.

    scripted: relations that a gold script makes. One of these that is a table stays a table, so that its script fails
    as in a run. Any other table is read through a view.
    Raises DatabaseError with the statement to type if the role may not rename the schema.
    """
    _refuse_missing_rights(connection)
    execute(connection, "SET LOCAL search_path = pg_catalog")  # so that queries of views name all schemas
    relations = [
        (name, kind, definition, properties_of(connection, oid) if kind == "v" else {})
        for oid, name, kind, definition in query(connection, RELATIONS)
    ]
    execute(connection, f"ALTER SCHEMA gold RENAME TO {OLD}; CREATE SCHEMA gold")
    for (move,) in query(connection, MOVES):
        execute(connection, move)
    for name, kind, definition, properties in relations:
        new, old = sql.Identifier("gold", name), sql.Identifier(OLD, name)
        if kind == "v":
            execute(connection, sql.SQL("CREATE VIEW {} AS {}").format(new, sql.SQL(definition)))
            for key, statement in properties.items():
                if key.startswith(KEPT):
                    execute(connection, statement)
        elif f"gold.{name}" in scripted:
            execute(connection, sql.SQL("CREATE TABLE {} AS TABLE {} WITH NO DATA").format(new, old))
        else:
            execute(connection, sql.SQL("CREATE VIEW {} AS TABLE {}").format(new, old))


def _refuse_missing_rights(connection: Connection) -> None:
    owns, may_create, role, database = query(
        connection,
        "SELECT pg_has_role(nspowner, 'USAGE'), has_database_privilege(current_database(), 'CREATE'),"
        " quote_ident(current_user), quote_ident(current_database())"
        " FROM pg_namespace WHERE nspname = 'gold'",
    )[0]
    statements = [
        *([] if owns else [f"ALTER SCHEMA gold OWNER TO {role};"]),
        *([] if may_create else [f"GRANT CREATE ON DATABASE {database} TO {role};"]),
    ]
    if statements:
        raise DatabaseError(
            "to preview a changed gold script, the role needs rights that a run does not. Type as an administrator: "
            + " ".join(statements)
        )
