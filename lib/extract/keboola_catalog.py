"""Types, keys and descriptions of Keboola's tables (docs/keboola.md 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from lib.extract.catalog import ColumnDetail, TableDetail
from lib.extract.http import parse_moment
from lib.extract.keboola import KeboolaExtractor, list_in, object_in

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
    """Raises ExtractError for a detail in which something is not what Keboola documents."""
    subject = f"table {detail.get('id')}"
    origin = object_in(detail, "sourceTable", subject)
    definitions = list_in(object_in(detail, "definition", subject), "columns", dict, subject)
    native = {str(each.get("name")): each for each in definitions if detail.get("isTyped")}
    hints = [object_in(each, "columnMetadata", subject) for each in (detail, origin)]
    columns = []
    for name in list_in(detail, "columns", str, subject):
        said = [list_in(hint, name, dict, subject) for hint in hints]
        own = native.get(name, {})
        base = str(own.get("basetype") or _first(said, "KBC.datatype.basetype")).upper()
        description = object_in(own, "definition", subject).get("description") or _first(said, "KBC.description")
        columns.append(ColumnDetail(name, TYPES.get(base, "text"), str(description)))
    metadata = [list_in(each, "metadata", dict, subject) for each in (detail, origin)]
    rows = detail.get("rowsCount")
    return TableDetail(
        str(detail.get("id")),
        tuple(columns),
        tuple(list_in(detail, "primaryKey", str, subject)),
        _first(metadata, "KBC.description"),
        rows if isinstance(rows, int) else None,
        parse_moment(detail.get("lastImportDate")),
    )


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
