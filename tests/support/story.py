"""The mornings of the demo, as rows of bronze."""

from __future__ import annotations

from datetime import date, timedelta

from sandbox.inventory import PRODUCT_COLUMNS, STOCK_COLUMNS, products, stock

TODAY = date(2027, 1, 12)


Rows = list[dict[str, str]]


def bronze(day: date, story_ends: date) -> tuple[Rows, Rows]:
    """The rows of a morning, as in bronze."""
    number, last = day.toordinal(), story_ends.toordinal()
    columns = [column.lower() for column in STOCK_COLUMNS]
    return (
        [dict(zip(PRODUCT_COLUMNS, row, strict=True)) for row in products(0, number, story_ends=last)],
        [dict(zip(columns, row, strict=True)) for row in stock(0, day=number, story_ends=last)],
    )


def days(count: int, until: date) -> list[date]:
    return [until - timedelta(days=ago) for ago in range(count - 1, -1, -1)]
