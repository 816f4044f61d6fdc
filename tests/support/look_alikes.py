"""Functions and operators of a stranger that PostgreSQL could call instead of its own."""

from __future__ import annotations

import ast
import itertools
import re
from contextlib import closing

from psycopg2.extensions import connection as Connection

from tests.support import ROOT
from tests.support.databases import EmptyDatabase, connected, sql
from tests.support.roles import Role

_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(")


_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]+")


def all_sql() -> str:
    """All SQL: texts in lib that could be SQL, schema elt, and the shipped scripts."""
    texts = [
        file.read_text("utf-8")
        for folder in ("lib/elt_schema", "sql_scripts")
        for file in (ROOT / folder).rglob("*.sql")
    ]
    for file in (ROOT / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


#: type of PostgreSQL's function -> types that callers may pass instead
INEXACT = {
    "text": ["name", "varchar"],
    "name": ["text", "varchar"],
    "integer": ["smallint", "bigint"],
    "bigint": ["integer"],
    "oid": ["regclass", "integer"],
    "regclass": ["oid", "text"],
    "numeric": ["integer", "bigint"],
    "timestamp with time zone": ["date", "timestamp"],
    "timestamp without time zone": ["date"],
}


POLYMORPHIC = ["text", "name", "oid", "integer", "bigint"]


PAIRS = list(itertools.product(["text", "name", "varchar", "oid", "regclass", "integer", "bigint", "date"], repeat=2))


LOOK_ALIKE = """
    CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS
    $f$ BEGIN PERFORM pg_catalog.setval('public.trap', {number}); RETURN{nothing}; END $f$;
"""


def look_alikes(connection: Connection) -> list[str]:
    """Statements that create functions and operators which fit some calls better than PostgreSQL's own."""
    text = all_sql()
    known = sql(
        connection,
        """
        SELECT proname, CASE WHEN proretset THEN 'SETOF ' ELSE '' END
                || CASE WHEN typtype = 'p' THEN 'text' ELSE format_type(prorettype, NULL) END,
            provariadic <> 0,
            ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS a (type, place)
                ORDER BY place)
        FROM pg_proc JOIN pg_type ON pg_type.oid = prorettype
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s) AND pronargs <= 6
        """,
        sorted(set(_CALL.findall(text))),
    )
    operators = dict(
        sql(
            connection,
            "SELECT DISTINCT oprname, format_type(oprresult, NULL) FROM pg_operator WHERE oprname = ANY (%s)"
            " AND oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'",
            sorted(set(_OPERATOR.findall(text))),
        )
    )
    made: dict[tuple[str, ...], str] = {}
    for name, result, is_variadic, types in known:
        for types_of_call in [types[:-1] + ["text"] * more for more in (1, 2, 3)] if is_variadic else [types]:
            choices = [
                POLYMORPHIC if kind.startswith(("any", '"any"')) else [*INEXACT.get(kind, ()), kind]
                for kind in types_of_call
            ]
            for arguments in itertools.islice(itertools.product(*choices), 40):
                made.setdefault((name, *arguments), result)
    statements = [
        LOOK_ALIKE.format(
            name=f'"{name}"',
            arguments=", ".join(arguments),
            result=result,
            number=number,
            nothing="" if result.startswith("SETOF") else " NULL",
        )
        for number, ((name, *arguments), result) in enumerate(made.items(), 1)
    ]
    for number, (left, right) in enumerate(PAIRS):
        for result in set(operators.values()):
            function = f'"operate_{result}"'
            statements.append(
                LOOK_ALIKE.format(
                    name=function, arguments=f"{left}, {right}", result=result, number=100_000 + number, nothing=" NULL"
                )
            )
        for operator, result in operators.items():
            statements.append(
                f"CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right},"
                f' FUNCTION = public."operate_{result}");'
            )
    return statements


def set_traps(database: EmptyDatabase, mallory: Role) -> None:
    """Create all look-alikes as mallory; skip those that PostgreSQL refuses."""
    database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    statements = look_alikes(database.connect())
    with closing(connected(mallory.connect_args)) as opened:
        sql(opened, "SET search_path = pg_catalog; CREATE SEQUENCE public.trap; GRANT ALL ON public.trap TO PUBLIC")
        sql(
            opened,
            "DO $do$ DECLARE statement text; BEGIN FOREACH statement IN ARRAY %s"
            " LOOP BEGIN EXECUTE statement; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $do$",
            statements,
        )
    made = "SELECT count(*) FROM {} WHERE {} = 'public'::regnamespace"
    assert database.sql(made.format("pg_proc", "pronamespace"))[0][0] > 500
    assert database.sql(made.format("pg_operator", "oprnamespace"))[0][0] > 200


def sprung(database: EmptyDatabase) -> list[tuple]:
    return database.sql(
        "SELECT last_value FROM public.trap WHERE is_called"
        " UNION ALL SELECT 0 FROM pg_roles WHERE rolname LIKE '%mallory' AND rolsuper"
    )
