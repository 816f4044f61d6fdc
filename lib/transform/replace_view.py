"""Help for a gold view that PostgreSQL cannot replace in place: the views that read it, and the commands to type."""

from __future__ import annotations

import re

import psycopg2

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection, query
from lib.transform.statements import tokens
from lib.transform.view_properties import properties_of

#: a view and all views that read it, in the order in which they can be dropped: dependants first
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
    )

    SELECT
        pg_class.relnamespace::regnamespace || '.' || quote_ident(pg_class.relname) AS name,
        CASE pg_class.relkind
            WHEN 'v' THEN 'VIEW'
            WHEN 'm' THEN 'MATERIALIZED VIEW'
            WHEN 'f' THEN 'FOREIGN TABLE'
            WHEN 'S' THEN 'SEQUENCE'
            ELSE 'TABLE'
        END AS kind,
        pg_get_viewdef(pg_class.oid) AS definition
    FROM readers
    JOIN pg_class USING (oid)
    WHERE pg_class.relkind IN ('v', 'm') OR readers.depth = 0
    GROUP BY pg_class.oid
    ORDER BY max(readers.depth) DESC, name
"""
#: other objects that prevent dropping these views: functions that return their rows, columns of their row type
HINDRANCES = """
    SELECT DISTINCT object.type || ' ' || object.identity
    FROM pg_class
    JOIN pg_type ON pg_type.oid = pg_class.reltype
    JOIN pg_depend
        ON refclassid = 'pg_type'::regclass AND refobjid IN (pg_type.oid, pg_type.typarray)
        OR refclassid = 'pg_class'::regclass AND refobjid = pg_class.oid
    CROSS JOIN pg_identify_object(classid, objid, objsubid) AS object
    WHERE pg_class.oid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
        AND deptype = 'n'
        AND NOT (classid = 'pg_rewrite'::regclass OR classid = 'pg_type'::regclass)
    ORDER BY 1
"""


def replacement_help(connection: Connection, script: Script, error: ScriptError) -> str:
    """Text to add to the error if PostgreSQL cannot replace a gold view in place: who reads it, and what to type.

    Empty for any other error (PostgreSQL: CREATE VIEW, "Notes"; SQLSTATE 42P16; 42809 if it is not a view).
    """
    cause = error.__cause__
    if script.layer != "gold" or not isinstance(
        cause, (psycopg2.errors.InvalidTableDefinition, psycopg2.errors.WrongObjectType)
    ):
        return ""
    *others, view = query(connection, DEPENDANTS, {"relation": script.relation}) or [("", "VIEW", "")]
    is_view = view[1] == "VIEW"
    if is_view == isinstance(cause, psycopg2.errors.WrongObjectType):
        return ""
    names = [name for name, *_ in [*others, view]]
    hindrances = [text for (text,) in query(connection, HINDRANCES, (names,))]
    file = str(script.file).replace("\\", "\\\\").replace("'", "''")
    commands = [f"DROP {kind} {name};" for name, kind, _ in [*others, view]]
    commands += [f"\\i '{file}'", *_own_properties(connection, script, view[0], is_view=is_view)]
    for name, kind, definition in reversed(others):
        commands.append(f"CREATE {kind} {name} AS{_indented(definition)}")
        commands += map(_indented, properties_of(connection, name).values())
    read_by = f"{view[0]} is read by {', '.join(name for name, *_ in others) or 'no other view'}."
    lines = [
        f"PostgreSQL replaces a view in place only if columns are added at its end. {read_by}",
        f"If a column only changes its name, type in psql: ALTER VIEW {view[0]} RENAME COLUMN old TO new;"
        " then run again.",
    ]
    if not is_view:
        kind = view[1].lower()
        lines = [f"{view[0]} is a {kind} in this database. {read_by} DROP loses its rows: are they elsewhere, too?"]
    if hindrances:
        lines.append(
            f"These use the view's row type, and the commands below do not restore them: {', '.join(hindrances)}."
            " Drop them first, and create them again afterwards."
        )
    lines += [
        f"{'For any other change: type' if is_view else 'Type'} all of this in psql, then run again.",
        *(f"    {command}" for command in ("BEGIN;", *commands, "COMMIT;")),
    ]
    return "".join(f"\n    {line}" for line in lines)


def _own_properties(connection: Connection, script: Script, name: str, *, is_view: bool) -> list[str]:
    """What the view has beyond its script: no comments if the script sets some, and nothing of a column that the script
    no longer mentions. Of a table, only its grants fit the view that replaces it."""
    statements = properties_of(connection, name)
    if not is_view:
        statements = {key: text for key, text in statements.items() if key.startswith("grant")}
    if "comment on" in script.text.lower():
        statements = {key: text for key, text in statements.items() if not key.startswith("comment")}
    return [
        _indented(text)
        for key, text in statements.items()
        if not (column := _column_of(key)) or re.search(rf"\b{re.escape(column)}\b", script.text)
    ]


def _column_of(key: str) -> str:
    """The column of a property such as `grant id 16384 f`, without its quotes; empty: it is about the whole view."""
    kind, _, rest = key.partition(" ")
    if kind == "grant":
        rest = rest.rsplit(" ", 2)[0]
    return rest.strip().strip('"') if kind in ("grant", "default", "comment") else ""


def _indented(sql: str) -> str:
    return "".join(token.replace("\n", "\n        ") if kind == "space" else token for kind, token, _ in tokens(sql))
