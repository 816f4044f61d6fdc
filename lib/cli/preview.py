"""Prints what a preview found out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lib.cli.changes import show_changes
from lib.cli.console import Console
from lib.run.preview import Preview


def show_preview(console: Console, preview: Preview) -> None:
    """Print what a run would change: rows of tables and gold views, columns, definitions."""
    tables = [*preview.tables, *(view.changes for view in preview.views if view.changes)]
    _title(console, "a run would change" if tables else "a run would change no rows")
    show_changes(console, [replace(table, may_read=True) for table in tables])
    _list(console, "gold views that would come or go", _views(preview))
    _list(
        console,
        "gold views that were not compared",
        (f"{view.relation}: {view.why}" for view in preview.views if view.why),
    )
    _list(console, "columns that would come, go, or change their type", _columns(preview))
    _list(console, "definitions that would be applied", _definitions(preview))
    console.text()


def _title(console: Console, text: str) -> None:
    console.text()
    console.text(text)


def _list(console: Console, title: str, lines: Iterable[str]) -> None:
    """Print lines under a title; nothing if there are none."""
    found: Sequence[str] = [*lines]
    if found:
        _title(console, title)
    for line in found:
        console.text(f"  {line}")


def _views(preview: Preview) -> Iterable[str]:
    for view in preview.views:
        if view.is_new:
            yield f"{view.relation} is new"
        if view.is_gone:
            yield f"{view.relation} would be gone"


def _columns(preview: Preview) -> Iterable[str]:
    for change in preview.columns:
        name = f"{change.relation}.{change.column}"
        if change.before is None:
            is_view = change.relation.startswith("gold.")  # its readers wait for its definition, which is listed
            waits = "" if is_view else f"; readers of {change.relation} wait from then until the run ends"
            yield f"{name} {change.after} is new{waits}"
        elif change.after is None:
            yield f"{name} {change.before} would be gone"
        else:
            yield f"{name} {change.before} -> {change.after}"


def _definitions(preview: Preview) -> Iterable[str]:
    for each in preview.definitions:
        if not each.locks_readers:
            yield f"{each.script}: nobody waits"
            continue
        now = f"; now: {', '.join(each.users)}" if each.users else ""
        yield f"{each.script}: readers of {each.relation} wait from then until the run ends{now}"
