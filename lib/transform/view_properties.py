"""The properties of a view besides its query: options, owner, grants, comments, defaults, triggers, rules, and the
indexes of a materialized view.

CREATE OR REPLACE VIEW resets the options, so they are set again: readers must not see more than before.
DROP VIEW loses all properties, so the commands that are printed for the user restore them.
PostgreSQL: CREATE VIEW, "Notes"; ALTER VIEW.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg2
from psycopg2 import sql

from lib.errors import ScriptError
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate

#: the properties of one view: name, and the statement that sets it
PROPERTIES = """
    WITH

    view AS (
        SELECT
            pg_class.oid,
            relowner,
            relacl,
            reloptions,
            format('%%I.%%I', nspname, relname) AS name,
            CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
        FROM pg_class
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = %(relation)s::oid
    ),

    columns AS (
        SELECT attnum, quote_ident(attname) AS name, attacl
        FROM pg_attribute
        WHERE attrelid = %(relation)s::oid AND attnum > 0 AND NOT attisdropped
    ),

    grants (place, column_name, grantee, grantable, privileges) AS (
        SELECT 0, NULL, grantee, is_grantable, string_agg(privilege_type, ', ' ORDER BY privilege_type)
        FROM view
        CROSS JOIN aclexplode(relacl)
        WHERE grantee <> relowner
        GROUP BY grantee, is_grantable
        UNION ALL
        SELECT
            columns.attnum,
            columns.name,
            grantee,
            is_grantable,
            string_agg(format('%%s (%%s)', privilege_type, columns.name), ', ' ORDER BY privilege_type)
        FROM view
        CROSS JOIN columns
        CROSS JOIN aclexplode(columns.attacl)
        WHERE grantee <> relowner
        GROUP BY columns.attnum, columns.name, grantee, is_grantable
    )

    SELECT property, statement
    FROM (
        SELECT 1, 0, 'option ' || option[1], format('ALTER %%s %%s SET (%%s = %%L);', kind, name, option[1], option[2])
        FROM view
        CROSS JOIN unnest(reloptions) AS reloption
        CROSS JOIN string_to_array(reloption, '=') AS option
        UNION ALL
        SELECT 2, columns.attnum, 'default ' || columns.name, format(
            'ALTER VIEW %%s ALTER COLUMN %%s SET DEFAULT %%s;', view.name, columns.name, pg_get_expr(adbin, adrelid)
        )
        FROM view
        JOIN pg_attrdef ON adrelid = view.oid
        JOIN columns ON columns.attnum = adnum
        UNION ALL
        SELECT 3, 0, 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid) || ';'
        FROM view
        JOIN pg_index ON indrelid = view.oid
        UNION ALL
        SELECT 4, objsubid, 'comment ' || coalesce(columns.name, ''), CASE
            WHEN columns.name IS NULL THEN format('COMMENT ON %%s %%s IS %%L;', kind, view.name, description)
            ELSE format('COMMENT ON COLUMN %%s.%%s IS %%L;', view.name, columns.name, description)
        END
        FROM view
        JOIN pg_description ON objoid = view.oid AND classoid = 'pg_class'::regclass
        LEFT JOIN columns ON columns.attnum = objsubid
        UNION ALL
        SELECT 5, 0, 'owner', format('ALTER %%s %%s OWNER TO %%s;', kind, name, relowner::regrole)
        FROM view
        UNION ALL
        SELECT 6, place, format('grant %%s %%s %%s', column_name, grantee, grantable), format(
            'GRANT %%s ON %%s TO %%s%%s;',
            privileges,
            name,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            CASE WHEN grantable THEN ' WITH GRANT OPTION' ELSE '' END
        )
        FROM grants
        CROSS JOIN view
        UNION ALL
        SELECT 7, 0, 'trigger ' || tgname, pg_get_triggerdef(pg_trigger.oid) || ';'
        FROM view
        JOIN pg_trigger ON tgrelid = view.oid AND NOT tgisinternal
        UNION ALL
        SELECT 8, 0, 'rule ' || rulename, pg_get_ruledef(pg_rewrite.oid)
        FROM view
        JOIN pg_rewrite ON ev_class = view.oid AND rulename <> '_RETURN'
    ) AS properties (kind, place, property, statement)
    ORDER BY kind, place, property
"""


def properties_of(connection: Connection, oid: int) -> dict[str, str]:
    """The statement that sets each property of a view, by the property's name."""
    return dict(query(connection, PROPERTIES, {"relation": oid}))


def read_options(connection: Connection, relation: str) -> list[str]:
    """The options of a view as PostgreSQL stores them, such as security_invoker=true; [] if there is no such view."""
    return [
        option
        for (option,) in query(
            connection,
            "SELECT unnest(reloptions) FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'v'",
            (relation,),
        )
    ]


def restore_options(connection: Connection, relation: str, before: Sequence[str]) -> None:
    """Set options again that a new definition has reset. An option that the definition sets itself is not changed.

    Raises ScriptError if the new definition does not allow one: a check option needs a view that can be updated.
    PostgreSQL: CREATE OR REPLACE VIEW without WITH resets security_invoker, security_barrier and check_option.
    """
    named = {option.partition("=")[0] for option in read_options(connection, relation)}
    for option in before:
        name, _, value = option.partition("=")
        if name not in named:
            set_option = sql.SQL("ALTER VIEW {} SET ({} = {})").format(
                sql.Identifier(*relation.split(".", 1)), sql.Identifier(name), sql.Literal(value)
            )
            remedy = f"To give the option up, type in psql, then run again: ALTER VIEW {relation} RESET ({name});"
            try:
                execute(connection, set_option)
            except psycopg2.Error as error:
                subject = f"{relation} had the option {name}, which its new definition does not allow"
                raise translate(error, subject, ScriptError, remedy) from error
