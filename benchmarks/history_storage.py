"""Compares size and speed of two stock histories: changed rows with a range of days, or partitions with a row per day.

    python benchmarks/history_storage.py                              100,000 rows, 1,000 days, 1 % changing a day
    python benchmarks/history_storage.py --rows 10000 --days 100      takes only seconds

Both hold the same days, each with the index that the questions need. Every question is asked on both, and the answers
must be equal. The benchmark prints the size of each, the median time of each question, and the time to add an ordinary
day.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg2
from psycopg2.extensions import cursor as Cursor

from lib.postgres.embedded.server import Server, remove

WAREHOUSES = 10
FIRST = "DATE '2024-01-01'"
COLUMNS = """
    product_sku text NOT NULL, warehouse_id text NOT NULL, quantity_available numeric NOT NULL,
    quantity_on_hand numeric NOT NULL, quarantined_quantity numeric NOT NULL, quantity_unavailable numeric NOT NULL
"""
#: each row changes every `period` days, different rows on different days; {day} is an offset from the first day
STATE = """
    'SKU-' || lpad((n / {warehouses})::text, 7, '0') AS product_sku, (101 + n % {warehouses})::text AS warehouse_id,
    (n * 7919 + ({day} + n) / {period} * 31) % 60::numeric AS quantity_available,
    (n * 7919 + ({day} + n) / {period} * 31) % 60::numeric AS quantity_on_hand,
    (n % 4)::numeric AS quarantined_quantity, (n % 5)::numeric AS quantity_unavailable
"""

QUESTIONS = {
    "the latest day, by warehouse": (
        "SELECT warehouse_id, sum(quantity_available) FROM {days} WHERE {on_day} GROUP BY 1 ORDER BY 1",
        "last",
    ),
    "a day in the middle, by warehouse": (
        "SELECT warehouse_id, sum(quantity_available) FROM {days} WHERE {on_day} GROUP BY 1 ORDER BY 1",
        "middle",
    ),
    "one product, every day": (
        "SELECT day, sum(quantity_available) FROM {every_day} WHERE product_sku = 'SKU-0000042' GROUP BY 1 ORDER BY 1",
        "last",
    ),
    "what changed in the last 28 days": (
        "{changes}",
        "last",
    ),
    "pieces on every day": (
        "{every_total}",
        "last",
    ),
}
RANGES = {
    "days": "ranges",
    "on_day": "valid_from <= {day} AND valid_to > {day}",
    "every_day": "ranges JOIN calendar ON day >= valid_from AND day < valid_to",
    "changes": "SELECT count(*) FROM ranges WHERE valid_from > {day} - 28 AND valid_from > {first}",
    # add the pieces of each range on its first day, subtract them after its last, and sum up over the days
    "every_total": """
        SELECT day, sum(pieces) OVER (ORDER BY day)
        FROM (
            SELECT day, sum(pieces) AS pieces
            FROM (
                SELECT valid_from AS day, quantity_available AS pieces FROM ranges
                UNION ALL SELECT valid_to, -quantity_available FROM ranges WHERE valid_to < 'infinity'
                UNION ALL SELECT day, 0 FROM calendar
            ) AS steps GROUP BY day
        ) AS days ORDER BY day
    """,
}
DAILY = {
    "days": "daily",
    "on_day": "day = {day}",
    "every_day": "daily",
    "changes": """
        SELECT count(*) FROM (
            SELECT day, quantity_available IS DISTINCT FROM
                lag(quantity_available) OVER (PARTITION BY product_sku, warehouse_id ORDER BY day) AS moved
            FROM daily WHERE day >= {day} - 28
        ) AS steps WHERE moved AND day > {day} - 28
    """,
    "every_total": "SELECT day, sum(quantity_available) FROM daily GROUP BY day ORDER BY day",
}


def build(cursor: Cursor, rows: int, days: int, period: int) -> None:
    """Make both histories with the same days. The partitions of the daily one are months."""
    cursor.execute(f"CREATE TABLE calendar AS SELECT {FIRST} + n AS day FROM generate_series(0, {days - 1}) AS n")
    cursor.execute(
        f"CREATE TABLE ranges ({COLUMNS}, valid_from date, valid_to date,"
        " PRIMARY KEY (product_sku, warehouse_id, valid_from))"
    )
    # row n changes on each day for which (day + n) is a multiple of the period
    state = STATE.format(warehouses=WAREHOUSES, day="began", period=period)
    cursor.execute(f"""
        INSERT INTO ranges
        SELECT {state}, {FIRST} + began,
               CASE WHEN ends < {days} THEN {FIRST} + ends ELSE 'infinity' END
        FROM generate_series(0, {rows - 1}) AS n
        CROSS JOIN LATERAL (
            SELECT 0 AS began, period - n % period AS ends FROM (VALUES ({period})) AS p (period)
            UNION ALL
            SELECT start, start + {period}
            FROM generate_series({period} - n % {period}, {days - 1}, {period}) AS start
        ) AS steps
        ORDER BY 1, 2, 7
        """)
    cursor.execute("CREATE INDEX ON ranges (valid_to, valid_from)")
    cursor.execute(
        f"CREATE TABLE daily ({COLUMNS}, day date, PRIMARY KEY (product_sku, warehouse_id, day))"
        " PARTITION BY RANGE (day)"
    )
    # the day after the last needs a partition too, because ordinary_day() adds it
    cursor.execute(
        f"SELECT DISTINCT date_trunc('month', {FIRST} + n)::date FROM generate_series(0, {days}) AS n ORDER BY 1"
    )
    for (month,) in cursor.fetchall():
        cursor.execute(
            f"CREATE TABLE daily_{month:%Y_%m} PARTITION OF daily"
            f" FOR VALUES FROM ('{month}') TO (date '{month}' + interval '1 month')"
        )
        state = STATE.format(warehouses=WAREHOUSES, day=f"(day - {FIRST})", period=period)
        cursor.execute(
            f"INSERT INTO daily SELECT {state}, day FROM generate_series(0, {rows - 1}) AS n"
            f" JOIN calendar ON date_trunc('month', day) = '{month}' ORDER BY day, n"
        )
        cursor.execute(f"CREATE INDEX ON daily_{month:%Y_%m} (day)")
    cursor.execute("VACUUM ANALYZE")


def ordinary_day(cursor: Cursor, rows: int, days: int, period: int) -> tuple[float, float]:
    """Seconds to add the next day to each history, from the same temporary table. Both are rolled back."""
    state = STATE.format(warehouses=WAREHOUSES, day=days, period=period)
    cursor.execute(f"CREATE TEMP TABLE today AS SELECT {state} FROM generate_series(0, {rows - 1}) AS n")
    cursor.execute("ANALYZE today")
    day, seconds = f"{FIRST} + {days}", []
    same = "(r.quantity_available, r.quantity_on_hand, r.quarantined_quantity, r.quantity_unavailable) IS NOT DISTINCT"
    same += " FROM (t.quantity_available, t.quantity_on_hand, t.quarantined_quantity, t.quantity_unavailable)"
    for statements in (
        (
            "CREATE TEMP TABLE moved AS SELECT t.* FROM today AS t LEFT JOIN ranges AS r"
            " ON r.product_sku = t.product_sku"
            f" AND r.warehouse_id = t.warehouse_id AND r.valid_to = 'infinity' WHERE NOT ({same})",
            f"UPDATE ranges AS r SET valid_to = {day} FROM moved WHERE r.product_sku = moved.product_sku"
            " AND r.warehouse_id = moved.warehouse_id AND r.valid_to = 'infinity'",
            f"INSERT INTO ranges SELECT moved.*, {day}, 'infinity' FROM moved",
        ),
        (f"INSERT INTO daily SELECT today.*, {day} FROM today",),
    ):
        cursor.execute("BEGIN")
        began = time.perf_counter()
        for statement in statements:
            cursor.execute(statement)
        seconds.append(time.perf_counter() - began)
        cursor.execute("ROLLBACK")
    return seconds[0], seconds[1]


def ask(cursor: Cursor, layout: dict[str, str], question: str, day: str, rounds: int) -> tuple[float, list[tuple]]:
    """The median seconds of a question, and its answer."""
    pieces = {name: text.format(day=day, first=FIRST) for name, text in layout.items()}
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        cursor.execute(question.format(**pieces))
        answer = cursor.fetchall()
        seconds.append(time.perf_counter() - began)
    return median(seconds), answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="products and warehouses (default 100,000)")
    parser.add_argument("--days", type=int, default=1_000)
    parser.add_argument("--changing", type=float, default=1, help="percent of the rows a day (default 1)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    period = round(100 / options.changing)

    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-"))
    folder.chmod(0o711)  # if we are root, the server runs as another user, who must reach the folder
    settings = {"shared_buffers": "512MB", "max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0"}
    server = Server.start(folder / "data", 18, fsync=False, settings=settings)
    try:
        connection = psycopg2.connect(**server.connect_args("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET jit = off; SET work_mem = '64MB'; SET client_min_messages = warning")
            build(cursor, options.rows, options.days, period)
            report(cursor, options, period)
        connection.close()
    finally:
        server.stop()
        remove(folder)


def report(cursor: Cursor, options: argparse.Namespace, period: int) -> None:
    """Print sizes and times. Raises AssertionError if the answers differ."""
    title = f"{options.rows:,} rows, {options.days:,} days, {options.changing:g} %"
    print(f"{title:36} {'ranges':>13} {'a row a day':>13}")
    cursor.execute("""
        SELECT (SELECT count(*) FROM ranges), (SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class
                WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'daily'::regclass)),
               pg_total_relation_size('ranges') / 1e6, (SELECT sum(pg_total_relation_size(inhrelid)) / 1e6
                FROM pg_inherits WHERE inhparent = 'daily'::regclass)
        """)
    rows_ranges, rows_daily, size_ranges, size_daily = cursor.fetchone()
    print(f"{'rows':36} {rows_ranges:13,} {rows_daily:13,}")
    print(f"{'MB, indexes included':36} {size_ranges:13,.0f} {size_daily:13,.0f}")
    days = {"last": f"({FIRST} + {options.days - 1})", "middle": f"({FIRST} + {options.days // 2})"}
    for title, (question, day) in QUESTIONS.items():
        took_ranges, answer = ask(cursor, RANGES, question, days[day], options.rounds)
        took_daily, expected = ask(cursor, DAILY, question, days[day], options.rounds)
        assert answer == expected, f"{title}: {answer[:3]} is not {expected[:3]}"
        print(f"{title + ', s':36} {took_ranges:13.3f} {took_daily:13.3f}")
    took_ranges, took_daily = ordinary_day(cursor, options.rows, options.days, period)
    print(f"{'adding an ordinary day, s':36} {took_ranges:13.3f} {took_daily:13.3f}")


if __name__ == "__main__":
    main()
