"""Runs SQL scripts statement by statement, so that an error names file and line; runs checks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psycopg2

from lib.database import Connection, query, translate
from lib.errors import CheckFailed, ScriptError
from lib.jobs import LAYERS, Check, Script

#: rows of a failing check that its message shows
EXAMPLES = 5
#: for a cursor: all but numbers as PostgreSQL writes them, for Python has no date before the year 1 or after 9999
AS_TEXT = psycopg2.extensions.new_type(
    tuple(oid for oid in psycopg2.extensions.string_types if oid not in psycopg2.NUMBER.values),
    "AS_TEXT",
    lambda value, cursor: value,
)
#: columns of elt.publish_rows' answer, by which it is known
NEWS = ["inserted", "updated", "deleted", "unchanged"]


@dataclass(frozen=True)
class Statement:
    """One statement of a script, without its semicolon; `line` is where its first word stands."""

    text: str
    line: int
    #: its keywords and names, in lower case
    words: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ScriptResult:
    """What a script did: seconds, and the rows that elt.publish_rows inserted, updated, deleted, left alone."""

    path: str
    seconds: float
    news: tuple[int, int, int, int] | None = None
    #: for a check: rows that break its claim
    broken_by: int | None = None
    #: for a silver script: rows that it inserted, updated or deleted in any table
    changed_rows: int | None = None

    @property
    def is_uneventful(self) -> bool:
        """Whether a check passed, or a script changed nothing."""
        return self.broken_by == 0 or self.changed_rows == 0


# ---- reading --------------------------------------------------------------------------------------------------------

# PostgreSQL: "Lexical Structure"; every character beyond ASCII may be part of a name. Classes say what is not in them,
# which compiles twenty times faster. What never ends, ends with the file.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>--[^\r\n]*)
    | (?P<block>/\*)
    | (?P<escapes>[eE]'(?:[^'\\]+|\\.|'')*+\\?(?:'|\Z))
    | (?P<string>'(?:[^']+|'')*+(?:'|\Z))
    | (?P<name>"(?:[^"]+|"")*+(?:"|\Z))
    | (?P<dollar>\$(?P<tag>(?:{_LETTER}{_LETTER_OR_DIGIT}*)?)\$(?:.*?\$(?P=tag)\$|.*))
    | (?P<word>{_LETTER}(?:{_LETTER_OR_DIGIT}+|\$)*+)
    | (?P<meta>\\[^\r\n]*)
    | (?P<other>[0-9.,=<>:*+]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENT_MARK = re.compile(r"/\*|\*/")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and position of each token; block comments nest."""
    position = 0
    # the last alternative takes any character, so there is a match until the text ends
    while found := TOKEN.match(text, position):
        kind = found.lastgroup or ""
        end = found.end() if kind != "block" else _end_of_comment(text, position)
        yield kind, text[position:end], position
        position = end


def _without_comments(text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each token that means something to PostgreSQL."""
    return ((kind, token) for kind, token, _ in _tokens(text) if kind not in ("space", "comment", "block"))


def _end_of_comment(text: str, start: int) -> int:
    depth = 0
    for mark in COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


@cache
def statements(text: str) -> tuple[Statement, ...]:
    """The statements of a script, split as psql splits them: at a semicolon outside parentheses and routine bodies."""
    found: list[Statement] = []
    start: int | None = None
    words: list[str] = []
    parentheses = bodies = 0
    for kind, token, position in _tokens(text):
        if kind in ("space", "comment", "block", "meta"):
            continue
        if token == ";" and not parentheses and not bodies:
            if start is not None:
                found.append(Statement(text[start:position], text.count("\n", 0, start) + 1, tuple(words)))
            start, words = None, []
            continue
        if start is None:
            start, parentheses, bodies = position, 0, 0
        if token in ("(", ")"):
            parentheses = max(0, parentheses + (1 if token == "(" else -1))
        if kind == "word":
            words.append(token.lower())
            if not parentheses and _makes_routine(words):
                bodies = max(0, bodies + _nesting(words[-1], bodies))
    if start is not None:
        found.append(Statement(text[start:].rstrip(), text.count("\n", 0, start) + 1, tuple(words)))
    return tuple(found)


def _makes_routine(words: list[str]) -> bool:
    kind = words[3:4] if words[1:3] == ["or", "replace"] else words[1:2]
    return words[0] == "create" and kind in (["function"], ["procedure"])


def _nesting(word: str, depth: int) -> int:
    """How a word changes the depth in a body of BEGIN ATOMIC .. END, where CASE has an END too."""
    return {"begin": 1, "case": 1 if depth else 0, "end": -1}.get(word, 0)


@dataclass(frozen=True)
class Names:
    """What a script names as schema.name, in string literals and bodies of functions too, but not in comments."""

    #: in the layers, as (schema, name): relations, functions, types, operators
    all: frozenset[tuple[str, str]]
    #: tables that elt.publish_rows or elt.publish_history are given
    published: frozenset[tuple[str, str]]
    #: what an INSERT, UPDATE, DELETE, MERGE or COPY of the script writes itself, in any schema
    changed: frozenset[tuple[str, str]]


@cache
def names(text: str) -> Names:
    """The names in a script."""
    all_names: set[tuple[str, str]] = set()
    published: set[tuple[str, str]] = set()
    changed: set[tuple[str, str]] = set()
    before = ("", "")  # the last two words that are no part of a name
    first = ""  # word of the statement
    pending = ""  # a word that is a schema if a dot follows
    schema = operator = ""
    publishes = False
    for kind, token in _without_comments(text):
        if kind in ("string", "escapes", "dollar") and first != "comment":
            inner = names(_inner(kind, token))
            all_names |= inner.all
            published |= inner.published | (inner.all if publishes else set())
            changed |= inner.changed
            publishes &= not inner.all
        name = _unquoted(kind, token)
        first = "" if token == ";" else first or name
        if schema and name and not operator:
            if schema in LAYERS:
                all_names.add((schema, name))
            if before[1] in ("into", "update", "copy") or before == ("delete", "from"):
                changed.add((schema, name))
            publishes |= name in ("publish_rows", "publish_history")
            schema = ""
            continue
        if schema and kind == "other" and token != ")":
            operator += token  # OPERATOR(silver.||)
            continue
        if schema in LAYERS and operator:
            all_names.add((schema, operator))
        schema = operator = ""
        if token.startswith(".") and pending:
            schema, operator, pending = pending, token[1:], ""
            continue
        if pending and pending != "only":
            before = (before[1], pending)
        pending = name
        publishes = publishes and token not in (")", ";")
    return Names(frozenset(all_names), frozenset(published), frozenset(changed))


def _inner(kind: str, token: str) -> str:
    """What stands between the quotes of a string."""
    if kind == "dollar":
        begin = token.index("$", 1) + 1
        return token[begin:-begin]
    inner = token[token.index("'") + 1 : -1]
    with suppress(UnicodeDecodeError):
        return inner.encode("ascii", "backslashreplace").decode("unicode_escape") if kind == "escapes" else inner
    return inner


def _unquoted(kind: str, token: str) -> str:
    """A word or a quoted name as PostgreSQL keeps it; nothing for any other token."""
    return token.lower() if kind == "word" else token[1:-1].replace('""', '"') if kind == "name" else ""


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
    for kind, token, position in _tokens(script.text) if "\\" in script.text else ():
        if kind == "meta":
            what = f"{token.split()[0]} is a command of psql, not of PostgreSQL: write SQL instead"
            found.append((script.text.count("\n", 0, position) + 1, what))
    if "\0" in script.text:
        line = script.text.count("\n", 0, script.text.index("\0")) + 1
        found.append((line, "a NUL byte, where PostgreSQL would stop reading: remove it"))
    parts = statements(script.text)
    found += [(part.line, text) for part in parts for text in _refusals_of(part)]
    if not parts:
        found.append((1, "no statement in it"))
    return [f"{script.path}:{line}: {text}" for line, text in sorted(found)]


def _refusals_of(statement: Statement) -> Iterator[str]:
    words = statement.words
    what = REFUSED.get(words[:1]) or REFUSED.get(words[:2])
    if what and not (words[:1] == ("truncate",) and "pg_temp" in words):
        yield f"{' '.join(words[:2]).upper()} is {what}; {WHY[what]}"
    if words[:1] == ("copy",) and "stdin" in words:
        yield "COPY .. FROM STDIN has no rows to read here: use INSERT .. VALUES"
    if words[:1] == ("copy",) and "stdout" in words:
        yield "COPY .. TO STDOUT has nobody to write to: leave it out"
    if "concurrently" in words[:4] and words[0] != "refresh":
        yield "CONCURRENTLY cannot run in a transaction: do it once, in psql"
    if words[:1] == ("create",) and ("on", "commit", "drop") in zip(words, words[1:], words[2:], strict=False):
        yield (
            "ON COMMIT DROP: under psql -f the table would be gone at once;"
            " begin with DROP TABLE IF EXISTS pg_temp.name"
        )


# ---- running --------------------------------------------------------------------------------------------------------


def run_script(connection: Connection, script: Script) -> ScriptResult:
    """Run every statement of a script in the caller's transaction.

    Raises ScriptError as `file:line: PostgreSQL's message`.
    """
    began = time.monotonic()
    news: tuple[int, int, int, int] | None = None
    with connection.cursor() as cursor:
        for statement in statements(script.text):
            _execute(cursor, script, statement)
            if cursor.description and [column.name for column in cursor.description] == NEWS:
                # a WHERE may have left no row of it
                counts = cursor.fetchone() or (0, 0, 0, 0)
                inserted, updated, deleted, unchanged = map(sum, zip(news or (0, 0, 0, 0), counts, strict=True))
                news = inserted, updated, deleted, unchanged
    return ScriptResult(script.path, time.monotonic() - began, news)


def run_check(connection: Connection, check: Check) -> ScriptResult:
    """Run a check, whose last statement returns the rows that break its claim.

    Raises CheckFailed with the first of them where the check's failure is an error.
    """
    began = time.monotonic()
    with connection.cursor() as cursor:
        psycopg2.extensions.register_type(AS_TEXT, cursor)
        for statement in statements(check.script.text):
            _execute(cursor, check.script, statement)
        if cursor.description is None:
            where = f"{check.script.path}:{statement.line}"
            raise ScriptError(f"{where}: the last statement returns no rows: a check ends in a SELECT")
        columns = [column.name for column in cursor.description]
        examples, count = cursor.fetchmany(EXAMPLES), cursor.rowcount
    if count and check.on_failure == "error":
        raise CheckFailed(f"{check.script.path}: {broken_claim(count, columns, examples)}")
    return ScriptResult(check.script.path, time.monotonic() - began, broken_by=count)


def broken_claim(count: int, columns: Sequence[str] = (), examples: Sequence[tuple[Any, ...]] = ()) -> str:
    """How many rows break a claim, and the first of them."""
    lines = [
        "  ".join(f"{name}={_shown(value)}" for name, value in zip(columns, row, strict=True))[:300] for row in examples
    ]
    more = [f"and {count - len(lines):,} more"] if lines and count > len(lines) else []
    return "\n    ".join([f"{count:,} row{'s break' if count > 1 else ' breaks'} this claim", *lines, *more])


def _shown(value: object) -> str:
    return "NULL" if value is None else repr(value) if isinstance(value, str) else str(value)


def _execute(cursor: psycopg2.extensions.cursor, script: Script, statement: Statement) -> None:
    try:
        cursor.execute(statement.text)  # without arguments, so that % is only a character
    except psycopg2.Error as error:
        position = error.diag.statement_position
        line = statement.line + (statement.text.count("\n", 0, int(position) - 1) if position else 0)
        raise translate(error, f"{script.path}:{line}", ScriptError) from error


# ---- a view that cannot be replaced ---------------------------------------------------------------------------------

#: A view and all that read it, those first that nobody reads; with what a new one of its name would lack.
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
    """For a view that PostgreSQL cannot replace in place: its dependants, and the commands to type.

    Empty for any other failure (PostgreSQL: CREATE VIEW, "Notes"; SQLSTATE 42P16).
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
        f"PostgreSQL replaces a view in place only where columns are added at its end. {view[0]} is read by"
        f" {', '.join(name for name, *_ in others) or 'no other view'}.",
        f"A column that only changes its name, in psql: ALTER VIEW {view[0]} RENAME COLUMN old TO new; then run again.",
        "Anything else: type all of this in psql, then run again.",
        *(f"    {command}" for command in ("BEGIN;", *commands, "COMMIT;")),
    ]
    return "".join(f"\n    {line}" for line in lines)


def _indented(sql: str) -> str:
    return "".join(token.replace("\n", "\n        ") if kind == "space" else token for kind, token, _ in _tokens(sql))
