"""Prints everything that the user sees: a line per finished step, a progress bar on a terminal, a summary.

Warnings and errors go to stderr, everything else to stdout. Both are flushed line by line, so that a log that takes
both keeps their order. With --quiet only warnings and errors are printed.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

from lib.cli.streams import silence
from lib.errors import EltError, SettingsError

#: control characters and how they are printed: a value in a message must not control the terminal or break the line
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

#: width in columns of a line that a run prints
WIDTH = 80

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID

    from lib.run.history import JobRecord
    from lib.transform.scripts import ScriptResult


class ConsoleProgress:
    """Shows progress while exports are staged: lines, and bars on a terminal. Called from several threads."""

    def __init__(self, console: Console, bars: Bars | None) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def exported(self, job: str, slices: int, rows: int | None) -> None:
        """The export is ready to be read. rows: the source's own count, None if it gives none."""
        if self._bars is not None:
            if job in self._tasks:  # exported again
                self._bars.remove_task(self._tasks[job])
            self._tasks[job] = self._bars.add_task(job, total=rows)

    def copied(self, job: str, rows: int) -> None:
        """One slice with this many rows is staged."""
        if self._bars is not None:
            self._bars.advance(self._tasks[job], rows)

    def staged(self, job: str, rows: int, seconds: float) -> None:
        """The last slice is staged."""
        self._console.step("stage", job, rows, seconds)

    def unchanged(self, job: str, run_id: int) -> None:
        """The job is not exported: its source is what this run loaded."""
        self._console.text(f"stage    {job}: unchanged since run {run_id}, not exported")

    def note(self, job: str, text: str) -> None:
        """A message for the user."""
        self._console.note(job, text)

    def line(self, text: str) -> None:
        """Information about all exports."""
        self._console.line(text)


@dataclass
class Console:
    """Prints to stdout and stderr. Implements `RunListener`."""

    quiet: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        self._bars: Bars | None = None
        self._began = time.monotonic()

    def text(self, text: str = "") -> None:
        """Print text as it is."""
        self._print(text)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows under headers. A cell shows its first line; numbers are aligned right.

        A table that is wider than the terminal is printed with one line per column of each row, like psql's \\x.
        """
        cells = [[_cell(value, self.zone, whole=len(headers) == 1) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        right = [any(isinstance(row[place], (int, Decimal)) for row in rows) for place in range(len(headers))]
        if self.out.isatty() and sum(widths) + 2 * len(widths) - 2 > shutil.get_terminal_size().columns:
            longest = max(map(len, headers))
            for number, row in enumerate(cells):
                if number:
                    self._print("")
                for name, value in zip(headers, row, strict=True):
                    self._print(f"{name:<{longest}}  {value}".rstrip())
            return
        for line in [list(headers), ["-" * width for width in widths], *cells]:
            padded = [
                text.rjust(width) if is_right else text.ljust(width)
                for text, width, is_right in zip(line, widths, right, strict=True)
            ]
            self._print("  ".join(padded).rstrip())

    def line(self, text: str) -> None:
        """Print one line with date and time in front."""
        self._print(f"{datetime.now(self.zone):%Y-%m-%d %H:%M:%S %Z}  {text}")

    def begin(self, run_id: int, target: str, source: str = "") -> None:
        """Print the first lines of a run: its number, where rows come from and where they go."""
        self.line(f"run {run_id}")
        for word, place in (("from", source), ("into", target)):
            if place:
                self._print(
                    "\n".join(textwrap.wrap(place, WIDTH, initial_indent=f"{word}  ", subsequent_indent="      "))
                )

    def step(self, step: str, subject: str, rows: int | None, seconds: float) -> None:
        """Print a finished step in a line of 80 columns. A longer subject is printed on a separate line."""
        counted = "" if rows is None else _count(rows, "row")
        numbers = f"{counted:>14} {seconds:>7.1f} s"
        if len(subject) > WIDTH - 11 - len(numbers):
            self._print(f"{step:<7}  {subject}")
            step = subject = ""
        self._print(f"{step:<7}  {subject:<{WIDTH - 11 - len(numbers)}}  {numbers}")

    def on_load(self, table: str, rows: int, seconds: float) -> None:
        """A bronze table was loaded."""
        self.step("load", table, rows, seconds)

    def on_script(self, result: ScriptResult) -> None:
        """Print a finished script and what it changed, or a check that warns.

        Passed checks and scripts without changes are not printed here; the summary counts them.
        """
        if result.is_uneventful:
            return
        if result.broken_by is not None:
            self.step("check", result.path, result.broken_by, result.seconds)
            return
        changes, rows = "", None
        if result.row_counts is not None:
            inserted, updated, deleted, unchanged = result.row_counts
            changes, rows = f"  +{inserted:,} ~{updated:,} -{deleted:,}", inserted + updated + unchanged
        self.step("script", result.path + changes, rows, result.seconds)

    def note(self, job: str, text: str) -> None:
        """Print a warning about a job that did not fail."""
        self._print(f"{job}: {text}", wrong=True)

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}", wrong=True)

    def error(self, error: EltError | str) -> None:
        self._print(f"error: {error}", wrong=True)

    @contextmanager
    def staging(self) -> Iterator[ConsoleProgress]:
        """Show progress bars while exports are staged; only on a terminal and without --quiet."""
        if self.quiet or not self.out.isatty():
            yield ConsoleProgress(self, None)
            return
        from rich import progress

        columns = progress.BarColumn(), progress.TextColumn("{task.completed:,.0f} rows"), progress.TimeElapsedColumn()
        with self._live(progress.TextColumn("{task.description}"), *columns) as bars:
            yield ConsoleProgress(self, bars)

    @contextmanager
    def publishing(self) -> Iterator[Callable[[str], None]]:
        """The value is called with each script or table when it begins. A terminal shows its name and start time."""
        if self.quiet or not self.out.isatty():
            yield lambda step: None
            return
        from rich import progress

        with self._live(progress.TextColumn("{task.description}"), progress.TimeElapsedColumn()) as bars:
            task = bars.add_task("", total=None, visible=False)

            def on_begin(step: str) -> None:
                since = f"{datetime.now(self.zone):%H:%M:%S}"
                bars.reset(task, description=f"{step}  since {since}", visible=True)

            yield on_begin

    @contextmanager
    def _live(self, *columns: ProgressColumn) -> Iterator[Bars]:
        """Progress lines at the bottom of the terminal, removed at the end. Other output is printed above them."""
        from rich import console, progress

        with progress.Progress(*columns, console=console.Console(file=self.out), transient=True) as self._bars:
            try:
                yield self._bars
            finally:
                self._bars = None

    def asked(self, question: str, refusal: str) -> bool:
        """Ask a person who is at a terminal; Ctrl-D is a no. Raises SettingsError with `refusal` if nobody is there."""
        if sys.stdin is None or not sys.stdin.isatty():
            raise SettingsError(refusal)
        try:
            answer = input(f"{question} [y/N] ")
        except EOFError:
            answer = ""
            self.text("")
        return answer.strip().lower() in ("y", "yes")

    def summary(
        self,
        name: str,
        records: Sequence[JobRecord],
        error: EltError | None = None,
        unchanged_since: tuple[int, datetime] | None = None,
        *,
        done: str = "published",
    ) -> None:
        """Print the summary. Its last line says what was published, what failed and what was held back.

        It also says why, if one job failed. Each of several has a line of its own before it.
        done: what is said of the jobs that did not fail.
        unchanged_since: the run since which nothing has changed, and when it ended.
        """
        failed = [record for record in records if record.status == "failed"]
        for record in failed:
            if len(failed) > 1 or "\n" in (record.error or ""):
                self._print(f"{record.job} failed: {record.error}", wrong=True)
        if error is not None and "\n" in str(error):
            self.error(error)
        ran = [result for record in records if record.status == "published" for result in record.scripts]
        for step, quiet, outcome in (
            ("script", [result for result in ran if result.is_uneventful and result.broken_by is None], "unchanged"),
            ("check", [result for result in ran if result.broken_by == 0], "passed"),
        ):
            if quiet:
                noun = "table" if step == "script" else "check"
                self.step(step, f"{_count(len(quiet), noun)} {outcome}", None, sum(result.seconds for result in quiet))
        seconds = f"{time.monotonic() - self._began:.1f} s"
        parts = [_published(records, done)] if records else []
        if unchanged_since:
            run_id, at = unchanged_since
            parts = [f"nothing has changed since run {run_id}, {at.astimezone(self.zone):%Y-%m-%d %H:%M %Z}"]
        if failed:
            reason = f" ({_first_line(failed[0].error)})" if len(failed) == 1 else ""
            parts.append(f"{len(failed)} failed: {', '.join(record.job for record in failed)}{reason}")
        if held := [record.job for record in records if record.status == "held back"]:
            parts.append(f"{len(held)} held back: {', '.join(held)}")
        if error is not None:
            parts.append(_first_line(error) if str(error).startswith("stopped") else f"stopped: {_first_line(error)}")
        wrong = error is not None or bool(failed)
        self._print(f"{name}: {', '.join(parts) or 'nothing to do'}, {seconds}", wrong=wrong)

    def _print(self, text: str, *, wrong: bool = False) -> None:
        if self.quiet and not wrong:
            return
        stream = self.err if wrong else self.out
        encoding = stream.encoding or "ascii"
        shown = text.translate(CONTROLS).encode(encoding, "backslashreplace").decode(encoding)
        try:
            if self._bars is not None and stream.isatty():
                self._bars.console.print(shown, markup=False, highlight=False, emoji=False, soft_wrap=True)
            else:
                # print() writes its `end` apart, and another thread's line could come in between
                print(f"{shown}\n", end="", file=stream, flush=True)
        except OSError:
            silence(stream)


def _published(records: Sequence[JobRecord], how: str) -> str:
    """How many jobs were published, and how many of them kept the rows of an earlier export."""
    done = [record for record in records if record.status == "published"]
    same = sum(record.is_unchanged or False for record in done)
    return f"{_count(len(done), 'job')} {how}" + (f" ({same} not exported: unchanged)" if same else "")


def _first_line(text: object) -> str:
    """Without a full stop: it becomes a part of a sentence."""
    return str(text).partition("\n")[0].removesuffix(".")


def _cell(value: object, zone: tzinfo, *, whole: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(zone):%Y-%m-%d %H:%M %Z}"
    if isinstance(value, int):
        return f"{value:,}"
    text = _first_line(value)
    return text if whole or len(text) <= 100 else f"{text[:97]}..."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
