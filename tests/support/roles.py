"""Roles that can log in, made for one test: a stranger, and the pipeline's role as it should be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.databases import EmptyDatabase, sql_once


class Role:
    """A role that can log in, made for one test."""

    def __init__(self, database: EmptyDatabase, name: str, options: str = "") -> None:
        self.database = database
        self.name = f"{database.name}_{name}"
        database.sql(f"CREATE ROLE {self.name} LOGIN {options}")
        self.connect_args = database.connect_args | {"user": self.name}

    def sql(self, text: str) -> list[tuple]:
        """Run statements as this role."""
        return sql_once(self.connect_args, text)

    def drop(self) -> None:
        self.database.sql(f"DROP OWNED BY {self.name} CASCADE")
        self.database.sql(f"DROP ROLE {self.name}")


@pytest.fixture
def mallory(database: EmptyDatabase) -> Iterator[Role]:
    """A stranger."""
    role = Role(database, "mallory")
    yield role
    role.drop()


@pytest.fixture
def elt(database: EmptyDatabase) -> Iterator[Role]:
    """The pipeline's role, as it should be: no superuser."""
    role = Role(database, "elt")
    database.sql(f"GRANT CREATE ON DATABASE {database.name} TO {role.name}")
    yield role
    role.drop()
