"""A small project for tests of whole runs: its own folder, the sandbox as Keboola, a fresh database.

Two groups: a and b, joined by `both`; and c. Every table has columns id and v, which are typed in silver.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from lib.cli.console import Console
from lib.cli.preview import show_preview
from lib.config.secret_value import Secret
from lib.config.settings import Settings
from lib.postgres.connection import Database
from lib.postgres.embedded.server import Server
from lib.run import history
from lib.run.plan import make_plan, read_project
from lib.run.preview import Preview
from lib.run.runner import LockRetry, Options, Run, RunResult
from lib.run.undo import Undo, Undone
from lib.stop import StopSignal
from sandbox.keboola_server import KeboolaServer
from tests.support.databases import EmptyDatabase, fresh_database

#: short, so that no test waits long for a lock; deadlock_timeout is 1 s
IMPATIENT = LockRetry(lock_timeout=0.2, tries=2, pause=0.0, definition_pause=0.0, definition_seconds=0.0)

BRONZE = """
CREATE TABLE IF NOT EXISTS bronze.{name} (id text, v text);
COMMENT ON TABLE bronze.{name} IS 'As received.';
"""
SILVER = """
CREATE TABLE IF NOT EXISTS silver.{name} (id integer PRIMARY KEY, v text);
DROP TABLE IF EXISTS pg_temp.{name}_now;
CREATE TEMP TABLE {name}_now AS SELECT id::integer AS id, v FROM bronze.{name};
SELECT * FROM elt.publish_rows('silver.{name}', '{name}_now');
"""
GOLD = """
CREATE OR REPLACE VIEW gold.both AS
SELECT a.id, a.v AS a, b.v AS b FROM silver.a AS a FULL JOIN silver.b AS b USING (id);
COMMENT ON VIEW gold.both IS 'a and b side by side.';
"""
CHECK = "SELECT id, a, b FROM gold.both WHERE a IS DISTINCT FROM b ORDER BY id;"


def loading(name: str) -> dict[str, object]:
    """A registry entry that loads one table."""
    return {
        "extract": {"keboola_table": f"in.c-main.{name}"},
        "load": {"table": f"bronze.{name}"},
        "transform": [f"bronze/{name}.sql", f"silver/{name}.sql"],
    }


class Project:
    """A project for a test: change files, put tables, run, read rows."""

    def __init__(self, root: Path, database: EmptyDatabase, keboola: KeboolaServer) -> None:
        self.root = root
        self.database = database
        #: how runs connect; a test may change the role, or use a proxy
        self.connect_args = dict(database.connect_args)
        self.keboola = keboola
        self.settings = Settings(root=root, keboola_url=keboola.url, keboola_token=Secret(keboola.token), parallel=2)
        self.registry: dict[str, object] = {
            "a": loading("a"),
            "b": loading("b"),
            "both": {"depends_on": ["a", "b"], "transform": ["gold/both.sql"], "checks": ["checks/same.sql"]},
            "c": loading("c"),
        }
        for name in ("a", "b", "c"):
            self.script(f"bronze/{name}.sql", BRONZE.format(name=name))
            self.script(f"silver/{name}.sql", SILVER.format(name=name))
        self.script("gold/both.sql", GOLD)
        self.script("checks/same.sql", CHECK)
        self.output = ""

    def script(self, path: str, text: str) -> None:
        """Write one SQL script."""
        file = self.root / "sql_scripts" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in one SQL script."""
        file = self.root / "sql_scripts" / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def put(self, name: str, rows: Iterable[Sequence[str | None]], columns: Sequence[str] = ("id", "v"), **how) -> None:
        """Give Keboola's table in.c-main.<name> these rows."""
        self.keboola.put_table(f"in.c-main.{name}", columns=list(columns), rows=list(rows), **how)

    def put_day(self, day: str, count: int = 10) -> None:
        """Put this day into every table: rows 1..count, v = day."""
        for name in ("a", "b", "c"):
            self.put(name, [(str(number), day) for number in range(1, count + 1)])

    def write_registry(self) -> None:
        (self.root / "elt_jobs.json").write_text(json.dumps(self.registry, indent=2))

    def run(self, *names: str, stop: StopSignal | None = None, **options) -> RunResult:
        """Run in this process; `output` keeps what was printed."""
        self.write_registry()
        plan = make_plan(read_project(self.root), names)
        stream = io.StringIO()
        console = Console(out=stream, err=stream)
        limits = {"lock_timeout": options.pop("patience", 5.0), "keep_alive": options.pop("keep_alive", 2.0)}
        opened = Database(self.settings, stop or StopSignal(), self.connect_args, **limits)
        options.setdefault("lock_retry", IMPATIENT)
        environ = os.environ | self.keboola.store_environment
        now = options.pop("now", datetime.now)
        result = Run(plan, self.settings, opened, console, Options(**options), environ, now).run()
        if preview := options.get("preview"):
            show_preview(console, preview)
        console.summary("run", result.records, result.error, result.unchanged_since)
        self.output = stream.getvalue()
        return result

    def undo(self, *leave: str, run_id: int | None = None, lock_timeout: float = 5.0) -> Undone:
        """Take back the last change, or this run, in this process. leave: tables to leave as they are."""
        self.write_registry()
        target = run_id or history.last_change(self.database.connect())
        assert target is not None, "nothing to take back"
        opened = Database(self.settings, StopSignal(), self.connect_args)
        return Undo(self.settings, opened, read_project(self.root), target, leave, lock_timeout).run()

    def preview(self, *names: str, **options) -> Preview:
        """Preview in this process. `result` keeps how it ended, `output` what was printed."""
        preview = Preview(limit=options.pop("limit", 100), compare_all=options.pop("compare_all", False))
        self.result = self.run(*names, preview=preview, **options)
        return preview

    def rows(self, relation: str) -> list[tuple]:
        """The rows that a reader sees, sorted."""
        return self.database.sql(f"SELECT * FROM {relation} ORDER BY 1")

    def day(self, relation: str) -> str:
        """The day of a relation; fails if it holds several."""
        ((days,),) = self.database.sql(f"SELECT array_agg(DISTINCT v ORDER BY v) FROM {relation}")
        assert days is not None and len(days) == 1, f"{relation} holds {days}"
        return days[0]

    @property
    def last_line(self) -> str:
        return self.output.splitlines()[-1]


class Calendar:
    """A clock that moves one second at each reading, so two versions of a table never have the same time."""

    def __init__(self) -> None:
        self._now = itertools.count(1_767_225_600)

    def __call__(self) -> float:
        return next(self._now)


@pytest.fixture
def project(database: EmptyDatabase, tmp_path: Path) -> Iterator[Project]:
    """A project with an empty database; tables are put by the test."""
    with KeboolaServer(polls=0, clock=Calendar()) as keboola:
        yield Project(tmp_path, database, keboola)


@pytest.fixture(scope="session")
def loaded_on_monday(main_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a loaded database to copy, because that is ten times faster than a load."""
    with fresh_database(main_server) as database, KeboolaServer(polls=0, clock=Calendar()) as keboola:
        project = Project(tmp_path_factory.mktemp("monday"), database, keboola)
        project.put_day("monday")
        assert project.run().exit_code == 0, project.output
        yield database.name


@pytest.fixture
def monday(main_server: Server, loaded_on_monday: str, tmp_path: Path) -> Iterator[Project]:
    """A project that was loaded on monday; tuesday's rows are in Keboola."""
    # the calendar starts as for that load, so Keboola's tables count as already loaded
    with (
        fresh_database(main_server, loaded_on_monday) as database,
        KeboolaServer(polls=0, clock=Calendar()) as keboola,
    ):
        project = Project(tmp_path, database, keboola)
        project.put_day("monday")
        project.put_day("tuesday")
        yield project


def assert_it_is_still_monday(project: Project) -> None:
    days = {project.day(f"{layer}.{name}") for layer in ("bronze", "silver") for name in ("a", "b", "c")}
    assert days == {"monday"}


def newest_run(project: Project) -> tuple:
    ((status, error),) = project.database.sql("SELECT status, error FROM elt.runs ORDER BY run_id DESC LIMIT 1")
    return status, error
