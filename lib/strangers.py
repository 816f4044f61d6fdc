"""Nobody else's code runs as the pipeline's role.

A stranger is a role that can log in, is no superuser, doesn't own the database, and that ours is no member of. Owns three
questions: which path scripts get, who owns what a run calls, and where a stranger could put code of his own.
PostgreSQL: "Schemas", section "Usage Patterns"; "Function Type Resolution": with a schema of strangers in the path, their
function with the better fitting types beats PostgreSQL's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib.database import Connection, query
from lib.errors import DatabaseError

#: (schema, name) of a table, view or function
Name = tuple[str, str]

#: membership is looked up here and not asked of pg_has_role, which says yes to a superuser whatever the role
ROLES = """
    ours (oid) AS (
        SELECT oid FROM pg_roles WHERE rolname = current_user
        UNION
        SELECT pg_auth_members.roleid FROM pg_auth_members JOIN ours ON pg_auth_members.member = ours.oid
    ),

    trusted (oid) AS (
        SELECT oid FROM ours
        UNION
        SELECT oid FROM pg_roles WHERE rolsuper OR rolname = 'pg_database_owner'
        UNION
        SELECT datdba FROM pg_database WHERE datname = current_database()
    ),

    strangers (oid, name) AS (
        SELECT oid, rolname FROM pg_roles WHERE rolcanlogin AND oid NOT IN (SELECT oid FROM trusted)
    )
"""

#: who may create in these schemas, and the statement that ends it
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

#: what can be called or read without its schema once public is in the path, and whether a stranger owns some of it
IN_PUBLIC = f"""
    WITH RECURSIVE {ROLES},

    objects (name, owner) AS (
        SELECT proname, proowner FROM pg_proc WHERE pronamespace = to_regnamespace('public')
        UNION ALL
        SELECT relname, relowner FROM pg_class WHERE relnamespace = to_regnamespace('public')
        UNION ALL
        SELECT typname, typowner FROM pg_type WHERE typnamespace = to_regnamespace('public')
        UNION ALL
        SELECT oprname, oprowner FROM pg_operator WHERE oprnamespace = to_regnamespace('public')
    )

    SELECT
        array_agg(DISTINCT name),
        (SELECT min(strangers.name) FROM strangers, (SELECT DISTINCT owner FROM objects) AS owners
         WHERE pg_has_role(strangers.oid, owner, 'MEMBER'))
    FROM objects
"""

#: whose owner is not ours, of these schemas and all that is in them
OWNED_BY_OTHERS = f"""
    WITH RECURSIVE {ROLES}

    SELECT object.type, object.identity, pg_get_userbyid(refobjid)
    FROM pg_shdepend
    CROSS JOIN pg_identify_object(classid, objid, 0) AS object
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND refclassid = 'pg_authid'::regclass
        AND deptype = 'o'
        AND (refobjid NOT IN (SELECT oid FROM trusted) OR %(usable)s AND NOT pg_has_role(refobjid, 'USAGE'))
        AND (object.schema = ANY (%(schemas)s) OR object.type = 'schema' AND object.identity = ANY (%(schemas)s))
        -- a sequence of a column goes with its table
        AND NOT EXISTS (
            SELECT FROM pg_depend AS owning
            WHERE owning.classid = pg_shdepend.classid AND owning.objid = pg_shdepend.objid
                AND owning.refclassid = 'pg_class'::regclass AND owning.deptype IN ('a', 'i')
        )
    ORDER BY object.type = 'schema' DESC, object.type, object.identity
"""

#: the same for relations and functions by name, and for all that lies beneath them: what a view reads and calls, partitions
#: and children. PostgreSQL's own objects have numbers below 16384.
NAMED_OF_OTHERS = f"""
    WITH RECURSIVE {ROLES},

    kinds (oid) AS (
        VALUES ('pg_class'::regclass), ('pg_proc'::regclass), ('pg_type'::regclass), ('pg_operator'::regclass)
    ),

    named (namespace, name) AS (
        SELECT to_regnamespace(quote_ident(schema))::oid, name FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS given (schema, name)
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
        ) AS root (classid, objid)
        UNION
        SELECT beneath.classid, beneath.objid
        FROM reached
        CROSS JOIN LATERAL (
            SELECT refclassid, refobjid FROM pg_depend WHERE classid = reached.classid AND objid = reached.objid
            UNION ALL
            SELECT pg_depend.refclassid, pg_depend.refobjid
            FROM pg_rewrite
            JOIN pg_depend ON pg_depend.classid = 'pg_rewrite'::regclass AND pg_depend.objid = pg_rewrite.oid
            WHERE reached.classid = 'pg_class'::regclass AND pg_rewrite.ev_class = reached.objid
            UNION ALL
            SELECT 'pg_class'::regclass, inhrelid FROM pg_inherits
            WHERE reached.classid = 'pg_class'::regclass AND inhparent = reached.objid
        ) AS beneath (classid, objid)
        WHERE beneath.objid >= 16384 AND beneath.classid IN (SELECT oid FROM kinds)
    )

    SELECT object.type, object.identity, pg_get_userbyid(refobjid)
    FROM reached
    JOIN pg_shdepend USING (classid, objid)
    CROSS JOIN pg_identify_object(classid, objid, 0) AS object
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND refclassid = 'pg_authid'::regclass
        AND deptype = 'o'
        AND (refobjid NOT IN (SELECT oid FROM trusted) OR %(usable)s AND NOT pg_has_role(refobjid, 'USAGE'))
    ORDER BY object.type, object.identity
"""

#: who may put a trigger on these tables
TRIGGER_RIGHTS = f"""
    WITH RECURSIVE {ROLES}

    SELECT format('%%I.%%I', nspname, relname),
        format('REVOKE TRIGGER ON %%I.%%I FROM %%s;', nspname, relname,
            CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END),
        min(strangers.name)
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN aclexplode(relacl) AS acl
    JOIN strangers ON grantee = 0 OR pg_has_role(strangers.oid, grantee, 'MEMBER')
    WHERE privilege_type = 'TRIGGER' AND grantee <> relowner AND relkind IN ('r', 'p')
        AND (nspname = 'elt' OR pg_class.oid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name))
    GROUP BY 1, 2
    ORDER BY 1, 2
"""

#: what an error's position points at: an operator or a name
_TOKEN = re.compile(r'"(?:[^"]|"")+"|[\w$]+|[-+*/<>=~!@#%^&|`?]+')


@dataclass(frozen=True)
class ScriptPath:
    """The search_path of scripts."""

    #: "public" where no stranger may create or owns anything there, else "pg_catalog"
    path: str
    #: what public holds and scripts do not see
    hidden: frozenset[str] = frozenset()
    #: why, with the statements that end it
    reason: str = ""

    def help(self, error: Exception) -> str:
        """For a script that failed for a name that public has: why it was not found, and what to do. Else nothing."""
        cause = error.__cause__
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
            f"\n    public has {found!r}, but scripts do not see it: {self.reason}\n    Or name its schema: public.{found}"
            if found
            else ""
        )


def script_path(connection: Connection) -> ScriptPath:
    """The path that scripts get here and now."""
    creators = query(connection, CREATORS, (["public"],))
    ((names, owner),) = query(connection, IN_PUBLIC)
    if creators:
        statements = " ".join(dict.fromkeys(statement for _, statement, _ in creators))
        reason = f"role {creators[0][2]} may create in it, and what it makes would run as us. {statements}"
    elif owner:
        reason = f"role {owner} owns something in it, which would run as us. Drop that, or give it another owner."
    else:
        return ScriptPath("public")
    return ScriptPath("pg_catalog", frozenset(names or ()), reason)


def of_others(connection: Connection, named: Iterable[Name], *, usable: bool = False) -> list[str]:
    """What must belong to us and does not: a line each, with the statements that an administrator may run.

    named: what scripts name in the layers. usable: also what belongs to somebody whom we trust and whose rights we lack.
    """
    given = sorted(set(named))
    found = query(connection, OWNED_BY_OTHERS, {"schemas": ["elt", "elt_staging"], "usable": usable})
    if given:
        schemas, names = map(list, zip(*given))
        found += query(connection, NAMED_OF_OTHERS, {"schemas": schemas, "names": names, "usable": usable})
    ((role,),) = query(connection, "SELECT quote_ident(current_user)")
    return [_belongs(kind, identity, owner, role) for kind, identity, owner in dict.fromkeys(found)]


def _belongs(kind: str, identity: str, owner: str, role: str) -> str:
    identity = identity.replace("pg_catalog.", "")
    alter = f"ALTER {kind.upper()} {identity} OWNER TO {role};"
    # what holds code is worth a look before it becomes ours
    holds_rows = kind in ("schema", "table", "sequence", "foreign table")
    drop = "" if holds_rows else f" If it is not yours: DROP {kind.upper()} {identity};"
    return f"{kind} {identity} belongs to {owner}: {alter}{drop}"


def creators(connection: Connection, schemas: Sequence[str]) -> list[str]:
    """Who may create in these schemas, a line each, with the REVOKE."""
    rows = query(connection, CREATORS, ([*schemas],))
    return [f"role {stranger} may create in schema {schema}: {statement}" for schema, statement, stranger in rows]


def trigger_rights(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Who may put a trigger on these tables, or on those of schema elt, a line each, with the REVOKE."""
    rows = query(connection, TRIGGER_RIGHTS, ([*tables],))
    return [f"role {stranger} may put a trigger on {table}: {statement}" for table, statement, stranger in rows]


def refuse_strangers(connection: Connection, named: Iterable[Name] = ()) -> None:
    """Raises DatabaseError where something that we are about to call could be somebody else's code."""
    found = of_others(connection, named) + creators(connection, ["elt", "elt_staging"])
    if found:
        raise DatabaseError("\n    ".join(["nothing was done, for code of others would run as ours", *found]))
