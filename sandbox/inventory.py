"""Sample data: the inventory of an invented maker of hardware wallets.

The tables are those of docs/inventory.md, in the form in which generic-extractor writes them (docs/keboola.md 11).

There are two kinds of products:

- The cast (`CAST`): 15 fixed products, each with a story of 30 days. `story_ends` is the last day of the story. What a
  day shows depends on its distance from that day. In the demo the story ends today.
- Numbered products: any number of them, on any day. Each row is computed only from the product's number and the day,
  so large tables need no memory, and every machine makes the same bytes. Among every 50 of them, fixed numbers have
  faults (`BLEMISHES`). With `odd_names`, which is for tests, some have names that are difficult for CSV and COPY.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from types import MappingProxyType
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

#: number of days of the cast's story
STORY_DAYS = 30

#: fault in the data -> the product's number modulo 50; faults of stock rows are in the product's first warehouse
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
_THIRD = ("One", "Two", "Mini", "Pro", "Classic", "Plus", "Travel")
#: second word of a name -> product type
_TYPES = {
    **dict.fromkeys(("Signer", "Vault", "Key"), "hardware wallet"),
    **dict.fromkeys(("Cradle", "Dock"), "accessory"),
    "Plate": "backup",
    "Sleeve": "case",
    "Lanyard": "merchandise",
    "Cable": "cable",
}
#: type -> smallest and largest length, width and height in cm, and weight in grams
_SIZES = {
    "hardware wallet": ((4, 9), (2, 6), (0.7, 2), (15, 160)),
    "accessory": ((5, 15), (4, 12), (1, 6), (20, 400)),
    "backup": ((8, 9.5), (5, 6.5), (0.1, 0.6), (40, 250)),
    "case": ((7, 12), (4, 8), (1, 3), (10, 90)),
    "merchandise": ((10, 14), (6, 9), (1, 2), (10, 40)),
    "cable": ((8, 14), (6, 11), (1.5, 3), (25, 90)),
}
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
_WEIGHTS = (
    ("g", 1.0),
    ("oz", 28.349523125),
    ("kg", 1000.0),
    ("lb", 453.59237),
    ("G", 1.0),
    ("Oz", 28.349523125),
    (" kg ", 1000.0),
    ("LB", 453.59237),
)
_SITES = (
    ("Praha Letňany", "PRG"),
    ("Brno Slatina", "BRQ"),
    ("Plzeň Borská pole", "PLZ"),
    ("Łódź Olechów", "LCJ"),
    ("Wien Schwechat", "VIE"),
    ("Austin Mueller", "AUS"),
)
_NO_NUMBERS = ("n/a", "12 pcs", "", "1,5")
_NEITHER = ("yes", "TRUE", "0")
#: the texts of 0 to 99; no quantity is larger, and a look-up is faster than formatting a number
_TEXT = [str(number) for number in range(100)]
_BLOCK = 1000


def put_inventory(
    keboola: KeboolaServer,
    *,
    products: int = 50,
    warehouses: int = 3,
    day: int = 0,
    changing: float = 0.01,
    story_ends: int | None = None,
    odd_names: bool = False,
) -> None:
    """Import both tables of this day into the sandbox."""
    product_rows = partial(_products, products, day, changing, story_ends=story_ends, odd_names=odd_names)
    stock_rows = partial(stock, products, warehouses, day, changing, story_ends=story_ends)
    keboola.put_table(PRODUCTS_TABLE, columns=PRODUCT_COLUMNS, rows=product_rows)
    keboola.put_table(STOCK_TABLE, columns=STOCK_COLUMNS, rows=stock_rows)


def products(
    count: int = 50, day: int = 0, changing: float = 0.01, *, story_ends: int | None = None, odd_names: bool = False
) -> Iterator[Texts]:
    """The rows of `products` on this day, in random order.

    changing: the share of numbered products that change from one day to the next. Their stock changes, sometimes also
    `is_active`, and with each change the id that links both tables, as in Keboola.
    story_ends: the last day of the cast's story; None: the cast is left out.
    """
    rows_of = partial(_product_rows, day=day, changing=changing, odd_names=odd_names)
    return _shuffled(count, day, rows_of, _cast_on(day, story_ends), lambda member: member.products)


def stock(
    count: int = 50,
    warehouses: int = 3,
    day: int = 0,
    changing: float = 0.01,
    *,
    story_ends: int | None = None,
) -> Iterator[Texts]:
    """The rows of `products_inventory_locations`: one for each product and warehouse, in random order."""
    rows_of = partial(_stock_rows, _warehouses(warehouses), day, changing)
    return _shuffled(count, day, rows_of, _cast_on(day, story_ends), lambda member: member.stock)


#: put_inventory has a parameter named `products`, which hides the function
_products = products


def _shuffled(
    count: int,
    day: int,
    rows_of: Callable[[int], list[Texts]],
    cast: Sequence[_Rows],
    rows_of_cast: Callable[[_Rows], list[Texts]],
) -> Iterator[Texts]:
    """All rows in an order that looks random but needs little memory.

    A constant stride through the numbers gives the order of the products; rows are then shuffled within blocks.
    """
    total = count + len(cast)
    stride = max(1, int(total * 0.6180339887))
    while math.gcd(stride, total) != 1:
        stride += 1
    dice = random.Random(day)
    for start in range(0, total, _BLOCK):
        block: list[Texts] = []
        for place in range(start, min(start + _BLOCK, total)):
            number = (place * stride + day) % total
            block += rows_of(number) if number < count else rows_of_cast(cast[number - count])
        block.sort(key=lambda row: dice.random())
        yield from block


# ---- the cast -------------------------------------------------------------------------------------------------------


def _sells(
    start: int,
    pieces: int = 1,
    *,
    every: int = 1,
    until: int = STORY_DAYS,
    deliveries: Mapping[int, int] = MappingProxyType({}),
) -> Callable[[int], int]:
    """A function from day to stock: `pieces` are sold every `every` days, until day `until`.

    deliveries: day -> pieces that arrive on this day.
    """

    def stock_on(day: int) -> int:
        came = sum(count for arrival, count in deliveries.items() if arrival <= day)
        return max(0, start + came - min(day, until) // every * pieces)

    return stock_on


@dataclass(frozen=True)
class Story:
    """What happens to a product of the cast. Days of the story are 0 to 29; warehouses are counted from 0."""

    tells: str
    #: day -> pieces that can be sold, in all warehouses together
    available: Callable[[int], int]
    #: pieces on hand in excess of those available, in each warehouse
    above: tuple[int, int, int] = (0, 0, 0)
    #: (day, warehouse, pieces): a delivery that is in quarantine from this day on
    quarantine: tuple[int, int, int] | None = None
    #: (day, name): its name before this day
    renamed: tuple[int, str] | None = None
    #: the first day on which it is not active
    retired: int = STORY_DAYS
    is_twice: bool = False


@dataclass(frozen=True)
class Member:
    """A product of the cast: its properties and its story."""

    sku: str
    name: str
    product_type: str
    weight: str
    size: str
    story: Story


_GOODS = (
    ("KES-ONE-BK", "Kestrel One, black", "hardware wallet", "21 g", "58 x 18 x 8 mm"),
    ("KES-ONE-WH", "Kestrel One, white", "hardware wallet", "21 g", "58 x 18 x 8 mm"),
    ("KES-PRO-BK", "Kestrel Pro, black", "hardware wallet", "52 g", "7.1 x 4.5 x 0.9 cm"),
    ("KES-PRO-GR", "Kestrel Pro, graphite", "hardware wallet", "52 g", "7.1 x 4.5 x 0.9 cm"),
    ("KES-PRO-OR", "Kestrel Pro, orange", "hardware wallet", "52 g", "7.1 x 4.5 x 0.9 cm"),
    ("KES-MIN-BK", "Kestrel Mini, black", "hardware wallet", "0.5 oz", "1.5 x 0.9 x 0.3 in"),
    ("CBL-CC-1M", "USB-C cable, 1 m", "cable", "38 g", "12 x 9 x 2 cm"),
    ("CBL-AC-2M", "USB-A to USB-C cable, 2 m", "cable", "61 g", "13 x 10 x 2.5 cm"),
    ("CAS-LTH-BN", "Leather case, brown", "case", "2.1 oz", "4.6 x 3.1 x 0.9 in"),
    ("CAS-SIL-BK", "Silicone case, black", "case", "24 g", "80 x 52 x 14 mm"),
    ("BCK-STL-24", "Steel seed plate, 24 words", "seed plate", "0.11 kg", "85 x 54 x 3 mm"),
    ("BCK-TTN-24", "Titanium seed plate, 24 words", "seed plate", "3.2 oz", "3.4 x 2.1 x 0.1 in"),
    ("BCK-CRD-10", "Recovery cards, set of 10", "accessory", "90 g", "15.5 x 11 x 0.4 cm"),
    ("BND-STA-01", "Starter bundle: One and cable", "bundle", "0.18 kg", ""),
    ("BND-FAM-02", "Family bundle: two One, two plates", "bundle", "1.1 lb", "9.5 x 6.5 x 2.5 in"),
)
_STORIES = {
    "KES-ONE-BK": Story("sells steadily, and runs out before a delivery arrives", _sells(120, 3)),
    "KES-ONE-WH": Story("runs out on day 15", _sells(60, 4)),
    "KES-PRO-BK": Story("is restocked on day 16", _sells(42, 2, deliveries={16: 120})),
    "KES-PRO-GR": Story("falls to Low Stock on day 21", _sells(8, 1, every=7)),
    "KES-PRO-OR": Story("sells, and is bought in again", _sells(70, 1, deliveries={9: 30})),
    "KES-MIN-BK": Story("is retired on day 20, with stock left", _sells(58, 1, every=2, until=20), retired=20),
    "CBL-CC-1M": Story(
        "has more on hand than available in Praha", _sells(240, 9, deliveries={10: 150, 20: 150}), above=(4, 0, 0)
    ),
    "CBL-AC-2M": Story("sells, and is bought in again", _sells(90, 2, deliveries={12: 60})),
    "CAS-LTH-BN": Story(
        "has a delivery in quarantine in Brno since day 8", _sells(40, 1, every=2), quarantine=(8, 1, 24)
    ),
    "CAS-SIL-BK": Story("was called a sleeve until day 12", _sells(130, 2), renamed=(12, "Silicone sleeve, black")),
    "BCK-STL-24": Story("does not move", _sells(140, 0)),
    "BCK-TTN-24": Story("has more on hand than available in Brno", _sells(64, 1), above=(0, 6, 0)),
    "BCK-CRD-10": Story("sells, and is bought in again", _sells(210, 3, deliveries={15: 100})),
    "BND-STA-01": Story("misses its dimensions", _sells(55, 1)),
    "BND-FAM-02": Story("has two rows that are the same", _sells(36, 1, every=3), is_twice=True),
}
CAST = tuple(Member(*good, _STORIES[good[0]]) for good in _GOODS)

#: the cost of a piece of each product in EUR: the table for which README adds a job
COSTS_TABLE = "in.c-erp.unit_costs"
COST_COLUMNS: Texts = ("sku", "cost", "currency")
UNIT_COSTS: tuple[Texts, ...] = tuple(
    (sku, cost, "EUR")
    for sku, cost in {
        "KES-ONE-BK": "31.40",
        "KES-ONE-WH": "31.40",
        "KES-MIN-BK": "24.90",
        "KES-PRO-BK": "61.505",
        "KES-PRO-GR": "61.505",
        "KES-PRO-OR": "62.10",
        "BCK-CRD-10": "1.15",
        "BCK-STL-24": "9.00",
        "BCK-TTN-24": "27.80",
        "BND-FAM-02": "88.60",
        "BND-STA-01": "34.05",
        "CAS-LTH-BN": "12.40",
        "CAS-SIL-BK": "2.30",
        "CBL-AC-2M": "1.95",
        "CBL-CC-1M": "2.05",
    }.items()
)


@dataclass(frozen=True)
class _Rows:
    """The rows of one product of the cast on one day."""

    products: list[Texts]
    stock: list[Texts]


def _cast_on(day: int, story_ends: int | None) -> list[_Rows]:
    """The rows of the cast on a day, and one stock row without a product; an empty list without a story."""
    if story_ends is None:
        return []
    # before its first day and after its last day the story does not change
    story_day = min(max(0, STORY_DAYS - 1 - (story_ends - day)), STORY_DAYS - 1)
    stray = (*_warehouses(3)[1], "6", "6", "0", "0", _link(b"a product that is gone"))
    return [*(_rows_on(member, story_day) for member in CAST), _Rows([], [stray])]


def _rows_on(member: Member, day: int) -> _Rows:
    """The rows of a product on a day of its story."""
    story = member.story
    available, rows = story.available(day), []
    shares = ((available + 1) // 2, available * 3 // 10)
    for place, warehouse in enumerate(_warehouses(3)):
        pieces = (*shares, available - sum(shares))[place]
        held = 0
        if story.quarantine and story.quarantine[0] <= day and story.quarantine[1] == place:
            held = story.quarantine[2]
        rows.append((*warehouse, str(pieces), str(pieces + story.above[place]), str(held), str(held)))
    name = story.renamed[1] if story.renamed and day < story.renamed[0] else member.name
    active = "1" if day < story.retired else ""
    *sides, unit = member.size.replace(" x ", " ").split() or ["", "", "", ""]
    measures = (*member.weight.split(), *sides, unit)
    link = _link(repr((member.sku, name, active, rows)).encode())
    times = 1 + story.is_twice  # identical products have the same link id, and each has its stock rows
    product = (member.sku, name, member.product_type, active, link, *measures)
    return _Rows([product] * times, [(*row, link) for row in rows] * times)


# ---- numbered products ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Product:
    """The values from which all columns of a product on a day are computed."""

    number: int
    blemish: str
    #: random bytes that depend only on the number
    seed: bytes
    #: how often the product has changed until this day
    step: int

    @property
    def link(self) -> str:
        """The id that joins both tables. It changes whenever the product changes; identical products have the same."""
        return _link(b"product %d %d" % (self.number, self.step))


def _product_on(number: int, day: int, changing: float) -> _Product:
    blemish = _AT.get(number % _EVERY, "")
    if blemish == "identical duplicate of the product before":
        return _product_on(number - 1, day, changing)
    seed = md5(b"product %d" % number, usedforsecurity=False).digest()
    # each product changes every `period` days; the first of these days depends on its seed
    period = round(1 / changing) if changing else 0
    step = (day + (seed[0] << 8 | seed[1]) % period) // period if period else 0
    return _Product(number, blemish, seed, step)


def _link(content: bytes) -> str:
    return f"root_{md5(content, usedforsecurity=False).hexdigest()}"


def _product_rows(number: int, day: int, changing: float, odd_names: bool) -> list[Texts]:
    """The one row of a product."""
    product = _product_on(number, day, changing)
    blemish, seed, number = product.blemish, product.seed, product.number
    sku = "" if blemish == "no sku" else f"HW-{number - (blemish == 'same sku as the product before'):06d}"
    active = "" if (seed[2] + product.step) % 11 == 0 else "1"
    if blemish == "is_active is neither":
        active = _NEITHER[number // _EVERY % len(_NEITHER)]
    weight_unit, grams = _WEIGHTS[number * 3 % len(_WEIGHTS)]
    length_unit, cm = _LENGTHS[number % len(_LENGTHS)]
    name = _name(seed, blemish if odd_names else "")
    kind = _TYPES[_SECOND[seed[9] % len(_SECOND)]]
    *sizes, weight = [
        low + seed[place] / 255 * (high - low) for place, (low, high) in zip((3, 4, 5, 7), _SIZES[kind], strict=True)
    ]
    sides = [_decimal(size, cm) for size in sizes]
    if blemish == "no dimensions":
        sides, length_unit = ["", "", ""], ""
    elif blemish == "no height":
        sides[2] = ""
    link = "" if blemish == "no stock" else product.link
    return [(sku, name, kind, active, link, _decimal(weight, grams), weight_unit, *sides, length_unit)]


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
    """A product's row in each warehouse. Its stock is sold from full to 0 in a few steps, then restocked."""
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
    turns = [(number, *_SITES[number % len(_SITES)], number // len(_SITES) + 1) for number in range(count)]
    return [
        (str(101 + number), site if turn == 1 else f"{site} {turn}", f"{code}-{turn}")
        for number, site, code, turn in turns
    ]


def _decimal(value: float, unit: float) -> str:
    return f"{value / unit:.4f}".rstrip("0").rstrip(".")
