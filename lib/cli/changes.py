"""The command `changes`: shows what a run changed, and how changes are printed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from decimal import Decimal

from rich.cells import cell_len, set_cell_size

from lib.cli.arguments import how_to_type
from lib.cli.console import WIDTH, Console
from lib.cli.status import REMEDIES, is_new, reading
from lib.config.settings import Settings
from lib.elt_schema.strangers import refuse_strangers
from lib.errors import SettingsError
from lib.postgres.connection import Connection, Database, query
from lib.run.read_changes import (
    ChangingRun,
    RowChange,
    TableChanges,
    last_published,
    one_run,
    read_changes,
    runs_since,
    unknown_table,
)

#: Whether this role may be the pipeline's. Another one reads what belongs to the pipeline's role, as in psql; nobody
#: could make it run code with more rights.
MAY_WRITE = """
    SELECT has_database_privilege(current_database(), 'CREATE') OR coalesce(
        (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'elt'), false
    )
"""

#: columns of the screen for a value of a row that came or went, and for the name of a column
VALUE, NAME = 30, 28
#: lines for the values of a row that came or went
LINES = 3
#: columns of the screen left of what is said of a row, and of what is said of its columns
INDENT, DEEPER = 12, 14


def changes(settings: Settings, console: Console, given: argparse.Namespace) -> int:
    """Print what the last published run changed, or the named run, or all since a day. Returns 0.

    Raises SettingsError if there is no such run or table, and other EltErrors if the database cannot be asked.
    """
    if given.run is not None and given.since:
        raise SettingsError("name a run or --since, not both")
    remedies = REMEDIES | {"42501": 'docs/operations.md, "What a run changed", has the grants that a reader needs.'}
    with reading("changes", remedies):
        connection = Database(settings).connect("elt changes")
        try:
            if query(connection, MAY_WRITE) == [(True,)]:
                refuse_strangers(connection)
            new = is_new(connection)
            runs = [] if new else _runs(connection, given)
            found = [
                (run, read_changes(connection, run.run_id, tables=given.table, key=given.key, limit=given.limit))
                for run in runs
            ]
        finally:
            connection.close()
    if given.json:
        console.text(as_json(found))
    elif not runs and not given.since:
        console.text(f"no run has published anything yet; to load everything: {how_to_type('run', settings)}")
    else:
        _show_runs(console, found, given)
    return 0


def _runs(connection: Connection, given: argparse.Namespace) -> list[ChangingRun]:
    """The runs that are asked for. Raises SettingsError if a run or a table does not exist."""
    for name in given.table:
        if why := unknown_table(connection, name):
            raise SettingsError(why)
    if given.since:
        return runs_since(connection, given.since)
    run = last_published(connection) if given.run is None else one_run(connection, given.run)
    if run is None and given.run is not None:
        raise SettingsError(f"there is no run {given.run}; `status` lists the last runs")
    return [run] if run else []


def _show_runs(
    console: Console, found: Sequence[tuple[ChangingRun, list[TableChanges]]], given: argparse.Namespace
) -> None:
    """Print each run with what it changed. A search names the runs in which it could not look everywhere."""
    some, sought = _sought(given)
    blind: list[str] = []
    told: set[str] = set()
    is_first = True
    for run, tables in found:
        searched = [each for each in tables if given.key is None or each.is_kept and each.may_read]
        if len(searched) < len(tables):
            blind.append(str(run.run_id))
        if given.since and not searched:
            continue
        if not is_first:
            console.text()
        is_first = False
        at = f"{run.started_at.astimezone(console.zone):%Y-%m-%d %H:%M %Z}"
        did = f"took back run {run.undone_run_id}" if run.undone_run_id else run.status
        console.text(f"run {run.run_id} of {run.run_date}: {did}, started {at}\n")
        if searched:
            # the gold views that read a table are said once
            show_changes(console, [replace(each, views=()) if each.relation in told else each for each in searched])
            told |= {each.relation for each in searched}
        elif tables:
            console.text(f"nobody can say whether it changed {some}{sought}")
        else:
            more = "" if given.key is None else "; --since YYYY-MM-DD searches more runs"
            console.text(f"it changed {'nothing' if given.key is None else 'no row'}{sought}{more}")
    if is_first:
        console.text(f"no run since {given.since} changed {some}{sought}")
    if blind:
        console.text()
        where = "not searched, because rows are not kept or not readable: some tables of run "
        for line in _packed(where, blind, WIDTH, indent=4):
            console.text(line)


def _sought(given: argparse.Namespace) -> tuple[str, str]:
    """What is looked for, in words: anything or a row, and its key and tables."""
    some, sought = ("anything", "") if given.key is None else ("a row", f" with key {literal(given.key)}")
    return some, sought + (f" in {', '.join(given.table)}" if given.table else "")


def as_json(found: Iterable[tuple[ChangingRun, Iterable[TableChanges]]]) -> str:
    """One JSON document. Its names stay as they are; new ones may be added."""
    runs = [
        {
            "run_id": run.run_id,
            "status": run.status,
            "run_date": run.run_date.isoformat(),
            "started_at": run.started_at.isoformat(),
            "undone_run_id": run.undone_run_id,
            "tables": [asdict(table) for table in tables],
        }
        for run, tables in found
    ]
    return json.dumps({"runs": runs}, indent=2, default=_number)


def _number(value: Decimal) -> float | str:
    """A number, or its text if a reader of JSON would round it."""
    near = float(value)
    return near if Decimal(repr(near)) == value else f"{value:f}"


def show_changes(console: Console, changes: Sequence[TableChanges]) -> None:
    """Print the counts of all tables, then of each table the gold views that read it, and its first changed rows.

    Values are written as in SQL: 5, 'text', '', NULL, and E'..' where a text has something that cannot be seen.
    """
    width = max(WIDTH, shutil.get_terminal_size().columns) if console.out.isatty() else WIDTH
    if len(changes) > 1:
        counts = [(shown(each.relation), each.inserted, each.updated, each.deleted) for each in changes]
        console.table(("table", "inserted", "updated", "deleted"), counts)
    reasons: dict[str, list[str]] = {}
    for each in changes:
        if why := _why_no_rows(each):
            reasons.setdefault(why, []).append(shown(each.relation))
        lines = [*_about(each, width), *_rows(each, width)]
        if lines or len(changes) == 1:
            console.text(f"{'' if len(changes) == 1 else chr(10)}{shown(each.relation)}: {_counts(each)}")
        for line in lines:
            console.text(line)
    for why, names in reasons.items():
        console.text()
        for line in _packed(f"only counts, because {why}: ", names, width, indent=4):
            console.text(line)


def _counts(table: TableChanges) -> str:
    return f"{table.inserted:,} inserted, {table.updated:,} updated, {table.deleted:,} deleted"


def _about(table: TableChanges, width: int) -> Iterable[str]:
    """Which gold views read the table, and what is not recorded."""
    if table.views:
        views = [_cut(shown(view.removeprefix("gold.")), WIDTH - 10) for view in table.views]
        yield from _packed("  read in gold by ", views, width, indent=4)
    if table.by_other_statements:
        yield f"  {table.by_other_statements:,} more by a script's own statements or a trigger, which are only counted"


def _why_no_rows(table: TableChanges) -> str:
    """Why the changed rows of a table cannot be shown; empty if they can, or if there are none."""
    if table.first_filling:
        return "they were empty before"
    if not table.total:
        return ""
    if not table.is_kept:
        return "the rows are no longer kept, or too many changed"
    return "" if table.may_read else "your role may not read them, or they were made anew since"


def _rows(table: TableChanges, width: int) -> Iterable[str]:
    """The first rows. Names and values of all of them line up."""
    differing = [_differing(row) for row in table.rows]
    names = [shown(name) for each in differing for name in each]
    name_width = min(NAME, max(map(cell_len, names), default=0))
    room = (width - DEEPER - name_width - 6) // 2
    pairs = [
        [_pair((row.before or {}).get(name), (row.after or {}).get(name), room) for name in each]
        for row, each in zip(table.rows, differing, strict=True)
    ]
    left = max((cell_len(before) for each in pairs for before, _ in each), default=0)
    right = max((cell_len(after) for each in pairs for _, after in each if _is_number(after)), default=0)
    for row, its_names, its_pairs in zip(table.rows, differing, pairs, strict=True):
        yield from _packed(f"  {row.operation:<8}  ", _named_values(row), width, indent=INDENT, most=LINES)
        for name, (before, after) in zip(its_names, its_pairs, strict=True):
            label = set_cell_size(_cut(shown(name), NAME), name_width)
            after = _aligned(after, right) if _is_number(after) else after
            yield f"{'':{DEEPER}}{label}  {_aligned(before, left)} -> {after}"
        if row.operation == "updated" and not its_names:
            yield f"{'':{DEEPER}}differs in a way that its JSON does not show"
    if table.rows and table.total > len(table.rows):
        yield f"  and {table.total - len(table.rows):,} more"


def _differing(row: RowChange) -> list[str]:
    """The columns of an updated row whose values differ as they are written: 1.0 and 1.00 do."""
    if row.before is None or row.after is None:
        return []
    names = dict.fromkeys([*row.before, *row.after])
    return [name for name in names if literal(row.before.get(name)) != literal(row.after.get(name))]


def _named_values(row: RowChange) -> list[str]:
    """The key of an updated row; all values of one that came or went, the key first."""
    content = dict(row.key or {})
    if row.before is None or row.after is None:
        content |= row.after or row.before or {}
    return [f"{_cut(shown(name), NAME)} {_cut(literal(value), VALUE)}" for name, value in content.items()]


def _packed(first: str, parts: Sequence[str], width: int, *, indent: int, most: int = 1000) -> list[str]:
    """Lines with as many of the parts as fit, and `...` if the parts need more than `most` lines."""
    lines: list[str] = []
    line = first
    for number, part in enumerate(parts):
        text = part + ("," if number < len(parts) - 1 else "")
        if cell_len(line) + cell_len(text) > width and line != " " * indent:
            if len(lines) == most - 1:
                return [*lines, f"{_cut(line, width - 4).rstrip()} ..."]
            lines.append(line.rstrip())
            line = " " * indent
        line += f"{text} "
    return [*lines, line.rstrip()]


def literal(value: object) -> str:
    """A value as SQL writes it, on one line and without anything that a terminal obeys or nobody sees."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if text.isprintable() else f"E'{shown(quoted.replace(chr(92), chr(92) * 2))}'"


def shown(text: str) -> str:
    r"""Text in which control characters and what nobody sees is written as \n, \x1b or \u200b."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] == "-"


def _pair(before: object, after: object, room: int) -> tuple[str, str]:
    """Two different values, each within this many columns, so that one can see where they differ."""
    texts = [literal(before), literal(after)]
    if max(map(cell_len, texts)) > room:
        same = len(os.path.commonprefix(texts))
        if same > room // 2:
            texts = [f"...{text[same - room // 4 :]}" for text in texts]
    return _cut(texts[0], room), _cut(texts[1], room)


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else f"{set_cell_size(text, room - 3).rstrip()}..."


def _aligned(text: str, width: int) -> str:
    """Numbers to the right, other values to the left."""
    space = " " * (width - cell_len(text))
    return space + text if _is_number(text) else text + space
