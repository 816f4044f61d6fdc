"""The daily load against psql doing the plain thing, on the same PostgreSQL 18, in turn.

    python benchmarks/daily_load.py                          1,000,000 stock rows, 9 pairs of days
    python benchmarks/daily_load.py --rows 100000 --pairs 3  a quick look

Ours: exports of 8 gzip slices a table over HTTP from the sandbox, in a process of its own. Plain: the same rows from
local, unpacked CSV files, TRUNCATE + \\copy + TRUNCATE + INSERT (plain_daily_load.sql). Each has a database of its own on
one server. 1 % of the products change from day to day; rows come in random order, as Keboola delivers them. Both ways
take turns, and which comes first changes every day. After every pair both silvers are compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psycopg2  # noqa: E402

from lib.embedded import Server, remove  # noqa: E402
from sandbox.inventory import PRODUCT_COLUMNS, STOCK_COLUMNS, put_inventory, products, stock  # noqa: E402
from sandbox.keboola_server import KeboolaServer  # noqa: E402

TOKEN = "815-4711-benchmark"
WAREHOUSES = 10
SILVER = ("silver.products", "silver.stock_levels", "silver.product_stock")
JOBS = {
    "products": {
        "extract": {"keboola_table": "in.c-interview_de.products"},
        "load": {"table": "bronze.products"},
        "transform": ["bronze/products.sql", "silver/products.sql"],
    },
    "stock": {
        "depends_on": ["products"],
        "extract": {"keboola_table": "in.c-interview_de.products_inventory_locations"},
        "load": {"table": "bronze.products_inventory_locations"},
        "transform": [
            "bronze/products_inventory_locations.sql",
            "silver/stock_levels.sql",
            "silver/product_stock.sql",
            "silver/stock_thresholds.sql",
            "gold/product_status_summary.sql",
        ],
    },
}
#: stage and bronze alone
LANDING = {"stock": {**JOBS["stock"], "depends_on": [], "transform": ["bronze/products_inventory_locations.sql"]}}


# ---- the two ways ---------------------------------------------------------------------------------------------------


def keboola_process(pipe: Pipe, rows: int) -> None:
    """The sandbox, told which day it is."""
    with KeboolaServer(token=TOKEN, polls=0, slices=8) as keboola:
        pipe.send((keboola.url, keboola.store_environment))
        while (day := pipe.recv()) is not None:
            put_inventory(keboola, products=rows // WAREHOUSES, warehouses=WAREHOUSES, day=day)
            pipe.send(day)


class Bench:
    """A server with a database for each way, a sandbox, and a project that loads from it."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.server = Server.start(folder / "postgres")
        self.pipe, other = multiprocessing.Pipe()
        self.keboola = multiprocessing.Process(target=keboola_process, args=(other, rows), daemon=True)
        self.keboola.start()
        url, store = self.pipe.recv()
        self.environ = {**os.environ, **store, "KEBOOLA_TOKEN": TOKEN, "POSTGRES_PASSWORD": "none"}
        self.project = folder / "project"
        shutil.copytree(ROOT, self.project, ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "__pycache__"))
        address = self.server.connect_args("ours")
        (self.project / "elt_settings.toml").write_text(
            f'[keboola]\nurl = "{url}"\n[postgres]\nhost = "{address["host"]}"\nport = {address["port"]}\n'
            f'dbname = "ours"\nuser = "{address["user"]}"\n'
        )
        self.empty()

    def close(self) -> None:
        self.pipe.send(None)
        self.keboola.join()
        remove(self.folder / "postgres")

    def sql(self, database: str, text: str) -> list[tuple]:
        connection = psycopg2.connect(**self.server.connect_args(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def empty(self) -> None:
        """Both ways start with nothing but, for the plain one, its empty tables."""
        for name in ("ours", "plain"):
            self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self.sql("postgres", f"CREATE DATABASE {name}")
        self.sql("plain", "CREATE SCHEMA elt; CREATE SCHEMA bronze; CREATE SCHEMA silver")
        for name in ("publish_rows", "to_number", "to_text"):
            self.sql("plain", (ROOT / f"lib/elt/{name}.sql").read_text())
        for path in (
            "bronze/products",
            "bronze/products_inventory_locations",
            "silver/products",
            "silver/stock_levels",
            "silver/product_stock",
        ):
            text = (ROOT / f"sql_scripts/{path}.sql").read_text()
            self.sql("plain", text.partition("\nDROP TABLE IF EXISTS pg_temp.")[0])

    def new_day(self, day: int) -> None:
        """The same rows for both: in Keboola, and as local files."""
        self.pipe.send(day)
        self.pipe.recv()
        count = self.rows // WAREHOUSES
        for name, rows in (("products", products(count, day)), ("stock", stock(count, WAREHOUSES, day))):
            with open(self.folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)

    def ours(self, jobs: dict[str, object]) -> dict[str, float]:
        """One daily load as a process of its own: seconds to COMMIT and to exit, and its peak memory in MB."""
        (self.project / "elt_jobs.json").write_text(json.dumps(jobs))
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, self.project / "elt_daily_load.py", "--quiet"], env=self.environ, cwd="/"
        )
        _, status, usage = os.wait4(process.pid, 0)
        exited = time.time() - began
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the daily load failed, see above")
        ((committed, stage, publish),) = self.sql(
            "ours",
            "SELECT extract(epoch FROM finished_at), max(stage_seconds), sum(publish_seconds) FROM elt.runs"
            " JOIN elt.job_runs USING (run_id) GROUP BY run_id ORDER BY run_id DESC LIMIT 1",
        )
        peak = usage.ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2)
        return {
            "commit": float(committed) - began,
            "exit": exited,
            "stage": float(stage),
            "publish": float(publish),
            "MB": peak,
        }

    def plain(self, script: str) -> float:
        """Seconds that psql needs for a script, to its exit."""
        for name, columns in (("products", PRODUCT_COLUMNS), ("stock", STOCK_COLUMNS)):
            script = script.replace(f"COLUMNS_OF_{name.upper()}", ", ".join(columns).lower())
            script = script.replace(f"FILE_OF_{name.upper()}", f"'{self.folder / f'{name}.csv'}'")
        path = self.folder / "plain.sql"
        path.write_text(script)
        address = " ".join(f"{key}={value}" for key, value in self.server.connect_args("plain").items())
        began = time.time()
        subprocess.run([self.server.psql, "-Xq", "-v", "ON_ERROR_STOP=1", "-d", address, "-f", path], check=True)
        return time.time() - began

    def compare(self) -> None:
        """Both silvers hold the same rows."""
        for table in SILVER:
            counted = f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} AS t"
            if self.sql("ours", counted) != self.sql("plain", counted):
                raise SystemExit(f"{table} differs between the two ways")


# ---- what is measured -----------------------------------------------------------------------------------------------


def pairs(
    count: int, bench: Bench, ours: Callable[[], dict[str, float]], plain: Callable[[], float], first: int = 1
) -> Iterator[tuple]:
    """Days on which both ways ran; which was first changes."""
    for day in range(first, first + count):
        bench.new_day(day)
        if day % 2:
            mine, theirs = ours(), plain()
        else:
            theirs, mine = plain(), ours()
        yield mine, theirs


def report(work: str, limit: float | None, ratios: list[float], ours: list[float], plain: list[float]) -> None:
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    said = "" if limit is None else f"at most {limit:.2f}: " + ("kept" if median(ratios) <= limit else "MISSED")
    print(
        f"{work:<44} {median(ours):>7.2f} s {median(plain):>7.2f} s {median(ratios):>6.2f} ({spread:<12})  {said}",
        flush=True,
    )


def compare_ways(bench: Bench, count: int) -> None:
    plain_day = (ROOT / "benchmarks/plain_daily_load.sql").read_text()
    copy = "\\copy bronze.products_inventory_locations (COLUMNS_OF_STOCK) FROM FILE_OF_STOCK WITH (FORMAT csv)\n"
    print(f"{'work':<44} {'ours':>9} {'plain':>9} {'ratio':>6}", flush=True)

    landing = list(
        pairs(
            count,
            bench,
            lambda: bench.ours(LANDING),
            lambda: bench.plain(f"TRUNCATE bronze.products_inventory_locations;\n{copy}"),
        )
    )
    for work, key, limit in (("stage", "stage", 1.0), ("stage and publish to bronze, to COMMIT", "commit", 2.0)):
        mine = [each[key] for each, _ in landing]
        report(work, limit, [a / b for a, (_, b) in zip(mine, landing)], mine, [b for _, b in landing])

    first = []
    for day in range(min(count, 5)):
        bench.empty()
        first += pairs(1, bench, lambda: bench.ours(JOBS), lambda: bench.plain(plain_day), 100 + day)
        bench.compare()
    days = []
    for pair in pairs(count, bench, lambda: bench.ours(JOBS), lambda: bench.plain(plain_day), 105):
        days.append(pair)
        bench.compare()
    for name, limit, measured in (("an ordinary day", 0.8, days), ("a first day", 1.3, first)):
        for key in ("commit", "exit"):
            mine = [each[key] for each, _ in measured]
            report(
                f"{name}, to {key.upper()}",
                limit,
                [a / b for a, (_, b) in zip(mine, measured)],
                mine,
                [b for _, b in measured],
            )
    print(f"peak memory of the pipeline process: {median(each['MB'] for each, _ in days):.0f} MB")
    for phase in ("stage", "publish"):
        print(f"  of an ordinary day, {phase}: {median(each[phase] for each, _ in days):.2f} s")
    for job, script, seconds in bench.sql(
        "ours",
        "SELECT job, script, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM elt.script_runs"
        f" WHERE run_id > (SELECT max(run_id) - {count} FROM elt.runs) GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 4",
    ):
        print(f"    {script}: {seconds:.2f} s")


def start_up() -> None:
    """How long a person waits for --help, beyond what Python needs to start."""

    def timed(*command: str) -> float:
        began = time.time()
        subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
        return time.time() - began

    both = [(timed(str(ROOT / "main.py"), "--help"), timed("-c", "pass")) for _ in range(9)]
    print(f"main.py --help: {median(a - b for a, b in both):.2f} s more than python -c pass")


@contextmanager
def made(rows: int) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-", dir="/var/tmp"))
    folder.chmod(0o755)
    bench = Bench(folder, rows)
    try:
        yield bench
    finally:
        bench.close()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, {given.rows:,} stock rows"
    )
    start_up()
    with made(given.rows) as bench:
        compare_ways(bench, given.pairs)


if __name__ == "__main__":
    main()
