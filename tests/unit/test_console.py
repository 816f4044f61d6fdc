"""Console output: lines, bars, and the summary as the last line. No character and no closed pipe causes a traceback."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from lib.cli.console import Console
from lib.errors import Cancelled, DatabaseError, EltError
from lib.run.history import JobRecord
from lib.transform.scripts import ScriptResult


@dataclass
class Spoken:
    """A console without a terminal, and its output."""

    console: Console

    @property
    def out(self) -> list[str]:
        return self.console.out.getvalue().splitlines()

    @property
    def err(self) -> list[str]:
        return self.console.err.getvalue().splitlines()


def speaking(**options: object) -> Spoken:
    return Spoken(Console(out=io.StringIO(), err=io.StringIO(), **options))


# ---- lines ----------------------------------------------------------------------------------------------------------


def test_a_line_carries_the_time_of_day_in_the_settings_time_zone() -> None:
    spoken = speaking(zone=ZoneInfo("Asia/Kathmandu"))
    spoken.console.line("PostgreSQL 18")
    stamp, text = spoken.out[0].split(" +0545  ")
    now = datetime.now(ZoneInfo("Asia/Kathmandu")).replace(tzinfo=None)
    assert abs((datetime.fromisoformat(stamp) - now).total_seconds()) < 60
    assert text == "PostgreSQL 18"


def test_steps_stand_in_columns_with_rows_and_seconds() -> None:
    spoken = speaking()
    console = spoken.console
    with console.staging() as progress, console.publishing() as begins:
        progress.exported("products", 3, 12)
        progress.copied("products", 12)
        progress.staged("products", 1234567, 12.34)
        begins("silver/a.sql")
    console.on_load("bronze.products", 1, 1.5)
    console.on_script(ScriptResult("silver/a.sql", 0.26, (1, 2000, 3, 4), changed_rows=2004))
    console.on_script(ScriptResult("silver/a.sql", 0.26, (0, 0, 0, 4), changed_rows=0))
    console.on_script(ScriptResult("silver/dml.sql", 0.26, changed_rows=7))
    console.on_script(ScriptResult("gold/a.sql", 0.0))
    console.on_script(ScriptResult("checks/a.sql", 0.0, broken_by=0))
    console.on_script(ScriptResult("checks/a.sql", 0.0, broken_by=7))
    assert [re.sub(" +", " ", line) for line in spoken.out] == [
        "stage products 1,234,567 rows 12.3 s",
        "load bronze.products 1 row 1.5 s",
        "script silver/a.sql +1 ~2,000 -3 2,005 rows 0.3 s",
        "script silver/dml.sql 0.3 s",
        "script gold/a.sql 0.0 s",
        "check checks/a.sql 7 rows 0.0 s",
    ]
    assert {len(line) for line in spoken.out} == {80}
    assert spoken.err == []


def test_what_is_too_long_for_a_line_of_80_columns_has_one_of_its_own() -> None:
    spoken = speaking()
    spoken.console.on_script(ScriptResult("silver/" + "a" * 60 + ".sql", 0.2, (1_000_000, 2, 3, 4)))
    assert spoken.out[0] == "script   silver/" + "a" * 60 + ".sql  +1,000,000 ~2 -3"
    assert spoken.out[1].split() == ["1,000,006", "rows", "0.2", "s"] and len(spoken.out[1]) == 80


def test_what_changed_nothing_and_what_passed_is_counted_in_the_summary() -> None:
    spoken = speaking()
    scripts = (
        ScriptResult("silver/a.sql", 0.25, (0, 0, 0, 4), changed_rows=0),
        ScriptResult("silver/b.sql", 0.25, changed_rows=0),
        ScriptResult("silver/c.sql", 0.25, (1, 0, 0, 4), changed_rows=1),
        ScriptResult("gold/a.sql", 0.25),
        *(ScriptResult(f"checks/{number}.sql", 0.5, broken_by=0) for number in range(16)),
        ScriptResult("checks/warns.sql", 0.5, broken_by=1),
    )
    spoken.console.summary("run", [JobRecord("a", "published", scripts=scripts)])
    assert [re.sub(" +", " ", line) for line in spoken.out[:-1]] == [
        "script 2 tables unchanged 0.5 s",
        "check 16 checks passed 8.0 s",
    ]


def test_a_run_begins_with_its_number_and_two_places_in_80_columns() -> None:
    spoken = speaking()
    spoken.console.begin(
        7, "PostgreSQL 18.4, database warehouse on " + "db.example.com:5432 " * 4, "Keboola " + "x" * 100
    )
    assert spoken.out[0].endswith("UTC  run 7")
    assert spoken.out[1].startswith("from  Keboola") and spoken.out[2].startswith("      xxx")
    assert spoken.out[3].startswith("into  PostgreSQL 18.4, database warehouse on")
    assert all(len(line) <= 80 for line in spoken.out if "xxx" not in line)


def test_a_table_has_headers_and_numbers_to_the_right() -> None:
    spoken = speaking(zone=ZoneInfo("Europe/Prague"))
    at = datetime(2026, 1, 31, 5, 0, tzinfo=UTC)
    spoken.console.table(
        ["job", "rows", "seconds", "at", "error"],
        [["a", 1234, Decimal("1.5"), at, None], ["longer", None, Decimal("10.25"), None, "one\ntwo"]],
    )
    assert spoken.out == [
        "job      rows  seconds  at                    error",
        "------  -----  -------  --------------------  -----",
        "a       1,234      1.5  2026-01-31 06:00 CET",
        "longer           10.25                        one",
    ]


def test_quiet_leaves_only_what_is_wrong() -> None:
    spoken = speaking(quiet=True)
    console = spoken.console
    console.text("a")
    console.line("a")
    console.on_load("bronze.a", 1, 1.0)
    console.table(["a"], [[1]])
    with console.staging() as progress:
        progress.staged("a", 1, 1.0)
    console.summary("run", [JobRecord("a", "published")])
    assert spoken.out == spoken.err == []
    console.note("a", "look at this")
    console.warn("this too")
    console.error(DatabaseError("and this"))
    console.summary("run", [JobRecord("a", "failed", error="oops")])
    assert spoken.out == []
    assert spoken.err[:3] == ["a: look at this", "warning: this too", "error: and this"]
    assert spoken.err[3].startswith("run: 0 jobs published, 1 failed: a (oops), ")


def test_what_is_wrong_goes_to_stderr_and_all_else_to_stdout() -> None:
    spoken = speaking()
    spoken.console.text("good")
    spoken.console.note("a", "bad")
    assert (spoken.out, spoken.err) == (["good"], ["a: bad"])


# ---- the summary ----------------------------------------------------------------------------------------------------

PUBLISHED = JobRecord("a", "published")
FAILED = JobRecord("b", "failed", error="silver/b.sql:4: oops")
HELD = JobRecord("c", "held back", error="b failed, and a group publishes whole or not at all")
SUMMARIES: list[tuple[list[JobRecord], EltError | None, str]] = [
    ([], None, "nothing to do"),
    ([PUBLISHED], None, "1 job published"),
    ([PUBLISHED, PUBLISHED], None, "2 jobs published"),
    (
        [PUBLISHED, replace(PUBLISHED, is_unchanged=True), replace(PUBLISHED, is_unchanged=False)],
        None,
        "3 jobs published (1 not exported: unchanged)",
    ),
    ([PUBLISHED, FAILED, HELD], None, "1 job published, 1 failed: b (silver/b.sql:4: oops), 1 held back: c"),
    (
        [FAILED, JobRecord("d", "failed", error="two\nlines"), HELD, JobRecord("e", "held back", error="b")],
        None,
        "0 jobs published, 2 failed: b, d, 2 held back: c, e",
    ),
    ([JobRecord("b", "failed", error="")], None, "0 jobs published, 1 failed: b ()"),
    ([], DatabaseError("cannot connect\n    Is the server up?"), "stopped: cannot connect"),
    ([], Cancelled(15), "stopped by SIGTERM"),
]


@pytest.mark.parametrize(("records", "error", "said"), SUMMARIES)
def test_the_last_line_is_the_summary(records: list[JobRecord], error: EltError | None, said: str) -> None:
    spoken = speaking()
    spoken.console.summary("daily load", records, error)
    is_wrong = error is not None or any(record.status == "failed" for record in records)
    line = (spoken.err if is_wrong else spoken.out)[-1]
    assert re.fullmatch(rf"daily load: {re.escape(said)}, \d+\.\d s", line)
    assert (spoken.out == []) == is_wrong


def test_several_failed_jobs_and_an_error_of_several_lines_stand_whole_before_the_last_line() -> None:
    spoken = speaking()
    spoken.console.summary(
        "run", [FAILED, JobRecord("d", "failed", error="two\n    lines")], DatabaseError("three\n    and\n    four")
    )
    assert spoken.err[:-1] == [
        "b failed: silver/b.sql:4: oops",
        "d failed: two",
        "    lines",
        "error: three",
        "    and",
        "    four",
    ]
    assert "2 failed: b, d, stopped: three" in spoken.err[-1]


def test_one_failed_job_has_its_reason_in_the_last_line_and_no_line_before_it() -> None:
    spoken = speaking()
    spoken.console.summary("run", [PUBLISHED, FAILED, HELD])
    assert len(spoken.err) == 1 and "1 failed: b (silver/b.sql:4: oops), 1 held back: c" in spoken.err[0]


def test_a_value_in_a_message_can_neither_move_the_cursor_nor_break_the_line() -> None:
    spoken = speaking()
    value = 'invalid input: "\x1b[2J\r\x07\x9b1A"\ttab'
    spoken.console.summary("run", [JobRecord("a", "failed", error=value)])
    assert 'a (invalid input: "\\x1b[2J\\x0d\\x07\\x9b1A"\ttab)' in spoken.err[-1]


# ---- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "größe 😀 \\udcff"), ("latin-1", "größe \\U0001f600 \\udcff"), ("ascii", "gr\\xf6\\xdfe")],
)
def test_a_character_that_the_stream_lacks_is_shown_escaped(encoding: str, shown: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(out=stream).text("größe 😀 \udcff")
    assert stream.buffer.getvalue().decode(encoding).startswith(shown)


def test_each_line_is_one_write_so_those_of_several_threads_stay_apart() -> None:
    class Writes(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    Console(out=Writes()).text("a\nb")
    assert [text for text in written if text] == ["a\nb\n"]
