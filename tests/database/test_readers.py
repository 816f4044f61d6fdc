"""Readers during loads: they see one version at a time, never wait, and keep the objects that they created."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event

import pytest
from psycopg2.extensions import connection as Connection

from lib.stop import start_thread
from tests.support.databases import connected, sql
from tests.support.project import Project

LOADS = 6
#: seconds between two reads, to leave CPU for the loads
BREATH = 0.005
#: relations that are published together, with the columns that hold the version
TOGETHER = {
    "bronze.a": ("v",),
    "bronze.b": ("v",),
    "silver.a": ("v",),
    "silver.b": ("v",),
    'gold."both"': ("a", "b"),
    "public.of_a_colleague": ("v",),
}
ALONE = {"bronze.c": ("v",), "silver.c": ("v",)}
GROUPS = {"together": TOGETHER, "alone": ALONE}


def size(version: int) -> int:
    """Number of rows of each table in a version; it differs from one version to the next."""
    return 100 + 10 * (version % 7)


def what_is_read(relation: str, columns: tuple[str, ...]) -> str:
    """A SELECT of the versions in a relation, the number of its rows, and the number of distinct keys."""
    versions = " || ".join(f"array_agg(DISTINCT {column})" for column in columns)
    return f"SELECT '{relation}' AS relation, {versions} AS versions, count(*), count(DISTINCT id) FROM {relation}"


@dataclass
class Reader:
    """A reader who polls with the rights of an analyst. A wait for a lock is an error."""

    project: Project
    role: str
    isolation: str
    finished: Event
    #: whether an undo may bring an older version back
    may_go_back: bool = False
    #: (group, version) for every read; ("together, alone", both versions) for every snapshot
    seen: set[tuple[str, object]] = field(default_factory=set)
    _latest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GROUPS, 0))

    def read_until_finished(self) -> None:
        with closing(connected({**self.project.database.connect_args, "user": self.role})) as connection:
            sql(connection, "SET lock_timeout = '50ms'")
            while not self.finished.wait(BREATH):
                if self.isolation == "REPEATABLE READ":
                    self._read_snapshot(connection)
                else:
                    self._read_statements(connection)

    def _read_snapshot(self, connection: Connection) -> None:
        """Read all relations in one transaction, a statement for each."""
        sql(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        rows = {group: [self._look(connection, *relation) for relation in GROUPS[group].items()] for group in GROUPS}
        sql(connection, "COMMIT")
        self.seen.add(("together, alone", tuple(self._version_of(group, rows[group]) for group in GROUPS)))

    def _read_statements(self, connection: Connection) -> None:
        """Read each relation with its own statement, and all relations of a group with one statement."""
        for group, relations in GROUPS.items():
            for relation in relations.items():
                self._version_of(group, [self._look(connection, *relation)])
            rows = sql(connection, " UNION ALL ".join(what_is_read(*relation) for relation in relations.items()))
            self._version_of(group, rows)

    def _look(self, connection: Connection, relation: str, columns: tuple[str, ...]) -> tuple:
        return sql(connection, what_is_read(relation, columns))[0]

    def _version_of(self, group: str, rows: list[tuple]) -> int:
        """The version of all these rows. It must be one, complete, and not older than the last one read."""
        versions = {version for _, found, *_ in rows for version in found or ["nothing"]}
        assert len(versions) == 1 and "nothing" not in versions, f"{self.isolation}, {group}: {rows}"
        version = int(versions.pop())
        assert {number for _, _, *counts in rows for number in counts} == {size(version)}, f"{self.isolation}: {rows}"
        assert (
            self.may_go_back or version >= self._latest[group]
        ), f"{self.isolation}, {group}: {version} after {self._latest[group]}"
        self._latest[group] = version
        self.seen.add((group, version))
        return version


@pytest.fixture
def role(project: Project) -> Iterator[str]:
    """An analyst, who has only the rights that were granted by hand."""
    name = f"analyst_of_{project.database.name}"
    project.database.sql(f"CREATE ROLE {name} LOGIN")
    yield name
    project.database.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def put_version(project: Project, version: int, *, broken: str = "") -> None:
    """Put this version into every table. `broken`: b breaks a check or a script, so a and b cannot be published."""
    for name in ("a", "b", "c"):
        project.put(name, [(str(number), str(version)) for number in range(1, size(version) + 1)])
    if broken == "check":
        project.put("b", [(str(number), "-1") for number in range(1, size(version) + 1)])
    if broken == "script":
        project.put("b", [(str(number), str(version)) for number in range(2, size(version) + 1)] + [("one", "1")])


def add_what_people_add(project: Project, role: str) -> None:
    project.database.sql(f"""
        CREATE VIEW public.of_a_colleague AS SELECT id, v FROM silver.a;
        CREATE INDEX by_hand ON silver.a (v);
        COMMENT ON TABLE silver.a IS 'Written by hand.';
        COMMENT ON COLUMN silver.a.v IS 'A column, by hand.';
        ALTER TABLE silver.a SET (fillfactor = 70);
        GRANT USAGE ON SCHEMA bronze, silver, gold TO {role};
        GRANT SELECT ON bronze.a, bronze.b, bronze.c, silver.a, silver.b, silver.c, gold."both",
            of_a_colleague TO {role};
        """)


def what_people_added(project: Project) -> list[tuple]:
    return project.database.sql("""
        SELECT
            'silver.a'::regclass::oid,
            'bronze.a'::regclass::oid,
            'gold."both"'::regclass::oid,
            pg_get_viewdef('of_a_colleague'::regclass),
            pg_get_indexdef('silver.by_hand'::regclass),
            obj_description('silver.a'::regclass),
            col_description('silver.a'::regclass, 2),
            (SELECT array_agg(format('%s %s %s', relname, relacl, reloptions) ORDER BY relname)
             FROM pg_class WHERE relname IN ('a', 'b', 'c', 'both', 'of_a_colleague'))
        """)


@contextmanager
def people_reading(project: Project, role: str, *, may_go_back: bool = False) -> Iterator[list[Reader]]:
    """Two readers of each kind, who read until the block ends. An error of a reader fails the test."""
    finished = Event()
    readers = [
        Reader(project, role, isolation, finished, may_go_back)
        for isolation in ("READ COMMITTED", "REPEATABLE READ")
        for _ in "ab"
    ]
    threads = [start_thread(reader.read_until_finished, reader.isolation) for reader in readers]
    try:
        yield readers
    finally:
        finished.set()
        failures = [thread.exception() for thread in threads]
    assert failures == [None] * len(readers)


def test_readers_see_one_published_version_whole_and_never_wait_while_loads_run(project: Project, role: str) -> None:
    read_during(project, role, LOADS)


@pytest.mark.long
def test_readers_see_one_published_version_whole_while_many_loads_run(project: Project, role: str) -> None:
    read_during(project, role, 13 * LOADS)


def read_during(project: Project, role: str, loads: int) -> None:
    """Readers poll while so many loads run, two of six with a failing group."""
    put_version(project, 1)
    assert project.run().exit_code == 0
    add_what_people_add(project, role)
    added = what_people_added(project)
    together = alone = 1
    published = {("together", 1), ("alone", 1), ("together, alone", (1, 1))}
    with people_reading(project, role) as readers:
        for version in range(2, loads + 2):
            broken = {2: "check", 5: "script"}.get(version % 6, "")
            put_version(project, version, broken=broken)
            assert project.run().exit_code == (1 if broken else 0), project.output
            together, alone = together if broken else version, version
            published |= {("together", together), ("alone", alone), ("together, alone", (together, alone))}
    seen = set().union(*(reader.seen for reader in readers))
    assert seen <= published
    assert len(seen) > len(published) / 2, f"the readers were too slow to notice: {seen}"
    assert what_people_added(project) == added


def test_readers_notice_nothing_of_previews(project: Project, role: str) -> None:
    """Also where definitions and columns change. A reader waits for no lock longer than 50 ms, or the test fails."""
    put_version(project, 1)
    assert project.run().exit_code == 0
    add_what_people_add(project, role)
    added = what_people_added(project)
    put_version(project, 2)
    edits = [
        ("gold/both.sql", "b.v AS b FROM", "b.v AS b, 2 AS two FROM"),
        ("silver/c.sql", "DROP", "ALTER TABLE silver.c ADD COLUMN IF NOT EXISTS w text;\nSELECT pg_sleep(0.2);\nDROP"),
        ("silver/a.sql", "DROP", "SELECT elt.add_column('silver.a', 'w', 'text');\nDROP"),
        ("bronze/b.sql", "COMMENT", "SELECT elt.add_column('bronze.b', 'w', 'text');\nCOMMENT"),
    ]
    with people_reading(project, role) as readers:
        for edit in edits:
            if "bronze.b" in edit[2]:
                project.registry["b"]["load"]["optional_columns"] = ["w"]
            project.edit(*edit)
            preview = project.preview()
            assert project.result.exit_code == 0, project.output
            assert {table.relation for table in preview.tables} >= {"silver.a", "silver.b", "silver.c"}
    assert set().union(*(reader.seen for reader in readers)) == {
        ("together", 1),
        ("alone", 1),
        ("together, alone", (1, 1)),
    }
    assert what_people_added(project) == added


def test_readers_see_the_old_version_whole_and_never_wait_while_runs_are_taken_back(
    project: Project, role: str
) -> None:
    put_version(project, 1)
    assert project.run().exit_code == 0
    add_what_people_add(project, role)
    added = what_people_added(project)
    with people_reading(project, role, may_go_back=True) as readers:
        for version in range(2, 6):
            put_version(project, version)
            assert project.run().exit_code == 0, project.output
            if version != 3:  # which is taken back after 4
                project.undo()
        project.undo()
    assert {project.day(f"silver.{name}") for name in "abc"} == {"1"}
    seen = set().union(*(reader.seen for reader in readers))
    assert seen >= {("together", version) for version in (1, 3)}
    assert seen <= {(group, version) for group in GROUPS for version in range(1, 6)} | {
        ("together, alone", (version, version)) for version in range(1, 6)
    }
    assert what_people_added(project) == added
