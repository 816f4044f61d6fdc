"""What can go wrong at each request of an export, on each cloud: it costs no row, or it is named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lib.errors import Cancelled, ExtractError
from lib.extract import ExportGone
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.clouds import CLOUDS
from tests.support.extraction import COLUMNS, ROWS, TABLE, Time, export, extractor_of, real_answer, rows_of, told

PROVIDERS = ["gcp", "aws", "azure"]
#: enough for slices that have a middle
MANY = ROWS * 10
#: these pass: the rows are the same and complete
SURVIVED = [
    Fault("table", "status", status=500),
    Fault("table", "cut", at=None),
    Fault("table", "cut", at=0.5),
    Fault("export-async", "status", status=502),
    Fault("export-async", "cut", at=None),
    Fault("job", "status", status=429, retry_after="3"),
    Fault("job", "cut", at=0.9),
    Fault("job", "status", status=404),
    Fault("job", "status", status=423),
    Fault("job", "stall", at=None),
    Fault("file", "status", status=504),
    Fault("file", "status", status=403),
    Fault("manifest", "status", status=503),
    Fault("manifest", "status", status=403),
    Fault("manifest", "cut", at=0.5),
    Fault("manifest", "length", at=5),
    Fault("slice", "status", status=500),
    Fault("slice", "status", status=429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
    Fault("slice", "status", status=401),
    Fault("slice", "status", status=403, nth=3),
    Fault("slice", "cut", at=None),
    Fault("slice", "cut", at=0),
    Fault("slice", "cut", at=0.5),
    Fault("slice", "cut", at=-1),
    Fault("slice", "cut", at=0.5, nth=4),
    Fault("slice", "stall", at=None),
    Fault("slice", "stall", at=0.5),
    Fault("slice", "stall", at=-1),
    Fault("slice", "cut", at=180, nth=None, path="_0_0_0.csv"),
]
#: these don't: the message says what it was
FATAL = [
    (Fault("table", "status", status=500, nth=None), "table in.c-shop.orders: HTTP 500 .*gave up after 6 tries"),
    (Fault("table", "status", status=404, body="<html>"), "table in.c-shop.orders: HTTP 404"),
    (Fault("table", "status", status=200, body="<html>"), "did not answer with JSON"),
    (Fault("table", "status", status=302), "redirects elsewhere; correct"),
    (Fault("export-async", "status", status=500, nth=None), "export of in.c-shop.orders: HTTP 500 .*after 4 tries"),
    (Fault("export-async", "status", status=400), "export of in.c-shop.orders: HTTP 400"),
    (Fault("export-async", "job", outcome="error"), r"\(job \d+\) failed: .*exceptionId"),
    (Fault("export-async", "job", outcome="cancelled"), r"\(job \d+\) was cancelled in Keboola"),
    (Fault("export-async", "job", outcome="terminated"), r"\(job \d+\) was terminated in Keboola"),
    (Fault("export-async", "job", outcome="processing"), r"\(job \d+\): still 'processing' after 10 minutes"),
    (Fault("export-async", "job", outcome="pondering"), r"\(job \d+\): still 'pondering' after 10 minutes"),
    (Fault("job", "status", status=404, nth=None), r"\(job \d+\): HTTP 404"),
    (Fault("file", "status", status=404), r"\(job \d+\): the file is gone: HTTP 404"),
    (Fault("manifest", "status", status=404), r"\(job \d+\): the manifest is gone"),
    (Fault("file", "status", status=403, nth=None), r"\(job \d+\): HTTP 403 .*read permission for the table's bucket"),
    (Fault("manifest", "status", status=200, body="<html>"), "the manifest is not a list of entries"),
    (Fault("manifest", "status", status=403, nth=None), "the manifest cannot be read: HTTP 403"),
    (Fault("slice", "status", status=404, nth=2), r"slice \d \(\S+.csv.gz\): the object is gone .*HTTP 404"),
    (Fault("slice", "status", status=403, nth=None), r"slice 1 \(\S+\): the store refuses the object .HTTP 403"),
    (Fault("slice", "status", status=503, nth=None), r"slice 1 \(\S+\): HTTP 503.*; gave up after 6 tries"),
    (Fault("slice", "cut", at=0, nth=None), "the connection was cut after 0 of .* gave up after 6 tries"),
    (Fault("slice", "stall", at=0.5, nth=None), "no data came for 0.2 s after .* gave up after 6 tries"),
    (Fault("slice", "truncate", at=0.5), "the gzip data end early"),
    (Fault("slice", "truncate", at=-1), "the gzip data end early"),
    (Fault("slice", "corrupt", at=0.5), "the gzip data are damaged"),
    (Fault("slice", "corrupt", at=-1), "the gzip data are damaged"),
    (Fault("slice", "length", at=10), "ends before byte"),
]


def on_each_cloud(faults: Iterable[Fault], *more: Iterable[str]) -> list[tuple[object, ...]]:
    """Faults of the API on one cloud, of a store on each."""
    return [
        (provider, fault, *rest)
        for fault, *rest in zip(faults, *more, strict=True)
        for provider in PROVIDERS
        if provider == "gcp" or fault.match in ("file", "manifest", "slice")
    ]


def name_of(value: object) -> str:
    if not isinstance(value, Fault):
        return str(value) if value in PROVIDERS else ""
    what = {"status": value.status, "job": value.outcome}.get(value.action, value.at)
    return f"{value.match}-{value.action}-{what}" + ("" if value.nth == 1 else f"-{value.nth}")


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=PROVIDERS)
def shop(request: pytest.FixtureRequest, time: Time) -> Iterator[KeboolaServer]:
    """Slices that have a middle; a job takes two polls."""
    with KeboolaServer(store=CLOUDS[request.param], polls=2, clock=time.now) as server:
        server.put_table(TABLE, columns=COLUMNS, rows=MANY)
        yield server
        server.faults.release()


@pytest.mark.parametrize("shop, fault", on_each_cloud(SURVIVED), indirect=["shop"], ids=name_of)
def test_a_passing_fault_costs_no_row(shop: KeboolaServer, time: Time, fault: Fault) -> None:
    extractor = extractor_of(shop, time, timeout=(1.0, 0.2), deadline=600.0)
    hits: list[None] = []
    shop.faults.add(replace(fault, do=lambda: hits.append(None)))
    assert sorted(rows_of(export(extractor))) == sorted(MANY)
    assert hits
    exports = [request for request in shop.requests if request.kind == "export-async"]
    assert {request.headers["x-kbc-runid"] for request in exports} == {"run-17"}


@pytest.mark.parametrize(
    "shop, fault, message", on_each_cloud(*zip(*FATAL, strict=True)), indirect=["shop"], ids=name_of
)
def test_a_lasting_fault_is_named_and_the_next_export_is_whole(
    shop: KeboolaServer, time: Time, fault: Fault, message: str
) -> None:
    extractor = extractor_of(shop, time, timeout=(1.0, 0.2), deadline=600.0)
    shop.faults.add(fault)
    with pytest.raises(ExtractError, match=message) as caught:
        rows_of(export(extractor))
    assert TABLE in str(caught.value) and shop.token not in str(caught.value)
    shop.faults.clear()
    assert sorted(rows_of(export(extractor))) == sorted(MANY)


def test_expired_credentials_are_renewed_in_the_middle_of_a_table(shop: KeboolaServer, time: Time) -> None:
    exported = export(extractor_of(shop, time))
    rows = rows_of(replace(exported, slices=exported.slices[:2]))
    shop.expire_credentials()
    rows += rows_of(replace(exported, slices=exported.slices[2:]))
    assert sorted(rows) == sorted(MANY)
    slices = [request.path for request in shop.requests if request.kind == "slice" and request.status == 200]
    assert len(slices) == len(set(slices)) == 4, "a finished slice was fetched again"
    assert [request.kind for request in shop.requests].count("file") == 2


def test_credentials_are_renewed_by_age_before_they_expire(shop: KeboolaServer, time: Time) -> None:
    life = 3600 if "STORAGE_EMULATOR_HOST" in shop.store_environment else 12 * 3600
    exported = export(extractor_of(shop, time))
    time.pause(0.74 * life)
    rows_of(replace(exported, slices=exported.slices[:1]))
    assert [request.kind for request in shop.requests].count("file") == 1
    time.pause(0.02 * life)
    rows_of(replace(exported, slices=exported.slices[1:]))
    assert [request.kind for request in shop.requests].count("file") == 2


@pytest.mark.parametrize("kind", ["file", "manifest", "slice"])
def test_a_file_that_is_gone_is_told_apart_because_its_export_can_be_started_again(
    shop: KeboolaServer, time: Time, kind: str
) -> None:
    extractor = extractor_of(shop, time)
    shop.faults.add(Fault(kind, do=shop.expire_files))
    with pytest.raises(ExportGone):
        rows_of(export(extractor))
    assert sorted(rows_of(export(extractor))) == sorted(MANY)


def test_a_file_that_is_gone_when_credentials_are_renewed_is_told_apart(shop: KeboolaServer, time: Time) -> None:
    exported = export(extractor_of(shop, time))
    rows_of(replace(exported, slices=exported.slices[:1]))
    shop.expire_files()
    time.pause(12 * 3600)
    with pytest.raises(ExportGone, match=r"in.c-shop.orders \(job \d+\): the file is gone: .*storage.files.notFound"):
        rows_of(replace(exported, slices=exported.slices[1:]))


def test_a_job_that_was_seen_and_is_not_found_afterwards_is_named(shop: KeboolaServer, time: Time) -> None:
    shop.faults.add(Fault("job", "status", status=404, nth=2))
    with pytest.raises(ExtractError, match=r"\(job \d+\): HTTP 404"):
        export(extractor_of(shop, time))


@pytest.mark.parametrize("provider", ["aws"])
def test_a_clock_that_is_wrong_is_named(provider: str, time: Time) -> None:
    """S3 refuses a signature that is more than 15 minutes old or ahead."""
    with KeboolaServer(store=CLOUDS[provider], clock=time.now) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        exported = export(extractor_of(keboola, time))
        body = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
        keboola.faults.add(Fault("slice", "status", nth=None, status=403, body=body))
        time.at += 3600
        wrong, right = (datetime.fromtimestamp(at, UTC) for at in (time.at + 1, time.at - 3599))
        with pytest.raises(ExtractError) as caught:
            rows_of(exported)
    found = re.search(r"this machine's clock says (.{16}) UTC, the store says (.{16}) UTC; set ", str(caught.value))
    assert found and "HTTP 403 RequestTimeTooSkewed: " in str(caught.value)
    for shown, at in zip(found.groups(), (wrong, right), strict=True):
        assert abs(datetime.fromisoformat(f"{shown}Z") - at) < timedelta(minutes=2)


def test_a_table_that_is_imported_during_the_export_has_another_version_afterwards(
    shop: KeboolaServer, time: Time
) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.faults.add(Fault("job", do=lambda: shop.put_table(TABLE, columns=COLUMNS, rows=ROWS[:5])))
    assert sorted(rows_of(extractor.finish(extractor.start(table, table.columns)))) == sorted(MANY)
    assert extractor.table(TABLE).version != table.version


def test_a_column_added_after_the_look_at_the_table_stays_out_of_the_export(shop: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.put_table(TABLE, columns=("new", *COLUMNS), rows=[("n", *row) for row in ROWS])
    assert sorted(rows_of(extractor.finish(extractor.start(table, table.columns)))) == sorted(ROWS)


def test_a_table_deleted_after_the_look_at_it_is_named(shop: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.put_table("in.c-shop.order_items", columns=COLUMNS, rows=ROWS)
    shop.delete_table(TABLE)
    with pytest.raises(
        ExtractError, match=r"^export of in.c-shop.orders: HTTP 404 .*Did you mean in.c-shop.order_items"
    ):
        extractor.start(table, table.columns)


def test_a_stop_while_polling_ends_it_at_once(shop: KeboolaServer, time: Time) -> None:
    def stop(seconds: float) -> None:
        raise Cancelled(15)

    with pytest.raises(Cancelled, match="SIGTERM"):
        export(extractor_of(shop, time, pause=stop))


def test_slices_are_read_by_many_threads_while_credentials_expire(time: Time) -> None:
    with KeboolaServer(slices=40) as keboola, ThreadPoolExecutor(8) as pool:
        keboola.put_table(TABLE, columns=COLUMNS, rows=MANY)
        keboola.faults.add(Fault("slice", nth=20, do=keboola.expire_credentials))
        exported = export(extractor_of(keboola, time))
        fetched = pool.map(lambda csv_slice: rows_of(replace(exported, slices=(csv_slice,))), exported.slices)
        assert sorted(row for rows in fetched for row in rows) == sorted(MANY)
        assert [request.kind for request in keboola.requests].count("file") == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_five_percent_failing_requests_over_200_slices_cost_no_row(time: Time, seed: int) -> None:
    rows = [(str(number), "x" * (number % 50)) for number in range(40_000)]
    with KeboolaServer(slices=200) as keboola, ThreadPoolExecutor(4) as pool:
        keboola.put_table(TABLE, columns=COLUMNS, rows=rows)
        hits: list[None] = []
        for action in ("cut", "status"):
            keboola.faults.add(
                Fault("*", action, nth=None, share=0.025, seed=seed, at=0.5, status=503, do=lambda: hits.append(None))
            )
        exported = export(extractor_of(keboola, time))
        fetched = pool.map(lambda csv_slice: rows_of(replace(exported, slices=(csv_slice,))), exported.slices)
        assert sorted(row for part in fetched for row in part) == sorted(rows)
    assert len(exported.slices) == 200 and len(hits) > 3


@pytest.mark.parametrize("kind", ["verify", "table", "export-async", "job", "file", "manifest"])
def test_no_answer_however_odd_is_more_than_an_error_of_ours(time: Time, kind: str) -> None:
    """Each field of a real answer becomes something else: an export is whole then, or says what is wrong."""
    with KeboolaServer(polls=1, clock=time.now) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS[:3])
        extractor = extractor_of(keboola, time, deadline=60.0)
        answer = real_answer(keboola, kind)
        odd = [b"", b"null", b"5", b"[]", b"[1]", b'"text"', b"{}", b'{"error": []}', b"\xff", b"[" * 100_000]
        for name in answer:
            without = {key: value for key, value in answer.items() if key != name}
            odd += [json.dumps({**without, name: value}).encode() for value in (None, [], [1], {"a": 1}, "x")]
        for body in odd:
            keboola.faults.add(Fault(kind, "status", status=200, body=body.decode("latin-1")))
            try:
                rows = rows_of(export(extractor)) if kind != "verify" else ROWS[:3]
                extractor.describe()
            except ExtractError as error:
                assert len(str(error)) < 1000
            else:
                # an empty list of slices is what an empty table has; the row count tells a run the difference
                assert sorted(rows) == sorted(ROWS[:3]) or (kind == "manifest" and rows == [])
            keboola.faults.clear()


def entries(shop: KeboolaServer) -> list[dict[str, object]]:
    return real_answer(shop, "manifest")["entries"]


def test_a_manifest_that_lists_itself_and_carries_no_mandatory_is_read(shop: KeboolaServer, time: Time) -> None:
    urls = [entry["url"] for entry in entries(shop)]
    own = urls[0].partition(".csv.gz")[0] + ".csv.gzmanifest"
    told(shop, "manifest", entries=[{"url": url} for url in (own, *urls)])
    assert sorted(rows_of(export(extractor_of(shop, time)))) == sorted(MANY)


def test_a_manifest_that_names_an_object_twice_is_refused(shop: KeboolaServer, time: Time) -> None:
    told(shop, "manifest", entries=entries(shop)[:1] * 2)
    with pytest.raises(ExtractError, match=r"in.c-shop.orders \(job \d+\): the manifest lists an object twice"):
        export(extractor_of(shop, time))


def test_a_manifest_that_names_another_place_is_refused(shop: KeboolaServer, time: Time) -> None:
    told(shop, "manifest", entries=[{"url": entries(shop)[0]["url"].replace("99.csv", "98.csv")}])
    with pytest.raises(ExtractError, match=r"in.c-shop.orders \(job \d+\): the manifest names .*98.csv"):
        export(extractor_of(shop, time))


def test_parquet_is_refused_by_name(shop: KeboolaServer, time: Time) -> None:
    told(shop, "file", fileType="parquet")
    with pytest.raises(ExtractError, match="the file is parquet; only csv can be read"):
        export(extractor_of(shop, time))
    shop.faults.clear()
    told(shop, "manifest", entries=[{"url": entries(shop)[0]["url"].replace(".gz_", ".gz_0.parquet_")}])
    with pytest.raises(ExtractError, match=r"\S+.parquet\S+ is a Parquet file; only csv can be read"):
        export(extractor_of(shop, time))


@pytest.mark.parametrize(
    "changed, rows",
    [
        ({}, 1000),
        ({"isAlias": True}, 1000),
        ({"isAlias": True, "aliasFilter": {"column": "id"}}, None),
        ({"isAlias": True, "rowsCount": None}, None),
        ({"tableType": "view"}, None),
        ({"tableType": "snowflake-external-table"}, None),
        ({"rowsCount": "1000"}, None),
    ],
    ids=str,
)
def test_row_counts_are_named_where_an_export_must_have_as_many(
    time: Time, changed: dict[str, object], rows: int | None
) -> None:
    with KeboolaServer() as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=MANY)
        told(keboola, "table", **changed)
        table = extractor_of(keboola, time).table(TABLE)
        assert (table.rows, table.version_is_exact) == (rows, rows is not None)
        told(keboola, "table", **changed, lastImportDate=None, lastChangeDate=None)
        assert not extractor_of(keboola, time).table(TABLE).version_is_exact
