"""Compares a duckdb source with psql \\copy of the same file, and measures its memory for a large Parquet file.

    python benchmarks/duckdb_source.py        1,000,000 rows of CSV, 10,000,000 of Parquet
    python benchmarks/duckdb_source.py --rows 100000 --parquet 1000000 --rounds 3   a quick look

CSV: both ways fill an unlogged table of five text columns on the same server. Ours is read_csv through COPY, timed with
the reads of the version before and after; theirs is psql -c '\\copy'. Each round runs both, and who is first changes.
Parquet: a process of its own reads and copies it; its peak of resident memory is compared with the limit of 400 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb
import psycopg2

from lib.extract.duckdb import DuckdbExtractor
from lib.load.staging_table import Staging, copy_slice
from lib.postgres.embedded.server import Server, remove

COLUMNS = ("sku", "name", "quantity", "price", "note")
ROWS = """
SELECT
    lpad(i::VARCHAR, 8, '0') AS sku,
    'Product number ' || i * 7919 % 1000003 AS name,
    i % 500 AS quantity,
    i / 7 AS price,
    CASE WHEN i % 3 = 0 THEN 'note ' || i END AS note
FROM range({}) AS r (i)
"""
QUERIES = {"csv": "FROM read_csv('rows.csv', all_varchar = true)", "parquet": "FROM 'rows.parquet'"}
TABLE = "CREATE UNLOGGED TABLE elt_staging.{} (sku text, name text, quantity text, price text, note text)"
LIMIT_MB = 400


def load(folder: Path, kind: str, dsn: str) -> int:
    """Read the file and copy it, as a run does. Returns the number of rows."""
    extractor = DuckdbExtractor(folder, {kind: QUERIES[kind]}, pause=lambda seconds: None)
    table = extractor.table(kind)
    (only,) = extractor.finish(extractor.start(table, table.columns)).slices
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    rows = copy_slice(connection, Staging("ours", COLUMNS, table.has_nulls), only, kind).rows
    connection.close()
    assert extractor.table(kind).version == table.version
    return rows


def peak_mb(folder: Path, dsn: str) -> float:
    """The peak memory of a process that loads the Parquet file."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.duckdb_source import load;"
        " load(Path(sys.argv[1]), 'parquet', sys.argv[2]);"
        " print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code, str(folder), dsn]
    return int(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the CSV file")
    parser.add_argument("--parquet", type=int, default=10_000_000, help="rows of the Parquet file")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="elt-benchmark-"))
    folder.chmod(0o711)  # if we are root, the server runs as another user, who must reach the folder
    server = Server.start(folder / "postgres", settings={"max_wal_size": "8GB"})
    try:
        duckdb.execute(f"COPY ({ROWS.format(options.rows)}) TO '{folder}/rows.csv' (FORMAT csv)")
        duckdb.execute(f"COPY ({ROWS.format(options.parquet)}) TO '{folder}/rows.parquet' (FORMAT parquet)")
        dsn = psycopg2.extensions.make_dsn(**server.connect_args("postgres"))
        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE SCHEMA elt_staging; " + TABLE.format("ours") + ";" + TABLE.format("theirs"))
        copy = f"\\copy elt_staging.theirs FROM '{folder}/rows.csv' (FORMAT csv, HEADER true)"
        ways: dict[str, Callable[[], object]] = {
            "duckdb": lambda: load(folder, "csv", dsn),
            "\\copy": lambda: subprocess.run([server.psql, "-Xq", "-d", dsn, "-c", copy], check=True),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            for way in list(ways) if turn % 2 else list(ways)[::-1]:
                cursor.execute("TRUNCATE elt_staging.ours, elt_staging.theirs; CHECKPOINT")
                began = time.perf_counter()
                ways[way]()
                times[way].append(time.perf_counter() - began)
        print(f"CSV, {options.rows:,} rows, medians of {options.rounds} rounds")
        for way, seconds in times.items():
            del seconds[0]  # the first round finds cold caches
            print(f"  {way:8} {median(seconds):6.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})")
        ratios = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
        print(f"  ratio    {median(ratios):6.2f}     ({min(ratios):.2f} to {max(ratios):.2f}), at most 1.5 is wanted")
        cursor.execute("TRUNCATE elt_staging.ours")
        peak = peak_mb(folder, dsn)
        cursor.execute("SELECT count(*) FROM elt_staging.ours")
        (rows,) = cursor.fetchone() or (0,)
        print(f"Parquet, {rows:,} rows: {peak:.0f} MB at most, {peak / LIMIT_MB:.2f} of {LIMIT_MB} MB")
        connection.close()
    finally:
        remove(folder / "postgres")
        subprocess.run(["rm", "-rf", folder], check=True)


if __name__ == "__main__":
    main()
