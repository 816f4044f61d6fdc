"""The extractor against the sandbox's Storage API over real loopback HTTP."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kbcstorage.client import Client

from lib.errors import CredentialError, ExtractError
from lib.extract.keboola_catalog import KeboolaCatalog
from sandbox.keboola_server import KeboolaServer
from tests.support.clouds import CLOUDS
from tests.support.extraction import COLUMNS, ROWS, TABLE, Plain, Time, export, extractor_of, rows_of, told

PROVIDERS = ["gcp", "aws", "azure"]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def keboola() -> Iterator[KeboolaServer]:
    with KeboolaServer() as server:
        server.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        yield server


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
    assert asked.parameters == {"columns": ["id", "note"], "gzip": True}
    assert asked.headers["x-kbc-runid"] == "run-17"


@pytest.mark.parametrize("is_sliced", [True, False], ids=["sliced", "whole"])
def test_a_column_may_have_a_comma_in_its_name(time: Time, is_sliced: bool) -> None:
    with KeboolaServer(sliced=is_sliced) as keboola:
        keboola.put_table(TABLE, columns=("id", "price, net", "net"), rows=[("1", "2", "3")])
        assert rows_of(export(extractor_of(keboola, time))) == [("1", "2", "3")]


def test_the_end_of_a_token_is_shown_and_warned_of_a_week_ahead(keboola: KeboolaServer, time: Time) -> None:
    extractor = extractor_of(keboola, time)
    assert extractor.warnings() == []
    time.at = datetime(2026, 11, 20, 5, 59, tzinfo=UTC).timestamp()
    told(keboola, "verify", None, expires="2026-11-27T07:00:00+0100")
    assert extractor.describe().endswith(", token 4711 'sandbox', expires 2026-11-27 06:00 UTC")
    assert extractor.warnings() == []
    time.pause(120)
    (warning,) = extractor.warnings()
    assert warning.startswith("the Keboola token expires on 2026-11-27 at 06:00 UTC. Make a new one in Keboola (")
    assert warning.endswith("The token came from a test.") and keboola.token not in warning


@pytest.mark.parametrize("expires", ["soon", 5, [], "0001-01-01T00:00:00+0100", "9999-12-31T23:59:59-0100"])
def test_an_end_that_is_no_date_is_left_out(keboola: KeboolaServer, time: Time, expires: object) -> None:
    told(keboola, "verify", None, expires=expires)
    assert extractor_of(keboola, time).describe().endswith("'sandbox'")
    assert extractor_of(keboola, time).warnings() == []


def test_typed_timestamps_are_known_to_be_cut(time: Time) -> None:
    hints = {"seen": {"KBC.datatype.basetype": "TIMESTAMP"}, "day": {"KBC.datatype.basetype": "DATE"}}
    for quoting, is_typed, cut in (
        ("snowflake", True, ("seen",)),
        ("snowflake", False, ()),
        ("bigquery", True, ()),
    ):
        with KeboolaServer(quoting=quoting) as keboola:
            keboola.put_table(TABLE, columns=("id", "seen", "day"), rows=[], typed=is_typed, hints=hints)
            assert extractor_of(keboola, time).table(TABLE).cut_timestamps == cut


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
        with pytest.raises(
            ExtractError, match=rf"export of {TABLE} \(job \d+\): still 'processing' after 60 .*export_minutes"
        ):
            export(extractor_of(keboola, time))


def test_a_refused_token_says_token_or_stack(keboola: KeboolaServer, time: Time) -> None:
    words = "Invalid access token .*another stack than 127.*The token came from a test."
    with pytest.raises(CredentialError, match=words) as caught:
        extractor_of(keboola, time, token=Plain("815-4711-wrong")).describe()
    assert "815-4711-wrong" not in str(caught.value)


def test_a_dead_host_is_named_with_the_place_that_names_it(keboola: KeboolaServer, time: Time) -> None:
    with pytest.raises(ExtractError) as caught:
        extractor_of(keboola, time, url="http://127.0.0.1:1").describe()
    assert "no answer from 127.0.0.1:1: connection refused" in str(caught.value)
    assert "The host is that of [keboola] url in elt_settings.toml: is it right" in str(caught.value)
    assert str(caught.value).endswith("must be at that url again. The rows loaded before stay.")


def test_who_waits_for_an_answer_is_told_within_seconds(keboola: KeboolaServer, time: Time) -> None:
    with pytest.raises(ExtractError, match="connection refused; gave up after 3 tries in [234] s") as caught:
        KeboolaCatalog(extractor_of(keboola, time, url="http://127.0.0.1:1", patient=False)).detail(TABLE)
    assert "is 127.0.0.1:1 up?" in str(caught.value) and "rows" not in str(caught.value)


@pytest.mark.parametrize("provider", ["gcp", "aws"])
def test_without_the_variables_of_a_local_keboola_the_real_cloud_is_not_asked(provider: str, time: Time) -> None:
    with KeboolaServer(polls=0, store=CLOUDS[provider]) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        (variable,) = keboola.store_environment
        with pytest.raises(ExtractError, match=f"but {variable} does not say where .* type the `export` lines"):
            export(extractor_of(keboola, time, environ={}))


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


@pytest.mark.parametrize("is_sliced", [True, False], ids=["sliced", "whole"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_cloud_delivers_every_row_whatever_its_keys_look_like(time: Time, provider: str, is_sliced: bool) -> None:
    with KeboolaServer(
        store=CLOUDS[provider], sliced=is_sliced, key_prefix="exp 2/a+b=ü&%25~", clock=time.now
    ) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        assert sorted(rows_of(export(extractor_of(keboola, time)))) == sorted(ROWS)


# Keboola's client leaves its temporary folder to the garbage collector
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
@pytest.mark.parametrize("quoting", ["snowflake", "bigquery"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_keboolas_own_client_reads_the_same_rows(
    time: Time, provider: str, quoting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # it writes slices into the working directory
    monkeypatch.chdir(tmp_path)
    with KeboolaServer(store=CLOUDS[provider], quoting=quoting) as keboola:
        for name, value in keboola.store_environment.items():
            monkeypatch.setenv(name, value)
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS)
        path = Client(keboola.url, keboola.token).tables.export_to_file(TABLE, str(tmp_path))
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = map(tuple, csv.reader(file, strict=True))
        exported = export(extractor_of(keboola, time))
        assert header == exported.table.columns
        assert sorted(rows) == sorted(rows_of(exported))
