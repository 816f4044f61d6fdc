"""A warehouse that an older version filled."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from lib.postgres.embedded.package import programs
from sandbox.inventory import (
    put_inventory,
)
from tests.support import ROOT
from tests.support.checkout import Morning

# ---- a warehouse that an older version filled -----------------------------------------------------------------------

#: pg_dump of a database that the shipped jobs of an older version loaded on 25, 26 and 27 November 2026
OLDER = sorted((ROOT / "tests/process/older").glob("*.sql.gz"))
DAYS = "SELECT date_key, count(*), sum(quantity_available) FROM gold.fact_inventory_daily GROUP BY 1 ORDER BY 1"


@pytest.mark.parametrize("dump", OLDER, ids=lambda dump: dump.name)
def test_a_warehouse_of_an_older_version_is_loaded_and_its_history_kept(morning: Morning, dump: Path) -> None:
    address = " ".join(f"{key}={value}" for key, value in morning.database.connect_args.items())
    subprocess.run(
        [programs(18) / "psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", address],
        input=gzip.decompress(dump.read_bytes()),
        check=True,
        capture_output=True,
    )
    put_inventory(morning.keboola, products=20, warehouses=2, day=13, changing=0.2)
    runs = "SELECT run_id, status, run_date, started_at, jobs FROM elt.runs WHERE run_id < 4 ORDER BY 1"
    jobs = (
        "SELECT run_id, job, status, rows_loaded, rows_before, source_version"
        " FROM elt.job_runs WHERE run_id < 4 ORDER BY 1, 2"
    )
    before = [morning.database.sql(text) for text in (runs, jobs, DAYS)]
    assert [len(rows) for rows in before] == [3, 9, 3]
    for words in ["status"], ["check", "--online"]:
        looked = morning.run("main.py", *words)
        assert looked.returncode == 0, looked.stdout
    changes = morning.run("main.py", "changes")
    assert changes.returncode == 1 and changes.stdout.endswith("The next run repairs schema elt, or says what to do.\n")
    loaded = morning.run("elt_daily_load.py", "--date", "2026-11-28")
    assert loaded.returncode == 0, loaded.stdout
    assert [
        morning.database.sql(text)[: len(rows)] for text, rows in zip((runs, jobs, DAYS), before, strict=True)
    ] == before
    assert len(morning.database.sql(DAYS)) == 4
    assert morning.database.sql("SELECT accepted_guards, source_imported_at > '2026-01-01' FROM elt.job_runs"
                                " WHERE run_id = 4 AND rows_loaded > 0") == [([], True), ([], True)]  # fmt: skip
    again = morning.run("elt_daily_load.py", "--date", "2026-11-28")
    assert again.returncode == 0 and " ~" not in again.stdout, again.stdout
