"""Help for a gold view that PostgreSQL cannot replace in place: the views that read it, and the commands to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg2

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection, execute, query
from lib.transform.statements import statements, tokens, unquoted
from lib.transform.view_properties import properties_of

#: a relation and all views that read it, in the order in which they can be dropped: dependants first
DEPENDANTS = """
    WITH RECURSIVE

    readers (oid, depth) AS (
        SELECT %(relation)s::oid, 0
        UNION
        SELECT rewrite.ev_class, readers.depth + 1
        FROM readers
        JOIN pg_depend AS depend ON depend.refclassid = 'pg_class'::regclass AND depend.refobjid = readers.oid
        JOIN pg_rewrite AS rewrite ON depend.classid = 'pg_rewrite'::regclass AND rewrite.oid = depend.objid
        WHERE rewrite.ev_class <> readers.oid
    )

    SELECT
        pg_class.oid,
        format('%%I.%%I', nspname, relname) AS name,
        nspname || '.' || relname,
        CASE pg_class.relkind
            WHEN 'v' THEN 'VIEW'
            WHEN 'm' THEN 'MATERIALIZED VIEW'
            WHEN 'f' THEN 'FOREIGN TABLE'
            WHEN 'S' THEN 'SEQUENCE'
            WHEN 'c' THEN 'TYPE'
            WHEN 'i' THEN 'INDEX'
            ELSE 'TABLE'
        END,
        pg_get_viewdef(pg_class.oid),
        CASE WHEN NOT pg_has_role(relowner, 'USAGE') THEN quote_ident(pg_get_userbyid(relowner)) ELSE '' END
    FROM readers
    JOIN pg_class USING (oid)
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.relkind IN ('v', 'm') OR readers.depth = 0
    GROUP BY pg_class.oid, pg_namespace.oid
    ORDER BY max(readers.depth) DESC, name
"""
#: other objects that prevent dropping these relations: functions that return their rows, columns of their row type
HINDRANCES = """
    SELECT DISTINCT object.type || ' ' || object.identity
    FROM pg_class
    JOIN pg_type ON pg_type.oid = pg_class.reltype
    JOIN pg_depend
        ON refclassid = 'pg_type'::regclass AND refobjid IN (pg_type.oid, pg_type.typarray)
        OR refclassid = 'pg_class'::regclass AND refobjid = pg_class.oid
    CROSS JOIN pg_identify_object(classid, objid, objsubid) AS object
    WHERE pg_class.oid = ANY (%s::oid[])
        AND deptype = 'n'
        AND NOT (classid = 'pg_rewrite'::regclass OR classid = 'pg_type'::regclass)
    ORDER BY 1
"""


@dataclass(frozen=True)
class Relation:
    """A view that reads another relation, or that relation itself."""

    oid: int
    #: with its schema, as in SQL
    name: str
    #: the same without quotes
    plain_name: str
    kind: str
    definition: str | None
    #: whose it is, if our role may not drop it
    foreign_owner: str


def relation_and_readers(connection: Connection, oid: int) -> list[Relation]:
    """The views that read a relation, directly or indirectly, in the order in which they can be dropped. It is last."""
    return [Relation(*row) for row in query(connection, DEPENDANTS, {"relation": oid})]


def oid_of(connection: Connection, relation: str) -> int | None:
    """The oid of a relation; schema.name without quotes."""
    schema, _, name = relation.partition(".")
    rows = query(
        connection,
        "SELECT pg_class.oid FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = %s AND relname = %s",
        (schema, name),
    )
    return int(rows[0][0]) if rows else None


def replacement_help(
    connection: Connection, script: Script, error: ScriptError, path: str, scripts: Mapping[str, Script]
) -> str:
    """Text to add to the error if PostgreSQL cannot replace a gold view in place: who reads it, and what to type.

    path: the search_path with which scripts run. scripts: the project's gold scripts, by the view that they make.
    Empty for any other error (PostgreSQL: CREATE VIEW, "Notes"; SQLSTATE 42P16; 42809 if it is not a view; 42501).
    """
    cause = error.__cause__
    if script.layer != "gold" or not isinstance(cause, HELPED):
        return ""
    # so that every name is printed with its schema
    execute(connection, "SET LOCAL search_path = pg_catalog")
    oid = oid_of(connection, script.relation)
    if oid is None:
        return ""
    *readers, relation = relation_and_readers(connection, oid)
    if isinstance(cause, psycopg2.errors.InsufficientPrivilege):
        return _about_owner(connection, relation)
    is_view = relation.kind == "VIEW"
    if is_view == isinstance(cause, psycopg2.errors.WrongObjectType):
        return ""
    read_by = f"{relation.name} is read by {', '.join(reader.name for reader in readers) or 'no other view'}."
    lines = [
        f"PostgreSQL replaces a view in place only if columns are added at its end. {read_by}",
        f"If a column only changes its name, type in psql: ALTER VIEW {relation.name} RENAME COLUMN old TO new;"
        " then run again.",
    ]
    if not is_view:
        kind = relation.kind.lower()
        lines = [
            f"{relation.name} is a {kind} in this database. {read_by} DROP loses its rows: are they elsewhere, too?"
        ]
    again = [f"DROP {relation.kind} {relation.name};", *_from_script(connection, script, relation)]
    commands = rebuild(connection, readers, again, path, scripts)
    lines += hindrances(connection, [*readers, relation])
    lines.append(f"{'For any other change: type' if is_view else 'Type'} all of this in psql, then run again.")
    return "".join(f"\n    {line}" for line in [*lines, *(f"    {command}" for command in commands)])


HELPED = (
    psycopg2.errors.InvalidTableDefinition,
    psycopg2.errors.WrongObjectType,
    psycopg2.errors.InsufficientPrivilege,
)


def rebuild(
    connection: Connection,
    readers: Sequence[Relation],
    change: Sequence[str],
    path: str,
    scripts: Mapping[str, Script],
) -> list[str]:
    """The commands that drop these views, make a change, and make the views again: from their scripts, if any."""
    commands = ["BEGIN;", f"SET LOCAL search_path = {path};"]
    commands += [f"DROP {reader.kind} {reader.name};" for reader in readers]
    commands += change
    for reader in reversed(readers):
        if reader.plain_name in scripts:
            commands += _from_script(connection, scripts[reader.plain_name], reader)
        else:
            commands.append(f"CREATE {reader.kind} {reader.name} AS{_indented(reader.definition or '')}")
            commands += map(_indented, properties_of(connection, reader.oid).values())
    return [*commands, "COMMIT;"]


def hindrances(connection: Connection, relations: Sequence[Relation]) -> list[str]:
    """Lines about what the commands do not restore, and about who must type them."""
    lines = []
    if found := [text for (text,) in query(connection, HINDRANCES, ([each.oid for each in relations],))]:
        lines.append(
            f"These depend on it, too, and the commands below do not restore them: {', '.join(found)}."
            " Drop them first, and create them again afterwards."
        )
    if foreign := [f"{each.name} belongs to {each.foreign_owner}" for each in relations if each.foreign_owner]:
        lines.append(f"An administrator must type the commands: {', '.join(foreign)}.")
    return lines


def _about_owner(connection: Connection, relation: Relation) -> str:
    if not relation.foreign_owner:
        return ""
    ((role,),) = query(connection, "SELECT quote_ident(current_user)")
    return (
        f"\n    {relation.name} belongs to {relation.foreign_owner}. An administrator types, then run again:"
        f" ALTER {relation.kind} {relation.name} OWNER TO {role};"
    )


def _from_script(connection: Connection, script: Script, relation: Relation) -> list[str]:
    """The command that runs a gold script, and what the view has beyond it.

    No comment that the script sets, and nothing of a column that the script no longer mentions. Of a table, only owner
    and grants fit the view that replaces it.
    """
    file = str(script.file).replace("\\", "\\\\").replace("'", "''")
    properties = properties_of(connection, relation.oid)
    if relation.kind != "VIEW":
        properties = {
            key: text.replace(f"ALTER {relation.kind} ", "ALTER VIEW ")
            for key, text in properties.items()
            if key.startswith(("grant", "owner"))
        }
    commented = _commented(script)
    mentioned = {unquoted(kind, token) for kind, token, _ in tokens(script.text)}
    return [f"\\i '{file}'"] + [
        _indented(text)
        for key, text in properties.items()
        if not (column := _column_of(key)) or column in mentioned
        if not key.startswith("comment") or column not in commented
    ]


def _commented(script: Script) -> set[str]:
    """The columns on which the script sets a comment; an empty text stands for the view itself."""
    found: set[str] = set()
    for statement in statements(script.text):
        if statement.words[:2] == ("comment", "on"):
            names = [unquoted(kind, token) for kind, token, _ in tokens(statement.text.partition(" IS ")[0])]
            found.add([name for name in names if name][-1] if statement.words[2:3] == ("column",) else "")
    return found


def _column_of(key: str) -> str:
    """The column of a property such as `grant id 16384 f`, without its quotes; empty: it is about the whole view."""
    kind, _, rest = key.partition(" ")
    if kind == "grant":
        rest = rest.rsplit(" ", 2)[0]
    return rest.strip().strip('"') if kind in ("grant", "default", "comment") else ""


def _indented(sql: str) -> str:
    return "".join(token.replace("\n", "\n        ") if kind == "space" else token for kind, token, _ in tokens(sql))
