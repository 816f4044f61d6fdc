"""What tests of the extractor share: a table, a clock that moves when somebody waits, an export read to its rows."""

from __future__ import annotations

import csv
import io
import json
import time as real

import requests

from lib.extract import Export
from lib.extract.keboola import KeboolaExtractor
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer

TABLE = "in.c-shop.orders"
COLUMNS = ("id", "note")
ROWS = [(str(number), f'note "{number}"\nnaïve 🦊') for number in range(100)]


class Plain:
    """A secret that needs no keyring."""

    remedy = "The token came from a test."

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.lines: list[str] = []
        self.at = real.time()

    def pause(self, seconds: float) -> None:
        if seconds:  # seconds of 0 only ask whether to stop, so time does not move
            self.waits.append(seconds)
        self.at += seconds

    def now(self) -> float:
        return self.at


def extractor_of(keboola: KeboolaServer, time: Time, **changed: object) -> KeboolaExtractor:
    arguments: dict = dict(
        url=keboola.url,
        token=Plain(keboola.token),
        run_id="run-17",
        parallel=4,
        pause=time.pause,
        clock=time.now,
        now=time.now,
        environ=keboola.store_environment,
        report=time.lines.append,
    )
    return KeboolaExtractor(**(arguments | changed))


def export(extractor: KeboolaExtractor, table_id: str = TABLE) -> Export:
    table = extractor.table(table_id)
    return extractor.finish(extractor.start(table, table.columns))


def rows_of(exported: Export) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for csv_slice in exported.slices:
        with csv_slice.open() as stream:
            text = stream.read().decode()
        rows += map(tuple, csv.reader(io.StringIO(text, newline=""), strict=True))
    return rows


def real_answer(keboola: KeboolaServer, kind: str) -> dict[str, object]:
    """What the sandbox answers; its cache gives the extractor the same file afterwards."""

    def call(path: str, method: str = "GET", **body: object) -> dict[str, object]:
        headers = {"X-StorageApi-Token": keboola.token}
        url = f"{keboola.url}/v2/storage/{path}"
        return requests.request(method, url, headers=headers, json=body, timeout=10).json()

    job = done = call(f"tables/{TABLE}/export-async", "POST", columns=",".join(COLUMNS), gzip=True)
    while done["status"] != "success":
        done = call(f"jobs/{job['id']}")
    file = call(f"files/{done['results']['file']['id']}?federationToken=1")
    manifest = requests.get(file["url"], timeout=10).json()
    rest = {"verify": call("tokens/verify"), "table": call(f"tables/{TABLE}")}
    return {"export-async": job, "job": done, "file": file, "manifest": manifest, **rest}[kind]


def told(keboola: KeboolaServer, kind: str, nth: int | None = 1, **changed: object) -> None:
    """Let the next answer of a kind (nth None: each) be a real one in which something is different."""
    body = json.dumps(real_answer(keboola, kind) | changed)
    keboola.faults.add(Fault(kind, "status", nth=nth, status=200, body=body))
