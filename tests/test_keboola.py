"""The extractor against the sandbox's Storage API over real loopback HTTP."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lib.errors import Cancelled, CredentialError, ExtractError
from lib.extractors import Export
from lib.extractors.keboola import KeboolaExtractor
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer

TABLE = "in.c-shop.orders"
COLUMNS = ("id", "note")
ROWS = [(str(number), f'note "{number}"\nnaïve 🦊') for number in range(100)]


class Plain:
    """A secret that needs no keyring."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.lines: list[str] = []
        self.at = 1_800_000_000.0

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds

    def now(self) -> float:
        return self.at


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def keboola() -> Iterator[KeboolaServer]:
    with KeboolaServer() as server:
        server.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        yield server


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
    return extractor.finish(extractor.start(extractor.table(table_id)))


def rows_of(exported: Export) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for piece in exported.slices:
        with piece.open() as stream:
            text = stream.read().decode()
        rows += map(tuple, csv.reader(io.StringIO(text, newline=""), strict=True))
    return rows


@pytest.mark.parametrize("quoting", ["snowflake", "bigquery"])
def test_every_row_of_a_table_arrives_through_its_slices(time: Time, quoting: str) -> None:
    with KeboolaServer(quoting=quoting, slices=3) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        exported = export(extractor_of(keboola, time))
    assert len(exported.slices) == 3


def test_rows_come_whole(keboola: KeboolaServer, time: Time) -> None:
    exported = export(extractor_of(keboola, time))
    assert sorted(rows_of(exported)) == sorted(ROWS)
    assert exported.table.rows == len(ROWS)


def test_a_run_begins_with_project_stack_and_token_but_not_its_secret(keboola: KeboolaServer, time: Time) -> None:
    line = extractor_of(keboola, time).describe()
    assert line == f"Keboola project 'Sandbox' (815) at {keboola.url[7:]}, token 4711 'sandbox'"
    assert keboola.token not in line


def test_an_export_names_its_columns_asks_for_gzip_and_carries_the_run_id(keboola: KeboolaServer, time: Time) -> None:
    export(extractor_of(keboola, time))
    asked = next(request for request in keboola.requests if request.kind == "export-async")
    assert asked.parameters == {"columns": "id,note", "gzip": True}
    assert asked.headers["x-kbc-runid"] == "run-17"


def test_the_api_token_never_goes_to_the_store(keboola: KeboolaServer, time: Time) -> None:
    rows_of(export(extractor_of(keboola, time)))
    stored = [request for request in keboola.requests if request.kind in ("manifest", "slice")]
    assert len(stored) == 1 + 4
    assert not any({"x-storageapi-token", "x-kbc-runid"} & set(request.headers) for request in stored)
    assert not any("authorization" in request.headers for request in stored if request.kind == "manifest")


def test_a_file_that_is_not_sliced_loses_its_header_line(time: Time) -> None:
    with KeboolaServer(sliced=False) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        assert rows_of(export(extractor_of(keboola, time))) == ROWS


@pytest.mark.parametrize("quoting", ["snowflake", "bigquery"])
def test_an_empty_table_has_no_rows(time: Time, quoting: str) -> None:
    with KeboolaServer(quoting=quoting) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=[])
        exported = export(extractor_of(keboola, time))
        assert rows_of(exported) == []
        assert exported.table.rows == 0


def test_polls_grow_from_one_second_to_ten(time: Time) -> None:
    with KeboolaServer(polls=9) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        export(extractor_of(keboola, time))
    assert time.waits == pytest.approx([1, 1.5, 2.25, 3.375, 5.06, 7.59, 10, 10, 10], rel=0.11)


def test_an_export_that_never_ends_is_given_up_by_job_id(time: Time) -> None:
    with KeboolaServer(polls=10_000) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        with pytest.raises(ExtractError, match=rf"export of {TABLE} \(job \d+\): still 'processing' after 60 minutes"):
            export(extractor_of(keboola, time))


def test_a_refused_token_says_token_or_stack(keboola: KeboolaServer, time: Time) -> None:
    with pytest.raises(CredentialError, match="Invalid access token .*another stack than 127") as caught:
        extractor_of(keboola, time, token=Plain("815-4711-wrong")).describe()
    assert "815-4711-wrong" not in str(caught.value)


def test_a_misspelt_table_suggests_the_near_one(keboola: KeboolaServer, time: Time) -> None:
    with pytest.raises(
        ExtractError, match=r'"order" was not found.*exceptionId sandbox-.*Did you mean in.c-shop.orders\?'
    ):
        extractor_of(keboola, time).table("in.c-shop.order")


def test_a_misspelt_bucket_suggests_tables_of_the_project(keboola: KeboolaServer, time: Time) -> None:
    with pytest.raises(ExtractError, match=r"buckets.notFound.*Did you mean in.c-shop.orders\?"):
        extractor_of(keboola, time).table("in.c-shopp.orders")


def test_a_bucket_that_the_token_may_not_read_is_named(time: Time) -> None:
    with KeboolaServer(token_buckets=()) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        with pytest.raises(ExtractError, match="accessDenied.*read permission for bucket in.c-shop"):
            extractor_of(keboola, time).table(TABLE)


def test_a_table_that_was_imported_again_has_another_version(keboola: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(keboola, time)
    before = extractor.table(TABLE)
    assert extractor.table(TABLE) == before
    keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
    assert extractor.table(TABLE).version != before.version


def test_only_typed_tables_hold_nulls(keboola: KeboolaServer, time: Time) -> None:
    keboola.put_table("in.c-shop.typed", columns=COLUMNS, rows=[(1, None)], typed=True)
    assert extractor_of(keboola, time).table("in.c-shop.typed").has_nulls
    assert not extractor_of(keboola, time).table(TABLE).has_nulls


# ---- faults: which request, when, what happens --------------------------------------------------------------------

#: these pass: the rows are the same and complete
SURVIVED = [
    Fault("table", "status", status=500),
    Fault("table", "cut", at=None),
    Fault("table", "cut", at=0.5),
    Fault("export-async", "status", status=502),
    Fault("export-async", "cut", at=None),
    Fault("job", "status", status=429, retry_after="3"),
    Fault("job", "cut", at=0.9),
    Fault("job", "stall", at=None),
    Fault("file", "status", status=504),
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
    Fault("slice", "cut", at=300, nth=None, path="_0_0_0.csv"),
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
    (Fault("job", "status", status=404), r"\(job \d+\): HTTP 404"),
    (Fault("file", "status", status=403, nth=None), r"\(job \d+\): HTTP 403 .*read permission for the table's bucket"),
    (Fault("manifest", "status", status=200, body="<html>"), "the manifest is not a list of entries"),
    (Fault("manifest", "status", status=403, nth=None), "the manifest cannot be read: HTTP 403"),
    (Fault("slice", "status", status=404, nth=2), r"slice \d \(\S+.csv.gz\): the object is gone .*HTTP 404"),
    (Fault("slice", "status", status=403, nth=None), r"slice 1 \(\S+\): the store refuses the object .HTTP 403"),
    (Fault("slice", "status", status=503, nth=None), r"slice 1 \(\S+\): HTTP 503.*; gave up after 6 tries"),
    (Fault("slice", "cut", at=0, nth=None), "the connection was cut after 0 of .* gave up after 6 tries"),
    (Fault("slice", "stall", at=0.5, nth=None), "nothing came for 0.2 s after .* gave up after 6 tries"),
    (Fault("slice", "truncate", at=0.5), "the gzip data end early"),
    (Fault("slice", "truncate", at=-1), "the gzip data end early"),
    (Fault("slice", "corrupt", at=0.5), "the gzip data are damaged"),
    (Fault("slice", "corrupt", at=-1), "the gzip data are damaged"),
    (Fault("slice", "length", at=10), "ends before byte"),
]


def name_of(fault: object) -> str | None:
    if not isinstance(fault, Fault):
        return ""
    parts = [fault.match, fault.action, fault.status if fault.action == "status" else fault.at, fault.outcome]
    return "-".join(map(str, parts if fault.action == "job" else parts[:3])) + (
        "" if fault.nth == 1 else f"-{fault.nth}"
    )


@pytest.fixture
def shop() -> Iterator[KeboolaServer]:
    """Slices of some kilobytes, so that there is a middle; a job takes two polls."""
    with KeboolaServer(polls=2) as server:
        server.put_table(TABLE, columns=COLUMNS, rows=ROWS * 30)
        yield server
        server.faults.release()


@pytest.mark.parametrize("fault", SURVIVED, ids=name_of)
def test_a_passing_fault_costs_no_row(shop: KeboolaServer, time: Time, fault: Fault) -> None:
    extractor = extractor_of(shop, time, timeout=(1.0, 0.2), deadline=600.0)
    hits: list[None] = []
    shop.faults.add(replace(fault, do=lambda: hits.append(None)))
    assert sorted(rows_of(export(extractor))) == sorted(ROWS * 30)
    assert hits
    exports = [request for request in shop.requests if request.kind == "export-async"]
    assert {request.headers["x-kbc-runid"] for request in exports} == {"run-17"}


@pytest.mark.parametrize("fault, message", FATAL, ids=name_of)
def test_a_lasting_fault_is_named_and_the_next_export_is_whole(
    shop: KeboolaServer, time: Time, fault: Fault, message: str
) -> None:
    extractor = extractor_of(shop, time, timeout=(1.0, 0.2), deadline=600.0)
    shop.faults.add(fault)
    with pytest.raises(ExtractError, match=message) as caught:
        rows_of(export(extractor))
    assert TABLE in str(caught.value) and shop.token not in str(caught.value)
    shop.faults.clear()
    assert sorted(rows_of(export(extractor))) == sorted(ROWS * 30)


def test_expired_credentials_are_renewed_in_the_middle_of_a_table(shop: KeboolaServer, time: Time) -> None:
    exported = export(extractor_of(shop, time))
    rows = rows_of(replace(exported, slices=exported.slices[:2]))
    shop.expire_credentials()
    rows += rows_of(replace(exported, slices=exported.slices[2:]))
    assert sorted(rows) == sorted(ROWS * 30)
    slices = [request.path for request in shop.requests if request.kind == "slice" and request.status == 200]
    assert len(slices) == len(set(slices)) == 4, "a finished slice was fetched again"
    assert [request.kind for request in shop.requests].count("file") == 2


def test_credentials_are_renewed_by_age_before_they_expire(shop: KeboolaServer, time: Time) -> None:
    exported = export(extractor_of(shop, time))
    time.pause(2690)
    rows_of(replace(exported, slices=exported.slices[:1]))
    assert [request.kind for request in shop.requests].count("file") == 1
    time.pause(10)
    rows_of(replace(exported, slices=exported.slices[1:]))
    assert [request.kind for request in shop.requests].count("file") == 2


def test_a_file_that_is_gone_is_exported_again(shop: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(shop, time)
    for kind in ("file", "manifest"):
        body = '{"error": "gone", "code": "storage.files.notFound", "exceptionId": "e-1"}'
        shop.faults.add(Fault(kind, "status", status=404, body=body))
        assert sorted(rows_of(export(extractor))) == sorted(ROWS * 30)
    assert len(time.lines) == 2 and all("exporting again" in line for line in time.lines)


def test_a_table_that_is_imported_during_the_export_has_another_version_afterwards(
    shop: KeboolaServer, time: Time
) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.faults.add(Fault("job", do=lambda: shop.put_table(TABLE, columns=COLUMNS, rows=ROWS[:5])))
    assert sorted(rows_of(extractor.finish(extractor.start(table)))) == sorted(ROWS * 30)
    assert extractor.table(TABLE).version != table.version


def test_a_column_added_after_the_look_at_the_table_stays_out_of_the_export(shop: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.put_table(TABLE, columns=("new", *COLUMNS), rows=[("n", *row) for row in ROWS])
    assert sorted(rows_of(extractor.finish(extractor.start(table)))) == sorted(ROWS)


def test_a_table_deleted_after_the_look_at_it_is_named(shop: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(shop, time)
    table = extractor.table(TABLE)
    shop.put_table("in.c-shop.order_items", columns=COLUMNS, rows=ROWS)
    shop.delete_table(TABLE)
    with pytest.raises(
        ExtractError, match=r"^export of in.c-shop.orders: HTTP 404 .*Did you mean in.c-shop.order_items"
    ):
        extractor.start(table)


def test_a_stop_while_polling_ends_it_at_once(shop: KeboolaServer, time: Time) -> None:
    def stop(seconds: float) -> None:
        raise Cancelled(15)

    with pytest.raises(Cancelled, match="SIGTERM"):
        export(extractor_of(shop, time, pause=stop))


def test_slices_are_read_by_many_threads_while_credentials_expire(time: Time) -> None:
    with KeboolaServer(slices=40) as keboola, ThreadPoolExecutor(8) as pool:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS * 30)
        keboola.faults.add(Fault("slice", nth=20, do=keboola.expire_credentials))
        exported = export(extractor_of(keboola, time))
        pieces = pool.map(lambda piece: rows_of(replace(exported, slices=(piece,))), exported.slices)
        assert sorted(row for rows in pieces for row in rows) == sorted(ROWS * 30)
        assert [request.kind for request in keboola.requests].count("file") == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_five_percent_failing_requests_over_200_slices_cost_no_row(time: Time, seed: int) -> None:
    rows = [(str(number), "x" * (number % 50)) for number in range(200_000)]
    with KeboolaServer(slices=200) as keboola, ThreadPoolExecutor(4) as pool:
        keboola.put_table(TABLE, columns=COLUMNS, rows=rows)
        hits: list[None] = []
        for action in ("cut", "status"):
            keboola.faults.add(
                Fault("*", action, nth=None, share=0.025, seed=seed, at=0.5, status=503, do=lambda: hits.append(None))
            )
        exported = export(extractor_of(keboola, time))
        pieces = pool.map(lambda piece: rows_of(replace(exported, slices=(piece,))), exported.slices)
        assert sorted(row for part in pieces for row in part) == sorted(rows)
    assert len(exported.slices) == 200 and len(hits) > 3
