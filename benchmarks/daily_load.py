"""Compares the daily load with a baseline (psql with TRUNCATE, \\copy and INSERT) on the same PostgreSQL 18.

    python benchmarks/daily_load.py                          1,000,000 stock rows, 9 pairs of days
    python benchmarks/daily_load.py --rows 100000 --pairs 3  a quick look
    python benchmarks/daily_load.py --larger 5000000         also our ordinary day with five times the rows

Ours: `elt_daily_load.py` with the jobs, histories and checks of this project. Each table is exported as 8 gzip slices
over HTTP from the sandbox, which runs in a separate process.
Plain: the same rows from local, unpacked CSV files. psql -f runs TRUNCATE + \\copy, then TRUNCATE + INSERT of the same
silver tables (inventory_plain.sql). Then psql -f runs the same checks; they are timed separately.

WAL is measured from the start to the exit, VACUUM included, on both sides.

Both use one server with the settings of lib/postgres/embedded/server.py, each with its own database. 1 % of the
products change from day to day. Rows come in random order, as Keboola delivers them. Which way runs first changes every
day. At the end the silver tables of both must hold the same rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.inventory_sql import CHECKS, FIRST_DAY, PLAIN, SCRIPTS, Side, layer
from lib.postgres.embedded.server import Server, remove
from sandbox.inventory import PRODUCT_COLUMNS, STOCK_COLUMNS, products, put_inventory, stock
from sandbox.keboola_server import KeboolaServer

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "815-4711-benchmark"
#: ten products in eleven warehouses make slightly more than a hundred stock rows, because some products have none
WAREHOUSES = 11
JOBS = json.loads((ROOT / "elt_jobs.json").read_text())
#: one job that only stages and loads bronze
LANDING = {
    "stock": {
        **JOBS["products_inventory_locations"],
        "depends_on": [],
        "transform": ["bronze/products_inventory_locations.sql"],
        "checks": [],
    }
}
COPY_STOCK = """TRUNCATE bronze.products_inventory_locations;
\\copy bronze.products_inventory_locations ({stock_columns}) FROM '{stock}' WITH (FORMAT csv)
"""
COPY_PRODUCTS = (
    "TRUNCATE bronze.products;\n\\copy bronze.products ({products_columns}) FROM '{products}' WITH (FORMAT csv)\n"
)
COMMITTED = re.compile(r"^(\S+ \S+) UTC \[\d+\] LOG:  duration: \S+ ms  statement: COMMIT$", re.MULTILINE)
Seconds = dict[str, float]


# ---- the two ways ---------------------------------------------------------------------------------------------------


def keboola_process(pipe: Pipe, rows: int) -> None:
    """Run the sandbox. It receives the number of each day through the pipe; None ends it."""
    with KeboolaServer(token=TOKEN, polls=0, slices=8) as keboola:
        pipe.send((keboola.url, keboola.store_environment))
        while (number := pipe.recv()) is not None:
            put_inventory(keboola, products=rows // 10, warehouses=WAREHOUSES, day=number)
            pipe.send(number)


class Bench:
    """A server with a database for each way, a sandbox, and a copy of this project that loads from the sandbox."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.server = Server.start(folder / "postgres")
        self.pipe, other = multiprocessing.Pipe()
        self.keboola = multiprocessing.Process(target=keboola_process, args=(other, rows), daemon=True)
        self.keboola.start()
        url, store = self.pipe.recv()
        # as under cron: Python may store its compiled modules
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environ = {**inherited, **store, "KEBOOLA_TOKEN": TOKEN, "POSTGRES_PASSWORD": "none"}
        self.project = folder / "project"
        shutil.copytree(ROOT, self.project, ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "__pycache__"))
        self.url, self.address = url, self.server.connect_args("ours")
        self.settings()
        self.number = 0
        self.empty()

    def settings(self, more: str = "") -> None:
        """Write elt_settings.toml. more: further lines."""
        (self.project / "elt_settings.toml").write_text(
            f'[keboola]\nurl = "{self.url}"\n[postgres]\nhost = "{self.address["host"]}"\n'
            f'port = {self.address["port"]}\ndbname = "ours"\nuser = "{self.address["user"]}"\n{more}'
        )

    def close(self) -> None:
        self.pipe.send(None)
        self.keboola.join()
        remove(self.folder / "postgres")

    def empty(self) -> None:
        """Make two empty databases; the plain one gets its empty tables."""
        self.our_side, self.plain_side = Side(self.server, "ours"), Side(self.server, "plain")
        # the server's log says when a COMMIT was finished; the run can only record when it sent it
        self.our_side.sql("ALTER DATABASE ours SET log_min_duration_statement = 0")
        self.plain_side.make_tables()
        for script in layer("gold"):  # the checks read these views
            self.plain_side.sql((SCRIPTS / script).read_text(encoding="utf-8"))

    def wal(self) -> float:
        """MB of WAL that the server has written so far."""
        ((position,),) = self.plain_side.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return float(position) / 1e6

    def replaced(self) -> float:
        """MB of WAL that it takes to DELETE and INSERT all rows of the bronze table."""
        table = "bronze.products_inventory_locations"
        self.plain_side.sql(f"CREATE UNLOGGED TABLE copied AS TABLE {table}")
        before = self.wal()
        self.plain_side.sql(f"DELETE FROM {table}; INSERT INTO {table} TABLE copied")
        written = self.wal() - before
        self.plain_side.sql("DROP TABLE copied")
        return written

    @property
    def day(self) -> date:
        return FIRST_DAY + timedelta(days=self.number)

    def new_day(self, *, local_files: bool = True) -> None:
        """Make the same rows for both ways: in the sandbox, and as local files."""
        self.number += 1
        self.pipe.send(self.number)
        count = self.rows // 10
        tables = (("products", products(count, self.number)), ("stock", stock(count, WAREHOUSES, self.number)))
        for name, rows in tables if local_files else ():
            with open(self.folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        self.pipe.recv()

    def ours(self, jobs: dict[str, object]) -> Seconds:
        """Run one daily load in a separate process. Returns the seconds to COMMIT, to exit and of each phase, and its
        peak memory in MB."""
        (self.project / "elt_jobs.json").write_text(json.dumps(jobs))
        logged, wal = self.server.log.stat().st_size, self.wal()
        began = time.time()
        exited, usage = self.load()
        with open(self.server.log, encoding="utf-8") as log:
            log.seek(logged)
            committed = datetime.fromisoformat(COMMITTED.findall(log.read())[-1]).replace(tzinfo=UTC)
        ((stage, publish),) = self.our_side.sql(
            "SELECT max(stage_seconds), sum(publish_seconds) FROM elt.job_runs"
            " GROUP BY run_id ORDER BY run_id DESC LIMIT 1"
        )
        peak = usage.ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2)
        return {
            "commit": committed.timestamp() - began,
            "exit": exited,
            "stage": float(stage or 0),  # nothing where no source changed
            "publish": float(publish),
            "MB": peak,
            "WAL": self.wal() - wal,
        }

    def load(self) -> tuple[float, resource.struct_rusage]:
        """Run one daily load in a separate process. Returns its seconds and what it used."""
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, self.project / "elt_daily_load.py", "--quiet", "--date", str(self.day)],
            env=self.environ,
            cwd="/",
        )
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the daily load failed, see above")
        return time.time() - began, usage

    def again(self) -> float:
        """Seconds of a daily load in which nothing changed since the last one. Ends the benchmark if it published."""
        seconds = self.load()[0]
        if self.our_side.sql("SELECT is_unchanged FROM elt.runs ORDER BY run_id DESC LIMIT 1") != [(True,)]:
            raise SystemExit("a daily load was not left out although nothing had changed")
        return seconds

    def plain(self, copies: str, *files: Path) -> Seconds:
        """Run psql with the copies and these files in one transaction, then the checks. Returns the seconds without and
        with the checks."""
        script = self.folder / "copy.sql"
        script.write_text(
            copies.format(
                stock=self.folder / "stock.csv",
                products=self.folder / "products.csv",
                stock_columns=", ".join(STOCK_COLUMNS).lower(),
                products_columns=", ".join(PRODUCT_COLUMNS).lower(),
            )
        )
        wal = self.wal()
        seconds = self.plain_side.psql(self.day, [script, *files])
        wal = self.wal() - wal
        checks = self.plain_side.psql(self.day, [SCRIPTS / check for check in CHECKS]) if files else 0.0
        return {"load": seconds, "load and checks": seconds + checks, "WAL": wal}

    def compare(self) -> None:
        """Ends the benchmark if the silver tables of both ways differ."""
        ours, plain = self.our_side.fingerprints(), self.plain_side.fingerprints()
        if differing := [table for table in plain if ours.get(table) != plain[table]]:
            raise SystemExit(f"the two ways differ in {', '.join(differing)}")


# ---- what is measured -----------------------------------------------------------------------------------------------


class Pairs:
    """The times of days on which both ways did the same work. Which way runs first changes every day."""

    def __init__(self) -> None:
        self.ours: list[Seconds] = []
        self.plain: list[Seconds] = []

    def add(self, bench: Bench, jobs: dict[str, object], copies: str, *files: Path) -> None:
        bench.new_day()
        for way in ("ours", "plain") if bench.number % 2 else ("plain", "ours"):
            if way == "ours":
                self.ours.append(bench.ours(jobs))
            else:
                self.plain.append(bench.plain(copies, *files))

    def forget_first(self) -> None:
        del self.ours[0], self.plain[0]

    def report_day(self, name: str, limit: float) -> None:
        for key, end in (("commit", "COMMIT"), ("exit", "exit")):
            self.report(f"{name}, to {end}", key, limit)
            self.report("    with the checks in psql too", key, None, "load and checks")

    def report(self, work: str, key: str, limit: float | None, plain_key: str = "load", unit: str = "s ") -> None:
        ours, plain = [each[key] for each in self.ours], [each[plain_key] for each in self.plain]
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        said = "" if limit is None else f"at most {limit:.2f}: {'kept' if median(ratios) <= limit else 'MISSED'}"
        print(
            f"{work:<52} {median(ours):>7.2f} {unit} {median(plain):>6.2f} {unit} {median(ratios):>5.2f} ({spread:<12})"
            f"  {said}",
            flush=True,
        )


def compare_ways(bench: Bench, count: int) -> list[Seconds]:
    """Print the ratios for loads into bronze and for ordinary days. Returns the times of our ordinary days."""
    print(f"{'work':<52} {'ours':>9} {'plain':>9} {'ratio':>6}", flush=True)
    landing, ordinary = Pairs(), Pairs()
    for _ in range(count + 1):
        landing.add(bench, LANDING, COPY_STOCK)
    landing.forget_first()  # its tables were empty before
    landing.report("stage", "stage", 1.0)
    landing.report("stage and publish to bronze, to COMMIT", "commit", 2.0)
    landing.report("stage and publish to bronze, to exit", "exit", 2.0)
    ours, all_rows = median(each["WAL"] for each in landing.ours), bench.replaced()
    print(
        f"    WAL, against DELETE and INSERT of all rows         {ours:>9.2f} MB {all_rows:>6.2f} MB"
        f" {ours / all_rows:>5.2f}                 at most 0.03: {'kept' if ours <= 0.03 * all_rows else 'MISSED'}"
    )
    bench.empty()
    for _ in range(count + 1):
        ordinary.add(bench, JOBS, COPY_PRODUCTS + COPY_STOCK, PLAIN)
    bench.compare()
    ordinary.forget_first()
    ordinary.report_day("an ordinary day", 0.8)
    ordinary.report("an ordinary day, WAL", "WAL", 0.1, "WAL", "MB")
    print("    of it")
    for phase in ("stage", "publish"):
        print(f"    {phase:<56} {median(each[phase] for each in ordinary.ours):>6.2f} s")
    again = [bench.again() for _ in range(count)]
    print(f"the same day again, nothing changed, to exit: {median(again):.2f} s ({min(again):.2f} to {max(again):.2f})")
    scripts = bench.our_side.sql(
        "SELECT job || ' ' || script, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM elt.script_runs"
        f" WHERE run_id > (SELECT max(run_id) - {2 * count} FROM elt.runs) GROUP BY 1 ORDER BY 2 DESC LIMIT 8"
    )
    for script, seconds in scripts:
        print(f"        {script:<52} {seconds:>6.2f} s")
    print(
        f"    peak memory of the pipeline process {median(each['MB'] for each in ordinary.ours):>24.0f} MB", flush=True
    )
    return ordinary.ours


def compare_keeping(bench: Bench, count: int) -> None:
    """Print what keeping the changed rows costs: days with and without it, in turn."""
    times: dict[str, list[float]] = {"": [], "[run]\nkeep_changes = 0\n": []}
    for _ in range(count):
        for more, found in times.items():
            bench.settings(more)
            bench.new_day(local_files=False)
            found.append(bench.ours(JOBS)["commit"])
    bench.settings()
    ratios = [kept / not_kept for kept, not_kept in zip(*times.values(), strict=True)]
    print(
        f"keeping the changed rows, against keep_changes = 0, to COMMIT: {median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}), at most 1.03: {'kept' if median(ratios) <= 1.03 else 'MISSED'}",
        flush=True,
    )


def compare_first_days(bench: Bench, count: int) -> None:
    """Print the ratios for first days, which start with an empty database."""
    first = Pairs()
    for _ in range(count):
        bench.empty()
        first.add(bench, JOBS, COPY_PRODUCTS + COPY_STOCK, PLAIN)
    first.report_day("a first day", 1.3)


def alone(rows: int, count: int) -> list[Seconds]:
    """The times of our ordinary days with this many rows, without psql in between. The first day is left out."""
    with made(rows) as bench:
        days = []
        for _ in range(count + 1):
            bench.new_day(local_files=False)
            days.append(bench.ours(JOBS))
        return days[1:]


def start_up() -> None:
    """Print how much longer `main.py --help` takes than starting Python alone."""

    def timed(*command: str) -> float:
        began = time.time()
        subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
        return time.time() - began

    both = [(timed(str(ROOT / "main.py"), "--help"), timed("-c", "pass")) for _ in range(9)]
    print(f"main.py --help: {median(a - b for a, b in both):.2f} s more than python -c pass, at most 0.20")


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
    parser.add_argument("--rows", type=int, default=1_000_000, help="approximate stock rows (default: 1,000,000)")
    parser.add_argument("--pairs", type=int, default=9, help="days of each kind (default: 9)")
    parser.add_argument("--larger", type=int, metavar="ROWS", help="measure also two ordinary days with this many rows")
    given = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, {given.rows:,} stock rows"
    )
    start_up()
    small = alone(10_000, given.pairs)
    print(
        f"10,000 rows, server running: {median(each['commit'] for each in small):.2f} s to COMMIT,"
        f" {median(each['exit'] for each in small):.2f} s to exit, at most 1.00",
        flush=True,
    )
    with made(given.rows) as bench:
        days = compare_ways(bench, given.pairs)
        compare_keeping(bench, given.pairs)
    if given.larger:
        larger = alone(given.larger, 2)
        times = given.larger / given.rows
        for key, limit in (("commit", 1.1 * times), ("exit", 1.1 * times), ("MB", 1.1)):
            one, other = (median(each[key] for each in measured) for measured in (days, larger))
            print(
                f"{given.larger:,} rows, {key}: {other:.1f}, {other / one:.2f} times as much, at most {limit:.2f}",
                flush=True,
            )
    with made(given.rows) as bench:
        compare_first_days(bench, given.pairs)


if __name__ == "__main__":
    main()
