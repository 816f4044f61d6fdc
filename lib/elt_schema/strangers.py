"""Prevents that code of other roles runs with the rights of the pipeline's role.

A stranger is a role that can log in and that we do not trust. We trust superusers, the database's owner, roles that can
become one of these, our own role, and the roles that it is a member of. This module decides which search_path scripts
get. It checks who owns what a run calls, which triggers would fire, and where a stranger could create code.

PostgreSQL: "Schemas", section "Usage Patterns". "Function Type Resolution": if a schema in the path has a stranger's
function whose argument types fit better, it is called instead of PostgreSQL's own function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lib.errors import DatabaseError
from lib.postgres.connection import Connection, query

#: the schemas that nobody but the pipeline may have anything in
OUR_SCHEMAS = ["elt", "elt_staging", "elt_changes"]
#: (schema, name) of a table, view or function
Name = tuple[str, str]

#: Membership is read from pg_auth_members, because pg_has_role returns true for a superuser and any role. Since
#: PostgreSQL 16 a member may only be allowed to grant the role, neither to inherit it nor to SET ROLE; such a member is
#: not trusted.
ROLES = """
    members (member, roleid) AS (
        SELECT member, roleid
        FROM pg_auth_members
        WHERE coalesce((to_jsonb(pg_auth_members) ->> 'inherit_option')::boolean, true)
            OR coalesce((to_jsonb(pg_auth_members) ->> 'set_option')::boolean, true)
    ),

    ours (oid) AS (
        SELECT oid FROM pg_roles WHERE rolname = current_user
        UNION
        SELECT members.roleid FROM members JOIN ours ON members.member = ours.oid
    ),

    administrators (oid) AS (
        SELECT oid FROM pg_roles WHERE rolsuper OR rolname = 'pg_database_owner'
        UNION
        SELECT datdba FROM pg_database WHERE datname = current_database()
        UNION
        SELECT members.member FROM members JOIN administrators ON members.roleid = administrators.oid
    ),

    trusted (oid) AS (
        SELECT oid FROM ours
        UNION
        SELECT oid FROM administrators
    ),

    strangers (oid, name) AS (
        SELECT oid, rolname FROM pg_roles WHERE rolcanlogin AND oid NOT IN (SELECT oid FROM trusted)
    )
"""

#: which strangers may create objects in these schemas, and the statement that takes away this right
CREATORS = f"""
    WITH RECURSIVE {ROLES},

    rights (nspname, role, grantee, statement) AS (
        SELECT nspname, nspowner, nspowner, format('ALTER SCHEMA %%I OWNER TO %%I;', nspname, current_user)
        FROM pg_namespace
        UNION ALL
        SELECT nspname, grantee, grantee, format(
            'REVOKE CREATE ON SCHEMA %%I FROM %%s;', nspname,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        FROM pg_namespace
        CROSS JOIN aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS acl
        WHERE privilege_type = 'CREATE' AND grantee <> nspowner
    )

    SELECT nspname, statement, min(strangers.name)
    FROM rights
    JOIN strangers ON rights.role = 0 OR pg_has_role(strangers.oid, rights.role, 'MEMBER')
    WHERE nspname = ANY (%s)
    GROUP BY nspname, statement
    ORDER BY nspname, statement
"""

#: The names of all objects in a schema, and the first object in it that is code of a stranger. It looks only at OIDs
#: above PostgreSQL's own objects, so that an index is used.
IN_SCHEMA = f"""
    WITH RECURSIVE {ROLES},

    objects (name, owner, is_code, description) AS (
        SELECT proname, proowner, true, 'function ' || oid::regprocedure
        FROM pg_proc WHERE oid >= 16384 AND pronamespace = to_regnamespace(%(schema)s)
        UNION ALL
        SELECT oprname, oprowner, true, 'operator ' || oid::regoperator
        FROM pg_operator WHERE oid >= 16384 AND oprnamespace = to_regnamespace(%(schema)s)
        UNION ALL
        SELECT relname, relowner, relkind IN ('v', 'm'), 'view ' || oid::regclass
        FROM pg_class WHERE oid >= 16384 AND relnamespace = to_regnamespace(%(schema)s)
        UNION ALL
        SELECT typname, typowner, typtype <> 'c' AND typcategory <> 'A', 'type ' || oid::regtype
        FROM pg_type WHERE oid >= 16384 AND typnamespace = to_regnamespace(%(schema)s)
    )

    SELECT
        array_agg(DISTINCT name),
        min(description || ' of role ' || quote_ident(pg_get_userbyid(owner))) FILTER (
            WHERE is_code AND owner IN (
                SELECT owners.owner
                FROM (SELECT DISTINCT owner FROM objects) AS owners
                JOIN strangers ON pg_has_role(strangers.oid, owners.owner, 'MEMBER')
                WHERE owners.owner NOT IN (SELECT oid FROM trusted)
            )
        )
    FROM objects
"""

#: The owner of each object but PostgreSQL's own, whose OIDs are below 16384. pg_shdepend has all kinds of objects,
#: except those of the bootstrap superuser, so relations and functions are added from their own catalogs. A column's
#: sequence is left out: it cannot be altered alone, and its owner changes with that of its table.
OWNERS = """
    owners (classid, objid, owner) AS (
        SELECT classid, objid, refobjid
        FROM pg_shdepend
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND refclassid = 'pg_authid'::regclass AND deptype = 'o'
        UNION
        SELECT 'pg_class'::regclass, oid, relowner
        FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION
        SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc WHERE oid >= 16384
        EXCEPT
        SELECT 'pg_class'::regclass, pg_class.oid, relowner
        FROM pg_class
        JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = pg_class.oid
        WHERE relkind = 'S' AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
    ),

    -- roles that we do not trust; with usable also trusted roles whose rights we lack
    foreign_owners (oid) AS (
        SELECT oid FROM pg_roles
        WHERE oid NOT IN (SELECT oid FROM trusted) OR %(usable)s AND NOT pg_has_role(oid, 'USAGE')
    )
"""

#: these schemas, and the objects in them, that belong to a foreign owner
OWNED_BY_OTHERS = f"""
    WITH RECURSIVE {ROLES}, {OWNERS}

    SELECT object.type, object.identity, pg_get_userbyid(owner), owner IN (SELECT oid FROM trusted)
    FROM owners
    JOIN foreign_owners ON foreign_owners.oid = owner
    CROSS JOIN pg_identify_object(classid, objid, 0) AS object
    WHERE objid >= 16384
        AND (object.schema = ANY (%(schemas)s)
            -- a schema may belong to a trusted role: rights on it are enough
            OR object.type = 'schema' AND object.identity = ANY (%(schemas)s)
                AND owner NOT IN (SELECT oid FROM trusted))
    ORDER BY object.type = 'schema' DESC, object.type, object.identity
"""

#: The same for relations, functions, types and operators by name, and for everything that they use: what a view reads
#: and calls, defaults, constraints, indexes and policies, partitions and child tables. PostgreSQL's own objects have
#: OIDs below 16384.
NAMED_OF_OTHERS = f"""
    WITH RECURSIVE {ROLES}, {OWNERS},

    kinds (oid) AS (
        VALUES ('pg_class'::regclass), ('pg_proc'::regclass), ('pg_type'::regclass), ('pg_operator'::regclass)
    ),

    parts (oid) AS (
        VALUES ('pg_rewrite'::regclass), ('pg_attrdef'::regclass), ('pg_constraint'::regclass), ('pg_policy'::regclass),
            ('pg_class'::regclass)
    ),

    named (namespace, name) AS (
        SELECT to_regnamespace(quote_ident(schema))::oid, name
        FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS given (schema, name)
    ),

    reached (classid, objid) AS (
        SELECT root.classid, root.objid
        FROM named
        CROSS JOIN LATERAL (
            SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace = namespace AND relname = named.name
            UNION ALL
            SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = namespace AND proname = named.name
            UNION ALL
            SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = namespace AND typname = named.name
            UNION ALL
            SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprnamespace = namespace AND oprname = named.name
        ) AS root (classid, objid)
        UNION
        SELECT beneath.classid, beneath.objid
        FROM reached
        CROSS JOIN LATERAL (
            SELECT refclassid, refobjid FROM pg_depend WHERE classid = reached.classid AND objid = reached.objid
            UNION ALL
            SELECT used.refclassid, used.refobjid
            FROM pg_depend AS part
            JOIN pg_depend AS used ON used.classid = part.classid AND used.objid = part.objid
            WHERE part.refclassid = reached.classid AND part.refobjid = reached.objid
                AND part.deptype IN ('a', 'i') AND part.classid IN (SELECT oid FROM parts)
            UNION ALL
            SELECT 'pg_class'::regclass, inhrelid FROM pg_inherits
            WHERE reached.classid = 'pg_class'::regclass AND inhparent = reached.objid
        ) AS beneath (classid, objid)
        WHERE beneath.objid >= 16384 AND beneath.classid IN (SELECT oid FROM kinds)
    )

    SELECT object.type, object.identity, pg_get_userbyid(owner), owner IN (SELECT oid FROM trusted)
    FROM reached
    JOIN owners USING (classid, objid)
    JOIN foreign_owners ON foreign_owners.oid = owner
    CROSS JOIN pg_identify_object(classid, objid, 0) AS object
    -- a trusted role's function or type in another schema may stay: to call it is enough
    WHERE owner NOT IN (SELECT oid FROM trusted) OR object.schema = ANY (%(schemas)s)
    ORDER BY object.type, object.identity
"""

#: Which strangers may put a trigger on these tables, or a foreign key that references them. An action of such a key,
#: like ON DELETE CASCADE, fires the triggers of the table that has the key.
TRIGGER_RIGHTS = f"""
    WITH RECURSIVE {ROLES}

    SELECT format('%%I.%%I', nspname, relname),
        format('REVOKE %%s ON %%I.%%I FROM %%s;', privilege_type, nspname, relname,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END),
        min(strangers.name)
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN aclexplode(relacl) AS acl
    JOIN strangers ON grantee = 0 OR pg_has_role(strangers.oid, grantee, 'MEMBER')
    WHERE privilege_type IN ('TRIGGER', 'REFERENCES') AND grantee <> relowner AND relkind IN ('r', 'p')
        -- not to_regclass, which fails without the right to use the schema
        AND (nspname = 'elt' OR nspname || '.' || relname = ANY (%s))
    GROUP BY 1, 2
    ORDER BY 1, 2
"""

#: the token at an error's position: an operator or a name
_TOKEN = re.compile(r'"(?:[^"]|"")+"|[\w$]+|[-+*/<>=~!@#%^&|`?]+')


@dataclass(frozen=True)
class ScriptPath:
    """The search_path of scripts, and why schema public is not in it."""

    #: "public" if no stranger may create objects there or owns code there, else "pg_catalog"
    path: str
    #: names of the objects in public that scripts cannot see
    hidden: frozenset[str] = frozenset()
    #: why they are hidden, with the statements that remove the reason; empty if path is "public"
    reason: str = ""

    def help(self, error: Exception) -> str:
        """Text to add to a script's error if it needs an object that is hidden in public: why, and what to do.

        Empty for any other error.
        """
        # Any, because only an error of psycopg2 has pgcode and diag
        cause: Any = error.__cause__
        if not self.hidden or getattr(cause, "pgcode", None) not in ("42883", "42P01", "42704"):
            return ""
        names = re.findall(r'"([^"]+)"', cause.diag.message_primary or "")
        if cause.diag.statement_position and cause.cursor is not None and cause.cursor.query:
            # the position counts characters, from 1
            text = cause.cursor.query.decode("utf-8", "replace")[int(cause.diag.statement_position) - 1 :]
            if token := _TOKEN.match(text):
                quoted = token[0].startswith('"')
                names.append(token[0][1:-1].replace('""', '"') if quoted else token[0].lower())
        found = next((name for name in names if name in self.hidden), "")
        return (
            f"\n    public has {found!r}, but scripts do not see it: {self.reason}"
            f"\n    Or name its schema: public.{found}"
            if found
            else ""
        )


def script_path(connection: Connection) -> ScriptPath:
    """The search_path that scripts get in this database now."""
    names, reason = _danger(connection, "public")
    return ScriptPath("pg_catalog", frozenset(names), reason) if reason else ScriptPath("public")


def psql_path(connection: Connection) -> str:
    """The search_path for interactive psql: gold and silver, each only if no stranger can have code in it."""
    safe = [schema for schema in ("gold", "silver") if not _danger(connection, schema)[1]]
    return ",".join(safe) or "pg_catalog"


def _danger(connection: Connection, schema: str) -> tuple[list[str], str]:
    """The names in a schema, and why it must not be in a search_path. An empty reason: it may be."""
    found = query(connection, CREATORS, ([schema],))
    ((names, code),) = query(connection, IN_SCHEMA, {"schema": schema})
    if found:
        statements = " ".join(dict.fromkeys(statement for _, statement, _ in found))
        role = found[0][2]
        reason = f"role {role} may create functions in it, which would run with the pipeline's rights. {statements}"
    elif code:
        reason = f"{code} would run with the pipeline's rights. Drop it, or give it another owner."
    else:
        reason = ""
    return names or [], reason


def of_others(connection: Connection, named: Iterable[Name], *, usable: bool = False) -> list[str]:
    """One statement for each object that must belong to us but does not, for an administrator, in an order that works.

    named: what scripts name in the layers. usable: report also objects of trusted roles whose rights we lack.
    """
    given = sorted(set(named))
    found = query(connection, OWNED_BY_OTHERS, {"schemas": OUR_SCHEMAS, "usable": usable})
    if given:
        schemas, names = map(list, zip(*given, strict=True))
        found += query(connection, NAMED_OF_OTHERS, {"schemas": schemas, "names": names, "usable": usable})
    ((role,),) = query(connection, "SELECT quote_ident(current_user)")
    return [_belongs(*row) for row in dict.fromkeys((*each, role) for each in found)]


def _belongs(kind: str, identity: str, owner: str, is_trusted: bool, role: str) -> str:
    # an aggregate without arguments is written differently after ALTER AGGREGATE
    kind = {"composite type": "type", "statistics object": "statistics", "aggregate": "routine"}.get(kind, kind)
    identity = identity.replace("pg_catalog.", "")
    # an object that can contain a stranger's code should be inspected before we become its owner
    is_safe = is_trusted or kind in ("schema", "table", "sequence", "foreign table")
    drop = "" if is_safe else f" If it is not yours: DROP {kind.upper()} {identity};"
    return statement(f"ALTER {kind.upper()} {identity} OWNER TO {role};", f"belongs to {owner}.{drop}")


def statement(text: str, reason: str) -> str:
    """A statement with its reason as a comment, so that a person can paste several lines as they are.

    A name may contain a line break, which would end the comment.
    """
    return f"{text}  -- {' '.join(reason.splitlines())}"


def creators(connection: Connection, schemas: Sequence[str]) -> list[str]:
    """The REVOKE for each stranger's right to create objects in these schemas."""
    rows = query(connection, CREATORS, ([*schemas],))
    return [statement(revoke, f"role {stranger} may create in schema {schema}") for schema, revoke, stranger in rows]


def trigger_rights(connection: Connection, tables: Sequence[str]) -> list[str]:
    """The REVOKE for each stranger's right to put a trigger on these tables or those of schema elt."""
    rows = query(connection, TRIGGER_RIGHTS, ([*tables],))
    return [statement(revoke, f"role {stranger} may put a trigger on {table}") for table, revoke, stranger in rows]


def refuse_strangers(connection: Connection, named: Iterable[Name] = ()) -> None:
    """Raises DatabaseError if something that the run will call could be code of another role."""
    found = of_others(connection, named) + creators(connection, OUR_SCHEMAS)
    if found:
        ((role,),) = query(connection, "SELECT current_user")
        raise DatabaseError(
            "\n    ".join(
                [
                    f"nothing was done, because code of other roles would run as {role}."
                    " If the pipeline's role is another one, connect as that role. Otherwise look at each, and type:",
                    *found,
                ]
            )
        )


def refuse_triggers(
    connection: Connection, schemas: Sequence[str], tables: Sequence[str], others: Iterable[Name]
) -> None:
    """Check the triggers of these tables, and of all our tables and views in these schemas except `others`.

    All are checked, because a script's text does not show every table that it writes: it may write through a view, a
    trigger, a foreign key's action or dynamic SQL. Raises psycopg2.Error if a trigger would run a stranger's code.
    """
    names = [f"{schema}.{name}" for schema, name in others]
    query(
        connection,
        "SELECT elt._refuse_triggers(%s::regclass[] || ARRAY("
        "SELECT pg_class.oid::regclass FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = ANY (%s) AND relhastriggers AND nspname || '.' || relname <> ALL (%s::text[])"
        " AND pg_has_role(relowner, 'MEMBER')))",
        ([*tables], [*schemas], names),
    )
