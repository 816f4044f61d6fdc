"""The sample inventory: deterministic, of any size, and with every kind of data error."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections import Counter

import pytest

from sandbox.inventory import (
    BLEMISHES,
    CAST,
    PRODUCT_COLUMNS,
    PRODUCTS_TABLE,
    STOCK_COLUMNS,
    STOCK_TABLE,
    products,
    put_inventory,
    stock,
)
from sandbox.keboola_server import KeboolaServer

Row = dict[str, str]


def product_dicts(count: int = 50, day: int = 0) -> list[Row]:
    return [dict(zip(PRODUCT_COLUMNS, row, strict=True)) for row in products(count, day, odd_names=True)]


def stock_dicts(count: int = 50, warehouses: int = 3, day: int = 0) -> list[Row]:
    return [dict(zip(STOCK_COLUMNS, row, strict=True)) for row in stock(count, warehouses, day)]


def test_rows_of_a_size_come_out_without_holding_them() -> None:
    tracemalloc.start()
    try:
        rows = stock(10**9, 2, 5)
        for _ in itertools.islice(rows, 20_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 2, 3, 49, 50, 51, 100, 1000, 2501])
def test_there_are_as_many_products_as_asked_for(count: int) -> None:
    assert sum(1 for _ in products(count)) == count
    expected = {f"HW-{number:06d}" for number in range(count) if number % 50 not in (1, 4, 6)}
    assert {row["sku"] for row in product_dicts(count)} - {""} >= expected


@pytest.mark.parametrize("day", [0, 1, 30, 400])
def test_no_day_says_anything_by_its_order(day: int) -> None:
    skus = [row["sku"] for row in product_dicts(3000, day) if row["sku"]]
    rising = sum(first < second for first, second in itertools.pairwise(skus))
    assert 0.4 < rising / len(skus) < 0.6
    links = [row["JSON_parentId"] for row in stock_dicts(3000, 3, day)]
    assert sum(first == second for first, second in itertools.pairwise(links)) < 30


def test_two_days_come_in_two_orders() -> None:
    assert [row[0] for row in products(50, 0)] != [row[0] for row in products(50, 1)]


@pytest.mark.parametrize("day", [0, 1, 17, 365])
class TestFiftyProductsShowEveryBlemish:
    def test_skus_that_are_missing_and_that_come_twice(self, day: int) -> None:
        rows = [tuple(row.values()) for row in product_dicts(50, day)]
        skus = Counter(row[0] for row in rows)
        assert skus[""] == 1
        assert skus["HW-000003"] == 2 and len({row for row in rows if row[0] == "HW-000003"}) == 1
        assert skus["HW-000005"] == 2 and len({row for row in rows if row[0] == "HW-000005"}) == 2

    def test_identical_products_share_a_link_and_each_brings_its_stock(self, day: int) -> None:
        (link,) = {row["inventory_locations"] for row in product_dicts(50, day) if row["sku"] == "HW-000003"}
        shared = Counter(tuple(row.values()) for row in stock_dicts(50, 3, day) if row["JSON_parentId"] == link)
        assert len(shared) == 3 and set(shared.values()) == {2}

    def test_dimensions_that_are_missing_and_units_that_are_mixed(self, day: int) -> None:
        rows = product_dicts(50, day)
        sides = [(row["dimensions_length"], row["dimensions_height"], row["dimensions_unit"]) for row in rows]
        assert ("", "", "") in sides
        assert any(length and not height for length, height, _ in sides)
        for column, units in (("dimensions_unit", {"cm", "in", "mm", "m"}), ("weight_unit", {"oz", "lb", "g", "kg"})):
            seen = {row[column] for row in rows} - {""}
            assert {unit.strip().lower() for unit in seen} == units
            assert any(unit != unit.lower() for unit in seen) and any(unit != unit.strip() for unit in seen)

    def test_names_that_csv_and_copy_trip_over(self, day: int) -> None:
        names = " ".join(row["name"] for row in product_dicts(50, day))
        assert all(text in names for text in ('"', "\n", "\r\n", "\t", "\\N", ",", "\U0001f510"))
        assert "\\." in {row["name"] for row in product_dicts(50, day)}

    def test_is_active_is_keboolas_true_or_false_or_neither(self, day: int) -> None:
        flags = Counter(row["is_active"] for row in product_dicts(50, day))
        assert flags["1"] > flags[""] > 0
        assert len(set(flags) - {"1", ""}) == 1

    def test_stock_without_product_and_products_without_stock(self, day: int) -> None:
        links = {row["inventory_locations"] for row in product_dicts(50, day)}
        parents = {row["JSON_parentId"] for row in stock_dicts(50, 3, day)}
        assert "" in links and "" not in parents
        assert links - {""} <= parents
        assert len(parents - links) == 1

    def test_quantities(self, day: int) -> None:
        rows = stock_dicts(50, 3, day)
        pairs = [(row["quantity_available"], row["quantity_on_hand"]) for row in rows]
        numbers = [(int(available), int(on_hand)) for available, on_hand in pairs if available.lstrip("-").isdigit()]
        assert len(numbers) == len(pairs) - 1
        assert 0.02 < sum(on_hand > available for available, on_hand in numbers) / len(numbers) < 0.2
        assert any(available < 0 for available, _ in numbers)
        assert ("10", "9") in pairs
        assert sum(row["warehouse_id"] == "" for row in rows) == 1
        assert {row["warehouse_id"] for row in rows} == {"", "101", "102", "103"}


def test_every_listed_blemish_has_a_place_of_its_own() -> None:
    assert len(set(BLEMISHES.values())) == len(BLEMISHES)
    assert max(BLEMISHES.values()) < 50


def test_a_product_and_its_stock_agree_on_every_day() -> None:
    for day in range(0, 60, 7):
        links = {row["inventory_locations"] for row in product_dicts(500, day)} - {""}
        parents = {row["JSON_parentId"] for row in stock_dicts(500, 2, day)}
        assert links <= parents and len(parents - links) == 10


def test_a_hundredth_changes_from_one_day_to_the_next_and_links_change_with_it() -> None:
    for day in (0, 99, 1000):
        for rows in (products, lambda count, day: stock(count, 3, day)):
            today, tomorrow = Counter(rows(5_000, day)), Counter(rows(5_000, day + 1))
            assert 0.006 < (today - tomorrow).total() / today.total() < 0.014
            assert today.total() == tomorrow.total()


def test_stock_that_changes_has_another_link() -> None:
    by_link = [{tuple(row.values()) for row in stock_dicts(2000, 3, day)} for day in (0, 40)]
    moved = {row[-1] for row in by_link[0] - by_link[1]}
    assert moved and not moved & {row[-1] for row in by_link[1]}


def test_rows_stay_the_same_if_nothing_changes() -> None:
    assert Counter(stock(200, 2, 0, changing=0)) == Counter(stock(200, 2, 90, changing=0))
    assert not Counter(stock(200, 2, 0, changing=1)) & Counter(stock(200, 2, 1, changing=1))


def test_thirty_days_sell_out_and_restock() -> None:
    def sold_out(day: int) -> set[str]:
        sku_of = {row["inventory_locations"]: row["sku"] for row in product_dicts(500, day)}
        filled = {row["JSON_parentId"] for row in stock_dicts(500, 3, day) if row["quantity_available"] != "0"}
        return {sku for link, sku in sku_of.items() if link not in filled}

    first, last = sold_out(0), sold_out(30)
    assert last - first and first - last
    assert 50 < len(first) < 250


# ---- names and sizes ------------------------------------------------------------------------------------------------


def test_names_that_csv_trips_over_are_given_to_tests_alone() -> None:
    plain, odd = ([row for row in products(200, 3, odd_names=odd)] for odd in (False, True))
    differ = [(one, other) for one, other in zip(plain, odd, strict=True) if one != other]
    assert len(differ) == 4 * 4  # four of each 50
    assert all(one[:1] + one[2:] == other[:1] + other[2:] for one, other in differ)
    assert all(re.fullmatch("[A-Z][a-z]+ [A-Z][a-z]+ [A-Z][a-z]+", row[1]) for row in plain)


def test_products_are_of_the_kind_that_their_names_say_and_of_its_size() -> None:
    centimetres = {"cm": 1, "mm": 0.1, "m": 100, "in": 2.54}
    kinds = {"Cable": "cable", "Signer": "hardware wallet", "Plate": "backup", "Sleeve": "case", "Dock": "accessory"}
    seen = set()
    for row in products(2000):
        second = row[1].split()[1]
        assert kinds.get(second, row[2]) == row[2]
        if row[2] == "hardware wallet" and row[9]:
            unit = centimetres[row[10].strip().lower()]
            volume = float(row[7]) * float(row[8]) * float(row[9]) * unit**3
            assert 4 < volume < 110, row
        seen.add(row[2])
    assert seen == {"hardware wallet", "accessory", "backup", "case", "cable", "merchandise"}


# ---- the cast -------------------------------------------------------------------------------------------------------


def test_the_cast_is_there_with_a_story_alone_or_beside_others() -> None:
    assert list(products(0)) == list(stock(0)) == []
    alone = Counter(products(0, 70, story_ends=70))
    assert {row[0] for row in alone} == {member.sku for member in CAST} and alone.total() == len(CAST) + 1
    assert Counter(products(100, 70, story_ends=70)) == alone + Counter(products(100, 70))
    rows = Counter(stock(0, day=70, story_ends=70))
    assert Counter(stock(100, 3, 70, story_ends=70)) == rows + Counter(stock(100, 3, 70))
    links = {row[4] for row in alone}
    assert Counter(row[-1] in links for row in rows.elements()) == {True: 3 * (len(CAST) + 1), False: 1}


def test_the_story_depends_on_how_long_before_its_end_a_day_is() -> None:
    def told(day: int, story_ends: int) -> Counter:
        return Counter(products(0, day, story_ends=story_ends)) + Counter(stock(0, day=day, story_ends=story_ends))

    assert told(70, 80) == told(1070, 1080) != told(71, 80)
    # before its first day and after its last, nothing changes
    assert told(10, 80) == told(51, 80) != told(52, 80)
    assert told(90, 80) == told(80, 80) != told(79, 80)


def test_rows_of_the_cast_come_in_no_order_either() -> None:
    orders = {tuple(row[0] for row in products(0, day, story_ends=29)) for day in range(30)}
    assert len(orders) == 30


def test_the_sandbox_takes_it_as_one_import() -> None:
    with KeboolaServer() as keboola:
        put_inventory(keboola, products=50, warehouses=3, day=2)
        assert keboola.row_count(PRODUCTS_TABLE) == 50
        assert keboola.row_count(STOCK_TABLE) == 50 * 3 - 3 + 1
        put_inventory(keboola, products=0, day=2, story_ends=2)
        assert keboola.row_count(PRODUCTS_TABLE) == len(CAST) + 1
        assert keboola.row_count(STOCK_TABLE) == 3 * (len(CAST) + 1) + 1
