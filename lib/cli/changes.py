"""The command `changes`: shows what a run changed, and how changes are printed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from decimal import Decimal

from rich.cells import cell_len, set_cell_size

from lib.cli.console import WIDTH, Console
from lib.run.read_changes import RowChange, TableChanges

#: columns of the screen for a value of a row that came or went, and for the name of a column
VALUE, NAME = 30, 28
#: lines for the values of a row that came or went
LINES = 3
#: columns of the screen left of what is said of a row, and of what is said of its columns
INDENT, DEEPER = 12, 14


def show_changes(console: Console, changes: Sequence[TableChanges]) -> None:
    """Print the counts of all tables, then of each table the gold views that read it, and its first changed rows.

    Values are written as in SQL: 5, 'text', '', NULL, and E'..' where a text has something that cannot be seen.
    """
    width = max(WIDTH, shutil.get_terminal_size().columns) if console.out.isatty() else WIDTH
    if len(changes) > 1:
        counts = [(shown(each.relation), each.inserted, each.updated, each.deleted) for each in changes]
        console.table(("table", "inserted", "updated", "deleted"), counts)
    for number, each in enumerate(changes):
        if number or len(changes) > 1:
            console.text()
        for line in _table_lines(each, width):
            console.text(line)


def _table_lines(table: TableChanges, width: int) -> Iterable[str]:
    counts = f"{table.inserted:,} inserted, {table.updated:,} updated, {table.deleted:,} deleted"
    yield f"{shown(table.relation)}: {counts}"
    if table.views:
        views = [shown(view.removeprefix("gold.")) for view in table.views]
        yield from _packed("  read in gold by ", views, width, indent=4)
    if table.by_other_statements:
        yield f"  {table.by_other_statements:,} more by statements or triggers whose rows are not recorded"
    if why := _why_no_rows(table):
        yield f"  {why}"
        return
    # the columns of each updated row, and their widths, so that all rows of the table line up
    names = [name for row in table.rows for name in _differing(row)]
    name_width = min(NAME, max((cell_len(shown(name)) for name in names), default=0))
    room = (width - DEEPER - name_width - 6) // 2
    pairs = {
        (number, name): _pair((row.before or {}).get(name), (row.after or {}).get(name), room)
        for number, row in enumerate(table.rows)
        for name in _differing(row)
    }
    left = max((cell_len(before) for before, _ in pairs.values()), default=0)
    right = max((cell_len(after) for _, after in pairs.values() if _is_number(after)), default=0)
    for number, row in enumerate(table.rows):
        yield from _packed(f"  {row.operation:<8}  ", _named_values(row), width, indent=INDENT, most=LINES)
        for name in _differing(row):
            before, after = pairs[number, name]
            yield (
                f"{'':{DEEPER}}{set_cell_size(_cut(shown(name), NAME), name_width)}  "
                f"{_aligned(before, left)} -> {_aligned(after, right) if _is_number(after) else after}"
            )
    if table.total > len(table.rows):
        yield f"  and {table.total - len(table.rows):,} more rows" if table.rows else "  --limit shows the rows"


def _why_no_rows(table: TableChanges) -> str:
    """Why the changed rows of a table cannot be shown; empty if they can, or if there are none."""
    if table.first_filling:
        return "the table was empty before: all its rows are new, and only the count is kept"
    if not table.total:
        return ""
    if not table.is_kept:
        return "only the counts are known: too many rows changed, or they are no longer kept"
    return "" if table.may_read else "the rows cannot be shown: your role may not read them, or the table was made anew"


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
        if cell_len(line) + cell_len(text) > width and line not in (first, " " * indent):
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
