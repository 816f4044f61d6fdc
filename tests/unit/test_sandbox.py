"""The sandbox Keboola, tested with Keboola's own client, the clouds' own clients, and plain HTTP."""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import re
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import boto3
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient, generate_container_sas
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from kbcstorage.client import Client
from kbcstorage.tables_metadata import TablesMetadata
from requests_aws4auth import AWS4Auth

from sandbox.faults import MAINTENANCE, Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.clouds import CLOUDS

TABLE = "in.c-shop.orders"
COLUMNS = ("id", "note", "empty")
ROWS = [(str(number), f'line "{number}",\r\nnaïve \\N \U0001f98a', "") for number in range(300)]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """Plain HTTP to a sandbox, with the steps of an extractor."""

    def __init__(self, keboola: KeboolaServer) -> None:
        self.keboola = keboola

    def call(self, path: str, method: str = "GET", **arguments: object) -> requests.Response:
        headers = {"x-storageAPI-token": self.keboola.token, **arguments.pop("headers", {})}
        url = f"{self.keboola.url}/v2/storage/{path}"
        return requests.request(method, url, headers=headers, timeout=10, **arguments)

    def export(self, table: str = TABLE, **parameters: object) -> dict:
        """The file detail of a finished export."""
        job = self.call(f"tables/{table}/export-async", "POST", json={"gzip": True, **parameters}).json()
        job = self.call(f"jobs/{job['id']}").json()
        return self.call(f"files/{job['results']['file']['id']}?federationToken=1").json()

    def slice_urls(self, file: dict) -> list[str]:
        return [entry["url"] for entry in requests.get(file["url"], timeout=10).json()["entries"]]

    def get_slice(self, file: dict, url: str, **headers: str) -> requests.Response:
        """A slice through GCS's JSON API; the body as received."""
        bucket, _, key = url.removeprefix("gs://").partition("/")
        token = file["gcsCredentials"]["access_token"]
        place = f"{self.keboola.url}/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media"
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity", **headers}
        return requests.get(place, headers=headers, timeout=10)

    def csv_slices(self, table: str = TABLE, **parameters: object) -> list[bytes]:
        """The slices' CSV."""
        file = self.export(table, **parameters)
        bodies = [self.get_slice(file, url).content for url in self.slice_urls(file)]
        return [gzip.decompress(body) if file["name"].endswith(".gz") and body else body for body in bodies]


def parsed(text: bytes) -> list[tuple[str, ...]]:
    return [tuple(row) for row in csv.reader(io.StringIO(text.decode(), newline=""), strict=True)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keboola(clock: Clock) -> Iterator[KeboolaServer]:
    with KeboolaServer(clock=clock) as server:
        server.put_table(TABLE, columns=COLUMNS, rows=ROWS, primary_key=["id"])
        yield server


@pytest.fixture
def caller(keboola: KeboolaServer) -> Caller:
    return Caller(keboola)


# --- Keboola's own client


# Keboola's client leaves its temporary folder to the garbage collector
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
@pytest.mark.parametrize("quoting", ["snowflake", "bigquery"])
@pytest.mark.parametrize("provider", ["gcp", "aws", "azure"])
def test_keboolas_client_exports_what_the_table_holds(
    provider: str, quoting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # and writes slices into the working directory
    monkeypatch.chdir(tmp_path)
    with KeboolaServer(store=CLOUDS[provider], quoting=quoting, slices=3) as keboola:
        for name, value in keboola.store_environment.items():
            monkeypatch.setenv(name, value)
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        client = Client(keboola.url, keboola.token)
        for is_gzip in (True, False):
            path = client.tables.export_to_file(TABLE, str(tmp_path), is_gzip=is_gzip)
            header, *rows = parsed(Path(path).read_bytes())
            assert header == COLUMNS
            assert sorted(rows) == sorted(ROWS)


def test_keboolas_client_lists_details_and_previews(keboola: KeboolaServer) -> None:
    client = Client(keboola.url, keboola.token)
    assert client.tokens.verify()["owner"]["fileStorageProvider"] == "gcp"
    assert [bucket["id"] for bucket in client.buckets.list()] == ["in.c-shop"]
    assert client.buckets.detail("in.c-shop")["stage"] == "in"
    assert [table["id"] for table in client.buckets.list_tables("in.c-shop")] == [TABLE]
    listed = client.tables.list(include=["columns"])
    assert [(table["id"], tuple(table["columns"])) for table in listed] == [(TABLE, COLUMNS)]
    detail = client.tables.detail(TABLE)
    assert (detail["rowsCount"], detail["primaryKey"], detail["isTyped"]) == (300, ["id"], False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", detail["lastImportDate"])
    assert parsed(client.tables.preview(TABLE).encode()) == [COLUMNS, *ROWS[:100]]
    assert parsed(client.tables.preview(TABLE, columns=["note"]).encode())[:2] == [("note",), (ROWS[0][1],)]


def test_keboolas_client_finds_files_and_jobs(keboola: KeboolaServer) -> None:
    client = Client(keboola.url, keboola.token)
    file_id = client.tables.export(TABLE)
    assert [file["id"] for file in client.files.list()] == [file_id]
    assert "gcsCredentials" not in client.files.detail(file_id)
    assert client.files.detail(file_id, federation_token=True)["isSliced"] is True
    assert [job["status"] for job in client.jobs.list()] == ["success"]


def test_keboolas_client_finds_files_by_their_tags_and_in_pages(keboola: KeboolaServer, caller: Caller) -> None:
    client = Client(keboola.url, keboola.token)
    ids = [client.tables.export(TABLE, columns=[name]) for name in COLUMNS]
    assert client.files.list(tags=["py-test"]) == []
    assert [file["id"] for file in client.files.list(tags=["table-export"])] == ids[::-1]
    assert [file["id"] for file in client.files.list(limit=1, offset=1)] == [ids[1]]
    jobs = [job["id"] for job in client.jobs.list()]
    assert [job["id"] for job in caller.call("jobs?limit=2").json()] == jobs[:2]
    assert [job["id"] for job in caller.call("jobs?limit=2&offset=2").json()] == jobs[2:]
    assert caller.call("jobs?limit=many").json()["code"] == "storage.tables.validation"


def test_keboolas_client_sees_a_bucket_without_tables(keboola: KeboolaServer) -> None:
    """The assertions of Keboola's own tests of its client."""
    client = Client(keboola.url, keboola.token)
    keboola.put_bucket("in.c-py-test-buckets", "Test bucket")
    assert [bucket["id"] for bucket in client.buckets.list()] == ["in.c-py-test-buckets", "in.c-shop"]
    detail = client.buckets.detail("in.c-py-test-buckets")
    assert (detail["name"], detail["description"]) == ("c-py-test-buckets", "Test bucket")
    assert detail["uri"] and detail["created"]
    assert (detail["tables"], detail["attributes"]) == ([], [])
    assert client.buckets.list_tables("in.c-py-test-buckets") == []
    assert [table["id"] for table in client.buckets.detail("in.c-shop")["tables"]] == [TABLE]
    keboola.delete_table(TABLE)
    assert client.buckets.detail("in.c-shop")["tables"] == []


def test_lists_of_tables_have_bucket_and_metadata_unless_something_else_is_asked(keboola: KeboolaServer) -> None:
    client = Client(keboola.url, keboola.token)
    keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS, description="All orders")
    for listed in (client.tables.list(), client.buckets.list_tables("in.c-shop")):
        assert [(table["bucket"]["id"], table["metadata"][0]["value"]) for table in listed] == [
            ("in.c-shop", "All orders")
        ]
    (bare,) = client.tables.list(include=["columns"])
    assert not {"bucket", "metadata", "columnMetadata", "definition"} & set(bare)
    (both,) = client.tables.list(include=["metadata", "columnMetadata"])
    assert both["metadata"] and both["columnMetadata"] == []


def test_keboolas_client_writes_and_reads_metadata(keboola: KeboolaServer, caller: Caller) -> None:
    tables = TablesMetadata(keboola.url, keboola.token)
    items = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
    written = tables.create(TABLE, "tests", items)
    assert [(entry["key"], entry["value"], entry["provider"]) for entry in written] == [
        ("a", "1", "tests"),
        ("b", "2", "tests"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", written[0]["timestamp"])
    # a key of a provider has one value
    tables.create(TABLE, "tests", [{"key": "a", "value": "3"}])
    tables.create(TABLE, "others", [{"key": "a", "value": "4"}])
    assert sorted((entry["key"], entry["value"]) for entry in tables.list(TABLE)) == [
        ("a", "3"),
        ("a", "4"),
        ("b", "2"),
    ]
    for entry in tables.list(TABLE)[1:]:
        tables.delete(TABLE, entry["id"])
    assert caller.call(f"tables/{TABLE}").json()["metadata"] == tables.list(TABLE)
    assert len(tables.list(TABLE)) == 1
    with pytest.raises(requests.HTTPError, match="404"):
        tables.delete(TABLE, "1")


@pytest.mark.parametrize("place", ["branch/default", "branch/1", "buckets/in.c-shop", f"tables/{TABLE}"])
def test_branch_bucket_and_table_have_metadata(caller: Caller, place: str) -> None:
    assert caller.call(f"{place}/metadata").json() == []
    body = {"provider": "tests", "metadata": [{"key": "KBC.description", "value": "naïve"}]}
    posted = caller.call(f"{place}/metadata", "POST", json=body)
    assert (posted.status_code, posted.json()[0]["value"]) == (201, "naïve")
    assert caller.call(f"{place}/metadata").json() == posted.json()
    assert caller.call(f"{place}/metadata/{posted.json()[0]['id']}", "DELETE").status_code == 204
    assert caller.call(f"{place}/metadata").json() == []


def test_metadata_of_columns_stand_in_the_tables_detail(caller: Caller) -> None:
    body = {"provider": "tests", "columnsMetadata": {"note": [{"key": "k", "value": "v"}]}}
    posted = caller.call(f"tables/{TABLE}/metadata", "POST", json=body).json()
    assert posted["metadata"] == [] and posted["columnsMetadata"]["note"][0]["value"] == "v"
    assert caller.call(f"tables/{TABLE}").json()["columnMetadata"] == posted["columnsMetadata"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("buckets/in.c-gone/metadata", {"provider": "p", "metadata": []}, 404),
        ("tables/in.c-shop.gone/metadata", {"provider": "p", "metadata": []}, 404),
        ("metadata", {"metadata": []}, 404),
        (f"tables/{TABLE}/metadata", {"metadata": [{"key": "k", "value": "v"}]}, 400),
        (f"tables/{TABLE}/metadata", {"provider": "p", "metadata": ["k"]}, 400),
        (f"tables/{TABLE}/metadata", {"provider": "p", "metadata": [{"key": "k"}]}, 400),
    ],
)
def test_metadata_that_cannot_be_written_are_refused(
    caller: Caller, path: str, body: dict[str, object], status: int
) -> None:
    assert caller.call(path, "POST", json=body).status_code == status


def test_files_that_expired_are_gone_with_their_objects(caller: Caller, one_slice: tuple[dict, str]) -> None:
    file, url = one_slice
    caller.keboola.expire_files()
    assert caller.call(f"files/{file['id']}").json()["code"] == "storage.files.notFound"
    assert caller.get_slice(file, url).status_code == requests.get(file["url"], timeout=10).status_code == 404
    assert caller.export()["id"] != file["id"]


# --- the API, as an extractor sees it


def test_an_export_is_a_job_a_file_a_manifest_and_slices_without_header(caller: Caller) -> None:
    slices = caller.csv_slices()
    assert len(slices) == 4
    assert sorted(row for text in slices for row in parsed(text)) == sorted(ROWS)
    kinds = [(request.kind, request.status) for request in caller.keboola.requests]
    assert kinds == [("export-async", 202), ("job", 200), ("file", 200), ("manifest", 200)] + [("slice", 200)] * 4


def test_manifest_entries_look_like_the_clouds_and_lie_below_the_files_key(caller: Caller) -> None:
    file = caller.export()
    place = f"gs://{file['gcsPath']['bucket']}/{file['gcsPath']['key']}"
    assert [url.removeprefix(place) for url in caller.slice_urls(file)] == [f"_0_{n}_0.csv.gz" for n in range(4)]
    assert urlsplit(file["url"]).path.endswith(file["gcsPath"]["key"] + "manifest")


@pytest.mark.parametrize("columns", ["empty,id", ["empty", "id"]])
def test_columns_come_in_the_order_asked_for(caller: Caller, columns: object) -> None:
    texts = caller.csv_slices(columns=columns)
    assert sorted(row for text in texts for row in parsed(text)) == sorted(("", row[0]) for row in ROWS)


def test_json_and_forms_with_brackets_say_the_same(caller: Caller) -> None:
    form = {"columns[0]": "note", "columns[1]": "id", "gzip": "1", "limit": "7"}
    posted = caller.call(f"tables/{TABLE}/export-async", "POST", data=form).json()
    export = posted["operationParams"]["export"]
    assert (export["columns"], export["gzipOutput"], export["limit"]) == (["note", "id"], True, 7)
    again = caller.call(f"tables/{TABLE}/export-async", "POST", json={"columns": "note,id", "gzip": True, "limit": 7})
    assert again.json()["operationParams"] == posted["operationParams"]
    assert sum(len(parsed(text)) for text in caller.csv_slices(limit=7)) == 7


def test_the_default_branch_is_the_project(caller: Caller) -> None:
    assert caller.call(f"branch/default/tables/{TABLE}").json() == caller.call(f"tables/{TABLE}").json()
    assert caller.call("branch/77/tables").status_code == 404


def test_an_equal_export_of_an_unchanged_table_is_a_cache_hit(caller: Caller) -> None:
    def exported(**parameters: object) -> tuple[int, bool]:
        job = caller.call(f"tables/{TABLE}/export-async", "POST", json=parameters).json()
        results = caller.call(f"jobs/{job['id']}").json()["results"]
        return results["file"]["id"], results["cacheHit"]

    first, hit = exported(gzip=True)
    assert not hit
    assert exported(gzip=True) == (first, True)
    assert exported(gzip=False)[1] is False
    caller.keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
    assert exported(gzip=True)[1] is False


def test_each_import_moves_the_import_date_even_within_a_second(caller: Caller) -> None:
    dates = []
    for _ in range(3):
        dates.append(caller.call(f"tables/{TABLE}").json()["lastImportDate"])
        caller.keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS[:5])
    assert sorted(set(dates)) == dates
    assert caller.call(f"tables/{TABLE}").json()["rowsCount"] == 5


def test_a_running_export_keeps_the_rows_that_it_began_with(caller: Caller) -> None:
    job = caller.call(f"tables/{TABLE}/export-async", "POST", json={"gzip": True}).json()
    caller.keboola.put_table(TABLE, columns=["other"], rows=[])
    file_id = caller.call(f"jobs/{job['id']}").json()["results"]["file"]["id"]
    file = caller.call(f"files/{file_id}?federationToken=true").json()
    texts = [gzip.decompress(caller.get_slice(file, url).content) for url in caller.slice_urls(file)]
    assert sorted(row for text in texts for row in parsed(text)) == sorted(ROWS)


def test_a_job_is_done_at_the_poll_that_was_agreed() -> None:
    with KeboolaServer(polls=3) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        caller = Caller(keboola)
        job = caller.call(f"tables/{TABLE}/export-async", "POST").json()
        assert (job["status"], job["results"]) == ("waiting", None)
        seen = [caller.call(f"jobs/{job['id']}").json()["status"] for _ in range(4)]
        assert seen == ["processing", "processing", "success", "success"]


def test_a_job_can_be_done_in_the_answer_that_starts_it() -> None:
    with KeboolaServer(polls=0) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        assert Caller(keboola).call(f"tables/{TABLE}/export-async", "POST").json()["status"] == "success"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "tables/in.c-shop.gone", 404, "storage.tables.notFound"),
        ("GET", "tables/in.c-gone.orders", 404, "storage.buckets.notFound"),
        ("GET", "buckets/in.c-gone", 404, "storage.buckets.notFound"),
        ("POST", "tables/in.c-shop.gone/export-async", 404, "storage.tables.notFound"),
        ("POST", f"tables/{TABLE}/export-async?columns=id,gone", 400, "storage.tables.validation.columnNotExists"),
        ("GET", f"tables/{TABLE}/data-preview?limit=1001", 400, "storage.tables.validation"),
        ("GET", f"tables/{TABLE}/data-preview?limit=many", 400, "storage.tables.validation"),
        ("POST", f"tables/{TABLE}/export-async?limit=-1", 400, "storage.tables.validation"),
        ("GET", "files/999999", 404, "storage.files.notFound"),
        ("GET", "nowhere", 404, "notFound"),
        ("POST", f"tables/{TABLE}/export-async?changedSince=-2+days", 501, "sandbox.notImplemented"),
    ],
)
def test_refusals_have_the_real_shape(caller: Caller, method: str, path: str, status: int, code: str) -> None:
    response = caller.call(path, method)
    body = response.json()
    assert (response.status_code, body["code"], body["status"]) == (status, code, "error")
    assert body["error"] and re.fullmatch(r"sandbox-connection-[0-9a-f]{32}", body["exceptionId"])


@pytest.mark.parametrize("body", ["{", "[1]", "5"])
def test_a_body_that_is_no_json_is_refused(caller: Caller, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = caller.call(f"tables/{TABLE}/export-async", "POST", data=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "malformedRequest")


def test_a_wrong_token_is_refused_everywhere_but_at_the_index(keboola: KeboolaServer) -> None:
    for headers in ({}, {"X-StorageApi-Token": "815-1-wrong"}):
        refused = requests.get(f"{keboola.url}/v2/storage/tokens/verify", headers=headers, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (401, "storage.tokenInvalid")
        assert requests.get(f"{keboola.url}/v2/storage", headers=headers, timeout=10).json()["api"] == "storage"


def test_a_token_reads_its_own_buckets_alone() -> None:
    with KeboolaServer(token_buckets=("in.c-own",)) as keboola:
        for bucket in ("in.c-own", "in.c-foreign"):
            keboola.put_table(f"{bucket}.t", columns=["a"], rows=[])
        caller = Caller(keboola)
        assert caller.call("tokens/verify").json()["bucketPermissions"] == {"in.c-own": "read"}
        assert [table["id"] for table in caller.call("tables").json()] == ["in.c-own.t"]
        refused = caller.call("tables/in.c-foreign.t/export-async", "POST")
        assert (refused.status_code, refused.json()["code"]) == (403, "accessDenied")


def test_empty_maps_are_phps_empty_lists() -> None:
    with KeboolaServer() as keboola:
        assert Caller(keboola).call("tokens/verify").json()["bucketPermissions"] == []
        keboola.put_table(TABLE, columns=COLUMNS, rows=[])
        assert Caller(keboola).call(f"tables/{TABLE}").json()["columnMetadata"] == []


def test_the_log_holds_what_was_asked_and_no_secret(caller: Caller) -> None:
    caller.export(columns="id")
    keboola = caller.keboola
    assert keboola.requests[0].parameters == {"gzip": True, "columns": "id"}
    assert keboola.requests[0].headers["x-storageapi-token"] == "***"
    assert keboola.token not in repr(keboola.requests)


# --- the two dialects


def export_text(quoting: str, rows: list[tuple], typed: bool = False, slices: int = 1) -> list[bytes]:
    with KeboolaServer(quoting=quoting, slices=slices) as keboola:
        keboola.put_table("in.c-a.t", columns=[f"c{number}" for number in range(3)], rows=rows, typed=typed)
        return Caller(keboola).csv_slices("in.c-a.t")


def test_snowflake_quotes_every_text_and_leaves_numbers_and_nulls_bare() -> None:
    assert export_text("snowflake", [("1", "", 'a"b')]) == [b'"1","","a""b"\n']
    assert export_text("snowflake", [(1, None, ""), ("a\n", True, '"')], typed=True) == [b'1,,""\n"a\n",true,""""\n']


def test_bigquery_quotes_where_needed() -> None:
    assert export_text("bigquery", [("1", "", 'a"b'), ("\\.", "x,y", "a\rb")]) == [b'1,"","a""b"\n\\.,"x,y","a\rb"\n']
    assert export_text("bigquery", [(1, None, ""), ("a\n", False, " b ")], typed=True) == [b'1,,""\n"a\n",false, b \n']


@pytest.mark.parametrize("quoting", ["snowflake", "bigquery"])
def test_odd_bytes_go_through(quoting: str) -> None:
    assert export_text(quoting, [("\0", "\udcff\udcfe", "\U0001f98a")])[0].replace(b'"', b"") == (
        b"\0,\xff\xfe,\xf0\x9f\xa6\x8a\n"
    )


def test_of_no_rows_snowflake_makes_no_slice_and_bigquery_an_empty_one() -> None:
    assert export_text("snowflake", [], slices=3) == []
    assert export_text("bigquery", [], slices=3) == [b""]


def test_few_rows_reach_many_slices_and_bigquery_keeps_the_empty_ones() -> None:
    rows = [(str(number), "a", "b") for number in range(3)]
    assert export_text("snowflake", rows, slices=5) == [f'"{number}","a","b"\n'.encode() for number in range(3)]
    assert export_text("bigquery", rows, slices=5)[3:] == [b"", b""]
    assert len(export_text("snowflake", rows * 20, slices=40)) == 40


def test_rows_that_do_not_fit_are_refused_and_the_old_ones_stay(keboola: KeboolaServer) -> None:
    with pytest.raises(ValueError, match="row 2 has 1 values, the table has 3 columns"):
        keboola.put_table(TABLE, columns=COLUMNS, rows=[("a", "b", "c"), ("d",)])
    with pytest.raises(ValueError, match="row 1 has a NULL, which only a typed table can hold"):
        keboola.put_table(TABLE, columns=COLUMNS, rows=iter([("a", None, "c")]))
    assert keboola.row_count(TABLE) == 300


def test_a_file_that_is_not_sliced_is_one_object_with_a_header() -> None:
    with KeboolaServer(sliced=False) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        file = Caller(keboola).export()
        assert file["isSliced"] is False
        body = requests.get(file["url"], timeout=10).content
        assert parsed(gzip.decompress(body)) == [COLUMNS, *ROWS]


def test_a_slice_can_be_several_gzip_streams() -> None:
    with KeboolaServer(gzip_members=True, slices=2) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        caller = Caller(keboola)
        file = caller.export()
        bodies = [caller.get_slice(file, url).content for url in caller.slice_urls(file)]
    assert all(zlib.decompressobj(31).decompress(body) != gzip.decompress(body) for body in bodies)
    assert sorted(row for body in bodies for row in parsed(gzip.decompress(body))) == sorted(ROWS)


# --- the store


@pytest.fixture
def one_slice(caller: Caller) -> tuple[dict, str]:
    """A file detail and the URL of its first slice."""
    file = caller.export()
    return file, caller.slice_urls(file)[0]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=10-99999999", slice(10, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_range_gives_its_bytes(caller: Caller, one_slice: tuple[dict, str], asked: str, part: slice) -> None:
    whole = caller.get_slice(*one_slice)
    ranged = caller.get_slice(*one_slice, Range=asked)
    assert (whole.status_code, ranged.status_code) == (200, 206)
    assert ranged.content == whole.content[part]
    first, last, _ = part.indices(len(whole.content))
    assert ranged.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(whole.content)}"
    assert int(ranged.headers["Content-Length"]) == len(ranged.content)
    assert ranged.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(caller: Caller, one_slice: tuple[dict, str], asked: str) -> None:
    response = caller.get_slice(*one_slice, Range=asked)
    assert response.status_code == 416
    assert re.fullmatch(r"bytes \*/\d+", response.headers["Content-Range"])


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=-"])
def test_a_range_that_makes_no_sense_is_ignored(caller: Caller, one_slice: tuple[dict, str], asked: str) -> None:
    assert caller.get_slice(*one_slice, Range=asked).status_code == 200


def test_another_version_is_noticed(caller: Caller, one_slice: tuple[dict, str]) -> None:
    headers = caller.get_slice(*one_slice).headers
    assert caller.get_slice(*one_slice, **{"If-Match": headers["ETag"], "Range": "bytes=3-"}).status_code == 206
    assert caller.get_slice(*one_slice, **{"If-Match": '"another"', "Range": "bytes=3-"}).status_code == 412
    generation = headers["x-goog-generation"]
    for asked, status in ((generation, 200), ("1", 412)):
        assert caller.get_slice(*one_slice, **{"x-goog-if-generation-match": asked}).status_code == status


def test_head_says_what_get_would_without_the_body(caller: Caller, one_slice: tuple[dict, str]) -> None:
    file, url = one_slice
    path = f"{caller.keboola.url}/{url.removeprefix('gs://')}"
    headers = {"Authorization": f"Bearer {file['gcsCredentials']['access_token']}", "Accept-Encoding": "identity"}
    with requests.Session() as session:
        head = session.head(path, headers=headers, timeout=10)
        got = session.get(path, headers=headers, timeout=10)
    assert head.content == b"" and head.headers["Content-Length"] == str(len(got.content))
    assert head.headers["ETag"] == got.headers["ETag"]


def test_a_bearer_token_opens_its_own_file_until_it_expires(caller: Caller, clock: Clock) -> None:
    file, other = caller.export(), caller.export(columns="id")
    url = caller.slice_urls(file)[0]
    assert caller.get_slice(file, url).status_code == 200
    assert caller.get_slice(other, url).status_code == 403
    assert caller.get_slice(file, url, Authorization="Bearer wrong").status_code == 401
    clock.now += file["gcsCredentials"]["expires_in"] + 1
    expired = caller.get_slice(file, url)
    assert (expired.status_code, expired.json()["error"]["message"]) == (401, "Invalid Credentials")
    assert caller.get_slice(caller.export(), url).status_code == 200


def test_credentials_can_be_made_to_expire(caller: Caller, one_slice: tuple[dict, str]) -> None:
    caller.keboola.expire_credentials()
    assert caller.get_slice(*one_slice).status_code == 401


def test_a_presigned_url_opens_one_object_for_an_hour_and_no_second_proof_beside_it(
    caller: Caller, clock: Clock
) -> None:
    url = caller.export()["url"]
    assert requests.get(url, timeout=10).status_code == 200
    assert requests.get(url, auth=("somebody", "from .netrc"), timeout=10).status_code == 400
    assert requests.get(url[:-1] + ("0" if url[-1] != "0" else "1"), timeout=10).status_code == 403
    assert requests.get(url.replace("manifest?", "_0_0_0.csv.gz?"), timeout=10).status_code == 403
    clock.now += 3600
    assert requests.get(url, timeout=10).status_code == 403


def test_an_object_that_is_not_there_is_a_404(caller: Caller, one_slice: tuple[dict, str]) -> None:
    file, url = one_slice
    missing = caller.get_slice(file, url + "x")
    assert (missing.status_code, missing.json()["error"]["errors"][0]["reason"]) == (404, "notFound")


def test_odd_keys_are_found() -> None:
    with KeboolaServer(key_prefix="exp 2/a+b=ü&%25") as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        assert sum(len(parsed(text)) for text in Caller(keboola).csv_slices()) == 300


# --- the other two clouds


@pytest.fixture(params=["aws", "azure"])
def cloud(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Caller]:
    with KeboolaServer(store=CLOUDS[request.param], clock=clock, key_prefix="exp 2/a+b=ü&%25~") as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        yield Caller(keboola)


def s3_client(keboola: KeboolaServer, file: dict, **changed: str | None) -> BaseClient:
    """Amazon's own client with a file's credentials."""
    credentials = file["credentials"]
    arguments = {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
        "region_name": file["region"],
    }
    return boto3.client("s3", endpoint_url=keboola.store_environment["AWS_ENDPOINT_URL_S3"], **arguments | changed)


def azure_container(file: dict, sas: str | None = None) -> ContainerClient:
    """Azure's own client with a file's credentials."""
    connection = file["absCredentials"]["SASConnectionString"]
    if sas is not None:
        connection = re.sub("(?<=SharedAccessSignature=).*", lambda match: sas, connection)
    return BlobServiceClient.from_connection_string(connection).get_container_client(file["absPath"]["container"])


def read_all(caller: Caller, file: dict) -> list[bytes]:
    """Every slice, through the cloud's own client."""
    if file["provider"] == "aws":
        client = s3_client(caller.keboola, file)
        places = [url.removeprefix("s3://").partition("/") for url in caller.slice_urls(file)]
        return [client.get_object(Bucket=bucket, Key=key)["Body"].read() for bucket, _, key in places]
    container = azure_container(file)
    prefix = f"azure://kbcsandbox.blob.core.windows.net/{container.container_name}/"
    names = [url.removeprefix(prefix) for url in caller.slice_urls(file)]
    return [container.download_blob(name).readall() for name in names]


def test_the_clouds_own_clients_read_odd_keys(cloud: Caller) -> None:
    texts = [gzip.decompress(body) for body in read_all(cloud, cloud.export())]
    assert sorted(row for text in texts for row in parsed(text)) == sorted(ROWS)


@pytest.mark.parametrize("how", ["by age", "at once"])
def test_credentials_expire_as_the_cloud_says_and_fresh_ones_work(cloud: Caller, clock: Clock, how: str) -> None:
    file = cloud.export()
    if how == "by age":
        clock.now += 12 * 3600 + 1
    else:
        cloud.keboola.expire_credentials()
    with pytest.raises((ClientError, ClientAuthenticationError)) as caught:
        read_all(cloud, {**file, "url": cloud.export()["url"]})
    if file["provider"] == "aws":
        assert caught.value.response["Error"]["Code"] == "ExpiredToken"
    else:
        assert (caught.value.status_code, caught.value.error_code) == (403, "AuthenticationFailed")
    assert len(read_all(cloud, cloud.export())) == 4


@pytest.fixture
def amazon(clock: Clock) -> Iterator[Caller]:
    with KeboolaServer(store=CLOUDS["aws"], clock=clock) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        yield Caller(keboola)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "ASIAUNKNOWN"}, "InvalidAccessKeyId"),
        ({"aws_session_token": None}, "InvalidAccessKeyId"),
        ({"aws_session_token": "wrong"}, "InvalidToken"),
        ({"region_name": "us-east-1"}, "AuthorizationHeaderMalformed"),
    ],
)
def test_s3_refuses_what_is_not_signed_right(amazon: Caller, changed: dict, code: str) -> None:
    file = amazon.export()
    bucket, _, key = amazon.slice_urls(file)[0].removeprefix("s3://").partition("/")
    with pytest.raises(ClientError) as caught:
        s3_client(amazon.keboola, file, **changed).get_object(Bucket=bucket, Key=key)
    assert caught.value.response["Error"]["Code"] == code


def test_s3_opens_nothing_to_a_stranger_nor_another_files_objects(amazon: Caller) -> None:
    file, other = amazon.export(), amazon.export(columns="id")
    bucket, _, key = amazon.slice_urls(file)[0].removeprefix("s3://").partition("/")
    assert requests.get(f"{amazon.keboola.url}/{bucket}/{key}", timeout=10).status_code == 403
    with pytest.raises(ClientError, match="AccessDenied"):
        s3_client(amazon.keboola, other).get_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3_client(amazon.keboola, file).get_object(Bucket=bucket, Key=key + "x")


def test_azures_own_signatures_are_accepted_and_no_others(clock: Clock) -> None:
    with KeboolaServer(store=CLOUDS["azure"], clock=clock) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        file = Caller(keboola).export()
        key = keboola.style.account_key
        name = file["absPath"]["name"] + "manifest"

        def signed(permission: str, account_key: str = key, container: str = file["absPath"]["container"]) -> str:
            start = datetime.fromtimestamp(clock.now - 60, UTC)
            return generate_container_sas(
                "kbcsandbox", container, account_key, permission=permission, start=start, expiry=start + timedelta(1)
            )

        assert b"entries" in azure_container(file, signed("rl")).download_blob(name).readall()
        for sas, status in (
            (signed("l"), 403),
            (signed("rl", account_key=key[:-8] + "AAAAAA=="), 403),
            (signed("rl", container="another"), 403),
            (signed("rl").replace("sp=rl", "sp=rwl"), 403),
            ("", 403),
        ):
            with pytest.raises(HttpResponseError) as caught:
                azure_container(file, sas).download_blob(name)
            assert caught.value.status_code == status


@pytest.mark.parametrize(("header", "status"), [("x-amz-meta-late", 403), ("x-late", 200)])
def test_s3_wants_its_own_headers_signed(amazon: Caller, header: str, status: int) -> None:
    file = amazon.export()
    credentials = file["credentials"]
    auth = AWS4Auth(
        credentials["AccessKeyId"],
        credentials["SecretAccessKey"],
        file["region"],
        "s3",
        session_token=credentials["SessionToken"],
    )
    url = f"{amazon.keboola.url}/{amazon.slice_urls(file)[0].removeprefix('s3://')}"
    prepared = requests.Request("GET", url, auth=auth).prepare()
    prepared.headers[header] = "added after signing"
    with requests.Session() as session:
        assert session.send(prepared, timeout=10).status_code == status


def test_an_unknown_quoting_is_refused() -> None:
    with pytest.raises(ValueError, match="quoting is one of snowflake, bigquery, not oracle"):
        KeboolaServer(quoting="oracle")


# --- faults


def test_a_status_comes_at_the_time_it_was_asked_for(caller: Caller) -> None:
    caller.keboola.faults.add(Fault("table", "status", nth=2, status=429, retry_after="7"))
    answers = [caller.call(f"tables/{TABLE}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[1].headers["Retry-After"] == "7" and answers[1].json()["exceptionId"]
    assert caller.call("tables").status_code == 200


def test_a_told_status_wears_the_code_of_who_would_send_it(caller: Caller, one_slice: tuple[dict, str]) -> None:
    for kind in ("verify", "slice"):
        caller.keboola.faults.add(Fault(kind, "status", status=401))
    assert caller.call("tokens/verify").json()["code"] == "storage.tokenInvalid"
    assert caller.get_slice(*one_slice).json()["error"]["errors"][0]["reason"] == "authError"


def test_maintenance_has_the_body_that_keboola_sends(caller: Caller) -> None:
    caller.keboola.faults.add(Fault("*", "status", nth=None, status=503, retry_after="60", body=MAINTENANCE))
    answer = caller.call("tokens/verify")
    assert (answer.status_code, answer.json()["status"], "code" in answer.json()) == (503, "maintenance", False)
    caller.keboola.faults.clear()
    assert caller.call("tokens/verify").status_code == 200


def raw_get(url: str) -> tuple[http.client.HTTPResponse, bytes]:
    """A GET that shows a short body instead of raising."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    response = connection.getresponse()
    try:
        body = response.read()
    except http.client.IncompleteRead as error:
        body = error.partial
    connection.close()
    return response, body


@pytest.mark.parametrize(
    ("fault", "promised", "sent"),
    [
        (Fault("manifest", "cut", at=10), 0, 10),
        (Fault("manifest", "cut", at=-1), 0, -1),
        (Fault("manifest", "cut", at=0), 0, 0),
        (Fault("manifest", "truncate", at=9), None, 9),
        (Fault("manifest", "length", at=5), 5, None),
    ],
)
def test_a_body_breaks_off_where_it_was_asked_to(
    caller: Caller, fault: Fault, promised: int | None, sent: int | None
) -> None:
    url = caller.export()["url"]
    whole = requests.get(url, timeout=10).content
    caller.keboola.faults.add(fault)
    response, body = raw_get(url)
    assert body == whole[:sent]
    assert int(response.headers["Content-Length"]) == (len(body) if promised is None else len(whole) + promised)
    assert raw_get(url)[1] == whole


def test_a_connection_can_end_before_the_first_byte(caller: Caller) -> None:
    caller.keboola.faults.add(Fault("verify", "cut", at=None))
    with pytest.raises(requests.ConnectionError):
        caller.call("tokens/verify")
    assert caller.call("tokens/verify").status_code == 200


def test_one_byte_can_be_turned_over(caller: Caller, one_slice: tuple[dict, str]) -> None:
    whole = caller.get_slice(*one_slice).content
    caller.keboola.faults.add(Fault("slice", "corrupt", at=0.5))
    spoilt = caller.get_slice(*one_slice).content
    assert [place for place in range(len(whole)) if whole[place] != spoilt[place]] == [len(whole) // 2]


def test_a_store_can_decompress_on_its_way(caller: Caller, one_slice: tuple[dict, str]) -> None:
    whole = caller.get_slice(*one_slice).content
    caller.keboola.faults.add(Fault("slice", "gunzip"))
    assert caller.get_slice(*one_slice).content == gzip.decompress(whole)


def test_a_response_can_point_elsewhere(caller: Caller) -> None:
    caller.keboola.faults.add(Fault("verify", "status", status=302, location="http://127.0.0.1:9/"))
    answer = caller.call("tokens/verify", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://127.0.0.1:9/")


def test_a_store_can_ignore_ranges(caller: Caller, one_slice: tuple[dict, str]) -> None:
    caller.keboola.faults.add(Fault("slice", "whole"))
    assert caller.get_slice(*one_slice, Range="bytes=5-").status_code == 200


@pytest.mark.parametrize("at", [None, 20])
def test_a_stalled_response_waits_until_it_is_released(caller: Caller, at: int | None) -> None:
    url = caller.export()["url"]
    whole = requests.get(url, timeout=10).content
    caller.keboola.faults.add(Fault("manifest", "stall", at=at))
    bodies: list[bytes] = []
    reader = threading.Thread(target=lambda: bodies.append(raw_get(url)[1]))
    reader.start()
    assert caller.keboola.faults.stalled.wait(10)
    assert bodies == []
    caller.keboola.faults.release()
    reader.join(10)
    assert bodies == [whole]


def test_closing_the_server_ends_what_stalls() -> None:
    keboola = KeboolaServer()
    keboola.faults.add(Fault("index", "stall", at=None))
    errors: list[Exception] = []

    def ask() -> None:
        try:
            raw_get(f"{keboola.url}/v2/storage")
        except (OSError, http.client.HTTPException) as error:
            errors.append(error)

    reader = threading.Thread(target=ask)
    reader.start()
    assert keboola.faults.stalled.wait(10)
    keboola.close()
    reader.join(10)
    assert len(errors) == 1


@pytest.mark.parametrize("outcome", ["error", "cancelled", "terminated", "processing", "frozen"])
def test_a_job_ends_as_it_was_told_to(caller: Caller, outcome: str) -> None:
    caller.keboola.faults.add(Fault("export-async", "job", outcome=outcome))
    first, second = (caller.call(f"tables/{TABLE}/export-async", "POST").json()["id"] for _ in range(2))
    failed = caller.call(f"jobs/{first}")
    assert (failed.status_code, failed.json()["status"]) == (200, outcome)
    assert ("error" in failed.json()) == (outcome == "error")
    assert caller.call(f"jobs/{second}").json()["status"] == "success"


def test_a_table_can_change_while_it_is_exported(caller: Caller) -> None:
    keboola = caller.keboola
    keboola.faults.add(Fault("job", do=lambda: keboola.put_table(TABLE, columns=[*COLUMNS, "new"], rows=[])))
    keboola.faults.add(Fault("slice", do=lambda: keboola.delete_table(TABLE)))
    before = caller.call(f"tables/{TABLE}").json()
    file = caller.export()
    after = caller.call(f"tables/{TABLE}").json()
    assert before["lastImportDate"] < after["lastImportDate"] and after["columns"] == [*COLUMNS, "new"]
    assert caller.get_slice(file, caller.slice_urls(file)[0]).status_code == 200
    assert caller.call(f"tables/{TABLE}").status_code == 404


def test_a_share_of_all_requests_fails_and_the_seed_says_which(caller: Caller) -> None:
    def statuses(seed: int) -> list[int]:
        caller.keboola.faults.clear()
        caller.keboola.faults.add(Fault("*", "status", nth=None, share=0.2, seed=seed, status=500))
        return [caller.call("tokens/verify").status_code for _ in range(60)]

    first = statuses(1)
    assert 3 < first.count(500) < 25
    assert statuses(1) == first != statuses(2)


def test_a_fault_can_name_a_path(caller: Caller, one_slice: tuple[dict, str]) -> None:
    file, url = one_slice
    caller.keboola.faults.add(Fault("slice", "status", path="_0_1_0", nth=None, status=404))
    assert [caller.get_slice(file, each).status_code for each in caller.slice_urls(file)] == [200, 404, 200, 200]


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="action is one of pass, status"):
        Fault("slice", "explode")
