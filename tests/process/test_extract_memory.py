"""Memory does not grow with a table: half a gigabyte of CSV in each of four slices, read by four threads at once.

Nor with a Parquet file that DuckDB reads: 10,000,000 rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from sandbox.keboola_server import KeboolaServer
from tests.support import ROOT
from tests.support.extraction import TABLE

MEGABYTE = 1_000_000
PEAK = """
if sys.platform == "linux":  # getrusage's figure would be at least that of the process that forked this one
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([sizes, peak]))
"""
READER = """
import json, resource, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from tests.support.extraction import Plain, export
from lib.extract.keboola import KeboolaExtractor

def size_of(csv_slice):
    with csv_slice.open() as stream:
        return sum(map(len, iter(lambda: stream.read(256 * 1024), b"")))

url, token, environ, table = json.load(sys.stdin)
extractor = KeboolaExtractor(url, Plain(token), run_id="1", parallel=4, environ=environ)
with ThreadPoolExecutor(4) as pool:
    sizes = list(pool.map(size_of, export(extractor, table).slices))
"""
DUCKDB_READER = """
import json, resource, sys
from pathlib import Path
from lib.extract.duckdb import DuckdbExtractor

# started with -c, Python counts as interactive, where DuckDB shows a progress bar
query = "SELECT *, current_setting('enable_progress_bar') AS bar FROM 'rows.parquet'"
extractor = DuckdbExtractor(Path(sys.argv[1]), {"x": query}, pause=lambda seconds: None)
table = extractor.table("x")
with extractor.finish(extractor.start(table, table.columns)).slices[0].open() as stream:
    sizes, end = 0, b""
    for data in iter(lambda: stream.read(256 * 1024), b""):
        sizes, end = sizes + data.count(10), (end + data)[-7:]
assert end == b",false\\n", end
"""


def rows(count: int) -> Iterator[tuple[str, str]]:
    for number in range(count):
        yield str(number), f"{number:06x}" * 300


@pytest.mark.parametrize("megabytes", [20, pytest.param(500, marks=pytest.mark.long)])
def test_slices_of_any_size_pass_through_100_mb_of_memory(megabytes: int) -> None:
    with KeboolaServer(slices=4, polls=0) as keboola:
        keboola.put_table(TABLE, columns=("id", "text"), rows=lambda: rows(4 * megabytes * MEGABYTE // 1800))
        asked = json.dumps([keboola.url, keboola.token, keboola.store_environment, TABLE])
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        reader = subprocess.run(
            [sys.executable, "-c", READER + PEAK], input=asked, env=environ, capture_output=True, text=True, check=True
        )
    sizes, peak = json.loads(reader.stdout)
    assert sum(sizes) > 3.6 * megabytes * MEGABYTE
    assert peak < 100 * MEGABYTE


@pytest.mark.parametrize("count", [2_000_000, pytest.param(10_000_000, marks=pytest.mark.long)])
def test_a_parquet_file_of_any_size_passes_through_400_mb_of_memory(tmp_path: Path, count: int) -> None:
    table = f"SELECT i::VARCHAR AS sku, 'Product ' || hash(i) AS name, i / 7 AS price FROM range({count}) AS r (i)"
    with duckdb.connect(config={"threads": "1"}) as writer:
        writer.execute(f"COPY ({table}) TO '{tmp_path}/rows.parquet' (COMPRESSION uncompressed)")
    reader = subprocess.run(
        [sys.executable, "-c", DUCKDB_READER + PEAK, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows, peak = json.loads(reader.stdout)
    assert rows == count
    assert peak < 400 * MEGABYTE
