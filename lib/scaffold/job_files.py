"""The scripts and the registry entry of a new job, from what its source says of the table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lib.config.spelling import did_you_mean
from lib.errors import SettingsError
from lib.extract.catalog import ColumnDetail, TableDetail
from lib.load.contract import landing_name, may_be_column

#: PostgreSQL: "SQL Key Words", those that are reserved, or reserved for functions and types
_WORDS = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true union
    unique user using variadic verbose when where window with
"""
RESERVED = frozenset(_WORDS.split())
#: PostgreSQL: "Limits". Silver's script adds two columns to those of the source.
MOST_COLUMNS = 1600 - 2
MOST_KEYS = 32
#: for each type of a source: the type in silver, and the expression that reads a text
READERS = {
    "text": ("text", "elt.to_text({})"),
    "integer": ("bigint", "elt.to_integer({})"),
    "number": ("numeric", "elt.to_number({})"),
    "boolean": (
        "boolean",
        "CASE\n    WHEN lower(elt.to_text({0})) IN ('true', '1') THEN true\n"
        "    WHEN lower(elt.to_text({0})) IN ('false', '0') THEN false\nEND",
    ),
    "date": ("date", "elt.to_date({})"),
    "timestamp": ("timestamptz", "elt.to_timestamp({})"),
}


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    #: the job's name; also that of its tables
    name: str
    #: empty: all columns of the source
    columns: tuple[str, ...] = ()
    #: column in silver, by column of the source
    rename: Mapping[str, str] = field(default_factory=dict)
    #: columns of the source that identify a row; empty: its primary key
    key: tuple[str, ...] = ()
    gold: bool = False
    bronze_only: bool = False


@dataclass(frozen=True)
class NewJob:
    """What is to be written."""

    name: str
    #: text, by path below sql_scripts
    scripts: Mapping[str, str]
    entry: Mapping[str, object]
    #: what the user should know, such as why there is no silver table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Column:
    source: ColumnDetail
    #: names in bronze and silver
    bronze: str
    silver: str
    is_key: bool

    @property
    def type(self) -> str:
        """A key stays text: then two keys that are different in the source are different here."""
        return "text" if self.is_key else READERS[self.source.type][0]

    @property
    def reader(self) -> str:
        return "elt.to_key({})" if self.is_key else READERS[self.source.type][1]


def new_job(table: TableDetail, wish: Wish) -> NewJob:
    """The files of a job that loads this table. Raises SettingsError if the wish does not fit the table."""
    table = replace(table, primary_key=wish.key or table.primary_key)
    columns, notes = _columns(table, wish)
    scripts = {f"bronze/{wish.name}.sql": _bronze(table, wish, columns)}
    checks: list[object] = []
    why = _why_no_silver(table, columns)
    if why and not wish.bronze_only:
        unused = [option for option, given in (("--gold", wish.gold), ("--rename", wish.rename)) if given]
        notes.append(
            f"only bronze is made, because {why}. Write sql_scripts/silver/{wish.name}.sql with a primary key that"
            ' identifies a row: docs/operations.md, "Write scripts". Or, if some columns identify a row, remove the job'
            " and add it again with --key A,B"
        )
        if unused:
            notes.append(f"{' and '.join(unused)} had no effect: there is no silver table")
    elif not wish.bronze_only:
        if wish.name == "rejected_values":
            raise SettingsError("silver.rejected_values holds the values that jobs cannot read: use another --name")
        check = f"checks/{wish.name}_values_were_read.sql"
        scripts[f"silver/{wish.name}.sql"] = _silver(table, wish, columns)
        if wish.gold:
            scripts[f"gold/{wish.name}.sql"] = _gold(table, wish, columns)
        scripts[check] = _check(wish)
        checks = [{"script": check, "on_failure": "warn"}]
    entry: dict[str, object] = {
        "extract": {"keboola_table": table.id},
        "load": {"table": f"bronze.{wish.name}"},
        "transform": [path for path in scripts if not path.startswith("checks/")],
    }
    return NewJob(wish.name, scripts, entry | ({"checks": checks} if checks else {}), tuple(notes))


def _columns(table: TableDetail, wish: Wish) -> tuple[list[_Column], list[str]]:
    """The columns to load, in the source's order, and notes about those that are left out."""
    _check_options(table, wish)
    notes: list[str] = []
    landed: dict[str, list[ColumnDetail]] = {}
    for column in table.columns:
        if not wish.columns or column.name in wish.columns:
            landed.setdefault(landing_name(column.name), []).append(column)
    columns: list[_Column] = []
    for bronze, sources in landed.items():
        names = " and ".join(repr(source.name) for source in sources)
        if len(sources) > 1:
            notes.append(f"{names} are left out: both would be {bronze!r} here. Choose one with --columns")
        elif not may_be_column(bronze):
            notes.append(f"{names} is left out: PostgreSQL does not take this name. Rename it in the source")
        else:
            source = sources[0]
            silver = wish.rename.get(source.name, bronze)
            columns.append(_Column(source, bronze, silver, source.name in table.primary_key))
    if not columns:
        raise SettingsError(f"{table.id} has no column that can be loaded")
    if len(columns) > MOST_COLUMNS:
        raise SettingsError(
            f"{table.id} has {len(columns):,} columns; a job can load {MOST_COLUMNS:,}. Choose them with --columns"
        )
    _check_names(wish, [column.silver for column in columns])
    return columns, notes


def _check_options(table: TableDetail, wish: Wish) -> None:
    known = [column.name for column in table.columns]
    for option, names in (("--columns", wish.columns), ("--rename", wish.rename), ("--key", wish.key)):
        for name in names:
            if name not in known:
                raise SettingsError(f"{table.id} has no column {name!r}{did_you_mean(name, known)}")
            if wish.columns and name not in wish.columns:
                raise SettingsError(f"{option} names {name!r}, and --columns does not")


def _check_names(wish: Wish, names: Sequence[str]) -> None:
    for name in wish.rename.values():
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or not may_be_column(name):
            raise SettingsError(f"--rename: {name!r} is no name for a column: write it as [a-z_][a-z0-9_]*")
        if names.count(name) > 1:
            raise SettingsError(f"--rename: two columns would be called {name!r}")


def _why_no_silver(table: TableDetail, columns: Sequence[_Column]) -> str:
    if not table.primary_key:
        return f"{table.id} has no primary key"
    if lost := [
        name for name in table.primary_key if name not in [each.source.name for each in columns if each.is_key]
    ]:
        return f"column {lost[0]!r} of its primary key is left out"
    if len(table.primary_key) > MOST_KEYS:
        return f"its primary key has {len(table.primary_key)} columns, and PostgreSQL takes {MOST_KEYS}"
    return ""


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in RESERVED else f'"{name}"'


def _literal(text: str) -> str:
    """Text as a literal on one line, without characters that PostgreSQL does not store."""
    return "'" + _comment(text).replace("'", "''") + "'"


def _comment(text: str) -> str:
    """Text for a SQL comment: one line."""
    return " ".join(text.replace("\0", " ").split())


def _comments(wish: Wish, layer: str, table: str, columns: Sequence[tuple[str, str]]) -> str:
    kind = "VIEW" if layer == "gold" else "TABLE"
    relation = f"{layer}.{_quoted(wish.name)}"
    lines = [f"COMMENT ON {kind} {relation} IS {_literal(table)};"]
    lines += [f"COMMENT ON COLUMN {relation}.{_quoted(name)} IS {_literal(text)};" for name, text in columns]
    return "\n".join(lines) + "\n"


def _described(column: _Column, table: TableDetail) -> str:
    return column.source.description or f"Column {column.source.name} of {table.id}."


def _indented(lines: Sequence[str]) -> str:
    return textwrap.indent(",\n".join(lines), "    ")


def _bronze(table: TableDetail, wish: Wish, columns: Sequence[_Column]) -> str:
    relation = f"bronze.{_quoted(wish.name)}"
    comments = _comments(
        wish,
        "bronze",
        f"{table.description or table.id}: as received from {table.id}, all text, no key, no order.",
        [(column.bronze, _described(column, table)) for column in columns],
    )
    return (
        f"-- {relation}: {_comment(table.id)} as received.  Only these columns are exported.\n\n"
        f"CREATE TABLE IF NOT EXISTS {relation} (\n"
        f"{_indented([f'{_quoted(column.bronze)} text' for column in columns])}\n);\n\n{comments}"
    )


REJECTED = """CREATE TABLE IF NOT EXISTS silver.rejected_values (
    table_name  text   NOT NULL,
    row_key     text   NOT NULL,
    column_name text   NOT NULL,
    occurrence  bigint NOT NULL,
    value       text,
    PRIMARY KEY (table_name, row_key, column_name, occurrence)
);

COMMENT ON TABLE silver.rejected_values IS
    'One row per value of a source that silver could not read, and per row that it leaves out.';
COMMENT ON COLUMN silver.rejected_values.table_name IS 'Silver table that lacks the value.';
COMMENT ON COLUMN silver.rejected_values.row_key IS 'Key of the row, as received; the first 200 characters.';
COMMENT ON COLUMN silver.rejected_values.column_name IS 'Column of the silver table; * for a whole row.';
COMMENT ON COLUMN silver.rejected_values.occurrence IS 'Number from 1: tells values apart that share all of this.';
COMMENT ON COLUMN silver.rejected_values.value IS 'Value as received; for a whole row the row as text.';
"""


def _silver(table: TableDetail, wish: Wish, columns: Sequence[_Column]) -> str:
    keys = [column for column in columns if column.is_key]
    key_list = ", ".join(_quoted(column.silver) for column in keys)
    taken = {name for column in columns for name in (column.bronze, column.silver)}
    row, rank = _free("source_row", taken), _free("key_rank", taken)
    name = wish.name
    relation, temporary = f"silver.{_quoted(name)}", {
        word: _quoted(f"{name[:50]}_{word}") for word in ("read", "now", "bad")
    }
    definitions = [
        f"{_quoted(column.silver)} {column.type}{' NOT NULL' if column.is_key else ''}" for column in columns
    ]
    read = [
        f"{column.reader.format(f'{row}.{_quoted(column.bronze)}')} AS {_quoted(column.silver)}" for column in columns
    ]
    received = ", ".join(f"({row}).{_quoted(column.bronze)}" for column in keys)
    checked = [column for column in columns if column.type != "text"]
    values = [
        f"({_literal(column.silver)}, ({row}).{_quoted(column.bronze)}, {_quoted(column.silver)} IS NULL)"
        for column in checked
    ]
    unread = (
        f"""    SELECT concat_ws(' / ', {received}) AS row_key, checked.column_name, checked.value
    FROM {temporary["read"]}
    CROSS JOIN LATERAL (
        VALUES
{textwrap.indent(_indented(values), "        ")}
    ) AS checked (column_name, value, is_unread)
    WHERE {rank} = 1 AND checked.is_unread AND elt.to_text(checked.value) IS NOT NULL

    UNION ALL
"""
        if values
        else ""
    )
    comments = _comments(
        wish,
        "silver",
        f"{table.description or f'Rows of {table.id}'}. One row per {', '.join(column.silver for column in keys)}.",
        [(column.silver, _described(column, table)) for column in columns],
    )
    return f"""-- {relation}: one row per {key_list}.  Reads bronze.{_quoted(name)}.
-- A value that cannot be read is NULL and listed in silver.rejected_values, and so is a row without a usable key.

CREATE TABLE IF NOT EXISTS {relation} (
{_indented([*definitions, f"PRIMARY KEY ({key_list})"])}
);

{comments}
{REJECTED}
DROP TABLE IF EXISTS pg_temp.{temporary["read"]};
CREATE TEMP TABLE {temporary["read"]} AS
SELECT
{_indented(read)},
    row_number() OVER (
        PARTITION BY {", ".join(column.reader.format(f"{row}.{_quoted(column.bronze)}") for column in keys)}
        ORDER BY {row}::text COLLATE "C"
    ) AS {rank},
    {row}
FROM bronze.{_quoted(name)} AS {row};

DROP TABLE IF EXISTS pg_temp.{temporary["now"]};
CREATE TEMP TABLE {temporary["now"]} AS
SELECT
{_indented([_quoted(column.silver) for column in columns])}
FROM {temporary["read"]}
WHERE {rank} = 1 AND num_nulls({key_list}) = 0;

SELECT * FROM elt.publish_rows('{relation}', '{temporary["now"]}');

DROP TABLE IF EXISTS pg_temp.{temporary["bad"]};
CREATE TEMP TABLE {temporary["bad"]} AS
SELECT
    '{_plain(wish)}' AS table_name,
    left(row_key, 200) AS row_key,
    column_name,
    row_number() OVER (
        PARTITION BY left(row_key, 200), column_name ORDER BY value COLLATE "C"
    ) AS occurrence,
    value
FROM (
{unread}    SELECT coalesce(concat_ws(' / ', {received}), ''), '*', ({row})::text
    FROM {temporary["read"]}
    WHERE {rank} > 1 OR num_nulls({key_list}) > 0
) AS rejected (row_key, column_name, value);

SELECT *
FROM elt.publish_rows('silver.rejected_values', '{temporary["bad"]}', $$table_name = '{_plain(wish)}'$$);
"""


def _plain(wish: Wish) -> str:
    return f"silver.{wish.name}"


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _gold(table: TableDetail, wish: Wish, columns: Sequence[_Column]) -> str:
    comments = _comments(
        wish,
        "gold",
        f"{table.description or f'Rows of {table.id}'}. All columns of silver.{wish.name}.",
        [(column.silver, _described(column, table)) for column in columns],
    )
    return (
        f"-- gold.{_quoted(wish.name)}: the rows of silver.{_quoted(wish.name)}.\n\n"
        f"CREATE OR REPLACE VIEW gold.{_quoted(wish.name)} AS\nSELECT\n"
        f"{_indented([_quoted(column.silver) for column in columns])}\nFROM silver.{_quoted(wish.name)};\n\n{comments}"
    )


def _check(wish: Wish) -> str:
    return f"""-- Claim: every value of silver.{wish.name} was read.
-- What to do: correct the value in the source, or let silver/{wish.name}.sql read it.

SELECT row_key, column_name, value
FROM silver.rejected_values
WHERE table_name = '{_plain(wish)}'
ORDER BY row_key, column_name, occurrence;
"""
