"""Measures what the limits of a slice cost: COPY of the same gzip slice with and without them, taking turns.

    python benchmarks/slice_limits.py            300,000 stock rows, 9 pairs

The slice is unpacked in this process, as in a run, and copied into an unlogged table of the PostgreSQL of a wheel.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.load.slice_limits import LimitedStream, RowLimit
from lib.postgres.embedded.server import Server, remove

BLOCK = 256 * 1024
COLUMNS = 11
COPY = "TRUNCATE slices; COPY slices FROM STDIN WITH (FORMAT csv)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    row = '"products.inventory_locations_{0:x}","{0}","Warehouse {1}","W-{1}","{2}","{2}","","","","kg","{0}"\n'
    text = "".join(row.format(number, number % 11, number % 1000) for number in range(options.rows))
    packed = gzip.compress(text.encode(), 6)
    with tempfile.TemporaryDirectory() as folder:
        server = Server.start(Path(folder) / "postgres")
        try:
            with psycopg2.connect(**server.connect_args()) as connection, connection.cursor() as cursor:
                columns = ", ".join(f"c{number} text" for number in range(COLUMNS))
                cursor.execute(f"CREATE UNLOGGED TABLE slices ({columns})")
                seconds: dict[bool, list[float]] = {True: [], False: []}
                for turn in range(2 * options.pairs):
                    is_limited = turn % 2 == turn // 2 % 2  # which one is first changes, too
                    source = gzip.GzipFile(fileobj=io.BytesIO(packed))
                    limited = LimitedStream(source, "slice", COLUMNS, RowLimit(2 * options.rows + 100_000, ""))
                    began = time.perf_counter()
                    cursor.copy_expert(COPY, limited if is_limited else source, BLOCK)
                    seconds[is_limited].append(time.perf_counter() - began)
        finally:
            remove(Path(folder) / "postgres")
    ratios = sorted(ours / plain for ours, plain in zip(seconds[True], seconds[False], strict=True))
    print(f"{len(text) / 1e6:.0f} MB unpacked; with limits {median(seconds[True]):.2f} s", end="")
    print(f", without {median(seconds[False]):.2f} s, ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
