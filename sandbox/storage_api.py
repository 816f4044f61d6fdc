"""Implements the Storage API calls that an extractor and Keboola's own client make.

Keeps tables, jobs and files, and answers in the format of the real API (docs/keboola.md 1 to 6 and 8). It does not use
sockets: `answer` takes a request and returns a response.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from typing import TypeVar, cast
from urllib.parse import unquote

from sandbox import answers
from sandbox.answers import Bucket, File, Job
from sandbox.csv_slices import Encoded, csv_text
from sandbox.messages import Request, Response, json_response, truthy
from sandbox.metadata import Metadata
from sandbox.object_store import ObjectStore, StoredObject
from sandbox.store_access import Clock, Presigner, StoreStyle, Target
from sandbox.tables import Shape, Table

_PREVIEW_LIMIT = 1000
#: how many jobs or files a list has (docs/keboola.md 5)
_LISTED = 100
#: export parameters that would change the rows, and that the sandbox does not support
_UNKNOWN = ("changedSince", "changedUntil", "whereFilters", "whereColumn", "orderBy", "includeInternalTimestamp")


Item = TypeVar("Item")


class ApiError(Exception):
    """An error of the API: HTTP status, dotted code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class StorageApi:
    """Tables, jobs and files of one project."""

    def __init__(
        self,
        *,
        token: str,
        url: str,
        style: StoreStyle,
        store: ObjectStore,
        presigner: Presigner,
        clock: Clock,
        polls: int,
        backend: str,
        token_buckets: tuple[str, ...] | None,
    ) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.tables: dict[str, Table] = {}
        self.jobs: dict[int, Job] = {}
        self.files: dict[int, File] = {}
        self._token, self._url, self._style, self._store = token, url, style, store
        self._presigner, self._clock, self._polls = presigner, clock, polls
        self._backend, self._token_buckets = backend, token_buckets
        self._metadata = Metadata(clock)
        self._project = token.partition("-")[0]
        self._exports: dict[tuple[Table, Shape], int] = {}
        self._ids = itertools.count(501)
        self._refusals = itertools.count(1)
        self._lock = threading.RLock()

    def put(self, table: Table) -> None:
        """Add a table, or replace the table with the same id. Its bucket is made where there is none."""
        with self._lock:
            self.buckets.setdefault(table.bucket, Bucket(table.bucket, table.created))
            self.tables[table.id] = table

    def put_bucket(self, bucket: Bucket) -> None:
        """Add an empty bucket, or replace the description of one."""
        with self._lock:
            self.buckets[bucket.id] = bucket

    def drop(self, table_id: str) -> None:
        """Remove a table. Its bucket and the files of its exports stay."""
        with self._lock:
            self.tables.pop(table_id, None)

    def expire_files(self) -> None:
        """Remove every file that was exported so far, with its objects."""
        with self._lock:
            for file in self.files.values():
                self._store.remove(file.target.bucket, file.target.key)
            self.files.clear()

    def answer(self, request: Request) -> Response:
        """The response to any request below /v2/storage."""
        try:
            if request.is_malformed():
                raise ApiError(400, "malformedRequest", "The request's parameters cannot be read")
            for method, pattern, handler, _ in _ROUTES:
                match = pattern.fullmatch(request.path)
                if match and method == request.method.replace("HEAD", "GET"):
                    if handler is not StorageApi._index and request.headers.get("x-storageapi-token") != self._token:
                        raise ApiError(401, "storage.tokenInvalid", "Invalid access token")
                    with self._lock:
                        return handler(self, request, *map(unquote, match.groups()))
            raise ApiError(404, "notFound", "Not found")
        except ApiError as error:
            return self.refuse(error.status, error.code, str(error))

    def refuse(self, status: int, code: str, message: str) -> Response:
        """An error response with the API's usual body (docs/keboola.md 8.1)."""
        number = hashlib.md5(str(next(self._refusals)).encode(), usedforsecurity=False).hexdigest()
        body = {"error": message, "code": code, "exceptionId": f"sandbox-connection-{number}", "status": "error"}
        return json_response(body | {"context": []}, status)

    # --- project

    def _index(self, request: Request) -> Response:
        services = [{"id": "queue", "url": self._url}]
        links = {"services": services, "components": [], "features": [], "urlTemplates": []}
        return json_response({"api": "storage", "version": "v2", "revision": "sandbox", "stack": "sandbox"} | links)

    def _verify(self, request: Request) -> Response:
        buckets = self._token_buckets if self._token_buckets is not None else sorted(self._buckets())
        return json_response(
            answers.token(self._token, self._project, buckets, self._style.provider, self._style.region)
        )

    def _branches(self, request: Request) -> Response:
        return json_response([{"id": 1, "name": "Main", "description": "", "isDefault": True}])

    # --- buckets and tables

    def _bucket_list(self, request: Request) -> Response:
        buckets = [self._bucket_fields(bucket) for bucket in sorted(self._buckets())]
        if "metadata" not in _included(request):
            buckets = [{name: value for name, value in bucket.items() if name != "metadata"} for bucket in buckets]
        return json_response(buckets)

    def _bucket_detail(self, request: Request, bucket: str) -> Response:
        self._see_bucket(bucket)
        tables = [answers.listed(self._table_fields(table), set()) for table in self._tables_of(bucket)]
        return json_response(self._bucket_fields(bucket) | {"tables": tables, "attributes": []})

    def _table_list(self, request: Request, bucket: str | None = None) -> Response:
        if bucket is not None:
            self._see_bucket(bucket)
        included = _included(request, "buckets,metadata")
        tables = [table for table in self._tables_of(bucket) if self._may_read(table.bucket)]
        return json_response([answers.listed(self._table_fields(table), included) for table in tables])

    def _table_detail(self, request: Request, table_id: str) -> Response:
        return json_response(self._table_fields(self._see_table(table_id)))

    def _preview(self, request: Request, table_id: str) -> Response:
        table, query = self._see_table(table_id), request.query()
        limit = _limit(query.get("limit", 100))
        if limit > _PREVIEW_LIMIT:
            raise ApiError(400, "storage.tables.validation", f"The limit must not exceed {_PREVIEW_LIMIT}")
        shape = self._shape(table, query | {"limit": limit, "gzip": 0})
        quoting = table.encoding.quoting
        text = csv_text([shape.columns], quoting, False) + csv_text(table.selected(shape), quoting, table.typed)
        return Response(200, {"Content-Type": "text/csv; charset=UTF-8"}, text.encode("utf-8", "surrogateescape"))

    def _export(self, request: Request, table_id: str) -> Response:
        table = self._see_table(table_id)
        shape = self._shape(table, request.parameters())
        key, run_id = (table, shape), request.headers.get("x-kbc-runid")
        cached = self._exports.get(key)
        hit = cached in self.files
        file_id = cached if cached is not None and hit else self._new_file(table, shape)
        self._exports[key] = file_id
        if run_id and run_id not in self.files[file_id].run_ids:
            self.files[file_id].run_ids.append(run_id)
        job = Job(next(self._ids), table, shape, self._polls, self._clock(), run_id, file_id, hit)
        self.jobs[job.id] = job
        return json_response(self._job_fields(job, "waiting" if job.polls_left else self._status(job)), 202)

    def _shape(self, table: Table, parameters: dict[str, object]) -> Shape:
        unknown = [name for name in _UNKNOWN if parameters.get(name)]
        if unknown or parameters.get("format", "rfc") != "rfc" or parameters.get("fileType", "csv") != "csv":
            raise ApiError(501, "sandbox.notImplemented", f"The sandbox exports all rows as CSV, not {parameters}")
        asked = cast(str | list[str], parameters.get("columns") or list(table.columns))
        columns = tuple(asked.split(",") if isinstance(asked, str) else asked)
        missing = [column for column in columns if column not in table.columns]
        if missing:
            message = f'Some columns in the "columns" parameter are not in the table {table.id}: {", ".join(missing)}'
            raise ApiError(400, "storage.tables.validation.columnNotExists", message)
        limit = _limit(parameters["limit"]) if "limit" in parameters else None
        return Shape(columns, truthy(parameters.get("gzip", 0)), limit)

    # --- metadata

    def _metadata_list(self, request: Request, owner: str) -> Response:
        self._see(owner)
        return json_response(self._metadata.of(owner))

    def _metadata_post(self, request: Request, owner: str) -> Response:
        """Entries of the owner, and of a table's columns. Without columns the answer is the list of the owner's."""
        self._see(owner)
        parameters = request.parameters()
        provider, columns = parameters.get("provider"), parameters.get("columnsMetadata") or {}
        try:
            if owner != "branch" and (not isinstance(provider, str) or not provider):
                raise ValueError
            self._metadata.post(owner, str(provider), cast(list[dict[str, object]], parameters.get("metadata") or []))
            for name, items in cast(dict[str, list[dict[str, object]]], columns).items():
                self._metadata.post(f"{owner}.{name}", str(provider), items)
        except (AttributeError, KeyError, TypeError, ValueError):
            message = "provider must be a text, metadata a list of objects with key and value"
            raise ApiError(400, "storage.validation", message) from None
        own = self._metadata.of(owner)
        of_columns = {name: self._metadata.of(f"{owner}.{name}") for name in cast(dict[str, object], columns)}
        return json_response({"metadata": own, "columnsMetadata": of_columns} if columns else own, 201)

    def _metadata_delete(self, request: Request, owner: str, entry_id: str) -> Response:
        self._see(owner)
        if not self._metadata.delete(owner, entry_id):
            raise ApiError(404, "notFound", f'Metadata "{entry_id}" was not found')
        return Response(204)

    def _branch_metadata(self, request: Request) -> Response:
        return self._metadata_list(request, "branch")

    def _post_branch_metadata(self, request: Request) -> Response:
        return self._metadata_post(request, "branch")

    def _delete_branch_metadata(self, request: Request, entry_id: str) -> Response:
        return self._metadata_delete(request, "branch", entry_id)

    def _see(self, owner: str) -> None:
        """Raises ApiError if there is no such branch, bucket or table, or the token may not read it."""
        if owner.count(".") == 1:
            self._see_bucket(owner)
        elif owner != "branch":
            self._see_table(owner)

    # --- jobs and files

    def _job_list(self, request: Request) -> Response:
        jobs = sorted(self.jobs.values(), key=lambda job: -job.id)
        return json_response([self._job_fields(job, self._status(job)) for job in _page(jobs, request)])

    def _job_detail(self, request: Request, job_id: str) -> Response:
        job = self.jobs.get(int(job_id))
        if job is None:
            raise ApiError(404, "storage.jobs.notFound", f'Job "{job_id}" not found')
        job.polls_left -= 1
        return json_response(self._job_fields(job, self._status(job)))

    def _file_list(self, request: Request) -> Response:
        files = sorted(self.files.values(), key=lambda file: -file.id)
        tags = request.query().get("tags") or []
        if asked := {tags} if isinstance(tags, str) else set(cast(list[str], tags)):
            files = [file for file in files if asked & set(answers.TAGS)]
        return json_response([self._file_fields(file) for file in _page(files, request)])

    def _file_detail(self, request: Request, file_id: str) -> Response:
        file = self.files.get(int(file_id))
        if file is None:
            raise ApiError(404, "storage.files.notFound", f'File "{file_id}" was not found')
        fields = self._file_fields(file)
        if truthy(request.query().get("federationToken", 0)):
            fields |= self._style.grant(file.target)
        return json_response(fields)

    def _new_file(self, table: Table, shape: Shape) -> int:
        encoded, file_id = table.encoded(shape), next(self._ids)
        suffix = ".csv.gz" if shape.gzipped else ".csv"
        # the number in the key is not the file's id (docs/keboola.md 6.1)
        target = self._style.place(self._project, table.id, file_id, f"{file_id - 2}{suffix}")
        if table.encoding.sliced:
            self._put_slices(target, encoded, table.encoding.quoting, suffix)
        else:
            self._put_slice(target, encoded, 0)
        size = sum(stored.size for stored in encoded.slices)
        self.files[file_id] = File(file_id, table.id + suffix, target, size, self._clock())
        return file_id

    def _put_slices(self, target: Target, encoded: Encoded, quoting: str, suffix: str) -> None:
        entries = []
        for number in range(len(encoded.slices)):
            ending = f"_{number // 8}_{number % 8}_0" if quoting == "snowflake" else f"{number:012d}"
            slice_target = Target(target.bucket, f"{target.key}{ending}{suffix}")
            self._put_slice(slice_target, encoded, number)
            entries.append({"url": self._style.entry_url(slice_target), "mandatory": True})
        data = json.dumps({"entries": entries}).replace("/", "\\/").encode()
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        manifest = StoredObject(len(data), md5, next(self._ids), data=data)
        self._store.put(target.bucket, target.key + "manifest", manifest)

    def _put_slice(self, target: Target, encoded: Encoded, number: int) -> None:
        stored = encoded.slices[number]
        self._store.put(target.bucket, target.key, StoredObject(stored.size, stored.md5, next(self._ids), stored.path))

    # --- contents of the answers

    def _status(self, job: Job) -> str:
        return "processing" if job.polls_left > 0 else job.outcome

    def _job_fields(self, job: Job, status: str) -> dict[str, object]:
        return answers.job(job, status, self._url, self._clock())

    def _file_fields(self, file: File) -> dict[str, object]:
        sliced = self._store.get(file.target.bucket, file.target.key) is None
        shown = Target(file.target.bucket, file.target.key + ("manifest" if sliced else ""))
        url = self._url + self._presigner.sign(self._style.path(shown))
        fields = answers.file(file, sliced, url, self._style.provider, self._style.region)
        return fields | self._style.file_fields(file.target)

    def _bucket_fields(self, bucket: str) -> dict[str, object]:
        fields = answers.bucket(self.buckets[bucket], self._tables_of(bucket), self._backend, self._url)
        return fields | {"metadata": self._metadata.of(bucket)}

    def _table_fields(self, table: Table) -> dict[str, object]:
        return answers.table(table, self._metadata, self._url)

    def _tables_of(self, bucket: str | None) -> list[Table]:
        """The tables of a bucket, or all."""
        return [table for table in self.tables.values() if table.bucket == (bucket or table.bucket)]

    def _buckets(self) -> set[str]:
        return {bucket for bucket in self.buckets if self._may_read(bucket)}

    def _may_read(self, bucket: str) -> bool:
        return self._token_buckets is None or bucket in self._token_buckets

    def _see_bucket(self, bucket: str) -> None:
        if not self._may_read(bucket):
            raise ApiError(403, "accessDenied", "You don't have access to the resource.")
        if bucket not in self._buckets():
            message = f'Bucket "{bucket}" was not found in the project "{self._project}"'
            raise ApiError(404, "storage.buckets.notFound", message)

    def _see_table(self, table_id: str) -> Table:
        bucket, _, name = table_id.rpartition(".")
        self._see_bucket(bucket)
        if table_id not in self.tables:
            message = f'The table "{name}" was not found in the bucket "{bucket}" in the project "{self._project}"'
            raise ApiError(404, "storage.tables.notFound", message)
        return self.tables[table_id]


def _included(request: Request, default: str = "") -> set[str]:
    return set(str(request.query().get("include", default)).split(","))


def _page(items: list[Item], request: Request) -> list[Item]:
    """The part of a list that `limit` and `offset` ask for."""
    query = request.query()
    first = _limit(query.get("offset", 0))
    return items[first : first + _limit(query.get("limit", _LISTED))]


def _limit(value: object) -> int:
    if not str(value).isdecimal():
        raise ApiError(400, "storage.tables.validation", f'The limit "{value}" is not a number of rows')
    return int(str(value))


#: what only a path with the branch has
_IN_BRANCH = "(?:(?<=/branch/default)|(?<=/branch/1))"
_PATHS: list[tuple[str, str, Callable[..., Response], str]] = [
    ("GET", "/?", StorageApi._index, "index"),
    ("GET", "/tokens/verify", StorageApi._verify, "verify"),
    ("GET", "/dev-branches/?", StorageApi._branches, "branches"),
    ("GET", "/buckets/?", StorageApi._bucket_list, "buckets"),
    ("GET", "/buckets/([^/]+)", StorageApi._bucket_detail, "bucket"),
    ("GET", "/buckets/([^/]+)/tables", StorageApi._table_list, "tables"),
    ("GET", f"{_IN_BRANCH}/metadata", StorageApi._branch_metadata, "metadata"),
    ("POST", f"{_IN_BRANCH}/metadata", StorageApi._post_branch_metadata, "metadata"),
    ("DELETE", f"{_IN_BRANCH}/metadata/([^/]+)", StorageApi._delete_branch_metadata, "metadata"),
    ("GET", "/(?:buckets|tables)/([^/]+)/metadata", StorageApi._metadata_list, "metadata"),
    ("POST", "/(?:buckets|tables)/([^/]+)/metadata", StorageApi._metadata_post, "metadata"),
    ("DELETE", "/(?:buckets|tables)/([^/]+)/metadata/([^/]+)", StorageApi._metadata_delete, "metadata"),
    ("GET", "/tables/?", StorageApi._table_list, "tables"),
    ("GET", "/tables/([^/]+)", StorageApi._table_detail, "table"),
    ("GET", "/tables/([^/]+)/data-preview", StorageApi._preview, "preview"),
    ("POST", "/tables/([^/]+)/export-async", StorageApi._export, "export-async"),
    ("GET", "/jobs/?", StorageApi._job_list, "jobs"),
    ("GET", r"/jobs/(\d+)", StorageApi._job_detail, "job"),
    ("GET", "/files/?", StorageApi._file_list, "files"),
    ("GET", r"/files/(\d+)", StorageApi._file_detail, "file"),
]
_ROUTES = [
    (method, re.compile("/v2/storage(?:/branch/(?:default|1))?" + path), handler, kind)
    for method, path, handler, kind in _PATHS
]


def kind_of(request: Request) -> str | None:
    """The name of an API request in logs and faults; None if no route matches it."""
    for method, pattern, _, kind in _ROUTES:
        if method == request.method.replace("HEAD", "GET") and pattern.fullmatch(request.path):
            return kind
    return None
