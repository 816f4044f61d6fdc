"""Measures main.py report: seconds, size of the page, and peak memory of its process, for small and large inventories.

    python benchmarks/page.py                        10,000 and 1,000,000 stock rows, 3 days, 3 pages each
    python benchmarks/page.py --rows 10000 --pages 1 a quick look

Each page is written by a process of its own, whose start is part of the time. Memory does not grow with the tables: a
question's first rows are fetched, the others are counted by the server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.inventory_sql import FIRST_DAY, SCRIPTS, Side, layer, put_day
from lib.postgres.embedded.server import Server, remove

ROOT = Path(__file__).resolve().parent.parent
DAYS, WAREHOUSES = 3, 11
WRITE = """
import re, sys, time
began = time.perf_counter()
from pathlib import Path
from lib.config.settings import Settings
from lib.report.page import write_page
from lib.run.plan import read_project
root = Path(sys.argv[1])
write_page(Settings(root), read_project(root), Path(sys.argv[2]))
# not getrusage: its peak includes the parent's, from before exec
print(time.perf_counter() - began, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def filled(server: Server, rows: int) -> Side:
    """A database with this many stock rows and their history."""
    side = Side(server, f"page_{rows}")
    side.make_tables()
    for number in range(DAYS):
        put_day([side], rows // 10, WAREHOUSES, number)
        names = layer("silver") + (layer("gold") if number == 0 else [])
        side.psql(FIRST_DAY + timedelta(number), [SCRIPTS / name for name in names])
        side.rest()
    return side


def page(side: Side, output: Path) -> tuple[float, float]:
    """Seconds, and peak memory in MB, of a process that writes the page."""
    address = side.server.connect_args(side.name)
    variables = {{"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"): value for name, value in address.items()}
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(ROOT), str(output)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--pages", type=int, default=3)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-"))
    folder.chmod(0o711)
    try:
        server = Server.start(folder / "postgres")
        sides = {rows: filled(server, rows) for rows in given.rows}
        output = folder / "page.html"
        measured: dict[int, list[tuple[float, float]]] = {rows: [] for rows in sides}
        for _ in range(given.pages):
            for rows, side in sides.items():
                measured[rows].append(page(side, output))
        for rows, pages in measured.items():
            seconds, megabytes = [one for one, _ in pages], [one for _, one in pages]
            print(
                f"{rows:>9,} rows  {median(seconds):5.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
                f"  peak memory {median(megabytes):.0f} MB  page {output.stat().st_size / 1e6:.2f} MB"
            )
    finally:
        remove(folder / "postgres")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
