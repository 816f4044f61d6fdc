"""The columns of a bronze table are a contract: only these columns are exported, staged and loaded.

This module decides which columns an export must fill, and which source column fills which bronze column.
Columns that PostgreSQL fills itself (DEFAULT, identity, generated) do not belong to the contract.
`guards` decides whether a missing column stops the load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lib.config.jobs import Load
from lib.errors import LoadError
from lib.extract import SourceTable
from lib.postgres.connection import Connection, query
from lib.postgres.driver_errors import translated


@dataclass(frozen=True)
class Contract:
    """What an export must fill in one bronze table."""

    table: str
    #: in the table's order
    columns: tuple[str, ...]
    #: columns that PostgreSQL fills itself (DEFAULT, identity, generated); nothing is loaded into them
    self_filling: frozenset[str]
    #: columns that the bronze script names and the table does not have yet
    not_yet_made: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class Match:
    """The result of comparing a contract with a source table."""

    #: bronze column -> source column, in the source's order; an export has the same order
    found: Mapping[str, str]
    #: bronze columns that the source lacks
    missing: tuple[str, ...]
    #: source columns that no bronze column takes, in the source's order
    unused: tuple[str, ...]
    #: those of the missing ones that the table itself does not have yet
    not_yet_made: frozenset[str] = frozenset()


def landing_name(column: str) -> str:
    """A source column's name in bronze: in lower case, with every character except a-z, 0-9 and _ replaced by _."""
    return re.sub(r"[^a-z0-9_]", "_", column.lower())


def may_be_column(name: str) -> bool:
    """Whether PostgreSQL accepts this column name without cutting it.

    PostgreSQL: "Identifiers and Key Words", "System Columns".
    """
    return 0 < len(name.encode()) < 64 and name not in ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


def match(contract: Contract, source: SourceTable) -> Match:
    """Find the source's column for each column of the contract, by its landing name.

    Raises LoadError if two source columns have the same landing name and the contract needs that name. For names that
    the contract does not need, this is no problem.
    """
    landed: dict[str, list[str]] = {}
    for column in source.columns:
        landed.setdefault(landing_name(column), []).append(column)
    for name in contract.columns:
        if len(landed.get(name, ())) > 1:
            both = " and ".join(map(repr, landed[name]))
            raise LoadError(
                f"{source.id}: columns {both} would both land as {name!r} in {contract.table}; rename one in the source"
            )
    wanted = {landed[name][0]: name for name in contract.columns if name in landed}
    found = {wanted[column]: column for column in source.columns if column in wanted}
    return Match(
        found,
        tuple(name for name in contract.columns if name not in found),
        tuple(column for column in source.columns if column not in wanted),
        contract.not_yet_made,
    )


def read_contract(connection: Connection, load: Load) -> Contract:
    """The contract as the database has it now.

    Raises LoadError if the table does not exist, cannot be loaded, or lacks a column that optional_columns names.
    """
    with translated(f"cannot look at {load.table}", LoadError):
        columns = query(
            connection,
            "SELECT attname, atthasdef OR attidentity <> '', relkind IN ('r', 'p')"
            " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f'"{load.schema}"."{load.name}"',),
        )
    if not columns:
        raise LoadError(f"{load.table} does not exist: create it in {load.script}, and name that script in `transform`")
    if not columns[0][2]:
        raise LoadError(f"{load.table} is not a table: rows can only be loaded into a table")
    contract = Contract(
        load.table,
        tuple(name for name, fills_itself, _ in columns if not fills_itself),
        frozenset(name for name, fills_itself, _ in columns if fills_itself),
    )
    if not contract.columns:
        raise LoadError(f"{load.table} has no column to load: each has a DEFAULT, or is an identity or generated one")
    if unknown := [name for name in load.optional_columns if name not in {name for name, *_ in columns}]:
        raise LoadError(
            f"{load.table} has no column {unknown[0]!r}, which optional_columns names; correct elt_jobs.json"
        )
    return contract


def columns_of(connection: Connection, load: Load) -> frozenset[str]:
    """The columns that the table has now; none where there is no table."""
    rows = query(
        connection,
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (f'"{load.schema}"."{load.name}"',),
    )
    return frozenset(name for (name,) in rows)
