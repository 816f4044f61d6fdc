"""Help for a gold view that PostgreSQL cannot replace in place: the views that read it, and the commands to type."""

from __future__ import annotations

import psycopg2

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection, query
from lib.transform.statements import tokens

#: A view and all views that read it, in the order in which they can be dropped (dependants first). With each: its
#: definition, and the statements that restore its owner, comment and rights.
DEPENDANTS = """
    WITH RECURSIVE

    readers (oid, depth) AS (
        SELECT to_regclass(%(relation)s)::oid, 0
        UNION
        SELECT rewrite.ev_class, readers.depth + 1
        FROM readers
        JOIN pg_depend AS depend ON depend.refclassid = 'pg_class'::regclass AND depend.refobjid = readers.oid
        JOIN pg_rewrite AS rewrite ON depend.classid = 'pg_rewrite'::regclass AND rewrite.oid = depend.objid
        WHERE rewrite.ev_class <> readers.oid
    ),

    views AS (
        SELECT pg_class.oid, pg_class.relowner, pg_class.relacl, max(readers.depth) AS depth,
               pg_class.relnamespace::regnamespace || '.' || quote_ident(pg_class.relname) AS name,
               CASE pg_class.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
        FROM readers
        JOIN pg_class USING (oid)
        WHERE pg_class.relkind IN ('v', 'm')
        GROUP BY pg_class.oid
    )

    SELECT name, kind, pg_get_viewdef(oid) AS definition,
           array_remove(ARRAY[
               format('ALTER %%s %%s OWNER TO %%s;', kind, name, relowner::regrole),
               'COMMENT ON ' || kind || ' ' || name || ' IS ' || quote_literal(obj_description(oid, 'pg_class')) || ';'
           ], NULL)
           || ARRAY(
               SELECT format('GRANT %%s ON %%s TO %%s%%s;', string_agg(privilege_type, ', '), name,
                             CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                             CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
               FROM aclexplode(relacl)
               WHERE grantee <> relowner
               GROUP BY grantee, is_grantable
               ORDER BY grantee, is_grantable
           ) AS belongings
    FROM views
    ORDER BY depth DESC, name
"""


def replacement_help(connection: Connection, script: Script, error: ScriptError) -> str:
    """Text to add to the error if PostgreSQL cannot replace a gold view in place: who reads it, and what to type.

    Empty for any other error (PostgreSQL: CREATE VIEW, "Notes"; SQLSTATE 42P16).
    """
    cause = error.__cause__
    if not isinstance(cause, psycopg2.errors.InvalidTableDefinition) or script.layer != "gold":
        return ""
    *others, view = query(connection, DEPENDANTS, {"relation": script.relation})
    file = str(script.file).replace("\\", "\\\\").replace("'", "''")
    commands = [f"DROP {kind} {name};" for name, kind, _, _ in [*others, view]]
    commands += [f"\\i '{file}'", *(command for command in view[3] if not command.startswith("COMMENT"))]
    for name, kind, definition, belongings in reversed(others):
        commands += [f"CREATE {kind} {name} AS{_indented(definition)}", *belongings]
    lines = [
        f"PostgreSQL replaces a view in place only if columns are added at its end. {view[0]} is read by"
        f" {', '.join(name for name, *_ in others) or 'no other view'}.",
        f"If a column only changes its name, type in psql: ALTER VIEW {view[0]} RENAME COLUMN old TO new;"
        " then run again.",
        "For any other change: type all of this in psql, then run again.",
        *(f"    {command}" for command in ("BEGIN;", *commands, "COMMIT;")),
    ]
    return "".join(f"\n    {line}" for line in lines)


def _indented(sql: str) -> str:
    return "".join(token.replace("\n", "\n        ") if kind == "space" else token for kind, token, _ in tokens(sql))
