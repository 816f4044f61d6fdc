"""Keboola's Storage API: table detail -> export -> poll -> file detail -> manifest -> slices (docs/keboola.md 0).

Makes the API's calls and turns its errors into messages for the user. The API token is sent only to the API's host,
and to hosts that the API names as services of its stack.
"""

from __future__ import annotations

import difflib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import requests

from lib.errors import CredentialError, ExtractError
from lib.extract import Export, ExportGone, Slice, SourceTable
from lib.extract.http import RETRY_TRIES, TIMEOUT, Call, Http, handle_of, is_here, json_of, parse_moment, parsed
from lib.extract.object_stores import Location, locate
from lib.extract.object_stream import open_object

#: seconds before the first poll of a job; each wait is longer, up to the highest (docs/keboola.md 5)
FIRST_POLL = 1.0
POLL_GROWTH = 1.5
HIGHEST_POLL = 10.0
#: tries to start an export; a second request does no harm: Keboola answers it from its cache (docs/keboola.md 8.3)
EXPORT_RETRY_TRIES = 4
#: seconds that an export may take: the default of the setting `export_minutes`
DEADLINE = 3600.0
#: seconds before a file's detail that was refused is asked for again (docs/keboola.md 6.3)
FILE_APPEARS = 1.0
#: seconds in which a job that was just created may not be found yet
JOB_APPEARS = 30.0
#: seconds before its end at which a token is warned of
WARN_BEFORE = 7 * 24 * 3600.0
UNREADABLE = ". Try again later; if it stays so, tell Keboola's support"

Kind = TypeVar("Kind")


class Token(Protocol):
    """The secret, and a sentence that says where it came from and how to correct it there."""

    @property
    def remedy(self) -> str: ...

    def reveal(self) -> str: ...


@dataclass(frozen=True)
class StartedExport:
    """An export that was requested and may still be running."""

    table: SourceTable
    columns: tuple[str, ...]
    #: the job as the API described it at the start
    job: Mapping[str, object]


class KeboolaExtractor:
    """Tables of one Keboola project. Implements `lib.extract.Extractor`; may be used from several threads.

    parallel: number of slices that are read at the same time.
    pause: waits for a number of seconds and raises to stop everything; every wait uses it.
    report: prints one line for the user.
    deadline: seconds that one export may take.
    timeout: seconds to connect, and seconds without data on a connection.
    patient: see `Http`.
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
        patient: bool = True,
    ) -> None:
        self.is_local = is_here(url)
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
            patient=patient,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every call to the API carries; the token is among them."""
        return {"X-StorageApi-Token": self._token.reveal(), "X-KBC-RunId": self._run_id}

    def describe(self) -> str:
        """The project's name and id, the stack's host, and the token's id, description and end."""
        token = self._verify()
        owner = token.get("owner")
        owner = owner if isinstance(owner, dict) else {}
        expires = parse_moment(token.get("expires"))
        return (
            f"Keboola project {owner.get('name')!r} ({owner.get('id')}) at {self._host},"
            f" token {token.get('id')} {token.get('description')!r}"
            + (f", expires {expires:%Y-%m-%d %H:%M UTC}" if expires else "")
        )

    def warnings(self) -> list[str]:
        """One about a token that expires within a week."""
        expires = parse_moment(self._verify().get("expires"))
        if expires is None or expires.timestamp() - self.http.now() > WARN_BEFORE:
            return []
        return [
            f"the Keboola token expires on {expires:%Y-%m-%d at %H:%M UTC}. Make a new one in Keboola (Users & Settings"
            f" > API Tokens). {self._token.remedy}".strip()
        ]

    def _verify(self) -> Mapping[str, object]:
        return self.get("tokens/verify", f"Keboola at {self._host}")

    def service(self, name: str, subject: str) -> str:
        """The URL of another service of the stack, without a slash at its end. The token may be sent there."""
        services = self.get("?exclude=components", subject).get("services")
        for service in services if isinstance(services, list) else ():
            if isinstance(service, dict) and service.get("id") == name:
                url = str(service.get("url"))
                # never http, unless the API itself is on this machine
                if _scheme_of(url) == _scheme_of(self._api):
                    return url.rstrip("/")
        raise ExtractError(f"{subject}: {self._host} names no service {name!r}")

    def table(self, table_id: str) -> SourceTable:
        """The table's detail. Raises ExtractError if it does not exist (with similar names) or may not be read."""
        detail = self.get(f"tables/{quote(table_id, safe='')}", f"table {table_id}", table_id)
        columns = detail.get("columns")
        if not isinstance(columns, list) or not columns or not all(isinstance(name, str) for name in columns):
            raise ExtractError(f"table {table_id}: Keboola lists no columns")
        rows = _comparable_rows(detail)
        dates = [detail.get(name) for name in ("lastImportDate", "lastChangeDate")]
        return SourceTable(
            id=table_id,
            columns=tuple(columns),
            rows=rows,
            has_nulls=bool(detail.get("isTyped")),
            version=repr((detail.get("id"), *dates, detail.get("rowsCount"), *columns)),
            # where the count does not follow the rows, neither do the dates (docs/keboola.md 13.1)
            version_is_exact=rows is not None and any(dates),
            imported_at=parse_moment(detail.get("lastImportDate")),
            cut_timestamps=_cut_timestamps(detail),
        )

    def start(self, table: SourceTable, columns: Sequence[str]) -> StartedExport:
        """Request all rows of these columns. The export has the columns in this order (docs/keboola.md 4.1)."""
        subject = f"export of {table.id}"
        # a list, because a column's name may hold a comma (docs/keboola.md 4.1)
        body = {"columns": list(columns), "gzip": True}
        path = f"tables/{quote(table.id, safe='')}/export-async"
        response = self._send(path, subject, method="POST", body=body, tries=EXPORT_RETRY_TRIES)
        return StartedExport(table, tuple(columns), self._answer(response, subject, table.id))

    def finish(self, started: StartedExport) -> Export:
        """Wait for the export's job, then read its manifest.

        Raises ExtractError with the job's id if the job fails, is cancelled or does not end before the deadline;
        ExportGone if the file no longer exists: Keboola's cache may have named one whose two days have just ended
        (docs/keboola.md 4.3)."""
        job, subject = self._finished(started.job, started.table), _name_of(started.job, started.table)
        try:
            results: Any = job["results"]
            file_id = int(results["file"]["id"])
        except (KeyError, TypeError, ValueError, OverflowError):
            file_id = None
        if file_id is None:
            raise ExtractError(f"{subject}: succeeded, but its result has no file")
        slices = ExportedFile(self, file_id, subject).slices(started.columns)
        return Export(started.table, slices, str(job.get("id")), str(file_id))

    def _finished(self, job: Mapping[str, object], table: SourceTable) -> Mapping[str, object]:
        """The job once its status is `success`."""
        subject, began, delay, is_known = _name_of(job, table), self.http.clock(), FIRST_POLL, False
        while job.get("status") != "success":
            status = job.get("status")
            if status in ("error", "cancelled", "terminated"):
                ended = "failed" if status == "error" else f"was {status} in Keboola"
                raise ExtractError(f"{subject} {ended}: {self.http.scrub(_job_error(job))}")
            # any other status means that the job has not ended (docs/keboola.md 5)
            waited = self.http.clock() - began
            if waited > self._deadline:
                raise ExtractError(
                    f"{subject}: still {status!r} after {waited / 60:.0f} minutes; look at it in Keboola. If it only"
                    " needs more time, raise [keboola] export_minutes in elt_settings.toml"
                )
            self.http.pause(delay * random.uniform(0.9, 1.1))
            delay = min(delay * POLL_GROWTH, HIGHEST_POLL)
            response = self._send(f"jobs/{job.get('id')}", subject)
            if response.status_code != 404 or is_known or waited > JOB_APPEARS:
                job, is_known = self._answer(response, subject, ""), True
        return job

    def get(self, path: str, subject: str, table_id: str = "") -> Mapping[str, object]:
        """The API's answer to a GET. If the request is about a table, errors name table_id."""
        return self._answer(self._send(path, subject), subject, table_id)

    def file(self, file_id: int, subject: str) -> Mapping[str, object]:
        """The detail of an exported file, with credentials. Raises ExportGone if there is no such file (any more)."""
        path = f"files/{file_id}?federationToken=1"
        response = self._send(path, subject)
        if response.status_code == 403:
            self.http.pause(FILE_APPEARS)
            response = self._send(path, subject)
        if response.status_code == 404:
            raise ExportGone(f"{subject}: the file is gone: {self.http.words_of(response)}")
        return self._answer(response, subject, "")

    def get_list(self, path: str, subject: str) -> list[Mapping[str, Any]]:
        """The API's answer to a GET that lists things."""
        response = self._send(path, subject)
        if response.status_code != 200:
            self._answer(response, subject, "")
        body = parsed(response)
        if isinstance(body, list) and all(isinstance(item, dict) for item in body):
            return body
        raise ExtractError(f"{subject}: {self._host} did not answer with a list of objects{UNREADABLE}")

    def _send(
        self, path: str, subject: str, method: str = "GET", body: object = None, tries: int = RETRY_TRIES
    ) -> requests.Response:
        remedy = f"The host is that of [keboola] url in elt_settings.toml: is it right, and is {self._host} up?"
        if self.is_local:
            remedy += " A local Keboola runs until its Ctrl-C, and must be at that url again."
        return self.http.send(
            Call(subject, self._api + path, method, self.headers, body=body, tries=tries, remedy=remedy)
        )

    def _answer(self, response: requests.Response, subject: str, table_id: str) -> Mapping[str, object]:
        """The JSON object in a successful answer. Raises CredentialError or ExtractError for any other."""
        said = self.http.words_of(response) if not response.ok else ""
        status = response.status_code
        if status == 401:
            raise CredentialError(
                f"{subject}: the token was refused: {said}. It is wrong, expired, or belongs to another stack than"
                f" {self._host} ([keboola] url in elt_settings.toml). {self._token.remedy}".strip()
            )
        if status == 403:
            bucket = f"bucket {table_id.rpartition('.')[0]}" if table_id else "the table's bucket"
            raise ExtractError(f"{subject}: {said}. Give the token read permission for {bucket} in Keboola")
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
        """A hint with similar table names in the bucket, or in the whole project if the bucket has no tables."""
        bucket = table_id.rpartition(".")[0]
        for path in (f"buckets/{quote(bucket, safe='')}/tables", "tables"):
            names = _ids(self._send(path, f"tables like {table_id}"))
            if names:
                near = difflib.get_close_matches(table_id, names, n=3)
                return f"Did you mean {' or '.join(near)}?" if near else f"Tables there: {', '.join(names[:5])}"
        return "The token can see no tables at all"


class ExportedFile:
    """Location and credentials of an export's objects, shared by the readers of its slices. Implements `Access`."""

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
        # BigQuery's manifest lists everything below the key, which may include the manifest (docs/keboola.md 7.8)
        keys = [key for key in keys if not key.endswith("manifest")]
        if len(set(keys)) < len(keys):
            raise ExtractError(f"{self._subject}: the manifest lists an object twice")
        return tuple(self._slice(number, key, None) for number, key in enumerate(keys, 1))

    def _slice(self, number: int, key: str, header: tuple[str, ...] | None) -> Slice:
        name = key.rpartition("/")[2]
        if ".parquet" in name:
            raise ExtractError(f"{self._subject}: {name} is a Parquet file; only csv can be read")
        subject = f"{self._subject}, slice {number} ({name})"
        is_gzip = name.endswith(".gz") or str(self._detail.get("name")).endswith(".gz")
        return Slice(number, name, lambda: open_object(self._http, self, key, subject, is_gzip=is_gzip, header=header))

    def _entries(self) -> list[str]:
        """The URLs in the manifest. It is fetched with its presigned URL, without the API token."""
        response = self._manifest()
        if response.status_code in (400, 401, 403):
            self._http.pause(1.0)
            self.renew(self._location)
            response = self._manifest()
        if response.status_code == 404:
            raise ExportGone(f"{self._subject}: the manifest is gone")
        if response.status_code != 200:
            raise ExtractError(f"{self._subject}: the manifest cannot be read: {self._http.words_of(response)}")
        entries = json_of(response).get("entries")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "url" in entry for entry in entries):
            raise ExtractError(f"{self._subject}: the manifest is not a list of entries")
        return [str(entry["url"]) for entry in entries]

    def _manifest(self) -> requests.Response:
        url = str(self._detail.get("url"))
        if not _scheme_of(url):
            raise ExtractError(f"{self._subject}: the file's detail has no URL of the manifest{UNREADABLE}")
        return self._http.send(Call(f"{self._subject}, manifest", url))

    def _fetch(self) -> None:
        asked_at = self._http.now()
        self._detail = self._extractor.file(self._id, self._subject)
        environ, is_local = self._extractor.environ, self._extractor.is_local
        self._location = locate(self._detail, asked_at, environ, self._subject, is_local=is_local)


def _scheme_of(url: str) -> str:
    """http or https; empty if this is no URL with a host."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme if parts.hostname and parts.scheme in ("http", "https") else ""
    return ""


def _name_of(job: Mapping[str, object], table: SourceTable) -> str:
    return f"export of {table.id} (job {job.get('id')})"


def _ids(response: requests.Response) -> list[str]:
    """The `id` of each object in a JSON list, sorted; an empty list if the answer is something else."""
    body = parsed(response)
    items = body if isinstance(body, list) else []
    return sorted(str(item["id"]) for item in items if isinstance(item, dict) and "id" in item)


def _comparable_rows(detail: Mapping[str, object]) -> int | None:
    """rowsCount if an export must have exactly this many rows, else None.

    None for filtered aliases, views and external tables (docs/keboola.md 2.2), and for buckets on an external schema,
    whose count lags behind (docs/keboola.md 13.1).
    """
    rows, bucket = detail.get("rowsCount"), detail.get("bucket")
    is_external = isinstance(bucket, dict) and bucket.get("hasExternalSchema")
    is_plain = detail.get("tableType") in (None, "table") and not detail.get("aliasFilter") and not is_external
    return rows if is_plain and isinstance(rows, int) else None


def _cut_timestamps(detail: Mapping[str, object]) -> tuple[str, ...]:
    """Typed timestamps, of which Snowflake exports only `YYYY-MM-DD HH24:MI:SS` (docs/keboola.md 7.10).

    A load needs none of this, so an odd definition counts as none."""
    bucket, definition = detail.get("bucket"), detail.get("definition")
    is_snowflake = not isinstance(bucket, dict) or bucket.get("backend") != "bigquery"
    columns = definition.get("columns") if isinstance(definition, dict) else None
    if not detail.get("isTyped") or not is_snowflake or not isinstance(columns, list):
        return ()
    named = [column for column in columns if isinstance(column, dict) and column.get("basetype") == "TIMESTAMP"]
    return tuple(str(column.get("name")) for column in named)


def object_in(holder: Mapping[str, Any], key: str, subject: str) -> Mapping[str, Any]:
    """The object under a key of an answer; an empty one is a list, or is left out (docs/keboola.md 2.2).

    Raises ExtractError, about `subject`, if it is anything else."""
    found = holder.get(key)
    if isinstance(found, dict):
        return found
    if found in (None, []):
        return {}
    raise ExtractError(f"{subject}: Keboola's answer cannot be read: {key!r} must be an object{UNREADABLE}")


def list_in(holder: Mapping[str, Any], key: str, kind: type[Kind], subject: str) -> list[Kind]:
    """The list of objects (kind: dict) or texts (str) under a key of an answer; it may be left out.

    Raises ExtractError like `object_in`."""
    found = [] if holder.get(key) is None else holder[key]
    if isinstance(found, list) and all(isinstance(item, kind) for item in found):
        return found
    named = "objects" if kind is dict else "texts"
    raise ExtractError(f"{subject}: Keboola's answer cannot be read: {key!r} must be a list of {named}{UNREADABLE}")


def _job_error(job: Mapping[str, object]) -> str:
    error = job.get("error")
    return f"{error.get('message')}{handle_of(error)}" if isinstance(error, dict) else "no reason given"
