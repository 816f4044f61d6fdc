"""elt.to_integer, elt.to_date and elt.to_timestamp read a text or return NULL. They never fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from lib.elt_schema.installation import install
from lib.postgres.embedded.server import Server
from tests.support.databases import fresh_database, on, sql

INTEGERS = {
    "12": 12,
    " 12\r\n": 12,
    "-0012": -12,
    "+7": 7,
    "12.0": 12,
    "12.": 12,
    "1.0E+2": 100,
    "12.5": None,
    "9223372036854775807": 9223372036854775807,
    "9223372036854775808": None,
    "-9223372036854775808": -9223372036854775808,
    "-9223372036854775809": None,
    "1e19": None,
    "12345678901234567890": None,
    "": None,
    " ": None,
    "1,000": None,
    "0x10": None,
    "1_000": None,
    "NaN": None,
    "٣": None,
    "12 34": None,
}
DATES = {
    "2026-01-31": "2026-01-31",
    " 2026-01-31\n": "2026-01-31",
    "0001-01-01": "0001-01-01",
    "9999-12-31": "9999-12-31",
    "2024-02-29": "2024-02-29",
    "2000-02-29": "2000-02-29",
    "1900-02-29": None,
    "2026-02-29": None,
    "2026-04-31": None,
    "2026-13-01": None,
    "2026-00-10": None,
    "2026-01-00": None,
    "0000-01-01": None,
    "2026-1-31": None,
    "31.01.2026": None,
    "01/31/2026": None,
    "20260131": None,
    "2026-01-31 10:00": None,
    "infinity": None,
    "today": None,
    "٢٠٢٦-01-31": None,
    "": None,
}
TIMESTAMPS = {
    "2026-01-31": "2026-01-31 00:00:00+00",
    "2026-01-31 10:20": "2026-01-31 10:20:00+00",
    "2026-01-31T10:20:30": "2026-01-31 10:20:30+00",
    "2026-01-31T10:20:30Z": "2026-01-31 10:20:30+00",
    "2026-01-31T10:20:30.5+01:00": "2026-01-31 09:20:30.5+00",
    "2026-01-31 10:20:30-0330": "2026-01-31 13:50:30+00",
    "2026-01-31 10:20:30 +02": "2026-01-31 08:20:30+00",
    " 2026-01-31T00:10+00:30 ": "2026-01-30 23:40:00+00",
    "2026-01-31T23:59:59.9999999Z": "2026-01-31 23:59:59.999999+00",
    "2026-01-31T10:20:60": None,
    "2026-01-31T24:00": None,
    "2026-01-31T10:60": None,
    "2026-01-31T10": None,
    "2026-01-31T10:20+16": None,
    "2026-01-31T10:20 CET": None,
    "2026-02-30T10:20": None,
    "2026-01-31T10:20:30.": None,
    "2026-01-31-10:20": None,
    "now": None,
    "": None,
}


@pytest.fixture(scope="module", params=on(16, 18), ids=lambda version: f"postgresql_{version}")
def connection(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Iterator[Connection]:
    with fresh_database(servers[request.param]) as database:
        opened = database.connect()
        install(opened)
        # a function must not depend on these
        sql(opened, "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'")
        yield opened


@pytest.mark.parametrize(
    "function, texts", [("to_integer", INTEGERS), ("to_date", DATES), ("to_timestamp", TIMESTAMPS)]
)
def test_a_text_is_read_or_null(connection: Connection, function: str, texts: Mapping[str, object]) -> None:
    shown = {
        "to_integer": "{}",
        "to_date": "to_char({}, 'YYYY-MM-DD')",
        "to_timestamp": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || "
        "rtrim(to_char({} AT TIME ZONE 'UTC', '.US'), '.0') || '+00'",
    }[function].replace("{}", f"elt.{function}(text)")
    assert dict(sql(connection, f"SELECT text, {shown} FROM unnest(%s) AS text", [*texts])) == texts
    assert sql(connection, f"SELECT elt.{function}(NULL)") == [(None,)]


def test_the_calendar_is_that_of_postgresql(connection: Connection) -> None:
    if connection.server_version < 160000:
        return  # there is nothing to compare with: pg_input_is_valid is new in 16
    wrong = sql(
        connection,
        """
        SET DateStyle = 'ISO, YMD';
        SELECT text, elt.to_date(text)
        FROM generate_series(1, 9999, 101) AS year
        CROSS JOIN generate_series(0, 13) AS month
        CROSS JOIN generate_series(0, 32) AS day
        CROSS JOIN to_char(year, 'FM0000"-"') AS years
        CROSS JOIN LATERAL (SELECT years || to_char(month, 'FM00"-"') || to_char(day, 'FM00') AS text) AS dates
        WHERE pg_input_is_valid(text, 'date') <> (elt.to_date(text) IS NOT NULL)
            OR CASE WHEN pg_input_is_valid(text, 'date') THEN text::date <> elt.to_date(text) END
        LIMIT 3
        """,
    )
    assert wrong == []


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(
        st.from_regex(r"[ +-]?[0-9]{0,20}\.?[0-9]{0,2}([eE][+-]?[0-9]{1,3})?", fullmatch=True)
        | st.from_regex(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{0,10})?)?)?(Z|[+-][0-9:]{0,5})?",
            fullmatch=True,
        )
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=20,
    )
)
def test_no_text_makes_them_fail(connection: Connection, texts: list[str]) -> None:
    rows = sql(
        connection,
        "SELECT text, elt.to_integer(text)::text, elt.to_date(text)::text, elt.to_timestamp(text)::text"
        " FROM unnest(%s) AS text",
        texts,
    )
    assert len(rows) == len(texts)


@pytest.mark.parametrize("function", ["to_integer", "to_date", "to_timestamp"])
def test_they_are_inlined(connection: Connection, function: str) -> None:
    """A function that is called for each row is ten times slower."""
    plan = sql(connection, f"EXPLAIN (VERBOSE) SELECT elt.{function}(text) FROM (SELECT 'x' || random()) AS t (text)")
    assert "elt." not in str(plan)
