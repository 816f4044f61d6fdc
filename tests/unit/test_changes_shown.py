"""How changes are printed: within 80 columns, each value told apart, nothing that a terminal obeys."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lib.cli.changes import as_json, literal, show_changes
from lib.cli.console import Console
from lib.run.read_changes import ChangingRun, RowChange, TableChanges


def changed(*rows: RowChange, **more: object) -> TableChanges:
    counts = {f"{operation}": 0 for operation in ("inserted", "updated", "deleted")}
    for row in rows:
        counts[row.operation] += 1
    about: dict[str, object] = {
        "by_other_statements": 0, "is_kept": True, "first_filling": False, "views": (), "rows": rows,
    }  # fmt: skip
    return TableChanges("silver.stock", **counts | about | more)


def updated(key: Mapping[str, object], before: Mapping[str, object], after: Mapping[str, object]) -> RowChange:
    return RowChange("updated", key, {**key, **before}, {**key, **after})


def shown(*tables: TableChanges) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    show_changes(Console(out=stream), tables)
    return stream.buffer.getvalue().decode().split("\n")[:-1]


def test_an_update_shows_its_key_and_only_what_differs_and_numbers_line_up() -> None:
    assert shown(
        changed(
            updated(
                {"sku": "A", "place": 1}, {"n": 9, "same": "x", "off": False}, {"n": 1000, "same": "x", "off": True}
            ),
            updated({"sku": "B", "place": 2}, {"n": Decimal("100.50"), "on_hand": 1}, {"n": 7, "on_hand": 20}),
            updated=1234,
            views=("gold.a", "gold.b"),
        )
    ) == [
        "silver.stock: 0 inserted, 1,234 updated, 0 deleted",
        "  read in gold by a, b",
        "  updated   sku 'A', place 1",
        "              n             9 -> 1000",
        "              off      false  -> true",
        "  updated   sku 'B', place 2",
        "              n        100.50 ->    7",
        "              on_hand       1 ->   20",
        "  and 1,232 more",
    ]


def test_a_row_that_came_or_went_shows_its_values_the_key_first_and_a_bronze_row_has_none() -> None:
    assert shown(
        changed(
            RowChange("inserted", {"sku": "A"}, None, {"name": "x", "sku": "A", "n": None}),
            RowChange("deleted", None, {"sku": "B", "name": ""}, None),
        )
    )[1:] == ["  inserted  sku 'A', name 'x', n NULL", "  deleted   sku 'B', name ''"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"), ("NULL", "'NULL'"), ("", "''"), (" ", "' '"), ("5", "'5'"), (5, "5"), (True, "true"),
        ("true", "'true'"), (Decimal("1.50"), "1.50"), (Decimal("1e3"), "1000"), ("it's", "'it''s'"),
        ("a\nb", r"E'a\nb'"), ("a\\nb", r"'a\nb'"), ("a\\\n", r"E'a\\\n'"), ("\x1b[2J", r"E'\x1b[2J'"),
        ("S1\xa0", r"E'S1\xa0'"), ("\u202eabc", r"E'\u202eabc'"), ("Plzeň 🌵", "'Plzeň 🌵'"),
        ({"a": [1, None]}, """'{"a": [1, null]}'"""),
    ],
)  # fmt: skip
def test_each_value_is_told_apart(value: object, text: str) -> None:
    assert literal(value) == text


def test_where_long_values_differ_is_seen() -> None:
    document = "x" * 5_000
    _, _, line = shown(
        changed(updated({"id": 1}, {"v": f"{document}old{document}"}, {"v": f"{document}new{document}"}))
    )
    before, after = line.split(" -> ")
    assert "old" in before and "new" in after and cell_len(line) <= 80


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.decimals(allow_nan=False, allow_infinity=False), st.text(),
    st.text(min_size=60), st.text("漢字🌵 ", min_size=20), st.lists(st.text()),
)  # fmt: skip
ROWS = st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=6)


@settings(max_examples=15)
@given(st.lists(st.tuples(ROWS, ROWS, ROWS), max_size=3), st.lists(st.text(), max_size=3))
def test_whatever_a_table_holds_80_columns_suffice_and_nothing_harms_a_terminal(
    rows: list[tuple[dict, dict, dict]], views: list[str]
) -> None:
    table = changed(
        *(
            row
            for key, before, after in rows
            for row in (updated(key, before, after), RowChange("deleted", None, before, None))
        ),
        views=tuple(views),
    )
    for line in shown(table):
        assert cell_len(line) <= 80, line
        assert line.isprintable(), line


def test_tables_without_rows_say_why_once_for_all_of_them() -> None:
    first = changed(inserted=5, is_kept=False, first_filling=True)
    old, hidden = changed(updated=7, is_kept=False), changed(updated=8, may_read=False)
    others = changed(by_other_statements=3)
    assert shown(first, first, old, hidden, others) == [
        "table         inserted  updated  deleted",
        "------------  --------  -------  -------",
        "silver.stock         5        0        0",
        "silver.stock         5        0        0",
        "silver.stock         0        7        0",
        "silver.stock         0        8        0",
        "silver.stock         0        0        0",
        "",
        "silver.stock: 0 inserted, 0 updated, 0 deleted",
        "  3 more by a script's own statements or a trigger, which are only counted",
        "",
        "only counts, because they were empty before: silver.stock, silver.stock",
        "",
        "only counts, because the rows are no longer kept, or too many changed:",
        "    silver.stock",
        "",
        "only counts, because your role may not read them, or they were made anew since:",
        "    silver.stock",
    ]


def test_the_json_is_one_document_in_which_no_number_is_rounded() -> None:
    run = ChangingRun(7, "done", date(2026, 11, 29), datetime(2026, 11, 29, 6, tzinfo=UTC))
    long = Decimal("0.12345678901234567890")
    row = updated({"id": 2**60}, {"v": "\x7f\x1b\u2028", "n": Decimal("1.50")}, {"v": None, "n": long, "m": 10**5000})
    row = RowChange(row.operation, row.key, row.before, {**row.after, "m": Decimal(10**5000)})
    text = as_json([(run, [changed(row)])])
    assert text.replace("\n", "").isprintable() and text.isascii()
    (told,) = json.loads(text)["runs"]
    assert {name: told[name] for name in ("run_id", "status", "run_date", "started_at")} == {
        "run_id": 7, "status": "done", "run_date": "2026-11-29", "started_at": "2026-11-29T06:00:00+00:00",
    }  # fmt: skip
    (table,) = told["tables"]
    assert set(table) == {
        "relation", "inserted", "updated", "deleted", "by_other_statements", "is_kept", "first_filling", "views",
        "rows", "may_read",
    }  # fmt: skip
    (change,) = table["rows"]
    assert change["key"] == {"id": 2**60}
    assert change["before"] == {"id": 2**60, "v": "\x7f\x1b\u2028", "n": 1.5}
    assert (change["after"]["v"], change["after"]["n"]) == (None, str(long))
    assert change["after"]["m"] == "1" + "0" * 5000
