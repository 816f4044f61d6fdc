"""Finds what a SQL script may not contain, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lib.config.jobs import Script
from lib.transform.references import references
from lib.transform.statements import Created, Statement, created_by, line_counter, statements, tokens

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
    ("vacuum",): "a command that cannot run in a transaction",
    ("truncate",): "a TRUNCATE",
}
WHY = {
    "transaction control": "the whole run is one transaction, so that readers see all of it or nothing: leave it out",
    "a setting": "it would outlast the script, and every script begins with the same settings: name schemas instead",
    "a command that cannot run in a transaction": "the run vacuums what it wrote, after the commit: leave it out",
    "a TRUNCATE": "readers would see an empty table or wait: use elt.publish_rows, or DELETE",
}


def refusals(script: Script) -> list[str]:
    """A message `file:line: ..` for each thing in the script that is not allowed."""
    found = []
    line_of = line_counter(script.text)
    for kind, token, position in tokens(script.text) if "\\" in script.text else ():
        if kind == "meta":
            text = f"{token.split()[0]} is a command of psql, not of PostgreSQL: write SQL instead"
            found.append((line_of(position), text))
    if "\0" in script.text:
        found.append((line_of(script.text.index("\0")), "a NUL byte: PostgreSQL would stop reading there; remove it"))
    parts = statements(script.text)
    found += [(part.line, text) for part in parts for text in _refusals_of(part)]
    if script.layer == "gold" and parts:
        found += _refusals_of_gold(script, parts)
    if script.layer == "bronze":
        found += _refusals_of_bronze(script, parts)
    if not parts:
        found.append((1, "the script has no statement"))
    return [f"{script.path}:{line}: {text}" for line, text in sorted(found)]


def _refusals_of(statement: Statement) -> Iterator[str]:
    words = statement.words
    kind = REFUSED.get(words[:1]) or REFUSED.get(words[:2])
    if kind and not (words[:1] == ("truncate",) and "pg_temp" in words):
        yield f"{' '.join(words[:2]).upper()} is {kind}; {WHY[kind]}"
    if words[:1] == ("copy",) and "stdin" in words:
        yield "COPY .. FROM STDIN gets no input here: use INSERT .. VALUES"
    if words[:1] == ("copy",) and "stdout" in words:
        yield "COPY .. TO STDOUT has no output here: leave it out"
    if "concurrently" in words[:4] and words[0] != "refresh":
        yield "CONCURRENTLY cannot run in a transaction: do it once, in psql"
    if words[:1] == ("create",) and ("on", "commit", "drop") in zip(words, words[1:], words[2:], strict=False):
        yield (
            "ON COMMIT DROP: under psql -f the table would be gone at once;"
            " begin with DROP TABLE IF EXISTS pg_temp.name"
        )


#: words of an ALTER VIEW after which the view has another name
MOVING = {"rename", "schema"}
#: statements of a gold script beside CREATE VIEW
ALLOWED_IN_GOLD = (("comment",), ("grant",), ("revoke",), ("alter", "view"))


def _refusals_of_gold(script: Script, parts: Sequence[Statement]) -> list[tuple[int, str]]:
    """A gold script makes the view that its file is named after, and nothing else.

    A table there would be filled once and never again, because a definition runs only when its text changed.
    """
    found = [(part.line, text) for part in parts for text in [_refusal_of_gold(script, part)] if text]
    if not found and Created("view", script.relation) not in map(created_by, parts):
        found.append((1, f"does not make the view {script.relation} that the file is named after"))
    return found


def _refusal_of_gold(script: Script, part: Statement) -> str:
    """What is wrong with one statement of a gold script; empty if nothing is, or if `_refusals_of` says it."""
    instead = "a gold script makes one view; fill a silver table with elt.publish_rows, and let the view read it"
    made = created_by(part)
    if made == Created("view", script.relation):
        is_safe = part.words[1:3] == ("or", "replace")
        return "" if is_safe else "CREATE VIEW fails once the view is there: write CREATE OR REPLACE VIEW"
    if made and made.kind == "view":
        return f"makes the view {made.name}, but this file is for {script.relation}: move it"
    if made:
        return f"makes a {made.kind.upper()}, but {instead}"
    verb = " ".join(part.words[:1]).upper() or "this statement"
    if verb == "DROP":
        return "DROP loses the view's grants: leave it out, CREATE OR REPLACE is enough"
    if not {part.words[:1], part.words[:2]}.intersection(ALLOWED_IN_GOLD):
        return "" if any(_refusals_of(part)) else f"{verb} does not make the view: {instead}"
    layer, _, name = script.relation.partition(".")
    if others := sorted(".".join(other) for other in references(part.text).all - {(layer, name)}):
        return f"{verb} is about {others[0]}: move it into that one's script"
    if verb == "ALTER" and MOVING.intersection(part.words):
        return "ALTER VIEW .. RENAME and SET SCHEMA take the view away: leave them out"
    return ""


def _refusals_of_bronze(script: Script, parts: Sequence[Statement]) -> Iterator[tuple[int, str]]:
    """A bronze script makes the table that its file is named after.

    It runs only when its text changed, so another table would be made once and never again.
    """
    for part in parts:
        made = created_by(part)
        is_ours = (
            made is None or made.kind not in ("table", "view", "materialized view") or made.name == script.relation
        )
        is_part = {"partition", "inherits"}.intersection(part.words)
        if made and not (is_ours or is_part or _is_temporary(part)):
            text = f"makes {made.name}, but this file is for {script.relation}"
            yield part.line, f"{text}: correct the name, or move it to a silver script"


def _is_temporary(statement: Statement) -> bool:
    return bool({"temp", "temporary", "pg_temp"}.intersection(statement.words[:6]))


#: a statement with one of these words may change rows
WRITING_WORDS = {
    *("insert", "into", "update", "delete", "merge", "copy", "call", "do", "execute", "refresh", "alter"),
    *("publish_rows", "publish_history"),
}
#: a call of a function with its schema, which may change rows
QUALIFIED_CALL = re.compile(r'(?i)(?<![\w"])(?!elt\b|pg_catalog\b)[\w"]+\s*\.\s*[\w"]+\s*\(')


def writes_nothing(script: Script) -> str:
    """What a silver script does instead of writing rows: "reads rows", or "makes a table"; empty if it may write."""
    parts = statements(script.text)
    if any(_may_write(part) for part in parts):
        return ""
    reads = any(part.words[:1] in (("select",), ("with",), ("table",)) or _is_temporary(part) for part in parts)
    return "reads rows" if reads else "makes a table"


def _may_write(statement: Statement) -> bool:
    words = statement.words
    if words[:1] == ("create",) and not _is_temporary(statement):
        made = created_by(statement)
        return made is None or made.kind != "table" or "as" in words
    if WRITING_WORDS.intersection(words):
        return True
    calls_alone = words[:1] == ("select",) and "from" not in words and "(" in statement.text
    return calls_alone or bool(QUALIFIED_CALL.search(statement.text))
