"""The inventory of an invented maker of hardware wallets: two tables of any size, for any day, with every blemish.

The tables are those of design section 7 as generic-extractor writes them (API note, section 11). Each row follows from
its product's number and the day alone, so that size needs no memory and two machines make the same bytes. Blemishes
sit at fixed places of every 50 products: 50 products show them all (`BLEMISHES`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.keboola_server import KeboolaServer

Texts = tuple[str, ...]

PRODUCTS_TABLE = "in.c-interview_de.products"
STOCK_TABLE = "in.c-interview_de.products_inventory_locations"
PRODUCT_COLUMNS: Texts = (
    "sku",
    "name",
    "product_type",
    "is_active",
    "inventory_locations",
    "weight_value",
    "weight_unit",
    "dimensions_length",
    "dimensions_width",
    "dimensions_height",
    "dimensions_unit",
)
STOCK_COLUMNS: Texts = (
    "warehouse_id",
    "warehouse_name",
    "warehouse_identifier",
    "quantity_available",
    "quantity_on_hand",
    "quarantined_quantity",
    "quantity_unavailable",
    "JSON_parentId",
)

#: blemish -> the product's number modulo 50; stock blemishes are in the product's first warehouse
BLEMISHES = {
    "no sku": 1,
    "no dimensions": 2,
    "no height": 12,
    "identical duplicate of the product before": 4,
    "same sku as the product before": 6,
    "no stock": 7,
    "quantity is no number": 8,
    "negative quantity": 9,
    "no warehouse": 10,
    "is_active is neither": 11,
    "quotes and a newline in the name": 13,
    "4-byte characters in the name": 14,
    "backslashes, a comma and CRLF in the name": 15,
    "name is a backslash and a dot": 16,
    "stock without product": 17,
    "on hand above available": 19,
    "9 on hand of 10 available": 20,
}
_AT = {place: blemish for blemish, place in BLEMISHES.items()}
_EVERY = 50

_FIRST = ("Basalt", "Cobalt", "Kestrel", "Juniper", "Onyx", "Tundra", "Marble", "Falcon", "Quartz", "Cinder", "Alder")
_SECOND = ("Signer", "Vault", "Key", "Cradle", "Plate", "Sleeve", "Lanyard", "Cable", "Dock")
_THIRD = ("One", "Two", "Mini", "Pro", "Classic", "Metal", "Travel")
_TYPES = ("hardware wallet", "accessory", "backup", "cable", "merchandise")
_LENGTHS = (
    ("cm", 1.0),
    ("in", 2.54),
    ("mm", 0.1),
    ("m", 100.0),
    ("CM", 1.0),
    (" In ", 2.54),
    ("Mm", 0.1),
    ("cm ", 1.0),
)
_WEIGHTS = (("g", 1.0), ("oz", 28.349523125), ("kg", 1000.0), ("lb", 453.59237), ("G", 1.0), ("Oz", 28.349523125))
_WEIGHTS += ((" kg ", 1000.0), ("LB", 453.59237))
_CITIES = (("Praha", "PRG"), ("Brno", "BRQ"), ("Plzeň", "PLZ"), ("Łódź", "LCJ"), ("Wien", "VIE"), ("Austin", "AUS"))
_NO_NUMBERS = ("n/a", "12 pcs", "", "1,5")
_NEITHER = ("yes", "TRUE", "0")
#: no quantity is above; looking a number's text up is cheaper than writing it
_TEXT = [str(number) for number in range(100)]
_BLOCK = 1000


def put_inventory(
    keboola: KeboolaServer, *, products: int = 50, warehouses: int = 3, day: int = 0, changing: float = 0.01
) -> None:
    """Import both tables of this day into the sandbox, as one morning's extraction would."""
    product_rows = partial(_shuffled, products, day, partial(_product_rows, day=day, changing=changing))
    stock_rows = partial(_shuffled, products, day, partial(_stock_rows, _warehouses(warehouses), day, changing))
    keboola.put_table(PRODUCTS_TABLE, columns=PRODUCT_COLUMNS, rows=product_rows)
    keboola.put_table(STOCK_TABLE, columns=STOCK_COLUMNS, rows=stock_rows)


def products(count: int = 50, day: int = 0, changing: float = 0.01) -> Iterator[Texts]:
    """The rows of `products` on this day, in an order that says nothing.

    `changing` is the share of products that move from one day to the next; what moves is their stock, and at times
    `is_active`. The link id follows every such change, as it does in Keboola.
    """
    return _shuffled(count, day, partial(_product_rows, day=day, changing=changing))


def stock(count: int = 50, warehouses: int = 3, day: int = 0, changing: float = 0.01) -> Iterator[Texts]:
    """The rows of `products_inventory_locations`: one for each product and warehouse, in an order that says nothing."""
    return _shuffled(count, day, partial(_stock_rows, _warehouses(warehouses), day, changing))


def _shuffled(count: int, day: int, rows_of: Callable[[int], list[Texts]]) -> Iterator[Texts]:
    """Every product's rows: products by a stride through their numbers, rows shuffled in blocks."""
    stride = max(1, int(count * 0.6180339887))
    while math.gcd(stride, count) != 1:
        stride += 1
    dice = random.Random(day)
    for start in range(0, count, _BLOCK):
        block: list[Texts] = []
        for place in range(start, min(start + _BLOCK, count)):
            block += rows_of((place * stride + day) % count)
        block.sort(key=lambda row: dice.random())
        yield from block


@dataclass(frozen=True)
class _Product:
    """What everything about a product on a day follows from."""

    number: int
    blemish: str
    #: random for the product
    seed: bytes
    #: how often it has moved until this day
    step: int

    @property
    def link(self) -> str:
        """The id that joins both tables: another one whenever the product has moved, for identical ones the same."""
        return _link(b"product %d %d" % (self.number, self.step))


def _product_on(number: int, day: int, changing: float) -> _Product:
    blemish = _AT.get(number % _EVERY, "")
    if blemish == "identical duplicate of the product before":
        return _product_on(number - 1, day, changing)
    seed = md5(b"product %d" % number, usedforsecurity=False).digest()
    # a product moves every `period` days, on a day of its own
    period = round(1 / changing) if changing else 0
    step = (day + (seed[0] << 8 | seed[1]) % period) // period if period else 0
    return _Product(number, blemish, seed, step)


def _link(content: bytes) -> str:
    return f"root_{md5(content, usedforsecurity=False).hexdigest()}"


def _product_rows(number: int, day: int, changing: float) -> list[Texts]:
    """The one row of a product."""
    product = _product_on(number, day, changing)
    blemish, seed, number = product.blemish, product.seed, product.number
    sku = "" if blemish == "no sku" else f"HW-{number - (blemish == 'same sku as the product before'):06d}"
    active = "" if (seed[2] + product.step) % 11 == 0 else "1"
    if blemish == "is_active is neither":
        active = _NEITHER[number // _EVERY % len(_NEITHER)]
    weight_unit, grams = _WEIGHTS[number * 3 % len(_WEIGHTS)]
    length_unit, cm = _LENGTHS[number % len(_LENGTHS)]
    sides = [_decimal(2 + seed[place] / 10, cm) for place in (3, 4, 5)]
    if blemish == "no dimensions":
        sides, length_unit = ["", "", ""], ""
    elif blemish == "no height":
        sides[2] = ""
    name, kind = _name(seed, blemish), _TYPES[seed[6] % len(_TYPES)]
    link = "" if blemish == "no stock" else product.link
    return [(sku, name, kind, active, link, _decimal(5 + seed[7] * 3.5, grams), weight_unit, *sides, length_unit)]


def _name(seed: bytes, blemish: str) -> str:
    first, second, third = _FIRST[seed[8] % 11], _SECOND[seed[9] % 9], _THIRD[seed[10] % 7]
    if blemish == "quotes and a newline in the name":
        return f'{first} "{second}"\n{third}'
    if blemish == "4-byte characters in the name":
        return f"{first} {second} \U0001f510 \U00020bb7 {third}"
    if blemish == "backslashes, a comma and CRLF in the name":
        return f"{first}\\{second}, \\N\r\n\t{third}"
    return "\\." if blemish == "name is a backslash and a dot" else f"{first} {second} {third}"


def _stock_rows(warehouses: Sequence[Texts], day: int, changing: float, number: int) -> list[Texts]:
    """A product's rows in each warehouse: sold down from full to nothing in a few steps, then restocked."""
    product = _product_on(number, day, changing)
    blemish, seed = product.blemish, product.seed
    if blemish == "no stock":
        return []
    last = 1 + seed[11] % 6
    sold, link, base = (product.step + seed[12]) % (last + 1), product.link, int.from_bytes(seed[8:], "big") | 1
    rows = []
    for place, warehouse in enumerate(warehouses):
        dice = base * (2 * place + 1) >> 16 & 0xFFFFFFFF
        full = 4 + dice % 60
        available = full - full * sold // last
        kept = (dice >> 8) % 41
        on_hand = available + 1 + kept if kept < 2 else max(0, available - kept % 3)
        quarantined = (dice >> 16) % 4 if (dice >> 24) % 8 == 0 else 0
        unavailable = quarantined + kept % 3
        rows.append((*warehouse, _TEXT[available], _TEXT[on_hand], _TEXT[quarantined], _TEXT[unavailable], link))
    if blemish:
        rows[0] = _blemished(rows[0], seed, blemish)
    if blemish == "stock without product":
        rows.append((*rows[0][:-1], _link(b"gone %d %d" % (number, product.step))))
    return rows


def _blemished(row: Texts, seed: bytes, blemish: str) -> Texts:
    warehouse, available = row[:3], int(row[3])
    if blemish == "no warehouse":
        return ("", "", "", *row[3:])
    if blemish == "negative quantity":
        return (*warehouse, f"-{1 + seed[13] % 5}", f"-{1 + seed[13] % 5}", *row[5:])
    if blemish == "quantity is no number":
        return (*warehouse, _NO_NUMBERS[seed[13] % len(_NO_NUMBERS)], *row[4:])
    if blemish == "on hand above available":
        return (*warehouse, row[3], str(available + 1 + seed[13] % 20), *row[5:])
    if blemish == "9 on hand of 10 available":
        return (*warehouse, "10", "9", *row[5:])
    return row


def _warehouses(count: int) -> list[Texts]:
    """Id, name and identifier of each warehouse."""
    turns = [(number, *_CITIES[number % len(_CITIES)], number // len(_CITIES) + 1) for number in range(count)]
    return [(str(101 + number), f"{city} {turn}", f"{code}-{turn}") for number, city, code, turn in turns]


def _decimal(value: float, unit: float) -> str:
    return f"{value / unit:.4f}".rstrip("0").rstrip(".")
