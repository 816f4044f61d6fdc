"""A local Keboola: Storage API and object store on one loopback port, exact enough for Keboola's own client.

    with KeboolaServer(slices=4) as keboola:
        keboola.put_table("in.c-shop.orders", columns=["id", "total"], rows=[("1", "9.90")])
        ...  # point the extractor at keboola.url with keboola.token, in keboola.store_environment

This module handles the sockets. The answers are made in `storage_api` and `object_store`.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from sandbox.answers import Bucket
from sandbox.csv_slices import QUOTINGS, Row
from sandbox.faults import Fault, Faults, spoil
from sandbox.job_queue import PATH as QUEUE_PATH
from sandbox.job_queue import JobQueue
from sandbox.messages import Request, Response
from sandbox.object_store import ObjectStore, serve
from sandbox.storage_api import StorageApi, kind_of
from sandbox.store_access import Clock, MakeStore, Presigner
from sandbox.store_gcs import GoogleStore
from sandbox.tables import Encoding, Table

Rows = Iterable[Row] | Callable[[], Iterable[Row]]
#: the reason in the answer of a `status` fault without a body
_REASONS = {401: "unauthorized", 403: "forbidden", 404: "notFound", 412: "conditionNotMet", 429: "busy", 503: "busy"}
_API_CODES = {401: "storage.tokenInvalid", 403: "accessDenied"}
_SECRET_HEADERS = {"x-storageapi-token", "authorization", "x-amz-security-token"}


@dataclass
class LoggedRequest:
    """A request that was received, for tests."""

    #: index, verify, buckets, bucket, tables, table, metadata, preview, export-async, jobs, job, files, file, manifest,
    #: slice, and queue, a search for the jobs of a flow
    kind: str
    method: str
    path: str
    #: lower-case names; the values of secrets are "***"
    headers: Mapping[str, str]
    parameters: Mapping[str, object]
    #: 0 until the response is known
    status: int = 0


class KeboolaServer:
    """One project on one stack. All its data are deleted when it is closed.

    - `store`: the cloud in which the slices are stored; it decides how they are requested.
    - `quoting`: "snowflake" or "bigquery", the dialect of the slices (docs/keboola.md 7.2).
    - `slices`: the number of slices of an export.
    - `sliced` False: one object with a header line instead of slices.
    - `gzip_members`: each slice is several gzip streams, one after the other (docs/keboola.md 7.7).
    - `polls`: the number of the poll that finds a job finished; 0: it is finished at once.
    - `credential_seconds`: how long store credentials are valid; by default as long as in the real cloud.
    - `url_seconds`: how long a presigned URL is valid.
    - `token_buckets`: the buckets that the token may read, by default all.
    - `key_prefix`: the beginning of every object's key; may contain blanks, plus signs, `=` and non-ASCII characters.
    - `clock`: returns epoch seconds.
    - `port`: where it listens; 0: any free port.

    Raises OSError if it cannot listen there.
    """

    def __init__(
        self,
        *,
        token: str = "815-4711-sandboxsandboxsandboxsandbox",
        store: MakeStore = GoogleStore,
        slices: int = 4,
        quoting: str = "snowflake",
        sliced: bool = True,
        gzip_members: bool = False,
        polls: int = 1,
        credential_seconds: float | None = None,
        url_seconds: float = 3600,
        token_buckets: tuple[str, ...] | None = None,
        key_prefix: str = "exp-2",
        clock: Clock = time.time,
        port: int = 0,
    ) -> None:
        if quoting not in QUOTINGS:
            raise ValueError(f"quoting is one of {', '.join(QUOTINGS)}, not {quoting}")
        self.token = token
        self.requests: list[LoggedRequest] = []
        self.faults = Faults()
        self._clock = clock
        self._http = _HttpServer(("127.0.0.1", port), self._answer, self.faults.stall)
        self._folder = Path(tempfile.mkdtemp(prefix="keboola-sandbox-"))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._encoding = Encoding(self._folder, slices, quoting, sliced, gzip_members)
        self._store = ObjectStore()
        #: the jobs of flows
        self.queue = JobQueue(token, clock)
        self._presigner = Presigner(clock, url_seconds)
        #: the cloud that the store imitates
        self.style = store(self.url, clock, credential_seconds, key_prefix)
        self._api = StorageApi(
            token=token,
            url=self.url,
            style=self.style,
            store=self._store,
            presigner=self._presigner,
            clock=clock,
            polls=polls,
            backend=quoting,
            token_buckets=token_buckets,
        )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, cut open connections, delete the slices."""
        self._http.shutdown()
        self._http.close_all()
        self.faults.release()
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def store_environment(self) -> dict[str, str]:
        """The environment variables through which clients of the cloud find the object store."""
        return self.style.environment()

    def put_table(
        self,
        table_id: str,
        *,
        columns: Sequence[str],
        rows: Rows,
        typed: bool = False,
        primary_key: Sequence[str] = (),
        external: bool = False,
        rows_said: int | None = None,
        description: str = "",
        hints: Mapping[str, Mapping[str, str]] | None = None,
        imported_at: float | None = None,
    ) -> None:
        """Replace the content of a table, as a full import does. `lastImportDate` moves on by at least a second.

        rows: a list or an iterator; for large tables a callable that returns a new iterator, so that memory use stays
        small. In a typed table a value that is not text is written without quotes, and None is NULL.
        external: the table's bucket shows an external schema.
        rows_said: the number of rows that the API reports, if it should be a wrong one.
        description, hints: metadata of the table and of its columns, such as {"total": {"KBC.datatype.basetype": ..}}.
        imported_at: the time of the import in epoch seconds; None: now.

        Raises ValueError for a row that does not fit (see `csv_slices.encode`); the old content then stays.
        """
        old = self._api.tables.get(table_id)
        now = self._clock() if imported_at is None else imported_at
        table = Table(
            id=table_id,
            columns=tuple(columns),
            primary_key=tuple(primary_key),
            typed=typed,
            rows=rows if callable(rows) else list(rows).__iter__,
            created=old.created if old else now,
            # the API shows whole seconds, and two imports must never show the same time
            changed=max(now, old.changed + 1) if old else now,
            encoding=self._encoding,
            external=external,
            rows_said=rows_said,
            description=description,
            hints=hints or {},
        )
        table.encoded(table.default_shape())
        self._api.put(table)

    def row_count(self, table_id: str) -> int:
        """The number of rows that a table holds now."""
        table = self._api.tables[table_id]
        return table.encoded(table.default_shape()).rows

    def delete_table(self, table_id: str) -> None:
        """Delete a table if it exists. Its bucket and the files of its exports stay."""
        self._api.drop(table_id)

    def put_bucket(self, bucket_id: str, description: str = "") -> None:
        """Make a bucket without tables. A bucket that exists gets the description."""
        self._api.put_bucket(Bucket(bucket_id, self._clock(), description))

    def expire_files(self) -> None:
        """Let every file that was exported so far be gone, with its manifest and slices."""
        self._api.expire_files()

    def expire_credentials(self) -> None:
        """Let every store credential that was issued so far expire now."""
        self.style.expire_all()

    def _answer(self, request: Request) -> Response:
        is_queue = request.path == QUEUE_PATH
        is_api = is_queue or request.path == "/v2/storage" or request.path.startswith("/v2/storage/")
        if is_api:
            kind = "queue" if is_queue else kind_of(request)
        else:
            kind = "manifest" if request.path.endswith("manifest") else "slice"
        headers = {name: "***" if name in _SECRET_HEADERS else value for name, value in request.headers.items()}
        parameters = request.parameters() if is_api and not request.is_malformed() else {}
        logged = LoggedRequest(kind or "unknown", request.method, request.path, headers, parameters)
        self.requests.append(logged)
        fault = self.faults.pick(logged.kind, request.path)
        response = self._answer_badly(request, is_api, fault) if fault else self._answer_well(request, is_api)
        logged.status = response.status
        return response

    def _answer_well(self, request: Request, is_api: bool) -> Response:
        if request.path == QUEUE_PATH:
            return self.queue.answer(request)
        return self._api.answer(request) if is_api else self._read_object(request)

    def _answer_badly(self, request: Request, is_api: bool, fault: Fault) -> Response:
        if fault.do:
            fault.do()
        if fault.action == "status":
            headers = {"Retry-After": fault.retry_after, "Location": fault.location}
            extra = {name: value for name, value in headers.items() if value}
            if fault.body:
                return Response(fault.status, extra, fault.body.encode())
            refuse = self._api.refuse if is_api else partial(self.style.refuse, request=request)
            reasons = _REASONS | _API_CODES if is_api else _REASONS
            reason = reasons.get(fault.status, "internalError")
            response = refuse(fault.status, reason, f"The sandbox was told to answer {fault.status}")
            response.headers |= extra
            return response
        if fault.action == "whole":
            headers = {name: value for name, value in request.headers.items() if not name.endswith("range")}
            request = replace(request, headers=headers)
        response = self._answer_well(request, is_api)
        if fault.action == "job" and response.status == 202:
            self._api.jobs[json.loads(response.data)["id"]].outcome = fault.outcome
        return spoil(response, fault)

    def _read_object(self, request: Request) -> Response:
        target = self.style.target(request)
        if target is None or request.method not in ("GET", "HEAD"):
            return self.style.refuse(400, "InvalidRequest", "The sandbox only reads objects.", request)
        if self._presigner.is_presigned(request):
            if "authorization" in request.headers:
                return self.style.refuse(400, "InvalidArgument", "Only one auth mechanism allowed", request)
            if not self._presigner.allows(request):
                return self.style.refuse(403, "forbidden", "Request has expired", request)
        else:
            refusal = self.style.refusal(request, target)
            if refusal:
                return refusal
        stored = self._store.get(target.bucket, target.key)
        if stored is None:
            return self.style.refuse(404, "notFound", f"No such object: {target.bucket}/{target.key}", request)
        return serve(stored, request, self.style.object_headers(stored))


class _HttpServer(ThreadingHTTPServer):
    """One thread per connection. Remembers its open connections, so that close_all can close them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], answer: Callable[[Request], Response], stall: Callable[[], None]
    ) -> None:
        super().__init__(address, _Handler)
        self.answer, self.stall = answer, stall
        self._open: set[socket.socket] = set()

    def server_bind(self) -> None:
        # HTTPServer.server_bind would look up the name of 127.0.0.1 in DNS, which can take seconds
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # do not report a client that closed the connection
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    # the type stub also allows datagrams; the requests of a TCP server are sockets
    def process_request(self, request: socket.socket, client_address: Any) -> None:  # type: ignore[override]
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # as above
        super().shutdown_request(request)
        self._open.discard(request)

    def close_all(self) -> None:
        self.server_close()
        for connection in list(self._open):
            with suppress(OSError):  # its own thread has just closed it
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # a response is sent in two writes, and Nagle's algorithm would delay the second by 40 ms
    disable_nagle_algorithm = True
    server: _HttpServer

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.answer(Request(self.command, path, query, headers, body))
        try:
            self._send(response)
        except OSError:  # the client closed the connection
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send(self, response: Response) -> None:
        if response.stall_at == -1:
            self.server.stall()
        if response.cut_at == -1:
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = response.length if response.cut_at is None else response.cut_at
        begin = 0
        if response.stall_at is not None and response.stall_at >= 0:
            self._send_body(response, begin, response.stall_at)
            begin = response.stall_at
            self.server.stall()
        self._send_body(response, begin, end)
        self.close_connection |= response.cut_at is not None

    def _send_body(self, response: Response, begin: int, end: int) -> None:
        if begin >= end:
            return
        if response.path is None:
            self.wfile.write(response.data[begin:end])
        else:
            with response.path.open("rb") as file:
                self.connection.sendfile(file, response.start + begin, end - begin)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr: `KeboolaServer.requests` is the log."""
