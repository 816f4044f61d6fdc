"""The expected rows of silver and gold, computed from the bronze rows in plain Python: no SQL, no code of the pipeline.

It follows the rules of docs/inventory.md, one function per table. Rows are dictionaries of text or None. Numbers are
Decimal, so that 1.0 equals 1. Text is compared by code point, as in PostgreSQL's "C" collation.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, getcontext

getcontext().prec = 300

Row = Mapping[str, str | None]
#: rule, key, column, number, severity, job, received, used, pieces
Issue = tuple[str, str, str, int, str, str, str | None, str | None, Decimal | None]
#: the same without a number; pieces None: those of the product, or not known
Found = tuple[str, str, str, str | None, str | None, Decimal | None]

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?0*[0-9]{1,3})?")
#: letters that choose how the one before them looks: variation selectors and tags
CHOOSING = {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)} - {0x180E}
#: LF, VT, FF, CR, CR LF as one, and those of Unicode: NEL, LS, PS
LINE_BREAK = re.compile("\r\n|[\n\v\f\r\x85\u2028\u2029]")
#: Default_Ignorable_Code_Point of Unicode, apart from these and from those that are not assigned or write music
IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x3164, 0xFEFF, 0xFFA0),
    *(*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)),
]
#: the empty braille pattern, and what Python calls a blank: White_Space of Unicode and four separators
BLANKS = [0x2800, *(code for code in range(0x10000) if chr(code).isspace())]
INVISIBLE = "".join(map(chr, (*IGNORABLE, *BLANKS)))
CENTIMETRES = {"cm": "1", "mm": "0.1", "m": "100", "in": "2.54"}
GRAMS = {"g": "1", "kg": "1000", "oz": "28.349523125", "lb": "453.59237"}
DIMENSIONS = ("dimensions_length", "dimensions_width", "dimensions_height")
QUANTITIES = ("quantity_available", "quantity_on_hand", "quarantined_quantity", "quantity_unavailable")
PRODUCT_COLUMNS = (
    *("sku", "name", "product_type", "is_active", "inventory_locations", "weight_value", "weight_unit"),
    *(*DIMENSIONS, "dimensions_unit"),
)
STOCK_COLUMNS = ("json_parentid", "warehouse_id", "warehouse_name", "warehouse_identifier", *QUANTITIES)

SEVERITY = {
    **dict.fromkeys(("missing_sku", "sku_too_long", "duplicate_sku"), ("error", "products")),
    **dict.fromkeys(
        (
            *("similar_sku", "is_active_is_neither", "line_break_in_product"),
            *("invalid_measure", "unknown_unit"),
        ),
        ("warning", "products"),
    ),
    **dict.fromkeys(("missing_weight", "missing_dimensions", "product_without_stock"), ("info", "products")),
    **dict.fromkeys(
        ("stock_without_product", "duplicate_stock_row", "quantity_is_no_number"),
        ("error", "products_inventory_locations"),
    ),
    **dict.fromkeys(
        (
            *("missing_warehouse", "warehouse_id_too_long", "negative_quantity"),
            *("on_hand_above_available", "line_break_in_warehouse"),
        ),
        ("warning", "products_inventory_locations"),
    ),
}


def text_of(value: str | None) -> str | None:
    return (value or "").strip(INVISIBLE) or None


def key_of(value: str | None) -> str | None:
    """The same, if it fits an index."""
    text = text_of(value)
    return text if text and len(text) <= 200 else None


def has_line_break(value: str | None) -> bool:
    """Whether the text has a line break, apart from blanks around it."""
    return bool(LINE_BREAK.search(text_of(value) or ""))


def line_of(value: str | None) -> str | None:
    """The text on one line."""
    return text_of(LINE_BREAK.sub(" ", value or ""))


def lower(text: str) -> str:
    """Lower case of A to Z only, because the Kelvin sign is no k."""
    return text.lower() if text.isascii() else text


def value_of(value: str | None) -> Decimal | None:
    """The number, however large it is."""
    inner = text_of(value)
    fits = inner and len((value or "").encode()) <= 1000 and NUMBER.fullmatch(inner)
    return Decimal(inner) if inner and fits else None


def number_of(value: str | None) -> Decimal | None:
    """The number, if it has at most 18 digits before the point, however it is written."""
    number = value_of(value)
    return number if number is not None and abs(number) < 10**18 else None


def look_of(sku: str) -> str:
    """The SKU without case, Unicode form, control characters and what nobody sees."""
    decomposed = unicodedata.normalize("NFKD", sku)
    controls = {code for code in map(ord, decomposed) if unicodedata.category(chr(code)) == "Cc"}
    return decomposed.translate(dict.fromkeys((*map(ord, INVISIBLE), *CHOOSING, *controls))).lower()


def plain(number: Decimal) -> str:
    """The number as PostgreSQL writes it, without trailing zeros."""
    written = format(number, "f")
    written = written.rstrip("0").rstrip(".") if "." in written else written
    return "0" if written in ("-0", "") else written


def row_text(row: Row, columns: Sequence[str]) -> str:
    """A row as PostgreSQL writes it as text (PostgreSQL: "Composite Types", input and output syntax)."""

    def field(value: str | None) -> str:
        if value is None:
            return ""
        if value == "" or re.search(r'[\s"\\(),]', value, re.ASCII):
            return '"' + value.replace("\\", "\\\\").replace('"', '""') + '"'
        return value

    return "(" + ",".join(field(row[column]) for column in columns) + ")"


def nulls_last(value: str | None) -> tuple[bool, str]:
    return (value is None, value or "")


@dataclass(frozen=True)
class Warehouse:
    """The result of one load."""

    #: SKU -> name, type, weight_g, length_cm, width_cm, height_cm, is_active, has_dimensions
    products: dict[str, tuple]
    #: (SKU, warehouse) -> name, identifier, available, on hand, on hand received, quarantined, unavailable, bronze rows
    stock_levels: dict[tuple[str, str], tuple]
    issues: set[Issue]
    #: SKU -> name, type, status, total_stock, on hand, quarantined, unavailable, warehouses, stock_status, volume,
    #: space
    product_status_summary: dict[str, tuple]


def recompute(
    products: Iterable[Row],
    stock: Iterable[Row],
    thresholds: Mapping[str, int] = {"*": 5},
) -> Warehouse:
    """Compute everything that a load of these rows must publish."""
    found: list[tuple] = []
    product_rows = _products(list(products), found)
    levels = _stock_levels(list(stock), links(list(products)), found)
    for sku in product_rows:
        if not any(sku == of for of, _ in levels):
            found.append(("product_without_stock", sku, "inventory_locations", None, None))
    summary = _summary(product_rows, levels, thresholds)
    return Warehouse(product_rows, levels, _numbered([_with_pieces(one, summary) for one in found]), summary)


# ---- silver ---------------------------------------------------------------------------------------------------------


def _is_active(row: Row) -> bool:
    return lower(text_of(row["is_active"]) or "") in ("1", "true")


def _products(rows: list[Row], found: list) -> dict[str, tuple]:
    by_sku: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        sku = key_of(row["sku"])
        if sku is None:
            rule = "sku_too_long" if text_of(row["sku"]) else "missing_sku"
            found.append((rule, line_of(row["name"]) or "no name", "sku", row["sku"], None))
        else:
            by_sku[sku].append(row)
    by_look: dict[str, list[str]] = defaultdict(list)
    for sku in sorted(by_sku):
        by_look[look_of(sku)].append(sku)
    for first, *others in by_look.values():
        if others:
            found.append(("similar_sku", first, "sku", others[-1], None))
            found.extend(("similar_sku", sku, "sku", first, None) for sku in others)
    return {sku: _product(sku, same, found) for sku, same in by_sku.items()}


def _product(sku: str, rows: list[Row], found: list) -> tuple:
    used, *others = sorted(rows, key=lambda row: (not _is_active(row), row_text(row, PRODUCT_COLUMNS)))
    for row in others:
        found.append(("duplicate_sku", sku, "sku", row_text(row, PRODUCT_COLUMNS), None))
    if text_of(used["is_active"]) not in (None, "1"):
        found.append(
            ("is_active_is_neither", sku, "is_active", used["is_active"], "true" if _is_active(used) else "false")
        )
    for column in ("name", "product_type"):
        if has_line_break(used[column]):
            found.append(("line_break_in_product", sku, column, used[column], line_of(used[column])))
    for column in ("weight_value", *DIMENSIONS):
        number = number_of(used[column])
        if text_of(used[column]) and (number is None or number <= 0):
            found.append(("invalid_measure", sku, column, used[column], None))

    (weight,) = _measures(sku, used, ["weight_value"], "weight_unit", GRAMS, found)
    sides = _measures(sku, used, DIMENSIONS, "dimensions_unit", CENTIMETRES, found)
    if weight is None:
        found.append(("missing_weight", sku, "weight_value", used["weight_value"], None))
    if None in sides:
        received = [used[column] or "" for column in (*DIMENSIONS, "dimensions_unit")]
        found.append(("missing_dimensions", sku, ", ".join(DIMENSIONS), "{} x {} x {} {}".format(*received), None))
    return (line_of(used["name"]), line_of(used["product_type"]), weight, *sides, _is_active(used), None not in sides)


def _measures(
    sku: str, row: Row, columns: Sequence[str], unit_column: str, factors: Mapping[str, str], found: list
) -> list[Decimal | None]:
    factor = factors.get(lower(text_of(row[unit_column]) or ""))
    numbers = [number_of(row[column]) for column in columns]
    numbers = [number if number is not None and number > 0 else None for number in numbers]
    if factor is None and any(number is not None for number in numbers):
        found.append(("unknown_unit", sku, unit_column, row[unit_column], None))
    return [number * Decimal(factor) if number is not None and factor else None for number in numbers]


def links(products: list[Row]) -> dict[str, str]:
    """Link -> SKU."""
    links: dict[str, str] = {}
    for row in products:
        sku, link = key_of(row["sku"]), row["inventory_locations"]
        if link and sku:
            links[link] = min(sku, links.get(link, sku))
    return links


def _stock_levels(rows: list[Row], links: Mapping[str, str], found: list) -> dict[tuple[str, str], tuple]:
    by_place: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        warehouse = key_of(row["warehouse_id"]) or "unknown"
        sku = links.get(row["json_parentid"] or "")
        if sku is None:
            key = f"{text_of(row['json_parentid']) or 'no link'} / {warehouse}"
            pieces = number_of(row["quantity_available"]) or Decimal(0)
            found.append(("stock_without_product", key, "quantity_available", row["quantity_available"], None, pieces))
        else:
            by_place[sku, warehouse].append(row)
    texts = {
        (key_of(row["warehouse_id"]) or "unknown", column, row[column])
        for row in rows
        for column in ("warehouse_name", "warehouse_identifier")
        if has_line_break(row[column])
    }
    for warehouse, column, text in texts:
        found.append(("line_break_in_warehouse", warehouse, column, text, line_of(text)))
    return {place: _stock_level(place, same, found) for place, same in by_place.items()}


def _stock_level(place: tuple[str, str], rows: list[Row], found: list) -> tuple:
    key, totals, names = " / ".join(place), [Decimal(0)] * 4, []
    received_on_hand: list[Decimal] = []
    for row in _counted(place, rows, found):
        received = {column: number_of(row[column]) for column in QUANTITIES}
        used = {column: number or Decimal(0) for column, number in received.items()}
        used["quantity_on_hand"] = min(used["quantity_on_hand"], used["quantity_available"])
        for column in QUANTITIES:
            if received[column] is None:
                found.append(("quantity_is_no_number", key, column, row[column], plain(used[column])))
            elif received[column] < 0:
                found.append(("negative_quantity", key, column, row[column], plain(used[column]), -received[column]))
        if key_of(row["warehouse_id"]) is None:
            pieces = used["quantity_available"]
            rule = "warehouse_id_too_long" if text_of(row["warehouse_id"]) else "missing_warehouse"
            found.append((rule, key, "warehouse_id", row["warehouse_id"], "unknown", pieces))
        totals = [total + used[column] for total, column in zip(totals, QUANTITIES, strict=True)]
        if received["quantity_on_hand"] is not None:
            received_on_hand.append(received["quantity_on_hand"])
        names.append((line_of(row["warehouse_name"]), line_of(row["warehouse_identifier"])))
    available, on_hand, quarantined, unavailable = totals
    on_hand_received = sum(received_on_hand, Decimal(0)) if received_on_hand else None
    if on_hand_received is not None and on_hand_received > on_hand:
        received, used = plain(on_hand_received), plain(on_hand)
        taken_off = on_hand_received - on_hand
        found.append(("on_hand_above_available", key, "quantity_on_hand", received, used, taken_off))
    name, identifier = (min(filter(None, column), default=None) for column in zip(*names, strict=True))
    return (name, identifier, available, on_hand, on_hand_received, quarantined, unavailable, len(rows))


def _counted(place: tuple[str, str], rows: list[Row], found: list) -> list[Row]:
    """The rows that count: one per link and known warehouse, and all of the unknown warehouse."""
    if place[1] == "unknown":
        return rows
    by_link: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_link[row["json_parentid"]].append(row)
    counted = []
    for same in by_link.values():
        best, *others = sorted(same, key=_best_first)
        counted.append(best)
        for row in others:
            found.append(
                (
                    *("duplicate_stock_row", " / ".join(place), "quantity_available", row["quantity_available"], None),
                    number_of(row["quantity_available"]) or Decimal(0),
                )
            )
    return counted


def _best_first(row: Row) -> tuple:
    available, on_hand, quarantined, unavailable = (number_of(row[column]) for column in QUANTITIES)
    return (
        -(available or 0),
        (on_hand is None, -(on_hand or 0)),
        -(quarantined or 0),
        -(unavailable or 0),
        nulls_last(line_of(row["warehouse_name"])),
        nulls_last(line_of(row["warehouse_identifier"])),
        row_text(row, STOCK_COLUMNS),
    )


def _with_pieces(one: tuple, summary: Mapping[str, tuple]) -> Found:
    """Add pieces: an issue of a product concerns its total stock."""
    rule, key, column, received, used, *pieces = one
    if SEVERITY[rule][1] == "products" and rule not in ("missing_sku", "sku_too_long"):
        pieces = [summary[key][3]]
    return (rule, key, column, received, used, pieces[0] if pieces else None)


def _numbered(found: list[Found]) -> set[Issue]:
    alike: dict[tuple[str, str, str], list] = defaultdict(list)
    for rule, key, column, received, used, pieces in found:
        alike[rule, key[:200], column].append((received, used, pieces))
    return {
        (*place, number, *SEVERITY[place[0]], received, used, pieces)
        for place, values in alike.items()
        for number, (received, used, pieces) in enumerate(
            sorted(values, key=lambda row: (nulls_last(row[0]), nulls_last(row[1]), row[2] or 0)), start=1
        )
    }


# ---- gold -----------------------------------------------------------------------------------------------------------


def _summary(
    products: Mapping[str, tuple], levels: Mapping[tuple[str, str], tuple], thresholds: Mapping[str, int]
) -> dict[str, tuple]:
    summary = {}
    for sku, (name, kind, _weight, *sides, is_active, _has_dimensions) in products.items():
        places = [level for (of, _), level in levels.items() if of == sku]
        total, on_hand, quarantined, unavailable = (sum(level[at] for level in places) for at in (2, 3, 5, 6))
        threshold = thresholds.get(kind or "", thresholds["*"])
        status = "Out of Stock" if total <= 0 else "Low Stock" if total <= threshold else "In Stock"
        activity = "Active" if is_active else "Inactive"
        volume = None if None in sides else sides[0] * sides[1] * sides[2]
        space = None if volume is None else rounded(volume * max(on_hand, 0), 3)
        volume = None if volume is None else rounded(volume, 3)
        numbers = (total, on_hand, quarantined, unavailable, len(places))
        summary[sku] = (name, kind, activity, *numbers, status, volume, space)
    return summary


def rounded(number: Decimal, places: int) -> Decimal:
    """Rounded as PostgreSQL's round(numeric, places): halves away from zero."""
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
