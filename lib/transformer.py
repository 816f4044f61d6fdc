"""Runs SQL scripts statement by statement, so that an error names file and line; runs checks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg2

from lib.database import Connection, query, translate
from lib.errors import CheckFailed, ScriptError
from lib.registry import Check, Script

#: rows of a failing check that its message shows
EXAMPLES = 5
#: columns of elt.publish_rows' answer, by which it is known
NEWS = ["inserted", "updated", "deleted", "unchanged"]


@dataclass(frozen=True)
class Statement:
    """One statement of a script, without its semicolon; `line` is where its first word stands."""

    text: str
    line: int


@dataclass(frozen=True)
class ScriptResult:
    """What a script did: seconds, and the rows that elt.publish_rows inserted, updated, deleted, left alone."""

    path: str
    seconds: float
    news: tuple[int, int, int, int] | None = None
    #: for a check: rows that break its claim
    broken_by: int | None = None


# ---- reading --------------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<dollar>\$(?P<tag>[^\W\d]\w*)?\$ .*? \$(?(tag)(?P=tag))\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | (?P<meta>\\\S*)
    | (?P<space>\s+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and position of each token (PostgreSQL: "Lexical Structure"); block comments nest."""
    position = 0
    while position < len(text):
        found = TOKEN.match(text, position)
        kind, end = found.lastgroup, found.end()
        if kind == "block":
            end = _end_of_comment(text, position)
        yield kind, text[position:end], position
        position = end


def _end_of_comment(text: str, start: int) -> int:
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(text)


def statements(text: str) -> list[Statement]:
    """The statements of a script, split as psql splits them: a body in BEGIN ATOMIC .. END stays whole."""
    found: list[Statement] = []
    start: int | None = None
    words: list[str] = []
    depth = 0
    for kind, token, position in _tokens(text):
        if kind in ("space", "comment", "block"):
            continue
        if kind == "end" and depth == 0:
            if start is not None:
                found.append(Statement(text[start:position], text.count("\n", 0, start) + 1))
            start, words = None, []
            continue
        if start is None:
            start = position
        if kind == "word":
            words.append(token.lower())
            depth += _nesting(words)
    if start is not None:
        found.append(Statement(text[start:].rstrip(), text.count("\n", 0, start) + 1))
    return found


def _nesting(words: list[str]) -> int:
    """How the last word changes the depth of a SQL-standard function body."""
    if words[0] != "create" or not {"function", "procedure"} & set(words[1:4]) or "begin" not in words:
        return 0
    return {"begin": 1, "case": 1, "end": -1}.get(words[-1], 0)


REFUSED = {
    ("begin",): "transaction control",
    ("start", "transaction"): "transaction control",
    ("commit",): "transaction control",
    ("end",): "transaction control",
    ("rollback",): "transaction control",
    ("abort",): "transaction control",
    ("savepoint",): "transaction control",
    ("release",): "transaction control",
    ("prepare", "transaction"): "transaction control",
    ("set",): "a setting",
    ("reset",): "a setting",
    ("discard",): "a setting",
    ("vacuum",): "a command that no transaction may hold",
    ("truncate",): "a TRUNCATE",
}
WHY = {
    "transaction control": "the whole run is one transaction, so that readers see all of it or nothing: leave it out",
    "a setting": "it would outlive the script: every script begins with the same settings, name schemas instead",
    "a command that no transaction may hold": "the run vacuums what it wrote, after the commit: leave it out",
    "a TRUNCATE": "readers would see an empty table or wait: use elt.publish_rows, or DELETE",
}


def refusals(script: Script) -> list[str]:
    """What a script must not contain, each as `file:line: ..`; found by reading, before anything runs."""
    found = []
    for kind, token, position in _tokens(script.text):
        if kind == "meta":
            line = script.text.count("\n", 0, position) + 1
            found.append(f"{script.path}:{line}: {token} is a command of psql, not of PostgreSQL: write SQL instead")
    for statement in statements(script.text):
        words = tuple(token.lower() for kind, token, _ in _tokens(statement.text) if kind == "word")
        what = REFUSED.get(words[:1]) or REFUSED.get(words[:2])
        if what and not (words[:1] == ("truncate",) and "pg_temp" in words):
            found.append(f"{script.path}:{statement.line}: {' '.join(words[:2]).upper()} is {what}; {WHY[what]}")
        if words[:1] == ("copy",) and "stdin" in words:
            found.append(
                f"{script.path}:{statement.line}: COPY .. FROM STDIN has no rows to read here: use INSERT .. VALUES"
            )
        if "concurrently" in words[:4]:
            found.append(
                f"{script.path}:{statement.line}: CONCURRENTLY cannot run in a transaction: do it once, in psql"
            )
    if not statements(script.text):
        found.append(f"{script.path}:1: no statement in it")
    return found


# ---- running --------------------------------------------------------------------------------------------------------


def run_script(connection: Connection, script: Script) -> ScriptResult:
    """Run every statement of a script in the caller's transaction.

    Raises ScriptError as `file:line: PostgreSQL's message`.
    """
    began = time.monotonic()
    news = None
    with connection.cursor() as cursor:
        for statement in statements(script.text):
            _execute(cursor, script, statement)
            if cursor.description and [column.name for column in cursor.description] == NEWS:
                news = tuple(map(sum, zip(news or (0, 0, 0, 0), cursor.fetchone())))
    return ScriptResult(script.path, time.monotonic() - began, news)


def run_check(connection: Connection, check: Check) -> ScriptResult:
    """Run a check, whose last statement returns the rows that break its claim.

    Raises CheckFailed with the first of them where the check's failure is an error.
    """
    began = time.monotonic()
    with connection.cursor() as cursor:
        for statement in statements(check.script.text):
            _execute(cursor, check.script, statement)
        if cursor.description is None:
            raise ScriptError(f"{check.script.path}: its last statement returns no rows: a check ends in a SELECT")
        columns = [column.name for column in cursor.description]
        examples, count = cursor.fetchmany(EXAMPLES), cursor.rowcount
    if count and check.on_failure == "error":
        raise CheckFailed(f"{check.script.path}: {broken_claim(count, columns, examples)}")
    return ScriptResult(check.script.path, time.monotonic() - began, broken_by=count)


def broken_claim(count: int, columns: Sequence[str] = (), examples: Sequence[tuple] = ()) -> str:
    """How many rows break a claim, and the first of them."""
    lines = ["  ".join(f"{name}={value!r}" for name, value in zip(columns, row))[:300] for row in examples]
    more = [f"and {count - len(lines):,} more"] if lines and count > len(lines) else []
    return "\n    ".join([f"{count:,} row{'s break' if count > 1 else ' breaks'} this claim", *lines, *more])


def _execute(cursor: psycopg2.extensions.cursor, script: Script, statement: Statement) -> None:
    try:
        cursor.execute(statement.text)  # without arguments, so that % is only a character
    except psycopg2.Error as error:
        position = error.diag.statement_position
        line = statement.line + (statement.text.count("\n", 0, int(position) - 1) if position else 0)
        raise translate(error, f"{script.path}:{line}", ScriptError) from error


# ---- a view that cannot be replaced ---------------------------------------------------------------------------------

DEPENDANTS = """
    WITH RECURSIVE

    dependants (oid, depth) AS (
        SELECT to_regclass(%(relation)s)::oid, 0
        UNION
        SELECT rewrite.ev_class, dependants.depth + 1
        FROM dependants
        JOIN pg_depend AS depend ON depend.refclassid = 'pg_class'::regclass AND depend.refobjid = dependants.oid
        JOIN pg_rewrite AS rewrite ON depend.classid = 'pg_rewrite'::regclass AND rewrite.oid = depend.objid
        WHERE rewrite.ev_class <> dependants.oid
    )

    SELECT dependants.oid::regclass::text, max(dependants.depth)
    FROM dependants
    GROUP BY dependants.oid
    ORDER BY max(dependants.depth) DESC, 1
"""

GRANTS = """
    SELECT format('GRANT %%s ON %%s TO %%s;', string_agg(grant_item.privilege_type, ', '), pg_class.oid::regclass,
                  CASE WHEN grant_item.grantee = 0 THEN 'PUBLIC' ELSE grant_item.grantee::regrole::text END)
    FROM pg_class
    CROSS JOIN LATERAL aclexplode(pg_class.relacl) AS grant_item
    WHERE pg_class.oid = ANY (%(relations)s::regclass[]) AND grant_item.grantee <> pg_class.relowner
    GROUP BY pg_class.oid, grant_item.grantee
    ORDER BY 1
"""


def replacement_help(connection: Connection, script: Script, error: ScriptError) -> str:
    """For a view that PostgreSQL cannot replace in place: its dependants, its grants, and the commands to type.

    Empty for any other failure (PostgreSQL: CREATE VIEW, "Notes"; SQLSTATE 42P16).
    """
    cause = error.__cause__
    if not isinstance(cause, psycopg2.errors.InvalidTableDefinition) or script.layer != "gold":
        return ""
    found = [name for name, _ in query(connection, DEPENDANTS, {"relation": script.relation})]
    others = found[:-1]
    grants = [line for (line,) in query(connection, GRANTS, {"relations": found})]
    lines = [
        f"PostgreSQL replaces a view in place only where columns are added at its end; {script.relation} would change otherwise.",
        f"Views that read it: {', '.join(others) or 'none'}.",
        f"A column that only changes its name: ALTER VIEW {script.relation} RENAME COLUMN old TO new; then run again.",
        "Anything else, in psql, then run again:",
        *(f"    \\d+ {name}   -- keep this definition, to create the view again afterwards" for name in others),
        f"    DROP VIEW {', '.join(found)};",
        *(f"    {line}   -- afterwards" for line in grants),
    ]
    return "".join(f"\n    {line}" for line in lines)
