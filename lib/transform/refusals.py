"""Finds what a SQL script may not contain, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib.config.jobs import Script
from lib.transform.statements import Statement, statements, tokens

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
    for kind, token, position in tokens(script.text) if "\\" in script.text else ():
        if kind == "meta":
            text = f"{token.split()[0]} is a command of psql, not of PostgreSQL: write SQL instead"
            found.append((script.text.count("\n", 0, position) + 1, text))
    if "\0" in script.text:
        line = script.text.count("\n", 0, script.text.index("\0")) + 1
        found.append((line, "a NUL byte: PostgreSQL would stop reading there; remove it"))
    parts = statements(script.text)
    found += [(part.line, text) for part in parts for text in _refusals_of(part)]
    if script.layer == "gold" and parts:
        found += _refusals_of_gold(script, parts)
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


#: words that may stand between CREATE and the kind of object, such as OR REPLACE
_BEFORE_KIND = {"or", "replace", "global", "local", "temp", "temporary", "unlogged", "recursive", "foreign"}


def _refusals_of_gold(script: Script, parts: Sequence[Statement]) -> list[tuple[int, str]]:
    """Mistakes in a gold script. It may only make the view that its file is named after.

    A table there would be filled once and never again, because a definition runs only when its text changed.
    """
    instead = "fill a silver table with elt.publish_rows, and let a view read it"
    found: list[tuple[int, str]] = []
    views = 0
    for part in parts:
        if part.words[:1] != ("create",):
            if "into" in part.words and part.words[0] in ("select", "with"):
                found.append((part.line, f"SELECT INTO makes a table in gold, which no later run fills: {instead}"))
            if part.words[:1] == ("drop",):
                found.append((part.line, "DROP loses the view's grants: leave it out, CREATE OR REPLACE is enough"))
            continue
        kind = next((word for word in part.words[1:] if word not in _BEFORE_KIND), "")
        if kind == "view" and made_by(part) == script.relation:
            views += 1
        elif kind == "view":
            name = made_by(part)
            found.append((part.line, f"makes the view {name}, but this file is for {script.relation}: move it"))
        else:
            made = "MATERIALIZED VIEW" if kind == "materialized" else kind.upper()
            found.append((part.line, f"makes a {made}, but a gold script makes one view: {instead}"))
    if views == 0 and not found:
        found.append((1, f"does not make the view {script.relation} that the file is named after"))
    return found


def made_by(statement: Statement) -> str:
    """The name of the view that CREATE VIEW makes, with its schema and without quotes."""
    words: list[str] = []
    for kind, token, _ in tokens(statement.text):
        if kind in ("word", "name") or token.startswith("."):
            words.append(token.lower() if kind == "word" else token[1:-1] if kind == "name" else ".")
    after = words[words.index("view") + 1 :]
    if after[:3] == ["if", "not", "exists"]:
        after = after[3:]
    return ".".join([after[0], after[2]] if after[1:2] == ["."] else after[:1])
