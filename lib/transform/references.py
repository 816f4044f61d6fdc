"""Finds which tables, views and functions a SQL script names, publishes and changes, without running it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from lib.config.jobs import LAYERS
from lib.transform.statements import unquoted, without_comments


@dataclass(frozen=True)
class References:
    """What a script names as schema.name. Includes string literals and bodies of functions, but not comments."""

    #: relations, functions, types and operators in bronze, silver and gold, as (schema, name)
    all: frozenset[tuple[str, str]]
    #: tables that are passed to elt.publish_rows or elt.publish_history
    published: frozenset[tuple[str, str]]
    #: tables that an INSERT, UPDATE, DELETE, MERGE or COPY of the script names as its target, in any schema
    changed: frozenset[tuple[str, str]]
    #: everything that is named as schema.name, in any schema; columns that are named with their table, too
    qualified: frozenset[tuple[str, str]] = frozenset()


@cache
def references(text: str) -> References:
    """Find the references in the text of a script."""
    all_names: set[tuple[str, str]] = set()
    published: set[tuple[str, str]] = set()
    changed: set[tuple[str, str]] = set()
    qualified: set[tuple[str, str]] = set()
    before = ("", "")  # the last two words that do not belong to a name
    first = ""  # the first word of the statement
    pending = ""  # the last word; it is a schema if a dot follows
    schema = operator = ""
    publishes = False
    for kind, token in without_comments(text):
        if kind in ("string", "escapes", "dollar") and first != "comment":
            inner = references(_inner(kind, token))
            all_names |= inner.all
            qualified |= inner.qualified
            published |= inner.published | (inner.all if publishes else set())
            changed |= inner.changed
            publishes &= not inner.all
        name = unquoted(kind, token)
        first = "" if token == ";" else first or name
        if schema and name and not operator:
            qualified.add((schema, name))
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
    return References(frozenset(all_names), frozenset(published), frozenset(changed), frozenset(qualified))


def _inner(kind: str, token: str) -> str:
    """The text between the quotes of a string."""
    if kind == "dollar":
        begin = token.index("$", 1) + 1
        return token[begin:-begin]
    inner = token[token.index("'") + 1 : -1]
    with suppress(UnicodeDecodeError):
        return inner.encode("ascii", "backslashreplace").decode("unicode_escape") if kind == "escapes" else inner
    return inner
