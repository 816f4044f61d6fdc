"""Types, keys and descriptions of Keboola's tables (docs/keboola.md 2, 13.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from lib.extract.catalog import ColumnDetail, TableDetail
from lib.extract.http import parse_time
from lib.extract.keboola import KeboolaExtractor

#: Keboola's base types, and ours
TYPES = {
    "INTEGER": "integer",
    "NUMERIC": "number",
    "FLOAT": "number",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
}
#: who set a value, the most trusted first: people know more than components
PROVIDERS = ("user", "ai-metadata-enrichment", "keboola.snowflake-transformation", "storage")


class KeboolaCatalog:
    """Implements `lib.extract.catalog.Catalog`."""

    def __init__(self, extractor: KeboolaExtractor) -> None:
        self._extractor = extractor

    def tables(self) -> list[TableDetail]:
        # an empty include leaves out columns and metadata, which the list does not show
        listed = self._extractor.get_list("tables?include=", "the list of tables")
        return [_table(detail) for detail in listed]

    def detail(self, table_id: str) -> TableDetail:
        return _table(self._extractor.get(f"tables/{quote(table_id, safe='')}", f"table {table_id}", table_id))


def _table(detail: Mapping[str, Any]) -> TableDetail:
    origin = detail.get("sourceTable") if isinstance(detail.get("sourceTable"), dict) else {}
    native = {each["name"]: each for each in _list((detail.get("definition") or {}).get("columns")) if "name" in each}
    hints = [_of(detail, "columnMetadata"), _of(origin or {}, "columnMetadata")]
    columns = []
    for name in _list(detail.get("columns")):
        said = [hint.get(name) or () for hint in hints]
        own = native.get(name, {}) if detail.get("isTyped") else {}
        base = str(own.get("basetype") or _first(said, "KBC.datatype.basetype")).upper()
        description = (own.get("definition") or {}).get("description") or _first(said, "KBC.description")
        columns.append(ColumnDetail(str(name), TYPES.get(base, "text"), str(description)))
    imported = parse_time(detail.get("lastImportDate"))
    rows = detail.get("rowsCount")
    return TableDetail(
        str(detail.get("id")),
        tuple(columns),
        tuple(map(str, _list(detail.get("primaryKey")))),
        _first([_list(detail.get("metadata")), _list((origin or {}).get("metadata"))], "KBC.description"),
        rows if isinstance(rows, int) else None,
        None if imported is None else datetime.fromtimestamp(imported, UTC),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _of(detail: Mapping[str, Any], key: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Metadata by column; an empty one is a list (docs/keboola.md 2.2)."""
    found = detail.get(key)
    return found if isinstance(found, dict) else {}


def _first(lists: Sequence[Sequence[Mapping[str, Any]]], key: str) -> str:
    """The value of a key: the first list that has it counts, and in it the most trusted provider."""
    for entries in lists:
        found = [entry for entry in entries if entry.get("key") == key and entry.get("value")]
        if found:
            best = min(
                found,
                key=lambda entry: (
                    PROVIDERS.index(entry["provider"]) if entry.get("provider") in PROVIDERS else len(PROVIDERS)
                ),
            )
            return str(best["value"])
    return ""
