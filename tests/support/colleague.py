"""A colleague who holds a lock for a long time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lib.postgres.connection import Connection
from tests.support.databases import sql
from tests.support.project import Project


@dataclass
class Colleague:
    """A session that locks a relation and keeps the lock."""

    connection: Connection
    pid: int

    def come_back(self) -> None:
        self.connection.rollback()


@contextmanager
def somebody_holding(project: Project, relation: str, mode: str) -> Iterator[Colleague]:
    connection = project.database.connect()
    connection.autocommit = False
    sql(connection, f"SET application_name = 'a long lunch'; LOCK TABLE {relation} IN {mode} MODE")
    yield Colleague(connection, connection.info.backend_pid)
    connection.close()
