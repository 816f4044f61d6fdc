"""Which tables, views and functions a SQL script names, publishes and changes; found by reading, not by running."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from lib.config.jobs import LAYERS
from lib.transform.statements import without_comments


@dataclass(frozen=True)
class References:
    """What a script names as schema.name, in string literals and bodies of functions too, but not in comments."""

    #: in the layers, as (schema, name): relations, functions, types, operators
    all: frozenset[tuple[str, str]]
    #: tables that elt.publish_rows or elt.publish_history are given
    published: frozenset[tuple[str, str]]
    #: what an INSERT, UPDATE, DELETE, MERGE or COPY of the script writes itself, in any schema
    changed: frozenset[tuple[str, str]]


@cache
def references(text: str) -> References:
    """What a script refers to."""
    all_names: set[tuple[str, str]] = set()
    published: set[tuple[str, str]] = set()
    changed: set[tuple[str, str]] = set()
    before = ("", "")  # the last two words that are no part of a name
    first = ""  # word of the statement
    pending = ""  # a word that is a schema if a dot follows
    schema = operator = ""
    publishes = False
    for kind, token in without_comments(text):
        if kind in ("string", "escapes", "dollar") and first != "comment":
            inner = references(_inner(kind, token))
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
    return References(frozenset(all_names), frozenset(published), frozenset(changed))


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
