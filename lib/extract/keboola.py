"""Keboola's Storage API: table detail -> export -> poll -> file detail -> manifest -> slices (docs/keboola.md 0).

Owns the API's calls and what its refusals mean to a person. The API token goes to the API's host alone.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import requests

from lib.errors import CredentialError, ExtractError
from lib.extract import Export, Slice, SourceTable
from lib.extract.http import RETRY_TRIES, TIMEOUT, Call, Http, handle_of, json_of, parse_time, text_of
from lib.extract.object_stores import Location, locate
from lib.extract.object_stream import open_object

#: seconds before the first poll of a job; each wait is longer, up to the highest (docs/keboola.md 5)
FIRST_POLL = 1.0
POLL_GROWTH = 1.5
HIGHEST_POLL = 10.0
#: an export is asked for this often at most; Keboola answers an identical one from its cache (docs/keboola.md 8.3)
EXPORT_RETRY_TRIES = 4
#: seconds that an export may take
DEADLINE = 3600.0


class Token(Protocol):
    def reveal(self) -> str: ...


@dataclass(frozen=True)
class StartedExport:
    """An export that was asked for."""

    table: SourceTable
    columns: tuple[str, ...]
    #: the job as the API described it at the start
    job: Mapping[str, object]


class FileGone(ExtractError):
    """An exported file, which Keboola keeps for two days, does not exist any more."""


class KeboolaExtractor:
    """Tables of one Keboola project; implements `lib.extract.Extractor` and may be used from several threads.

    `pause` waits for a number of seconds and may raise to stop everything; every wait goes through it. `report` says
    one line to the user. `parallel` is how many slices are read at once. `deadline` is in seconds, for one export;
    `timeout` for a connection, and for silence on one.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        run_id: str,
        parallel: int,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
        report: Callable[[str], None] = lambda line: None,
        deadline: float = DEADLINE,
        timeout: tuple[float, float] = TIMEOUT,
    ) -> None:
        self._api = url.rstrip("/") + "/v2/storage/"
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._token, self._run_id = token, run_id
        self.environ, self._deadline = environ, deadline
        self.http = Http(
            pause=pause,
            clock=clock,
            now=now,
            report=report,
            connections=parallel + 1,
            secret=token.reveal(),
            timeout=timeout,
        )

    def describe(self) -> str:
        """The project's name, at which stack, and whose token: `GET tokens/verify`."""
        token = self.get("tokens/verify", f"Keboola at {self._host}")
        owner = token.get("owner")
        owner = owner if isinstance(owner, dict) else {}
        return (
            f"Keboola project {owner.get('name')!r} ({owner.get('id')}) at {self._host},"
            f" token {token.get('id')} {token.get('description')!r}"
        )

    def table(self, table_id: str) -> SourceTable:
        """The table's detail. Raises ExtractError where it is missing (with near names) or may not be read."""
        detail = self.get(f"tables/{quote(table_id, safe='')}", f"table {table_id}", table_id)
        columns = detail.get("columns")
        if not isinstance(columns, list) or not columns or not all(isinstance(name, str) for name in columns):
            raise ExtractError(f"table {table_id}: Keboola names no columns")
        imported = parse_time(detail.get("lastImportDate"))
        stamps = [detail.get(name) for name in ("id", "lastImportDate", "lastChangeDate", "rowsCount")]
        return SourceTable(
            id=table_id,
            columns=tuple(columns),
            rows=_comparable_rows(detail),
            has_nulls=bool(detail.get("isTyped")),
            version=repr((*stamps, *columns)),
            imported_at=None if imported is None else datetime.fromtimestamp(imported, UTC),
        )

    def start(self, table: SourceTable, columns: Sequence[str]) -> StartedExport:
        """Ask for all rows of these columns, which come in this order (docs/keboola.md 4.1)."""
        subject = f"export of {table.id}"
        body = {"columns": ",".join(columns), "gzip": True}
        path = f"tables/{quote(table.id, safe='')}/export-async"
        response = self._send(path, subject, method="POST", body=body, tries=EXPORT_RETRY_TRIES)
        return StartedExport(table, tuple(columns), self._answer(response, subject, table.id))

    def finish(self, started: StartedExport) -> Export:
        """Wait for the export's job, then read its manifest. A file that is gone is exported again, once.

        Raises ExtractError with the job's id where the job fails, is cancelled or does not end before the deadline."""
        try:
            return self._finish(started)
        except FileGone as error:
            # Keboola may answer from its cache with a file at the end of its two days (docs/keboola.md 4.3)
            self.http.report(f"{error}; exporting again")
        return self._finish(self.start(started.table, started.columns))

    def _finish(self, started: StartedExport) -> Export:
        job, subject = self._finished(started.job, started.table), _name_of(started.job, started.table)
        try:
            results: Any = job["results"]
            file_id = int(results["file"]["id"])
        except (KeyError, TypeError, ValueError):
            file_id = None
        if file_id is None:
            raise ExtractError(f"{subject}: succeeded, but names no file")
        return Export(started.table, ExportedFile(self, file_id, subject).slices(started.columns))

    def _finished(self, job: Mapping[str, object], table: SourceTable) -> Mapping[str, object]:
        """The job once its status is `success`."""
        subject, began, delay = _name_of(job, table), self.http.clock(), FIRST_POLL
        while job.get("status") != "success":
            status = job.get("status")
            if status in ("error", "cancelled", "terminated"):
                ended = "failed" if status == "error" else f"was {status} in Keboola"
                raise ExtractError(f"{subject} {ended}: {self.http.scrub(_job_error(job))}")
            # whatever else the API calls it, it has not ended (docs/keboola.md 5)
            waited = self.http.clock() - began
            if waited > self._deadline:
                raise ExtractError(
                    f"{subject}: still {status!r} after {waited / 60:.0f} minutes; look at it in Keboola"
                )
            self.http.pause(delay * random.uniform(0.9, 1.1))
            delay = min(delay * POLL_GROWTH, HIGHEST_POLL)
            job = self.get(f"jobs/{job.get('id')}", subject)
        return job

    def get(self, path: str, subject: str, table_id: str = "") -> Mapping[str, object]:
        """The API's answer to a GET; the table, where one is asked for, is named in refusals."""
        return self._answer(self._send(path, subject), subject, table_id)

    def _send(
        self, path: str, subject: str, method: str = "GET", body: object = None, tries: int = RETRY_TRIES
    ) -> requests.Response:
        headers = {"X-StorageApi-Token": self._token.reveal(), "X-KBC-RunId": self._run_id}
        return self.http.send(Call(subject, self._api + path, method, headers, body=body, tries=tries))

    def _answer(self, response: requests.Response, subject: str, table_id: str) -> Mapping[str, object]:
        """The JSON object of a good answer; raises what a refusal means."""
        said = self.http.words_of(response) if not response.ok else ""
        status = response.status_code
        if status == 401:
            raise CredentialError(
                f"{subject}: the token was refused: {said}. It is wrong, expired, or belongs to another stack than"
                f" {self._host}: set another one with `python main.py credentials set keboola`, or [keboola] url"
            )
        if status == 403:
            bucket = f"bucket {table_id.rpartition('.')[0]}" if table_id else "the table's bucket"
            raise ExtractError(f"{subject}: {said}. Give the token read permission for {bucket} in Keboola")
        if status == 404 and json_of(response).get("code") == "storage.files.notFound":
            raise FileGone(f"{subject}: {said}")
        if status == 404 and table_id:
            raise ExtractError(f"{subject}: {said}. {self._near(table_id)}")
        if 300 <= status < 400:
            raise ExtractError(f"{subject}: {self._host} redirects elsewhere; correct [keboola] url")
        if not response.ok:
            raise ExtractError(f"{subject}: {said}")
        body = json_of(response)
        if not body:
            raise ExtractError(f"{subject}: {self._host} did not answer with JSON; is [keboola] url a Keboola stack?")
        return body

    def _near(self, table_id: str) -> str:
        """What the bucket, or else the whole project, has under a similar name."""
        bucket = table_id.rpartition(".")[0]
        for path in (f"buckets/{quote(bucket, safe='')}/tables", "tables"):
            names = _ids(self._send(path, f"tables like {table_id}"))
            if names:
                near = difflib.get_close_matches(table_id, names, n=3)
                return f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(names[:5])}"
        return "The token sees no tables at all"


class ExportedFile:
    """Where an export's objects are, with credentials renewed in time; shared by the readers of its slices."""

    def __init__(self, extractor: KeboolaExtractor, file_id: int, subject: str) -> None:
        self._extractor, self._id, self._subject = extractor, file_id, subject
        self._http = extractor.http
        self._lock = threading.Lock()
        self._fetch()

    def location(self) -> Location:
        with self._lock:
            if self._http.now() >= self._location.renew_at:
                self._fetch()
            return self._location

    def renew(self, refused: Location) -> None:
        with self._lock:
            if self._location is refused:
                self._fetch()

    def slices(self, columns: tuple[str, ...]) -> tuple[Slice, ...]:
        file_type = self._detail.get("fileType") or "csv"
        if file_type != "csv":
            raise ExtractError(f"{self._subject}: the file is {file_type}; only csv can be read")
        if not self._detail.get("isSliced"):
            return (self._slice(1, self._location.key, columns),)
        keys = [self._location.key_of(url, self._subject) for url in self._entries()]
        # BigQuery's manifest lists whatever lies below the key, perhaps itself (docs/keboola.md 7.8)
        keys = [key for key in keys if not key.endswith("manifest")]
        if len(set(keys)) < len(keys):
            raise ExtractError(f"{self._subject}: the manifest names an object twice")
        return tuple(self._slice(number, key, None) for number, key in enumerate(keys, 1))

    def _slice(self, number: int, key: str, header: tuple[str, ...] | None) -> Slice:
        name = key.rpartition("/")[2]
        if ".parquet" in name:
            raise ExtractError(f"{self._subject}: {name} is a Parquet file; only csv can be read")
        subject = f"{self._subject}, slice {number} ({name})"
        is_gzip = name.endswith(".gz") or str(self._detail.get("name")).endswith(".gz")
        return Slice(number, name, lambda: open_object(self._http, self, key, subject, is_gzip=is_gzip, header=header))

    def _entries(self) -> list[str]:
        """The URLs in the manifest, which is fetched by its presigned URL alone."""
        response = self._manifest()
        if response.status_code in (400, 401, 403):
            self._http.pause(1.0)
            self.renew(self._location)
            response = self._manifest()
        if response.status_code == 404:
            raise FileGone(f"{self._subject}: the manifest is gone")
        if response.status_code != 200:
            raise ExtractError(f"{self._subject}: the manifest cannot be read: {self._http.words_of(response)}")
        entries = json_of(response).get("entries")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "url" in entry for entry in entries):
            raise ExtractError(f"{self._subject}: the manifest is not a list of entries")
        return [str(entry["url"]) for entry in entries]

    def _manifest(self) -> requests.Response:
        return self._http.send(Call(f"{self._subject}, manifest", str(self._detail.get("url"))))

    def _fetch(self) -> None:
        asked_at = self._http.now()
        self._detail = self._extractor.get(f"files/{self._id}?federationToken=1", self._subject)
        self._location = locate(self._detail, asked_at, self._extractor.environ, self._subject)


def _name_of(job: Mapping[str, object], table: SourceTable) -> str:
    return f"export of {table.id} (job {job.get('id')})"


def _ids(response: requests.Response) -> list[str]:
    """The `id` of each object in a list, or nothing where the answer is something else."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return sorted(item["id"] for item in json.loads(text_of(response)))
    return []


def _comparable_rows(detail: Mapping[str, object]) -> int | None:
    """rowsCount where an export must have as many rows.

    Not for filtered aliases, views and external tables (docs/keboola.md 2.2), nor in buckets of somebody else's schema,
    where the count lags behind (docs/keboola.md 13.1).
    """
    rows, bucket = detail.get("rowsCount"), detail.get("bucket")
    is_external = isinstance(bucket, dict) and bucket.get("hasExternalSchema")
    is_plain = detail.get("tableType") in (None, "table") and not detail.get("aliasFilter") and not is_external
    return rows if is_plain and isinstance(rows, int) else None


def _job_error(job: Mapping[str, object]) -> str:
    error = job.get("error")
    return f"{error.get('message')}{handle_of(error)}" if isinstance(error, dict) else "no reason given"
