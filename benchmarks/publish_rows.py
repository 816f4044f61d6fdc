"""Compares elt.publish_rows with DELETE + INSERT and with TRUNCATE + INSERT of the same rows.

    python benchmarks/publish_rows.py                 1,000,000 rows, 1 % changed, 3 rounds
    python benchmarks/publish_rows.py --rows 100000 --changed 50 --rounds 5

Two days of one table are published in turn. Each way has its own table: text primary key, 11 columns. The new rows are
in a temporary table, in key order or in random order, which is that of an export. One transaction is timed, without the
VACUUM ANALYZE after it. The ways take turns within a round, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg2
from psycopg2.extensions import cursor as Cursor

from lib.postgres.embedded.server import Server, remove

FUNCTION = Path(__file__).parent.parent / "lib" / "elt_schema" / "publish_rows.sql"

TABLE = """
CREATE TABLE {name} (
    sku text PRIMARY KEY,
    product_name text,
    product_type text,
    is_active boolean,
    weight_g numeric(12, 3),
    length_cm numeric(12, 2),
    width_cm numeric(12, 2),
    height_cm numeric(12, 2),
    quantity integer,
    updated_at timestamptz,
    note text
)
"""

#: {0}: the day, {1}: percent of the rows that have another quantity on the second day, {2}: number of rows
ROWS = """
SELECT
    'SKU-' || lpad(n::text, 10, '0'),
    'Product ' || md5(n::text),
    (ARRAY['simple', 'bundle', 'virtual'])[1 + n % 3],
    n % 7 <> 0,
    (n % 100000) / 7.0,
    (n % 300) / 3.0,
    (n % 200) / 3.0,
    (n % 100) / 3.0,
    CASE WHEN {0} = 2 AND (n % 10000) < {1} * 100 THEN -1 ELSE n % 500 END,
    TIMESTAMPTZ '2026-01-01 00:00:00Z' + n * INTERVAL '1 second',
    CASE WHEN n % 10 = 0 THEN 'note ' || n END
FROM generate_series(1, {2}) AS n
"""

WAYS = {
    "publish_rows": "SELECT * FROM elt.publish_rows('{target}', 'rows_now')",
    "delete_insert": "DELETE FROM {target}; INSERT INTO {target} SELECT * FROM rows_now",
    "truncate_insert": "TRUNCATE {target}; INSERT INTO {target} SELECT * FROM rows_now",
}
ORDERS = {"key": "sku", "random": "md5(sku)"}


def prepare(cursor: Cursor, rows: int, changed: float) -> None:
    """Make the rows of both days in each order, and a table per way and order that holds the first day."""
    cursor.execute("CREATE SCHEMA elt; " + FUNCTION.read_text("utf-8"))
    for order, by in ORDERS.items():
        for day in (1, 2):
            cursor.execute(TABLE.replace("PRIMARY KEY", "").format(name=f"day_{day}_{order}"))
            cursor.execute(
                f"INSERT INTO day_{day}_{order} SELECT * FROM ({ROWS.format(day, changed, rows)}) AS r (sku)"
                f" ORDER BY {by}"
            )
        for way in WAYS:
            cursor.execute(TABLE.format(name=f"{way}_{order}"))
            cursor.execute(f"INSERT INTO {way}_{order} SELECT * FROM day_1_{order}")
            cursor.execute(f"VACUUM ANALYZE {way}_{order}")


def measure(cursor: Cursor, way: str, order: str, day: int) -> float:
    """Publish one day in one way. Returns the seconds."""
    cursor.execute("DROP TABLE IF EXISTS pg_temp.rows_now")
    cursor.execute(f"CREATE TEMP TABLE rows_now AS SELECT * FROM day_{day}_{order}")
    cursor.execute("CHECKPOINT")
    started = time.perf_counter()
    cursor.execute(f"BEGIN; {WAYS[way].format(target=f'{way}_{order}')}; COMMIT")
    seconds = time.perf_counter() - started
    cursor.execute(f"VACUUM ANALYZE {way}_{order}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=float, default=1, help="percent (default 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgresql", type=int, choices=(16, 18), default=18)
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-"))
    folder.chmod(0o711)  # if we are root, the server runs as another user, who must reach the folder
    server = Server.start(folder, options.postgresql, settings={"shared_buffers": "512MB", "max_wal_size": "8GB"})
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    try:
        connection = psycopg2.connect(**server.connect_args("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET client_min_messages = warning")
            prepare(cursor, options.rows, options.changed)
            for turn in range(options.rounds):
                for order in ORDERS:
                    for way in WAYS:
                        times[order, way].append(measure(cursor, way, order, 2 - turn % 2))
        connection.close()
    finally:
        remove(folder)

    print(f"{options.rows:,} rows, {options.changed:g} % changed, medians of {options.rounds}, s")
    for order in ORDERS:
        ours = median(times[order, "publish_rows"])
        for way in WAYS:
            theirs = median(times[order, way])
            print(f"{order:8} {way:16} {theirs:7.2f}   publish_rows takes {ours / theirs:.2f} of it")


if __name__ == "__main__":
    main()
