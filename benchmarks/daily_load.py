"""The daily load against the baseline, psql with TRUNCATE, \\copy and INSERT, on the same PostgreSQL 18, in turn.

    python benchmarks/daily_load.py                          1,000,000 stock rows, 9 pairs of days
    python benchmarks/daily_load.py --rows 100000 --pairs 3  a quick look
    python benchmarks/daily_load.py --larger 5000000         then our ordinary day with five times the rows, too

Ours: `elt_daily_load.py` with the jobs, histories and checks of this project; exports of 8 gzip slices a table over
HTTP from the sandbox, in a process of its own. Plain: the same rows from local, unpacked CSV files, TRUNCATE + \\copy +
TRUNCATE + INSERT of the same silver by psql -f (inventory_plain.sql), then the same checks by psql -f, timed apart.
Each has a database of its own on one server with the settings of lib/postgres/embedded/server.py. 1 % of the products
change from day to day; rows come in random order, as Keboola delivers them. Which way comes first changes every day. At
the end both silvers must hold the same rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import re
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
#: ten products in eleven warehouses make a hundred stock rows and a few more, for some products have none
WAREHOUSES = 11
JOBS = json.loads((ROOT / "elt_jobs.json").read_text())
#: stage and bronze alone
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
    """The sandbox, told which day it is."""
    with KeboolaServer(token=TOKEN, polls=0, slices=8) as keboola:
        pipe.send((keboola.url, keboola.store_environment))
        while (number := pipe.recv()) is not None:
            put_inventory(keboola, products=rows // 10, warehouses=WAREHOUSES, day=number)
            pipe.send(number)


class Bench:
    """A server with a database for each way, a sandbox, and a copy of this project that loads from it."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.server = Server.start(folder / "postgres")
        self.pipe, other = multiprocessing.Pipe()
        self.keboola = multiprocessing.Process(target=keboola_process, args=(other, rows), daemon=True)
        self.keboola.start()
        url, store = self.pipe.recv()
        # as cron runs it: Python may keep its compiled modules
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environ = {**inherited, **store, "KEBOOLA_TOKEN": TOKEN, "POSTGRES_PASSWORD": "none"}
        self.project = folder / "project"
        shutil.copytree(ROOT, self.project, ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "__pycache__"))
        address = self.server.connect_args("ours")
        (self.project / "elt_settings.toml").write_text(
            f'[keboola]\nurl = "{url}"\n[postgres]\nhost = "{address["host"]}"\nport = {address["port"]}\n'
            f'dbname = "ours"\nuser = "{address["user"]}"\n'
        )
        self.number = 0
        self.empty()

    def close(self) -> None:
        self.pipe.send(None)
        self.keboola.join()
        remove(self.folder / "postgres")

    def empty(self) -> None:
        """Both ways start with nothing but, for the plain one, its empty tables."""
        self.our_side, self.plain_side = Side(self.server, "ours"), Side(self.server, "plain")
        # the server's log says when a COMMIT was answered; the run itself can only write down when it asked for it
        self.our_side.sql("ALTER DATABASE ours SET log_min_duration_statement = 0")
        self.plain_side.make_tables()
        for script in layer("gold"):  # views, which checks read
            self.plain_side.sql((SCRIPTS / script).read_text(encoding="utf-8"))

    @property
    def day(self) -> date:
        return FIRST_DAY + timedelta(days=self.number)

    def new_day(self, *, local_files: bool = True) -> None:
        """The same rows for both: in Keboola, and as local files."""
        self.number += 1
        self.pipe.send(self.number)
        count = self.rows // 10
        tables = (("products", products(count, self.number)), ("stock", stock(count, WAREHOUSES, self.number)))
        for name, rows in tables if local_files else ():
            with open(self.folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        self.pipe.recv()

    def ours(self, jobs: dict[str, object]) -> Seconds:
        """One daily load as a process of its own: seconds to COMMIT, to exit and a phase, and its peak memory in MB."""
        (self.project / "elt_jobs.json").write_text(json.dumps(jobs))
        logged = self.server.log.stat().st_size
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, self.project / "elt_daily_load.py", "--quiet", "--date", str(self.day)],
            env=self.environ,
            cwd="/",
        )
        _, status, usage = os.wait4(process.pid, 0)
        exited = time.time() - began
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the daily load failed, see above")
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
            "stage": float(stage),
            "publish": float(publish),
            "MB": peak,
        }

    def plain(self, copies: str, *files: Path) -> Seconds:
        """Seconds that psql needs to copy and run these files in one transaction, to its exit; and its checks after."""
        script = self.folder / "copy.sql"
        script.write_text(
            copies.format(
                stock=self.folder / "stock.csv",
                products=self.folder / "products.csv",
                stock_columns=", ".join(STOCK_COLUMNS).lower(),
                products_columns=", ".join(PRODUCT_COLUMNS).lower(),
            )
        )
        seconds = self.plain_side.psql(self.day, [script, *files])
        checks = self.plain_side.psql(self.day, [SCRIPTS / check for check in CHECKS]) if files else 0.0
        return {"load": seconds, "load and checks": seconds + checks}

    def compare(self) -> None:
        """Both silvers hold the same rows."""
        ours, plain = self.our_side.fingerprints(), self.plain_side.fingerprints()
        if differing := [table for table in plain if ours.get(table) != plain[table]]:
            raise SystemExit(f"the two ways differ in {', '.join(differing)}")


# ---- what is measured -----------------------------------------------------------------------------------------------


class Pairs:
    """Days on which both ways did the same work; which was first changes."""

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
            self.report("    psql runs the checks, too", key, None, "load and checks")

    def report(self, work: str, key: str, limit: float | None, plain_key: str = "load") -> None:
        ours, plain = [each[key] for each in self.ours], [each[plain_key] for each in self.plain]
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        said = "" if limit is None else f"at most {limit:.2f}: {'kept' if median(ratios) <= limit else 'MISSED'}"
        print(
            f"{work:<52} {median(ours):>7.2f} s {median(plain):>7.2f} s {median(ratios):>6.2f} ({spread:<12})"
            f"  {said}",
            flush=True,
        )


def compare_ways(bench: Bench, count: int) -> list[Seconds]:
    """Print the ratios of a landing and of ordinary days; returns our ordinary days."""
    print(f"{'work':<52} {'ours':>9} {'plain':>9} {'ratio':>6}", flush=True)
    landing, ordinary = Pairs(), Pairs()
    for _ in range(count + 1):
        landing.add(bench, LANDING, COPY_STOCK)
    landing.forget_first()  # which found empty tables
    landing.report("stage", "stage", 1.0)
    landing.report("stage and publish to bronze, to COMMIT", "commit", 2.0)
    landing.report("stage and publish to bronze, to exit", "exit", 2.0)
    bench.empty()
    for _ in range(count + 1):
        ordinary.add(bench, JOBS, COPY_PRODUCTS + COPY_STOCK, PLAIN)
    bench.compare()
    ordinary.forget_first()
    ordinary.report_day("an ordinary day", 0.8)
    print("    of it")
    for phase in ("stage", "publish"):
        print(f"    {phase:<56} {median(each[phase] for each in ordinary.ours):>6.2f} s")
    scripts = bench.our_side.sql(
        "SELECT job || ' ' || script, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM elt.script_runs"
        f" WHERE run_id > (SELECT max(run_id) - {count} FROM elt.runs) GROUP BY 1 ORDER BY 2 DESC LIMIT 8"
    )
    for script, seconds in scripts:
        print(f"        {script:<52} {seconds:>6.2f} s")
    print(
        f"    peak memory of the pipeline process {median(each['MB'] for each in ordinary.ours):>24.0f} MB", flush=True
    )
    return ordinary.ours


def compare_first_days(bench: Bench, count: int) -> None:
    """Print the ratios of days on which everything is new."""
    first = Pairs()
    for _ in range(count):
        bench.empty()
        first.add(bench, JOBS, COPY_PRODUCTS + COPY_STOCK, PLAIN)
    first.report_day("a first day", 1.3)


def alone(rows: int, count: int) -> list[Seconds]:
    """Our ordinary days with so many rows, after a first one; psql does nothing meanwhile."""
    with made(rows) as bench:
        days = []
        for _ in range(count + 1):
            bench.new_day(local_files=False)
            days.append(bench.ours(JOBS))
        return days[1:]


def start_up() -> None:
    """How long a person waits for --help, beyond what Python needs to start."""

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
    parser.add_argument("--rows", type=int, default=1_000_000, help="stock rows, about (default: 1,000,000)")
    parser.add_argument("--pairs", type=int, default=9, help="days of each kind (default: 9)")
    parser.add_argument("--larger", type=int, metavar="ROWS", help="measure two ordinary days with so many rows, too")
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
