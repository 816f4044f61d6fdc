"""Memory does not grow with what a script or a check returns: 300 rows of 2 MB, or 5,000,000 rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.process.test_extract_memory import MEGABYTE, PEAK
from tests.support import ROOT
from tests.support.databases import EmptyDatabase

RUNNER = """
import json, resource, sys
from pathlib import Path
from lib.config.jobs import Check, Script
from lib.config.settings import Settings
from lib.postgres.connection import Database
from lib.postgres.transaction import transaction
from lib.transform.checks import run_check
from lib.transform.scripts import run_script

keywords, text = json.load(sys.stdin)
connection = Database(Settings(Path()), keywords=keywords).connect("memory")
script = Script("silver/x.sql", "silver", Path(), text)
with transaction(connection):
    run_script(connection, script)
    sizes = run_check(connection, Check(script, "warn")).broken_by
"""
#: case 06 of the issue
NARROW = "SELECT i, repeat(md5(i::text), 5) AS w FROM generate_series(1, 5000000) AS i;"
WIDE = "WITH wide AS (SELECT i, repeat('x', 2000000) AS w FROM generate_series(1, 300) AS i) SELECT i, w FROM wide;"


@pytest.mark.parametrize(
    "text, count", [(WIDE, 300), pytest.param(NARROW, 5_000_000, marks=pytest.mark.long, id="narrow")]
)
def test_rows_that_a_script_or_a_check_returns_stay_on_the_server(
    database: EmptyDatabase, text: str, count: int
) -> None:
    runner = subprocess.run(
        [sys.executable, "-c", RUNNER + PEAK],
        input=json.dumps([database.connect_args, text]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows, peak = json.loads(runner.stdout)
    assert rows == count
    assert peak < 150 * MEGABYTE
