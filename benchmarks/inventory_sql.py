"""Compares the time of all silver scripts and checks of an ordinary run with a plain script that has the same result.

    python benchmarks/inventory_sql.py                              100,000 products in 11 warehouses: 1,012,000 rows
    python benchmarks/inventory_sql.py --products 2000 --rounds 1   takes only seconds

The plain script is inventory_plain.sql: for each table TRUNCATE, then INSERT of one query. Both sides run the same
checks. Both run with psql -f, one transaction per day, each in its own database with the same bronze rows. They take
turns within a round, so that a busy machine slows both. Afterwards the silver tables of both must hold the same rows.
Then all rows of each gold view are read; of the daily facts only those of one day.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg2
from psycopg2.extensions import connection as Connection

from lib.postgres.embedded.server import Server, remove
from sandbox import inventory

PROJECT = Path(__file__).parent.parent
FIRST_DAY = date(2026, 1, 1)
SCRIPTS = PROJECT / "sql_scripts"
PLAIN = Path(__file__).parent / "inventory_plain.sql"
JOBS = [job for name, job in json.loads((PROJECT / "elt_jobs.json").read_text()).items() if name != "$schema"]
TRANSFORMS = [script for job in JOBS for script in job["transform"]]
CHECKS = [check if isinstance(check, str) else check["script"] for job in JOBS for check in job.get("checks", [])]
#: the settings that a run makes before each script
OPTIONS = "-c jit=off -c work_mem=64MB -c parallel_tuple_cost=0.01 -c enable_parallel_hash=off -c search_path=public"
#: the place in a silver script after its table is made and before its rows are computed
BEFORE_ROWS = re.compile(r"\nDROP (?:TABLE|VIEW) IF EXISTS pg_temp\.")
#: the silver tables that both sides fill; identity columns are not compared, because their numbers may differ
FILLED = sorted(set(re.findall(r"INSERT INTO silver\.(\w+)", PLAIN.read_text(encoding="utf-8"))))
SAME_ROWS = f"""
    SELECT table_name, string_agg(format('%I', column_name), ', ' ORDER BY ordinal_position)
    FROM information_schema.columns
    WHERE table_schema = 'silver' AND is_identity = 'NO' AND table_name IN ({", ".join(f"'{name}'" for name in FILLED)})
    GROUP BY table_name ORDER BY table_name
"""


def layer(name: str) -> list[str]:
    """Scripts of a layer, in the order of a run."""
    return [script for script in TRANSFORMS if script.startswith(f"{name}/")]


class Side:
    """One side's database, empty at first."""

    def __init__(self, server: Server, name: str) -> None:
        administrator = psycopg2.connect(**server.connect_args("postgres"))
        administrator.autocommit = True
        with administrator.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}")
        administrator.close()
        self.server, self.name = server, name
        self.connection: Connection = psycopg2.connect(**server.connect_args(name))
        self.connection.autocommit = True

    def make_tables(self) -> None:
        """Make the schemas, the functions of elt, and empty tables in bronze and silver."""
        self.sql("CREATE SCHEMA elt; CREATE SCHEMA bronze; CREATE SCHEMA silver; CREATE SCHEMA gold; SET jit = off")
        for helper in sorted((PROJECT / "lib" / "elt_schema").glob("*.sql")):
            self.sql(helper.read_text(encoding="utf-8"))
        for script in layer("bronze") + layer("silver"):
            definition = BEFORE_ROWS.split((SCRIPTS / script).read_text(encoding="utf-8"))[0]
            if "CREATE TABLE" in definition:  # else it holds only comments
                self.sql(definition)

    def sql(self, text: str) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []

    def put(self, table: str, columns: Sequence[str], data: Iterable[str]) -> None:
        """Replace the rows of a bronze table."""
        self.sql(f"TRUNCATE {table}")
        with self.connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)", io.StringIO(data))
        self.sql(f"VACUUM ANALYZE {table}")

    def psql(self, day: date, files: Sequence[Path]) -> float:
        """Run these files with psql -f in one transaction. Returns its seconds."""
        command = [str(self.server.psql), "-Xq", "-1", "-v", "ON_ERROR_STOP=1", "-v", f"day={day}"]
        command += [word for file in files for word in ("-f", str(file))]
        address = " ".join(f"{key}={value}" for key, value in self.server.connect_args(self.name).items())
        options = f"{OPTIONS} -c elt.run_date={day}"
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "-d", f"{address} options='{options}'"], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        return seconds

    def rest(self) -> None:
        """VACUUM as a run does after its commit, and CHECKPOINT. Not timed."""
        for (table,) in self.sql(
            "SELECT 'silver.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = 'silver'"
        ):
            self.sql(f"VACUUM (TRUNCATE false) {table}")
        self.sql("CHECKPOINT")

    def fingerprints(self) -> dict[str, tuple]:
        """Row count and hash of each silver table. The order of the rows has no effect."""
        return {
            table: self.sql(
                f"SELECT count(*), sum(hashtextextended(ROW({columns})::text, 0)::numeric) FROM silver.{table}"
            )[0]
            for table, columns in self.sql(SAME_ROWS)
        }


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


def put_day(sides: Sequence[Side], products: int, warehouses: int, number: int) -> None:
    """Load the same bronze rows into every side."""
    for table, columns, rows in (
        ("bronze.products", inventory.PRODUCT_COLUMNS, inventory.products(products, number)),
        (
            "bronze.products_inventory_locations",
            inventory.STOCK_COLUMNS,
            inventory.stock(products, warehouses, number),
        ),
    ):
        data = csv_text(rows)
        for side in sides:
            side.put(table, columns, data)


def compare(sides: Sequence[Side], options: argparse.Namespace) -> None:
    """Print the median times of both sides, for scripts and checks separately."""
    ours, plain = sides
    silver, checks = [SCRIPTS / script for script in layer("silver")], [SCRIPTS / check for check in CHECKS]
    times: dict[str, list[float]] = {"scripts": [], "plain": [], "checks": [], "plain checks": []}
    for number in range(options.days + options.rounds):
        day = FIRST_DAY + timedelta(days=number)
        put_day(sides, options.products, options.warehouses, number)
        if number == 0:
            for side in sides:  # make the tables and fill them for the first time
                side.psql(day, silver)
                side.psql(day, [SCRIPTS / script for script in layer("gold")])
                side.rest()
            continue
        turns = [(ours, silver, "scripts"), (plain, [PLAIN], "plain")]
        for side, files, name in turns if number % 2 else turns[::-1]:
            seconds = side.psql(day, files)
            checking = side.psql(day, checks)
            side.rest()
            if number >= options.days:
                times[name].append(seconds)
                times["checks" if side is ours else "plain checks"].append(checking)
    assert ours.fingerprints() == plain.fingerprints(), (ours.fingerprints(), plain.fingerprints())
    rows = ours.sql("SELECT count(*) FROM silver.stock_levels")[0][0]
    print(
        f"{options.products:,} products, {rows:,} stock rows, {options.days + options.rounds} days, 1 % changed a day;"
    )
    print(f"medians of {options.rounds}, seconds, with psql -f\n")
    for title, one, other in (
        ("silver scripts", times["scripts"], times["plain"]),
        ("checks", times["checks"], times["plain checks"]),
        (
            "both",
            *(
                [a + b for a, b in zip(times[x], times[y], strict=True)]
                for x, y in (("scripts", "checks"), ("plain", "plain checks"))
            ),
        ),
    ):
        ratio = median(a / b for a, b in zip(one, other, strict=True))
        print(f"{title:24} ours {median(one):7.2f}   TRUNCATE + INSERT {median(other):7.2f}   ratio {ratio:5.2f}")


def time_views(side: Side, rounds: int) -> None:
    """Print how long the server takes to compute all rows of each gold view."""
    print("\nall rows of each gold view, seconds\n")
    for script in layer("gold"):
        view = script.removesuffix(".sql").replace("/", ".")
        where = " WHERE date_key = (SELECT day FROM silver.loaded_days WHERE is_current)" * view.endswith("_daily")
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            # computes every column of every row, but sends none
            plan = side.sql(f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, FORMAT JSON) SELECT * FROM {view}{where}")
            seconds.append(time.perf_counter() - began)
            rows = round(plan[0][0][0]["Plan"]["Actual Rows"])
        print(f"{view:36} {rows:10,} rows {median(seconds):7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--warehouses", type=int, default=11)
    parser.add_argument("--days", type=int, default=1, help="days loaded before the timed ones (default 1)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-"))
    folder.chmod(0o711)  # if we are root, the server runs as another user, who must reach the folder
    server = Server.start(folder / "data", 18, settings={"shared_buffers": "1GB", "max_wal_size": "8GB"})
    try:
        sides = [Side(server, "ours"), Side(server, "plain")]
        for side in sides:
            side.make_tables()
        compare(sides, options)
        time_views(sides[0], options.rounds)
        for side in sides:
            side.connection.close()
    finally:
        server.stop()
        remove(folder)


if __name__ == "__main__":
    main()
